//! A power cut: the disk forgets what it was told and not made to keep. What was acknowledged is there all the same.
//!
//! Every write and flush of the file system under the data directory is recorded in order (QEMU's `blklogwrites`, behind a loop
//! device), so that the disk can be rebuilt as it may have been at any moment. Needs root and some programs: `scripts/power-cut`
//! looks for them, and runs this. Not here: what a kill alone does (`kill`).

use std::{
    fs::{self, File, OpenOptions},
    io,
    os::unix::fs::FileExt as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use tempfile::TempDir;

use crate::{
    kill::Chance,
    load::{Accepted, Door, Ledger, Load},
    proof::prove,
    support::{eventually, wait_for},
    world::{Setup, World},
};

/// Large enough for some thousand messages, small enough to be copied for each cut.
const DISK_BYTES: u64 = 256 * 1024 * 1024;
/// Acknowledged before the power goes.
const ACKNOWLEDGED: usize = 400;
/// Moments at which the disk is rebuilt, each in three ways; `MAILWEAVE_POWER_CUTS` names another number.
const CUTS: u64 = 8;
const PATIENCE: Duration = Duration::from_secs(60);
/// What a device takes notice of at once.
const SECTOR: u64 = 512;

/// What the disk was told.
#[derive(Debug, Clone, Copy)]
struct Entry {
    /// Where its record begins, and where the next one does.
    at: u64,
    end: u64,
    /// In octets.
    to: u64,
    length: u64,
    flags: u64,
}

impl Entry {
    const FLUSH: u64 = 1;
    /// A write that is on the medium when it is answered.
    const FUA: u64 = 2;
    const DISCARD: u64 = 4;

    fn is(&self, flag: u64) -> bool {
        self.flags & flag != 0
    }

    /// Whether it puts octets on the disk.
    fn writes(&self) -> bool {
        self.length > 0 && !self.is(Self::DISCARD)
    }
}

/// A record in the format of the kernel's `dm-log-writes`: a head, then for each entry a sector about it and its octets.
struct Record {
    file: File,
    entries: Vec<Entry>,
}

impl Record {
    fn read(path: &Path) -> Self {
        const MAGIC: u64 = 0x006a_7366_7773_6872;
        let file = File::open(path).unwrap();
        let number = |at: u64| {
            let mut octets = [0; 8];
            file.read_exact_at(&mut octets, at).unwrap();
            u64::from_le_bytes(octets)
        };
        assert_eq!((number(0), number(8)), (MAGIC, 1), "{} is no record of writes", path.display());
        let (mut entries, mut at) = (Vec::new(), SECTOR);
        for _ in 0..number(16) {
            let (to, length, flags) = (number(at) * SECTOR, number(at + 8) * SECTOR, number(at + 16));
            let octets = if flags & Entry::DISCARD == 0 { length } else { 0 };
            let entry = Entry { at, end: at + SECTOR + octets, to, length, flags };
            at = entry.end;
            entries.push(entry);
        }
        Self { file, entries }
    }

    fn apply(&self, entry: &Entry, disk: &File) {
        if entry.writes() {
            let mut octets = vec![0; usize::try_from(entry.length).unwrap()];
            self.file.read_exact_at(&mut octets, entry.at + SECTOR).unwrap();
            disk.write_all_at(&octets, entry.to).unwrap();
        }
    }

    /// The entries that were whole by then, divided by the last flush among them.
    fn by(&self, moment: u64) -> (&[Entry], &[Entry]) {
        let told = &self.entries[..self.entries.partition_point(|entry| entry.end <= moment)];
        let flushed = told.iter().rposition(|entry| entry.is(Entry::FLUSH)).map_or(0, |last| last + 1);
        told.split_at(flushed)
    }
}

/// How much of what was not flushed had reached the medium.
#[derive(Debug, Clone, Copy)]
enum Unflushed {
    All,
    Nothing,
    /// Some of it, in no order.
    Some(u64),
}

/// Rebuilds the disk as it may have been at a moment.
fn rebuild(record: &Record, base: &Path, (moment, unflushed): (u64, Unflushed), into: &Path) {
    run("cp", &["--sparse=always", path(base), path(into)]);
    let disk = OpenOptions::new().write(true).open(into).unwrap();
    let (flushed, open) = record.by(moment);
    flushed.iter().for_each(|entry| record.apply(entry, &disk));
    let mut chance = match unflushed {
        Unflushed::Some(seed) => Chance(seed | 1),
        _ => Chance(1),
    };
    for entry in open {
        let stays = match unflushed {
            Unflushed::All => true,
            Unflushed::Nothing => false,
            Unflushed::Some(_) => chance.below(Duration::from_secs(2)) < Duration::from_secs(1),
        };
        if stays || entry.is(Entry::FUA) {
            record.apply(entry, &disk);
        }
    }
}

/// A disk whose writes are recorded, with a file system on it.
struct Recorded {
    directory: TempDir,
    daemon: Child,
    mounted: Option<Mounted>,
}

impl Recorded {
    fn new() -> Self {
        let directory = tempfile::Builder::new().prefix("mailweave-power-").tempdir().unwrap();
        let at = |name: &str| directory.path().join(name);
        fs::create_dir(at("disk")).unwrap();
        File::create(at("base")).unwrap().set_len(DISK_BYTES).unwrap();
        run("mkfs.ext4", &["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0", path(&at("base"))]);
        run("cp", &["--sparse=always", path(&at("base")), path(&at("live"))]);
        for name in ["record", "exported"] {
            File::create(at(name)).unwrap();
        }
        let file = |node: &str, name: &str| format!("file,node-name={node},filename={}", path(&at(name)));
        let recorder =
            "blklogwrites,node-name=top,file=live,log=record,log-sector-size=512,log-super-update-interval=1";
        let export = format!("fuse,id=out,node-name=top,mountpoint={},writable=on", path(&at("exported")));
        let daemon = Command::new("qemu-storage-daemon")
            .args(["--blockdev", &file("live", "live"), "--blockdev", &file("record", "record")])
            .args(["--blockdev", recorder, "--export", &export])
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        let exported = at("exported");
        wait_for("the recorded disk", PATIENCE, || {
            fs::metadata(&exported).is_ok_and(|file| file.len() == DISK_BYTES)
        });
        let mounted = Some(Mounted::new(&exported, &at("disk")));
        Self { directory, daemon, mounted }
    }

    fn at(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    /// Ends the recording; the record stays.
    fn end(&mut self) {
        drop(self.mounted.take());
        // In order, so that the head of the record counts its last entries.
        run("kill", &["-TERM", &self.daemon.id().to_string()]);
        let status = self.daemon.wait().unwrap();
        assert!(status.success(), "{status}");
    }
}

impl Drop for Recorded {
    fn drop(&mut self) {
        drop(self.mounted.take());
        drop(self.daemon.kill());
        drop(self.daemon.wait());
    }
}

/// A file system in a file, mounted through a loop device.
struct Mounted {
    device: String,
    directory: PathBuf,
}

impl Mounted {
    fn new(file: &Path, directory: &Path) -> Self {
        let device = run("losetup", &["--find", "--show", path(file)]).trim().to_owned();
        // What is dropped unmounts and detaches as much of it as came about.
        let mounted = Self { device, directory: directory.to_owned() };
        run("mount", &["-t", "ext4", &mounted.device, path(directory)]);
        mounted
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        // Where a test has failed the gateway may be there still: then it goes when the gateway does.
        let lazily: &[&str] = if std::thread::panicking() { &["--lazy"] } else { &[] };
        let (directory, device) = (path(&self.directory), self.device.as_str());
        for (program, arguments) in
            [("umount", [lazily, &[directory]].concat()), ("losetup", vec!["--detach", device])]
        {
            let status = Command::new(program).args(&arguments).status();
            if !status.is_ok_and(|status| status.success()) {
                eprintln!("{program} {arguments:?} failed");
            }
        }
    }
}

fn path(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn run(program: &str, arguments: &[&str]) -> String {
    let output: io::Result<_> = Command::new(program).args(arguments).stdin(Stdio::null()).output();
    let output =
        output.unwrap_or_else(|error| panic!("{program}: {error}: scripts/power-cut names what is missing"));
    assert!(output.status.success(), "{program} {arguments:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// The moments to cut at: spread over what was recorded since the load began.
fn moments(record: &Record, since: u64) -> Vec<u64> {
    let cuts = std::env::var("MAILWEAVE_POWER_CUTS").ok().and_then(|cuts| cuts.parse().ok()).unwrap_or(CUTS);
    let ends: Vec<u64> = record.entries.iter().map(|entry| entry.end).filter(|end| *end > since).collect();
    assert!(!ends.is_empty(), "nothing was recorded under load");
    let count = u64::try_from(ends.len()).unwrap();
    (1..=cuts).map(|cut| ends[usize::try_from((count * cut / cuts).saturating_sub(1)).unwrap()]).collect()
}

/// Starts the gateway on the disk as it was at a moment: everything acknowledged by then is there, to the byte, and the whole store
/// is sound.
async fn survives(world: &mut World, due: &[Accepted]) {
    world.gateway.start();
    world.gateway.ready().await;
    for accepted in due {
        let is_there = || async { world.api.raw(&accepted.key).await.is_some() };
        eventually(&format!("{} after a power cut", accepted.key), PATIENCE, is_there).await;
        // The provider knows nothing of the cut: a copy that it has filed since may have been met first, with its trace in front.
        let raw = world.api.raw(&accepted.key).await.expect("it was there");
        let is_the_same = accepted.offer.door == Door::Api || raw.ends_with(&accepted.offer.raw);
        assert!(is_the_same, "other bytes are stored of {accepted:?}");
    }
    world.end_and_audit().await;
}

/// What was acknowledged by a moment.
fn due(ledger: &Ledger, moment: u64) -> Vec<Accepted> {
    let by_then = |accepted: &Accepted| accepted.recorded.is_some_and(|recorded| recorded <= moment);
    ledger.accepted().into_iter().filter(by_then).collect()
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "needs root and programs that scripts/power-cut looks for, and is run by it"]
async fn what_was_acknowledged_survives_a_power_cut() {
    let mut disk = Recorded::new();
    let setup = Setup { data_dir: Some(disk.at("disk").join("data")), ..Setup::default() };
    let mut world = World::build(setup).await;
    let load = Load::begin(&world);
    let since = fs::metadata(disk.at("record")).unwrap().len();
    load.ledger.record_by(Some(disk.at("record")));
    load.ledger.grown_to(ACKNOWLEDGED).await;
    world.gateway.kill();
    load.ledger.record_by(None);
    let cut = fs::metadata(disk.at("record")).unwrap().len();
    disk.end();
    let record = Record::read(&disk.at("record"));
    let (base, cut_disk) = (disk.at("base"), disk.at("cut"));

    // First as it was in the end, with the clients still there: nothing is lost, and nothing sent twice unseen.
    rebuild(&record, &base, (cut, Unflushed::Nothing), &cut_disk);
    let mounted = Mounted::new(&cut_disk, &disk.at("disk"));
    world.gateway.start();
    world.gateway.ready().await;
    let ledger = load.finish().await;
    println!("{}", prove(&world, &ledger).await);
    world.end_and_audit().await;
    drop(mounted);

    let (mut looked_at, moments) = (0, moments(&record, since));
    for moment in &moments {
        for unflushed in [Unflushed::Nothing, Unflushed::All, Unflushed::Some(*moment)] {
            rebuild(&record, &base, (*moment, unflushed), &cut_disk);
            let mounted = Mounted::new(&cut_disk, &disk.at("disk"));
            let due = due(&ledger, *moment);
            println!("cut at {moment}, unflushed {unflushed:?}: {} acknowledged", due.len());
            survives(&mut world, &due).await;
            looked_at += due.len();
            drop(mounted);
        }
    }
    assert!(looked_at > 0, "no cut came after an acknowledgement");
    let flushes = record.entries.iter().filter(|entry| entry.is(Entry::FLUSH)).count();
    println!(
        "{} cuts in three ways; {} entries with {flushes} flushes; {} acknowledged, none lost",
        moments.len(),
        record.entries.len(),
        ledger.len()
    );
}

/// The script that runs the test above, with these in place of the machine's programs and devices: its status, and what it says.
fn script(path: &Path, devices: &Path) -> (Option<i32>, String) {
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("scripts/power-cut");
    let output = Command::new("/usr/bin/env")
        .args(["bash", self::path(&script), "--check"])
        .env("MAILWEAVE_POWER_PATH", path)
        .env("MAILWEAVE_POWER_DEVICES", devices)
        .output()
        .unwrap();
    (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
}

#[test]
fn a_machine_that_cannot_cut_the_power_is_told_what_it_lacks() {
    let empty = tempfile::tempdir().unwrap();
    let (status, said) = script(empty.path(), empty.path());
    assert_eq!(status, Some(69), "{said}");
    for missing in
        ["qemu-storage-daemon (package qemu-utils)", "losetup", "mkfs.ext4", "loop-control", "fuse"]
    {
        assert!(said.contains(missing), "{missing} in {said}");
    }
    // One that has all programs lacks the rest by name.
    for program in ["qemu-storage-daemon", "losetup", "mount", "umount", "mkfs.ext4", "cp"] {
        let file = empty.path().join(program);
        fs::write(&file, "#!/bin/sh\n").unwrap();
        fs::set_permissions(&file, std::os::unix::fs::PermissionsExt::from_mode(0o755)).unwrap();
    }
    let (status, said) = script(empty.path(), empty.path());
    assert!(status == Some(69) && said.contains("loop-control") && !said.contains("losetup"), "{said}");
}

#[test]
fn a_record_is_read_as_it_was_written() {
    let directory = tempfile::tempdir().unwrap();
    let (record, base) = (directory.path().join("record"), directory.path().join("base"));
    let sector = |octet: u8| vec![octet; 512];
    let head = |numbers: [u64; 4]| {
        let mut octets: Vec<u8> = numbers.iter().flat_map(|number| number.to_le_bytes()).collect();
        octets.resize(512, 0);
        octets
    };
    let entry = |to, length, flags| head([to, length, flags, 0]);
    let written = [
        head([0x006a_7366_7773_6872, 1, 5, 512]),
        entry(1, 1, 0),
        sector(b'a'),
        entry(0, 0, Entry::FLUSH),
        entry(1, 1, 0),
        sector(b'b'),
        entry(2, 1, Entry::FUA),
        sector(b'c'),
        entry(1, 8, Entry::DISCARD),
    ];
    fs::write(&record, written.concat()).unwrap();
    fs::write(&base, vec![b'.'; 4 * 512]).unwrap();
    let record = Record::read(&record);
    let end = record.entries.last().unwrap().end;
    let looks = |moment, unflushed| {
        let disk = directory.path().join("cut");
        rebuild(&record, &base, (moment, unflushed), &disk);
        let octets = fs::read(disk).unwrap();
        [0, 1, 2, 3].map(|sector| char::from(octets[sector * 512])).iter().collect::<String>()
    };
    assert_eq!(end, written.concat().len() as u64);
    assert_eq!(looks(end, Unflushed::All), ".bc.");
    assert_eq!(looks(end, Unflushed::Nothing), ".ac.", "what was flushed, and what was written through");
    assert_eq!(looks(record.entries[0].end, Unflushed::Nothing), "....", "told, and not yet flushed");
    assert_eq!(looks(record.entries[0].end - 1, Unflushed::All), "....", "not yet told whole");
}
