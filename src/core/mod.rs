//! What a CRM gateway means, as pure decisions over facts: ids, routes, attribution, threading, policy, sync plans, retry.
//!
//! Pure like `mail`: no I/O, no clock, no randomness. Whoever calls passes `now`, ids and jitter in.

pub mod ids;
