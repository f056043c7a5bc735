//! RFC 5321, server and client: sessions without I/O, and small tokio drivers beside them. Knows no product.
//!
//! Read `reply`, `command`, `data` and `session` for the server, `server` for its driver; `client` is the other side.
//! Not here: dialling, TLS settings and egress rules (`net`), and every decision about mail (`Handler`).

mod admission;
mod auth;
mod client;
mod command;
mod data;
mod guesses;
mod handler;
mod limits;
mod received;
mod reply;
mod server;
mod session;

pub use admission::client_of;
pub use auth::{Credentials, Mechanism};
pub use client::{
    Capabilities, Channel, Client, ClientError, Outcome, PendingDot, Stage, Timeouts, Transmission,
};
pub use data::{DataReader, DataState, received_fields};
pub use handler::{AuthOutcome, Handler, HandlerFactory, ListenerKind, SessionInfo};
pub use limits::{AUTH_LINE_BYTES_MAX, Budget, COMMAND_LINE_BYTES_MAX, Limits};
pub use received::{received_field, received_over_http};
pub use reply::{Enhanced, Reply};
pub use server::{Capacity, Server};
pub use session::{Answer, Question, Session, Settings, Step, Waiting};
