//! Opening sessions: a place among those there may be, a turn at the host, and a token that is good by then.
//!
//! Not here: tokens (`login`), and dialling (`account`).

use std::future::Future;

use super::{Key, login_at_hand, login_of};
use crate::{
    account::{Exit, ImapClient, Login, LoginTurn, Place, Protocol, Purpose, Seeker, SmtpClient, Trouble},
    core::{
        account::Credentials,
        ids::{AccountId, WorkspaceId},
    },
    flow::Gateway,
    store::{AccountAccess, Edition, Error},
};

/// Opens an IMAP session with an account's provider, in a place that is to be kept for as long. The inner error is the provider's.
///
/// # Errors
/// Those of the store.
pub(in crate::flow) async fn open_imap(
    gateway: &Gateway,
    whose: (WorkspaceId, AccountId),
    access: &AccountAccess,
    purpose: Purpose,
) -> Result<Result<(ImapClient, Place), Trouble>, Error> {
    let place = match place(gateway, access, purpose).await {
        Ok(place) => place,
        Err(crowded) => return Ok(Err(crowded)),
    };
    Ok(open_imap_in(gateway, whose, access, purpose).await?.map(|client| (client, place)))
}

/// The place that an IMAP session with an account's provider needs.
///
/// # Errors
/// `Crowded` when there was none in good time; who would follow the account waits for as long as it takes.
pub(in crate::flow) async fn place(
    gateway: &Gateway,
    access: &AccountAccess,
    purpose: Purpose,
) -> Result<Place, Trouble> {
    let settings = &access.settings;
    let name = settings.identities.imap_login.as_deref();
    let seeker = Seeker {
        protocol: Protocol::Imap,
        host: &settings.imap.host,
        username: Some(name.unwrap_or(access.credentials.username())),
        provider: settings.provider(),
        purpose,
    };
    gateway.dialer.place(seeker).await
}

/// Opens an IMAP session for one who has a place for it. The inner error is the provider's.
///
/// # Errors
/// Those of the store.
pub(in crate::flow) async fn open_imap_in(
    gateway: &Gateway,
    whose: (WorkspaceId, AccountId),
    access: &AccountAccess,
    purpose: Purpose,
) -> Result<Result<ImapClient, Trouble>, Error> {
    let (settings, name) = (&access.settings, access.settings.identities.imap_login.as_deref());
    let dial = async |turn: LoginTurn<'_>, login: Login| {
        gateway.dialer.open_imap(turn, &settings.imap, &login.named(name)).await
    };
    let door = Door { protocol: Protocol::Imap, host: &settings.imap.host, purpose };
    logged_in(gateway, whose, (&access.credentials, door), dial).await
}

/// Opens an SMTP session with an account's provider or a smarthost, in a place that is to be kept for as long. The inner error is
/// the server's.
///
/// # Errors
/// Those of the store.
pub(in crate::flow) async fn open_submission(
    gateway: &Gateway,
    workspace: WorkspaceId,
    exit: &Exit,
) -> Result<Result<(SmtpClient, Place), Trouble>, Error> {
    let hello = &gateway.settings.hostname;
    let credentials = exit.account.zip(exit.credentials.as_ref());
    let door = Door { protocol: Protocol::Smtp, host: &exit.endpoint.host, purpose: Purpose::Errand };
    let seeker = Seeker {
        protocol: door.protocol,
        host: door.host,
        // A smarthost is built for many: only the host counts.
        username: credentials.map(|(_, own)| exit.login.as_deref().unwrap_or(own.username())),
        provider: exit.provider,
        purpose: door.purpose,
    };
    let place = match gateway.dialer.place(seeker).await {
        Ok(place) => place,
        Err(crowded) => return Ok(Err(crowded)),
    };
    let Some((account, credentials)) = credentials else {
        let login = exit.credentials.as_ref().and_then(Login::of_password);
        let turn = match door.turn(gateway).await {
            Ok(turn) => turn,
            Err(crowded) => return Ok(Err(crowded)),
        };
        let opened = gateway.dialer.open_submission(turn, &exit.endpoint, login.as_ref(), hello).await;
        return Ok(opened.map(|client| (client, place)));
    };
    let dial = async |turn: LoginTurn<'_>, login: Login| {
        let login = login.named(exit.login.as_deref());
        gateway.dialer.open_submission(turn, &exit.endpoint, Some(&login), hello).await
    };
    let opened = logged_in(gateway, (workspace, account), (credentials, door), dial).await?;
    Ok(opened.map(|client| (client, place)))
}

/// Where a session is to begin.
#[derive(Clone, Copy)]
struct Door<'a> {
    protocol: Protocol,
    host: &'a str,
    purpose: Purpose,
}

impl Door<'_> {
    async fn turn(self, gateway: &Gateway) -> Result<LoginTurn<'_>, Trouble> {
        gateway.dialer.turn(self.protocol, self.host, self.purpose).await
    }
}

/// What logs in, and the turn in which it does. Who has no token keeps nobody waiting: it is asked for before the turn, and where
/// the wait was longer than it lasts the turn is given back.
async fn in_turn<'g>(
    gateway: &'g Gateway,
    whose: (WorkspaceId, AccountId),
    (credentials, door): (&Credentials, Door<'_>),
) -> Result<Result<(LoginTurn<'g>, Key), Trouble>, Error> {
    loop {
        let key = match login_of(gateway, whose, credentials).await? {
            Ok(key) => key,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let turn = match door.turn(gateway).await {
            Ok(turn) => turn,
            Err(crowded) => return Ok(Err(crowded)),
        };
        if let Some(key) = login_at_hand(gateway, whose, key).await? {
            return Ok(Ok((turn, key)));
        }
    }
}

/// Logs in. A token that is refused although it looked good is renewed, once: the provider may have withdrawn it, or our clock
/// be wrong. When that is refused too, the grant is good all the same.
async fn logged_in<'g, T, F>(
    gateway: &'g Gateway,
    whose: (WorkspaceId, AccountId),
    by: (&Credentials, Door<'_>),
    dial: impl Fn(LoginTurn<'g>, Login) -> F,
) -> Result<Result<T, Trouble>, Error>
where
    F: Future<Output = Result<T, Trouble>>,
{
    let mut refused = None;
    loop {
        let (turn, Key { login, edition, is_unwelcome }) = match in_turn(gateway, whose, by).await? {
            Ok(ready) => ready,
            Err(trouble) => return Ok(Err(trouble)),
        };
        let trouble = match dial(turn, login).await {
            Ok(client) => {
                if is_unwelcome && by.1.protocol == Protocol::Smtp {
                    note_welcome(gateway, whose).await?;
                }
                return Ok(Ok(client));
            }
            Err(trouble) => trouble,
        };
        let (Trouble::Credentials(text) | Trouble::Revoked(text), Some(edition)) = (&trouble, edition) else {
            return Ok(Err(trouble));
        };
        if refused.is_some_and(|refused| refused != edition) {
            return Ok(Err(Trouble::Unwelcome(text.clone())));
        }
        refused = Some(edition);
        expire(gateway, whose, edition).await?;
    }
}

async fn note_welcome(
    gateway: &Gateway,
    (workspace, account): (WorkspaceId, AccountId),
) -> Result<(), Error> {
    let mut tx = gateway.store.begin(workspace).await?;
    tx.note_welcome(account).await?;
    tx.commit().await
}

async fn expire(
    gateway: &Gateway,
    (workspace, account): (WorkspaceId, AccountId),
    edition: Edition,
) -> Result<(), Error> {
    let now = gateway.store.clock().await?;
    let mut tx = gateway.store.begin(workspace).await?;
    tx.expire_grant(account, edition, now).await?;
    tx.commit().await
}
