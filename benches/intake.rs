//! What taking mail in costs: messages of 4 KB from fifty tasks, each answered when it is durable.
//!
//! Not here: SMTP. `cargo bench --bench intake [-- MESSAGES [TASKS [BYTES [postgres://…]]]]`; the files lie in the
//! directory that `TMPDIR` names, which should be on the disk that counts.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result};
use bytes::Bytes;
use jiff::{SignedDuration, Timestamp};
use mailweave::{
    core::{
        ids::{Id as _, WorkspaceId},
        inbound::{Door, Fingerprint, Intake},
        job::Job,
        route::{Route, RouteTarget},
    },
    mail::{Address, Envelope, Recipient, ReversePath},
    store::{MasterKey, Options, Store, mint},
};
use sqlx::{Connection as _, PgConnection, SqliteConnection};

#[tokio::main]
async fn main() -> Result<()> {
    let (bench, arguments): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument == "--bench");
    if bench.is_empty() {
        // `cargo test --all-targets` runs this too, and asks it for its tests: it has none.
        return Ok(());
    }
    let number = |position: usize, default: usize| {
        arguments.get(position).map_or(Ok(default), |text| text.parse()).context("a number is wanted")
    };
    let (messages, tasks, bytes) = (number(0, 40_000)?, number(1, 50)?, number(2, 4096)?);
    let directory = tempfile::tempdir()?;
    let embedded = format!("sqlite://{}/bench.db", directory.path().display());
    let options = Options {
        url: arguments.get(3).cloned().unwrap_or(embedded),
        blob_dir: directory.path().join("blobs"),
        master_key: MasterKey::from_bytes([1; 32]),
    };
    let store = Store::open(&options).await?;
    let workspace = workspace(&options.url).await?;
    run(&store, workspace, (messages / 20).max(tasks), tasks, bytes).await?;
    println!("{messages} messages of {bytes} bytes from {tasks} tasks into {}", engine(&options.url));
    let (commits, cpu, started) = (store.group_commits(), cpu_time()?, Instant::now());
    let mut latencies = run(&store, workspace, messages, tasks, bytes).await?;
    let (wall, cpu) = (started.elapsed(), cpu_time()? - cpu);
    latencies.sort_unstable();
    let at = |part: usize| latencies.get(latencies.len() * part / 1000).copied().unwrap_or_default();
    println!("  {:.0} messages/s", as_f64(messages) / wall.as_secs_f64());
    println!("  {:.3} ms of CPU each", cpu.as_secs_f64() * 1000.0 / as_f64(messages));
    println!("  latency: half under {:?}, 99 % under {:?}, 99.9 % under {:?}", at(500), at(990), at(999));
    if let Some(each) = messages.checked_div(usize::try_from(store.group_commits() - commits)?) {
        println!("  {each} messages a flush");
    }
    transactions(&store, workspace, tasks, messages / 10).await?;
    store.close().await;
    Ok(())
}

async fn workspace(url: &str) -> Result<WorkspaceId> {
    const INSERT: &str = "insert into workspaces (id, slug, name, timezone, preset, created_at) \
         values ($1, 'bench-' || $2, 'Bench', 'UTC', 'default', 0)";
    let id: WorkspaceId = mint();
    if let Some(path) = url.strip_prefix("sqlite://") {
        let mut connection = SqliteConnection::connect(path).await?;
        sqlx::query(INSERT).bind(id.uuid()).bind(id.to_string()).execute(&mut connection).await?;
        connection.close().await?;
    } else {
        let mut connection = PgConnection::connect(url).await?;
        sqlx::query(INSERT).bind(id.uuid()).bind(id.to_string()).execute(&mut connection).await?;
    }
    Ok(id)
}

/// Takes messages in from many tasks at once; returns how long each had to wait.
async fn run(
    store: &Store,
    workspace: WorkspaceId,
    messages: usize,
    tasks: usize,
    bytes: usize,
) -> Result<Vec<Duration>> {
    let next = Arc::new(AtomicUsize::new(0));
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let (store, next, body) = (store.clone(), next.clone(), body(bytes));
            tokio::spawn(async move {
                let mut waited = Vec::new();
                while next.fetch_add(1, Ordering::Relaxed) < messages {
                    let (door, raw) = (door(workspace)?, message(&body));
                    let hash = *blake3::hash(&raw).as_bytes();
                    let fingerprint = Fingerprint { hash, kept: SignedDuration::from_hours(24) };
                    let intake = Intake { workspace, door, raw, fingerprint };
                    let started = Instant::now();
                    store.take_in(intake, mint(), Timestamp::now()).await?;
                    waited.push(started.elapsed());
                }
                anyhow::Ok(waited)
            })
        })
        .collect();
    let mut waited = Vec::with_capacity(messages);
    for task in tasks {
        waited.extend(task.await??);
    }
    Ok(waited)
}

/// Small write transactions, each of one row, from as many tasks.
async fn transactions(store: &Store, workspace: WorkspaceId, tasks: usize, count: usize) -> Result<()> {
    let (commits, started) = (store.group_commits(), Instant::now());
    let tasks: Vec<_> = (0..tasks)
        .map(|_| {
            let (store, each) = (store.clone(), count / tasks);
            tokio::spawn(async move {
                for _ in 0..each {
                    let mut tx = store.begin(workspace).await?;
                    tx.enqueue(&Job::Report { message: mint() }, None, Timestamp::now()).await?;
                    tx.commit().await?;
                }
                anyhow::Ok(())
            })
        })
        .collect();
    for task in tasks {
        task.await??;
    }
    println!("  {:.0} transactions of one row a second", as_f64(count) / started.elapsed().as_secs_f64());
    if let Some(each) = count.checked_div(usize::try_from(store.group_commits() - commits)?) {
        println!("  {each} transactions a flush");
    }
    Ok(())
}

/// Text that compresses about as mail does.
fn body(bytes: usize) -> String {
    let mut text = String::with_capacity(bytes + 100);
    while text.len() < bytes {
        let word: u64 = rand::random();
        text.push_str(&format!("the quick brown fox {word:x} jumps over the lazy dog\r\n"));
    }
    text.truncate(bytes);
    text
}

/// Never the same twice.
fn message(body: &str) -> Bytes {
    let id = uuid::Uuid::now_v7();
    format!("Message-ID: <{id}@bench.example>\r\nSubject: bench\r\n\r\n{body}").into()
}

fn door(workspace: WorkspaceId) -> Result<Door> {
    let address = Address::parse("ann-0123456789abcdef@bcc.example")?;
    let target = RouteTarget::Capture { user: mint() };
    let route = Route { id: mint(), workspace, address: address.clone(), target, expires_at: None };
    let mut envelope = Envelope::new(ReversePath::Address(Address::parse("ann@crm.example")?));
    envelope.recipients.push(Recipient::new(address));
    Ok(Door::Mx { routes: vec![route], envelope, peer: "192.0.2.1".to_owned(), hello: String::new() })
}

/// User and system time of this process so far; the kernel counts in hundredths of a second.
fn cpu_time() -> Result<Duration> {
    let stat = std::fs::read_to_string("/proc/self/stat")?;
    // The second field is the program's name, which may hold anything up to the last bracket.
    let (_, fields) = stat.rsplit_once(')').context("no process statistics")?;
    let ticks: u64 =
        fields.split_whitespace().skip(11).take(2).filter_map(|field| field.parse::<u64>().ok()).sum();
    Ok(Duration::from_millis(ticks * 10))
}

fn engine(url: &str) -> &str {
    url.split(':').next().unwrap_or_default()
}

fn as_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
