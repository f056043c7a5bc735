//! Whether a message is from whom it says: DKIM, SPF, DMARC and ARC as pure functions of the message and of what DNS said.
//!
//! Each asks [`Answers`] for the records it needs; what is not there yet is noted, and the function says that it waits. Whoever
//! calls looks the names up and asks again. Not here: sockets, time limits and budgets (`flow::sender`), and what is made of it.

mod answers;
mod arc;
mod author;
mod canonical;
mod dkim;
mod dmarc;
mod public_key;
mod raw_field;
mod results;
mod spf;
mod spf_macro;
mod spf_record;
mod tag_list;

pub use answers::{Answer, Answers, Question, Record, RecordKind};
pub use arc::Chain;
pub use author::{Author, author};
pub use dkim::{Checked, Signature, Verdict, signatures};
pub use dmarc::{Policy, Unknown, Walk};
pub use raw_field::split;
pub use results::{Found, Results};
pub use spf::{Client, SpfResult, lets_anybody_send, publishes_spf, spf};
