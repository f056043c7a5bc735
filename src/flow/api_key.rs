//! API keys: made from 256 random bits, kept as a hash, found by it.
//!
//! Not here: what a scope allows (`core::people`) and the instance administrator's key (`http`).

use jiff::SignedDuration;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;

use crate::{
    core::people::ApiKey,
    store::{Error, Store},
};

/// Every key begins so, that a leaked one can be searched for.
pub const KEY_PREFIX: &str = "mwk_";

/// How exactly it is known when a key was last used.
const NOTED_EVERY: SignedDuration = SignedDuration::from_mins(1);
/// Held while the use of a key is noted: one note at a time is enough, since the next use makes up for one left out.
static NOTING: Semaphore = Semaphore::const_new(1);

/// The text of a new key, from 256 random bits.
#[must_use]
pub fn secret(random: [u8; 32]) -> String {
    prefixed(KEY_PREFIX, random)
}

/// 256 random bits as text, for what is as secret as a key and none.
#[must_use]
pub fn prefixed(prefix: &str, random: [u8; 32]) -> String {
    let hex: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{prefix}{hex}")
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

/// Writes down that a key was used, beside what it is used for: a reader does not wait for a writer's turn.
pub fn note_use(store: &Store, key: &ApiKey) {
    let now = super::now();
    let recent = key.last_used_at.is_some_and(|used| now.duration_since(used) < NOTED_EVERY);
    let Some(turn) = NOTING.try_acquire().ok().filter(|_| !recent) else { return };
    let (store, key) = (store.clone(), key.clone());
    tokio::spawn(async move {
        let noted = async {
            let mut system = store.system().await?;
            system.touch_key(&key, now).await?;
            system.commit().await
        };
        if let Err(error) = noted.await {
            tracing::debug!(error = %error, "the last use of a key could not be noted");
        }
        drop(turn);
    });
}
