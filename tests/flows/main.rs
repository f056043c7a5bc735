//! What the gateway promises, held to real servers: each flow from end to end, on SQLite and on PostgreSQL, set up over
//! the HTTP API as a CRM would.
//!
//! Mail clients and contacts write through Postfix and read at Dovecot. Where a server has to fail at a certain moment the
//! built-in provider takes their place. Not here: protocols in every detail (`smtp_dialogues`, `imap_dialogues`).

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "in a test a panic is an answer")]

#[path = "../corpus/mod.rs"]
mod corpus;
#[path = "../support/mod.rs"]
mod support;

mod crm;
mod forgeries;
mod forwarded;
mod forwarded_kept;
mod gateway;
mod letter;
mod sandboxed;
mod world;

mod capture;
mod capture_refusals;
mod completeness;
mod connect;
mod copies;
mod copies_lost;
mod counts;
mod delegated;
mod delivery;
mod discovery;
mod doubt;
mod erase;
mod events;
mod excluded;
mod follow;
mod handed_in_again;
mod hostile_imap;
mod isolation;
mod life;
mod like_gmail;
mod like_microsoft;
mod limits;
mod limits_fail;
mod limits_presets;
mod machines;
mod metrics;
mod no_relay;
mod people;
mod places;
mod poison;
mod policies;
mod preset_accounts;
mod preset_mail;
mod privacy;
mod profiles;
mod proof;
mod quarantine;
mod recognise;
mod relay;
mod relay_people;
mod renamed;
mod repairs;
mod resync;
mod returned;
mod secrets;
mod shared;
mod simulate;
mod subjects;
mod submission;
mod submission_refusals;
mod threads;
mod tokens;
mod traffic;
mod trust;
mod visible;
mod way_out;
mod webhooks;
mod why;

/// Runs a test on both engines: `both! { fn name(engine) { … } }`.
macro_rules! both {
    ($($(#[$meta:meta])* fn $name:ident($engine:ident) $body:block)*) => {$(
        $(#[$meta])*
        mod $name {
            #[allow(unused_imports, reason = "not every test needs all that its file imports")]
            use super::*;

            fn run($engine: crate::support::store::Engine) $body

            #[test]
            fn sqlite() {
                run(crate::support::store::Engine::Sqlite);
            }

            #[test]
            fn postgres() {
                run(crate::support::store::Engine::Postgres);
            }
        }
    )*};
}
pub(crate) use both;
