//! The HTTP API as a CRM meets it: real requests over loopback, on both stores.
//!
//! Not here: workers. What is queued stays queued, and accounts stay as they were made.

// A panic here is a failed test, and says more than an error handed up.
#![allow(clippy::unwrap_used, clippy::indexing_slicing, clippy::string_slice)]

#[path = "../support/mod.rs"]
mod support;

mod access;
mod accounts;
mod events;
mod limits;
mod mail;
mod once;
mod people;
mod policy;
mod protocol;
mod server;
mod trail;
mod visibility;
mod workspaces;
