//! Which messages of a mailbox belong together: by the keys and the subjects that the gateway indexes.
//!
//! Each folder is a mailbox. Not here: the index itself, which the gateway keeps in its store.

use std::{
    collections::{BTreeMap, HashMap},
    fs,
    io::Write,
    path::{Path, PathBuf},
    sync::Arc,
};

use anyhow::{Context as _, Result};
use mailweave::{
    core::{
        attribution::OurDomains,
        policy::{Policy, Preset, Settings, settings::SubjectThreading, span::Span},
        subject::SubjectMark,
        threading::{self, ThreadNode},
    },
    mail::{Address, HeaderSummary},
};
use serde_json::json;

/// How far apart an answer that names nothing and what it answers may be.
const WINDOW_DAYS: u64 = 30;

/// Writes the thread of each message.
pub fn write(out: &mut impl Write, folder: &Path, paths: &[PathBuf]) -> Result<()> {
    let mut mailboxes: BTreeMap<&Path, Vec<&PathBuf>> = BTreeMap::new();
    for path in paths {
        mailboxes.entry(path.parent().unwrap_or(folder)).or_default().push(path);
    }
    let settings = settings()?;
    for (mailbox, paths) in mailboxes {
        let mailbox = mailbox.strip_prefix(folder)?.display().to_string();
        for (path, thread) in paths.iter().zip(threads(&settings, &paths)?) {
            let file = path.strip_prefix(folder)?.display().to_string();
            writeln!(out, "{}", json!({ "file": file, "thread": format!("{mailbox}/{thread}") }))?;
        }
    }
    Ok(())
}

fn settings() -> Result<Arc<Settings>> {
    let mut policy = Policy::of_preset(Preset::named("mailweave").context("the preset of the house")?);
    Arc::make_mut(&mut policy.settings).subject_threading =
        SubjectThreading::Within(Span::from_secs(WINDOW_DAYS * 86_400));
    Ok(policy.settings)
}

/// For each message the position of the first one of its thread.
fn threads(settings: &Settings, paths: &[&PathBuf]) -> Result<Vec<usize>> {
    let mut groups = Groups((0..paths.len()).collect());
    let mut by_key = HashMap::new();
    let mut by_subject: HashMap<String, Vec<(usize, SubjectMark)>> = HashMap::new();
    for (at, path) in paths.iter().enumerate() {
        let summary = HeaderSummary::read(&fs::read(path)?);
        let parties = OurDomains::default().parties(&summary);
        let people: Vec<Address> = parties.addresses().cloned().collect();
        for key in threading::keys(&nodes(&summary), &people) {
            groups.join(*by_key.entry(key).or_insert(at), at);
        }
        if let Some(mark) = SubjectMark::of(settings, &summary, &parties) {
            let same = by_subject.entry(mark.text.clone()).or_default();
            for (other, _) in same.iter().filter(|(_, other)| other.meets(&mark)) {
                groups.join(*other, at);
            }
            same.push((at, mark));
        }
    }
    Ok((0..paths.len()).map(|at| groups.first(at)).collect())
}

fn nodes(summary: &HeaderSummary) -> Vec<ThreadNode> {
    let ids = [&summary.message_id, &summary.original_message_id].into_iter().flatten();
    let ids = ids.chain(&summary.in_reply_to).chain(&summary.references).cloned();
    summary
        .thread_index
        .map(ThreadNode::ThreadIndex)
        .into_iter()
        .chain(ids.map(ThreadNode::MessageId))
        .collect()
}

/// Components: for each member one that is nearer to the first.
struct Groups(Vec<usize>);

impl Groups {
    fn first(&self, mut at: usize) -> usize {
        while let Some(next) = self.0.get(at).copied().filter(|next| *next != at) {
            at = next;
        }
        at
    }

    fn join(&mut self, one: usize, other: usize) {
        let (one, other) = (self.first(one), self.first(other));
        if let Some(parent) = self.0.get_mut(one.max(other)) {
            *parent = one.min(other);
        }
    }
}
