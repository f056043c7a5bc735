//! A full disk: 452 4.3.1 and no false 250; what was taken before is kept, and all goes on when there is room again.
//!
//! The disk is a small tmpfs in a mount namespace of the gateway's own, which needs no privilege where user namespaces are
//! allowed. Not here: a disk that fails (`src/store`).

use std::{
    fs::{self, File},
    io::Write as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use crate::{
    load::{Door, Ledger, Offer, offer},
    peer::Peer,
    proof::prove,
    world::{Setup, World},
};

const DISK_BYTES: u64 = 24 * 1024 * 1024;
/// A shared memory file system up to this size is filled where namespaces are forbidden (Docker gives 64 MiB).
const SHARED_BYTES_MAX: u64 = 256 * 1024 * 1024;
/// Messages that may still find room in pages that the database owns already.
const TRIES_MAX: u64 = 2_000;

/// A file system that can be filled.
struct SmallDisk {
    directory: PathBuf,
    before: Vec<String>,
    _owner: tempfile::TempDir,
}

impl SmallDisk {
    fn new() -> Self {
        for options in ["-m", "-Urm"] {
            let owner = tempfile::tempdir().unwrap();
            let before = namespace(options, owner.path());
            let (program, arguments) = before.split_first().expect("unshare");
            let mut trial = Command::new(program);
            trial.args(arguments).arg("true").stdout(Stdio::null()).stderr(Stdio::null());
            if trial.status().is_ok_and(|status| status.success()) {
                return Self { directory: owner.path().join("data"), before, _owner: owner };
            }
        }
        let size = Command::new("df").args(["--output=size", "-B1", "/dev/shm"]).output().unwrap();
        let size =
            String::from_utf8_lossy(&size.stdout).lines().nth(1).and_then(|size| size.trim().parse().ok());
        assert!(
            size.is_some_and(|size: u64| size <= SHARED_BYTES_MAX),
            "neither a mount namespace is allowed here nor is /dev/shm small enough to be filled"
        );
        let owner = tempfile::tempdir_in("/dev/shm").unwrap();
        Self { directory: owner.path().join("data"), before: Vec::new(), _owner: owner }
    }

    /// The directory as this process sees it: a mount of the gateway's namespace is reached through the gateway.
    fn seen_from_here(&self, gateway: u32) -> PathBuf {
        let inside = self.directory.strip_prefix("/").expect("it is absolute");
        match self.before.is_empty() {
            true => self.directory.clone(),
            false => Path::new(&format!("/proc/{gateway}/root")).join(inside),
        }
    }
}

fn namespace(options: &str, directory: &Path) -> Vec<String> {
    let mount = format!("mount -t tmpfs -o size={DISK_BYTES} tmpfs \"$0\" && exec \"$@\"");
    let directory = directory.display().to_string();
    ["unshare", options, "sh", "-c", &mount, &directory].map(str::to_owned).to_vec()
}

/// Writes until nothing more fits, and returns the file.
fn fill(directory: &Path) -> PathBuf {
    let path = directory.join("ballast");
    let mut file = File::create(&path).unwrap();
    for size in [1 << 20, 1 << 12, 1] {
        while file.write(&vec![0; size]).is_ok_and(|written| written > 0) {}
    }
    path
}

/// Offers once. What is acknowledged goes into the ledger.
async fn attempt(world: &World, ledger: &Ledger, offer: &Offer) -> (u16, String) {
    let to = [offer.user.capture_address.clone()];
    let mut peer = Peer::connect(world.gateway.at.mx).await.unwrap();
    let reply = peer.transaction(&offer.user.email, &to, &offer.raw).await.unwrap();
    if reply.code == 250 {
        ledger.note(offer, &reply.key());
    }
    (reply.code, reply.text)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_full_disk_refuses_for_now_and_loses_nothing() {
    let disk = SmallDisk::new();
    let setup =
        Setup { data_dir: Some(disk.directory.clone()), before: disk.before.clone(), ..Setup::default() };
    let (mut world, ledger) = (World::build(setup).await, Ledger::default());
    let numbered = |serial| offer(&world.users, (Door::Capture, 0), serial);
    assert_eq!(attempt(&world, &ledger, &numbered(0)).await.0, 250);

    let ballast = fill(&disk.seen_from_here(world.gateway.pid()));
    let mut refused = Vec::new();
    for serial in 1..TRIES_MAX {
        let offer = numbered(serial);
        let (code, text) = attempt(&world, &ledger, &offer).await;
        if code != 250 {
            assert!(code == 452 && text.starts_with("4.3.1"), "{code} {text}");
            refused.push(offer);
        }
        if refused.len() == 10 {
            break;
        }
    }
    assert_eq!(refused.len(), 10, "a full disk takes nothing more");
    // Reading goes on, and the process lives.
    let listed = world.api.messages().await;
    assert!(listed.len() <= ledger.len());

    fs::remove_file(ballast).unwrap();
    for offer in &refused {
        assert_eq!(attempt(&world, &ledger, offer).await.0, 250, "there is room again");
    }
    let figures = prove(&world, &ledger).await;
    println!("{} were taken while the disk was full; {figures}", figures.captured - 1 - refused.len());
    world.gateway.terminate();
    assert!(world.gateway.ended(crate::support::PATIENCE).await.success());
}
