//! What the gateway shows of itself to the operator, held against the list that explains it.
//!
//! Not here: each number. Whoever counts is tested with his work.

use std::{collections::BTreeSet, net::SocketAddr};

use mailweave::{
    sandbox::Behaviour,
    telemetry::{Kind, METRICS},
};
use serde_json::json;

use crate::{
    gateway::record_metrics,
    letter::Letter,
    sandboxed::Sandboxed,
    support::{PATIENCE, store::Engine, wait_for},
    world::endpoint,
};

/// Names and kinds, as Prometheus reads them.
fn shown(text: &str) -> BTreeSet<(String, String)> {
    let types = text.lines().filter_map(|line| line.strip_prefix("# TYPE ")?.split_once(' '));
    types.map(|(name, kind)| (name.to_owned(), kind.to_owned())).collect()
}

fn listed() -> BTreeSet<(String, String)> {
    let kind = |kind| match kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
    };
    METRICS.iter().map(|metric| (metric.name.to_owned(), kind(metric.kind).to_owned())).collect()
}

/// A mail comes in, an endpoint that nobody serves is told of it, and a user's account refuses its login.
fn a_day_at_work(world: &Sandboxed) {
    let nobody = SocketAddr::from(([127, 0, 0, 1], 9));
    world.crm.post("/webhooks", &json!({ "url": format!("http://{nobody}/hook") }));
    let ann = world.user("ann", "Ann Lee");
    let account = json!({
        "user_id": ann.id,
        "email": ann.person.address,
        "imap": endpoint(world.running.imap, "none"),
        "smtp": endpoint(world.running.submission, "none"),
        "auth": { "type": "password", "username": ann.person.address, "password": "another" },
    });
    world.crm.post("/accounts", &account);
    let letter = Letter::new(&ann.person.address, &["bob@prospects.example"]);
    world.arrive(&ann.person.address, &[&ann.capture_address], &letter).unwrap();
    world.crm.await_mail("message.captured", &letter.id);
    world.crm.await_event("account.reauth_required", |_| true);
}

#[test]
fn every_metric_is_shown_with_its_explanation_and_there_are_no_others() {
    record_metrics();
    let world = Sandboxed::start(Engine::Sqlite, Behaviour::default());
    a_day_at_work(&world);
    wait_for("every metric", PATIENCE, || shown(&world.gateway.metrics()).is_superset(&listed()));
    let text = world.gateway.metrics();
    assert_eq!(shown(&text), listed());
    for metric in METRICS {
        assert!(text.contains(&format!("# HELP {} {}\n", metric.name, metric.help)), "{}", metric.name);
    }
    for line in [
        "mailweave_messages_total{via=\"capture\",verdict=\"synced\"} 1",
        "mailweave_smtp_messages_received_total{listener=\"mx\"} 1",
        "mailweave_smtp_connections_refused_total{listener=\"mx\"} 0",
        "mailweave_jobs_total{kind=\"process\",outcome=\"done\"} 1",
        "mailweave_accounts{state=\"stopped\"} 0",
    ] {
        assert!(text.contains(&format!("{line}\n")), "{line} in\n{text}");
    }
}
