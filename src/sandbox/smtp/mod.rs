//! The provider's SMTP doors, submission (RFC 6409) and MX, on the gateway's own sans-I/O session and client.
//!
//! Not here: SMTP (`crate::smtp`), and the faults in between (`tap`).

/// What the provider calls itself.
const HOSTNAME: &str = "mail.sandbox.test";

mod desk;
mod driver;
mod relay;

pub(super) use desk::Desk;
pub(super) use driver::{Door, serve};
pub(super) use relay::Relay;
