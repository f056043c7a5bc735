//! `mailweave master-key rotate`: another master key in the place of the one that somebody may have seen.
//!
//! Interrupted at any moment, it is finished by running it again: the new key is durable before it wraps anything, and the old
//! one stays. Not here: wrapping (`store`).

use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail};

use super::stored::{self, StoredError};
use crate::{
    config::Config,
    store::{MasterKey, OpenError},
};

/// Rotates the key of the store that this configuration names.
///
/// # Errors
/// What stands in the way, and what to do about it. The store is then as it was.
pub async fn rotate(config: Option<&Path>) -> anyhow::Result<()> {
    let config = Config::load(config)?.config;
    let count = rotate_in(&config).await?;
    println!("{count} keys are wrapped by the new master key, {}.", config.master_key_file().display());
    println!("The former one is {}: backups from before need it.", beside(&config, "old").display());
    Ok(())
}

async fn rotate_in(config: &Config) -> anyhow::Result<u64> {
    let (file, new_file) = (config.master_key_file(), beside(config, "new"));
    let (old, new) = (MasterKey::load(&file)?, made_or_found(&new_file)?);
    let count = match stored::open_with(config, old).await {
        Ok(store) => {
            let at_work = store.accounts_at_work().await?;
            let rotated = if at_work == 0 { Some(store.rotate_master_key(&new).await) } else { None };
            store.close().await;
            let Some(rotated) = rotated else {
                bail!("{at_work} accounts are at work: stop every node, wait half a minute, and try again")
            };
            rotated?
        }
        // It was interrupted after the store had been changed: what is left is to put the key in its place.
        Err(StoredError::Open(OpenError::MasterKey)) => {
            let store = stored::open_with(config, new).await;
            store.context("neither this master key nor the new one opens the store")?.close().await;
            0
        }
        Err(error @ StoredError::InUse(_)) => return Err(error).context("stop the gateway first"),
        Err(error) => return Err(error.into()),
    };
    put_in_place(config, &file, &new_file)?;
    Ok(count)
}

fn beside(config: &Config, what: &str) -> PathBuf {
    let mut path = config.master_key_file().into_os_string();
    path.push(".");
    path.push(what);
    path.into()
}

fn made_or_found(file: &Path) -> anyhow::Result<MasterKey> {
    Ok(if file.exists() { MasterKey::load(file)? } else { MasterKey::create(file)? })
}

/// The old key is beside the new one before that takes its name: at no moment is either missing.
fn put_in_place(config: &Config, file: &Path, new_file: &Path) -> anyhow::Result<()> {
    let old_file = beside(config, "old");
    let moved = || -> std::io::Result<()> {
        if old_file.exists() {
            std::fs::remove_file(&old_file)?;
        }
        std::fs::hard_link(file, &old_file)?;
        std::fs::rename(new_file, file)?;
        let directory = file.parent().filter(|parent| !parent.as_os_str().is_empty());
        std::fs::File::open(directory.unwrap_or(Path::new(".")))?.sync_all()
    };
    moved()
        .context("the store has the new master key, but its file could not be put in place: run this again")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        app::parts,
        core::{ids::WorkspaceId, people::Workspace},
        flow,
        store::{Store, mint},
    };

    fn config(directory: &Path) -> Config {
        let data_dir = directory.display().to_string();
        Config::read(None, [("MAILWEAVE__NODE__DATA_DIR".to_owned(), data_dir)]).unwrap().config
    }

    async fn sealed(store: &Store) -> WorkspaceId {
        let id: WorkspaceId = mint();
        let workspace = Workspace {
            id,
            slug: "acme".into(),
            name: "Acme".into(),
            timezone: "UTC".into(),
            preset: "mailweave".into(),
            policy_version: 1,
            created_at: flow::now(),
        };
        let mut system = store.system().await.unwrap();
        system.create_workspace(&workspace).await.unwrap();
        system.commit().await.unwrap();
        let mut tx = store.begin(id).await.unwrap();
        tx.content_key(None).await.unwrap();
        tx.commit().await.unwrap();
        id
    }

    /// Whether what the workspace's key seals can be read.
    async fn is_readable(config: &Config, workspace: WorkspaceId) -> bool {
        let store = parts::store(config).await.unwrap();
        let read = store.read(workspace).await.unwrap().other_accounts_at(mint(), &[]).await;
        store.close().await;
        read.is_ok()
    }

    #[tokio::test]
    async fn the_old_key_opens_nothing_any_more_and_the_new_one_all() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let store = parts::store(&config).await.unwrap();
        let workspace = sealed(&store).await;
        let in_use = format!("{:#}", rotate_in(&config).await.unwrap_err());
        assert!(in_use.contains("a running gateway"), "{in_use}");
        store.close().await;
        let before = std::fs::read(config.master_key_file()).unwrap();
        assert!(rotate_in(&config).await.unwrap() >= 1);
        assert_ne!(std::fs::read(config.master_key_file()).unwrap(), before);
        assert_eq!(std::fs::read(beside(&config, "old")).unwrap(), before);
        assert!(!beside(&config, "new").exists());
        assert!(is_readable(&config, workspace).await);
        std::fs::write(config.master_key_file(), before).unwrap();
        assert!(parts::store(&config).await.is_err());
    }

    #[tokio::test]
    async fn a_rotation_that_was_interrupted_is_finished_by_the_next() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(directory.path());
        let store = parts::store(&config).await.unwrap();
        let workspace = sealed(&store).await;
        // After the new key was made, and after the store was changed.
        let new = made_or_found(&beside(&config, "new")).unwrap();
        store.rotate_master_key(&new).await.unwrap();
        store.close().await;
        assert_eq!(rotate_in(&config).await.unwrap(), 0);
        assert!(is_readable(&config, workspace).await);
        assert!(rotate_in(&config).await.unwrap() >= 1, "and it can be done again");
        assert!(is_readable(&config, workspace).await);
    }
}
