//! Logging in to accounts: by password, or by an access token, which one at a time renews however many want it.
//!
//! Everything that logs in to an account does it here. Not here: when a token is renewed (`core::grant`), how tokens are kept
//! (`store::grants`), and what is said once logged in (`sync`, `submit`).

mod opening;
mod parting;
mod renewal;

pub(super) use opening::{open_imap, open_imap_in, open_submission, place};
pub use parting::{give_back, part_from, part_from_grant};

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, PoisonError, Weak},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use tokio::{
    sync::{Mutex as Turn, OwnedMutexGuard},
    task::JoinHandle,
    time::{Instant, sleep},
};
use tokio_util::task::TaskTracker;

use self::renewal::{Renewal, Renewed};
use super::Gateway;
use crate::{
    account::{
        Login, Trouble,
        oauth::{Granted, Providers, Registered},
    },
    core::{
        account::{AccountSettings, Credentials},
        grant::{RENEWAL_LEASE, Signer, Step},
        ids::{AccountId, Id as _, WorkspaceId},
    },
    mail::Address,
    store::{Edition, Error, Grant, Issued, Tokens, Tx},
};

/// How long a login waits for a token that somebody is renewing: longer than one who fell silent keeps others from it.
const PATIENCE: Duration = Duration::from_secs(60);
/// How long it waits for an endpoint that is to be asked again. For longer, its account tries again later.
const REST_PATIENCE: SignedDuration = SignedDuration::from_secs(20);
/// Between two looks at what another node is doing: from the first to the second, doubled each time.
const LOOKS: (Duration, Duration) = (Duration::from_millis(10), Duration::from_millis(500));
/// How long nobody looks at a grant that could not be looked at.
const UNSEEN_PAUSE: Duration = Duration::from_secs(30);
/// The shortest pause between two looks at a grant that nobody uses.
const KEEP_PAUSE_MIN: Duration = Duration::from_secs(1);

/// Where users have signed in, and what of their grants this process is renewing. Clones share everything.
#[derive(Clone)]
pub struct SignIn(Arc<Shared>);

struct Shared {
    providers: Providers,
    turns: Mutex<HashMap<AccountId, Weak<Turn<()>>>>,
    renewals: TaskTracker,
}

impl SignIn {
    #[must_use]
    pub fn new(providers: Providers) -> Self {
        Self(Arc::new(Shared { providers, turns: Mutex::default(), renewals: TaskTracker::new() }))
    }

    /// The providers that the operator has registered this gateway with.
    #[must_use]
    pub fn providers(&self) -> &Providers {
        &self.0.providers
    }

    /// Waits for the renewals in hand: an answer that is not written down is a grant that is lost.
    pub async fn finish(&self) {
        self.0.renewals.close();
        self.0.renewals.wait().await;
    }

    /// Whoever holds it is the only one of this process to look after a grant. `None` when it is taken and not waited for.
    async fn turn(&self, account: AccountId, at_once: bool) -> Option<OwnedMutexGuard<()>> {
        let turn = {
            let mut turns = self.0.turns.lock().unwrap_or_else(PoisonError::into_inner);
            turns.retain(|_, turn| turn.strong_count() > 0);
            let known = turns.get(&account).and_then(Weak::upgrade);
            known.unwrap_or_else(|| {
                let turn = Arc::new(Turn::new(()));
                turns.insert(account, Arc::downgrade(&turn));
                turn
            })
        };
        if at_once { turn.try_lock_owned().ok() } else { Some(turn.lock_owned().await) }
    }
}

/// What a token is wanted for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Need {
    Login,
    /// Nothing yet: it is to be good when it is needed, and what the provider says of it is to be known.
    Upkeep,
}

/// What logs in now, and of which edition of a grant it is.
#[derive(Debug)]
pub struct Key {
    pub login: Login,
    /// `None` of a password.
    edition: Option<Edition>,
    /// The account's server for sending took none of its tokens when it was tried last.
    is_unwelcome: bool,
}

/// What logs in to an account now. The inner error says why nothing does.
///
/// # Errors
/// Those of the store.
pub async fn login_of(
    gateway: &Gateway,
    (workspace, account): (WorkspaceId, AccountId),
    credentials: &Credentials,
) -> Result<Result<Key, Trouble>, Error> {
    key(gateway, (workspace, account), credentials, Need::Login).await
}

/// What a key that was waited with has become: the token that is good now. `None` when there is none before it is renewed.
async fn login_at_hand(
    gateway: &Gateway,
    (workspace, account): (WorkspaceId, AccountId),
    key: Key,
) -> Result<Option<Key>, Error> {
    let (Login::Bearer { username, mechanism, .. }, Some(edition)) = (&key.login, key.edition) else {
        return Ok(Some(key));
    };
    let now = gateway.store.clock().await?;
    let grant = gateway.store.read(workspace).await?.grant(account).await?;
    // Another sign-in may be another user's.
    let is_good = |grant: &Grant| now < grant.state.expires_at && grant.edition.sign_in == edition.sign_in;
    Ok(grant.filter(is_good).map(|Grant { tokens, edition, unwelcome_since, .. }| {
        let login = Login::Bearer { username: username.clone(), token: tokens.access, mechanism: *mechanism };
        Key { login, edition: Some(edition), is_unwelcome: unwelcome_since.is_some() }
    }))
}

async fn key(
    gateway: &Gateway,
    (workspace, account): (WorkspaceId, AccountId),
    credentials: &Credentials,
    need: Need,
) -> Result<Result<Key, Trouble>, Error> {
    let (name, username) = match credentials {
        Credentials::Password { username, password } => {
            let login = Login::Password { username: username.clone(), password: password.clone() };
            return Ok(Ok(Key { login, edition: None, is_unwelcome: false }));
        }
        Credentials::OAuth2 { provider, username } => (provider, username),
    };
    let Some(provider) = gateway.sign_in.providers().named(name) else {
        let text = format!("this gateway is not registered with {name} any more");
        return Ok(Err(Trouble::Registration(text)));
    };
    if !is_covered(gateway, (workspace, account), &provider, username).await? {
        let text = format!("what an admin has granted under {name} does not cover this account");
        return Ok(Err(Trouble::Registration(text)));
    }
    let held = Held { gateway, workspace, account, provider_name: name, provider: &provider, username };
    Ok(held.token(need).await?.map(|(token, edition)| {
        let (username, mechanism) = (username.clone(), provider.client.authorization().mechanism);
        Key {
            login: Login::Bearer { username, token, mechanism },
            edition: Some(edition),
            is_unwelcome: false,
        }
    }))
}

/// Whether what an admin has granted as a whole is for this mailbox, this workspace and these servers: any mailbox there could be
/// read with it. Looked at whenever it is used, for the operator may have changed his mind since the account was connected.
async fn is_covered(
    gateway: &Gateway,
    (workspace, account): (WorkspaceId, AccountId),
    provider: &Registered,
    username: &str,
) -> Result<bool, Error> {
    let Some(whole) = &provider.domains else { return Ok(true) };
    let Some(account) = gateway.store.read(workspace).await?.account(account).await? else {
        return Ok(false);
    };
    let Some(named) = gateway.store.system_read().await?.workspace(workspace).await? else {
        return Ok(false);
    };
    let AccountSettings { imap, smtp, identities, .. } = &account.settings;
    let is_at_its_servers = (Some(imap), Some(smtp)) == (provider.imap.as_ref(), provider.smtp.as_ref());
    let is_one_login = identities.imap_login.is_none() && identities.smtp_login.is_none();
    let names = [named.slug.as_str(), &workspace.to_string()];
    let is_named = Address::parse(username).is_ok_and(|mailbox| whole.covers(&mailbox, &names));
    Ok(is_named && is_at_its_servers && is_one_login)
}

/// A grant, for one who wants to use it.
#[derive(Clone, Copy)]
struct Held<'a> {
    gateway: &'a Gateway,
    workspace: WorkspaceId,
    account: AccountId,
    provider_name: &'a str,
    provider: &'a Arc<Registered>,
    username: &'a str,
}

type Token = (secrecy::SecretString, Edition);

impl Held<'_> {
    /// A token that is good, as far as anybody knows. May be dropped at any time: a renewal that has begun goes on.
    async fn token(self, need: Need) -> Result<Result<Token, Trouble>, Error> {
        let give_up_at = Instant::now() + PATIENCE;
        let (mut turn, mut look) = (None, LOOKS.0);
        loop {
            let (now, grant) = self.read().await?;
            let Some(grant) = grant else { return Ok(Err(Trouble::LostLogin)) };
            let is_good = now < grant.state.expires_at && need == Need::Login;
            let good = (grant.tokens.access.clone(), grant.edition);
            match grant.state.step(now, spread(self.account)) {
                Step::Use => return Ok(Ok(good)),
                Step::Renew if turn.is_none() => match self.gateway.sign_in.turn(self.account, is_good).await
                {
                    Some(own) => turn = Some(own),
                    None => return Ok(Ok(good)),
                },
                Step::Renew => match self.renewal((now, grant), turn.take()).await? {
                    // Who has one that will do for a while does not wait for an endpoint that may be away.
                    Some(_) if is_good => return Ok(Ok(good)),
                    Some(renewal) => match outcome(self.account, renewal.await)? {
                        Renewed::Token(token) => return Ok(Ok(token)),
                        Renewed::Trouble(trouble) => return Ok(Err(trouble)),
                        Renewed::LookAgain => {}
                    },
                    None => {}
                },
                Step::Wait(until) => {
                    turn = None;
                    let rests = grant.state.retry_at.duration_since(now) > REST_PATIENCE;
                    if rests || Instant::now() >= give_up_at {
                        return Ok(Err(resting()));
                    }
                    sleep(look.min(length(until.duration_since(now)))).await;
                    look = (look * 2).min(LOOKS.1);
                }
            }
        }
    }

    async fn read(self) -> Result<(Timestamp, Option<Grant>), Error> {
        let now = self.gateway.store.clock().await?;
        let grant = self.gateway.store.read(self.workspace).await?.grant(self.account).await?;
        Ok((now, grant))
    }

    /// Has it renewed, unless somebody else is at it. That goes on when its caller is gone: what a provider has answered must
    /// be kept.
    async fn renewal(
        self,
        (now, grant): (Timestamp, Grant),
        turn: Option<OwnedMutexGuard<()>>,
    ) -> Result<Option<JoinHandle<Result<Renewed, Error>>>, Error> {
        let until = now.saturating_add(RENEWAL_LEASE).unwrap_or(Timestamp::MAX);
        let mut tx = self.gateway.store.begin(self.workspace).await?;
        let is_ours = tx.claim_renewal(self.account, grant.edition, now, until).await?;
        tx.commit().await?;
        if !is_ours {
            return Ok(None);
        }
        let renewal = Renewal {
            store: self.gateway.store.clone(),
            whose: (self.workspace, self.account),
            provider_name: self.provider_name.to_owned(),
            provider: Arc::clone(self.provider),
            username: self.username.to_owned(),
            grant,
        };
        let task = async move {
            let renewed = renewal.perform().await;
            drop(turn);
            renewed
        };
        Ok(Some(self.gateway.sign_in.0.renewals.spawn(task)))
    }
}

fn outcome(
    account: AccountId,
    ended: Result<Result<Renewed, Error>, tokio::task::JoinError>,
) -> Result<Renewed, Error> {
    ended.unwrap_or_else(|panic| {
        tracing::error!(%account, error = %panic, "the renewal of a grant panicked");
        Ok(Renewed::Trouble(resting()))
    })
}

fn resting() -> Trouble {
    Trouble::Unreachable("the provider's sign-in server is in trouble, and is asked again in a while".into())
}

/// From 0 to 1, the same for each look at a grant: they are not all to be renewed at one moment.
fn spread(account: AccountId) -> f64 {
    let [.., last] = account.uuid().into_bytes();
    f64::from(last) / f64::from(u8::MAX)
}

fn length(wait: SignedDuration) -> Duration {
    Duration::try_from(wait).unwrap_or_default()
}

/// Keeps an account's access token good while its session needs none, until the provider says that the grant is gone: then
/// mail that waits to be sent finds a token, and a withdrawn grant is noticed. Waits forever where there is nothing to renew.
/// May be dropped at any time.
pub async fn keep_good(gateway: &Gateway, whose: (WorkspaceId, AccountId)) -> Trouble {
    loop {
        match next_look(gateway, whose).await {
            Ok(Some(wait)) => sleep(wait.max(KEEP_PAUSE_MIN)).await,
            Ok(None) => return std::future::pending().await,
            Err(_) => {
                sleep(UNSEEN_PAUSE).await;
                continue;
            }
        }
        match look_after(gateway, whose).await {
            Ok(Some(Err(trouble @ Trouble::SignIn(_)))) => return trouble,
            Ok(Some(Err(trouble))) => {
                tracing::info!(account = %whose.1, code = trouble.code(), "a grant could not be renewed yet");
                sleep(UNSEEN_PAUSE).await;
            }
            Ok(_) => {}
            Err(error) => {
                tracing::warn!(account = %whose.1, error = %error, "a grant could not be looked after")
            }
        }
    }
}

/// How long until the grant is to be looked at; `None` when there is none.
async fn next_look(
    gateway: &Gateway,
    (workspace, account): (WorkspaceId, AccountId),
) -> Result<Option<Duration>, Error> {
    let now = gateway.store.clock().await?;
    let grant = gateway.store.read(workspace).await?.grant(account).await?;
    Ok(grant.map(|grant| length(grant.state.next_look(now, spread(account)).duration_since(now))))
}

async fn look_after(
    gateway: &Gateway,
    whose: (WorkspaceId, AccountId),
) -> Result<Option<Result<Key, Trouble>>, Error> {
    let credentials = gateway.store.read(whose.0).await?.credentials(whose.1).await?;
    Ok(match credentials {
        Some(credentials) => Some(key(gateway, whose, &credentials, Need::Upkeep).await?),
        None => None,
    })
}

/// Keeps what a provider has granted for an account, in place of what it granted before.
///
/// # Errors
/// `Missing` when the account is gone or erased.
pub async fn keep_grant(
    tx: &mut Tx,
    account: AccountId,
    granted: Granted,
    (now, signer): (Timestamp, Option<&Signer>),
) -> Result<(), Error> {
    let tokens = Tokens { access: granted.access_token, refresh: granted.refresh_token };
    let expires_at = now.saturating_add(granted.lifetime).unwrap_or(Timestamp::MAX);
    tx.put_grant(account, Issued { tokens: &tokens, issued_at: now, expires_at }, signer).await
}

/// The same of a grant of which there is no access token yet: the first who logs in gets one.
///
/// # Errors
/// `Missing` when the account is gone or erased.
pub async fn begin_grant(
    tx: &mut Tx,
    account: AccountId,
    refresh_token: Option<secrecy::SecretString>,
    now: Timestamp,
) -> Result<(), Error> {
    let tokens = Tokens { access: secrecy::SecretString::default(), refresh: refresh_token };
    tx.put_grant(account, Issued { tokens: &tokens, issued_at: now, expires_at: now }, None).await
}
