//! `mailweave NOUN VERB`: one request to a running gateway's API, its answer on stdout.
//!
//! Not here: what the API does with it. This client knows paths and methods, and of answers only whether they are problems.

mod mail;

use std::{
    io::{IsTerminal as _, Read as _, Write as _},
    time::Duration,
};

use anyhow::{Context as _, bail};
use reqwest::{Method, Response, header};
use secrecy::ExposeSecret as _;
use serde_json::Value;
use url::Url;

use super::{refusal::Refused, simulate};
use crate::{
    cli::{
        self, AccountVerb, Client, Command, ContactVerb, ConversationVerb, Create, DecisionVerb, EventVerb,
        Events, Follow, KeyCreate, KeyVerb, LimitSet, LimitVerb, List, Noun, OfUser, One, PolicySet,
        PolicyVerb, Simulate, SmarthostVerb, TrailVerb, Update, UserVerb, WebhookVerb, Whose, Within,
        WorkspaceVerb,
    },
    core::people::Scope,
    net,
};

/// How long the gateway may take to begin an answer. A simulation takes the longest.
const TIMEOUT: Duration = Duration::from_secs(120);
/// Largest answer that is shown as JSON; the API's pages are far smaller.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// A request, before it is sent.
#[derive(Debug, PartialEq, Eq)]
pub struct Call {
    method: Method,
    /// Segments after `/v1`, and after the workspace if `within` it.
    path: Vec<String>,
    within_workspace: bool,
    query: Vec<(String, String)>,
    body: Body,
    idempotency_key: Option<String>,
}

#[derive(Debug, PartialEq, Eq)]
enum Body {
    None,
    Given(Kind, String),
    Stdin(Kind),
    /// A value from a pipe; what may be left out is, at a terminal and where nothing comes.
    MaybeStdin,
}

/// What a body is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    /// One value.
    Json,
    /// A value a line.
    Lines,
}

impl Kind {
    fn content_type(self) -> &'static str {
        match self {
            Self::Json => "application/json",
            Self::Lines => "application/x-ndjson",
        }
    }
}

/// Something is missing on the command line that the command cannot do without.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub struct Usage(pub &'static str);

/// Sends what the command asks for and prints the answer. Commands that need no API are none of this function's.
///
/// # Errors
/// The API's refusal, or why it could not be asked.
pub async fn run(command: Command) -> anyhow::Result<()> {
    let Some((client, call)) = call(command) else { bail!("this command is not one of the API's") };
    net::install_provider();
    let response = send(&client, call).await?;
    print(response).await
}

/// Asks the gateway for a key and returns the answer, the secret in it.
///
/// # Errors
/// As [`run`].
pub(super) async fn create_key(client: &Client, order: KeyCreate) -> anyhow::Result<Value> {
    answer(client, keys(KeyVerb::Create(order))).await
}

/// Asks for decisions and returns the answer, a page of them.
///
/// # Errors
/// As [`run`].
pub(super) async fn decisions(client: &Client, list: List) -> anyhow::Result<Value> {
    answer(client, Call::within(&["decisions"]).list(list)).await
}

/// Asks what another policy would have made of mail and returns the answer.
///
/// # Errors
/// As [`run`].
pub(super) async fn simulation(client: &Client, order: Simulate) -> anyhow::Result<Value> {
    answer(client, policy(PolicyVerb::Simulate(order))).await
}

async fn answer(client: &Client, call: Call) -> anyhow::Result<Value> {
    let response = send(client, call).await?;
    serde_json::from_slice(&read(response).await?).context("the answer is not JSON")
}

/// What the API is asked for when a key is to be made.
pub(super) fn key_body(order: &KeyCreate) -> Value {
    serde_json::json!({ "name": order.name, "scopes": scopes(order) })
}

/// The scopes a key is to have, each once.
pub(super) fn scopes(order: &KeyCreate) -> Vec<Scope> {
    let mut scopes: Vec<Scope> = order.scopes.iter().copied().map(scope).collect();
    scopes.sort_unstable();
    scopes.dedup();
    scopes
}

fn scope(asked: cli::Scope) -> Scope {
    match asked {
        cli::Scope::Read => Scope::Read,
        cli::Scope::Write => Scope::Write,
        cli::Scope::Send => Scope::Send,
        cli::Scope::Smtp => Scope::Smtp,
        cli::Scope::Admin => Scope::Admin,
    }
}

/// The request a command stands for; `None` for commands of another kind.
fn call(command: Command) -> Option<(Client, Call)> {
    Some(match command {
        Command::Key(Noun { client, verb }) => (client, keys(verb)),
        Command::Workspace(Noun { client, verb }) => (client, workspaces(verb)),
        Command::User(Noun { client, verb }) => (client, users(verb)),
        Command::Contact(Noun { client, verb }) => (client, contacts(verb)),
        Command::Account(Noun { client, verb }) => (client, accounts(verb)),
        Command::Conversation(Noun { client, verb }) => (client, conversations(verb)),
        Command::Message(Noun { client, verb }) => (client, mail::messages(verb)),
        Command::Quarantine(Noun { client, verb }) => (client, mail::quarantine(verb)),
        Command::Event(Noun { client, verb }) => (client, events(verb)),
        Command::Webhook(Noun { client, verb }) => (client, webhooks(verb)),
        Command::Limit(Noun { client, verb }) => (client, limits(verb)),
        Command::Decision(Noun { client, verb: DecisionVerb::List(list) }) => {
            (client, Call::within(&["decisions"]).list(list))
        }
        Command::Trail(Noun { client, verb: TrailVerb::List(list) }) => {
            (client, Call::within(&["trail"]).list(list))
        }
        Command::Policy(Noun { client, verb }) => (client, policy(verb)),
        Command::Smarthost(Noun { client, verb }) => (client, smarthost(verb)),
        Command::Why(_)
        | Command::Serve(_)
        | Command::Demo
        | Command::Sandbox(_)
        | Command::Check(_)
        | Command::Audit(_)
        | Command::MasterKey { .. }
        | Command::Health(_) => {
            return None;
        }
    })
}

fn keys(verb: KeyVerb) -> Call {
    match verb {
        KeyVerb::Create(order) => Call::within(&["keys"])
            .post(Create { data: Some(key_body(&order).to_string()), idempotency_key: None }),
        KeyVerb::List(list) => Call::within(&["keys"]).list(list),
        KeyVerb::Delete(one) => Call::one("keys", one).method(Method::DELETE),
    }
}

fn workspaces(verb: WorkspaceVerb) -> Call {
    let above = |call: Call| Call { within_workspace: false, ..call };
    above(match verb {
        WorkspaceVerb::List(list) => Call::within(&["workspaces"]).list(list),
        WorkspaceVerb::Get(one) => Call::one("workspaces", one),
        WorkspaceVerb::Create(create) => Call::within(&["workspaces"]).post(create),
        WorkspaceVerb::Update(update) => Call::update("workspaces", update),
        WorkspaceVerb::Delete(one) => Call::one("workspaces", one).method(Method::DELETE),
    })
}

fn users(verb: UserVerb) -> Call {
    match verb {
        UserVerb::List(list) => Call::within(&["users"]).list(list),
        UserVerb::Get(one) => Call::one("users", one),
        UserVerb::Create(create) => Call::within(&["users"]).post(create),
        UserVerb::Update(update) => Call::update("users", update),
        UserVerb::Coverage(within) => Call::of("users", within, "coverage"),
        UserVerb::Delete(one) => Call::one("users", one).method(Method::DELETE),
        UserVerb::CaptureAddress(Update { id, body }) => {
            Call::within(&["users", &id, "capture-address"]).post(body).body_if_given()
        }
        UserVerb::ConnectLink(Update { id, body }) => {
            Call::within(&["users", &id, "connect-link"]).post(body).body_if_given()
        }
    }
}

fn contacts(verb: ContactVerb) -> Call {
    match verb {
        ContactVerb::List(list) => Call::within(&["contacts"]).list(list),
        ContactVerb::Get(one) => Call::one("contacts", one),
        ContactVerb::Create(create) => Call::within(&["contacts"]).post(create),
        ContactVerb::Update(update) => Call::update("contacts", update),
        ContactVerb::Delete(one) => Call::one("contacts", one).method(Method::DELETE),
        ContactVerb::ByExternalId(One { id }) => Call::within(&["contacts", "by-external-id", &id]),
        ContactVerb::Upsert(Update { id, body }) => {
            Call::within(&["contacts", "by-external-id", &id]).post(body).method(Method::PUT)
        }
        ContactVerb::Import(lines) => Call::within(&["contacts", "import"]).post_as(Kind::Lines, lines),
        ContactVerb::Timeline(within) => Call::of("contacts", within, "timeline"),
    }
}

fn accounts(verb: AccountVerb) -> Call {
    match verb {
        AccountVerb::List(list) => Call::within(&["accounts"]).list(list),
        AccountVerb::Get(one) => Call::one("accounts", one),
        AccountVerb::Create(create) => Call::within(&["accounts"]).post(create),
        AccountVerb::Update(update) => Call::update("accounts", update),
        AccountVerb::Status(one) => Call::one("accounts", one).then("status"),
        AccountVerb::Sync(one) => Call::one("accounts", one).then("sync").method(Method::POST),
        AccountVerb::Pause(one) => Call::one("accounts", one).then("pause").method(Method::POST),
        AccountVerb::Resume(one) => Call::one("accounts", one).then("resume").method(Method::POST),
        AccountVerb::Completeness(one) => Call::one("accounts", one).then("completeness"),
        AccountVerb::Errors(within) => Call::of("accounts", within, "errors"),
        AccountVerb::Disconnect(Update { id, body }) => {
            Call::within(&["accounts", &id, "disconnect"]).post(body).body_if_given()
        }
    }
}

fn conversations(verb: ConversationVerb) -> Call {
    match verb {
        ConversationVerb::List(list) => Call::within(&["conversations"]).list(list),
        ConversationVerb::Get(one) => Call::one("conversations", one),
        ConversationVerb::Messages(within) => Call::of("conversations", within, "messages"),
        ConversationVerb::Merge(Update { id, body }) => {
            Call::within(&["conversations", &id, "merge"]).post(body)
        }
        ConversationVerb::Split(Update { id, body }) => {
            Call::within(&["conversations", &id, "split"]).post(body)
        }
        ConversationVerb::Undo(one) => Call::one("repairs", one).then("undo").method(Method::POST),
    }
}

fn events(verb: EventVerb) -> Call {
    let filters = |Follow { after, types }: Follow| {
        [("after", after), ("types", types)]
            .into_iter()
            .filter_map(|(name, value)| Some((name.to_owned(), value?)))
            .collect::<Vec<_>>()
    };
    match verb {
        EventVerb::List(Events { which, mut list }) => {
            list.filters.extend(filters(which));
            Call::within(&["events"]).list(list)
        }
        EventVerb::Stream(which) => {
            let list = List { filters: filters(which), ..List::default() };
            Call::within(&["events", "stream"]).list(list)
        }
    }
}

fn webhooks(verb: WebhookVerb) -> Call {
    match verb {
        WebhookVerb::List(list) => Call::within(&["webhooks"]).list(list),
        WebhookVerb::Get(one) => Call::one("webhooks", one),
        WebhookVerb::Create(create) => Call::within(&["webhooks"]).post(create),
        WebhookVerb::Update(update) => Call::update("webhooks", update),
        WebhookVerb::Delete(one) => Call::one("webhooks", one).method(Method::DELETE),
        WebhookVerb::Test(one) => Call::one("webhooks", one).then("test").method(Method::POST),
        WebhookVerb::RotateSecret(one) => {
            Call::one("webhooks", one).then("rotate-secret").method(Method::POST)
        }
        WebhookVerb::Replay(Update { id, body }) => Call::within(&["webhooks", &id, "replay"]).post(body),
    }
}

fn policy(verb: PolicyVerb) -> Call {
    let of = |Whose { user }: Whose| match user {
        Some(user) => Call::within(&["users", &user, "policy"]),
        None => Call::within(&["policy"]),
    };
    match verb {
        PolicyVerb::Get(whose) => of(whose),
        PolicyVerb::Set(PolicySet { whose, body }) => of(whose).post(body).method(Method::PUT),
        PolicyVerb::Simulate(order) => Call::within(&["policy", "simulate"])
            .post(Create { data: Some(simulate::body(&order).to_string()), idempotency_key: None }),
    }
}

fn limits(verb: LimitVerb) -> Call {
    let of = |OfUser { user }: OfUser| match user {
        Some(id) => Call::one("users", One { id }).then("limits"),
        None => Call::within(&["limits"]),
    };
    match verb {
        LimitVerb::Get(user) => of(user),
        LimitVerb::Set(LimitSet { of: user, body }) => of(user).post(body).method(Method::PUT),
        LimitVerb::Usage(one) => Call::one("users", one).then("usage"),
    }
}

fn smarthost(verb: SmarthostVerb) -> Call {
    let smarthost = Call::within(&["smarthost"]);
    match verb {
        SmarthostVerb::Get => smarthost,
        SmarthostVerb::Set(create) => smarthost.post(create).method(Method::PUT),
        SmarthostVerb::Delete => smarthost.method(Method::DELETE),
    }
}

impl Call {
    fn within(path: &[&str]) -> Self {
        let path = path.iter().map(|segment| (*segment).to_owned()).collect();
        Self {
            method: Method::GET,
            path,
            within_workspace: true,
            query: Vec::new(),
            body: Body::None,
            idempotency_key: None,
        }
    }

    fn one(noun: &str, One { id }: One) -> Self {
        Self::within(&[noun, &id])
    }

    fn of(noun: &str, Within { id, list }: Within, part: &str) -> Self {
        Self::within(&[noun, &id, part]).list(list)
    }

    fn update(noun: &str, Update { id, body }: Update) -> Self {
        Self::within(&[noun, &id]).post(body).method(Method::PATCH)
    }

    fn then(mut self, segment: &str) -> Self {
        self.path.push(segment.to_owned());
        self
    }

    fn method(mut self, method: Method) -> Self {
        self.method = method;
        self
    }

    fn list(mut self, List { limit, cursor, filters }: List) -> Self {
        self.query = filters;
        self.query.extend(limit.map(|limit| ("limit".to_owned(), limit.to_string())));
        self.query.extend(cursor.map(|cursor| ("cursor".to_owned(), cursor)));
        self
    }

    fn post(self, create: Create) -> Self {
        self.post_as(Kind::Json, create)
    }

    /// What is said may be left out.
    fn body_if_given(mut self) -> Self {
        if matches!(self.body, Body::Stdin(_)) {
            self.body = Body::MaybeStdin;
        }
        self
    }

    fn post_as(mut self, kind: Kind, Create { data, idempotency_key }: Create) -> Self {
        self.method = Method::POST;
        self.body = data.map_or(Body::Stdin(kind), |text| Body::Given(kind, text));
        self.idempotency_key = idempotency_key;
        self
    }

    fn url(&self, client: &Client) -> anyhow::Result<Url> {
        let mut url = client.url.clone();
        {
            let mut segments = url.path_segments_mut().ok().context("the API's address is no http:// URL")?;
            segments.pop_if_empty().push("v1");
            if self.within_workspace {
                let workspace = client.workspace.as_deref().filter(|name| !name.is_empty());
                let workspace = workspace
                    .ok_or(Usage("say which workspace: --workspace SLUG, or MAILWEAVE_WORKSPACE"))?;
                segments.extend(["workspaces", workspace]);
            }
            segments.extend(&self.path);
        }
        if !self.query.is_empty() {
            url.query_pairs_mut().extend_pairs(&self.query);
        }
        Ok(url)
    }
}

async fn send(client: &Client, call: Call) -> anyhow::Result<Response> {
    let url = call.url(client)?;
    let key = client.api_key.as_ref().ok_or(Usage("set MAILWEAVE_API_KEY to an API key of the gateway"))?;
    let http = reqwest::Client::builder()
        .read_timeout(TIMEOUT)
        .redirect(reqwest::redirect::Policy::none())
        .user_agent(concat!("mailweave/", env!("CARGO_PKG_VERSION")))
        .build()
        .context("cannot set up an HTTP client")?;
    let mut request = http.request(call.method, url.clone()).bearer_auth(key.expose_secret());
    if let Some(key) = call.idempotency_key {
        request = request.header("Idempotency-Key", key);
    }
    if let Some((kind, text)) = body(call.body)? {
        request = request.header(header::CONTENT_TYPE, kind.content_type()).body(text);
    }
    let response = request.send().await;
    let response = response
        .map_err(reqwest::Error::without_url)
        .with_context(|| format!("no answer from {}", client.url))?;
    if response.status().is_success() { Ok(response) } else { Err(refusal(response).await.into()) }
}

/// Says at once what is no JSON, rather than have the gateway say it. Of lines the gateway tells which are wrong.
fn body(body: Body) -> anyhow::Result<Option<(Kind, String)>> {
    let (kind, text) = match body {
        Body::None => return Ok(None),
        Body::Given(kind, text) => (kind, text),
        Body::MaybeStdin => {
            let mut text = String::new();
            if !std::io::stdin().is_terminal() {
                std::io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
            }
            (Kind::Json, if text.trim().is_empty() { "{}".to_owned() } else { text })
        }
        Body::Stdin(kind) => {
            if std::io::stdin().is_terminal() {
                eprintln!("Reading JSON from the terminal; end it with Ctrl-D.");
            }
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("cannot read stdin")?;
            (kind, text)
        }
    };
    if kind == Kind::Json {
        serde_json::from_str::<serde::de::IgnoredAny>(&text).context("what was given is not JSON")?;
    }
    Ok(Some((kind, text)))
}

async fn refusal(response: Response) -> Refused {
    let status = response.status();
    let problem = read(response).await.ok().and_then(|text| serde_json::from_slice(&text).ok());
    let plain = || serde_json::json!({ "title": status.canonical_reason().unwrap_or("refused") });
    Refused { status: status.as_u16(), problem: problem.filter(Value::is_object).unwrap_or_else(plain) }
}

async fn read(mut response: Response) -> anyhow::Result<Vec<u8>> {
    let mut answer = Vec::new();
    while let Some(chunk) = response.chunk().await.context("the answer broke off")? {
        answer.extend_from_slice(&chunk);
        anyhow::ensure!(answer.len() <= ANSWER_BYTES_MAX, "the answer is larger than any of ours");
    }
    Ok(answer)
}

/// JSON is indented; anything else, such as a raw message, goes through as it comes.
async fn print(mut response: Response) -> anyhow::Result<()> {
    let kind = response.headers().get(header::CONTENT_TYPE).and_then(|kind| kind.to_str().ok()).unwrap_or("");
    if kind.starts_with("application/json") {
        let answer: Value =
            serde_json::from_slice(&read(response).await?).context("the answer is not JSON")?;
        return write(format!("{answer:#}\n").as_bytes());
    }
    while let Some(chunk) = response.chunk().await.context("the answer broke off")? {
        write(&chunk)?;
    }
    Ok(())
}

pub(super) fn write(bytes: &[u8]) -> anyhow::Result<()> {
    let mut out = std::io::stdout().lock();
    out.write_all(bytes).and_then(|()| out.flush()).context("cannot write to stdout")
}

#[cfg(test)]
mod tests {
    use clap::Parser as _;

    use super::*;
    use crate::cli::Cli;

    /// Commands and the requests they stand for; `{}` is a body given with `--data`.
    const COMMANDS: &[(&str, &str)] = &[
        ("workspace list --limit 5 --cursor c", "GET /workspaces?limit=5&cursor=c"),
        ("workspace get acme", "GET /workspaces/acme"),
        ("workspace create --data {}", "POST /workspaces {}"),
        ("workspace update a/b --data {}", "PATCH /workspaces/a%2Fb {}"),
        ("workspace delete acme", "DELETE /workspaces/acme"),
        (
            "key create --scope smtp,read --name CRM",
            "POST /workspaces/acme/keys {\"name\":\"CRM\",\"scopes\":[\"read\",\"smtp\"]}",
        ),
        ("key list", "GET /workspaces/acme/keys"),
        ("key delete key_1", "DELETE /workspaces/acme/keys/key_1"),
        ("user list", "GET /workspaces/acme/users"),
        ("user get usr_1", "GET /workspaces/acme/users/usr_1"),
        ("user create --data {}", "POST /workspaces/acme/users {}"),
        ("user delete usr_1", "DELETE /workspaces/acme/users/usr_1"),
        ("user update usr_1 --data {}", "PATCH /workspaces/acme/users/usr_1 {}"),
        ("contact list --query email=a+b@x.example", "GET /workspaces/acme/contacts?email=a%2Bb%40x.example"),
        ("contact get con_1", "GET /workspaces/acme/contacts/con_1"),
        ("contact create", "POST /workspaces/acme/contacts stdin"),
        ("contact update con_1 --data {}", "PATCH /workspaces/acme/contacts/con_1 {}"),
        ("contact delete con_1", "DELETE /workspaces/acme/contacts/con_1"),
        ("contact by-external-id 17", "GET /workspaces/acme/contacts/by-external-id/17"),
        ("contact upsert 17 --data {}", "PUT /workspaces/acme/contacts/by-external-id/17 {}"),
        ("contact import", "POST /workspaces/acme/contacts/import stdin lines"),
        ("contact timeline con_1 --limit 2", "GET /workspaces/acme/contacts/con_1/timeline?limit=2"),
        ("account list", "GET /workspaces/acme/accounts"),
        ("account get acc_1", "GET /workspaces/acme/accounts/acc_1"),
        ("account create --data {}", "POST /workspaces/acme/accounts {}"),
        ("account update acc_1 --data {}", "PATCH /workspaces/acme/accounts/acc_1 {}"),
        ("account status acc_1", "GET /workspaces/acme/accounts/acc_1/status"),
        ("account sync acc_1", "POST /workspaces/acme/accounts/acc_1/sync"),
        ("account pause acc_1", "POST /workspaces/acme/accounts/acc_1/pause"),
        ("account resume acc_1", "POST /workspaces/acme/accounts/acc_1/resume"),
        ("account completeness acc_1", "GET /workspaces/acme/accounts/acc_1/completeness"),
        ("user connect-link usr_1", "POST /workspaces/acme/users/usr_1/connect-link maybe stdin"),
        ("user coverage usr_1 --query days=7", "GET /workspaces/acme/users/usr_1/coverage?days=7"),
        ("account errors acc_1", "GET /workspaces/acme/accounts/acc_1/errors"),
        ("account disconnect acc_1", "POST /workspaces/acme/accounts/acc_1/disconnect maybe stdin"),
        ("account disconnect acc_1 --data {}", "POST /workspaces/acme/accounts/acc_1/disconnect {}"),
        ("conversation list", "GET /workspaces/acme/conversations"),
        ("conversation get cnv_1", "GET /workspaces/acme/conversations/cnv_1"),
        ("conversation merge cnv_1 --data {}", "POST /workspaces/acme/conversations/cnv_1/merge {}"),
        ("conversation split cnv_1 --data {}", "POST /workspaces/acme/conversations/cnv_1/split {}"),
        ("conversation undo rep_1", "POST /workspaces/acme/repairs/rep_1/undo"),
        ("conversation messages cnv_1", "GET /workspaces/acme/conversations/cnv_1/messages"),
        ("message get msg_1", "GET /workspaces/acme/messages/msg_1"),
        ("message raw msg_1", "GET /workspaces/acme/messages/msg_1/raw"),
        ("message attachment msg_1 att_1", "GET /workspaces/acme/messages/msg_1/attachments/att_1"),
        ("message send --data {}", "POST /workspaces/acme/messages {}"),
        (
            "event list --cursor c --after evt_1 --types test.ping",
            "GET /workspaces/acme/events?after=evt_1&types=test.ping&cursor=c",
        ),
        ("message disown msg_1", "POST /workspaces/acme/messages/msg_1/disown"),
        ("quarantine list --query state=held", "GET /workspaces/acme/quarantine?state=held"),
        ("quarantine show msg_1", "GET /workspaces/acme/quarantine/msg_1"),
        ("quarantine raw msg_1", "GET /workspaces/acme/quarantine/msg_1/raw"),
        ("quarantine release msg_1", "POST /workspaces/acme/quarantine/msg_1/release maybe stdin"),
        ("quarantine release msg_1 --data {}", "POST /workspaces/acme/quarantine/msg_1/release {}"),
        ("quarantine reject msg_1", "POST /workspaces/acme/quarantine/msg_1/reject"),
        ("user capture-address usr_1", "POST /workspaces/acme/users/usr_1/capture-address maybe stdin"),
        ("event stream --after evt_1", "GET /workspaces/acme/events/stream?after=evt_1"),
        ("webhook list", "GET /workspaces/acme/webhooks"),
        ("webhook get whk_1", "GET /workspaces/acme/webhooks/whk_1"),
        ("webhook create --data {}", "POST /workspaces/acme/webhooks {}"),
        ("webhook update whk_1 --data {}", "PATCH /workspaces/acme/webhooks/whk_1 {}"),
        ("webhook delete whk_1", "DELETE /workspaces/acme/webhooks/whk_1"),
        ("webhook test whk_1", "POST /workspaces/acme/webhooks/whk_1/test"),
        ("webhook replay whk_1 --data {}", "POST /workspaces/acme/webhooks/whk_1/replay {}"),
        ("webhook rotate-secret whk_1", "POST /workspaces/acme/webhooks/whk_1/rotate-secret"),
        ("decision list --query verdict=held", "GET /workspaces/acme/decisions?verdict=held"),
        ("trail list --limit 5", "GET /workspaces/acme/trail?limit=5"),
        ("policy get", "GET /workspaces/acme/policy"),
        ("policy get --user usr_1", "GET /workspaces/acme/users/usr_1/policy"),
        ("policy set --data {}", "PUT /workspaces/acme/policy {}"),
        ("policy set --user usr_1 --data {}", "PUT /workspaces/acme/users/usr_1/policy {}"),
        (
            "policy simulate --account acc_1 --days 7 --preset keap --set match=all --set push=true --against realpad",
            "POST /workspaces/acme/policy/simulate {\"account_id\":\"acc_1\",\"against\":{\"overrides\":{},\"preset\":\"realpad\"},\
             \"days\":7,\"overrides\":{\"match\":\"all\",\"push\":true},\"preset\":\"keap\"}",
        ),
        ("limit get", "GET /workspaces/acme/limits"),
        ("limit get --user usr_1", "GET /workspaces/acme/users/usr_1/limits"),
        ("limit set --data {}", "PUT /workspaces/acme/limits {}"),
        ("limit set --user usr_1 --data {}", "PUT /workspaces/acme/users/usr_1/limits {}"),
        ("limit usage usr_1", "GET /workspaces/acme/users/usr_1/usage"),
        ("smarthost get", "GET /workspaces/acme/smarthost"),
        ("smarthost set --data {}", "PUT /workspaces/acme/smarthost {}"),
        ("smarthost delete", "DELETE /workspaces/acme/smarthost"),
    ];

    fn parse(line: &str) -> (Client, Call) {
        let line = format!("mailweave {line} --url http://gw.example:8080/base/ --workspace acme");
        let cli = Cli::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        call(cli.command).expect("a command of the API's")
    }

    #[test]
    fn every_command_is_one_request() {
        for (line, expect) in COMMANDS {
            let (client, call) = parse(line);
            let url = call.url(&client).unwrap();
            let body = match call.body {
                Body::None => String::new(),
                Body::Given(Kind::Json, text) => format!(" {text}"),
                Body::Stdin(Kind::Json) => " stdin".to_owned(),
                Body::MaybeStdin => " maybe stdin".to_owned(),
                Body::Given(Kind::Lines, _) | Body::Stdin(Kind::Lines) => " stdin lines".to_owned(),
            };
            let text = url.as_str().trim_start_matches("http://gw.example:8080/base/v1");
            assert_eq!(format!("{} {text}{body}", call.method), *expect, "{line}");
        }
    }

    #[test]
    fn every_route_of_the_api_has_a_command() {
        let is_same = |pattern: &str, path: &str| {
            let (pattern, path): (Vec<_>, Vec<_>) = (pattern.split('/').collect(), path.split('/').collect());
            let fits = |(one, other): (&&str, &&str)| one == other || one.starts_with('{');
            pattern.len() == path.len() && pattern.iter().zip(&path).all(fits)
        };
        for route in crate::http::ROUTES {
            let found = COMMANDS.iter().any(|(line, _)| {
                let (client, call) = parse(line);
                let url = call.url(&client).unwrap();
                let path = url.path().trim_start_matches("/base");
                call.method == route.method && is_same(route.path, path)
            });
            assert!(found, "no command does {} {}", route.method, route.path);
        }
    }

    #[test]
    fn a_command_of_a_workspace_needs_one() {
        let cli = Cli::try_parse_from(["mailweave", "contact", "list", "--workspace", ""]).unwrap();
        let (client, call) = call(cli.command).unwrap();
        assert!(call.url(&client).unwrap_err().to_string().contains("--workspace"));
    }

    /// A gateway that gives one answer, and what it was asked.
    async fn answer(status: &str, kind: &str, body: &str) -> (Url, tokio::task::JoinHandle<String>) {
        use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = Url::parse(&format!("http://{}", listener.local_addr().unwrap())).unwrap();
        let answer = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{body}",
            body.len()
        );
        let asked = tokio::spawn(async move {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = Vec::new();
            while !asked.ends_with(b"\r\n\r\n") && !asked.ends_with(b"{\"a\":1}") {
                let mut some = [0; 4096];
                let read = stream.read(&mut some).await.unwrap();
                asked.extend_from_slice(&some[..read]);
            }
            stream.write_all(answer.as_bytes()).await.unwrap();
            String::from_utf8(asked).unwrap()
        });
        (url, asked)
    }

    fn client(url: Url) -> Client {
        Client { workspace: Some("acme".into()), url, api_key: Some("mwk_secret".to_owned().into()) }
    }

    #[tokio::test]
    async fn the_key_and_the_body_are_sent_and_the_answer_is_read() {
        net::install_provider();
        let (url, asked) = answer("201 Created", "application/json", "{\"id\":\"con_1\"}").await;
        let create = Create { data: Some("{\"a\":1}".into()), idempotency_key: Some("k1".into()) };
        let response = send(&client(url), Call::within(&["contacts"]).post(create)).await.unwrap();
        assert_eq!(read(response).await.unwrap(), b"{\"id\":\"con_1\"}");
        let asked = asked.await.unwrap().to_ascii_lowercase();
        for part in
            ["post /v1/workspaces/acme/contacts", "bearer mwk_secret", "idempotency-key: k1", "{\"a\":1}"]
        {
            assert!(asked.contains(part), "{asked}");
        }
    }

    #[tokio::test]
    async fn a_refusal_is_an_error_that_says_why() {
        net::install_provider();
        let (url, _asked) =
            answer("404 Not Found", "application/problem+json", "{\"title\":\"Not here\"}").await;
        let error = send(&client(url), Call::within(&["contacts"])).await.unwrap_err();
        assert_eq!(error.to_string(), "Not here (404)");
    }
}
