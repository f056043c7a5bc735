//! STORE, COPY, MOVE and EXPUNGE.
//!
//! Not here: telling other sessions; each finds out by its own view.

use imap_types::{
    command::StoreModifier,
    flag::{Flag, StoreResponse, StoreType},
    mailbox::Mailbox as MailboxName,
    sequence::SequenceSet,
};

use crate::sandbox::{
    mailbox::FlagChange,
    state::{Arrival, SandboxError},
};

use super::{
    mailboxes::refuse,
    session::{Answer, Session},
    view::{Expunges, Stale},
    wire,
};

/// Sequence numbers, or UIDs when true.
type Chosen<'a> = (&'a SequenceSet, bool);

impl Session {
    pub(super) fn store(
        &mut self,
        chosen: Chosen<'_>,
        change: (StoreType, &[Flag<'_>]),
        response: StoreResponse,
        modifiers: &[StoreModifier],
    ) -> Result<Answer, Stale> {
        if let Some(labels) = self.google.labels.take() {
            return self.store_labels(chosen, labels);
        }
        let unchanged_since = modifiers.first().map(|StoreModifier::UnchangedSince(mod_seq)| *mod_seq);
        if unchanged_since.is_some() && !self.extensions.condstore {
            return Ok(Answer::bad("CONDSTORE is not offered"));
        }
        self.enabled.condstore |= unchanged_since.is_some();
        let enabled = self.enabled;
        let Some(view) = self.view.as_mut() else { return Err(Stale) };
        if !view.writable {
            return Ok(Answer::no("the mailbox is open for reading only"));
        }
        let kind = match change.0 {
            StoreType::Replace => FlagChange::Replace,
            StoreType::Add => FlagChange::Add,
            StoreType::Remove => FlagChange::Remove,
        };
        let flags: Vec<String> = change.1.iter().map(ToString::to_string).collect();
        let (provider, output) = (&self.provider, &mut self.output);
        let modified = provider.with(|world| {
            // What others did is told first, so that afterwards only this command's changes are left untold.
            view.sync(world, (Expunges::Hold, enabled), output)?;
            let targets = view.chosen(chosen.0, chosen.1);
            let mut modified = Vec::new();
            for (sequence, uid) in targets {
                let Some(mail) = view.open(world)?.find(uid) else { continue };
                if unchanged_since.is_some_and(|limit| mail.mod_seq > limit) {
                    modified.push(if chosen.1 { uid } else { sequence });
                } else {
                    let place = (view.mailbox.as_str(), uid);
                    world.flag(&view.user, place, (kind, &flags)).map_err(|_| Stale)?;
                    let mail = view
                        .open(world)?
                        .find(uid)
                        .filter(|_| response == StoreResponse::Answer || enabled.condstore);
                    if let Some(mail) = mail {
                        let mut items = Vec::new();
                        if chosen.1 || enabled.qresync {
                            items.push(format!("UID {uid}"));
                        }
                        if response == StoreResponse::Answer {
                            items.push(format!("FLAGS {}", wire::flags(&mail.flags)));
                        }
                        if enabled.condstore {
                            items.push(format!("MODSEQ ({})", mail.mod_seq));
                        }
                        output.extend_from_slice(
                            format!("* {sequence} FETCH ({})\r\n", items.join(" ")).as_bytes(),
                        );
                    }
                }
            }
            view.told_all(world)?;
            Ok(modified)
        })?;
        Ok(match modified.is_empty() {
            true => Answer::ok("stored"),
            false => Answer::Ok(format!("[MODIFIED {}] some had changed", wire::set(&modified))),
        })
    }

    pub(super) fn copy(&mut self, chosen: Chosen<'_>, to: &MailboxName<'_>) -> Result<Answer, Stale> {
        Ok(match self.copy_to(chosen, to)? {
            Ok((code, _)) => Answer::Ok(format!("{code}copied")),
            Err(refusal) => refusal,
        })
    }

    /// RFC 6851: the COPYUID comes untagged, before the expunges that `finish` tells.
    pub(super) fn r#move(&mut self, chosen: Chosen<'_>, to: &MailboxName<'_>) -> Result<Answer, Stale> {
        if self.view.as_ref().is_some_and(|view| !view.writable) {
            return Ok(Answer::no("the mailbox is open for reading only"));
        }
        let (code, uids) = match self.copy_to(chosen, to)? {
            Ok(copied) => copied,
            Err(refusal) => return Ok(refusal),
        };
        if !code.is_empty() {
            self.output.extend_from_slice(format!("* OK {code}moved\r\n").as_bytes());
        }
        let Some(view) = &self.view else { return Err(Stale) };
        self.provider.with(|world| {
            for uid in uids {
                // Gone already means moved by someone else at the same moment; the copy is there all the same.
                let _ = world.expunge(&view.user, &view.mailbox, uid);
            }
        });
        Ok(Answer::ok("moved"))
    }

    /// Copies, and returns the COPYUID code (empty without UIDPLUS) and the UIDs copied.
    fn copy_to(
        &mut self,
        chosen: Chosen<'_>,
        to: &MailboxName<'_>,
    ) -> Result<Result<(String, Vec<u32>), Answer>, Stale> {
        let Some(name) = wire::mailbox_name(to) else {
            return Ok(Err(Answer::bad("that is no mailbox name")));
        };
        let Some(view) = &self.view else { return Err(Stale) };
        let copied = self.provider.with(|world| {
            view.open(world)?;
            Ok(world.mailbox(&view.user, &name).map(|target| target.uid_validity).and_then(|uid_validity| {
                let (mut from, mut made) = (Vec::new(), Vec::new());
                for (_, uid) in view.chosen(chosen.0, chosen.1) {
                    let Some(mail) = world.mailbox(&view.user, &view.mailbox)?.find(uid).cloned() else {
                        continue;
                    };
                    made.push(world.append(&view.user, &name, Arrival::copy_of(&mail))?);
                    from.push(uid);
                }
                Ok((uid_validity, from, made))
            }))
        })?;
        Ok(match copied {
            Ok((uid_validity, from, made)) if self.extensions.uidplus && !from.is_empty() => {
                Ok((format!("[COPYUID {uid_validity} {} {}] ", wire::set(&from), wire::set(&made)), from))
            }
            Ok((_, from, _)) => Ok((String::new(), from)),
            Err(SandboxError::NoMailbox) => Err(Answer::no("[TRYCREATE] no such mailbox")),
            Err(error) => Err(refuse(error)),
        })
    }

    /// Takes out what is marked `\Deleted`, of those UIDs only where some are given.
    pub(super) fn expunge(&mut self, only: Option<&SequenceSet>) -> Result<Answer, Stale> {
        let Some(view) = &self.view else { return Err(Stale) };
        if !view.writable {
            return Ok(Answer::no("the mailbox is open for reading only"));
        }
        let chosen =
            only.map(|set| view.chosen(set, true).into_iter().map(|(_, uid)| uid).collect::<Vec<_>>());
        self.provider.with(|world| {
            let deleted =
                view.open(world)?.mails.iter().filter(|mail| mail.has_flag("\\Deleted")).map(|mail| mail.uid);
            let concerned =
                |uid: &u32| chosen.as_ref().is_none_or(|chosen| chosen.binary_search(uid).is_ok());
            for uid in deleted.filter(concerned).collect::<Vec<_>>() {
                world.expunge(&view.user, &view.mailbox, uid).map_err(|_| Stale)?;
            }
            Ok(Answer::ok("expunged"))
        })
    }
}
