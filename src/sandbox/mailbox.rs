//! One mailbox of the provider: its messages by UID, with flags, modification sequences and the UIDs that are gone.
//!
//! Not here: message sequence numbers. They belong to a session's view of the mailbox (`imap::view`).

use std::{collections::VecDeque, sync::Arc};

use jiff::Timestamp;

use super::behaviour::MailboxNames;

/// Expunged UIDs remembered for QRESYNC; what is older is answered from the gaps between UIDs (RFC 7162 section 3.2.5.2).
const EXPUNGED_MAX: usize = 10_000;
/// Flags kept of one message.
const FLAGS_MAX: usize = 64;
/// Octets of one flag; longer ones are dropped.
const FLAG_BYTES_MAX: usize = 100;

/// What a mailbox is for (RFC 6154). INBOX has its name instead.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum SpecialUse {
    /// Every message of the account, at a provider with labels.
    All,
    Archive,
    Drafts,
    /// What is flagged, at a provider with labels.
    Flagged,
    Junk,
    Sent,
    Trash,
}

impl SpecialUse {
    /// The mailboxes that every user has, at a provider without labels.
    pub const USUAL: [Self; 5] = [Self::Sent, Self::Drafts, Self::Trash, Self::Junk, Self::Archive];

    /// The attribute in a LIST response.
    #[must_use]
    pub fn attribute(self) -> &'static str {
        match self {
            Self::All => "\\All",
            Self::Archive => "\\Archive",
            Self::Drafts => "\\Drafts",
            Self::Flagged => "\\Flagged",
            Self::Junk => "\\Junk",
            Self::Sent => "\\Sent",
            Self::Trash => "\\Trash",
        }
    }

    /// The name a provider of that language gives it, as it goes over the wire: modified UTF-7 (RFC 3501 section 5.1.3).
    #[must_use]
    pub fn name(self, names: MailboxNames) -> &'static str {
        match (names, self) {
            (MailboxNames::English, Self::All) => "All Mail",
            (MailboxNames::German, Self::All) => "Alle Nachrichten",
            (MailboxNames::French, Self::All) => "Tous les messages",
            (MailboxNames::English, Self::Flagged) => "Starred",
            (MailboxNames::German, Self::Flagged) => "Markiert",
            (MailboxNames::French, Self::Flagged) => "Suivis",
            (MailboxNames::English, Self::Archive) => "Archive",
            (MailboxNames::English, Self::Drafts) => "Drafts",
            (MailboxNames::English, Self::Junk) => "Junk",
            (MailboxNames::English, Self::Sent) => "Sent",
            (MailboxNames::English, Self::Trash) => "Trash",
            (MailboxNames::German, Self::Archive) => "Archiv",
            (MailboxNames::German, Self::Drafts) => "Entw&APw-rfe",
            (MailboxNames::German, Self::Junk) => "Junk-E-Mail",
            (MailboxNames::German, Self::Sent) => "Gesendete Elemente",
            (MailboxNames::German, Self::Trash) => "Gel&APY-schte Elemente",
            (MailboxNames::French, Self::Archive) => "Archives",
            (MailboxNames::French, Self::Drafts) => "Brouillons",
            (MailboxNames::French, Self::Junk) => "Courrier ind&AOk-sirable",
            (MailboxNames::French, Self::Sent) => "&AMk-l&AOk-ments envoy&AOk-s",
            (MailboxNames::French, Self::Trash) => "&AMk-l&AOk-ments supprim&AOk-s",
        }
    }
}

/// One message as it lies in a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StoredMail {
    pub uid: u32,
    /// RFC 7162: changes with the flags.
    pub mod_seq: u64,
    /// System flags in their canonical letter case, then keywords.
    pub flags: Vec<String>,
    pub internal_date: Timestamp,
    pub raw: Arc<[u8]>,
    /// The same in every mailbox that a message with labels is seen in.
    pub google: Option<GoogleIds>,
}

/// X-GM-MSGID and X-GM-THRID of a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GoogleIds {
    pub message: u64,
    pub thread: u64,
}

impl StoredMail {
    #[must_use]
    pub fn has_flag(&self, flag: &str) -> bool {
        self.flags.iter().any(|own| own.eq_ignore_ascii_case(flag))
    }

    /// The header with its empty line, and the body after it.
    #[must_use]
    pub fn split(&self) -> (&[u8], &[u8]) {
        let end = memchr::memmem::find(&self.raw, b"\r\n\r\n").map(|at| at + 4);
        let end = end.or_else(|| memchr::memmem::find(&self.raw, b"\n\n").map(|at| at + 2));
        self.raw.split_at_checked(end.unwrap_or(self.raw.len())).unwrap_or((&self.raw, &[]))
    }

    /// The first header field of that name, unfolded and trimmed.
    #[must_use]
    pub fn header(&self, name: &str) -> Option<String> {
        header_fields(self.split().0).find(|(own, _)| own.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// The fields of a header, unfolded. Bytes outside UTF-8 are replaced.
pub(super) fn header_fields(header: &[u8]) -> impl Iterator<Item = (String, String)> {
    let text = String::from_utf8_lossy(header);
    let mut fields: Vec<(String, String)> = Vec::new();
    for line in text.lines().take_while(|line| !line.is_empty()) {
        if line.starts_with([' ', '\t']) {
            if let Some((_, value)) = fields.last_mut() {
                value.push(' ');
                value.push_str(line.trim());
            }
        } else if let Some((name, value)) = line.split_once(':') {
            fields.push((name.trim_end().to_owned(), value.trim().to_owned()));
        }
    }
    fields.into_iter()
}

/// How STORE changes flags.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FlagChange {
    Replace,
    Add,
    Remove,
}

/// A mailbox. UIDs ascend in `mails`.
#[derive(Debug)]
pub(super) struct Mailbox {
    pub(super) name: String,
    pub(super) special_use: Option<SpecialUse>,
    pub(super) subscribed: bool,
    pub(super) uid_validity: u32,
    pub(super) uid_next: u32,
    pub(super) highest_mod_seq: u64,
    pub(super) mails: Vec<StoredMail>,
    /// Modification sequence of the expunge, and the UID; oldest first.
    expunged: VecDeque<(u64, u32)>,
    /// The modification sequence up to which `expunged` has forgotten.
    expunged_forgotten: u64,
}

impl Mailbox {
    pub(super) fn new(name: &str, special_use: Option<SpecialUse>, uid_validity: u32) -> Self {
        Self {
            name: name.to_owned(),
            special_use,
            subscribed: true,
            uid_validity,
            uid_next: 1,
            highest_mod_seq: 1,
            mails: Vec::new(),
            expunged: VecDeque::new(),
            expunged_forgotten: 0,
        }
    }

    pub(super) fn find(&self, uid: u32) -> Option<&StoredMail> {
        let at = self.mails.binary_search_by_key(&uid, |mail| mail.uid).ok()?;
        self.mails.get(at)
    }

    /// Adds a message; `None` when the UIDs have run out.
    pub(super) fn add(&mut self, raw: Arc<[u8]>, flags: &[String], internal_date: Timestamp) -> Option<u32> {
        let uid = self.uid_next;
        self.uid_next = uid.checked_add(1)?;
        let mod_seq = self.advance();
        let mut mail = StoredMail { uid, mod_seq, flags: Vec::new(), internal_date, raw, google: None };
        merge(&mut mail.flags, flags);
        self.mails.push(mail);
        Some(uid)
    }

    /// The UID under which a message with labels is seen here.
    pub(super) fn uid_of(&self, message: u64) -> Option<u32> {
        let is_it = |mail: &&StoredMail| mail.google.is_some_and(|ids| ids.message == message);
        self.mails.iter().rev().find(is_it).map(|mail| mail.uid)
    }

    /// Marks the newest message as one with labels.
    pub(super) fn identify_last(&mut self, ids: GoogleIds) {
        if let Some(mail) = self.mails.last_mut() {
            mail.google = Some(ids);
        }
    }

    /// A change of labels is one of the message (X-GM-EXT-1 with CONDSTORE).
    pub(super) fn touch(&mut self, uid: u32) {
        let next = self.highest_mod_seq + 1;
        if let Ok(at) = self.mails.binary_search_by_key(&uid, |mail| mail.uid)
            && let Some(mail) = self.mails.get_mut(at)
        {
            mail.mod_seq = next;
            self.highest_mod_seq = next;
        }
    }

    /// Changes one message's flags; whether that changed anything.
    pub(super) fn store(&mut self, uid: u32, change: FlagChange, flags: &[String]) -> bool {
        let next = self.highest_mod_seq + 1;
        let Ok(at) = self.mails.binary_search_by_key(&uid, |mail| mail.uid) else { return false };
        let Some(mail) = self.mails.get_mut(at) else { return false };
        let before = mail.flags.clone();
        match change {
            FlagChange::Replace => {
                mail.flags.clear();
                merge(&mut mail.flags, flags);
            }
            FlagChange::Add => merge(&mut mail.flags, flags),
            FlagChange::Remove => {
                mail.flags.retain(|own| !flags.iter().any(|flag| flag.eq_ignore_ascii_case(own)))
            }
        }
        let changed = mail.flags != before;
        if changed {
            mail.mod_seq = next;
            self.highest_mod_seq = next;
        }
        changed
    }

    /// Takes a message out for good.
    pub(super) fn expunge(&mut self, uid: u32) -> Option<StoredMail> {
        let at = self.mails.binary_search_by_key(&uid, |mail| mail.uid).ok()?;
        let mail = self.mails.remove(at);
        let mod_seq = self.advance();
        if self.expunged.len() >= EXPUNGED_MAX
            && let Some((forgotten, _)) = self.expunged.pop_front()
        {
            self.expunged_forgotten = forgotten;
        }
        self.expunged.push_back((mod_seq, uid));
        Some(mail)
    }

    /// A new life: the same messages under new UIDs, the history gone.
    pub(super) fn renumber(&mut self, uid_validity: u32) {
        self.uid_validity = uid_validity;
        self.expunged.clear();
        self.expunged_forgotten = self.highest_mod_seq;
        self.uid_next = 1;
        let mod_seq = self.advance();
        for mail in &mut self.mails {
            mail.uid = self.uid_next;
            mail.mod_seq = mod_seq;
            self.uid_next += 1;
        }
    }

    /// UIDs expunged after `mod_seq`, ascending. When the history does not reach so far back: every UID that is not there.
    pub(super) fn vanished_since(&self, mod_seq: u64) -> Vec<u32> {
        if mod_seq >= self.expunged_forgotten {
            let after = self.expunged.iter().filter(|(at, _)| *at > mod_seq);
            let mut uids: Vec<u32> = after.map(|(_, uid)| *uid).collect();
            uids.sort_unstable();
            return uids;
        }
        (1..self.uid_next).filter(|uid| self.find(*uid).is_none()).collect()
    }

    fn advance(&mut self) -> u64 {
        self.highest_mod_seq += 1;
        self.highest_mod_seq
    }
}

/// Adds flags in canonical form, each once. `\Recent` belongs to the server, `\*` is no flag.
fn merge(own: &mut Vec<String>, flags: &[String]) {
    for flag in flags.iter().map(|flag| canonical(flag)) {
        let known = own.iter().any(|have| have.eq_ignore_ascii_case(&flag));
        let fits = own.len() < FLAGS_MAX && flag.len() <= FLAG_BYTES_MAX;
        if !known && fits && flag != "\\Recent" && flag != "\\*" {
            own.push(flag);
        }
    }
}

fn canonical(flag: &str) -> String {
    const SYSTEM: [&str; 6] = ["\\Answered", "\\Flagged", "\\Deleted", "\\Seen", "\\Draft", "\\Recent"];
    SYSTEM.into_iter().find(|system| system.eq_ignore_ascii_case(flag)).unwrap_or(flag).to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mailbox(messages: usize) -> Mailbox {
        let mut mailbox = Mailbox::new("INBOX", None, 7);
        for n in 0..messages {
            let raw = format!("Subject: {n}\r\n\r\nbody\r\n").into_bytes();
            mailbox.add(raw.into(), &[], Timestamp::UNIX_EPOCH).unwrap();
        }
        mailbox
    }

    #[test]
    fn uids_ascend_and_are_never_used_again() {
        let mut mailbox = mailbox(3);
        mailbox.expunge(3).unwrap();
        assert_eq!(mailbox.add(Arc::from(*b"x"), &[], Timestamp::UNIX_EPOCH), Some(4));
        assert_eq!(mailbox.mails.iter().map(|mail| mail.uid).collect::<Vec<_>>(), [1, 2, 4]);
    }

    #[test]
    fn flags_are_kept_once_in_canonical_case() {
        let mut mailbox = mailbox(1);
        let flags = ["\\SEEN".to_owned(), "\\seen".to_owned(), "$Work".to_owned(), "\\Recent".to_owned()];
        assert!(mailbox.store(1, FlagChange::Add, &flags));
        assert_eq!(mailbox.find(1).unwrap().flags, ["\\Seen", "$Work"]);
        assert!(!mailbox.store(1, FlagChange::Add, &flags));
        assert!(mailbox.store(1, FlagChange::Remove, &["$work".to_owned()]));
        assert_eq!(mailbox.find(1).unwrap().flags, ["\\Seen"]);
    }

    #[test]
    fn every_change_has_a_higher_modification_sequence() {
        let mut mailbox = mailbox(2);
        let before = mailbox.highest_mod_seq;
        mailbox.store(2, FlagChange::Add, &["\\Seen".to_owned()]);
        assert_eq!(mailbox.find(2).unwrap().mod_seq, before + 1);
        mailbox.expunge(1);
        assert_eq!(mailbox.highest_mod_seq, before + 2);
        assert_eq!(mailbox.vanished_since(before + 1), [1]);
        assert_eq!(mailbox.vanished_since(before + 2), [0; 0]);
    }

    #[test]
    fn a_short_memory_is_made_up_from_the_gaps() {
        let mut mailbox = mailbox(EXPUNGED_MAX + 3);
        for uid in 1..=u32::try_from(EXPUNGED_MAX + 1).unwrap() {
            mailbox.expunge(uid);
        }
        assert_eq!(mailbox.vanished_since(1).len(), EXPUNGED_MAX + 1);
        assert_eq!(mailbox.vanished_since(1).first(), Some(&1));
    }

    #[test]
    fn a_header_ends_at_the_empty_line_and_is_unfolded() {
        let mut mailbox = mailbox(0);
        let raw = b"Subject: a\r\n b\r\nX-Y : z\r\n\r\nSubject: no\r\n";
        mailbox.add(Arc::from(*raw), &[], Timestamp::UNIX_EPOCH);
        let mail = mailbox.find(1).unwrap();
        assert_eq!(mail.header("subject").as_deref(), Some("a b"));
        assert_eq!(mail.header("x-y").as_deref(), Some("z"));
        assert_eq!(mail.split().1, b"Subject: no\r\n");
    }
}
