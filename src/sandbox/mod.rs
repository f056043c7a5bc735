//! The built-in mail provider: an IMAP, SMTP and OAuth2 server in memory, the demo's world and the tests' peer, which fails as told.
//!
//! Not here: durability, spam filtering, delivery to the Internet. It listens on loopback and forgets all when dropped.

mod allowance;
mod behaviour;
mod header;
mod imap;
mod labels;
mod ledger;
mod mailbox;
mod oauth;
mod provider;
mod running;
pub mod script;
mod smtp;
mod state;
mod tap;

#[cfg(test)]
mod habits;
#[cfg(test)]
mod tests;

pub use allowance::{Allowance, Rate};
pub use behaviour::{Act, Behaviour, Extensions, Farewell, MailboxNames, Manner, SaveSent, Service, Trigger};
pub use ledger::{Extent, Fetched, Said};
pub use mailbox::{FlagChange, GoogleIds, SpecialUse, StoredMail};
pub use oauth::{Issued, OAuthSettings, Rotation};
pub use provider::Provider;
pub use running::{Doors, Options, Running, Tls};
pub use state::{Limits, SandboxError};
