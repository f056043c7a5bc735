//! Taking mail in: how many messages a second, what each costs, and how long the sender waits for his 250.
//!
//! Not here: filing at rest (`growth`).

use anyhow::Result;

use crate::{
    as_f64,
    gateway::Gateway,
    load::{self, Load, Outcome},
    median,
    peer::Postfix,
    setting,
    table::{Table, Target},
    usage,
};

/// Sessions and octets of a message. The first of the targets speaks of 50 sessions and 4 KB.
const CASES: [(usize, usize); 8] =
    [(1, 4096), (10, 4096), (50, 4096), (200, 4096), (1, 51_200), (10, 51_200), (50, 51_200), (200, 51_200)];
/// Messages of one run, by their length.
const MESSAGES: (usize, usize) = (6000, 2000);
/// Messages that come before, to warm caches and let processes start.
const WARM_UP: usize = 400;

/// One run of one server.
#[derive(Clone, Copy)]
struct Figures {
    rate: f64,
    /// Milliseconds of processor time a message, until the last 250.
    cpu: f64,
    /// The same until nothing is left to do.
    cpu_done: f64,
    /// Messages a second until nothing is left to do.
    rate_done: f64,
}

/// The median of each figure.
fn middle(runs: &[Figures]) -> Figures {
    let of = |figure: fn(&Figures) -> f64| median(runs.iter().map(figure).collect());
    Figures {
        rate: of(|run| run.rate),
        cpu: of(|run| run.cpu),
        cpu_done: of(|run| run.cpu_done),
        rate_done: of(|run| run.rate_done),
    }
}

enum Party<'a> {
    Ours(&'a Gateway),
    Peer(&'a Postfix),
}

impl Party<'_> {
    fn load(&self, (sessions, bytes): (usize, usize), messages: usize, rate: Option<f64>) -> Load {
        let (server, recipient) = match self {
            Self::Ours(gateway) => (gateway.mx, gateway.capture_address.clone()),
            Self::Peer(postfix) => (postfix.mx, "somebody@bcc.crm.example".to_owned()),
        };
        Load { server, recipient, sessions, messages, bytes, rate }
    }

    async fn done(&self) -> Result<()> {
        match self {
            Self::Ours(gateway) => gateway.filed().await,
            Self::Peer(postfix) => postfix.emptied().await,
        }
    }

    fn cpu(&self) -> f64 {
        let server = match self {
            Self::Ours(gateway) => &gateway.server,
            Self::Peer(postfix) => &postfix.server,
        };
        usage::cpu(server).as_secs_f64() * 1000.0
    }

    async fn run(&self, case: (usize, usize)) -> Result<Figures> {
        let messages = if case.1 > 10_000 { MESSAGES.1 } else { MESSAGES.0 };
        load::send(&self.load(case, WARM_UP.max(case.0), None)).await?;
        self.done().await?;
        let (before, started) = (self.cpu(), std::time::Instant::now());
        let outcome = load::send(&self.load(case, messages, None)).await?;
        let answered = self.cpu();
        self.done().await?;
        let (done, count) = (self.cpu(), as_f64(messages));
        Ok(Figures {
            rate: count / outcome.wall.as_secs_f64(),
            cpu: (answered - before) / count,
            cpu_done: (done - before) / count,
            rate_done: count / started.elapsed().as_secs_f64(),
        })
    }
}

/// As many messages as will go, from 1 to 200 sessions.
pub async fn in_bulk(table: &mut Table) -> Result<()> {
    let runs = setting("MAILWEAVE_BENCH_RUNS", 3)?;
    for case in CASES {
        let (mut ours, mut peers) = (Vec::new(), Vec::new());
        for _ in 0..runs {
            let gateway = Gateway::start().await?;
            ours.push(Party::Ours(&gateway).run(case).await?);
            drop(gateway);
            if let Some(postfix) = Postfix::start() {
                peers.push(Party::Peer(&postfix).run(case).await?);
            }
        }
        let peer = (!peers.is_empty()).then(|| middle(&peers));
        report(table, case, (middle(&ours), peer));
    }
    Ok(())
}

fn report(table: &mut Table, (sessions, bytes): (usize, usize), (ours, peer): (Figures, Option<Figures>)) {
    let is_target = (sessions, bytes) == (50, 4096);
    let what = format!("SMTP ingest, {sessions} sessions, {} KB", bytes / 1024);
    let beside = |figure: fn(&Figures) -> f64| peer.as_ref().map(|peer| (Postfix::NAME, figure(peer)));
    let only = |target| if is_target { target } else { Target::None };
    let (rate, cost) = (only(Target::RatioAtLeast(5.0)), only(Target::AtMost(0.30)));
    table.compare(format!("{what}: messages"), "/s", (ours.rate, beside(|run| run.rate)), rate);
    table.compare(format!("{what}: CPU until the 250"), "ms", (ours.cpu, beside(|run| run.cpu)), cost);
    let done = (ours.cpu_done, beside(|run| run.cpu_done));
    table.compare(format!("{what}: CPU until all is filed"), "ms", done, Target::None);
    let done = (ours.rate_done, beside(|run| run.rate_done));
    table.compare(format!("{what}: messages until all is filed"), "/s", done, Target::None);
}

/// 200 messages a second: how long a sender waits for the 250.
pub async fn steady(table: &mut Table) -> Result<()> {
    const MESSAGES: usize = 4000;
    let runs = setting("MAILWEAVE_BENCH_RUNS", 3)?;
    let (mut ours, mut peers) = (Vec::new(), Vec::new());
    for _ in 0..runs {
        let gateway = Gateway::start().await?;
        ours.push(at_200(&Party::Ours(&gateway), MESSAGES).await?);
        drop(gateway);
        if let Some(postfix) = Postfix::start() {
            peers.push(at_200(&Party::Peer(&postfix), MESSAGES).await?);
        }
    }
    for (of_thousand, what, target) in
        [(500, "half", Target::None), (990, "99 %", Target::AtMost(50.0)), (999, "99.9 %", Target::None)]
    {
        let of = |runs: &[Outcome]| {
            median(runs.iter().map(|run| run.wait(of_thousand).as_secs_f64() * 1000.0).collect())
        };
        let peer = (!peers.is_empty()).then(|| (Postfix::NAME, of(&peers)));
        let what = format!("200 messages/s of 4 KB: {what} have their 250 within");
        table.compare(what, "ms", (of(&ours), peer), target);
    }
    Ok(())
}

async fn at_200(party: &Party<'_>, messages: usize) -> Result<Outcome> {
    load::send(&party.load((20, 4096), WARM_UP, None)).await?;
    party.done().await?;
    let outcome = load::send(&party.load((20, 4096), messages, Some(200.0))).await?;
    party.done().await?;
    Ok(outcome)
}

/// What filing costs by itself: the processor time between the last 250 and the last message filed, and during.
pub async fn filing(table: &mut Table) -> Result<()> {
    let runs = setting("MAILWEAVE_BENCH_RUNS", 3)?;
    let mut ours = Vec::new();
    for _ in 0..runs {
        let gateway = Gateway::start().await?;
        ours.push(Party::Ours(&gateway).run((50, 4096)).await?);
    }
    let ours = middle(&ours);
    table.add("Taken in and filed, 4 KB: CPU", "ms", ours.cpu_done, Target::None);
    table.add("Taken in and filed, 4 KB: messages", "/s", ours.rate_done, Target::None);
    Ok(())
}
