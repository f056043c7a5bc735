//! A disk that fails now and then: what it did not make durable is not acknowledged, and what was acknowledged is there.
//!
//! The calls of the process itself fail, by strace's fault injection; the bytes are as a real disk may leave them, written or
//! not. Not here: a disk that is full for good (`disk`), and what a power cut takes.

use std::{
    process::{Command, Stdio},
    sync::atomic::Ordering,
    time::Duration,
};

use crate::{
    load::Load,
    proof::prove,
    world::{Setup, World},
};

/// Calls that make something durable, how they fail, and which of them: the start is let through.
const FAULTS: [(&str, &str, &str); 3] =
    [("fsync,fdatasync", "EIO", "40+11"), ("pwrite64", "EIO", "400+97"), ("pwrite64", "ENOSPC", "400+41")];
/// So often it is started on a disk of each kind.
const LIVES: usize = 4;
/// How long clients offer mail to it each time, unless it ends itself: what a disk says after an error is not to be believed.
const LIFE_MAX: Duration = Duration::from_secs(4);

fn strace(calls: &str, error: &str, when: &str) -> Vec<String> {
    let (trace, inject) = (format!("trace={calls}"), format!("inject={calls}:error={error}:when={when}"));
    ["strace", "-D", "-f", "-qq", "-o", "/dev/null", "-e", &trace, "-e", &inject].map(str::to_owned).to_vec()
}

/// Containers may forbid one process to look into another.
fn may_trace() -> bool {
    let before = strace("fsync", "EIO", "1");
    let (program, arguments) = before.split_first().expect("strace");
    let mut trial = Command::new(program);
    trial.args(arguments).arg("true").stdout(Stdio::null()).stderr(Stdio::null());
    trial.status().is_ok_and(|status| status.success())
}

#[tokio::test(flavor = "multi_thread")]
async fn what_a_failing_disk_did_not_keep_is_not_acknowledged() {
    if !may_trace() {
        println!("left out: strace is not allowed to trace here");
        return;
    }
    for (calls, error, when) in FAULTS {
        let mut world = World::build(Setup::default()).await;
        world.gateway.ready().await;
        world.gateway.kill();
        world.gateway.put_before(strace(calls, error, when));
        let load = Load::begin(&world);
        let mut ended_itself = 0;
        for _ in 0..LIVES {
            world.gateway.start();
            ended_itself += usize::from(!world.gateway.live(LIFE_MAX).await);
        }
        world.gateway.put_before(Vec::new());
        world.gateway.start();
        world.gateway.ready().await;
        let ledger = load.finish().await;
        let put_off = ledger.put_off.load(Ordering::Relaxed);
        println!(
            "{error} of {calls}: ended itself {ended_itself} times, put off {put_off}, {}",
            prove(&world, &ledger).await
        );
        assert!(put_off > 0 || ended_itself > 0, "some of it failed");
        world.audit().await;
    }
}
