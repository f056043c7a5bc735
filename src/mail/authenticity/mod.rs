//! Whether a message is from whom it says: DKIM, SPF, DMARC and ARC as pure functions of the message and of what DNS said.
//!
//! Each asks [`Answers`] for the records it needs; what is not there yet is noted, and the function says that it waits. Whoever
//! calls looks the names up and asks again. Not here: sockets, time limits and budgets (`flow::sender`), and what is made of it.

mod author;
mod raw_field;

pub use author::{Author, author};
