//! The shared corpus of hostile input, which lies beside the repository where it is at hand.
//!
//! Not here: judging a vector. A test whose vectors are missing says that it was not run, and passes.

#![allow(dead_code, clippy::unwrap_used, reason = "each test binary uses its own part; a test may panic")]

use std::{
    fs,
    io::{Write as _, stderr},
    path::PathBuf,
};

use serde_json::Value;

/// The hostile vectors of one file of the corpus; none when this checkout stands alone.
pub fn vectors(name: &str) -> Vec<Value> {
    vectors_of("hostile", name)
}

/// The vectors of one file of a set of the corpus.
pub fn vectors_of(set: &str, name: &str) -> Vec<Value> {
    let file = directory().join("../..").join(set).join("vectors").join(format!("{name}.jsonl"));
    let Ok(text) = fs::read_to_string(file) else {
        tell_missing(&format!("the vectors {name}"));
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

fn directory() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../shared/corpora/hostile/vectors")
}

/// Straight to stderr: what a passing test prints is kept back.
fn tell_missing(what: &str) {
    let line = format!("NOT RUN: {what}; there are no vectors at {}\n", directory().display());
    stderr().write_all(line.as_bytes()).unwrap();
}

/// The one test whose output is shown by nextest though it passes (`.config/nextest.toml`).
#[test]
fn a_missing_corpus_is_told() {
    if !directory().is_dir() {
        tell_missing("any test of this program with vectors of the corpus");
    }
}
