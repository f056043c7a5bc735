//! FETCH and UID FETCH, a message at a time so that a long answer takes no memory of its own.
//!
//! Not here: cutting messages into sections (`section`, `structure`).

use std::collections::VecDeque;

use imap_types::{
    IntoStatic,
    command::FetchModifier,
    fetch::{MacroOrMessageDataItemNames, MessageDataItemName, Section},
    sequence::SequenceSet,
};

use crate::sandbox::{
    allowance,
    ledger::{Extent, Fetched},
    mailbox::{FlagChange, StoredMail},
};

use super::{
    google, section,
    session::{Answer, Session, Step},
    structure,
    view::{Expunges, Stale},
    wire::{self, Numbers},
};

/// What is asked of each message, by the standard and beyond it.
type Items<'a> = (&'a [MessageDataItemName<'static>], &'a [google::Item]);

/// A FETCH that is being answered.
pub(super) struct FetchJob {
    tag: String,
    /// Sequence number and UID of the messages still to come.
    targets: VecDeque<(u32, u32)>,
    items: Vec<MessageDataItemName<'static>>,
    google: Vec<google::Item>,
    expunges: Expunges,
}

impl Session {
    pub(super) fn start_fetch(
        &mut self,
        command: (&str, bool),
        set: &SequenceSet,
        names: MacroOrMessageDataItemNames<'_>,
        modifiers: &[FetchModifier],
    ) -> Result<Answer, Stale> {
        let (tag, by_uid) = command;
        let mut items = items(names, by_uid);
        let asks_mod_seq = items.contains(&MessageDataItemName::ModSeq) || !modifiers.is_empty();
        if asks_mod_seq && !self.extensions.condstore {
            return Ok(Answer::bad("CONDSTORE is not offered"));
        }
        self.enabled.condstore |= asks_mod_seq;
        let since = modifiers.iter().find_map(|modifier| match modifier {
            FetchModifier::ChangedSince(mod_seq) => Some(mod_seq.get()),
            FetchModifier::Vanished => None,
        });
        let vanished = modifiers.contains(&FetchModifier::Vanished);
        if vanished && !(by_uid && self.enabled.qresync && since.is_some()) {
            return Ok(Answer::bad("VANISHED needs UID FETCH, CHANGEDSINCE and QRESYNC"));
        }
        if since.is_some() && !items.contains(&MessageDataItemName::ModSeq) {
            items.push(MessageDataItemName::ModSeq);
        }
        let targets = self.targets(set, by_uid, (since, vanished))?;
        let expunges = if by_uid { Expunges::Tell } else { Expunges::Hold };
        let google = std::mem::take(&mut self.google.items);
        let mut names_uid = false;
        // Gmail's own items were taken out of the command in favour of UIDs.
        items.retain(|item| *item != MessageDataItemName::Uid || !std::mem::replace(&mut names_uid, true));
        self.set_fetch(FetchJob { tag: tag.to_owned(), targets, items, google, expunges });
        Ok(Answer::Pending)
    }

    fn targets(
        &mut self,
        set: &SequenceSet,
        by_uid: bool,
        since: (Option<u64>, bool),
    ) -> Result<VecDeque<(u32, u32)>, Stale> {
        let Some(view) = &self.view else { return Err(Stale) };
        let output = &mut self.output;
        self.provider.with(|world| {
            let mailbox = view.open(world)?;
            let mut targets = view.chosen(set, by_uid);
            if let (Some(mod_seq), vanished) = since {
                targets.retain(|(_, uid)| mailbox.find(*uid).is_some_and(|mail| mail.mod_seq > mod_seq));
                let asked = Numbers::new(set, mailbox.uid_next.saturating_sub(1));
                let mut gone = if vanished { mailbox.vanished_since(mod_seq) } else { Vec::new() };
                gone.retain(|uid| asked.contains(*uid));
                if !gone.is_empty() {
                    output.extend_from_slice(
                        format!("* VANISHED (EARLIER) {}\r\n", wire::set(&gone)).as_bytes(),
                    );
                }
            }
            Ok(targets.into())
        })
    }

    /// Answers for one more message, or completes the FETCH.
    pub(super) fn fetch_some(&mut self) {
        let Some(mut job) = self.take_fetch() else { return };
        match job.targets.pop_front() {
            None => self.finish(&job.tag, job.expunges, Answer::ok("fetched")),
            Some((sequence, uid)) => {
                self.fetch_one(sequence, uid, (&job.items, &job.google));
                if !self.then.contains(&Step::Close) {
                    self.set_fetch(job);
                }
            }
        }
    }

    /// A message that another client has expunged meanwhile is passed over.
    fn fetch_one(&mut self, sequence: u32, uid: u32, asked: Items<'_>) {
        let (items, google) = asked;
        let Some(view) = &self.view else { return };
        let sees = view.writable && items.iter().any(marks_seen);
        let (user, name) = (view.user.clone(), view.mailbox.clone());
        let found = self.provider.with(|world| {
            view.open(world).ok()?.find(uid)?;
            let seen = ["\\Seen".to_owned()];
            let newly = sees
                && world.flag(&user, (&name, uid), (FlagChange::Add, &seen)).is_ok_and(|changed| changed);
            let mail = view.open(world).ok()?.find(uid)?.clone();
            let ids = mail.google.filter(|_| google.contains(&google::Item::Labels));
            let labels = ids.zip(world.user(&user).ok()).map(|(ids, user)| user.labels(ids.message, &name));
            Some((mail, newly, labels.unwrap_or_default()))
        });
        let Some((mail, newly_seen, labels)) = found else { return };
        let before = self.output.len();
        self.output.extend_from_slice(format!("* {sequence} FETCH (").as_bytes());
        let flags = newly_seen.then_some(&MessageDataItemName::Flags).filter(|flags| !items.contains(flags));
        for (at, item) in items.iter().chain(flags).enumerate() {
            if at > 0 {
                self.output.push(b' ');
            }
            write_item(&mail, item, &mut self.output);
        }
        for item in google {
            self.output.push(b' ');
            google::write_item(*item, &mail, &labels, &mut self.output);
        }
        self.output.extend_from_slice(b")\r\n");
        let octets = self.output.len() - before;
        if !self.provider.has_room_to_read(&user, octets) {
            return self.bye(allowance::too_much_read(self.manner));
        }
        if let Some(extent) = items.iter().filter_map(extent).max() {
            let fetched = Fetched { session: self.number, user, mailbox: name, uid, extent, octets };
            self.provider.with(|world| world.ledger.fetch(fetched));
        }
    }
}

fn items(names: MacroOrMessageDataItemNames<'_>, by_uid: bool) -> Vec<MessageDataItemName<'static>> {
    let mut items = match names {
        MacroOrMessageDataItemNames::Macro(short) => short.expand().into_static(),
        MacroOrMessageDataItemNames::MessageDataItemNames(items) => items.into_static(),
    };
    if by_uid && !items.contains(&MessageDataItemName::Uid) {
        items.insert(0, MessageDataItemName::Uid);
    }
    items
}

fn marks_seen(item: &MessageDataItemName<'_>) -> bool {
    matches!(
        item,
        MessageDataItemName::BodyExt { peek: false, .. }
            | MessageDataItemName::Binary { peek: false, .. }
            | MessageDataItemName::Rfc822
            | MessageDataItemName::Rfc822Text
    )
}

/// How much of the message an item shows.
fn extent(item: &MessageDataItemName<'_>) -> Option<Extent> {
    match item {
        MessageDataItemName::BodyExt { section, .. } => Some(match section {
            Some(
                Section::Header(None) | Section::HeaderFields(None, _) | Section::HeaderFieldsNot(None, _),
            ) => Extent::Header,
            _ => Extent::Content,
        }),
        MessageDataItemName::Rfc822Header | MessageDataItemName::Envelope => Some(Extent::Header),
        MessageDataItemName::Rfc822
        | MessageDataItemName::Rfc822Text
        | MessageDataItemName::Binary { .. } => Some(Extent::Content),
        _ => None,
    }
}

fn write_item(mail: &StoredMail, item: &MessageDataItemName<'_>, out: &mut Vec<u8>) {
    let (header, body) = mail.split();
    let text = match item {
        MessageDataItemName::Uid => format!("UID {}", mail.uid),
        MessageDataItemName::Flags => format!("FLAGS {}", wire::flags(&mail.flags)),
        MessageDataItemName::InternalDate => format!("INTERNALDATE {}", wire::date_time(mail.internal_date)),
        MessageDataItemName::Rfc822Size => format!("RFC822.SIZE {}", mail.raw.len()),
        MessageDataItemName::ModSeq => format!("MODSEQ ({})", mail.mod_seq),
        MessageDataItemName::BodyExt { section, partial, .. } => {
            return section::write(&mail.raw, (section.as_ref(), *partial), out);
        }
        MessageDataItemName::Rfc822 => return named("RFC822", &mail.raw, out),
        MessageDataItemName::Rfc822Header => return named("RFC822.HEADER", header, out),
        MessageDataItemName::Rfc822Text => return named("RFC822.TEXT", body, out),
        MessageDataItemName::Envelope => return structure::envelope(&mail.raw, out),
        MessageDataItemName::Body => return structure::body(&mail.raw, "BODY", out),
        MessageDataItemName::BodyStructure => return structure::body(&mail.raw, "BODYSTRUCTURE", out),
        // BINARY (RFC 3516) is not announced.
        MessageDataItemName::Binary { .. } => "BINARY[] NIL".to_owned(),
        MessageDataItemName::BinarySize { .. } => "BINARY.SIZE[] 0".to_owned(),
    };
    out.extend_from_slice(text.as_bytes());
}

fn named(name: &str, bytes: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b' ');
    wire::literal(out, bytes);
}
