//! Which command is open to whom at this moment, and what does it.
//!
//! Not here: doing it (a file for each group of commands).

use imap_types::command::CommandBody;

use super::{
    session::{Answer, Session},
    view::{Expunges, Stale},
};
use crate::sandbox::allowance;

impl Session {
    pub(super) fn answer(&mut self, tag: &str, body: CommandBody<'_>) -> Result<Answer, Stale> {
        match body {
            CommandBody::Capability => {
                let line = format!("* CAPABILITY {}\r\n", self.capabilities());
                self.output.extend_from_slice(line.as_bytes());
                Ok(Answer::ok("done"))
            }
            CommandBody::Noop | CommandBody::Check => Ok(Answer::ok("done")),
            CommandBody::Id { .. } => {
                self.output.extend_from_slice(b"* ID (\"name\" \"Mailweave sandbox\")\r\n");
                Ok(Answer::ok("done"))
            }
            _ if self.is_throttled(&body) => Ok(self.throttled()),
            CommandBody::Logout => {
                self.bye("good-bye");
                Ok(Answer::ok("done"))
            }
            CommandBody::StartTLS => Ok(self.start_tls(tag)),
            CommandBody::Login { username, password } => {
                Ok(self.log_in(username.as_ref(), password.declassify().as_ref()))
            }
            CommandBody::Authenticate { mechanism, initial_response } => {
                let initial = initial_response.as_ref().map(|secret| &**secret.declassify());
                Ok(self.authenticate(tag, &mechanism, initial))
            }
            _ if self.user.is_none() => Ok(Answer::bad("log in first")),
            CommandBody::Idle if self.extensions.idle => Ok(self.idle(tag)),
            other => self.answer_authenticated(tag, other),
        }
    }

    /// Whoever is throttled may still leave.
    fn is_throttled(&self, body: &CommandBody<'_>) -> bool {
        let leaves = matches!(body, CommandBody::Logout);
        !leaves && self.user.as_ref().is_some_and(|user| self.provider.throttled_for(user).is_some())
    }

    fn throttled(&self) -> Answer {
        let left = self.user.as_ref().and_then(|user| self.provider.throttled_for(user));
        Answer::No(allowance::throttled_imap(self.manner, left.unwrap_or_default()))
    }

    fn answer_authenticated(&mut self, tag: &str, body: CommandBody<'_>) -> Result<Answer, Stale> {
        let Some(user) = self.user.clone() else { return Ok(Answer::bad("log in first")) };
        Ok(match body {
            CommandBody::Select { mailbox, parameters } => self.select(&user, &mailbox, (true, parameters)),
            CommandBody::Examine { mailbox, parameters } => self.select(&user, &mailbox, (false, parameters)),
            CommandBody::Enable { capabilities } => self.enable(capabilities.as_ref()),
            CommandBody::List { reference, mailbox_wildcard } => {
                self.list(&reference, &mailbox_wildcard, "LIST")
            }
            CommandBody::Lsub { reference, mailbox_wildcard } => {
                self.list(&reference, &mailbox_wildcard, "LSUB")
            }
            CommandBody::Status { mailbox, item_names } => self.status(&user, &mailbox, &item_names),
            CommandBody::Append { mailbox, flags, date, message } => {
                self.append(&mailbox, &flags, (date, message))
            }
            CommandBody::Create { mailbox } => self.create(&user, &mailbox),
            CommandBody::Delete { mailbox } => self.delete(&user, &mailbox),
            CommandBody::Rename { from, to } => self.rename(&user, &from, &to),
            CommandBody::Subscribe { mailbox } => self.subscribe(&user, &mailbox, true),
            CommandBody::Unsubscribe { mailbox } => self.subscribe(&user, &mailbox, false),
            CommandBody::Namespace => {
                self.output.extend_from_slice(b"* NAMESPACE ((\"\" \"/\")) NIL NIL\r\n");
                Answer::ok("done")
            }
            _ if self.view.is_none() => Answer::bad("select a mailbox first"),
            other => return self.answer_selected(tag, other),
        })
    }

    fn answer_selected(&mut self, tag: &str, body: CommandBody<'_>) -> Result<Answer, Stale> {
        match body {
            CommandBody::Fetch { sequence_set, macro_or_item_names, uid, modifiers } => {
                self.start_fetch((tag, uid), &sequence_set, macro_or_item_names, &modifiers)
            }
            CommandBody::Search { criteria, uid, .. } => self.search(criteria.as_ref(), uid),
            CommandBody::Store { sequence_set, kind, response, flags, uid, modifiers } => {
                self.store((&sequence_set, uid), (kind, &flags), response, &modifiers)
            }
            CommandBody::Copy { sequence_set, mailbox, uid } => self.copy((&sequence_set, uid), &mailbox),
            CommandBody::Move { sequence_set, mailbox, uid } if self.extensions.r#move => {
                self.r#move((&sequence_set, uid), &mailbox)
            }
            CommandBody::Expunge => self.expunge(None),
            CommandBody::ExpungeUid { sequence_set } if self.extensions.uidplus => {
                self.expunge(Some(&sequence_set))
            }
            CommandBody::Close => self.close(),
            CommandBody::Unselect => {
                self.view = None;
                Ok(Answer::ok("closed"))
            }
            _ => Ok(Answer::bad("that command is unknown here")),
        }
    }
}

/// Whether a command lets the client hear of expunges.
pub(super) fn expunges(body: &CommandBody<'_>) -> Expunges {
    match body {
        CommandBody::Fetch { uid: false, .. }
        | CommandBody::Store { uid: false, .. }
        | CommandBody::Search { uid: false, .. } => Expunges::Hold,
        _ => Expunges::Tell,
    }
}
