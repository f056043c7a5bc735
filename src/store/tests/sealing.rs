//! Sealed values, keys and blobs.

use std::{path::Path, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use uuid::Uuid;

use crate::{
    core::ids::{AccountId, Id as _, WorkspaceId},
    store::{
        BLOB_INLINE_BYTES_MAX, Error, MasterKey, MasterKeyError, Options, Place, Store, mint, sql,
        testing::{World, both},
    },
};

const CANARY: &[u8] = b"canary 7f3a90c1 sings where nobody may hear it";

/// Incompressible, so that it is as large sealed as it is plain.
fn noise(len: usize) -> Bytes {
    let mut state = 1_u64;
    let byte = || {
        state = state.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        state.to_be_bytes()[0]
    };
    std::iter::repeat_with(byte).take(len).collect()
}

async fn put(world: &World, workspace: WorkspaceId, raw: &Bytes) -> Uuid {
    put_under(world, workspace, None, raw).await
}

async fn put_under(world: &World, workspace: WorkspaceId, account: Option<AccountId>, raw: &Bytes) -> Uuid {
    let mut tx = world.store.begin(workspace).await.unwrap();
    let key = tx.content_key(account).await.unwrap();
    tx.commit().await.unwrap();
    let sealed = world.store.seal_blob(workspace, key, raw).await.unwrap();
    let mut tx = world.store.begin(workspace).await.unwrap();
    let id = tx.put_sealed_blob(sealed).await.unwrap();
    tx.commit().await.unwrap();
    id
}

async fn blob(world: &World, workspace: WorkspaceId, id: Uuid) -> Result<Bytes, Error> {
    world.store.read(workspace).await.unwrap().blob(id).await
}

fn files(directory: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().path());
    entries.flat_map(|path| if path.is_dir() { files(&path) } else { vec![path] }).collect()
}

fn contains(directory: &Path, needle: &[u8]) -> bool {
    files(directory).iter().any(|file| {
        let content = std::fs::read(file).unwrap();
        memchr::memmem::find(&content, needle).is_some()
    })
}

both! {
    async fn a_sealed_value_opens_in_its_own_place_and_nowhere_else(world) {
        let (workspace, other) = (world.workspace().await, world.workspace().await);
        let row = Uuid::now_v7();
        let place = Place::new("accounts", "credentials", row);
        let mut tx = world.store.begin(workspace).await.unwrap();
        let key = tx.content_key(Some(mint())).await.unwrap();
        let other_key = tx.content_key(Some(mint())).await.unwrap();
        let sealed = tx.seal(key, &place, CANARY).await.unwrap();
        assert_eq!(tx.open_sealed(key, &place, &sealed).await.unwrap(), CANARY, "before the commit");
        tx.commit().await.unwrap();
        let mut session = world.store.read(workspace).await.unwrap();
        assert_eq!(session.open_sealed(key, &place, &sealed).await.unwrap(), CANARY);
        for wrong in [
            Place::new("smarthosts", "credentials", row),
            Place::new("accounts", "settings", row),
            Place::new("accounts", "credentials", Uuid::now_v7()),
        ] {
            let opened = session.open_sealed(key, &wrong, &sealed).await;
            assert!(matches!(opened, Err(Error::Corrupt(_))), "{wrong:?}");
        }
        assert!(matches!(session.open_sealed(other_key, &place, &sealed).await, Err(Error::Corrupt(_))));
        let mut elsewhere = world.store.read(other).await.unwrap();
        assert!(matches!(elsewhere.open_sealed(key, &place, &sealed).await, Err(Error::Missing)));
        for position in 0..sealed.len() {
            let mut changed = sealed.clone();
            changed[position] ^= 1;
            assert!(session.open_sealed(key, &place, &changed).await.is_err(), "byte {position}");
            assert!(session.open_sealed(key, &place, &sealed[..position]).await.is_err(), "cut at {position}");
        }
    }

    async fn two_blobs_cannot_be_exchanged(world) {
        let workspace = world.workspace().await;
        let (one, two) = (put(&world, workspace, &Bytes::from("one")).await, put(&world, workspace, &Bytes::from("two")).await);
        assert_eq!(blob(&world, workspace, one).await.unwrap(), "one");
        let mut tx = world.store.begin(workspace).await.unwrap();
        let swap = sql("update blobs set data = (select data from blobs where workspace = $1 and id = $3) \
             where workspace = $1 and id = $2").bind(workspace).bind(one).bind(two);
        tx.execute(swap).await.unwrap();
        tx.commit().await.unwrap();
        assert!(matches!(blob(&world, workspace, one).await, Err(Error::Corrupt(_))));
    }

    async fn an_account_has_one_key_however_many_ask_at_once(world) {
        let workspace = world.workspace().await;
        let account: AccountId = mint();
        let keys = join_all((0..8).map(|_| async {
            let mut tx = world.store.begin(workspace).await.unwrap();
            let key = tx.content_key(Some(account)).await.unwrap();
            tx.commit().await.unwrap();
            key
        }));
        let keys = keys.await;
        assert!(keys.iter().all(|key| *key == keys[0]), "{keys:?}");
        let mut tx = world.store.begin(workspace).await.unwrap();
        assert_ne!(tx.content_key(None).await.unwrap(), keys[0]);
    }

    async fn a_key_of_a_dropped_transaction_seals_nothing_later(world) {
        let workspace = world.workspace().await;
        let mut tx = world.store.begin(workspace).await.unwrap();
        let lost = tx.content_key(Some(mint())).await.unwrap();
        drop(tx);
        assert!(matches!(world.store.seal_blob(workspace, lost, &Bytes::from("x")).await, Err(Error::Missing)));
        let id = put(&world, workspace, &Bytes::from("kept")).await;
        assert_eq!(blob(&world, workspace, id).await.unwrap(), "kept");
    }

    async fn what_a_destroyed_key_sealed_is_unreadable(world) {
        let workspace = world.workspace().await;
        let account: AccountId = mint();
        let id = put_under(&world, workspace, Some(account), &Bytes::from("erased")).await;
        assert_eq!(blob(&world, workspace, id).await.unwrap(), "erased");
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.begin_erasure(jiff::Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
        let gone = wait_for(async || matches!(blob(&world, workspace, id).await, Err(Error::Missing)));
        assert!(gone.await);
    }

    async fn a_blob_reads_back_small_or_large(world) {
        let workspace = world.workspace().await;
        for len in [0, 1, 4096, BLOB_INLINE_BYTES_MAX - 1000, BLOB_INLINE_BYTES_MAX + 1, 3_000_000] {
            let raw = noise(len);
            let id = put(&world, workspace, &raw).await;
            assert!(blob(&world, workspace, id).await.unwrap() == raw, "{len} bytes");
        }
        assert_eq!(files(&world.options.blob_dir).len(), 2);
        assert!(matches!(blob(&world, workspace, Uuid::now_v7()).await, Err(Error::Missing)));
        let other = world.workspace().await;
        let id = put(&world, workspace, &Bytes::from("mine")).await;
        assert!(matches!(blob(&world, other, id).await, Err(Error::Missing)));
    }

    async fn a_deleted_blob_takes_its_file_along_once_that_is_committed(world) {
        let workspace = world.workspace().await;
        let id = put(&world, workspace, &noise(400_000)).await;
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.delete_blob(id).await.unwrap();
        drop(tx);
        assert_eq!(blob(&world, workspace, id).await.unwrap().len(), 400_000);
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.delete_blob(id).await.unwrap();
        tx.delete_blob(id).await.unwrap();
        tx.commit().await.unwrap();
        assert!(matches!(blob(&world, workspace, id).await, Err(Error::Missing)));
        assert!(wait_for(async || files(&world.options.blob_dir).is_empty()).await);
    }

    async fn content_is_sealed_while_somebody_else_writes(world) {
        let (workspace, account) = (world.workspace().await, mint());
        put_under(&world, workspace, Some(account), &Bytes::from("first")).await;
        let tx = world.store.begin(workspace).await.unwrap();
        let sealed = async {
            let key = world.store.content_key(workspace, Some(account)).await.unwrap();
            world.store.seal_blob(workspace, key, &noise(3_000_000)).await.unwrap()
        };
        let sealed = tokio::time::timeout(Duration::from_secs(20), sealed).await.unwrap();
        assert_eq!((sealed.size(), files(&world.options.blob_dir).len()), (3_000_000, 1));
        drop(tx);
    }

    async fn a_blob_sealed_for_one_workspace_is_not_put_into_another(world) {
        let (workspace, other) = (world.workspace().await, world.workspace().await);
        let key = world.store.workspace_key(workspace).await.unwrap();
        let sealed = world.store.seal_blob(workspace, key, &Bytes::from("mine")).await.unwrap();
        let mut tx = world.store.begin(other).await.unwrap();
        assert!(matches!(tx.put_sealed_blob(sealed).await, Err(Error::Fenced)));
    }

    async fn only_files_without_a_row_are_swept_and_only_old_ones(world) {
        let workspace = world.workspace().await;
        let kept = put(&world, workspace, &noise(400_000)).await;
        let key = world.store.content_key(workspace, None).await.unwrap();
        let sealed = world.store.seal_blob(workspace, key, &noise(400_000)).await.unwrap();
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.put_sealed_blob(sealed).await.unwrap();
        drop(tx);
        std::fs::write(world.options.blob_dir.join(workspace.uuid().simple().to_string()).join(".tmpX"), "x").unwrap();
        assert_eq!(files(&world.options.blob_dir).len(), 3);
        assert_eq!(world.store.sweep_blob_files(Duration::from_hours(1)).await.unwrap(), 0);
        assert_eq!(world.store.sweep_blob_files(Duration::ZERO).await.unwrap(), 2);
        assert_eq!(blob(&world, workspace, kept).await.unwrap().len(), 400_000);
    }

    async fn a_file_that_cannot_be_removed_is_not_taken_for_removed(world) {
        let workspace = world.workspace().await;
        let id = put(&world, workspace, &noise(400_000)).await;
        let [file] = &files(&world.options.blob_dir)[..] else { panic!("one file") };
        // A directory of its name is something that cannot be removed like a file.
        std::fs::remove_file(file).unwrap();
        std::fs::create_dir(file).unwrap();
        let mut tx = world.store.begin(workspace).await.unwrap();
        tx.delete_blob(id).await.unwrap();
        tx.commit().await.unwrap();
        // However often it was tried.
        for _ in 0..200 {
            assert!(world.store.finish_removals(workspace).await.is_err());
        }
        std::fs::remove_dir(file).unwrap();
        std::fs::write(file, "what is sealed").unwrap();
        world.store.finish_removals(workspace).await.unwrap();
        assert!(files(&world.options.blob_dir).is_empty());
    }

    async fn no_content_lies_readable_in_any_file(world) {
        let workspace = world.workspace().await;
        put(&world, workspace, &Bytes::from_static(CANARY)).await;
        let large: Bytes = [CANARY, &noise(400_000)].concat().into();
        put(&world, workspace, &large).await;
        let mut tx = world.store.begin(workspace).await.unwrap();
        let key = tx.content_key(None).await.unwrap();
        let sealed = tx.seal(key, &Place::new("smarthosts", "credentials", workspace.uuid()), CANARY).await.unwrap();
        let insert = sql("insert into smarthosts (workspace, settings, credentials, key_id, updated_at) \
             values ($1, '{}', $2, $3, 0)");
        tx.execute(insert.bind(workspace).bind(sealed).bind(key)).await.unwrap();
        tx.commit().await.unwrap();
        assert!(!contains(world.directory.path(), CANARY));
        assert!(!contains(world.directory.path(), &[7; 32]), "the master key");
        if world.store.is_shared() {
            let text = "select count(*) as rows from smarthosts, blobs where position($1 in credentials) > 0 or position($1 in data) > 0";
            let row = world.store.system_read().await.unwrap().fetch_one(sql(text).bind(CANARY)).await.unwrap();
            assert_eq!(row.get::<i64>("rows").unwrap(), 0);
        }
    }
}

/// Looks until it is so, for as long as a test may take.
async fn wait_for(condition: impl AsyncFn() -> bool) -> bool {
    let waiting = async {
        while !condition().await {
            tokio::task::yield_now().await;
        }
    };
    tokio::time::timeout(Duration::from_secs(60), waiting).await.is_ok()
}

#[tokio::test]
async fn what_was_deleted_is_gone_from_the_database_and_its_log_after_scrubbing() {
    let world = World::sqlite().await;
    let workspace = world.workspace().await;
    let mut tx = world.store.begin(workspace).await.unwrap();
    let insert =
        sql("insert into users (workspace, id, email, role, created_at) values ($1, $2, $3, 'member', 0)");
    let email = String::from_utf8(CANARY.to_vec()).unwrap();
    tx.execute(insert.bind(workspace).bind(Uuid::now_v7()).bind(email)).await.unwrap();
    tx.commit().await.unwrap();
    assert!(contains(world.directory.path(), CANARY), "subjects and addresses are not sealed");
    let mut tx = world.store.begin(workspace).await.unwrap();
    tx.execute(sql("delete from users where workspace = $1").bind(workspace)).await.unwrap();
    tx.commit().await.unwrap();
    world.store.scrub().await.unwrap();
    assert!(!contains(world.directory.path(), CANARY));
}

#[test]
fn a_master_key_is_made_once_kept_private_and_read_back() {
    use std::os::unix::fs::PermissionsExt as _;
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("keys/master.key");
    assert!(matches!(MasterKey::load(&path), Err(MasterKeyError::File { .. })));
    let made = MasterKey::create(&path).unwrap();
    let content = std::fs::read(&path).unwrap();
    assert!(MasterKey::create(&path).is_err(), "a key is never replaced");
    assert_eq!(std::fs::read(&path).unwrap(), content);
    assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    assert_eq!(format!("{made:?}"), "MasterKey(…)");
    assert!(made.is_same(&MasterKey::load(&path).unwrap()));
    std::fs::write(&path, [9; 32]).unwrap();
    assert!(MasterKey::load(&path).unwrap().is_same(&MasterKey::from_bytes([9; 32])));
    for wrong in [&b""[..], &[9; 31], b"bm90IDMyIGJ5dGVz"] {
        std::fs::write(&path, wrong).unwrap();
        assert!(matches!(MasterKey::load(&path), Err(MasterKeyError::Shape(_))));
    }
}

/// A node that was not stopped while the master key was rotated.
#[tokio::test]
async fn no_key_is_made_under_a_master_key_that_was_rotated_away() {
    let world = World::postgres().await;
    let workspace = world.workspace().await;
    let forgotten = Store::open(&world.options).await.unwrap();
    // It is making an account's key at the moment of the rotation.
    let made = mint();
    let mut tx = forgotten.begin(workspace).await.unwrap();
    tx.content_key(Some(made)).await.unwrap();
    let new = MasterKey::from_bytes([8; 32]);
    let rotation = tokio::spawn({
        let (store, new) = (world.store.clone(), new.clone());
        async move { store.rotate_master_key(&new).await.unwrap() }
    });
    tx.commit().await.unwrap();
    assert_eq!(rotation.await.unwrap(), 2);
    let mut tx = forgotten.begin(workspace).await.unwrap();
    let late = tx.content_key(Some(mint())).await;
    assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
    let mut system = forgotten.system().await.unwrap();
    let late = system.make_workspace_key(mint()).await;
    assert!(matches!(late, Err(Error::Unavailable(_))), "{late:?}");
    let options = Options { master_key: new, ..world.options.clone() };
    let reopened = Store::open(&options).await.unwrap();
    let id = reopened.content_key(workspace, Some(made)).await.unwrap();
    assert!(reopened.key(workspace, id).await.is_ok());
}
