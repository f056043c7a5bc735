//! The built-in mail provider: an IMAP and SMTP server in memory, the demo's world and the tests' hostile peer.
//!
//! Not here: durability, spam filtering, delivery to the Internet. It listens on loopback and forgets all when dropped.

mod behaviour;
mod fault;
mod gate;
mod header;
mod imap;
mod ledger;
mod mailbox;
mod provider;
mod running;
mod script;
mod smtp;
mod state;
mod tap;

#[cfg(test)]
mod tests;

pub use behaviour::{Act, Behaviour, Extensions, MailboxNames, SaveSent, Service, Trigger};
pub use fault::{FaultProxy, Protocol};
pub use gate::{At, Then};
pub use imap::{Security, Session, Step};
pub use ledger::{Extent, Fetched, Said};
pub use mailbox::{FlagChange, SpecialUse, StoredMail};
pub use provider::Provider;
pub use running::{Options, Running, Tls};
pub use script::{Cue, ScriptedPeer};
pub use state::{Limits, SandboxError};
