//! The bytes of messages: compressed, sealed, written once; small ones in their row, large ones in a file each.
//!
//! Not here: deciding what is kept. A file without a row is an accident's leftover, and `sweep_blob_files` removes it.

use std::{
    cell::RefCell,
    collections::HashSet,
    fs::File,
    io::{self, Write as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use uuid::Uuid;
use zstd::bulk::{Compressor, Decompressor};

use super::{Arg, Error, Place, Row, Session, Store, Tx, sql, vault::ContentKey};
use crate::core::ids::{Id as _, WorkspaceId};

/// Largest sealed content that lies in its row. Measured: up to here a row costs less than a file with its two
/// flushes; beyond it the log is written twice over for content that a file takes once.
pub const BLOB_INLINE_BYTES_MAX: usize = 256 * 1024;
/// Content longer than this is compressed and sealed off the async threads: it takes over a millisecond.
const SEALED_HERE_BYTES_MAX: usize = 128 * 1024;
/// The disk could not do it: the number is the same on every Unix.
const EIO: i32 = 5;
/// The fastest level: mail is mostly base 64 and text, and higher levels gain a few percent for twice the time.
const ZSTD_LEVEL: i32 = 1;

/// Content that is sealed, and on disk if it is large, but in no row yet.
#[derive(Debug, Clone)]
pub struct SealedBlob {
    pub(super) workspace: WorkspaceId,
    pub id: Uuid,
    pub(super) key: Uuid,
    /// Octets before compression.
    pub(super) size: i64,
    /// `None` when it lies in a file.
    pub(super) inline: Option<Vec<u8>>,
}

/// Content as it lies on disk, with the key that opens it. Whoever holds this needs no connection to the database.
pub struct SealedContent {
    store: Store,
    workspace: WorkspaceId,
    id: Uuid,
    key_id: Uuid,
    key: Arc<ContentKey>,
    /// Octets before compression.
    size: usize,
    /// `None` when it lies in a file.
    inline: Option<Vec<u8>>,
}

impl SealedContent {
    /// The content, as it was put.
    ///
    /// # Errors
    /// `Corrupt` when it does not open or its file is not there; `Unavailable` when it cannot be read now.
    pub async fn open(self) -> Result<Bytes, Error> {
        let Self { store, workspace, id, key_id, key, size, inline } = self;
        let sealed = match inline {
            Some(data) => data,
            None => {
                let file = store.0.blobs.file(workspace, id);
                blocking(move || std::fs::read(&file).map_err(|error| unread(&file, error))).await?
            }
        };
        let open = move || {
            let packed = key.open(workspace, key_id, &Place::new("blobs", "data", id), &sealed)?;
            let plain = decompress(&packed, size);
            plain.map(Bytes::from).map_err(|error| Error::Corrupt(format!("a blob does not unpack: {error}")))
        };
        if size <= SEALED_HERE_BYTES_MAX { open() } else { blocking(open).await }
    }
}

/// Where large content lies: `<directory>/<workspace>/<id>`.
pub(super) struct BlobDir {
    root: PathBuf,
    /// Workspaces whose directory was flushed into the root by this process. That it can be seen proves nothing: whoever has
    /// just made it may still be flushing.
    durable: Mutex<HashSet<WorkspaceId>>,
    /// Files whose rows are gone and that are about to be removed.
    leaving: Mutex<HashSet<PathBuf>>,
}

impl BlobDir {
    pub(super) fn open(directory: &Path) -> io::Result<Self> {
        make_directory(directory)?;
        Ok(Self { root: directory.to_owned(), durable: Mutex::default(), leaving: Mutex::default() })
    }

    fn directory(&self, workspace: WorkspaceId) -> PathBuf {
        self.root.join(workspace.uuid().simple().to_string())
    }

    fn with_durable<T>(&self, look: impl FnOnce(&mut HashSet<WorkspaceId>) -> T) -> T {
        look(&mut self.durable.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn with_leaving<T>(&self, look: impl FnOnce(&mut HashSet<PathBuf>) -> T) -> T {
        look(&mut self.leaving.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn file(&self, workspace: WorkspaceId, id: Uuid) -> PathBuf {
        self.directory(workspace).join(id.simple().to_string())
    }
}

impl SealedBlob {
    /// Octets before compression.
    #[must_use]
    pub fn size(&self) -> u64 {
        u64::try_from(self.size).unwrap_or_default()
    }

    pub(super) fn args(self) -> [Arg; 5] {
        [self.workspace.into(), self.id.into(), self.key.into(), self.size.into(), self.inline.into()]
    }
}

impl Store {
    /// Compresses and seals content, and writes it to its file if it is large. It takes time that nobody else should have to
    /// wait: there is no way to do it inside a transaction.
    ///
    /// # Errors
    /// `Missing` without such a key, `Full` and `Failed` from the disk.
    pub async fn seal_blob(
        &self,
        workspace: WorkspaceId,
        key: Uuid,
        raw: &Bytes,
    ) -> Result<SealedBlob, Error> {
        let content_key = self.key(workspace, key).await?;
        let id = Uuid::now_v7();
        let raw = raw.clone();
        let size = i64::try_from(raw.len()).unwrap_or(i64::MAX);
        let here = raw.len() <= SEALED_HERE_BYTES_MAX;
        let place = Place::new("blobs", "data", id);
        let work = move || Ok(content_key.seal(workspace, key, &place, &compress(&raw)?));
        let sealed: io::Result<Vec<u8>> = if here { work() } else { blocking(work).await };
        let sealed = sealed.map_err(|error| self.disk_error(error))?;
        let inline = if sealed.len() <= BLOB_INLINE_BYTES_MAX {
            Some(sealed)
        } else {
            self.write_file(workspace, id, sealed).await?;
            None
        };
        Ok(SealedBlob { workspace, id, key, size, inline })
    }

    async fn write_file(&self, workspace: WorkspaceId, id: Uuid, sealed: Vec<u8>) -> Result<(), Error> {
        self.0.health.check()?;
        let blobs = &self.0.blobs;
        if !blobs.with_durable(|durable| durable.contains(&workspace)) {
            let directory = blobs.directory(workspace);
            let made = blocking(move || make_directory(&directory)).await;
            made.map_err(|error| self.disk_error(error))?;
            blobs.with_durable(|durable| durable.insert(workspace));
        }
        let (directory, file) = (blobs.directory(workspace), blobs.file(workspace, id));
        let written = blocking(move || write_durably(&directory, &file, &sealed)).await;
        written.map_err(|error| self.disk_error(error))
    }

    fn disk_error(&self, error: io::Error) -> Error {
        self.0.health.note(match error.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Error::Full,
            io::ErrorKind::ReadOnlyFilesystem => Error::Failed,
            _ if error.raw_os_error() == Some(EIO) => Error::Failed,
            // Too many open files, say: nothing is lost, and it passes.
            _ => Error::Unavailable(sqlx::Error::Io(error)),
        })
    }

    /// Removes files that no row names and that are older than `age`, which must be longer than any transaction takes.
    /// Returns how many.
    ///
    /// # Errors
    /// When the directory or the database cannot be read.
    pub async fn sweep_blob_files(&self, age: Duration) -> Result<u64, Error> {
        let mut removed = 0;
        let mut workspaces = entries(&self.0.blobs.root).await?;
        while let Some(directory) = next_entry(&mut workspaces).await? {
            let Some(workspace) = uuid_of(&directory).map(WorkspaceId::from_uuid) else { continue };
            let mut files = entries(&directory).await?;
            while let Some(file) = next_entry(&mut files).await? {
                if is_older(&file, age).await && !self.is_named(workspace, &file).await? {
                    removed += u64::from(tokio::fs::remove_file(&file).await.is_ok());
                }
            }
        }
        Ok(removed)
    }

    /// Removes every file of a workspace that is gone. Forgotten in a crash, they are swept later.
    pub(super) fn remove_blob_files(&self, workspace: WorkspaceId) {
        let directory = self.0.blobs.directory(workspace);
        self.0.blobs.with_durable(|durable| durable.remove(&workspace));
        drop(tokio::task::spawn_blocking(move || std::fs::remove_dir_all(directory)));
    }

    /// Returns when the files of all content that this process has deleted in a workspace are gone from its disk.
    ///
    /// # Errors
    /// From the disk.
    pub async fn finish_removals(&self, workspace: WorkspaceId) -> Result<(), Error> {
        let directory = self.0.blobs.directory(workspace);
        let leaving: Vec<PathBuf> = self.0.blobs.with_leaving(|leaving| {
            leaving.iter().filter(|file| file.parent() == Some(&directory)).cloned().collect()
        });
        let removed = blocking(move || {
            for file in leaving {
                match std::fs::remove_file(file) {
                    Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                    _ => {}
                }
            }
            match File::open(directory) {
                // There never was a large one.
                Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
                opened => opened?.sync_all(),
            }
        });
        removed.await.map_err(|error| self.disk_error(error))
    }

    pub(super) fn blob_directory(&self) -> &Path {
        &self.0.blobs.root
    }

    pub(super) fn blob_file(&self, workspace: WorkspaceId, id: Uuid) -> PathBuf {
        self.0.blobs.file(workspace, id)
    }

    /// Whose contents lie in this directory; `None` when it is none of ours.
    pub(super) fn workspace_of(&self, directory: &Path) -> Option<WorkspaceId> {
        uuid_of(directory).map(WorkspaceId::from_uuid)
    }

    pub(super) async fn is_named(&self, workspace: WorkspaceId, file: &Path) -> Result<bool, Error> {
        let Some(id) = uuid_of(file) else { return Ok(false) };
        let query = sql("select 1 as one from blobs where workspace = $1 and id = $2 and data is null");
        let row = self.read(workspace).await?.fetch_optional(query.bind(workspace).bind(id)).await?;
        Ok(row.is_some())
    }
}

impl Session {
    /// The content of a blob, as it was put.
    ///
    /// # Errors
    /// `Missing` when it or its key is gone, `Corrupt` when it does not open.
    pub async fn blob(&mut self, id: Uuid) -> Result<Bytes, Error> {
        self.sealed_content(id).await?.open().await
    }

    /// The content of a blob, still sealed: opening a large one takes time, in which others need the connection.
    ///
    /// # Errors
    /// `Missing` when it or its key is gone.
    pub async fn sealed_content(&mut self, id: Uuid) -> Result<SealedContent, Error> {
        let workspace = self.workspace();
        let query = sql("select key_id, size, data from blobs where workspace = $1 and id = $2");
        let row = self.fetch_one(query.bind(workspace).bind(id)).await?;
        self.sealed_row(id, &row).await
    }

    /// The content of a blob whose row has been read: `key_id`, `size` and `data`.
    pub(super) async fn open_blob(&mut self, id: Uuid, row: &Row) -> Result<Bytes, Error> {
        self.sealed_row(id, row).await?.open().await
    }

    async fn sealed_row(&mut self, id: Uuid, row: &Row) -> Result<SealedContent, Error> {
        let key_id = row.get("key_id")?;
        Ok(SealedContent {
            store: self.store().clone(),
            workspace: self.workspace(),
            id,
            key_id,
            key: self.key(key_id).await?,
            size: usize::try_from(row.get::<i64>("size")?).unwrap_or(0),
            inline: row.get("data")?,
        })
    }
}

impl Tx {
    /// Keeps content that was sealed before the transaction began ([`Store::seal_blob`]), and returns the blob's id.
    ///
    /// # Errors
    /// When the database is out of reach; `Fenced` when it was sealed for another workspace.
    pub async fn put_sealed_blob(&mut self, blob: SealedBlob) -> Result<Uuid, Error> {
        if blob.workspace != self.workspace() {
            return Err(Error::Fenced);
        }
        let id = blob.id;
        let insert = sql("insert into blobs (workspace, id, key_id, size, data) values ($1, $2, $3, $4, $5)");
        self.execute(insert.bind_all(blob.args())).await?;
        Ok(id)
    }

    /// Deletes a blob, and its file once that is committed. A blob that is gone already is no error.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn delete_blob(&mut self, id: Uuid) -> Result<(), Error> {
        let workspace = self.workspace();
        let delete = sql("delete from blobs where workspace = $1 and id = $2 \
             returning case when data is null then 1 else 0 end as in_file");
        let row = self.fetch_optional(delete.bind(workspace).bind(id)).await?;
        if row.map(|row| row.get::<bool>("in_file")).transpose()? == Some(true) {
            self.unlink(id);
        }
        Ok(())
    }

    /// Leaves out what was sealed for this transaction and turned out not to be wanted: once that is committed, its file goes.
    pub fn leave_sealed(&mut self, blob: &SealedBlob) {
        if blob.inline.is_none() && blob.workspace == self.workspace() {
            self.unlink(blob.id);
        }
    }

    /// Removes a file once this is committed. Forgotten in a crash, it is swept later.
    fn unlink(&mut self, id: Uuid) {
        let file = self.store().0.blobs.file(self.workspace(), id);
        self.on_commit(move |store| {
            store.0.blobs.with_leaving(|leaving| leaving.insert(file.clone()));
            let store = store.clone();
            drop(tokio::task::spawn_blocking(move || {
                let removed = std::fs::remove_file(&file);
                store.0.blobs.with_leaving(|leaving| leaving.remove(&file));
                removed
            }));
        });
    }
}

/// Runs what would hold up an async thread.
async fn blocking<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    tokio::task::spawn_blocking(work).await.expect("the work does not panic and is never cancelled")
}

/// Makes a directory and flushes its entry, also when it was there already.
fn make_directory(directory: &Path) -> io::Result<()> {
    std::fs::create_dir_all(directory)?;
    match directory.parent() {
        Some(parent) if parent.as_os_str().is_empty() => File::open(".")?.sync_all(),
        Some(parent) => File::open(parent)?.sync_all(),
        None => Ok(()),
    }
}

/// Why a file could not be read. What is not there, or not readable where it lies on the disk, is missing from the data; too
/// many open files, say, or a disk that is not mounted, say nothing about it.
fn unread(file: &Path, error: io::Error) -> Error {
    let is_mounted = file.parent().is_some_and(Path::is_dir);
    match error.kind() {
        io::ErrorKind::NotFound if is_mounted => Error::Corrupt(format!("the file of a blob: {error}")),
        _ if error.raw_os_error() == Some(EIO) => Error::Corrupt(format!("the file of a blob: {error}")),
        _ => Error::Unavailable(sqlx::Error::Io(error)),
    }
}

/// A rename alone does not survive a power cut on ext4: the directory has to be flushed as well as the file.
fn write_durably(directory: &Path, file: &Path, content: &[u8]) -> io::Result<()> {
    // Named by no uuid: an abandoned one is swept like any leftover.
    let mut temporary = tempfile::NamedTempFile::new_in(directory)?;
    temporary.write_all(content)?;
    temporary.as_file().sync_all()?;
    temporary.persist(file)?;
    File::open(directory)?.sync_all()
}

thread_local! {
    /// Setting up a context costs more than compressing a small message.
    static COMPRESSOR: RefCell<Option<Compressor<'static>>> = const { RefCell::new(None) };
    static DECOMPRESSOR: RefCell<Option<Decompressor<'static>>> = const { RefCell::new(None) };
}

fn compress(raw: &[u8]) -> io::Result<Vec<u8>> {
    COMPRESSOR.with_borrow_mut(|kept| {
        let mut compressor = match kept.take() {
            Some(compressor) => compressor,
            None => Compressor::new(ZSTD_LEVEL)?,
        };
        let packed = compressor.compress(raw);
        *kept = Some(compressor);
        packed
    })
}

/// `size` bounds what comes out.
fn decompress(packed: &[u8], size: usize) -> io::Result<Vec<u8>> {
    DECOMPRESSOR.with_borrow_mut(|kept| {
        let mut decompressor = match kept.take() {
            Some(decompressor) => decompressor,
            None => Decompressor::new()?,
        };
        let raw = decompressor.decompress(packed, size);
        *kept = Some(decompressor);
        raw
    })
}

async fn entries(directory: &Path) -> Result<tokio::fs::ReadDir, Error> {
    tokio::fs::read_dir(directory).await.map_err(directory_error)
}

async fn next_entry(entries: &mut tokio::fs::ReadDir) -> Result<Option<PathBuf>, Error> {
    Ok(entries.next_entry().await.map_err(directory_error)?.map(|entry| entry.path()))
}

fn directory_error(error: io::Error) -> Error {
    Error::Unavailable(sqlx::Error::Io(error))
}

async fn is_older(file: &Path, age: Duration) -> bool {
    let modified = tokio::fs::metadata(file).await.and_then(|metadata| metadata.modified());
    modified.is_ok_and(|at| SystemTime::now().duration_since(at).is_ok_and(|since| since >= age))
}

fn uuid_of(path: &Path) -> Option<Uuid> {
    Uuid::try_parse(path.file_name()?.to_str()?).ok()
}
