//! The shared corpus of hostile input, which lies beside the repository where it is at hand.
//!
//! Not here: judging a vector. A test whose vectors are missing says that it was not run, and passes.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its own part; a test may panic")]

use std::{io::Write as _, path::PathBuf};

use serde_json::Value;

/// The vectors of one file of the corpus; none when this checkout stands alone.
pub fn vectors(name: &str) -> Vec<Value> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("../shared/corpora/hostile/vectors")
        .join(format!("{name}.jsonl"));
    let Ok(text) = std::fs::read_to_string(&path) else {
        // Past the capture of what a passing test prints.
        writeln!(std::io::stderr(), "NOT RUN: the vectors {name}, there is no {}", path.display()).unwrap();
        return Vec::new();
    };
    text.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

pub fn id(vector: &Value) -> &str {
    vector["id"].as_str().unwrap()
}

/// The octets that the characters U+0000 to U+00FF stand for.
pub fn octets(vector: &Value) -> Vec<u8> {
    let text = vector["bytes"].as_str().unwrap();
    text.chars().map(|c| u8::try_from(u32::from(c)).unwrap_or(b'?')).collect()
}
