//! A user comes back from his provider: who he is, what he granted, and the account that becomes of it.
//!
//! Nothing that comes in the address is believed: the state leads to what was begun, the cookie shows that it is the same browser,
//! and the code is worth nothing without the verifier kept here (RFC 6749 section 10.12, RFC 7636, RFC 9207). Not here: logging in
//! with what was granted (`flow::login`).

use std::sync::Arc;

use axum::{
    extract::{RawQuery, State},
    http::{HeaderMap, header},
    response::{IntoResponse as _, Response},
};
use secrecy::SecretString;
use subtle::ConstantTimeEq as _;

use super::{COOKIE, SIGN_IN_LIFETIME, hash, page::Page, unavailable};
use crate::{
    account::oauth::{Granted, Registered},
    core::{
        account::{Account, AccountSettings, AccountState, Credentials, FoundBy, FoundServers, Identities},
        grant::Signer,
        ids::AccountId,
        people::User,
        policy::settings::ConnectRole,
        provider::Provider,
    },
    flow::{self, login},
    http::{
        Api,
        accounts::{connecting, may_be_another, restart},
    },
    mail::Address,
    store::{self, AccountFilter, ConnectLink, Departed, Page as Rows, PartedGrant, Tx, mint},
};

/// Characters of what a browser brought that are logged.
const LOGGED_CHARS_MAX: usize = 100;
/// Accounts of a user among which the one of an address is looked for.
const ACCOUNTS_LOOKED_AT: u32 = 200;

/// What the provider sends a user back with (RFC 6749 section 4.1.2, RFC 9207 section 2).
#[derive(Default)]
struct Brought {
    state: Option<String>,
    code: Option<String>,
    error: Option<String>,
    iss: Option<String>,
}

impl Brought {
    /// The first of each that is there.
    fn read(query: &str) -> Self {
        let mut brought = Self::default();
        for (name, value) in url::form_urlencoded::parse(query.as_bytes()) {
            let field = match name.as_ref() {
                "state" => &mut brought.state,
                "code" => &mut brought.code,
                "error" => &mut brought.error,
                "iss" => &mut brought.iss,
                _ => continue,
            };
            field.get_or_insert_with(|| value.into_owned());
        }
        brought
    }
}

pub(super) async fn arrive(
    State(api): State<Api>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Response {
    let brought = Brought::read(query.as_deref().unwrap_or_default());
    take(&api, &headers, brought).await.unwrap_or_else(|page| page).into_response()
}

async fn take(api: &Api, headers: &HeaderMap, brought: Brought) -> Result<Page, Page> {
    let state_hash = hash(&brought.state.ok_or_else(Page::over)?);
    let found = api.store().system_read().await.map_err(unavailable)?.departed(&state_hash).await;
    let Departed { link, cookie_hash, provider, at } = found.map_err(unavailable)?.ok_or_else(Page::over)?;
    if !bool::from(hash(cookie(headers).unwrap_or_default()).ct_eq(&cookie_hash)) {
        return Err(Page::elsewhere());
    }
    // From here on it is good no more, whatever comes of it.
    let mut tx = api.store().begin(link.workspace).await.map_err(unavailable)?;
    let verifier =
        tx.take_up_sign_in(link.id, &state_hash).await.map_err(unavailable)?.ok_or_else(Page::over)?;
    tx.commit().await.map_err(unavailable)?;
    let now = flow::now();
    if now.duration_since(at) > SIGN_IN_LIFETIME || link.expires_at <= now {
        return Err(Page::over());
    }
    let registered = api.gateway.sign_in.providers().named(&provider).ok_or_else(Page::refused)?;
    let authorization = registered.client.authorization();
    if !authorization.is_answered_by(brought.iss.as_deref()) {
        let (said, known) = (brought.iss.as_deref().map(short), &authorization.issuer);
        tracing::warn!(%provider, ?said, ?known, "a sign-in was answered by another issuer than oauth.….issuer names");
        return Err(Page::refused());
    }
    let code = match (brought.code, brought.error.as_deref()) {
        (Some(code), None) => code,
        (_, Some("access_denied" | "consent_required" | "interaction_required")) => {
            return Err(Page::declined());
        }
        (_, error) => {
            tracing::warn!(%provider, error = ?error.map(short), "a provider sent a user back without a code");
            return Err(Page::refused());
        }
    };
    // On its own: a code is good once, and a browser that hangs up now must not leave a grant that nobody keeps.
    let finished = tokio::spawn(finish(api.clone(), (link, provider, registered), (code, verifier)));
    finished.await.unwrap_or_else(|_| Err(Page::unavailable()))
}

/// As much as a log needs of what a browser brought.
fn short(text: &str) -> String {
    text.chars().take(LOGGED_CHARS_MAX).collect()
}

/// What was granted and cannot be used is given back.
async fn finish(
    api: Api,
    (link, provider, registered): (ConnectLink, String, Arc<Registered>),
    (code, verifier): (String, SecretString),
) -> Result<Page, Page> {
    let granted = registered.client.redeem(&code, &verifier).await.map_err(|error| {
        tracing::info!(%provider, error = %error, "a user's sign-in was not confirmed");
        Page::refused()
    })?;
    let (refresh, signer) = (granted.refresh_token.clone(), granted.signer.clone());
    let connected = connect(&api, (&link, &provider, &registered), granted).await;
    if let (Err(_), Some(refresh)) = (&connected, refresh) {
        give_back(&api, &link, (provider, signer, refresh)).await.map_err(unavailable)?;
    }
    connected
}

async fn give_back(
    api: &Api,
    link: &ConnectLink,
    (provider, signer, refresh): (String, Option<Signer>, SecretString),
) -> Result<(), store::Error> {
    let mut tx = api.store().begin(link.workspace).await?;
    let user = tx.user(link.user).await?;
    let own = user.into_iter().flat_map(|user| user.aliases.into_iter().chain([user.email]));
    let emails = own.chain(link.mailbox.clone().map(|mailbox| mailbox.email)).collect();
    login::part_from(&mut tx, &PartedGrant { provider, account: None, emails, signer, refresh }, flow::now())
        .await?;
    tx.commit().await
}

fn cookie(headers: &HeaderMap) -> Option<&str> {
    let fields = headers.get_all(header::COOKIE).into_iter().filter_map(|field| field.to_str().ok());
    let mut pairs = fields.flat_map(|field| field.split(';'));
    pairs.find_map(|pair| pair.trim().strip_prefix(COOKIE)?.strip_prefix('='))
}

async fn connect(
    api: &Api,
    (link, provider, registered): (&ConnectLink, &str, &Registered),
    granted: Granted,
) -> Result<Page, Page> {
    let refused = registered.client.authorization().refused(&granted.scopes);
    if !refused.is_empty() {
        return Err(Page::narrowed(&refused));
    }
    if granted.refresh_token.is_none() {
        return Err(Page::refused());
    }
    let (Some(imap), Some(smtp)) = (registered.imap.clone(), registered.smtp.clone()) else {
        return Err(Page::no_servers());
    };
    let known = Provider::named(provider).map(|known| known.name.to_owned());
    let mut settings = AccountSettings {
        imap,
        smtp,
        provider: known,
        found: FoundServers { imap: FoundBy::Provider, smtp: FoundBy::Provider },
        identities: Identities::default(),
    };
    let begun = api.store().begin(link.workspace).await.map_err(unavailable)?;
    let mut tx = begun.acting_for(link.user.to_string());
    let user = tx.user_to_change(link.user).await.map_err(unavailable)?.ok_or_else(Page::gone)?;
    let filter = AccountFilter { user: Some(user.id), state: None };
    let his = tx.accounts(&Rows::new(ACCOUNTS_LOOKED_AT, None), &filter).await.map_err(unavailable)?;
    let signed_in = own_address(&user, &his, &granted)?;
    let email = match &link.mailbox {
        Some(shared) => {
            settings.identities.clone_from(&shared.identities);
            shared.email.clone()
        }
        None => signed_in.clone(),
    };
    if !may_connect(&mut tx, &user).await.map_err(unavailable)? {
        return Err(Page::not_allowed());
    }
    let policy = flow::policy_of(&mut tx, Some(user.id)).await.map_err(unavailable)?;
    if policy.settings.excludes(settings.provider()) {
        return Err(Page::excluded(&settings.provider().title));
    }
    let now = flow::now();
    if !tx.use_connect_link(link.id, now).await.map_err(unavailable)? {
        return Err(Page::used());
    }
    let credentials = Credentials::OAuth2 { provider: provider.to_owned(), username: signed_in.to_string() };
    let known = his.into_iter().find(|one| one.email == email && one.status.state != AccountState::Erased);
    let account = match known {
        Some(account) => {
            let signer = granted.signer.as_ref();
            reconnect(&mut tx, api, account, (settings, &credentials, signer)).await?
        }
        None => add(&mut tx, (&user, &email), (settings, &credentials)).await?,
    };
    let signer = granted.signer.clone();
    login::keep_grant(&mut tx, account.id, granted, (now, signer.as_ref())).await.map_err(unavailable)?;
    tx.commit().await.map_err(unavailable)?;
    api.look_now(account.id);
    Ok(Page::connected(&email))
}

/// The address that the user signed in with, if it is one of his or of an account that he has: nobody connects another's, for he
/// would read along.
fn own_address(user: &User, his: &[Account], granted: &Granted) -> Result<Address, Page> {
    let Some(signed_in) = granted.signer.as_ref().and_then(|signer| signer.email.clone()) else {
        // A provider that does not say who signed in was told whom to ask for.
        return Ok(user.email.clone());
    };
    let is_his = user.email == signed_in
        || user.aliases.contains(&signed_in)
        || his.iter().any(|account| account.email == signed_in);
    if is_his { Ok(signed_in) } else { Err(Page::somebody_else(&signed_in, user)) }
}

/// Whether policy lets the user connect an account of his own.
async fn may_connect(tx: &mut Tx, user: &User) -> Result<bool, store::Error> {
    Ok(match flow::policy_of(tx, Some(user.id)).await?.settings.connect_role.clone() {
        ConnectRole::OnlySelf => true,
        ConnectRole::Roles(roles) => roles.contains(&user.role),
    })
}

/// Whether somebody else has the address now than the one who signed in before: then so may his mailbox be.
async fn is_another_person(
    tx: &mut Tx,
    account: AccountId,
    signer: Option<&Signer>,
) -> Result<bool, store::Error> {
    let grant = match tx.grant(account).await {
        Ok(grant) => grant,
        // What cannot be read names nobody.
        Err(error) if error.is_lasting() => None,
        Err(error) => return Err(error),
    };
    let was = grant.and_then(|grant| grant.signer);
    Ok(was.zip(signer).is_some_and(|(was, is)| !was.is_same(is)))
}

/// Gives an account of his the new login.
async fn reconnect(
    tx: &mut Tx,
    api: &Api,
    account: Account,
    (settings, credentials, signer): (AccountSettings, &Credentials, Option<&Signer>),
) -> Result<Account, Page> {
    let mut account = tx.account_to_change(account.id).await.map_err(unavailable)?.ok_or_else(Page::taken)?;
    if matches!(account.status.state, AccountState::Erasing | AccountState::Erased) {
        return Err(Page::taken());
    }
    login::part_from_grant(tx, &account, flow::now()).await.map_err(unavailable)?;
    let old = std::mem::replace(&mut account.settings, settings);
    // Who logs in is told anew, whose name mail leaves in is not.
    let sender = &mut account.settings.identities.sender;
    *sender = sender.take().or_else(|| old.identities.sender.clone());
    tx.update_account_settings(account.id, &account.email, &account.settings).await.map_err(unavailable)?;
    let is_another = is_another_person(tx, account.id, signer).await.map_err(unavailable)?
        || may_be_another(tx, &account, (&old, credentials)).await.map_err(unavailable)?;
    if is_another {
        tx.begin_generation(account.id).await.map_err(unavailable)?;
    }
    tx.replace_credentials(account.id, credentials).await.map_err(unavailable)?;
    account.is_granted = true;
    if matches!(account.status.state, AccountState::Paused | AccountState::WaitingForQuota) {
        tx.fence_account(account.id).await.map_err(unavailable)?;
    } else {
        restart(tx, &api.gateway, &mut account).await.map_err(|_| Page::unavailable())?;
    }
    Ok(account)
}

/// Connects the mailbox as a new account.
async fn add(
    tx: &mut Tx,
    (user, email): (&User, &Address),
    (settings, credentials): (AccountSettings, &Credentials),
) -> Result<Account, Page> {
    let now = flow::now();
    let mut account = Account {
        id: mint(),
        user_id: user.id,
        email: email.clone(),
        settings,
        status: connecting(now),
        sending_refused: None,
        rest: None,
        connected_at: now,
        generation: 0,
        is_granted: true,
    };
    tx.insert_account(&account, credentials).await.map_err(|error| match error {
        store::Error::Conflict { .. } => Page::taken(),
        error => unavailable(error),
    })?;
    flow::limits::seat(tx, &mut account, None).await.map_err(unavailable)?;
    Ok(account)
}
