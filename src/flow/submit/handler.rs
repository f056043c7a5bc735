//! The submission listeners' answers: who may log in, which From he may use, and the 250 once the message is on disk.
//!
//! Not here: sending. RFC 6409 section 8 lists what a submission server may mend: Date and Message-ID are added, Bcc goes.

use bytes::Bytes;
use jiff::Timestamp;
use secrecy::ExposeSecret;

use super::{Additions, ControlFields, HandsIn, Refusal, Sender, admit, choose_exit, provider_of};
use crate::{
    core::{
        ids::{Id, MessageKey, UserId, WorkspaceId},
        inbound::{Door, Exit, Intake, OrderKey, Principal, SendOrder, submission_fingerprint},
        limits::Full,
        origin::Origin,
        people::{ApiKey, Scope},
        route::{Route, RouteTarget},
    },
    flow::{
        Gateway, api_key,
        capture::{accepted, unavailable},
        policy_of,
    },
    mail::{
        Address, Envelope, HeaderBlock, HeaderSummary, MessageId, Recipient, ReversePath,
        ensure_date_and_message_id, loop_mark, surgery,
    },
    smtp::{self, AuthOutcome, Credentials, Reply, SessionInfo},
    store::{Error, ORDER_KEY_USED, Session, mint},
};

/// Answers one connection to a submission listener.
pub struct SubmissionHandler {
    gateway: Gateway,
    login: Option<Login>,
}

/// Who has logged in.
#[derive(Debug, Clone)]
struct Login {
    workspace: WorkspaceId,
    key: ApiKey,
    /// Set when the login name was a user's address: then only he may be the author.
    user: Option<UserId>,
}

/// Why a message is refused at the end of its data.
enum Rejected {
    Reply(Reply),
    Store(Error),
}

impl From<Error> for Rejected {
    fn from(error: Error) -> Self {
        match error {
            Error::Conflict { what: ORDER_KEY_USED } => Self::Reply(Reply::new(550, [5, 5, 4], KEY_USED)),
            other => Self::Store(other),
        }
    }
}

const FOREIGN_FROM: &str = "From must be one address, and yours";
/// Names the field and the way out.
const KEY_USED: &str = "X-Mailweave-Idempotency-Key was used for another message (From, To, Cc, Subject or text differ): \
     give each message a key of its own";

/// The time it lifts is in the text (contract, "SMTP"): a client that tries again before is refused again.
fn over_limit(full: Full) -> Rejected {
    Rejected::Reply(Reply::new(452, [4, 7, 28], format!("Not now: {}", full.text())))
}

/// Refuses at once what the account's provider would refuse for its size. The body alone is compared: what is added and taken out
/// of the header is not known yet, and small. What is in it is not read before the 250: files are looked at when it is sent.
async fn require_size(session: &mut Session, exit: Exit, bytes: usize) -> Result<(), Rejected> {
    let provider = provider_of(session, exit).await?;
    match provider.too_large(bytes as u64, []) {
        Some(too_large) => Err(Rejected::Reply(Reply::new(552, [5, 3, 4], too_large.text(provider)))),
        None => Ok(()),
    }
}

impl From<Refusal> for Rejected {
    fn from(refusal: Refusal) -> Self {
        Self::Reply(Reply::new(550, [5, 7, 1], refusal.to_string()))
    }
}

impl SubmissionHandler {
    #[must_use]
    pub fn new(gateway: Gateway) -> Self {
        Self { gateway, login: None }
    }

    /// A user's address or the workspace's slug as name, an API key with scope `smtp` as password or token. OAUTHBEARER may leave
    /// the name to the token: then it is of whom the key is.
    async fn log_in(&self, name: Option<&str>, secret: &str) -> Result<Option<Login>, Error> {
        let Some(key) = api_key::find(&self.gateway.store, secret).await? else { return Ok(None) };
        if !key.allows(Scope::Smtp) {
            return Ok(None);
        }
        let workspace = key.workspace;
        let Some(name) = name else {
            let user = key.user_id;
            return Ok(Some(Login { workspace, key, user }));
        };
        let Ok(address) = Address::parse(name) else {
            let named = self.gateway.store.workspace_named(name).await?;
            let own = named.is_some_and(|named| named.id == workspace) && key.user_id.is_none();
            return Ok(own.then_some(Login { workspace, key, user: None }));
        };
        let user = self.gateway.store.read(workspace).await?.user_by_address(&address).await?;
        let user = user.map(|user| user.id).filter(|id| key.user_id.is_none_or(|bound| bound == *id));
        Ok(user.map(|id| Login { workspace, key, user: Some(id) }))
    }

    async fn accept(
        &self,
        info: &SessionInfo,
        envelope: &Envelope,
        message: &Bytes,
    ) -> Result<MessageKey, Rejected> {
        let login = self
            .login
            .as_ref()
            .ok_or_else(|| Rejected::Reply(Reply::new(530, [5, 7, 0], "Authentication required")))?;
        let header = HeaderBlock::scan(message);
        if loop_mark::is_ours(&header, &self.gateway.settings.loop_key) {
            return Err(Rejected::Reply(Reply::mail_loop()));
        }
        let (control, summary) = (ControlFields::read(&header)?, HeaderSummary::of(&header));
        let body = message.get(header.body_offset()..).unwrap_or_default();
        let people = envelope.recipients.iter().map(|to| &to.address);
        let outgoing: Vec<&Address> = people.filter(|to| !self.gateway.settings.ours.holds(to)).collect();
        let (order, additions) = self.order(login, control, (&summary, body), &outgoing).await?;
        let (key, received_at) = (mint(), super::super::now());
        let raw = additions.applied(message.clone());
        let Some(author) = summary.author() else {
            return Err(Rejected::Reply(Reply::new(550, [5, 7, 1], FOREIGN_FROM)));
        };
        let secret = &self.gateway.settings.loop_key;
        let origin = Origin { secret, workspace: login.workspace, sender: &author.address };
        let raw = outgoing_bytes(&self.gateway, (info, envelope), &raw, (origin, key, received_at));
        let fingerprint = submission_fingerprint(order.key.as_ref(), envelope, (&summary, message));
        let door = Door::Submission { order, envelope: envelope.clone() };
        let intake = Intake { workspace: login.workspace, door, raw, fingerprint };
        Ok(self.gateway.store.take_in(intake, key, received_at).await?.id)
    }

    /// Checks that the key still stands, and the From: the user's own, or with a workspace's key one of its users'
    /// (contract, "SMTP"); and that there is a way out. What is read here is given back before anything is written: whoever
    /// waits for a commit holds no connection that the commit may need.
    async fn order(
        &self,
        login: &Login,
        control: ControlFields,
        (summary, body): (&HeaderSummary, &[u8]),
        recipients: &[&Address],
    ) -> Result<(SendOrder, Additions), Rejected> {
        let foreign = || Rejected::Reply(Reply::new(550, [5, 7, 1], FOREIGN_FROM));
        // One From field with one mailbox, or nobody can say who the author is.
        let [author] = summary.from.as_slice() else { return Err(foreign()) };
        if summary.from_fields != 1 {
            return Err(foreign());
        }
        let mut session = self.gateway.store.read(login.workspace).await?;
        if !session.api_key(login.key.id).await?.is_some_and(|key| key.allows(Scope::Smtp)) {
            return Err(Rejected::Reply(Reply::new(421, [4, 7, 0], "The API key is no longer valid")));
        }
        let user = session.user_by_address(&author.address).await?.map(|user| user.id);
        let user = user.filter(|id| login.user.is_none_or(|bound| bound == *id)).ok_or_else(foreign)?;
        if let Some(conversation) = control.conversation {
            session.conversation(conversation).await?.ok_or(Refusal::Conversation)?;
        }
        let (principal, class) = (Principal::Key(login.key.id), control.class);
        let sender = Sender { user, from: &author.address, class };
        let settings = policy_of(&mut session, Some(user)).await?.settings;
        let exit = choose_exit(&mut session, &self.gateway, sender, &settings).await??;
        let additions = Additions::read(&mut session, &self.gateway.settings.ours, (user, class)).await?;
        let recipients = match recipients.len() {
            // A capture address alone gets its copy here, and nothing leaves.
            0 => 0,
            named => named + additions.beside(recipients.iter().copied()),
        };
        let hands_in = HandsIn { user, class, exit, recipients };
        admit(&mut session, hands_in, &settings).await?.map_err(over_limit)?;
        require_size(&mut session, exit, body.len()).await?;
        let key = control.idempotency_key.map(|key| OrderKey::new((principal, user), &key, (summary, body)));
        let order = SendOrder { user, principal, class, conversation: control.conversation, api: false, key };
        Ok((order, additions))
    }

    fn is_own_capture(&self, route: &Route) -> bool {
        let is_own = self.login.as_ref().is_some_and(|login| login.workspace == route.workspace);
        is_own && matches!(route.target, RouteTarget::Capture { .. })
    }
}

/// The bytes as they will leave: our trace field and, where missing, Message-ID and Date in front; Bcc, control fields and
/// addresses of ours gone; every line end CRLF.
fn outgoing_bytes(
    gateway: &Gateway,
    (info, envelope): (&SessionInfo, &Envelope),
    message: &Bytes,
    (origin, key, now): (Origin<'_>, MessageKey, Timestamp),
) -> Bytes {
    let ours = &gateway.settings.ours;
    let stripped = surgery::strip_for_submission(message, |address| ours.holds(address));
    let hostname = &gateway.settings.hostname;
    let id = sent_message_id(origin, key, hostname);
    let complete = ensure_date_and_message_id(&surgery::normalise_line_ends(stripped), now, &id);
    let field = smtp::received_field(info, envelope.smtputf8, hostname, &origin.trace(key), now);
    [field.as_bytes(), &complete].concat().into()
}

/// The Message-ID of a message handed in without one.
pub fn sent_message_id(origin: Origin<'_>, key: MessageKey, hostname: &str) -> MessageId {
    origin.message_id(key, hostname).unwrap_or_else(|| own_message_id(key, hostname))
}

/// The Message-ID of what the gateway itself writes.
pub(in crate::flow) fn own_message_id(key: MessageKey, hostname: &str) -> MessageId {
    let id = format!("{}@{hostname}", key.uuid().simple());
    MessageId::parse(&id).expect("a uuid and a host name hold nothing that an id may not")
}

impl smtp::Handler for SubmissionHandler {
    async fn authenticate(&mut self, _info: &SessionInfo, credentials: Credentials) -> AuthOutcome {
        let (name, secret) = match credentials {
            Credentials::Password { username, password } => (Some(username), password),
            Credentials::Token { username, token } => (username, token),
        };
        match self.log_in(name.as_deref(), secret.expose_secret()).await {
            Ok(Some(login)) => {
                let identity = login.key.id.to_string();
                api_key::note_use(&self.gateway.store, &login.key);
                self.login = Some(login);
                AuthOutcome::Accepted { identity }
            }
            Ok(None) => AuthOutcome::Refused,
            Err(error) => {
                tracing::warn!(error = %error, "a login could not be checked");
                AuthOutcome::Unavailable
            }
        }
    }

    async fn mail(&mut self, _info: &SessionInfo, _from: &ReversePath, _declared_size: Option<u64>) -> Reply {
        Reply::sender_ok()
    }

    async fn rcpt(&mut self, _info: &SessionInfo, to: &Recipient) -> Reply {
        if !self.gateway.settings.ours.holds(&to.address) {
            return Reply::recipient_ok();
        }
        // Of ours a capture address of this workspace gets its copy here. Nothing that is said to go to any other would.
        match self.gateway.live_route(&to.address, super::super::now()).await {
            Ok(Some(route)) if self.is_own_capture(&route) => Reply::recipient_ok(),
            Ok(_) => Reply::no_such_recipient(),
            Err(error) => unavailable(&error),
        }
    }

    async fn message(&mut self, info: &SessionInfo, envelope: Envelope, message: Bytes) -> Reply {
        match self.accept(info, &envelope, &message).await {
            Ok(id) => accepted(id),
            Err(Rejected::Reply(reply)) => reply,
            Err(Rejected::Store(error)) => unavailable(&error),
        }
    }
}
