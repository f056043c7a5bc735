//! What is known of mail that a policy is simulated over: everything that real filing would ask the store of each message,
//! asked for all together, and without what that very mail has brought into the store already.
//!
//! Not here: reading the mail (`simulate`).

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::{
    exchange::Exchange,
    headers::Seen,
    judge::{Bench, traits},
    quota::ids_of,
    simulate::{Basis, Lying},
};
use crate::{
    core::{
        account::MailboxUid,
        attribution::{self, Known, OurDomains},
        ids::{AccountId, ConversationId, MessageKey},
        message::{Author, Sighting},
        policy::{
            ListedContact, Policy,
            settings::{CreateOn, InternalRule},
            simulate::{Ground, Mail},
        },
        threading::ThreadKey,
    },
    flow::{
        Settings,
        ingest::{self, bytes_of},
    },
    mail::{Address, MessageId},
    store::{Error, Session},
};

/// Who asks, and over which mail.
#[derive(Clone, Copy)]
pub(super) struct Scene<'a> {
    pub settings: &'a Settings,
    pub account: AccountId,
    pub basis: &'a Basis,
    pub policies: &'a [Policy; 2],
}

impl Scene<'_> {
    fn ours(&self) -> &OurDomains {
        &self.settings.ours
    }

    /// A policy for which who answered whom matters.
    fn asks_for_answers(&self) -> Option<&Policy> {
        self.policies.iter().find(|policy| policy.settings.create_on == CreateOn::Exchange)
    }
}

/// Gathers what is known.
pub(super) async fn survey(
    session: &mut Session,
    scene: Scene<'_>,
    lying: Vec<Lying>,
) -> Result<(Ground, Vec<Mail>), Error> {
    let ground = ground(session, scene, &lying).await?;
    let known = Known { users: ground.users.clone(), ..Known::default() };
    let all: Vec<&Seen> = lying.iter().map(|lying| &lying.seen).collect();
    let others = others(session, scene, &all).await?;
    let exchange = match scene.asks_for_answers() {
        Some(policy) => {
            let (ours, account, user) = (scene.ours(), scene.account, scene.basis.user);
            // What is old enough to be left out was not read.
            let secret = &scene.settings.loop_key;
            let bench = Bench { ours, policy, account, user, horizon: Timestamp::MIN, secret };
            Exchange::look(session, bench, &known, &all).await?
        }
        None => Exchange::default(),
    };
    let inside: HashSet<MailboxUid> = lying.iter().map(|lying| lying.mailbox_uid(scene.account)).collect();
    let keys: Vec<Vec<ThreadKey>> = all.iter().map(|seen| keys(scene, &known, seen)).collect();
    let threads = threads(session, (scene.account, &inside), &keys).await?;
    let filed = Filed::look(session, scene, (&all, &inside)).await?;
    let mail = lying.into_iter().zip(keys).map(|(lying, keys)| {
        let seen = lying.seen;
        let is_here = ids_of(&seen).any(|id| filed.here.contains(id));
        Mail {
            at: lying.at,
            traits: traits(&seen, &others, (&exchange, &known)),
            in_known_thread: keys.iter().any(|key| threads.contains(key)),
            keys,
            answers_filed: seen.summary.in_reply_to.iter().any(|id| filed.by_users.contains(id)),
            is_here,
            is_too_large: seen.size.is_some_and(|size| size > scene.settings.message_bytes_max),
            may_hold_files: seen.may_hold_files,
            may_report: lying.may_report,
            parties: seen.parties,
            summary: seen.summary,
        }
    });
    Ok((ground, mail.collect()))
}

async fn ground(session: &mut Session, scene: Scene<'_>, lying: &[Lying]) -> Result<Ground, Error> {
    let people = people(lying.iter().map(|lying| &lying.seen));
    let (users, mut listed) = session.people_among(&people).await?;
    // Whom mail of these days made a contact was none before.
    let contacts: Vec<_> = listed.iter().map(|one: &ListedContact| one.contact).collect();
    let made = session.contacts_made_by_mail(&contacts, scene.basis.begins_at()).await?;
    listed.retain(|one| !made.contains(&one.contact));
    Ok(Ground {
        ours: scene.ours().clone(),
        user: scene.basis.user,
        users,
        listed,
        synced_per_day: scene.basis.synced_per_day,
        zone: scene.basis.zone.clone(),
        until: scene.basis.now,
    })
}

fn people<'a>(seen: impl Iterator<Item = &'a Seen>) -> Vec<Address> {
    let mut people: Vec<Address> = seen.flat_map(|seen| seen.parties.addresses().cloned()).collect();
    people.sort_unstable();
    people.dedup();
    people
}

async fn others(session: &mut Session, scene: Scene<'_>, all: &[&Seen]) -> Result<HashSet<Address>, Error> {
    let asks = |policy: &Policy| policy.settings.internal_rule == InternalRule::AnyParticipantAccount;
    match scene.policies.iter().any(asks) {
        true => session.other_accounts_at(scene.account, &people(all.iter().copied())).await,
        false => Ok(HashSet::new()),
    }
}

/// The same whoever counts as a contact: only who is a user matters.
fn keys(scene: Scene<'_>, known: &Known, seen: &Seen) -> Vec<ThreadKey> {
    let who = attribution::attribute(&seen.parties, known, scene.ours());
    ingest::keys_of_summary(&seen.summary, &seen.nodes, &seen.parties, &who)
}

/// The keys of conversations that are in the CRM for other mail than this.
async fn threads(
    session: &mut Session,
    (account, inside): (AccountId, &HashSet<MailboxUid>),
    keys: &[Vec<ThreadKey>],
) -> Result<HashSet<ThreadKey>, Error> {
    let mut asked: Vec<ThreadKey> = keys.iter().flatten().copied().collect();
    asked.sort_unstable();
    asked.dedup();
    let roots = session.roots_of_keys(&bytes_of(&asked)).await?;
    let distinct: HashSet<ConversationId> = roots.values().copied().collect();
    let conversations: Vec<ConversationId> = distinct.into_iter().collect();
    let mut beside = session.conversations_beside(account, &conversations).await?;
    let left: Vec<_> = conversations.into_iter().filter(|id| !beside.contains(id)).collect();
    let places = session.places_of_conversations(account, &left).await?;
    let outside = places.into_iter().filter(|(_, at)| !inside.contains(at));
    beside.extend(outside.map(|(conversation, _)| conversation));
    let is_beside = |key: &ThreadKey| roots.get(&key.0).is_some_and(|root| beside.contains(root));
    Ok(asked.into_iter().filter(is_beside).collect())
}

/// Ids of mail that the CRM has for another reason than this very mail.
#[derive(Default)]
struct Filed {
    here: HashSet<MessageId>,
    /// Those of mail that users wrote; looked for only where that makes contacts.
    by_users: HashSet<MessageId>,
}

impl Filed {
    async fn look(
        session: &mut Session,
        scene: Scene<'_>,
        (all, inside): (&[&Seen], &HashSet<MailboxUid>),
    ) -> Result<Self, Error> {
        let asks = scene.asks_for_answers().is_some();
        let named = all.iter().filter(|_| asks).flat_map(|seen| &seen.summary.in_reply_to);
        let mut ids: Vec<MessageId> =
            all.iter().flat_map(|seen| ids_of(seen)).chain(named).cloned().collect();
        ids.sort_unstable();
        ids.dedup();
        let known = session.messages_by_rfc822_id(&ids).await?;
        let messages: Vec<MessageKey> = known.iter().map(|known| known.message).collect();
        let sightings = session.sightings(&messages).await?;
        let is_inside = |message: &MessageKey| {
            let rows = sightings.get(message).map(Vec::as_slice).unwrap_or_default();
            let lies_there =
                |sighting: &Sighting| matches!(sighting, Sighting::Account(at) if inside.contains(at));
            !rows.is_empty() && rows.iter().all(|row| lies_there(&row.sighting))
        };
        let mut filed = Self::default();
        let mut authors: HashMap<MessageKey, bool> = HashMap::new();
        for one in known.into_iter().filter(|one| !is_inside(&one.message)) {
            if asks && !authors.contains_key(&one.message) {
                let author = session.message(one.message).await?.map(|message| message.author);
                authors.insert(one.message, matches!(author, Some(Author::User(_))));
            }
            if authors.get(&one.message) == Some(&true) {
                filed.by_users.insert(one.id.clone());
            }
            filed.here.insert(one.id);
        }
        Ok(filed)
    }
}
