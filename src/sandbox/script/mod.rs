//! Scripts: what a provider is like, who has a mailbox there, and what happens when, as a TOML file says it.
//!
//! Not here: reading files from disk and printing (`app`).

mod play;
mod read;
mod step;

#[cfg(test)]
mod tests;

use std::{collections::BTreeMap, net::SocketAddr};

pub use play::play;

use super::{Behaviour, Doors, OAuthSettings};
use crate::mail::Address;
use step::Step;

/// The scripts that come with the program, by name.
pub const SHIPPED: [(&str, &str); 6] = [
    ("gmail", include_str!("../../../config/sandbox/gmail.toml")),
    ("gmail-limits", include_str!("../../../config/sandbox/gmail-limits.toml")),
    ("microsoft", include_str!("../../../config/sandbox/microsoft.toml")),
    ("microsoft-throttling", include_str!("../../../config/sandbox/microsoft-throttling.toml")),
    ("revoked", include_str!("../../../config/sandbox/revoked.toml")),
    ("rough-connections", include_str!("../../../config/sandbox/rough-connections.toml")),
];

/// A script that has been read and found right.
#[derive(Debug)]
pub struct Script {
    pub title: String,
    pub behaviour: Behaviour,
    pub domains: Vec<String>,
    pub oauth: OAuthSettings,
    pub doors: Doors,
    pub users: Vec<User>,
    /// Where mail for other domains goes.
    pub routes: BTreeMap<String, SocketAddr>,
    /// Each list is played by itself, its steps one after the other.
    pub(super) chains: Vec<Vec<Step>>,
}

/// Somebody with a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct User {
    pub address: Address,
    pub password: String,
}

/// What is wrong with a script, and where.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}{}: {text}", .field.as_ref().map(|field| format!(", field {field}")).unwrap_or_default())]
pub struct ScriptError {
    /// From 1.
    pub line: usize,
    pub field: Option<String>,
    pub text: String,
}
