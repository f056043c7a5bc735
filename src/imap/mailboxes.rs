//! LIST, SELECT, EXAMINE and STATUS.
//!
//! Not here: what changed since last time; a `Selected` says where the mailbox stands, the caller compares.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    client::{Client, Done},
    code::ResponseCode,
    command::Command,
    error::{Error, Result},
    framing::Allowance,
    mailbox::{ListedMailbox, MailboxName, MailboxStatus},
    response::{Response, Status},
    uid::{ModSeq, Uid, UidSet, UidValidity},
};

/// STATUS commands on the way at one time: enough to hide the round trip, few enough for any server's input buffer.
const STATUS_PIPELINE: usize = 20;

/// Where the caller left a mailbox, for QRESYNC (RFC 7162 section 3.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Resume {
    pub uid_validity: UidValidity,
    pub modseq: ModSeq,
}

/// A mailbox as SELECT or EXAMINE found it.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Selected {
    pub exists: u32,
    /// `None` when the server has none to give (or an impossible one): UIDs then mean nothing beyond this session.
    pub uid_validity: Option<UidValidity>,
    /// Asked for by FETCH when the server does not say (163.com); `None` then only of an empty mailbox.
    pub uid_next: Option<Uid>,
    /// `None` without CONDSTORE, also of a single mailbox (NOMODSEQ).
    pub highest_modseq: Option<ModSeq>,
    /// With QRESYNC: what is gone since `Resume`.
    pub vanished: UidSet,
    /// With QRESYNC: what is new or has other flags since `Resume`.
    pub changed: UidSet,
    pub read_only: bool,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Lists every mailbox, with its special use where the server tells. Names that cannot be used are left out, as is
    /// what passes `Limits::mailboxes_max` or `mailbox_names_bytes_max`.
    ///
    /// # Errors
    /// Those of every command.
    pub async fn list(&mut self) -> Result<Vec<ListedMailbox>> {
        let command = Command::new("LIST").raw(" \"\" \"*\"");
        let extended = self.capabilities.has("LIST-EXTENDED") && self.capabilities.has("SPECIAL-USE");
        let command = if extended { command.raw(" RETURN (SPECIAL-USE)") } else { command };
        let (mut mailboxes, max) = (Vec::new(), self.limits.mailboxes_max);
        let mut room = self.limits.mailbox_names_bytes_max;
        let take = |response| match response {
            Response::List(mailbox) => {
                room = room.saturating_sub(mailbox.name.as_bytes().len());
                mailboxes.extend((mailboxes.len() < max && room > 0).then_some(mailbox));
                None
            }
            other => Some(other),
        };
        self.run(command, take).await?;
        Ok(mailboxes)
    }

    /// Selects a mailbox for reading and writing.
    ///
    /// # Errors
    /// `No` when there is no such mailbox, or it is not for us.
    pub async fn select(&mut self, name: &MailboxName, resume: Option<Resume>) -> Result<Selected> {
        self.open(Command::new("SELECT"), name, resume).await
    }

    /// Selects a mailbox for reading: nothing there changes, not even `\Recent`.
    ///
    /// # Errors
    /// As for `select`.
    pub async fn examine(&mut self, name: &MailboxName, resume: Option<Resume>) -> Result<Selected> {
        self.open(Command::new("EXAMINE"), name, resume).await
    }

    async fn open(
        &mut self,
        command: Command,
        name: &MailboxName,
        resume: Option<Resume>,
    ) -> Result<Selected> {
        let command = command.raw(" ").mailbox(name);
        let command = match resume {
            Some(Resume { uid_validity, modseq }) if self.qresync => {
                let command = command.raw(" (QRESYNC (").number(uid_validity.get().into());
                command.raw(" ").number(modseq.get()).raw("))")
            }
            _ if self.capabilities.condstore() => command.raw(" (CONDSTORE)"),
            _ => command,
        };
        // What the mailbox selected before had to say is no news of this one.
        self.news.forget_selected();
        let mut seen = Opening::default();
        let allowance = Allowance { line: self.limits.uid_line_bytes_max, ..Allowance::plain(&self.limits) };
        let Done { code } = self.run_with(command, allowance, |response| seen.take(response)).await?;
        let mut selected = seen.selected;
        selected.changed = seen.changed.into_iter().collect();
        selected.read_only = code == Some(ResponseCode::ReadOnly);
        self.exists = selected.exists;
        // RFC 7162 section 3.1.2.2: FETCH MODSEQ is answered BAD where there is none.
        self.modseqs = selected.highest_modseq.is_some();
        if selected.uid_next.is_none() && selected.exists > 0 {
            selected.uid_next = self.uid_after_last().await?;
        }
        Ok(selected)
    }

    /// What UIDNEXT must be at least, from the last message.
    async fn uid_after_last(&mut self) -> Result<Option<Uid>> {
        let mut last: Option<Uid> = None;
        let take = |response| match response {
            Response::Fetch(fetched) => {
                last = last.max(fetched.uid);
                None
            }
            other => Some(other),
        };
        self.run(Command::new("UID FETCH").raw(" * (UID)"), take).await?;
        Ok(last.and_then(Uid::next))
    }

    /// Asks for the state of mailboxes without selecting them, many in one round trip. One answer for each name; a
    /// mailbox that the server refuses has its own error.
    ///
    /// # Errors
    /// What ends the connection.
    pub async fn status(&mut self, names: &[MailboxName]) -> Result<Vec<Result<MailboxStatus>>> {
        let mut answers = Vec::with_capacity(names.len());
        for batch in names.chunks(STATUS_PIPELINE) {
            answers.extend(self.status_after(None, batch).await?);
        }
        Ok(answers)
    }

    /// `noop` and `status` in one round trip.
    ///
    /// # Errors
    /// Those of `noop`, and what ends the connection.
    pub async fn poll(&mut self, names: &[MailboxName]) -> Result<Vec<Result<MailboxStatus>>> {
        let (first, rest) = names.split_at_checked(STATUS_PIPELINE).unwrap_or((names, &[]));
        let mut answers = self.status_after(Some(Command::new("NOOP")), first).await?;
        answers.extend(self.status(rest).await?);
        Ok(answers)
    }

    /// One flight of them, behind another command if there is one.
    async fn status_after(
        &mut self,
        before: Option<Command>,
        names: &[MailboxName],
    ) -> Result<Vec<Result<MailboxStatus>>> {
        let others = usize::from(before.is_some());
        let asked: Vec<Command> =
            before.into_iter().chain(names.iter().map(|name| self.status_command(name))).collect();
        let mut found: Vec<Option<MailboxStatus>> = vec![None; names.len()];
        let take = |response| match response {
            Response::MailboxStatus(status) => {
                let mut open = names.iter().zip(&mut found).filter(|(_, found)| found.is_none());
                match open.find(|(name, _)| **name == status.name) {
                    Some((_, found)) => {
                        *found = Some(status);
                        None
                    }
                    None => Some(Response::MailboxStatus(status)),
                }
            }
            other => Some(other),
        };
        let mut outcomes = self.run_all(&asked, take).await?;
        for outcome in outcomes.drain(..others) {
            outcome?;
        }
        outcomes.into_iter().zip(found).map(|(outcome, found)| status_answer(outcome, found)).collect()
    }

    fn status_command(&self, name: &MailboxName) -> Command {
        let command = Command::new("STATUS").raw(" ").mailbox(name).raw(" (MESSAGES UIDNEXT UIDVALIDITY");
        let command = if self.capabilities.condstore() { command.raw(" HIGHESTMODSEQ") } else { command };
        command.raw(")")
    }
}

/// One mailbox's refusal is its own; what ends the connection is everybody's.
fn status_answer(outcome: Result<Done>, found: Option<MailboxStatus>) -> Result<Result<MailboxStatus>> {
    match outcome {
        Ok(_) => Ok(found.ok_or(Error::Unsupported("STATUS of this mailbox"))),
        Err(error) if error.connection_lives() => Ok(Err(error)),
        Err(error) => Err(error),
    }
}

/// Gathers what SELECT says.
#[derive(Debug, Default)]
struct Opening {
    selected: Selected,
    changed: Vec<Uid>,
}

impl Opening {
    fn take(&mut self, response: Response) -> Option<Response> {
        let selected = &mut self.selected;
        match response {
            Response::Exists(count) => selected.exists = count,
            Response::Vanished { uids, .. } => selected.vanished = uids,
            Response::Fetch(fetched) => self.changed.extend(fetched.uid),
            Response::Status(Status { code: Some(ResponseCode::UidValidity(said)), .. }) => {
                selected.uid_validity = said
            }
            Response::Status(Status { code: Some(ResponseCode::UidNext(said)), .. }) => {
                selected.uid_next = said
            }
            Response::Status(Status { code: Some(ResponseCode::HighestModSeq(said)), .. }) => {
                selected.highest_modseq = Some(said);
            }
            other => return Some(other),
        }
        None
    }
}
