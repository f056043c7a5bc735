//! Who answered whom, where an answer to a user's mail makes a contact: found by keyed hashes, for neither mail need be in the
//! CRM yet, and whichever of the two comes first.
//!
//! An answer is mail that a person wrote himself, that names mail of a user's, and whose author that was written to: not what a
//! machine sends in his absence, nor what others write about it with him in copy. It is the same of mail of this batch, of mail
//! left out before, and of what is stored, so that the order in which the two are seen does not matter.
//!
//! Not here: what follows from it (`core::policy`).

use std::collections::{HashMap, HashSet};

use super::{headers::Seen, judge::Bench};
use crate::{
    core::{
        attribution::Known,
        decision::HashRole,
        message::Author,
        policy::{AWAITS_ANSWER, settings::CreateOn},
    },
    mail::{Address, Automatic, MessageId},
    store::{Error, Session, TextHasher},
};

/// A hash of a Message-ID, and one of a person on the mail.
type Pair = ([u8; 16], [u8; 16]);

/// Mail that was left out, and that of the batch.
#[derive(Default)]
pub(super) struct Exchange {
    hashes: Hashes,
    /// Mail of users, by its own id, with each person on it.
    wrote: HashSet<Pair>,
    /// Mail that others wrote themselves, by the ids it names, with its author.
    answers: HashSet<Pair>,
}

impl Exchange {
    pub(super) async fn look(
        session: &mut Session,
        bench: Bench<'_>,
        known: &Known,
        seen: &[&Seen],
    ) -> Result<Self, Error> {
        if bench.policy.settings.create_on != CreateOn::Exchange {
            return Ok(Self::default());
        }
        let hashes = Hashes::of(&session.text_hasher().await?, seen);
        let (mut wrote, mut answers) = (HashSet::new(), HashSet::new());
        let (mut own, mut named) = (Vec::new(), Vec::new());
        for message in seen {
            if author(message).is_some_and(|author| known.users.contains_key(author)) {
                let people = message.parties.addresses();
                wrote.extend(people.flat_map(|person| hashes.pairs(own_id(message), person)));
                own.extend(hashes.ids(own_id(message)));
            } else if let Some(author) = person(message) {
                answers.extend(hashes.pairs(references(message), author));
                named.extend(references(message).cloned());
            }
        }
        let (account, of_named) = (bench.account, hashes.ids(named.iter()));
        wrote.extend(session.skipped_pairs(account, (HashRole::Id, AWAITS_ANSWER), &of_named).await?);
        wrote.extend(stored_pairs(session, &hashes, &named).await?);
        answers.extend(session.skipped_pairs(account, (HashRole::Reference, AWAITS_ANSWER), &own).await?);
        Ok(Self { hashes, wrote, answers })
    }

    /// Whether a person wrote it, in answer to what a user wrote to him.
    pub(super) fn answers(&self, message: &Seen) -> bool {
        let pairs = person(message).map(|author| self.hashes.pairs(references(message), author));
        pairs.into_iter().flatten().any(|pair| self.wrote.contains(&pair))
    }

    /// Whether somebody it was written to, who is no user, has answered it.
    pub(super) fn is_answered(&self, message: &Seen, known: &Known) -> bool {
        let parties = &message.parties;
        let to = [&parties.to, &parties.cc, &parties.bcc].into_iter().flatten();
        let to = to.filter(|person| !known.users.contains_key(&person.address));
        let mut pairs = to.flat_map(|person| self.hashes.pairs(own_id(message), &person.address));
        pairs.any(|pair| self.answers.contains(&pair))
    }
}

/// Mail of users that is stored, by those of the ids it bears, with each person on it who is of the batch.
async fn stored_pairs(session: &mut Session, hashes: &Hashes, ids: &[MessageId]) -> Result<Vec<Pair>, Error> {
    let mut pairs = Vec::new();
    for found in session.messages_by_rfc822_id(ids).await? {
        let stored = session.message(found.message).await?;
        let Some(stored) = stored.filter(|stored| matches!(stored.author, Author::User(_))) else { continue };
        let people = stored.parties.addresses();
        pairs.extend(people.flat_map(|person| hashes.pairs(std::iter::once(&found.id), person)));
    }
    Ok(pairs)
}

/// The hashes of every id and person of a batch; none where nobody asks.
#[derive(Default)]
struct Hashes(HashMap<String, [u8; 16]>);

impl Hashes {
    fn of(hasher: &TextHasher, seen: &[&Seen]) -> Self {
        let texts = seen.iter().flat_map(|message| {
            let ids = own_id(message).chain(references(message)).map(MessageId::as_str);
            ids.chain(message.parties.addresses().map(Address::key))
        });
        Self(texts.map(|text| (text.to_owned(), hasher.hash(text))).collect())
    }

    fn ids<'a>(&self, ids: impl Iterator<Item = &'a MessageId>) -> Vec<[u8; 16]> {
        ids.filter_map(|id| self.0.get(id.as_str()).copied()).collect()
    }

    fn pairs<'a>(&self, ids: impl Iterator<Item = &'a MessageId>, person: &Address) -> Vec<Pair> {
        let Some(person) = self.0.get(person.key()) else { return Vec::new() };
        self.ids(ids).into_iter().map(|id| (id, *person)).collect()
    }
}

fn author(message: &Seen) -> Option<&Address> {
    message.parties.from.first().map(|party| &party.address)
}

/// The author of mail that he wrote himself.
fn person(message: &Seen) -> Option<&Address> {
    author(message).filter(|_| message.summary.automatic == Automatic::No)
}

fn own_id(message: &Seen) -> impl Iterator<Item = &MessageId> {
    message.summary.message_id.iter()
}

fn references(message: &Seen) -> impl Iterator<Item = &MessageId> {
    message.summary.in_reply_to.iter().chain(&message.summary.references)
}
