//! How threading keys lie in the index: hashed once more, with a key of the workspace.
//!
//! A threading key is a plain hash of an id and a person, and outlives its message where the conversation goes on: who reads
//! the database and knows both could else see that mail was here which is erased since. Not here: the index (`conversations`)
//! and what keys there are (`core::threading`).

use blake3::Hasher;

use super::{Error, Session};

/// Hashing of threading keys; never change it: the index of a store is by it.
const PURPOSE: &str = "mailweave 2026 threading keys";

/// A threading key, in the index and as it was asked for.
#[derive(Debug, Clone, Copy)]
pub(super) struct IndexKey {
    pub kept: [u8; 16],
    pub asked: [u8; 16],
}

impl Session {
    /// These keys with what the index has in their places, in the same order.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub(super) async fn index_keys(&mut self, keys: &[[u8; 16]]) -> Result<Vec<IndexKey>, Error> {
        let id = self.workspace_key().await?;
        let secret = self.key(id).await?.derive(PURPOSE);
        let index_key = |asked: &[u8; 16]| {
            let mut kept = [0; 16];
            Hasher::new_keyed(&secret).update(asked).finalize_xof().fill(&mut kept);
            IndexKey { kept, asked: *asked }
        };
        Ok(keys.iter().map(index_key).collect())
    }

    /// The same without the keys that were asked for.
    ///
    /// # Errors
    /// As [`Session::index_keys`].
    pub(super) async fn kept_keys(&mut self, keys: &[[u8; 16]]) -> Result<Vec<[u8; 16]>, Error> {
        Ok(self.index_keys(keys).await?.into_iter().map(|key| key.kept).collect())
    }
}
