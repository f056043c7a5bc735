//! The provider's authorization server (RFC 6749, RFC 7636, RFC 7009, RFC 7662, RFC 9207, OpenID Connect Core 1.0): what it
//! has granted to whom, and its doors.
//!
//! Not here: proof of who somebody is. Whoever opens the consent page says which user he is: it is a sandbox.

mod authority;
mod consent;
mod doors;
mod token;

#[cfg(test)]
mod tests;

pub(super) use authority::Authority;
pub use authority::{Issued, OAuthSettings, Rotation};
pub(super) use doors::serve;
