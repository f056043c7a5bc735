//! The provider's IMAP4rev1 server (RFC 3501 with RFC 2177, 2971, 3691, 4315, 4959, 5161, 6154, 6851, 7162, 7888): a
//! session without I/O, and a driver beside it.
//!
//! Not here: the gateway's IMAP client (`crate::imap`), and deviations from the protocol other than the armed faults.

mod append;
mod auth;
mod driver;
mod fetch;
mod heard;
mod input;
mod mailboxes;
mod search;
mod section;
mod select;
mod session;
mod store;
mod structure;
mod suffer;
mod view;
mod wire;

#[cfg(test)]
mod dialogues;

pub(super) use driver::serve;
