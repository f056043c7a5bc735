//! SELECT, EXAMINE, CLOSE and ENABLE, with CONDSTORE and QRESYNC (RFC 7162).
//!
//! Not here: what is told of changes afterwards (`view`).

use imap_types::{
    command::SelectParameter, extensions::enable::CapabilityEnable, mailbox::Mailbox as MailboxName,
    sequence::SequenceSet,
};

use crate::{mail::Address, sandbox::mailbox::Mailbox};

use super::{
    session::{Answer, Session},
    view::{Stale, View},
    wire::{self, Numbers},
};

/// What a client knows of a mailbox from before (RFC 7162 section 3.2.5).
struct Known {
    uid_validity: u32,
    mod_seq: u64,
    uids: Option<SequenceSet>,
}

impl Session {
    /// SELECT, or EXAMINE when not writable.
    pub(super) fn select(
        &mut self,
        user: &Address,
        mailbox: &MailboxName<'_>,
        how: (bool, Vec<SelectParameter>),
    ) -> Answer {
        let (writable, parameters) = how;
        // RFC 9051 section 6.3.2: the old mailbox is closed even when the new one cannot be opened.
        let closed = self.view.take().is_some();
        if closed && self.enabled.qresync {
            self.output.extend_from_slice(b"* OK [CLOSED] the previous mailbox is closed\r\n");
        }
        let known = match self.resync(parameters) {
            Ok(known) => known,
            Err(refusal) => return refusal,
        };
        let Some(name) = wire::mailbox_name(mailbox) else { return Answer::bad("that is no mailbox name") };
        let condstore = self.extensions.condstore;
        let (provider, output) = (&self.provider, &mut self.output);
        let view = provider.with(|world| {
            let mailbox = world.mailbox(user, &name).ok()?;
            describe(mailbox, condstore, output);
            if let Some(known) = known {
                tell_missed(mailbox, &known, output);
            }
            Some(View::new(user, mailbox, writable))
        });
        self.view = view;
        match (self.view.is_some(), writable) {
            (false, _) => Answer::no("[NONEXISTENT] no such mailbox"),
            (true, true) => Answer::ok("[READ-WRITE] selected"),
            (true, false) => Answer::ok("[READ-ONLY] selected"),
        }
    }

    fn resync(&mut self, parameters: Vec<SelectParameter>) -> Result<Option<Known>, Answer> {
        let mut known = None;
        for parameter in parameters {
            if !self.extensions.condstore {
                return Err(Answer::bad("CONDSTORE is not offered"));
            }
            self.enabled.condstore = true;
            if let SelectParameter::QResync { uid_validity, mod_sequence_value, known_uids, .. } = parameter {
                if !self.enabled.qresync {
                    return Err(Answer::bad("ENABLE QRESYNC first"));
                }
                let (uid_validity, mod_seq) = (uid_validity.get(), mod_sequence_value.get());
                known = Some(Known { uid_validity, mod_seq, uids: known_uids });
            }
        }
        Ok(known)
    }

    pub(super) fn enable(&mut self, wanted: &[CapabilityEnable<'_>]) -> Answer {
        let mut enabled = String::from("* ENABLED");
        for capability in wanted {
            let name = capability.to_string().to_ascii_uppercase();
            let qresync = name == "QRESYNC" && self.extensions.qresync;
            if self.extensions.condstore && (qresync || name == "CONDSTORE") {
                self.enabled.condstore = true;
                self.enabled.qresync |= qresync;
                enabled.push(' ');
                enabled.push_str(&name);
            }
        }
        self.output.extend_from_slice(enabled.as_bytes());
        self.output.extend_from_slice(b"\r\n");
        Answer::ok("done")
    }

    /// CLOSE: expunges without telling (RFC 9051 section 6.4.1).
    pub(super) fn close(&mut self) -> Result<Answer, Stale> {
        if self.view.as_ref().is_some_and(|view| view.writable) {
            self.expunge(None)?;
        }
        self.view = None;
        Ok(Answer::ok("closed"))
    }
}

fn describe(mailbox: &Mailbox, condstore: bool, out: &mut Vec<u8>) {
    const FLAGS: &str = "\\Answered \\Flagged \\Deleted \\Seen \\Draft";
    let mut lines = vec![
        format!("FLAGS ({FLAGS})"),
        format!("OK [PERMANENTFLAGS ({FLAGS} \\*)] keywords may be created"),
        format!("{} EXISTS", mailbox.mails.len()),
        "0 RECENT".to_owned(),
    ];
    if let Some(at) = mailbox.mails.iter().position(|mail| !mail.has_flag("\\Seen")) {
        lines.push(format!("OK [UNSEEN {}] the first unseen message", at + 1));
    }
    lines.push(format!("OK [UIDVALIDITY {}] UIDs valid", mailbox.uid_validity));
    lines.push(format!("OK [UIDNEXT {}] predicted next UID", mailbox.uid_next));
    lines.push(match condstore {
        true => format!("OK [HIGHESTMODSEQ {}] highest", mailbox.highest_mod_seq),
        false => "OK [NOMODSEQ] no modification sequences".to_owned(),
    });
    for line in lines {
        out.extend_from_slice(format!("* {line}\r\n").as_bytes());
    }
}

/// What happened since the client last looked. A client of another UIDVALIDITY is told nothing and starts anew.
fn tell_missed(mailbox: &Mailbox, known: &Known, out: &mut Vec<u8>) {
    if known.uid_validity != mailbox.uid_validity {
        return;
    }
    let last = mailbox.uid_next.saturating_sub(1);
    let asked = known.uids.as_ref().map(|set| Numbers::new(set, last));
    let concerns = |uid: &u32| asked.as_ref().is_none_or(|asked| asked.contains(*uid));
    let mut gone = mailbox.vanished_since(known.mod_seq);
    gone.retain(concerns);
    if !gone.is_empty() {
        out.extend_from_slice(format!("* VANISHED (EARLIER) {}\r\n", wire::set(&gone)).as_bytes());
    }
    let changed = mailbox
        .mails
        .iter()
        .enumerate()
        .filter(|(_, mail)| mail.mod_seq > known.mod_seq && concerns(&mail.uid));
    for (at, mail) in changed {
        let (flags, uid, mod_seq) = (wire::flags(&mail.flags), mail.uid, mail.mod_seq);
        let line = format!("* {} FETCH (UID {uid} FLAGS {flags} MODSEQ ({mod_seq}))\r\n", at + 1);
        out.extend_from_slice(line.as_bytes());
    }
}
