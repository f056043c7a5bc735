//! What the targets share: a session's peer, and how sanitised HTML is read again.
//!
//! Not here: the targets (`targets`), each of which says what must hold whatever the bytes, and the seeds (`seeds.rs`).

#[path = "../../tests/allow_list/mod.rs"]
pub mod allow_list;
#[path = "../../tests/smtp_peer/mod.rs"]
pub mod smtp_peer;
