//! Mail with labels, as Gmail has it: a message lies once in All Mail and is seen in the mailbox of each of its labels; what
//! is in Trash or Spam has none.
//!
//! Each sight of a message is an entry of its own mailbox with its own UID; X-GM-MSGID makes them one. Not here: how IMAP
//! shows labels (`imap::google`).

use crate::mail::Address;

use super::{
    behaviour::{MailboxNames, Manner},
    mailbox::{FlagChange, GoogleIds, Mailbox, SpecialUse, StoredMail, header_fields},
    state::{Arrival, SandboxError, User, World, same_name},
};

/// The mailbox that holds those of the provider and cannot be selected.
pub(super) const PARENT: &str = "[Gmail]";
/// Gmail's own first example of a X-GM-MSGID; numbers count on from here.
const FIRST_ID: u64 = 1_278_455_344_230_334_865;
/// Message-IDs remembered of one user; what comes after begins conversations of its own.
const THREADS_MAX: usize = 200_000;
/// Ids in References that are looked at, the last first.
const REFERENCES_MAX: usize = 100;

const SPECIAL: [SpecialUse; 6] = [
    SpecialUse::All,
    SpecialUse::Drafts,
    SpecialUse::Sent,
    SpecialUse::Junk,
    SpecialUse::Flagged,
    SpecialUse::Trash,
];

type Result<T> = std::result::Result<T, SandboxError>;

/// The mailboxes of a new user besides INBOX.
pub(super) fn mailboxes(names: MailboxNames) -> impl Iterator<Item = (String, SpecialUse)> {
    SPECIAL
        .into_iter()
        .map(move |special_use| (format!("{PARENT}/{}", leaf(special_use, names)), special_use))
}

fn leaf(special_use: SpecialUse, names: MailboxNames) -> &'static str {
    match (special_use, names) {
        (SpecialUse::Junk, _) => "Spam",
        (SpecialUse::Sent, MailboxNames::English) => "Sent Mail",
        (SpecialUse::Sent, MailboxNames::German) => "Gesendet",
        (SpecialUse::Sent, MailboxNames::French) => "Messages envoy&AOk-s",
        (SpecialUse::Trash, MailboxNames::German) => "Papierkorb",
        (SpecialUse::Trash, MailboxNames::French) => "Corbeille",
        (other, names) => other.name(names),
    }
}

/// Whether a message there has no labels and lies nowhere else.
fn is_apart(special_use: Option<SpecialUse>) -> bool {
    matches!(special_use, Some(SpecialUse::Junk | SpecialUse::Trash))
}

/// The label that a mailbox stands for; All Mail, Trash and Spam stand for none.
fn label_of(mailbox: &Mailbox) -> Option<String> {
    match mailbox.special_use {
        Some(SpecialUse::All | SpecialUse::Junk | SpecialUse::Trash) => None,
        Some(SpecialUse::Sent) => Some("\\Sent".to_owned()),
        Some(SpecialUse::Drafts) => Some("\\Draft".to_owned()),
        Some(SpecialUse::Flagged) => Some("\\Starred".to_owned()),
        Some(SpecialUse::Archive) | None if mailbox.name == "INBOX" => Some("\\Inbox".to_owned()),
        Some(SpecialUse::Archive) | None => Some(mailbox.name.clone()),
    }
}

impl User {
    /// The labels of a message but the one it is seen by, as X-GM-LABELS lists them.
    pub(super) fn labels(&self, message: u64, seen_in: &str) -> Vec<String> {
        let others = self.mailboxes.iter().filter(|mailbox| !same_name(&mailbox.name, seen_in));
        others.filter(|mailbox| mailbox.uid_of(message).is_some()).filter_map(label_of).collect()
    }

    /// The mailbox of a label, in any letter case where the label is the provider's own.
    fn mailbox_of_label(&self, label: &str) -> Option<String> {
        let special = match label.to_ascii_lowercase().as_str() {
            "\\trash" => Some(SpecialUse::Trash),
            "\\spam" | "\\junk" => Some(SpecialUse::Junk),
            "\\drafts" => Some(SpecialUse::Drafts),
            _ => None,
        };
        if let Some(special) = special {
            return self.special(special).map(|mailbox| mailbox.name.clone());
        }
        let is_it = |mailbox: &&Mailbox| {
            label_of(mailbox).is_some_and(|own| match label.starts_with('\\') {
                true => own.eq_ignore_ascii_case(label),
                false => own == label,
            })
        };
        self.mailboxes.iter().find(is_it).map(|mailbox| mailbox.name.clone())
    }

    /// The conversation that a message belongs to, by the ids it names, or `own`.
    fn thread_of(&mut self, raw: &[u8], own: u64) -> u64 {
        let mail = memchr::memmem::find(raw, b"\r\n\r\n").and_then(|end| raw.get(..end)).unwrap_or(raw);
        let fields: Vec<(String, String)> = header_fields(mail).collect();
        let ids = |name: &str| -> Vec<String> {
            let values = fields.iter().filter(|(field, _)| field.eq_ignore_ascii_case(name));
            let words = values.flat_map(|(_, value)| value.split_whitespace());
            words.rev().take(REFERENCES_MAX).map(str::to_owned).collect()
        };
        let named = ids("In-Reply-To").into_iter().chain(ids("References")).chain(ids("Message-ID"));
        let known = named.filter_map(|id| self.threads.get(&id).copied()).next();
        let thread = known.unwrap_or(own);
        for id in ids("Message-ID").into_iter().chain(ids("X-Google-Original-Message-ID")) {
            if self.threads.len() < THREADS_MAX {
                self.threads.insert(id, thread);
            }
        }
        thread
    }
}

impl World {
    /// Files a message under a label, and in All Mail. One that is there already stays as it is.
    pub(super) fn append_labelled(&mut self, address: &Address, name: &str, mail: Arrival) -> Result<u32> {
        let special_use = self.mailbox(address, name)?.special_use;
        let mail = self.identified(address, mail)?;
        let Some(ids) = mail.google else { return Err(SandboxError::Full) };
        if let Some(uid) = self.mailbox(address, name)?.uid_of(ids.message) {
            return Ok(uid);
        }
        let uid = self.append_plain(address, name, mail.clone())?;
        if is_apart(special_use) {
            self.unlabel_all(address, ids.message, name)?;
            return Ok(uid);
        }
        let all = self.special_name(address, SpecialUse::All)?;
        if self.mailbox(address, &all)?.uid_of(ids.message).is_none() {
            self.append_plain(address, &all, mail)?;
        }
        for apart in [SpecialUse::Junk, SpecialUse::Trash] {
            let apart = self.special_name(address, apart)?;
            self.unlabel(address, &apart, ids.message)?;
        }
        self.labels_changed(address, ids.message, name);
        self.spread_flags(address, name, uid)?;
        Ok(uid)
    }

    fn identified(&mut self, address: &Address, mail: Arrival) -> Result<Arrival> {
        if mail.google.is_some() {
            return Ok(mail);
        }
        let message = FIRST_ID + self.next_serial();
        let thread = self.user_mut(address)?.thread_of(&mail.raw, message);
        Ok(Arrival { google: Some(GoogleIds { message, thread }), ..mail })
    }

    /// Takes a label off. Who expunges from All Mail, Trash or Spam deletes.
    pub(super) fn expunge_labelled(&mut self, address: &Address, name: &str, uid: u32) -> Result<()> {
        let mailbox = self.mailbox(address, name)?;
        let special_use = mailbox.special_use;
        let ids = mailbox.find(uid).ok_or(SandboxError::NoMessage)?.google;
        self.expunge_plain(address, name, uid)?;
        let Some(ids) = ids else { return Ok(()) };
        match special_use {
            Some(SpecialUse::All) => self.unlabel_all(address, ids.message, name),
            Some(SpecialUse::Flagged) => {
                let all = self.special_name(address, SpecialUse::All)?;
                let Some(uid) = self.mailbox(address, &all)?.uid_of(ids.message) else { return Ok(()) };
                self.flag(address, (&all, uid), (FlagChange::Remove, &["\\Flagged".to_owned()])).map(drop)
            }
            _ => {
                self.labels_changed(address, ids.message, name);
                Ok(())
            }
        }
    }

    /// What happens to a message's flags happens wherever it is seen, but for `\Deleted`, which belongs to the mailbox.
    pub(super) fn spread_flags(&mut self, address: &Address, name: &str, uid: u32) -> Result<()> {
        let user = self.user(address)?;
        let found = user.mailbox(name).and_then(|mailbox| mailbox.find(uid)).cloned();
        let Some((mail, ids)) = found.and_then(|mail| mail.google.map(|ids| (mail, ids))) else {
            return Ok(());
        };
        if user.behaviour.manner != Manner::Google {
            return Ok(());
        }
        let flags: Vec<String> = mail.flags.iter().filter(|flag| *flag != "\\Deleted").cloned().collect();
        for mailbox in &mut self.user_mut(address)?.mailboxes {
            let Some(other) = mailbox.uid_of(ids.message).filter(|_| !same_name(&mailbox.name, name)) else {
                continue;
            };
            let deleted = mailbox.find(other).is_some_and(|mail| mail.has_flag("\\Deleted"));
            let own = deleted.then(|| "\\Deleted".to_owned());
            let flags: Vec<String> = flags.iter().cloned().chain(own).collect();
            mailbox.store(other, FlagChange::Replace, &flags);
        }
        self.star(address, &mail, ids)
    }

    /// Starred shows what is flagged.
    fn star(&mut self, address: &Address, mail: &StoredMail, ids: GoogleIds) -> Result<()> {
        let starred = self.special_name(address, SpecialUse::Flagged)?;
        let shown = self.mailbox(address, &starred)?.uid_of(ids.message);
        let all = self.special_name(address, SpecialUse::All)?;
        let is_kept = self.mailbox(address, &all)?.uid_of(ids.message).is_some();
        match (shown, mail.has_flag("\\Flagged") && is_kept) {
            (None, true) => self.append_plain(address, &starred, Arrival::copy_of(mail)).map(drop),
            (Some(uid), false) => self.expunge_plain(address, &starred, uid),
            _ => Ok(()),
        }
    }

    /// Changes a message's labels; unknown ones are made. The message is one that is seen in this mailbox.
    pub(super) fn relabel(
        &mut self,
        address: &Address,
        (name, uid): (&str, u32),
        (change, labels): (FlagChange, &[String]),
    ) -> Result<()> {
        let mail = self.mailbox(address, name)?.find(uid).ok_or(SandboxError::NoMessage)?.clone();
        let ids = mail.google.ok_or(SandboxError::NoMessage)?;
        if change == FlagChange::Replace {
            for own in self.user(address)?.labels(ids.message, name) {
                if !labels.contains(&own) {
                    self.unlabel_by_name(address, &own, ids.message)?;
                }
            }
        }
        for label in labels {
            if label.eq_ignore_ascii_case("\\Starred") {
                let change = if change == FlagChange::Replace { FlagChange::Add } else { change };
                self.flag(address, (name, uid), (change, &["\\Flagged".to_owned()]))?;
                continue;
            }
            match change {
                FlagChange::Remove => self.unlabel_by_name(address, label, ids.message)?,
                FlagChange::Add | FlagChange::Replace => {
                    let mailbox = match self.user(address)?.mailbox_of_label(label) {
                        Some(mailbox) => mailbox,
                        None if label.starts_with('\\') => return Err(SandboxError::NoMailbox),
                        None => {
                            self.add_mailbox(address, label)?;
                            label.clone()
                        }
                    };
                    self.append_labelled(address, &mailbox, Arrival::copy_of(&mail))?;
                }
            }
        }
        Ok(())
    }

    fn unlabel_by_name(&mut self, address: &Address, label: &str, message: u64) -> Result<()> {
        match self.user(address)?.mailbox_of_label(label) {
            Some(mailbox) => {
                self.unlabel(address, &mailbox, message)?;
                self.labels_changed(address, message, &mailbox);
                Ok(())
            }
            None => Ok(()),
        }
    }

    fn unlabel(&mut self, address: &Address, name: &str, message: u64) -> Result<()> {
        match self.mailbox(address, name)?.uid_of(message) {
            Some(uid) => self.expunge_plain(address, name, uid),
            None => Ok(()),
        }
    }

    /// Takes a message out of every mailbox but this one.
    fn unlabel_all(&mut self, address: &Address, message: u64, but: &str) -> Result<()> {
        let names: Vec<String> =
            self.user(address)?.mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect();
        names
            .iter()
            .filter(|name| !same_name(name, but))
            .try_for_each(|name| self.unlabel(address, name, message))
    }

    fn labels_changed(&mut self, address: &Address, message: u64, but: &str) {
        let Ok(user) = self.user_mut(address) else { return };
        for mailbox in user.mailboxes.iter_mut().filter(|mailbox| !same_name(&mailbox.name, but)) {
            if let Some(uid) = mailbox.uid_of(message) {
                mailbox.touch(uid);
            }
        }
    }

    fn special_name(&self, address: &Address, special_use: SpecialUse) -> Result<String> {
        let found = self.user(address)?.special(special_use).map(|mailbox| mailbox.name.clone());
        found.ok_or(SandboxError::NoMailbox)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sandbox::{behaviour::Behaviour, state::Limits};

    const ALL: &str = "[Gmail]/All Mail";
    const TRASH: &str = "[Gmail]/Trash";
    const STARRED: &str = "[Gmail]/Starred";

    fn ann() -> Address {
        Address::parse("ann@example.test").unwrap()
    }

    fn world() -> World {
        let mut world = World::new(vec!["example.test".to_owned()], Behaviour::google(), Limits::default());
        world.add_user(&ann(), "secret").unwrap();
        world
    }

    fn mail(id: &str, answers: &str) -> Arrival {
        let raw = format!("Message-ID: <{id}>\r\nReferences: {answers}\r\nSubject: s\r\n\r\nbody\r\n");
        Arrival::new(raw.into_bytes())
    }

    fn places(world: &World) -> Vec<String> {
        let mailboxes = world.user(&ann()).unwrap().mailboxes.iter();
        mailboxes.flat_map(|own| own.mails.iter().map(|_| own.name.clone())).collect()
    }

    fn ids(world: &World, name: &str) -> Vec<GoogleIds> {
        world.mailbox(&ann(), name).unwrap().mails.iter().filter_map(|mail| mail.google).collect()
    }

    #[test]
    fn a_message_lies_once_and_is_seen_under_each_label() {
        let mut world = world();
        let uid = world.append(&ann(), "INBOX", mail("1@x", "")).unwrap();
        world.relabel(&ann(), ("INBOX", uid), (FlagChange::Add, &["Deals".into()])).unwrap();
        assert_eq!(places(&world), ["INBOX", ALL, "Deals"]);
        assert_eq!(ids(&world, "INBOX"), ids(&world, ALL));
        assert_eq!(ids(&world, "INBOX"), ids(&world, "Deals"));
        let message = ids(&world, ALL)[0].message;
        let labels = |world: &World, name: &str| world.user(&ann()).unwrap().labels(message, name);
        assert_eq!(labels(&world, ALL), ["\\Inbox", "Deals"]);
        assert_eq!(labels(&world, "inbox"), ["Deals"]);
        world.expunge(&ann(), "INBOX", uid).unwrap();
        assert_eq!(places(&world), [ALL, "Deals"]);
        world.relabel(&ann(), (ALL, 1), (FlagChange::Replace, &["\\inbox".into()])).unwrap();
        assert_eq!(places(&world), ["INBOX", ALL]);
    }

    #[test]
    fn what_is_in_the_trash_is_nowhere_else_and_comes_back_whole() {
        let mut world = world();
        let uid = world.append(&ann(), "INBOX", mail("1@x", "")).unwrap();
        world.relabel(&ann(), ("INBOX", uid), (FlagChange::Add, &["\\Trash".into()])).unwrap();
        assert_eq!(places(&world), [TRASH]);
        world.relabel(&ann(), (TRASH, 1), (FlagChange::Add, &["\\Inbox".into()])).unwrap();
        assert_eq!(places(&world), ["INBOX", ALL]);
        world.expunge(&ann(), ALL, 2).unwrap();
        assert_eq!(places(&world), [""; 0]);
    }

    #[test]
    fn flags_are_those_of_the_message_and_a_star_shows_it_under_starred() {
        let mut world = world();
        let uid = world.append(&ann(), "INBOX", mail("1@x", "")).unwrap();
        let flags = ["\\Seen".to_owned(), "\\Flagged".to_owned(), "\\Deleted".to_owned()];
        assert!(world.flag(&ann(), ("INBOX", uid), (FlagChange::Add, &flags)).unwrap());
        let all = world.mailbox(&ann(), ALL).unwrap();
        assert_eq!(all.mails[0].flags, ["\\Seen", "\\Flagged"]);
        assert_eq!(places(&world), ["INBOX", ALL, STARRED]);
        world.flag(&ann(), (ALL, 1), (FlagChange::Remove, &["\\Flagged".into()])).unwrap();
        assert_eq!(places(&world), ["INBOX", ALL]);
        assert!(world.mailbox(&ann(), "INBOX").unwrap().mails[0].has_flag("\\Deleted"));
    }

    #[test]
    fn an_answer_is_of_the_conversation_it_names() {
        let mut world = world();
        for (id, answers) in [("1@x", ""), ("2@x", "<1@x>"), ("3@x", "<0@x> <2@x>"), ("4@x", "<0@x>")] {
            world.append(&ann(), "INBOX", mail(id, answers)).unwrap();
        }
        let ids = ids(&world, ALL);
        assert!(ids[..3].iter().all(|own| own.thread == ids[0].message), "{ids:?}");
        assert_eq!(ids[3].thread, ids[3].message);
    }
}
