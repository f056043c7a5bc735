//! The built-in mail provider: an IMAP and SMTP server in memory, the demo's world and the tests' peer, which fails as told.
//!
//! Not here: durability, spam filtering, delivery to the Internet. It listens on loopback and forgets all when dropped.

mod behaviour;
mod header;
mod imap;
mod ledger;
mod mailbox;
mod provider;
mod running;
mod smtp;
mod state;
mod tap;

#[cfg(test)]
mod tests;

pub use behaviour::{Act, Behaviour, Extensions, MailboxNames, SaveSent, Service, Trigger};
pub use ledger::{Extent, Fetched, Said};
pub use mailbox::{FlagChange, SpecialUse, StoredMail};
pub use provider::Provider;
pub use running::{Options, Running, Tls};
pub use state::{Limits, SandboxError};
