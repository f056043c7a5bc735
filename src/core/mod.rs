//! What a CRM gateway means, as pure decisions over facts: ids, routes, attribution, threading, policy, sync plans, retry.
//!
//! Pure like `mail`: no I/O, no clock, no randomness. Whoever calls passes `now`, ids and jitter in.

pub mod ids;

pub mod account;
pub mod account_cause;
pub mod grant;
pub mod inbound;
pub mod inquiry;
pub mod message;
pub mod people;
pub mod provider;
pub mod route;
pub mod sender;
pub mod submission;
pub mod webhook;

pub mod allowance;
pub mod attribution;
pub mod copies;
pub mod evidence;
pub mod forwarding;
pub mod limits;
pub mod origin;
pub mod policy;
pub mod relay;
pub mod reply_address;
pub mod retry;
pub mod subject;
pub mod sync_plan;
pub mod threading;
pub mod trail;

pub mod decision;
pub mod event;
pub mod explanation;
pub mod job;
pub mod quarantine;
pub mod question;
