//! Waiting for news: IDLE (RFC 2177), and NOTIFY (RFC 5465) for mailboxes that are not selected.
//!
//! Not here: how long to wait. News is a hint: the caller looks for itself, and polls now and then all the same.

use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::{Instant, timeout_at},
};

use super::{
    client::{Client, State},
    command::Command,
    error::{Error, Fault, Result},
    framing::Allowance,
    mailbox::{MailboxName, MailboxStatus},
    response::{Response, Tag},
};

/// Mailboxes whose status is kept as news; beyond that it is said that there was more.
const STATUSES_MAX: usize = 100;

/// What the server said unasked since it was last taken.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct News {
    /// The selected mailbox has this many messages now, more than before.
    pub arrived: Option<u32>,
    /// Messages of the selected mailbox are gone.
    pub expunged: bool,
    /// Flags in the selected mailbox have changed.
    pub flags: bool,
    /// The latest STATUS of other mailboxes (NOTIFY).
    pub statuses: Vec<MailboxStatus>,
    /// The server gave up telling (NOTIFICATIONOVERFLOW), or told of too many mailboxes: look everywhere.
    pub overflow: bool,
}

impl News {
    #[must_use]
    pub fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    pub(super) fn exists(&mut self, before: u32, now: u32) {
        if now > before {
            self.arrived = Some(now);
        } else if now < before {
            self.expunged = true;
        }
    }

    pub(super) fn status(&mut self, status: MailboxStatus) {
        if let Some(known) = self.statuses.iter_mut().find(|known| known.name == status.name) {
            *known = status;
        } else if self.statuses.len() < STATUSES_MAX {
            self.statuses.push(status);
        } else {
            self.overflow = true;
        }
    }

    pub(super) fn forget_selected(&mut self) {
        (self.arrived, self.expunged, self.flags) = (None, false, false);
    }
}

/// How a wait ended. A connection that ends shows as an error.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum IdleEvent {
    Changed(News),
    /// The time is up, or the server has ended IDLE by itself.
    Timeout,
}

/// An IDLE command under way.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Idle {
    tag: Tag,
    phase: Phase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Phase {
    /// Sent; the `+` has not come.
    Asked,
    Idling,
    /// DONE is sent.
    Ending,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Takes what the server said unasked, in answer to whatever command.
    pub fn take_news(&mut self) -> News {
        std::mem::take(&mut self.news)
    }

    /// Waits for news until a moment; news that came with earlier commands counts. The IDLE goes on when this returns or
    /// is dropped, and is ended by the next verb; call again to wait on. To renew it (before 29 minutes, better every
    /// 9, since NATs forget), run `noop`, which sees whether the server still answers.
    ///
    /// # Errors
    /// `Unsupported` without IDLE; `Timeout` when the server does not confirm it; what ends the connection.
    pub async fn idle(&mut self, until: Instant) -> Result<IdleEvent> {
        if !self.capabilities.has("IDLE") {
            return Err(Error::Unsupported("IDLE"));
        }
        loop {
            if !self.news.is_empty() {
                return Ok(IdleEvent::Changed(self.take_news()));
            }
            match self.state {
                State::Ready => self.start_idle(),
                State::Idle(Idle { phase: Phase::Asked | Phase::Idling, .. }) => {}
                State::Idle(_) => self.end_idle().await?,
                State::Busy => return Err(Fault::Abandoned.into()),
            }
            self.flush().await?;
            if self.drain()? {
                continue;
            }
            if !matches!(self.state, State::Idle(_)) {
                return Ok(IdleEvent::Timeout);
            }
            // The confirmation is owed within the usual time, whatever `until` says; then anything may take long.
            let asked = matches!(self.state, State::Idle(Idle { phase: Phase::Asked, .. }));
            let deadline = if asked { until.min(self.deadline) } else { until };
            match timeout_at(deadline, self.read()).await {
                Ok(read) => read.map_err(Error::Io)?,
                Err(_) if asked && self.deadline <= Instant::now() => return Err(Error::Timeout),
                Err(_) => return Ok(IdleEvent::Timeout),
            }
        }
    }

    /// Asks to be told of messages that come into or leave these mailboxes, by STATUS, beside all that concerns the
    /// selected one (RFC 5465). Then `idle` waits for both.
    ///
    /// # Errors
    /// `Unsupported` without NOTIFY; `No` when the server will not watch as many.
    pub async fn notify(&mut self, mailboxes: &[MailboxName]) -> Result<()> {
        if !self.capabilities.has("NOTIFY") {
            return Err(Error::Unsupported("NOTIFY"));
        }
        let mut command =
            Command::new("NOTIFY SET").raw(" (selected (MessageNew MessageExpunge FlagChange))");
        if !mailboxes.is_empty() {
            command = command.raw(" (mailboxes (");
            for (index, name) in mailboxes.iter().enumerate() {
                command = command.raw(if index > 0 { " " } else { "" }).mailbox(name);
            }
            command = command.raw(") (MessageNew MessageExpunge))");
        }
        self.run(command, Some).await.map(drop)
    }

    fn start_idle(&mut self) {
        let tag = self.begin(&Command::new("IDLE"), Allowance::plain(&self.limits));
        self.queue(b"IDLE");
        self.deadline = Instant::now() + self.deadlines.progress;
        self.state = State::Idle(Idle { tag, phase: Phase::Asked });
        self.session.shrink();
    }

    /// Takes in all that has come whole, without waiting. True when there was news.
    fn drain(&mut self) -> Result<bool> {
        while let Some(response) = self.session.next()? {
            self.take_idle(response)?;
        }
        self.session.shrink();
        Ok(!self.news.is_empty())
    }

    fn take_idle(&mut self, response: Response) -> Result<()> {
        match (response, self.state) {
            (Response::Continuation(_), State::Idle(Idle { tag, phase: Phase::Asked })) => {
                self.state = State::Idle(Idle { tag, phase: Phase::Idling });
                Ok(())
            }
            // "+ Still here", as some servers keep a line alive.
            (Response::Continuation(_), State::Idle(_)) => Ok(()),
            (Response::Continuation(_), _) => Err(Fault::UnexpectedContinuation.into()),
            (Response::Tagged(..), State::Ready | State::Busy) => Err(Fault::UnknownTag.into()),
            (Response::Tagged(_, status), State::Idle(_)) => {
                self.state = State::Ready;
                self.outcome(status).map(drop)
            }
            (other, _) => self.absorb(other),
        }
    }

    /// Ends IDLE if it is under way. May be dropped and called again. A server that does not answer DONE is gone.
    pub(super) async fn end_idle(&mut self) -> Result<()> {
        while let State::Idle(Idle { tag, phase }) = self.state {
            if phase == Phase::Idling {
                self.queue(b"DONE");
                self.state = State::Idle(Idle { tag, phase: Phase::Ending });
                self.deadline = Instant::now() + self.deadlines.done;
            }
            self.flush().await?;
            let response = self.next_response().await?;
            self.take_idle(response)?;
        }
        Ok(())
    }
}
