//! Sealing at rest: a master key wraps one content key an account and one a workspace, and those seal what must not be
//! read from a stolen disk.
//!
//! Not here: what is sealed. A sealed value opens only in its own place: swapped into another row or column it does not.

use std::{
    fmt, io,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use chacha20poly1305::{AeadInOut as _, KeyInit as _, XChaCha20Poly1305, XNonce};
use jiff::Timestamp;
use moka::future::Cache;
use uuid::Uuid;
use zeroize::Zeroizing;

use super::{Error, Session, Store, System, Tx, sql};
use crate::core::ids::{AccountId, Id as _, WorkspaceId};

const KEY_BYTES: usize = 32;
const NONCE_BYTES: usize = 24;
const TAG_BYTES: usize = 16;
/// First byte of a sealed value: XChaCha20-Poly1305, then the nonce, the content and the tag.
const FORMAT: u8 = 1;
/// Unwrapped keys kept in memory.
const KEYS_CACHED_MAX: u64 = 10_000;
/// A key destroyed by another node is forgotten by this one within this time.
const KEY_CACHED_FOR: Duration = Duration::from_mins(10);

/// Opens everything: it wraps all other keys. Kept outside the database, and erased from memory when dropped.
#[derive(Clone)]
pub struct MasterKey(Arc<Zeroizing<[u8; KEY_BYTES]>>);

/// Why there is no master key.
#[derive(Debug, thiserror::Error)]
pub enum MasterKeyError {
    #[error("cannot use the master key file {path}")]
    File {
        path: PathBuf,
        #[source]
        source: io::Error,
    },
    #[error("{0} does not hold a master key (32 bytes, plain or in base 64)")]
    Shape(PathBuf),
}

impl MasterKey {
    /// Reads the key from its file: 32 bytes, plain or in base 64.
    ///
    /// # Errors
    /// When the file cannot be read or holds something else.
    pub fn load(path: &Path) -> Result<Self, MasterKeyError> {
        let content = std::fs::read(path).map(Zeroizing::new).map_err(file_error(path))?;
        let plain = <[u8; KEY_BYTES]>::try_from(content.as_slice()).ok();
        let key = plain.or_else(|| {
            let decoded = Zeroizing::new(STANDARD.decode(content.trim_ascii()).ok()?);
            <[u8; KEY_BYTES]>::try_from(decoded.as_slice()).ok()
        });
        key.map(Self::from_bytes).ok_or_else(|| MasterKeyError::Shape(path.to_owned()))
    }

    /// Makes a key and its file, which only its owner can read, and never replaces one.
    ///
    /// # Errors
    /// When the file is there already or cannot be written.
    pub fn create(path: &Path) -> Result<Self, MasterKeyError> {
        let key = Zeroizing::new(rand::random::<[u8; KEY_BYTES]>());
        write_new(path, STANDARD.encode(key.as_slice()).as_bytes()).map_err(file_error(path))?;
        Ok(Self::from_bytes(*key))
    }

    pub(super) fn secret(&self) -> &[u8; KEY_BYTES] {
        &self.0
    }

    #[must_use]
    pub fn from_bytes(key: [u8; KEY_BYTES]) -> Self {
        Self(Arc::new(Zeroizing::new(key)))
    }

    #[cfg(test)]
    pub(super) fn is_same(&self, other: &Self) -> bool {
        self.0 == other.0
    }
}

impl fmt::Debug for MasterKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("MasterKey(…)")
    }
}

fn file_error(path: &Path) -> impl FnOnce(io::Error) -> MasterKeyError {
    let path = path.to_owned();
    move |source| MasterKeyError::File { path, source }
}

/// Durable before it is used: a store sealed under a key that a crash took cannot be opened again.
fn write_new(path: &Path, content: &[u8]) -> io::Result<()> {
    use io::Write as _;
    let directory = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    // Made with mode 0600.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(content)?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist_noclobber(path)?;
    std::fs::File::open(directory)?.sync_all()
}

/// A key that seals content.
pub(super) struct ContentKey(Zeroizing<[u8; KEY_BYTES]>);

/// Where a sealed value lies. Part of what is authenticated.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Place {
    pub table: &'static str,
    pub column: &'static str,
    pub row: Uuid,
}

impl Place {
    pub(crate) fn new(table: &'static str, column: &'static str, row: Uuid) -> Self {
        Self { table, column, row }
    }

    /// No name holds a bar and ids have one length, so no two places read alike.
    fn associated_data(&self, workspace: WorkspaceId, key: Uuid) -> Vec<u8> {
        let mut data = Vec::with_capacity(96);
        for part in [
            self.table.as_bytes(),
            workspace.uuid().as_bytes(),
            self.row.as_bytes(),
            self.column.as_bytes(),
            key.as_bytes(),
        ] {
            data.extend_from_slice(part);
            data.push(b'|');
        }
        data
    }
}

impl ContentKey {
    /// Another key, for what is not sealing; whoever learns it learns nothing of this one.
    pub(super) fn derive(&self, purpose: &'static str) -> Zeroizing<[u8; KEY_BYTES]> {
        Zeroizing::new(blake3::derive_key(purpose, self.0.as_slice()))
    }

    pub(super) fn seal(&self, workspace: WorkspaceId, key: Uuid, place: &Place, plain: &[u8]) -> Vec<u8> {
        seal(&self.0, &place.associated_data(workspace, key), plain)
    }

    pub(super) fn open(
        &self,
        workspace: WorkspaceId,
        key: Uuid,
        place: &Place,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Error> {
        open(&self.0, &place.associated_data(workspace, key), sealed)
            .ok_or_else(|| Error::Corrupt(format!("{}.{} does not open", place.table, place.column)))
    }
}

pub(super) fn seal(key: &[u8; KEY_BYTES], data: &[u8], plain: &[u8]) -> Vec<u8> {
    // A random nonce of 24 bytes may be drawn as often as one likes without fear of meeting one again.
    let nonce: [u8; NONCE_BYTES] = rand::random();
    let mut content = Vec::with_capacity(1 + NONCE_BYTES + plain.len() + TAG_BYTES);
    content.push(FORMAT);
    content.extend_from_slice(&nonce);
    content.extend_from_slice(plain);
    let (_, body) = content.split_at_mut(1 + NONCE_BYTES);
    let tag = XChaCha20Poly1305::new(key.into())
        .encrypt_inout_detached(&XNonce::from(nonce), data, body.into())
        .expect("only content over 256 GiB cannot be sealed");
    content.extend_from_slice(&tag);
    content
}

pub(super) fn open(key: &[u8; KEY_BYTES], data: &[u8], sealed: &[u8]) -> Option<Vec<u8>> {
    let (format, rest) = sealed.split_first()?;
    let (nonce, rest) = rest.split_at_checked(NONCE_BYTES)?;
    let (body, tag) = rest.split_at_checked(rest.len().checked_sub(TAG_BYTES)?)?;
    if *format != FORMAT {
        return None;
    }
    let nonce = XNonce::try_from(nonce).ok()?;
    let mut plain = body.to_vec();
    XChaCha20Poly1305::new(key.into())
        .decrypt_inout_detached(&nonce, data, plain.as_mut_slice().into(), tag.try_into().ok()?)
        .ok()?;
    Some(plain)
}

/// The keys this process has unwrapped.
pub(super) struct Vault {
    master: MasterKey,
    keys: Cache<(WorkspaceId, Uuid), Arc<ContentKey>>,
    /// The id of each workspace's own key.
    workspace_keys: Cache<WorkspaceId, Uuid>,
}

impl Vault {
    pub(super) fn new(master: MasterKey) -> Self {
        Self {
            master,
            keys: Cache::builder().max_capacity(KEYS_CACHED_MAX).time_to_live(KEY_CACHED_FOR).build(),
            workspace_keys: Cache::builder()
                .max_capacity(KEYS_CACHED_MAX)
                .time_to_live(KEY_CACHED_FOR)
                .build(),
        }
    }

    pub(super) fn master(&self) -> &MasterKey {
        &self.master
    }

    /// Only of keys that are durably in the database: what an unknown key seals is lost.
    pub(super) async fn remember(&self, id: (WorkspaceId, Uuid), key: Arc<ContentKey>) {
        self.keys.insert(id, key).await;
    }

    fn wrap(&self, workspace: WorkspaceId, id: Uuid, key: &ContentKey) -> Vec<u8> {
        self.master.wrap(workspace, id, key)
    }

    fn unwrap(&self, workspace: WorkspaceId, id: Uuid, wrapped: &[u8]) -> Result<ContentKey, Error> {
        self.master.unwrap(workspace, id, wrapped)
    }
}

impl MasterKey {
    fn wrap(&self, workspace: WorkspaceId, id: Uuid, key: &ContentKey) -> Vec<u8> {
        let place = Place::new("content_keys", "wrapped", id);
        seal(&self.0, &place.associated_data(workspace, id), key.0.as_slice())
    }

    fn unwrap(&self, workspace: WorkspaceId, id: Uuid, wrapped: &[u8]) -> Result<ContentKey, Error> {
        let place = Place::new("content_keys", "wrapped", id);
        let key = open(&self.0, &place.associated_data(workspace, id), wrapped).map(Zeroizing::new);
        key.and_then(|key| <[u8; KEY_BYTES]>::try_from(key.as_slice()).ok())
            .map(|key| ContentKey(Zeroizing::new(key)))
            .ok_or_else(|| Error::Corrupt("a content key does not open under this master key".to_owned()))
    }

    /// A key of the gateway itself, wrapped for its place.
    pub(super) fn wrap_gateway_key(&self, place: &str, key: &[u8; KEY_BYTES]) -> Vec<u8> {
        seal(&self.0, format!("gateway_keys|wrapped|{place}").as_bytes(), key)
    }

    pub(super) fn unwrap_gateway_key(
        &self,
        place: &str,
        wrapped: &[u8],
    ) -> Result<Zeroizing<[u8; KEY_BYTES]>, Error> {
        let key =
            open(&self.0, format!("gateway_keys|wrapped|{place}").as_bytes(), wrapped).map(Zeroizing::new);
        key.and_then(|key| <[u8; KEY_BYTES]>::try_from(key.as_slice()).ok()).map(Zeroizing::new).ok_or_else(
            || Error::Corrupt("a key of the gateway does not open under this master key".to_owned()),
        )
    }

    /// A content key that another master key has wrapped, wrapped by this one.
    pub(super) fn rewrap(
        &self,
        old: &Self,
        (workspace, id): (WorkspaceId, Uuid),
        wrapped: &[u8],
    ) -> Result<Vec<u8>, Error> {
        Ok(self.wrap(workspace, id, &old.unwrap(workspace, id, wrapped)?))
    }
}

impl Store {
    /// The workspace's own key, made on first use. It is durable when this returns.
    pub(super) async fn workspace_key(&self, workspace: WorkspaceId) -> Result<Uuid, Error> {
        if let Some(id) = self.0.vault.workspace_keys.get(&workspace).await {
            return Ok(id);
        }
        let mut tx = self.begin(workspace).await?;
        let id = tx.content_key(None).await?;
        tx.commit().await?;
        self.0.vault.workspace_keys.insert(workspace, id).await;
        Ok(id)
    }

    /// The key under which content of an account is sealed, or of the workspace itself. An account's is made with the account
    /// and never again: whoever still has mail of one that is erased could else write it down after all.
    ///
    /// # Errors
    /// `Missing` when the account is erased; when the database is out of reach.
    pub async fn content_key(
        &self,
        workspace: WorkspaceId,
        account: Option<AccountId>,
    ) -> Result<Uuid, Error> {
        if account.is_none() {
            return self.workspace_key(workspace).await;
        }
        self.read(workspace).await?.find_content_key(account).await?.ok_or(Error::Missing)
    }

    pub(super) async fn key(&self, workspace: WorkspaceId, id: Uuid) -> Result<Arc<ContentKey>, Error> {
        match self.0.vault.keys.get(&(workspace, id)).await {
            Some(key) => Ok(key),
            None => self.read(workspace).await?.key(id).await,
        }
    }
}

impl Session {
    /// Opens what was sealed for this place.
    ///
    /// # Errors
    /// `Missing` when the key was destroyed, `Corrupt` when the value belongs elsewhere or was changed.
    pub(crate) async fn open_sealed(
        &mut self,
        key: Uuid,
        place: &Place,
        sealed: &[u8],
    ) -> Result<Vec<u8>, Error> {
        let workspace = self.workspace();
        self.key(key).await?.open(workspace, key, place, sealed)
    }

    /// The id of the workspace's own key.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub(super) async fn workspace_key(&mut self) -> Result<Uuid, Error> {
        let workspace = self.workspace();
        if let Some(id) = self.store().0.vault.workspace_keys.get(&workspace).await {
            return Ok(id);
        }
        let query =
            sql("select id from content_keys where workspace = $1 and account is null").bind(workspace);
        let id = self.fetch_one(query).await?.get("id")?;
        // A key that this transaction has made may never come to be.
        if !self.work.writes() {
            self.store().0.vault.workspace_keys.insert(workspace, id).await;
        }
        Ok(id)
    }

    async fn find_content_key(&mut self, account: Option<AccountId>) -> Result<Option<Uuid>, Error> {
        let workspace = self.workspace();
        let query = match account {
            Some(account) => sql("select id from content_keys where workspace = $1 and account = $2")
                .bind(workspace)
                .bind(account),
            None => {
                sql("select id from content_keys where workspace = $1 and account is null").bind(workspace)
            }
        };
        self.fetch_optional(query).await?.map(|row| row.get("id")).transpose()
    }

    pub(super) async fn key(&mut self, id: Uuid) -> Result<Arc<ContentKey>, Error> {
        let name = (self.workspace(), id);
        if let Some((_, key)) = self.work.keys.iter().find(|(known, _)| *known == name) {
            return Ok(key.clone());
        }
        if let Some(key) = self.store().0.vault.keys.get(&name).await {
            return Ok(key);
        }
        let query =
            sql("select wrapped from content_keys where workspace = $1 and id = $2").bind(name.0).bind(id);
        let wrapped: Vec<u8> = self.fetch_one(query).await?.get("wrapped")?;
        let key = Arc::new(self.store().0.vault.unwrap(name.0, id, &wrapped)?);
        if self.work.writes() {
            self.work.keys.push((name, key.clone()));
        } else {
            self.store().0.vault.remember(name, key.clone()).await;
        }
        Ok(key)
    }
}

impl System {
    /// Makes the key of a new workspace with it: reading then needs no key that only writing could make.
    pub(super) async fn make_workspace_key(&mut self, workspace: WorkspaceId) -> Result<(), Error> {
        self.hold_master_key().await?;
        let (id, key) = (Uuid::now_v7(), ContentKey(Zeroizing::new(rand::random())));
        let wrapped = self.store().0.vault.wrap(workspace, id, &key);
        let insert =
            sql("insert into content_keys (workspace, id, wrapped, created_at) values ($1, $2, $3, $4)")
                .bind(workspace)
                .bind(id)
                .bind(wrapped)
                .bind(Timestamp::now());
        self.execute(insert).await.map(drop)
    }
}

impl Tx {
    /// The id of the key that seals what belongs to this account, or to the workspace; made on first use.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn content_key(&mut self, account: Option<AccountId>) -> Result<Uuid, Error> {
        if let Some(id) = self.find_content_key(account).await? {
            return Ok(id);
        }
        self.hold_master_key().await?;
        let (workspace, id) = (self.workspace(), Uuid::now_v7());
        let key = ContentKey(Zeroizing::new(rand::random()));
        let wrapped = self.store().0.vault.wrap(workspace, id, &key);
        let insert = sql("insert into content_keys (workspace, id, account, wrapped, created_at) \
             values ($1, $2, $3, $4, $5) on conflict do nothing")
        .bind(workspace)
        .bind(id)
        .bind(account)
        .bind(wrapped)
        .bind(Timestamp::now());
        if self.execute(insert).await? == 1 {
            self.work.keys.push(((workspace, id), Arc::new(key)));
            return Ok(id);
        }
        // Another node made one at the same moment.
        self.find_content_key(account).await?.ok_or(Error::Missing)
    }

    /// Destroys an account's key: what it sealed stays unreadable for ever, in backups too once theirs are gone.
    pub(super) async fn destroy_content_key(&mut self, account: AccountId) -> Result<(), Error> {
        let workspace = self.workspace();
        let Some(id) = self.find_content_key(Some(account)).await? else { return Ok(()) };
        let delete = sql("delete from content_keys where workspace = $1 and id = $2");
        self.execute(delete.bind(workspace).bind(id)).await?;
        self.work.keys.retain(|(name, _)| *name != (workspace, id));
        self.on_commit(move |store| {
            let store = store.clone();
            tokio::spawn(async move { store.0.vault.keys.invalidate(&(workspace, id)).await });
        });
        Ok(())
    }

    /// Forgets the keys of this workspace, whose rows this transaction has deleted.
    pub(super) fn forget_content_keys(&mut self) {
        let workspace = self.workspace();
        self.work.keys.retain(|((owner, _), _)| *owner != workspace);
        self.on_commit(move |store| {
            let store = store.clone();
            tokio::spawn(async move {
                let vault = &store.0.vault;
                vault.workspace_keys.invalidate(&workspace).await;
                let of_it: Vec<_> =
                    vault.keys.iter().map(|(name, _)| *name).filter(|name| name.0 == workspace).collect();
                for name in of_it {
                    vault.keys.invalidate(&name).await;
                }
            });
        });
    }

    /// Seals a value for its place.
    ///
    /// # Errors
    /// `Missing` when there is no such key.
    pub(crate) async fn seal(&mut self, key: Uuid, place: &Place, plain: &[u8]) -> Result<Vec<u8>, Error> {
        let workspace = self.workspace();
        Ok(self.key(key).await?.seal(workspace, key, place, plain))
    }
}
