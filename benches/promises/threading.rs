//! Threading in memory: the keys of each message, the conversations found under them, the assignment.
//!
//! Not here: the index in the store (`growth`).

use std::{collections::HashMap, time::Instant};

use anyhow::{Context as _, Result};
use jiff::Timestamp;
use mailweave::{
    core::{
        ids::ConversationId,
        threading::{self, Assignment, Found, ThreadKey, ThreadNode},
    },
    mail::{Address, MessageId},
    store::mint,
};

use crate::{
    as_f64,
    table::{Table, Target},
};

const MESSAGES: usize = 100_000;
/// Answers name this many ids: everything before them in a long thread.
const THREAD_LENGTH: usize = 6;

struct Mail {
    nodes: Vec<ThreadNode>,
    people: Vec<Address>,
}

/// The conversations of every key, and where those went that were merged.
#[derive(Default)]
struct Index {
    conversations: HashMap<ThreadKey, ConversationId>,
    merged: HashMap<ConversationId, ConversationId>,
    created: HashMap<ConversationId, Timestamp>,
}

impl Index {
    fn root(&self, mut id: ConversationId) -> ConversationId {
        while let Some(into) = self.merged.get(&id) {
            id = *into;
        }
        id
    }

    fn file(&mut self, mail: &Mail, now: Timestamp) {
        let keys = threading::keys(&mail.nodes, &mail.people);
        let ids = keys.iter().filter_map(|key| self.conversations.get(key)).map(|id| self.root(*id));
        let found: Vec<Found> =
            ids.map(|id| Found { id, created_at: self.created.get(&id).copied().unwrap_or(now) }).collect();
        let conversation = match threading::assign(&found) {
            Assignment::Start => {
                let id = mint();
                self.created.insert(id, now);
                id
            }
            Assignment::Join(id) => id,
            Assignment::Merge { keep, absorb } => {
                self.merged.extend(absorb.into_iter().map(|id| (id, keep)));
                keep
            }
        };
        for key in keys {
            self.conversations.entry(key).or_insert(conversation);
        }
    }
}

pub fn in_memory(table: &mut Table) -> Result<()> {
    let mails = mails()?;
    let mut rates = Vec::new();
    for _ in 0..5 {
        let (mut index, started) = (Index::default(), Instant::now());
        for mail in &mails {
            index.file(mail, Timestamp::UNIX_EPOCH);
        }
        rates.push(as_f64(MESSAGES) / started.elapsed().as_secs_f64());
    }
    table.add(
        "Threading of 100,000 messages in memory",
        "/s",
        crate::median(rates),
        Target::AtLeast(20_000.0),
    );
    Ok(())
}

/// Threads of six, each between a user and two outsiders, in an order that has answers before what they answer.
fn mails() -> Result<Vec<Mail>> {
    let id = |thread: usize, position: usize| {
        MessageId::parse(&format!("{position}.{thread}.20261101@mail.crm.example"))
    };
    let mut mails = Vec::with_capacity(MESSAGES);
    for number in 0..MESSAGES {
        // 7919 shares no factor with the count: every message comes once, far from its neighbours.
        let place = number * 7919 % MESSAGES;
        let (thread, position) = (place / THREAD_LENGTH, place % THREAD_LENGTH);
        let nodes: Option<Vec<_>> =
            (0..=position).rev().map(|at| id(thread, at).map(ThreadNode::MessageId)).collect();
        let people = ["ann", "bob"].map(|name| Address::parse(&format!("{name}{thread}@prospect.example")));
        let people: Result<Vec<_>, _> = people.into_iter().collect();
        mails.push(Mail { nodes: nodes.context("an id that is none")?, people: people? });
    }
    Ok(mails)
}
