//! One session with a user's provider, and whose it is: what every step of following an account works with.
//!
//! Not here: any of the steps.

use std::{ops::RangeInclusive, sync::Arc};

use jiff::Timestamp;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::Instant,
};

use super::{Failure, Memory, judge::Bench};
use crate::{
    account::{Place, Purpose, Trouble, judge},
    core::{
        account::{
            Account, AccountSettings, Backfill, Cursor, FollowedMailbox, MailboxRole, MailboxUid, era,
            generation_of, uid_validity_of,
        },
        ids::{AccountId, UserId, WorkspaceId},
        policy::Policy,
        provider::{self, Octets, Provider},
        sync_plan::MailboxView,
    },
    flow::{Gateway, login, now, policy_of},
    imap::{
        self, Client, Criterion, HeaderExtent, Kind, MailboxName, MailboxStatus, ModSeq, Resume, Selected,
        Uid, UidSet, UidValidity,
    },
    mail::Address,
    net::Stream,
    store::{self, AccountAccess},
};

/// UIDs that one mailbox may have. More is a claim, not a mailbox; each would be asked for.
const MESSAGES_MAX: u64 = 5_000_000;
/// What is read of a header in an account that has one too large to be read whole.
const LARGE_HEADER_BYTES: u32 = 128 * 1024;

/// A stream to a provider.
pub(super) trait Wire: AsyncRead + AsyncWrite + Unpin + Send {}
impl<T: AsyncRead + AsyncWrite + Unpin + Send> Wire for T {}

/// A session that is logged in.
pub(super) struct Connection<'g, S> {
    pub gateway: &'g Gateway,
    pub client: Client<S>,
    pub workspace: WorkspaceId,
    pub account: AccountId,
    /// The account's own.
    pub address: Address,
    pub user: UserId,
    /// As it was when it was last asked for: before each look, and before each batch is judged.
    pub policy: Policy,
    /// The hold on the account; none for a short errand, which its job guards.
    pub lease: Option<store::Leased>,
    /// Among the sessions of the account and of its host.
    pub place: Option<Arc<Place>>,
    /// Whose servers the account has, as far as anybody knows.
    pub provider: &'static Provider,
    /// What the server says it is, where its host does not tell.
    pub says_it_is: Option<&'static Provider>,
    host_is_known: bool,
    pub connected_at: Timestamp,
    /// The account's, when this session began.
    pub generation: u32,
    /// When every mailbox had last been looked at.
    pub last_look: Timestamp,
    pub memory: &'g mut Memory,
    pub selected: Option<MailboxName>,
    /// The server tells of every followed mailbox, not of the selected one alone.
    pub notified: bool,
    /// Messages taken note of, so that a server that cries for nothing is noticed.
    pub consumed: u64,
    /// Octets of this session that have been counted.
    pub octets_counted: u64,
    /// When a backfill's progress was last told.
    pub progress_told: Option<Instant>,
}

/// A mailbox being followed, as its row says, and what is known of it in this session.
#[derive(Debug, Clone)]
pub(super) struct Followed {
    pub name: MailboxName,
    pub role: MailboxRole,
    pub cursor: Cursor,
    pub backfill: Backfill,
    pub checked_at: Timestamp,
    /// What the backfill has still to read; `None` until the server was asked.
    pub history: Option<UidSet>,
    /// The server does not let us in (any more).
    pub refused: bool,
}

impl Followed {
    /// `None` for a row whose name no server can have.
    pub(super) fn from_row(row: &FollowedMailbox) -> Option<Self> {
        Some(Self {
            name: MailboxName::new(&row.name)?,
            role: row.role,
            cursor: row.cursor,
            backfill: row.backfill,
            checked_at: row.checked_at,
            history: None,
            refused: false,
        })
    }

    pub(super) fn row(&self) -> FollowedMailbox {
        FollowedMailbox {
            name: self.name.as_bytes().to_vec(),
            role: self.role,
            cursor: self.cursor,
            backfill: self.backfill,
            checked_at: self.checked_at,
        }
    }
}

impl<'g, S: Wire> Connection<'g, S> {
    pub(super) fn new(
        gateway: &'g Gateway,
        workspace: WorkspaceId,
        (account, policy): (&Account, Policy),
        client: Client<S>,
        memory: &'g mut Memory,
    ) -> Self {
        Self {
            gateway,
            client,
            workspace,
            account: account.id,
            address: account.email.clone(),
            user: account.user_id,
            policy,
            lease: None,
            place: None,
            provider: account.provider(),
            says_it_is: None,
            host_is_known: Provider::of_host(&account.settings.imap.host).is_some(),
            connected_at: account.connected_at,
            generation: account.generation,
            last_look: account.status.last_checked_at.unwrap_or(account.connected_at),
            memory,
            selected: None,
            notified: false,
            consumed: 0,
            octets_counted: 0,
            progress_told: None,
        }
    }

    /// Says who we are, which some servers insist on, and asks for what makes SELECT cheaper.
    pub(super) async fn greet(&mut self) -> Result<(), Failure> {
        let said = self.client.id("Mailweave", env!("CARGO_PKG_VERSION")).await;
        let names = said
            .as_deref()
            .unwrap_or_default()
            .iter()
            .filter(|(field, _)| field.eq_ignore_ascii_case(b"name"));
        let names = names.map(|(_, name)| String::from_utf8_lossy(name));
        let mut words = std::iter::once(self.client.greeting().as_str().into()).chain(names);
        let says = words.find_map(|words| Provider::of_greeting(&words));
        // A host that is known is its provider's, whatever runs there.
        self.says_it_is = says.filter(|_| !self.host_is_known);
        tolerate(said.map(drop))?;
        tolerate(self.client.enable_qresync().await.map(drop))
    }

    /// Selects a mailbox for reading.
    pub(super) async fn select(&mut self, mailbox: &Followed) -> Result<Selected, imap::Error> {
        let is_known = !self.memory.plain_select && !self.is_former(mailbox);
        let resume = resume(&mailbox.cursor).filter(|_| is_known);
        self.selected = None;
        // Should the answer be more than the client takes, the next session asks for less.
        let with_resume = resume.is_some();
        let selected = match self.client.examine(&mailbox.name, resume).await {
            Err(error) if with_resume && !error.connection_lives() => {
                self.memory.plain_select = true;
                return Err(error);
            }
            selected => selected?,
        };
        self.selected = Some(mailbox.name.clone());
        Ok(selected)
    }

    /// Whether a mailbox was last read before the account was given what may be another of that name.
    pub(super) fn is_former(&self, mailbox: &Followed) -> bool {
        generation_of(mailbox.cursor.uid_validity) != self.generation
    }

    /// What the UIDs of a mailbox that was just opened are valid under.
    pub(super) fn era_of(&self, selected: &Selected) -> u64 {
        era(self.generation, selected.uid_validity.map_or(0, UidValidity::get))
    }

    pub(super) async fn search(&mut self, criterion: Criterion<'_>) -> Result<UidSet, Failure> {
        bounded(self.client.uid_search(criterion).await?)
    }

    /// The same; `None` when the server will not search, but goes on.
    pub(super) async fn search_unless_refused(
        &mut self,
        criterion: Criterion<'_>,
    ) -> Result<Option<UidSet>, Failure> {
        match self.client.uid_search(criterion).await {
            Err(error) if is_refusal(&error) => Ok(None),
            found => bounded(found?).map(Some),
        }
    }

    pub(super) fn extent(&self) -> HeaderExtent {
        if self.memory.large_headers { HeaderExtent::First(LARGE_HEADER_BYTES) } else { HeaderExtent::Whole }
    }

    pub(super) fn place(&self, mailbox: &MailboxName, uid_validity: u64, uid: Uid) -> MailboxUid {
        let mailbox = mailbox.as_bytes().to_vec();
        MailboxUid { account: self.account, mailbox, uid_validity, uid: uid.get() }
    }

    pub(super) async fn read(&self) -> Result<store::Session, store::Error> {
        self.gateway.store.read(self.workspace).await
    }

    /// Writes down what the server says it is, where nobody has said so before.
    pub(super) async fn learn_provider(&mut self) -> Result<(), Failure> {
        let Some(says) = self.says_it_is.filter(|_| self.provider.name == provider::ANY) else {
            return Ok(());
        };
        let mut tx = self.begin().await?;
        let Some(account) = tx.account_to_change(self.account).await? else { return Ok(()) };
        let settings = AccountSettings { provider: Some(says.name.to_owned()), ..account.settings };
        tx.keep_account_settings(self.account, &settings).await?;
        tx.commit().await?;
        self.provider = says;
        Ok(())
    }

    /// Refuses to go on with an account that policy leaves out, by the host's provider or by what the server says it is.
    pub(super) fn require_admitted(&self) -> Result<(), Failure> {
        let mut its = std::iter::once(self.provider).chain(self.says_it_is);
        match its.find(|provider| self.policy.settings.excludes(provider)) {
            Some(provider) => Err(Trouble::Excluded(&provider.title).into()),
            None => Ok(()),
        }
    }

    /// The policy of this moment.
    pub(super) async fn refresh_policy(&mut self, session: &mut store::Session) -> Result<(), store::Error> {
        self.policy = policy_of(session, Some(self.user)).await?;
        Ok(())
    }

    /// What the account's mail is judged by.
    pub(super) fn bench(&self) -> Bench<'_> {
        let (ours, policy) = (&self.gateway.settings.ours, &self.policy);
        // Servers search by the days of a time zone of their own: a day of doubt is the mail's.
        let first = self.horizon(self.connected_at).yesterday().unwrap_or(jiff::civil::Date::MIN);
        let horizon = first.to_zoned(jiff::tz::TimeZone::UTC).map_or(Timestamp::MIN, |day| day.timestamp());
        let secret = &self.gateway.settings.loop_key;
        Bench {
            ours,
            policy,
            account: self.account,
            address: &self.address,
            user: self.user,
            horizon,
            secret,
        }
    }

    /// Begins a transaction that fails when somebody else has taken the account over.
    pub(super) async fn begin(&self) -> Result<store::Tx, store::Error> {
        let mut tx = self.gateway.store.begin(self.workspace).await?;
        if let Some(lease) = self.lease {
            tx.check_epoch(lease.account, lease.epoch).await?;
        }
        Ok(tx)
    }

    /// Counts what has been read so far, where the provider allows only so much; returns how much that is. Once this is
    /// committed, `octets_counted` is to say so.
    pub(super) async fn count_octets(&self, tx: &mut store::Tx, now: Timestamp) -> Result<u64, store::Error> {
        let read = self.client.octets_read();
        if self.provider.traffic.is_some() && read > self.octets_counted {
            let octets = Octets::at(now, (read.saturating_sub(self.octets_counted), 0));
            tx.count_account_octets(self.account, octets).await?;
        }
        Ok(read)
    }

    /// Counts what has been read since anything was last written: to be called when a session ends, in whatever way.
    pub(super) async fn note_octets(&mut self) -> Result<(), store::Error> {
        if self.provider.traffic.is_none() || self.client.octets_read() == self.octets_counted {
            return Ok(());
        }
        let mut tx = self.begin().await?;
        let counted = self.count_octets(&mut tx, now()).await?;
        tx.commit().await?;
        self.octets_counted = counted;
        Ok(())
    }

    /// The first day of which the backfill reads mail.
    pub(super) fn horizon(&self, from: Timestamp) -> jiff::civil::Date {
        days_before(from, self.policy.settings.backfill_days)
    }
}

impl<'g> Connection<'g, Stream> {
    /// Logs in to an account that policy does not leave out. `None` when there is no such account any more.
    pub(super) async fn open(
        gateway: &'g Gateway,
        whose: (WorkspaceId, AccountId),
        memory: &'g mut Memory,
        purpose: Purpose,
    ) -> Result<Option<Self>, Failure> {
        let opened = Box::pin(Self::open_unjudged(gateway, whose, memory, purpose)).await?;
        if let Some(connection) = &opened {
            connection.require_admitted()?;
        }
        Ok(opened)
    }

    /// The same before what the server says it is has been judged, for whoever writes that down first.
    pub(super) async fn open_unjudged(
        gateway: &'g Gateway,
        (workspace, account): (WorkspaceId, AccountId),
        memory: &'g mut Memory,
        purpose: Purpose,
    ) -> Result<Option<Self>, Failure> {
        let whose = (workspace, account);
        let Some((access, ..)) = allowed(gateway, whose).await? else { return Ok(None) };
        let place = login::place(gateway, &access, purpose).await?;
        // For its place it may have waited long: what holds is what is read now.
        let before = access.settings.imap;
        let Some((access, found, policy)) = allowed(gateway, whose).await? else { return Ok(None) };
        if access.settings.imap != before || found.rests_until(now()).is_some() {
            return Err(Failure::Anew);
        }
        let client = login::open_imap_in(gateway, whose, &access, purpose).await??;
        let mut connection = Self::new(gateway, workspace, (&found, policy), client, memory);
        connection.place = Some(Arc::new(place));
        connection.greet().await?;
        Ok(Some(connection))
    }
}

/// An account that policy lets in, and what logs in to it; `None` when it is gone.
async fn allowed(
    gateway: &Gateway,
    (workspace, account): (WorkspaceId, AccountId),
) -> Result<Option<(AccountAccess, Account, Policy)>, Failure> {
    let mut session = gateway.store.read(workspace).await?;
    let Some(found) = session.account(account).await? else { return Ok(None) };
    let access = match session.account_access(account).await {
        // The account itself could be read: it is the login that cannot.
        Err(error) if error.is_lasting() => {
            tracing::error!(%account, error = %error, "an account's login cannot be opened");
            return Err(Trouble::LostLogin.into());
        }
        access => access?,
    };
    let Some(access) = access else { return Ok(None) };
    let policy = policy_of(&mut session, Some(found.user_id)).await?;
    if policy.settings.excludes(found.provider()) {
        return Err(Trouble::Excluded(&found.provider().title).into());
    }
    Ok(Some((access, found, policy)))
}

/// The day so many days before a moment, as servers are asked for what came since.
pub(super) fn days_before(from: Timestamp, days: u16) -> jiff::civil::Date {
    let back = jiff::SignedDuration::from_hours(i64::from(days) * 24);
    from.saturating_sub(back).unwrap_or(Timestamp::UNIX_EPOCH).to_zoned(jiff::tz::TimeZone::UTC).date()
}

/// Whether the server will not, and says so, and goes on: asking again gets the same answer.
pub(super) fn is_refusal(error: &imap::Error) -> bool {
    error.connection_lives() && matches!(judge(error), Kind::Refused | Kind::Misbehaving)
}

fn bounded(found: UidSet) -> Result<UidSet, Failure> {
    if found.len() > MESSAGES_MAX {
        return Err(Trouble::Misbehaving("it names more messages than a mailbox can hold".into()).into());
    }
    Ok(found)
}

/// Lets a refusal pass that concerns only what would have been nice to have.
fn tolerate(outcome: Result<(), imap::Error>) -> Result<(), Failure> {
    match outcome {
        Err(error) if !error.connection_lives() => Err(error.into()),
        _ => Ok(()),
    }
}

fn resume(cursor: &Cursor) -> Option<Resume> {
    let uid_validity = UidValidity::new(uid_validity_of(cursor.uid_validity))?;
    Some(Resume { uid_validity, modseq: ModSeq::new(cursor.modseq)? })
}

pub(super) fn view_of_selected(selected: &Selected) -> MailboxView {
    MailboxView {
        uid_validity: selected.uid_validity.map(UidValidity::get),
        uid_next: selected.uid_next.map(Uid::get),
        highest_modseq: selected.highest_modseq.map(ModSeq::get),
    }
}

pub(super) fn view_of_status(status: &MailboxStatus) -> MailboxView {
    MailboxView {
        uid_validity: status.uid_validity.map(UidValidity::get),
        uid_next: status.uid_next.map(Uid::get),
        highest_modseq: status.highest_modseq.map(ModSeq::get),
    }
}

/// The UIDs of a set that lie in a range.
pub(super) fn within(set: &UidSet, range: RangeInclusive<u32>) -> UidSet {
    let (Some(first), Some(last)) = (Uid::new((*range.start()).max(1)), Uid::new(*range.end())) else {
        return UidSet::new();
    };
    if first > last {
        return UidSet::new();
    }
    let outside = UidSet::all().difference(&UidSet::range(first, last));
    set.difference(&outside)
}
