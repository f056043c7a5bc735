//! A session's view of its selected mailbox: sequence numbers, and what the client has not been told yet.
//!
//! Not here: the messages themselves; they stay in the provider's state.

use std::fmt::Write;

use crate::{
    mail::Address,
    sandbox::{
        mailbox::{Mailbox, StoredMail},
        state::World,
    },
};

use super::wire::{self, Numbers};

/// RFC 9051 section 7.5.1: expunges shift sequence numbers, so they wait while a command uses those.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Expunges {
    Tell,
    Hold,
}

/// What the client has switched on by ENABLE or by using it (RFC 7162 section 3.1).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Enabled {
    pub(super) condstore: bool,
    pub(super) qresync: bool,
}

/// The mailbox is gone, or has a new UIDVALIDITY: nothing the client knows holds any more.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Stale;

pub(super) struct View {
    pub(super) user: Address,
    pub(super) mailbox: String,
    pub(super) writable: bool,
    uid_validity: u32,
    /// The UID of each message the client knows of: sequence number 1 first.
    uids: Vec<u32>,
    /// The flags up to this modification sequence have been told.
    told: u64,
}

impl View {
    pub(super) fn new(user: &Address, mailbox: &Mailbox, writable: bool) -> Self {
        Self {
            user: user.clone(),
            mailbox: mailbox.name.clone(),
            writable,
            uid_validity: mailbox.uid_validity,
            uids: mailbox.mails.iter().map(|mail| mail.uid).collect(),
            told: mailbox.highest_mod_seq,
        }
    }

    /// The mailbox as it is now.
    pub(super) fn open<'a>(&self, world: &'a World) -> Result<&'a Mailbox, Stale> {
        let mailbox = world.mailbox(&self.user, &self.mailbox).map_err(|_| Stale)?;
        if mailbox.uid_validity == self.uid_validity { Ok(mailbox) } else { Err(Stale) }
    }

    /// Sequence number and UID of every message known to the client, ascending.
    pub(super) fn pairs(&self) -> impl Iterator<Item = (u32, u32)> + '_ {
        (1..).zip(self.uids.iter().copied())
    }

    /// The messages that a set of sequence numbers or UIDs names.
    pub(super) fn chosen(&self, set: &imap_types::sequence::SequenceSet, by_uid: bool) -> Vec<(u32, u32)> {
        let last = if by_uid { self.uids.last().copied().unwrap_or(0) } else { self.size() };
        let numbers = Numbers::new(set, last);
        self.pairs()
            .filter(|(sequence, uid)| numbers.contains(if by_uid { *uid } else { *sequence }))
            .collect()
    }

    pub(super) fn size(&self) -> u32 {
        u32::try_from(self.uids.len()).unwrap_or(u32::MAX)
    }

    /// Marks the flags of today as told: the command at hand has sent them itself.
    pub(super) fn told_all(&mut self, world: &World) -> Result<(), Stale> {
        self.told = self.open(world)?.highest_mod_seq;
        Ok(())
    }

    /// Writes untagged responses for all that changed since the last time.
    pub(super) fn sync(
        &mut self,
        world: &World,
        how: (Expunges, Enabled),
        out: &mut Vec<u8>,
    ) -> Result<(), Stale> {
        let mailbox = self.open(world)?;
        let (expunges, enabled) = how;
        if mailbox.highest_mod_seq == self.told && mailbox.mails.len() == self.uids.len() {
            return Ok(());
        }
        if expunges == Expunges::Tell {
            self.tell_expunges(mailbox, enabled, out);
        }
        let known = self.uids.last().copied().unwrap_or(0);
        let changed = mailbox.mails.iter().filter(|mail| mail.uid <= known && mail.mod_seq > self.told);
        for mail in changed {
            if let Ok(at) = self.uids.binary_search(&mail.uid) {
                out.extend_from_slice(flags_line(at + 1, mail, enabled).as_bytes());
            }
        }
        self.tell_arrivals(mailbox, known, out);
        self.told = mailbox.highest_mod_seq;
        Ok(())
    }

    fn tell_expunges(&mut self, mailbox: &Mailbox, enabled: Enabled, out: &mut Vec<u8>) {
        let gone: Vec<(u32, u32)> = self.pairs().filter(|(_, uid)| mailbox.find(*uid).is_none()).collect();
        if gone.is_empty() {
            return;
        }
        if enabled.qresync {
            let uids: Vec<u32> = gone.iter().map(|(_, uid)| *uid).collect();
            out.extend_from_slice(format!("* VANISHED {}\r\n", wire::set(&uids)).as_bytes());
        } else {
            // From the end, so that the numbers of the rest still hold.
            for (sequence, _) in gone.iter().rev() {
                out.extend_from_slice(format!("* {sequence} EXPUNGE\r\n").as_bytes());
            }
        }
        self.uids.retain(|uid| mailbox.find(*uid).is_some());
    }

    fn tell_arrivals(&mut self, mailbox: &Mailbox, known: u32, out: &mut Vec<u8>) {
        // After an expunge of the last message `known` is lower than some UIDs once seen, but those are gone for good.
        let from = mailbox.mails.partition_point(|mail| mail.uid <= known);
        let arrived = mailbox.mails.get(from..).unwrap_or_default();
        if !arrived.is_empty() {
            self.uids.extend(arrived.iter().map(|mail| mail.uid));
            out.extend_from_slice(format!("* {} EXISTS\r\n* 0 RECENT\r\n", self.uids.len()).as_bytes());
        }
    }
}

/// An unsolicited FETCH response with flags; RFC 7162 section 3.2 adds MODSEQ, and UID under QRESYNC.
fn flags_line(sequence: usize, mail: &StoredMail, enabled: Enabled) -> String {
    let mut line = format!("* {sequence} FETCH (FLAGS {}", wire::flags(&mail.flags));
    if enabled.qresync {
        write!(line, " UID {}", mail.uid).expect("writing to a String cannot fail");
    }
    if enabled.condstore {
        write!(line, " MODSEQ ({})", mail.mod_seq).expect("writing to a String cannot fail");
    }
    line + ")\r\n"
}
