//! The kind of a message: written by a person, or one of the things programs send.
//!
//! Not here: telling them apart (`mail::automatic`, `mail::message`).

use serde::{Deserialize, Serialize};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    Mail,
    AutoReply,
    Bounce,
    Invitation,
    Forward,
}
