//! `mailweave policy simulate`: what another policy would have made of an account's mail, as tables for a terminal.
//!
//! Not here: the simulation (`flow::sync`) and the request itself (`app::client`).

use std::{collections::BTreeMap, fmt::Write as _};

use anyhow::Context as _;
use jiff::Timestamp;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::client;
use crate::{
    cli::{Client, Simulate},
    net,
};

/// What is asked of the API.
pub(super) fn body(order: &Simulate) -> Value {
    let chosen =
        |preset: &String| json!({ "preset": preset, "overrides": overrides(&order.against_settings) });
    json!({
        "account_id": order.account,
        "days": order.days,
        "preset": order.preset,
        "overrides": overrides(&order.settings),
        "against": order.against.as_ref().map(chosen),
    })
}

/// What is JSON is taken as such; all else is a word.
fn overrides(settings: &[(String, String)]) -> Map<String, Value> {
    let value = |text: &str| serde_json::from_str(text).unwrap_or_else(|_| Value::String(text.to_owned()));
    settings.iter().map(|(name, text)| (name.clone(), value(text))).collect()
}

/// Prints what would have been.
///
/// # Errors
/// The API's refusal, or why it could not be asked.
pub async fn run(client: &Client, order: Simulate) -> anyhow::Result<()> {
    net::install_provider();
    client::write(ask(client, order).await?.as_bytes())
}

/// Asks the gateway. The text is for stdout, its last line ended.
///
/// # Errors
/// As [`run`].
pub async fn ask(client: &Client, order: Simulate) -> anyhow::Result<String> {
    let as_json = order.json;
    shown(client::simulation(client, order).await?, as_json)
}

fn shown(answer: Value, as_json: bool) -> anyhow::Result<String> {
    if as_json {
        return Ok(format!("{answer:#}\n"));
    }
    let simulation: Simulation = serde_json::from_value(answer).context("the answer is no simulation")?;
    Ok(simulation.told())
}

/// Of the API's answer, what is told of it.
#[derive(Deserialize)]
struct Simulation {
    account_id: String,
    days: u16,
    since: String,
    messages: u64,
    unreadable: u64,
    simulated: Outcome,
    against: Outcome,
    changed: u64,
    changes: Vec<Change>,
    examples: Vec<Example>,
}

#[derive(Deserialize)]
struct Outcome {
    preset: String,
    version: Option<i64>,
    synced: u64,
    skipped: u64,
    rules: Vec<Rule>,
    contacts_created: u64,
    synced_unless_files: u64,
    skipped_unless_reports: u64,
    quota: Quota,
}

#[derive(Deserialize)]
struct Quota {
    synced_per_day: Option<u32>,
    used: u64,
    days_at_limit: u64,
    over: u64,
    waiting: u64,
    days: Vec<Day>,
}

#[derive(Deserialize)]
struct Day {
    day: String,
    synced: u64,
    over: u64,
}

#[derive(Deserialize)]
struct Ruling {
    verdict: String,
    rule: String,
}

#[derive(Deserialize)]
struct Rule {
    #[serde(flatten)]
    ruling: Ruling,
    messages: u64,
}

#[derive(Deserialize)]
struct Change {
    from: Ruling,
    to: Ruling,
    messages: u64,
}

#[derive(Deserialize)]
struct Example {
    date: Timestamp,
    mailbox: String,
    uid: u32,
    from: Ruling,
    to: Ruling,
}

impl Outcome {
    fn name(&self) -> String {
        self.version.map_or_else(
            || self.preset.clone(),
            |version| format!("{}, in force (version {version})", self.preset),
        )
    }
}

impl Ruling {
    fn told(&self) -> String {
        format!("{} {}", self.verdict, self.rule)
    }
}

/// A line of a table: what it is about, and the numbers of both policies.
type Line = (String, [String; 2]);

impl Simulation {
    fn told(&self) -> String {
        let mut text = format!(
            "{} messages of {} since {} ({} days). Nothing was stored.\n",
            self.messages, self.account_id, self.since, self.days
        );
        if self.unreadable > 0 {
            told(&mut text, format_args!("{} more could not be read.\n", self.unreadable));
        }
        let heads = [&self.simulated, &self.against].map(Outcome::name);
        table(&mut text, ("", &heads), &self.counts());
        table(&mut text, ("BY RULE", &heads), &self.rules());
        table(&mut text, ("BY DAY (put off or left at the limit)", &heads), &self.by_day());
        self.tell_changes(&mut text);
        text
    }

    fn line(&self, name: &str, count: impl Fn(&Outcome) -> u64) -> Line {
        (name.to_owned(), [&self.simulated, &self.against].map(|outcome| count(outcome).to_string()))
    }

    fn counts(&self) -> Vec<Line> {
        let limit =
            |outcome: &Outcome| outcome.quota.synced_per_day.map_or("none".into(), |limit| limit.to_string());
        let mut lines = vec![
            self.line("synced", |outcome| outcome.synced),
            self.line("skipped", |outcome| outcome.skipped),
            self.line("contacts created", |outcome| outcome.contacts_created),
            self.line("messages filed, each once", |outcome| outcome.quota.used),
            ("limit a day".to_owned(), [&self.simulated, &self.against].map(limit)),
        ];
        let rare = [
            self.line("days on which the limit is met", |outcome| outcome.quota.days_at_limit),
            self.line("put off or left at the limit", |outcome| outcome.quota.over),
            self.line("still put off at the end", |outcome| outcome.quota.waiting),
            self.line("synced, unless a file keeps it out", |outcome| outcome.synced_unless_files),
            self.line("skipped, unless it reports on mail sent", |outcome| outcome.skipped_unless_reports),
        ];
        lines.extend(rare.into_iter().filter(|(_, counts)| counts.iter().any(|count| count != "0")));
        lines
    }

    fn rules(&self) -> Vec<Line> {
        let mut rules: BTreeMap<(&str, &str), [u64; 2]> = BTreeMap::new();
        let both = self.simulated.rules.iter().map(|rule| (rule, [rule.messages, 0]));
        let both = both.chain(self.against.rules.iter().map(|rule| (rule, [0, rule.messages])));
        for (rule, [simulated, against]) in both {
            let name = (rule.ruling.verdict.as_str(), rule.ruling.rule.as_str());
            let [left, right] = rules.entry(name).or_default();
            (*left, *right) = (*left + simulated, *right + against);
        }
        // Synced before skipped, and what most mail met first.
        let mut rules: Vec<_> = rules.into_iter().collect();
        rules.sort_by_key(|((verdict, _), [left, right])| {
            (std::cmp::Reverse(*verdict), std::cmp::Reverse(*left.max(right)))
        });
        let told = |((verdict, rule), counts): ((&str, &str), [u64; 2])| {
            (format!("{verdict} {rule}"), counts.map(|count| count.to_string()))
        };
        rules.into_iter().map(told).collect()
    }

    /// Where there is a limit: else a day is like any other.
    fn by_day(&self) -> Vec<Line> {
        let mut days: BTreeMap<&str, [String; 2]> = BTreeMap::new();
        for (column, outcome) in [&self.simulated, &self.against].into_iter().enumerate() {
            for day in outcome.quota.days.iter().filter(|_| outcome.quota.synced_per_day.is_some()) {
                let over = if day.over > 0 { format!(" ({})", day.over) } else { String::new() };
                let line = days.entry(&day.day).or_insert_with(|| ["0".to_owned(), "0".to_owned()]);
                if let Some(cell) = line.get_mut(column) {
                    *cell = format!("{}{over}", day.synced);
                }
            }
        }
        days.into_iter().map(|(day, cells)| (day.to_owned(), cells)).collect()
    }

    fn tell_changes(&self, text: &mut String) {
        if self.changes.is_empty() {
            text.push_str("\nNo message would be ruled otherwise.\n");
            return;
        }
        let (from, to) = (&self.against.preset, &self.simulated.preset);
        told(
            text,
            format_args!("\nCHANGES from {from} to {to}: {} messages get another verdict\n", self.changed),
        );
        for Change { from, to, messages } in &self.changes {
            told(text, format_args!("  {messages:>7}  {} -> {}\n", from.told(), to.told()));
        }
        if !self.examples.is_empty() {
            text.push_str("\nEXAMPLES, the newest first: when, mailbox and UID\n");
        }
        for Example { date, mailbox, uid, from, to } in &self.examples {
            let at = date.strftime("%Y-%m-%d %H:%M UTC");
            told(text, format_args!("  {at}  {mailbox} {uid}  {} -> {}\n", from.told(), to.told()));
        }
    }
}

fn table(text: &mut String, (title, heads): (&str, &[String; 2]), lines: &[Line]) {
    if lines.is_empty() {
        return;
    }
    let width =
        |words: &mut dyn Iterator<Item = &str>| words.map(|word| word.chars().count()).max().unwrap_or(0);
    let first = width(&mut lines.iter().map(|(name, _)| name.as_str()).chain([title]));
    let [left_head, right_head] = heads;
    let left = width(&mut lines.iter().map(|(_, [left, _])| left.as_str()).chain([left_head.as_str()]));
    let right = width(&mut lines.iter().map(|(_, [_, right])| right.as_str()).chain([right_head.as_str()]));
    told(text, format_args!("\n{title:first$}  {left_head:>left$}  {right_head:>right$}\n"));
    for (name, [one, other]) in lines {
        told(text, format_args!("{name:first$}  {one:>left$}  {other:>right$}\n"));
    }
}

fn told(text: &mut String, line: std::fmt::Arguments<'_>) {
    text.write_fmt(line).expect("a String takes any text");
}

#[cfg(test)]
mod tests {
    use super::*;

    fn answer() -> Value {
        let ruled = |verdict: &str, rule: &str, messages: u64| json!({ "verdict": verdict, "rule": rule, "reason": "…", "messages": messages });
        let outcome = |preset: &str, version: Value, rules: Value, over: u64| {
            json!({
                "preset": preset, "version": version, "settings": {}, "synced": 3, "skipped": 9, "rules": rules,
                "contacts_created": 1, "synced_unless_files": 0, "skipped_unless_reports": 0,
                "quota": {
                    "synced_per_day": 2, "over_sync": "defer", "used": 3, "days_at_limit": 1, "over": over,
                    "waiting": 0, "days": [{ "day": "2025-04-01", "synced": 2, "over": over }],
                },
            })
        };
        let (skipped, synced) = (ruled("skipped", "no_contact", 9), ruled("synced", "contact_wrote", 3));
        json!({
            "account_id": "acc_1", "days": 7, "since": "2025-03-31", "messages": 12, "unreadable": 0,
            "simulated": outcome("keap", Value::Null, json!([skipped, synced]), 1),
            "against": outcome("mailweave", json!(4), json!([ruled("skipped", "no_contact", 12)]), 0),
            "changed": 3,
            "changes": [{ "from": skipped, "to": synced, "messages": 3 }],
            "examples": [{ "date": "2025-04-01T10:00:00Z", "mailbox": "INBOX", "uid": 7, "from": skipped, "to": synced }],
        })
    }

    #[test]
    fn both_policies_stand_side_by_side() {
        let text = shown(answer(), false).unwrap();
        let expect = "\
12 messages of acc_1 since 2025-03-31 (7 days). Nothing was stored.

                                keap  mailweave, in force (version 4)
synced                             3                                3
skipped                            9                                9
contacts created                   1                                1
messages filed, each once          3                                3
limit a day                        2                                2
days on which the limit is met     1                                1
put off or left at the limit       1                                0

BY RULE               keap  mailweave, in force (version 4)
synced contact_wrote     3                                0
skipped no_contact       9                               12

BY DAY (put off or left at the limit)   keap  mailweave, in force (version 4)
2025-04-01                             2 (1)                                2

CHANGES from mailweave to keap: 3 messages get another verdict
        3  skipped no_contact -> synced contact_wrote

EXAMPLES, the newest first: when, mailbox and UID
  2025-04-01 10:00 UTC  INBOX 7  skipped no_contact -> synced contact_wrote
";
        assert_eq!(text, expect, "{text}");
    }

    #[test]
    fn the_answer_can_be_had_as_it_is() {
        assert_eq!(serde_json::from_str::<Value>(&shown(answer(), true).unwrap()).unwrap(), answer());
    }

    #[test]
    fn settings_are_words_or_json() {
        let given =
            [("match", "all"), ("push", "false"), ("backfill_days", "7"), ("thread_start", "[\"crm\"]")];
        let given: Vec<_> = given.map(|(name, value)| (name.to_owned(), value.to_owned())).into();
        let expect = json!({ "match": "all", "push": false, "backfill_days": 7, "thread_start": ["crm"] });
        assert_eq!(Value::Object(overrides(&given)), expect);
    }
}
