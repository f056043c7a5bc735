//! Whether a message costs the same in a full store as in an empty one: taken in, filed and threaded through the whole gateway.
//!
//! Not here: reading.

use anyhow::Result;

use crate::{
    as_f64,
    gateway::Gateway,
    load::{self, Load},
    setting,
    table::{Table, Target},
    usage,
};

/// Messages of each probe.
const PROBE: usize = 2000;
/// Stored messages at which the cost is looked at, up to the number asked for.
const STEPS: [usize; 4] = [1000, 10_000, 100_000, 1_000_000];
/// Messages sent at a time between probes, so that what waits to be filed stays small.
const CHUNK: usize = 5000;

pub async fn flat(table: &mut Table) -> Result<()> {
    let last = setting("MAILWEAVE_BENCH_STORED", 100_000)?;
    let gateway = Gateway::start().await?;
    let (mut stored, mut first) = (0, None);
    for step in STEPS.into_iter().filter(|step| *step <= last) {
        while stored < step {
            let messages = CHUNK.min(step - stored);
            fill(&gateway, messages).await?;
            stored += messages;
        }
        let before = usage::cpu(&gateway.server);
        fill(&gateway, PROBE).await?;
        stored += PROBE;
        let cost = (usage::cpu(&gateway.server) - before).as_secs_f64() * 1000.0 / as_f64(PROBE);
        let first = *first.get_or_insert(cost);
        let target = if step == STEPS[0] { Target::None } else { Target::AtMost(first * 1.5) };
        table.add(format!("Taken in and filed with {step} messages stored: CPU"), "ms", cost, target);
    }
    let each = gateway.stored_bytes()? / u64::try_from(stored.max(1))?;
    table.add("A message of 4 KB in the store", "octets", as_f64(usize::try_from(each)?), Target::None);
    Ok(())
}

async fn fill(gateway: &Gateway, messages: usize) -> Result<()> {
    let load = Load {
        server: gateway.mx,
        recipient: gateway.capture_address.clone(),
        sessions: 20,
        messages,
        bytes: 4096,
        rate: None,
    };
    load::send(&load).await?;
    gateway.filed().await
}
