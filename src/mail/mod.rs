//! The vocabulary of Internet mail as values that cannot be wrong: RFC 5321, 5322, 2045, 3464 and 9051.
//!
//! Pure: no I/O, no clock, no randomness, nothing of CRMs. Reading mail never fails, it yields a message and its defects.

mod address;
mod envelope;
mod kind;
mod message_id;

pub use address::{Address, AddressError, Party, canonical_domain};
pub use envelope::{Envelope, Notify, Recipient, Return, ReversePath};
pub use kind::Kind;
pub use message_id::MessageId;
