//! Accounts that are followed: what arrives at the provider reaches the conversation once, whatever the provider does.
//!
//! Not here: what single responses mean to the client (`imap_dialogues`), and sending (`flows`).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test a panic is an answer")]

#[path = "../support/mod.rs"]
mod support;

mod world;

mod erased;
mod faults;
mod held;
mod honest;
