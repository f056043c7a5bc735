//! DKIM, ARC and SPF of messages whose DNS stands in files beside them.
//!
//! Not here: the network. What the files do not hold does not exist.

use std::{fs, io, net::IpAddr, path::Path};

use anyhow::{Context as _, Result};
use mailweave::mail::authenticity::{
    Answer, Answers, Chain, Client, Question, Record, RecordKind, Verdict, signatures, spf, split,
};
use serde_json::{Value, json};

/// Aliases that are followed.
const ALIASES_MAX: usize = 8;

/// Records by name: `{"txt": […]}` or `{"rcode": …}`, or a list with one record of one type each.
struct Zone(Value);

impl Zone {
    fn answer(&self, question: &Question) -> Answer {
        let mut name = question.name.clone();
        for _ in 0..ALIASES_MAX {
            match self.at(&name) {
                None => return Answer::Void,
                Some(Value::Array(records)) => match listed(records, question.kind) {
                    Found::Answer(answer) => return answer,
                    Found::Alias(target) => name = target,
                },
                Some(entry) => return plain(entry, question.kind),
            }
        }
        Answer::Silent
    }

    fn at(&self, name: &str) -> Option<&Value> {
        let entries = self.0.as_object()?;
        entries
            .iter()
            .find(|(key, _)| key.trim_end_matches('.').eq_ignore_ascii_case(name))
            .map(|(_, entry)| entry)
    }
}

enum Found {
    Answer(Answer),
    Alias(String),
}

fn plain(entry: &Value, kind: RecordKind) -> Answer {
    if entry.get("rcode").is_some_and(|code| code != "NXDOMAIN") {
        return Answer::Silent;
    }
    let texts = entry.get("txt").and_then(Value::as_array).filter(|_| kind == RecordKind::Txt);
    records(texts.into_iter().flatten().map(|text| Record::Text(joined(text))).collect())
}

fn records(found: Vec<Record>) -> Answer {
    if found.is_empty() { Answer::Void } else { Answer::Records(found) }
}

/// Text that is one string or several.
fn joined(text: &Value) -> String {
    match text {
        Value::Array(parts) => parts.iter().filter_map(Value::as_str).collect(),
        other => other.as_str().unwrap_or_default().to_owned(),
    }
}

/// A name with SPF records and no TXT records has its SPF records as TXT.
fn listed(entries: &[Value], kind: RecordKind) -> Found {
    let of = |wanted: &str| -> Vec<&Value> { entries.iter().filter_map(|entry| entry.get(wanted)).collect() };
    if let Some(target) = of("CNAME").first() {
        return Found::Alias(host(target));
    }
    let found: Vec<Record> = match kind {
        RecordKind::Txt => {
            let texts = of("TXT");
            let texts = if texts.is_empty() { of("SPF") } else { texts };
            texts.into_iter().filter(|text| *text != "NONE").map(|text| Record::Text(joined(text))).collect()
        }
        RecordKind::A => of("A").into_iter().filter_map(address).collect(),
        RecordKind::Aaaa => of("AAAA").into_iter().filter_map(address).collect(),
        RecordKind::Mx => {
            of("MX").into_iter().filter_map(|mx| Some(Record::Host(host(mx.get(1)?)))).collect()
        }
        RecordKind::Ptr => of("PTR").into_iter().map(|name| Record::Host(host(name))).collect(),
    };
    let is_silent = found.is_empty() && entries.iter().any(|entry| entry == "TIMEOUT");
    Found::Answer(if is_silent { Answer::Silent } else { records(found) })
}

fn host(value: &Value) -> String {
    value.as_str().unwrap_or_default().trim_end_matches('.').to_owned()
}

fn address(value: &Value) -> Option<Record> {
    Some(Record::Address(value.as_str()?.parse().ok()?))
}

/// Asks until there is a result.
fn settle<T>(zone: &Zone, mut check: impl FnMut(&mut Answers) -> Option<T>) -> T {
    let mut answers = Answers::default();
    loop {
        if let Some(result) = check(&mut answers) {
            return result;
        }
        for question in answers.take_wanted() {
            let answer = zone.answer(&question);
            answers.learn(question, answer);
        }
    }
}

fn truth(folder: &Path) -> Result<Vec<Value>> {
    let list = fs::read_to_string(folder.join("truth.jsonl"))?;
    let lines = list.lines().filter(|line| !line.trim().is_empty());
    lines.map(|line| Ok(serde_json::from_str(line)?)).collect()
}

fn text<'a>(entry: &'a Value, field: &str) -> &'a str {
    entry.get(field).and_then(Value::as_str).unwrap_or_default()
}

/// The overall result of DKIM, or the chain's of ARC, of each message.
pub fn write_auth(out: &mut impl io::Write, folder: &Path) -> Result<()> {
    for entry in truth(folder)? {
        let (file, kind) = (text(&entry, "file"), text(&entry, "kind"));
        if kind != "dkim" && kind != "arc" {
            continue;
        }
        let raw = fs::read(folder.join(file)).with_context(|| file.to_owned())?;
        let zone = match entry.get("dns_ref").and_then(Value::as_str) {
            Some(name) => serde_json::from_slice(&fs::read(folder.join(name))?)?,
            None => entry.get("dns").cloned().unwrap_or_default(),
        };
        let now = entry.get("now").and_then(Value::as_i64).unwrap_or(0);
        let result = if kind == "arc" { arc(&raw, &Zone(zone)) } else { dkim(&raw, &Zone(zone), now) };
        writeln!(out, "{}", json!({ "file": file, "result": result }))?;
    }
    Ok(())
}

fn dkim(raw: &[u8], zone: &Zone, now: i64) -> &'static str {
    let (fields, body) = split(raw);
    let verdicts: Vec<Verdict> = signatures(&fields, body, now)
        .iter()
        .map(|signature| settle(zone, |answers| signature.check(answers)).verdict)
        .collect();
    let any = |wanted: fn(&Verdict) -> bool| verdicts.iter().any(wanted);
    if any(|verdict| *verdict == Verdict::Pass) {
        "pass"
    } else if any(|verdict| *verdict == Verdict::Silent) {
        "temperror"
    } else if any(|verdict| {
        matches!(
            verdict,
            Verdict::Fail("the body was changed" | "the header was changed, or its key is another")
        )
    }) {
        "fail"
    } else if any(|verdict| matches!(verdict, Verdict::Fail(_))) {
        "permerror"
    } else if any(|verdict| matches!(verdict, Verdict::Void(_))) {
        "policy"
    } else {
        "none"
    }
}

fn arc(raw: &[u8], zone: &Zone) -> &'static str {
    let (fields, body) = split(raw);
    let chain = Chain::read(&fields, body);
    match settle(zone, |answers| chain.check(answers)) {
        Verdict::Pass => "pass",
        Verdict::Void(_) => "none",
        Verdict::Fail(_) => "fail",
        Verdict::Silent => "temperror",
    }
}

/// The result of SPF for each test of each suite.
pub fn write_spf(out: &mut impl io::Write, folder: &Path) -> Result<()> {
    for entry in truth(folder)? {
        if text(&entry, "kind") != "spf-suite" {
            continue;
        }
        let file = text(&entry, "file");
        let suite: Value = serde_json::from_slice(&fs::read(folder.join(file))?)?;
        let zone = Zone(suite.get("zonedata").cloned().unwrap_or_default());
        for test in suite.get("tests").and_then(Value::as_array).into_iter().flatten() {
            let address: IpAddr = text(test, "host").parse()?;
            let client = Client { address, hello: text(test, "helo"), mail_from: text(test, "mailfrom") };
            let result = settle(&zone, |answers| spf(answers, &client)).as_str();
            writeln!(out, "{}", json!({ "file": file, "name": text(test, "name"), "result": result }))?;
        }
    }
    Ok(())
}
