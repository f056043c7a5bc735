//! What docs/performance.md promises, measured: the gateway beside a peer that does the same work in the same run.
//!
//! Not here: assertions about time. A figure that misses its target is shown as missed, and nothing fails.
//! `cargo bench --bench promises [-- NAME…]`; without a name every measure runs. `MAILWEAVE_BENCH_RUNS` says how often each
//! comparison is repeated (3), `MAILWEAVE_BENCH_STORED` how far the store grows (100000), `MAILWEAVE_BENCH_ACCOUNTS` how
//! many accounts wait (5000), `MAILWEAVE_BENCH_BINARY` names another gateway to measure than the one just built.

mod accounts;
mod crowd;
mod gateway;
mod growth;
mod ingest;
mod load;
mod peer;
mod relay;
mod sessions;
mod table;
mod threading;
mod usage;
// Starts and ends server processes; shared with the tests, which use the rest of it.
#[path = "../../tests/support/mod.rs"]
mod support;

use anyhow::{Result, bail};

use table::Table;

/// The measures by name, in the order they run.
const NAMES: [&str; 10] = [
    "ingest",
    "steady",
    "sessions",
    "latency",
    "mailbox",
    "accounts",
    "crowd",
    "threading",
    "growth",
    "filing",
];

fn main() -> Result<()> {
    let (bench, names): (Vec<String>, Vec<String>) =
        std::env::args().skip(1).partition(|argument| argument == "--bench");
    if bench.is_empty() {
        // `cargo test --all-targets` runs this too, and asks it for its tests: it has none.
        return Ok(());
    }
    if let Some(unknown) = names.iter().find(|name| !NAMES.contains(&name.as_str())) {
        bail!("there is no measure {unknown:?}; there are {}", NAMES.join(", "));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let mut table = Table::default();
    for name in NAMES.into_iter().filter(|name| names.is_empty() || names.iter().any(|asked| asked == name)) {
        runtime.block_on(measure(name, &mut table))?;
    }
    print!("{table}");
    Ok(())
}

async fn measure(name: &str, table: &mut Table) -> Result<()> {
    match name {
        "ingest" => ingest::in_bulk(table).await,
        "steady" => ingest::steady(table).await,
        "sessions" => sessions::idle(table).await,
        "latency" => accounts::latency(table).await,
        "mailbox" => accounts::mailbox(table).await,
        "accounts" => accounts::idle(table).await,
        "crowd" => crowd::idle(table).await,
        "growth" => growth::flat(table).await,
        "filing" => ingest::filing(table).await,
        _ => threading::in_memory(table),
    }
}

/// A whole number from the environment.
fn setting(name: &str, default: usize) -> Result<usize> {
    std::env::var(name).map_or(Ok(default), |text| Ok(text.parse()?))
}

/// The middle one. Other work on the machine disturbs single runs, and disturbs both sides.
fn median(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or(f64::NAN)
}

fn as_f64(count: usize) -> f64 {
    u32::try_from(count).map_or(f64::INFINITY, f64::from)
}
