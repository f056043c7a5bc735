//! What a server's processes have used so far: processor time and memory, from `/proc`.
//!
//! Not here: starting them.

use std::{fs, time::Duration};

use anyhow::{Context, Result};

use crate::support::server::Server;

/// The kernel's unit of times in `/proc/PID/stat`: USER_HZ, 100 on every Linux.
const TICK: Duration = Duration::from_millis(10);

/// Processor time of a server with all of its children, living and gone.
pub fn cpu(server: &Server) -> Duration {
    server.processes().into_iter().filter_map(of_process).sum()
}

/// A process's own time and that of its children that have ended and been waited for.
fn of_process(pid: u32) -> Option<Duration> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    // The name may hold anything, up to the last bracket.
    let mut ticks = stat.rsplit_once(')')?.1.split_whitespace().skip(11).map(str::parse::<u32>);
    let (own, waited_for) =
        (ticks.next()?.ok()? + ticks.next()?.ok()?, ticks.next()?.ok()? + ticks.next()?.ok()?);
    Some(exact(pid).unwrap_or(TICK * own) + TICK * waited_for)
}

/// Of a process with a single thread the kernel tells nanoseconds. With a hundred processes the ticks cut off add up.
fn exact(pid: u32) -> Option<Duration> {
    let mut threads = fs::read_dir(format!("/proc/{pid}/task")).ok()?;
    let only = threads.next()?.ok()?;
    if threads.next().is_some() {
        return None;
    }
    let schedule = fs::read_to_string(only.path().join("schedstat")).ok()?;
    schedule.split_whitespace().next()?.parse().ok().map(Duration::from_nanos)
}

/// Memory in KiB that belongs to no file, what is shared divided among those who share it. Pages of files (the program, the
/// database) come and go as the kernel likes.
///
/// # Errors
/// When this kernel does not tell it (it does from Linux 5.4 on).
pub fn memory(server: &Server) -> Result<f64> {
    let rollup = |pid: u32| fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).ok();
    // Who has ended meanwhile uses none.
    server.processes().into_iter().filter_map(rollup).map(|rollup| anonymous(&rollup)).sum()
}

fn anonymous(rollup: &str) -> Result<f64> {
    let line = rollup.lines().find_map(|line| line.strip_prefix("Pss_Anon:"));
    let kib = line.and_then(|line| line.split_whitespace().next()).context("no Pss_Anon in smaps_rollup")?;
    Ok(kib.parse()?)
}
