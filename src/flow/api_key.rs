//! API keys: made from 256 random bits, kept as a hash, found by it.
//!
//! Not here: what a scope allows (`core::people`) and the instance administrator's key (`http`).

use sha2::{Digest, Sha256};

use crate::{
    core::people::ApiKey,
    store::{Error, Store},
};

/// Every key begins so, that a leaked one can be searched for.
pub const KEY_PREFIX: &str = "mwk_";

/// The text of a new key, from 256 random bits.
#[must_use]
pub fn secret(random: [u8; 32]) -> String {
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{KEY_PREFIX}{hex}")
}

/// What is stored of a key. A plain hash is enough: nobody guesses 256 bits.
#[must_use]
pub fn hash(secret: &str) -> [u8; 32] {
    Sha256::digest(secret.as_bytes()).into()
}

/// The live key with this secret.
///
/// # Errors
/// Those of the store.
pub async fn find(store: &Store, secret: &str) -> Result<Option<ApiKey>, Error> {
    if !secret.starts_with(KEY_PREFIX) {
        return Ok(None);
    }
    store.key_by_hash(&hash(secret)).await
}
