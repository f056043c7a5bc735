//! The real program, killed, stopped, starved and talked at: what it has acknowledged stays true.
//!
//! Not here: what each flow does when nothing goes wrong (`tests/flows`), and the protocol by itself (`tests/smtp_*`).

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may panic; that is how it fails"
)]

#[path = "../corpus/mod.rs"]
mod corpus;
#[path = "../support/mod.rs"]
mod support;

mod api;
mod disk;
mod erase;
mod faults;
mod gateway;
mod hostile;
mod kill;
mod load;
mod midnight;
mod peer;
mod places;
mod power;
mod proof;
mod start;
mod stop;
mod world;
