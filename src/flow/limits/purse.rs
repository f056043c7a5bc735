//! What one user may still do: his limits, read once in a transaction and handed on, and what is counted against them.
//!
//! Not here: windows (`core::limits`).

use jiff::{Timestamp, tz::TimeZone};

use super::tell;
use crate::{
    core::{
        allowance::InForce,
        ids::{AccountId, MessageKey, UserId},
        limits::{
            Budget, Count, Counted, Full, Quota, SendLimits, SentUnit, Standing, Window, budget, slot_of,
            turn,
        },
    },
    store::{Error, Session, Tx},
};

/// What one user may still do, at one moment.
#[derive(Debug)]
pub(in crate::flow) struct Purse {
    user: UserId,
    limits: InForce,
    zone: TimeZone,
    day: Window,
    now: Timestamp,
}

impl Purse {
    /// Reads what he is allowed.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::flow) async fn of(
        session: &mut Session,
        user: UserId,
        now: Timestamp,
    ) -> Result<Self, Error> {
        let allowance = session.allowance(Some(user)).await?;
        // A time zone that this machine does not know is taken for UTC.
        let zone = TimeZone::get(&allowance.timezone).unwrap_or(TimeZone::UTC);
        Ok(Self { user, limits: allowance.of_user(), day: Window::day(now, &zone), zone, now })
    }

    pub(super) fn limits(&self) -> &InForce {
        &self.limits
    }

    /// What is counted as sent.
    pub(in crate::flow) fn unit(&self) -> SentUnit {
        self.limits.sent_unit.limit.unwrap_or_default()
    }

    /// How many messages may be filed a day, and the time zone whose days count.
    pub(in crate::flow) fn synced_per_day(&self) -> (Option<u32>, TimeZone) {
        (self.limits.synced_per_day.limit, self.zone.clone())
    }

    fn send_limits(&self) -> SendLimits {
        SendLimits { per_day: self.limits.sent_per_day.limit, per_24h: self.limits.sent_per_24h.limit }
    }

    fn limits_sending(&self) -> bool {
        self.send_limits() != SendLimits::default()
    }

    pub(super) async fn synced(&self, session: &mut Session) -> Result<Standing, Error> {
        let counts = session.usage(self.user, Counted::Synced, self.day.since).await?;
        Ok(Standing::of_day(&counts, self.limits.synced_per_day.limit, self.day))
    }

    async fn sent_counts(&self, session: &mut Session) -> Result<Vec<Count>, Error> {
        let since = self.day.since.min(Window::sliding(self.now).since);
        session.usage(self.user, self.unit().into(), since).await
    }

    /// What was sent, by the day and by any 24 hours.
    pub(super) async fn sent(&self, session: &mut Session) -> Result<[(Quota, Standing); 2], Error> {
        let counts = self.sent_counts(session).await?;
        let SendLimits { per_day, per_24h } = self.send_limits();
        Ok([
            (Quota::SentPerDay, Standing::of_day(&counts, per_day, self.day)),
            (Quota::SentPer24h, Standing::of_24_hours(&counts, per_24h, self.now)),
        ])
    }

    /// The same where it matters; without a limit nothing is looked up.
    async fn sent_if_limited(&self, session: &mut Session) -> Result<[(Quota, Standing); 2], Error> {
        let none = |quota| (quota, Standing { used: 0, limit: None, resets_at: None });
        match self.limits_sending() {
            true => self.sent(session).await,
            false => Ok([none(Quota::SentPerDay), none(Quota::SentPer24h)]),
        }
    }

    /// How much of his mail may still be filed today, and when the next day begins; `None` without a limit.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::flow) async fn sync_room(
        &self,
        session: &mut Session,
    ) -> Result<Option<(u64, Timestamp)>, Error> {
        if self.limits.synced_per_day.limit.is_none() {
            return Ok(None);
        }
        Ok(self.synced(session).await?.room().map(|room| (room, self.day.ends_at)))
    }

    /// Counts messages that an account of his brought, in the transaction that files them.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::flow) async fn count_synced(&self, tx: &mut Tx, messages: u64) -> Result<(), Error> {
        if messages == 0 {
            return Ok(());
        }
        tx.count_usage(self.user, &[(Counted::Synced, slot_of(self.now), messages)]).await?;
        self.tell_of_synced(tx).await
    }

    /// Tells when the limit of what is synced is nearly or wholly used.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::flow) async fn tell_of_synced(&self, tx: &mut Tx) -> Result<(), Error> {
        if self.limits.synced_per_day.limit.is_some() {
            let standing = self.synced(tx).await?;
            tell(tx, (Some(self.user), Quota::SyncedPerDay), standing, self.now).await?;
        }
        Ok(())
    }

    /// What is left of his budget for sending by an account, or by the smarthost.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::flow) async fn send_budget(
        &self,
        session: &mut Session,
        account: Option<AccountId>,
    ) -> Result<Budget, Error> {
        let standings = self.sent_if_limited(session).await?;
        Ok(budget(standings, provider_rest(session, account).await?, self.now))
    }

    /// Charges a message to so many recipients to his budget. False when it does not fit: then nothing is written.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::flow) async fn charge(
        &self,
        tx: &mut Tx,
        account: Option<AccountId>,
        recipients: u64,
    ) -> Result<bool, Error> {
        let wanted = if self.unit() == SentUnit::Recipients { recipients } else { 1 };
        let standings = self.sent_if_limited(tx).await?;
        match budget(standings, provider_rest(tx, account).await?, self.now) {
            Budget::Full(_) => return Ok(false),
            Budget::Room(Some(room)) if room < wanted => return Ok(false),
            Budget::Room(_) => {}
        }
        tx.count_usage(self.user, &counts_of(self.now, recipients)).await?;
        for (quota, standing) in standings {
            let standing = Standing { used: standing.used.saturating_add(wanted), ..standing };
            tell(tx, (Some(self.user), quota), standing, self.now).await?;
        }
        Ok(true)
    }

    /// Counts messages sent: when, and to how many recipients each.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::flow) async fn count_sent(
        &self,
        tx: &mut Tx,
        sent: &[(Timestamp, u64)],
    ) -> Result<(), Error> {
        let counts: Vec<_> = sent.iter().flat_map(|(at, recipients)| counts_of(*at, *recipients)).collect();
        tx.count_usage(self.user, &counts).await?;
        if self.limits_sending() {
            for (quota, standing) in self.sent(tx).await? {
                tell(tx, (Some(self.user), quota), standing, self.now).await?;
            }
        }
        Ok(())
    }

    /// The tighter of his limits on sending, for what does not fit into what it leaves: until when it holds.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::flow) async fn full_at(&self, session: &mut Session) -> Result<Full, Error> {
        let sent = self.sent(session).await?;
        let limited = sent.iter().filter(|(_, standing)| standing.limit.is_some());
        let tightest = limited.min_by_key(|(_, standing)| standing.room());
        let until = tightest.and_then(|(_, standing)| standing.resets_at).unwrap_or(self.day.ends_at);
        let quota = tightest.and_then(|(quota, standing)| Some((*quota, standing.limit?)));
        Ok(Full { quota, until })
    }

    /// When the turn of a message of his comes, behind all that he handed in before it and that waits as well.
    ///
    /// # Errors
    /// Those of the store.
    pub(in crate::flow) async fn turn_of(
        &self,
        session: &mut Session,
        (message, account): (MessageKey, Option<AccountId>),
    ) -> Result<Timestamp, Error> {
        let (messages, recipients) = session.unsent_before(self.user, message).await?;
        let ahead = if self.unit() == SentUnit::Recipients { recipients } else { messages };
        let counts = self.sent_counts(session).await?;
        let rests = provider_rest(session, account).await?;
        let from = rests.map_or(self.now, |until| until.max(self.now));
        Ok(turn(self.send_limits(), &counts, ahead, (from, &self.zone)))
    }
}

/// What one message counts.
fn counts_of(at: Timestamp, recipients: u64) -> [(Counted, Timestamp, u64); 2] {
    let slot = slot_of(at);
    [(Counted::SentMessages, slot, 1), (Counted::SentRecipients, slot, recipients)]
}

async fn provider_rest(
    session: &mut Session,
    account: Option<AccountId>,
) -> Result<Option<Timestamp>, Error> {
    match account {
        Some(account) => session.sending_rests(account).await,
        None => Ok(None),
    }
}
