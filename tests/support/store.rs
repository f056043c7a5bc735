//! The store of a gateway under test.
//!
//! Not here: the servers behind it (`postgres`).

use std::path::Path;

use mailweave::{config::Config, store::MasterKey};

use super::postgres::{Database, Postgres};

/// Which engine keeps it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Engine {
    Sqlite,
    Postgres,
}

impl Engine {
    /// A database of the test's own, where the engine is a server.
    pub fn database(self) -> Option<Database<'static>> {
        (self == Self::Postgres).then(|| Postgres::shared().database())
    }
}

impl Database<'_> {
    /// Has a gateway keep its data here, sealed under a key in this directory.
    pub fn keep_data_of(&self, config: &mut Config, directory: &Path) {
        let key = directory.join("master.key");
        MasterKey::create(&key).unwrap();
        config.secrets.master_key_file = Some(key);
        config.store.url = Some(self.url().into());
    }
}
