//! Which messages of a mailbox belong together: by the keys and the subjects that the gateway indexes.
//!
//! Each folder is a mailbox, and its owner takes part in all mail that lies in it: ids alone connect, as in a mail program.
//! The gateway is stricter (`threads-gateway`): who merely names an id gets into no conversation unless a person outside the
//! workspace is on both messages; and it counts Thread-Index, of which threads by ids know nothing. Not here: the index itself,
//! which the gateway keeps in its store.

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
    mail::{Address, HeaderSummary, subject},
};
use serde_json::json;

/// How far apart an answer that names nothing and what it answers may be.
const WINDOW_DAYS: u64 = 14;
/// One answer in so many that names nothing, and who runs a gateway turns the option on.
const NAMELESS_SHARE: usize = 5;

/// Whose sharing an id connects messages.
#[derive(Clone, Copy)]
pub enum Participants {
    /// The owner of the mailbox, who takes part in all of it.
    Owner,
    /// Those whom the messages name.
    Named,
}

/// Whether subjects join mail (`subject_threading`).
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Subjects {
    On,
    Off,
    /// As who runs a gateway would choose: on where many answers do not say what they answer.
    AsNeeded,
}

/// Writes the thread of each message.
pub fn write(
    out: &mut impl Write,
    folder: &Path,
    paths: &[PathBuf],
    (participants, subjects): (Participants, Subjects),
) -> Result<()> {
    let mut mailboxes: BTreeMap<&Path, Vec<&PathBuf>> = BTreeMap::new();
    for path in paths {
        mailboxes.entry(path.parent().unwrap_or(folder)).or_default().push(path);
    }
    let are_on = subjects == Subjects::On || (subjects == Subjects::AsNeeded && are_needed(paths)?);
    let settings = settings(are_on)?;
    for (mailbox, paths) in mailboxes {
        let mailbox = mailbox.strip_prefix(folder)?.display().to_string();
        for (path, thread) in paths.iter().zip(threads(&settings, &paths, participants)?) {
            let file = path.strip_prefix(folder)?.display().to_string();
            writeln!(out, "{}", json!({ "file": file, "thread": format!("{mailbox}/{thread}") }))?;
        }
    }
    Ok(())
}

/// Whether many of the answers name nothing.
fn are_needed(paths: &[PathBuf]) -> Result<bool> {
    let (mut answers, mut nameless) = (0, 0);
    for path in paths {
        let summary = HeaderSummary::read(&fs::read(path)?);
        if summary.subject.as_deref().is_some_and(subject::is_reply_prefix) {
            answers += 1;
            nameless += usize::from(summary.names_nothing());
        }
    }
    Ok(nameless * NAMELESS_SHARE > answers)
}

fn settings(are_subjects_on: bool) -> Result<Arc<Settings>> {
    let mut policy = Policy::of_preset(Preset::named("mailweave").context("the preset of the house")?);
    Arc::make_mut(&mut policy.settings).subject_threading = match are_subjects_on {
        true => SubjectThreading::Within(Span::from_secs(WINDOW_DAYS * 86_400)),
        false => SubjectThreading::Off,
    };
    Ok(policy.settings)
}

/// For each message the position of the first one of its thread.
fn threads(settings: &Settings, paths: &[&PathBuf], participants: Participants) -> Result<Vec<usize>> {
    let mut groups = Groups((0..paths.len()).collect());
    let mut by_key = HashMap::new();
    let mut by_subject: HashMap<String, Vec<usize>> = HashMap::new();
    let mut marks: HashMap<usize, SubjectMark> = HashMap::new();
    for (at, path) in paths.iter().enumerate() {
        let summary = HeaderSummary::read(&fs::read(path)?);
        let parties = OurDomains::default().parties(&summary);
        let people: Vec<Address> = match participants {
            Participants::Owner => Vec::new(),
            Participants::Named => parties.addresses().cloned().collect(),
        };
        for key in threading::keys(&nodes(&summary, participants), &people) {
            groups.join(*by_key.entry(key).or_insert(at), at);
        }
        if let Some(mark) = SubjectMark::of(settings, &summary, &parties) {
            for text in mark.found_by.iter().chain(&mark.seeks) {
                let same = by_subject.entry(text.clone()).or_default();
                for other in same.iter().filter(|other| marks.get(other).is_some_and(|it| it.meets(&mark))) {
                    groups.join(*other, at);
                }
                same.push(at);
            }
            marks.insert(at, mark);
        }
    }
    Ok((0..paths.len()).map(|at| groups.first(at)).collect())
}

fn nodes(summary: &HeaderSummary, participants: Participants) -> Vec<ThreadNode> {
    let ids = [&summary.message_id, &summary.original_message_id].into_iter().flatten();
    let ids = ids.chain(&summary.in_reply_to).chain(&summary.references).cloned();
    summary
        .thread_index
        .filter(|_| matches!(participants, Participants::Named))
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
