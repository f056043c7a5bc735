//! Opens the store that is there, for commands that look at it: nothing is made, and the tables stay as they are.
//!
//! Not here: the gateway's own start (`parts`), which makes what is missing.

use std::path::PathBuf;

use secrecy::ExposeSecret as _;

use crate::{
    config::Config,
    store::{MasterKey, MasterKeyError, OpenError, Options, Store},
};

/// Why the stored data cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum StoredError {
    #[error("there is no store yet at {}; the first `mailweave serve` makes it", .0.display())]
    None(PathBuf),
    #[error("there is no master key at {}; without it the store cannot be read: put the copy you keep there", .0.display())]
    NoMasterKey(PathBuf),
    #[error("cannot use the master key (secrets.master_key_file)")]
    MasterKey(#[from] MasterKeyError),
    /// The embedded store has one process at a time.
    #[error("a running gateway holds the store ({})", .0.display())]
    InUse(PathBuf),
    #[error("cannot open the store (store.url)")]
    Open(#[source] OpenError),
}

/// Opens it, if its tables are this release's.
///
/// # Errors
/// [`StoredError`], by what the operator does next.
pub async fn open(config: &Config) -> Result<Store, StoredError> {
    let url = config.store_url();
    if let Some(path) = config.embedded_file()
        && !path.exists()
    {
        return Err(StoredError::None(path));
    }
    let key_file = config.master_key_file();
    if !key_file.exists() {
        return Err(StoredError::NoMasterKey(key_file));
    }
    let options = Options {
        url: url.expose_secret().to_owned(),
        blob_dir: config.node.data_dir.join("blobs"),
        master_key: MasterKey::load(&key_file)?,
    };
    Store::open_as_it_is(&options).await.map_err(|error| match error {
        OpenError::InUse(lock) => StoredError::InUse(lock),
        other => StoredError::Open(other),
    })
}
