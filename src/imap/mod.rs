//! An IMAP client (RFC 9051, RFC 3501): verbs over any stream, tolerant of what real servers send, bounded whatever they do.
//!
//! Knows no product: no accounts, no sync, no contacts. Read `framing` (where a response ends), `token`, `response` and
//! `fetch` (what it says), `command` (what we say), `session` and `client` (who speaks when), then the verbs.

mod append;
mod body;
mod capability;
mod choose;
mod client;
mod code;
mod command;
mod date;
mod error;
mod fetch;
mod flag;
mod framing;
mod headers;
mod idle;
mod limits;
mod login;
mod mailbox;
mod mailboxes;
mod quirks;
mod response;
mod search;
mod session;
mod token;
mod uid;
mod utf7;

pub use append::{Append, Appended};
pub use body::Body;
pub use capability::Capabilities;
pub use choose::{Chosen, OwnName, choose};
pub use client::Client;
pub use code::ResponseCode;
pub use error::{Error, Fault, Insecurity, Kind, Result, ServerText};
pub use fetch::GmailItems;
pub use flag::{Flag, Flags};
pub use headers::{HeaderExtent, HeaderFetch, HeaderItem};
pub use idle::{IdleEvent, News};
pub use limits::{Deadlines, Limits};
pub use mailbox::{ListedMailbox, MailboxName, MailboxStatus, SpecialUse};
pub use mailboxes::{Resume, Selected};
pub use quirks::is_exchange_placeholder;
pub use search::Criterion;
pub use uid::{ModSeq, Uid, UidSet, UidValidity};
