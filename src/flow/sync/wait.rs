//! Waits until it is time to look: IDLE on the first mailbox, NOTIFY for the others where it is offered, a poll for what
//! neither watches, and beside both a poll that trusts nobody.
//!
//! Not here: looking (`look`).

use std::time::Duration;

use tokio::time::{Instant, sleep, sleep_until};
use tokio_util::sync::CancellationToken;

use super::{
    Failure,
    connection::{Connection, Followed, Wire},
    followers::{Desk, Recall},
    sweep::Span,
};
use crate::{
    account::Place,
    coord::Subscription,
    flow::jitter,
    imap::{self, IdleEvent, MailboxName, News},
};

/// With every mailbox watched by the server, it is still asked after this many of the usual polls.
const SAFETY_POLLS: u32 = 5;
/// How often mailboxes are chosen anew: a user may have made a Sent mailbox, or renamed it.
const CHOOSE_EVERY: Duration = Duration::from_secs(60 * 60);
/// How often, at most, all recent UIDs are compared with what was taken note of.
const SWEEP_EVERY: Duration = Duration::from_secs(24 * 60 * 60);
/// A server that ends IDLE by itself is not asked again at once.
const IDLE_PAUSE: Duration = Duration::from_secs(1);
/// The pause after a server has cried for nothing a second time, doubled each further time in a row.
const VAIN_PAUSE: Duration = Duration::from_millis(100);
/// Alarms in a row that count: the longest pause is of 400 ms, so that a reply which comes in it is filed within a second
/// all the same. A user who tidies up his Sent mailbox is such an alarm, too.
const VAIN_MAX: u32 = 3;

/// What wakes an account.
pub(super) struct Watch {
    pub desk: Desk,
    pub news: Subscription,
    /// Asks for a comparison of all UIDs.
    compare: Subscription,
    look_at: Instant,
    renew_at: Instant,
    choose_at: Instant,
    sweep_at: Instant,
    /// Alarms in a row that brought nothing.
    vain: u32,
}

/// What to do next.
pub(super) enum Next {
    Stop,
    /// Others wait for this session's place.
    MakeRoom,
    Look,
    News(News),
    Recall(Recall),
    /// Open the first mailbox anew, which shows whether anybody is still there.
    Renew,
    /// Choose the mailboxes anew.
    Choose,
    /// Compare UIDs.
    Sweep(Span),
}

impl Watch {
    pub(super) fn new(desk: Desk, (news, compare): (Subscription, Subscription)) -> Self {
        let now = Instant::now();
        Self { desk, news, compare, look_at: now, renew_at: now, choose_at: now, sweep_at: now, vain: 0 }
    }

    /// Notes a look at every mailbox.
    pub(super) fn looked<S: Wire>(&mut self, connection: &Connection<'_, S>, mailboxes: usize) {
        let settings = &connection.gateway.settings;
        let pause = connection.policy.settings.poll_pause(settings.sync_poll, jitter());
        let is_watched = connection.can_idle() && (mailboxes == 1 || connection.notified);
        let wait =
            if is_watched { pause.saturating_mul(SAFETY_POLLS).min(settings.idle_renew) } else { pause };
        self.look_at = Instant::now() + wait;
    }

    pub(super) fn renewed(&mut self, every: Duration) {
        self.renew_at = Instant::now() + every;
    }

    pub(super) fn chosen(&mut self) {
        self.choose_at = Instant::now() + CHOOSE_EVERY;
    }

    /// Notes when all UIDs were last compared; `None` when this process never did. Not every account at the same time.
    pub(super) fn swept(&mut self, at: Option<Instant>) {
        self.sweep_at = at.map_or_else(Instant::now, |at| at + SWEEP_EVERY.mul_f64(0.5 + 0.5 * jitter()));
    }

    fn due(&self) -> Option<Next> {
        let now = Instant::now();
        let due = |at: Instant| at <= now;
        match () {
            () if due(self.choose_at) => Some(Next::Choose),
            () if due(self.renew_at) => Some(Next::Renew),
            () if due(self.look_at) => Some(Next::Look),
            () if due(self.sweep_at) => Some(Next::Sweep(Span::Recent)),
            () => None,
        }
    }

    /// What is due or has been asked for by now.
    pub(super) fn next_now(&mut self) -> Option<Next> {
        self.due().or_else(|| self.desk.recall_now().map(Next::Recall))
    }

    /// Keeps a server that cries for nothing from keeping us busy.
    pub(super) async fn calm(&mut self, brought_something: bool, stop: &CancellationToken) {
        if brought_something {
            self.vain = 0;
            return;
        }
        if self.vain > 0 {
            let pause = VAIN_PAUSE.saturating_mul(1 << (self.vain - 1));
            tokio::select! { () = stop.cancelled() => {} () = sleep(pause) => {} }
        }
        self.vain = (self.vain + 1).min(VAIN_MAX);
    }
}

impl<S: Wire> Connection<'_, S> {
    /// Asks to be told of every mailbox, where that can be asked. The first is told of by IDLE in any case.
    pub(super) async fn ask_for_notices(&mut self, mailboxes: &[Followed]) -> Result<(), Failure> {
        self.notified = false;
        if mailboxes.len() < 2 || !self.policy.settings.push || !self.client.capabilities().has("NOTIFY") {
            return Ok(());
        }
        let names: Vec<MailboxName> = mailboxes.iter().map(|mailbox| mailbox.name.clone()).collect();
        match self.client.notify(&names).await {
            Ok(()) => self.notified = true,
            Err(error) if error.connection_lives() => {
                tracing::debug!(account = %self.account, error = %error, "mailboxes are polled, for the server will not watch them");
            }
            Err(error) => return Err(error.into()),
        }
        Ok(())
    }

    /// Goes back to the mailbox to wait on, and reads what came there meanwhile.
    pub(super) async fn return_to_first(&mut self, mailboxes: &mut [Followed]) -> Result<(), Failure> {
        match mailboxes.first_mut() {
            Some(first) if self.selected.as_ref() != Some(&first.name) => self.enter(first).await,
            _ => Ok(()),
        }
    }

    pub(super) fn can_idle(&self) -> bool {
        self.policy.settings.push && !self.memory.no_idle && self.client.capabilities().has("IDLE")
    }

    /// Waits for something to do.
    pub(super) async fn wait(
        &mut self,
        watch: &mut Watch,
        stop: &CancellationToken,
    ) -> Result<Next, Failure> {
        let place = self.place.clone();
        loop {
            if let Some(next) = watch.due() {
                return Ok(next);
            }
            let until = watch.look_at.min(watch.renew_at).min(watch.sweep_at);
            let event = tokio::select! {
                biased;
                () = stop.cancelled() => return Ok(Next::Stop),
                () = watch.news.wait() => return Ok(Next::Look),
                () = watch.compare.wait() => return Ok(Next::Sweep(Span::All)),
                recall = watch.desk.recall() => return Ok(Next::Recall(recall)),
                () = wanted(place.as_deref()) => return Ok(Next::MakeRoom),
                event = self.listen(until) => event?,
            };
            if let IdleEvent::Changed(news) = event
                && tells_of_mail(&news)
            {
                return Ok(Next::News(news));
            }
        }
    }

    /// Listens until a moment, or waits for it where nothing can be heard. May be dropped at any time.
    async fn listen(&mut self, until: Instant) -> Result<IdleEvent, imap::Error> {
        if !self.can_idle() {
            sleep_until(until).await;
            return Ok(IdleEvent::Timeout);
        }
        match self.client.idle(until).await {
            Ok(IdleEvent::Timeout) if Instant::now() < until => sleep(IDLE_PAUSE).await,
            Err(error) if error.connection_lives() => self.memory.no_idle = true,
            event => return event,
        }
        Ok(IdleEvent::Timeout)
    }
}

async fn wanted(place: Option<&Place>) {
    match place {
        Some(place) => place.wanted().await,
        None => std::future::pending().await,
    }
}

/// Flags and deletions concern the user, not the CRM.
fn tells_of_mail(news: &News) -> bool {
    news.arrived.is_some() || news.overflow || !news.statuses.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{coord::Coord, flow::sync::Followers, store::mint};

    #[tokio::test(start_paused = true)]
    async fn however_often_a_server_cries_for_nothing_a_reply_does_not_wait_long() {
        let (coord, stop) = (Coord::local(), CancellationToken::new());
        let news = (coord.subscribe("account"), coord.subscribe("compare"));
        let mut watch = Watch::new(Followers::default().open_desk(mint()), news);
        let mut pauses = Vec::new();
        for _ in 0..20 {
            let begun = Instant::now();
            watch.calm(false, &stop).await;
            pauses.push(begun.elapsed().as_millis());
        }
        assert_eq!(pauses[..4], [0, 100, 200, 400]);
        assert!(pauses[4..].iter().all(|pause| *pause == 400), "{pauses:?}");
        watch.calm(true, &stop).await;
        let begun = Instant::now();
        watch.calm(false, &stop).await;
        assert!(begun.elapsed().is_zero(), "what brings something ends it");
    }
}
