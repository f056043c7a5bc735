//! What the store promises, on both engines.

mod engine;
mod intake;
mod schema;
mod sealing;
