//! What the store promises, on both engines.

mod engine;
mod intake;
mod plans;
mod schema;
mod sealing;
