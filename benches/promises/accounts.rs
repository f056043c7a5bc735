//! Accounts at a real Dovecot: how soon its mail is announced, what a mailbox costs that is read for the first time, what
//! looking costs when there is nothing new, and what an account costs that waits.
//!
//! Not here: filing what belongs (`growth`): strangers' mail is judged by its header and left where it is.

use std::{
    fmt::Write as _,
    fs,
    path::Path,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, ensure};
use jiff::{Timestamp, fmt::rfc2822, tz::TimeZone};
use reqwest::Response;
use serde_json::{Value, json};

use crate::{
    as_f64,
    gateway::Gateway,
    median,
    relay::Relay,
    support::{
        Person,
        dovecot::{Dovecot, Options},
        server::{Owner, output, privileged},
    },
    table::{Table, Target},
    usage,
};

/// Messages whose way is timed, one after the other.
const DELIVERIES: usize = 100;
/// Messages in the mailbox that is read for the first time.
const MAILBOX: usize = 20_000;
/// Accounts that wait, beside the few that bring what is there only once. Dovecot holds one inotify instance for each, and
/// Linux gives a user 128 of them.
const IDLE: (usize, usize) = (5, 100);
/// How long anything here may take.
const PATIENCE: Duration = Duration::from_secs(600);
/// Between two looks.
const PAUSE: Duration = Duration::from_millis(5);
/// How long nothing may be said before an account is taken to be waiting.
const QUIET: Duration = Duration::from_millis(300);

/// From the delivery of a contact's mail to its event, beside an IMAP client that does nothing but wait for it.
pub async fn latency(table: &mut Table) -> Result<()> {
    let dovecot = Dovecot::start();
    let gateway = Gateway::following(&dovecot.authority).await?;
    gateway.api.create("workspaces/acme/contacts", &json!({ "email": "carl@customer.example" })).await?;
    let user = dovecot.user(1);
    connect(&gateway, &user, "tls", dovecot.imaps.port()).await?;
    let mut events = Events(gateway.api.stream("workspaces/acme/events/stream").await?, String::new());
    let (mut ours, mut bare) = (Vec::new(), Vec::new());
    for number in 0..DELIVERIES {
        let mut waiting = dovecot.login(&user);
        waiting.expect("EXAMINE INBOX");
        waiting.begin_idle();
        let announced = tokio::task::spawn_blocking(move || {
            waiting.next_line("EXISTS");
            Instant::now()
        });
        let id = format!("latency-{number}@customer.example");
        let mail = letter("carl@customer.example", &user.address, &id);
        dovecot
            .deliver("carl@customer.example", &user, &mail)
            .map_err(|reply| anyhow::anyhow!("{reply:?}"))?;
        let delivered = Instant::now();
        events.until(&id).await?;
        ours.push(delivered.elapsed().as_secs_f64() * 1000.0);
        bare.push(announced.await?.saturating_duration_since(delivered).as_secs_f64() * 1000.0);
    }
    for (of_hundred, what) in [(50, "half"), (99, "99 %")] {
        let of = |values: &[f64]| share(values.to_vec(), of_hundred);
        let what = format!("Delivered in Dovecot: {what} are announced as an event within");
        table.compare(what, "ms", (of(&ours), Some(("bare IDLE", of(&bare)))), Target::None);
    }
    let after: Vec<f64> = ours.iter().zip(&bare).map(|(ours, bare)| (ours - bare).max(0.0)).collect();
    table.add(
        "Announced by Dovecot, until the event: 99 % within",
        "ms",
        share(after, 99),
        Target::AtMost(1000.0),
    );
    Ok(())
}

/// The value that so many of a hundred do not exceed.
fn share(mut values: Vec<f64>, of_hundred: usize) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get((values.len() * of_hundred / 100).min(values.len() - 1)).copied().unwrap_or(f64::NAN)
}

/// A mailbox of strangers' mail, read for the first time, and looked at when nothing is new.
pub async fn mailbox(table: &mut Table) -> Result<()> {
    let dovecot = Dovecot::start();
    let user = dovecot.user(1);
    fill(&dovecot, &user)?;
    let relay = Relay::before(dovecot.imap)?;
    let gateway = Gateway::following(&dovecot.authority).await?;
    let (before, started) = (usage::cpu(&gateway.server), Instant::now());
    let account = connect(&gateway, &user, "none", relay.address.port()).await?;
    let (wall, cpu) = (started.elapsed(), usage::cpu(&gateway.server) - before);
    let decided = gateway.decided().await?;
    ensure!(decided == MAILBOX, "of {MAILBOX} messages {decided} were judged");
    table.add("A mailbox of 20,000 messages: first header pass", "s", wall.as_secs_f64(), Target::None);
    table.add("The same: messages", "/s", as_f64(MAILBOX) / wall.as_secs_f64(), Target::None);
    table.add("The same: CPU", "s", cpu.as_secs_f64(), Target::None);
    let compared = spoken(&relay, async || {
        gateway.api.create(&format!("workspaces/acme/accounts/{account}/sync"), &json!({})).await.map(drop)
    });
    record(
        table,
        "A sync asked for, which compares all UIDs, when nothing is new",
        compared.await?,
        Target::None,
    );
    let often = json!({ "overrides": { "poll_min": "0s", "poll_max": "1s" } });
    gateway.api.put("workspaces/acme/policy", &often).await?;
    let looks = spoken(&relay, async || Ok(())).await?;
    record(table, "A look at the same account when nothing is new", looks, Target::AtMost(3.0));
    Ok(())
}

/// Round trips and milliseconds of a typical exchange with the server, each begun by what is given or by itself.
async fn spoken(relay: &Relay, begin: impl AsyncFn() -> Result<()>) -> Result<(f64, f64)> {
    let (mut trips, mut times) = (Vec::new(), Vec::new());
    for _ in 0..20 {
        quiet(relay).await;
        relay.take();
        begin().await?;
        until("the look", async || Ok(relay.traffic().first.is_some())).await?;
        let traffic = quiet(relay).await;
        trips.push(as_f64(traffic.round_trips));
        let spoke = traffic.first.zip(traffic.last).map(|(first, last)| last - first);
        times.push(spoke.unwrap_or_default().as_secs_f64() * 1000.0);
    }
    Ok((median(trips), median(times)))
}

fn record(table: &mut Table, what: &str, (trips, time): (f64, f64), target: Target) {
    table.add(format!("{what}: round trips"), "", trips, target);
    table.add(format!("{what}: time"), "ms", time, Target::None);
}

/// Waits until nobody speaks.
async fn quiet(relay: &Relay) -> crate::relay::Traffic {
    loop {
        let traffic = relay.traffic();
        if traffic.last.is_none_or(|last| last.elapsed() >= QUIET) {
            return traffic;
        }
        tokio::time::sleep(PAUSE).await;
    }
}

/// What an account costs that waits over TLS.
pub async fn idle(table: &mut Table) -> Result<()> {
    let users = IDLE.0 + IDLE.1;
    let dovecot = Dovecot::with(Options { users, ..Options::default() });
    let gateway = Gateway::following(&dovecot.authority).await?;
    let port = dovecot.imaps.port();
    for number in 1..=IDLE.0 {
        connect(&gateway, &dovecot.user(number), "tls", port).await?;
    }
    let before = usage::memory(&gateway.server)?;
    for number in IDLE.0 + 1..=users {
        connect(&gateway, &dovecot.user(number), "tls", port).await?;
    }
    let each = (usage::memory(&gateway.server)? - before) / as_f64(IDLE.1);
    table.add("An idle account over TLS: memory", "KiB", each, Target::AtMost(96.0));
    let before = usage::cpu(&gateway.server);
    tokio::time::sleep(Duration::from_secs(30)).await;
    let used = (usage::cpu(&gateway.server) - before).as_secs_f64() * 1000.0 * 2.0;
    table.add("The same: CPU a minute", "ms", used / as_f64(users), Target::None);
    Ok(())
}

/// Connects an account and waits until everything it holds was looked at. Its id.
async fn connect(gateway: &Gateway, user: &Person, security: &str, port: u16) -> Result<String> {
    let door = json!({ "host": "127.0.0.1", "port": port, "security": security });
    let account = json!({
        "user_id": gateway.user_id, "email": user.address, "imap": door, "smtp": door,
        "auth": { "type": "password", "username": user.address, "password": user.password },
    });
    let account = gateway.api.create("workspaces/acme/accounts", &account).await?;
    let id = account.get("id").and_then(Value::as_str).context("an account without id")?.to_owned();
    until("the first look", async || {
        let account = gateway.api.get(&format!("workspaces/acme/accounts/{id}")).await?;
        let state = account.pointer("/status/state").and_then(Value::as_str).unwrap_or_default().to_owned();
        ensure!(!["error", "stopped", "reauth_required"].contains(&state.as_str()), "{account}");
        Ok(["active", "awaiting_first_mail"].contains(&state.as_str()))
    })
    .await?;
    Ok(id)
}

async fn until(what: &str, mut holds: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    let started = Instant::now();
    while !holds().await? {
        ensure!(started.elapsed() < PATIENCE, "waited {PATIENCE:?} in vain for {what}");
        tokio::time::sleep(PAUSE).await;
    }
    Ok(())
}

/// The journal as it grows.
struct Events(Response, String);

impl Events {
    /// Reads on until an event names this.
    async fn until(&mut self, text: &str) -> Result<()> {
        while !self.1.contains(text) {
            let chunk = self.0.chunk().await?.context("the journal's stream ended")?;
            self.1.push_str(&String::from_utf8_lossy(&chunk));
        }
        self.1.clear();
        Ok(())
    }
}

/// Puts the mailbox there as files, as Dovecot would have: delivering each would take minutes.
fn fill(dovecot: &Dovecot, user: &Person) -> Result<()> {
    let name = user.address.split('@').next().unwrap_or_default();
    let home = dovecot.server.dir().join("mail").join(&dovecot.options.domain).join(name);
    let new = home.join("Maildir/new");
    for directory in ["new", "cur", "tmp"] {
        fs::create_dir_all(home.join("Maildir").join(directory))?;
    }
    for number in 0..MAILBOX {
        let sender = format!("stranger{}@elsewhere.example", number % 997);
        let mail = letter(&sender, &user.address, &format!("m{number}@elsewhere.example"));
        fs::write(new.join(format!("{}.M{number}.bench", Timestamp::now().as_second())), mail)?;
    }
    own(&home);
    Ok(())
}

fn own(home: &Path) {
    let Owner { uid, gid, .. } = Owner::for_tests();
    let domain = home.parent().unwrap_or(home);
    output(privileged("chown", true).arg("-R").arg(format!("{uid}:{gid}")).arg(domain));
}

/// About 4 KB, with the header fields that mail has by the time it lies in a mailbox.
fn letter(from: &str, to: &str, id: &str) -> String {
    let date = rfc2822::to_string(&Timestamp::now().to_zoned(TimeZone::UTC)).unwrap_or_default();
    let mut text = format!(
        "Return-Path: <{from}>\r\nReceived: from a.example by b.example; {date}\r\nFrom: <{from}>\r\nTo: <{to}>\r\n\
         Subject: About {id}\r\nDate: {date}\r\nMessage-ID: <{id}>\r\nMIME-Version: 1.0\r\n\
         Content-Type: text/plain; charset=utf-8\r\n\r\n"
    );
    for line in 0..50 {
        writeln!(text, "Line {line} of a letter that says nothing to anybody, and says it at length.\r")
            .expect("a String takes all");
    }
    text
}
