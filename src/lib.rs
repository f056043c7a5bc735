//! Mailweave: a gateway between a CRM, its users' own mailboxes and the outside world.
//!
//! Three doors (capture by BCC address, submission by the CRM, sync of the users' accounts) feed one threading core.
//! Read the modules in this order; each may use only what stands above it (`tests/architecture.rs` holds the layers):
//! `mail` and `net` know nothing of ours; `core` and the protocols `smtp` and `imap` know only `mail`; `store` keeps;
//! `flow` has one use case a file; `worker`, `http` and `sandbox` drive the flows; `app` wires it all together.

mod failpoint;

pub mod mail;
pub mod net;

pub mod core;

pub mod imap;
pub mod smtp;

pub mod store;

pub mod queue;

pub mod coord;

pub mod webhook;

pub mod account;

pub mod flow;

pub mod sandbox;
pub mod worker;

pub mod http;

pub mod app;
pub mod cli;
pub mod config;
pub mod telemetry;
