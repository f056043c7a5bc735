//! Reads a script, and names line and field of what is wrong with it.
//!
//! Not here: what the steps do (`play`).

use std::{collections::BTreeMap, io, net::SocketAddr, time::Duration};

use serde::{
    Deserialize, Deserializer,
    de::{self, DeserializeOwned},
};
use toml::{Spanned, Value};

use super::{
    Script, ScriptError, User,
    step::{Commands, Deed, Mail, RotationName, Start, Step, Wait, fields},
};
use crate::{
    mail::Address,
    sandbox::{Act, Allowance, Behaviour, Doors, OAuthSettings, Rate, SaveSent},
};

/// Octets of a script; what it delivers from files comes beside.
const SCRIPT_BYTES_MAX: usize = 1024 * 1024;
const STEPS_MAX: usize = 1_000;
/// How often one step is done: far more than any provider does by itself, and all that is delivered stays in memory.
const TIMES_MAX: u32 = 10_000;
/// Between two turns of a step that is done many times, unless it says otherwise.
const EVERY: Duration = Duration::from_secs(1);
/// What every step may say.
const COMMON: [&str; 6] = ["do", "at", "after", "when", "times", "every"];
pub(super) const DEEDS: &str = "deliver, revoke, expire, throttle, drop, uidvalidity, answer, delay, lose, move, delete, label, flag, oauth, say";

type Table = BTreeMap<String, Spanned<Value>>;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: Option<String>,
    #[serde(default)]
    provider: ProviderPart,
    #[serde(default)]
    oauth: OAuthPart,
    #[serde(default)]
    listen: ListenPart,
    users: Vec<UserPart>,
    #[serde(default)]
    routes: BTreeMap<String, Spanned<SocketAddr>>,
    #[serde(default)]
    steps: Vec<Table>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ProviderPart {
    like: Like,
    domains: Vec<String>,
    save_sent: Option<Spanned<String>>,
    rewrite_message_id: Option<bool>,
    any_sender: bool,
    limits: Option<LimitsPart>,
}

#[derive(Default, Clone, Copy, Deserialize)]
#[serde(rename_all = "kebab-case")]
enum Like {
    #[default]
    Any,
    Gmail,
    GoogleWorkspace,
    Microsoft,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct LimitsPart {
    connections: Option<u32>,
    submissions: Option<u32>,
    recipients_per_message: Option<u32>,
    messages: Option<RatePart>,
    recipients: Option<RatePart>,
    download: Option<RatePart>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct RatePart {
    most: u64,
    window: Wait,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct OAuthPart {
    client_id: Option<String>,
    client_secret: Option<String>,
    public: bool,
    redirect_uris: Vec<String>,
    rotation: Option<RotationName>,
    lifetime: Option<Wait>,
    refresh_lifetime: Option<Wait>,
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ListenPart {
    #[serde(deserialize_with = "loopback")]
    imap: Option<SocketAddr>,
    #[serde(deserialize_with = "loopback")]
    submission: Option<SocketAddr>,
    #[serde(deserialize_with = "loopback")]
    mx: Option<SocketAddr>,
    #[serde(deserialize_with = "loopback")]
    oauth: Option<SocketAddr>,
}

/// Passwords are known and anybody may sign in as any user: nobody beyond this machine is to reach it.
fn loopback<'de, D: Deserializer<'de>>(deserializer: D) -> Result<Option<SocketAddr>, D::Error> {
    let address = SocketAddr::deserialize(deserializer)?;
    match address.ip().is_loopback() {
        true => Ok(Some(address)),
        false => Err(de::Error::custom("the sandbox listens on loopback alone, as on \"127.0.0.1:1143\"")),
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct UserPart {
    address: Spanned<Address>,
    #[serde(default = "password")]
    password: String,
}

fn password() -> String {
    "sandbox".to_owned()
}

impl Script {
    /// Reads a script; `file` reads the files it delivers, by the names it gives them.
    ///
    /// # Errors
    /// The first thing that is wrong, with line and field.
    pub fn read(text: &str, file: &dyn Fn(&str) -> io::Result<Vec<u8>>) -> Result<Self, ScriptError> {
        let place = Text(text);
        if text.len() > SCRIPT_BYTES_MAX {
            return Err(place.error(0, None, format!("a script has {SCRIPT_BYTES_MAX} octets at most")));
        }
        let parsed: File = toml::from_str(text).map_err(|error| place.of_toml(&error))?;
        if parsed.steps.len() > STEPS_MAX {
            return Err(place.error(text.len(), None, format!("a script has {STEPS_MAX} steps at most")));
        }
        let mut users: Vec<User> = Vec::new();
        for UserPart { address, password } in parsed.users {
            let (at, address) = (address.span().start, address.into_inner());
            if users.iter().any(|user| user.address == address) {
                return Err(place.error(at, Some("address"), "that user is there already".to_owned()));
            }
            users.push(User { address, password });
        }
        let mut chains: Vec<Vec<Step>> = Vec::new();
        for table in parsed.steps {
            let step = Reader { place, users: &users, file }.step(table)?;
            match chains.last_mut() {
                Some(chain) if matches!(step.start, Start::After(_)) => chain.push(step),
                _ => chains.push(vec![step]),
            }
        }
        let behaviour = behaviour(parsed.provider.like, &parsed.provider, place)?;
        let domains = parsed.provider.domains;
        let (oauth, doors) = (oauth(parsed.oauth), doors(&parsed.listen));
        let title = parsed.title.unwrap_or_else(|| "a script without title".to_owned());
        let routes = routes(parsed.routes, place)?;
        Ok(Self { title, behaviour, domains, oauth, doors, users, routes, chains })
    }
}

/// What is sent in a sandbox stays on this machine: whoever tries something out must not write to strangers.
fn routes(
    given: BTreeMap<String, Spanned<SocketAddr>>,
    place: Text<'_>,
) -> Result<BTreeMap<String, SocketAddr>, ScriptError> {
    let checked = given.into_iter().map(|(domain, to)| match to.get_ref().ip().is_loopback() {
        true => Ok((domain, to.into_inner())),
        false => {
            let text = "mail leads to loopback alone, as to \"127.0.0.1:2525\"";
            Err(place.error(to.span().start, Some(&domain), text.to_owned()))
        }
    });
    checked.collect()
}

fn behaviour(like: Like, part: &ProviderPart, place: Text<'_>) -> Result<Behaviour, ScriptError> {
    let mut behaviour = match like {
        Like::Any => Behaviour::default(),
        Like::Gmail => Behaviour::google(),
        Like::GoogleWorkspace => {
            Behaviour { allowance: Allowance::google_workspace(), ..Behaviour::google() }
        }
        Like::Microsoft => Behaviour::microsoft(),
    };
    if let Some(save_sent) = &part.save_sent {
        behaviour.save_sent = match save_sent.get_ref().as_str() {
            "never" => SaveSent::Never,
            "at_once" => SaveSent::AtOnce,
            wait => SaveSent::After(
                wait.parse::<Wait>()
                    .map_err(|_| {
                        let text = "expected \"never\", \"at_once\" or a length of time such as \"5s\"";
                        place.error(save_sent.span().start, Some("save_sent"), text.to_owned())
                    })?
                    .0,
            ),
        };
    }
    behaviour.rewrite_message_id = part.rewrite_message_id.unwrap_or(behaviour.rewrite_message_id);
    behaviour.any_sender |= part.any_sender;
    if let Some(limits) = &part.limits {
        let rate = |own: &Option<RatePart>, usual: Option<Rate>| {
            own.as_ref().map(|own| Rate::new(own.most, own.window.0)).or(usual)
        };
        let usual = behaviour.allowance;
        behaviour.allowance = Allowance {
            connections: limits.connections.or(usual.connections),
            submissions: limits.submissions.or(usual.submissions),
            recipients_per_message: limits.recipients_per_message.or(usual.recipients_per_message),
            messages: rate(&limits.messages, usual.messages),
            recipients: rate(&limits.recipients, usual.recipients),
            download: rate(&limits.download, usual.download),
        };
    }
    Ok(behaviour)
}

fn oauth(part: OAuthPart) -> OAuthSettings {
    let usual = OAuthSettings::default();
    OAuthSettings {
        client_id: part.client_id.unwrap_or(usual.client_id),
        client_secret: match part.public {
            true => None,
            false => part.client_secret.map(Into::into).or(usual.client_secret),
        },
        redirect_uris: part.redirect_uris,
        rotation: part.rotation.map_or(usual.rotation, Into::into),
        lifetime: part.lifetime.map_or(usual.lifetime, |wait| wait.0),
        refresh_lifetime: part.refresh_lifetime.map(|wait| wait.0),
    }
}

fn doors(part: &ListenPart) -> Doors {
    let usual = Doors::default();
    Doors {
        imap: part.imap.unwrap_or(usual.imap),
        submission: part.submission.unwrap_or(usual.submission),
        mx: part.mx.unwrap_or(usual.mx),
        oauth: part.oauth.unwrap_or(usual.oauth),
    }
}

/// The text of a script, for finding lines in it.
#[derive(Clone, Copy)]
struct Text<'a>(&'a str);

impl Text<'_> {
    fn line(self, offset: usize) -> usize {
        self.0.bytes().take(offset).filter(|byte| *byte == b'\n').count() + 1
    }

    fn error(self, offset: usize, field: Option<&str>, text: String) -> ScriptError {
        ScriptError { line: self.line(offset), field: field.map(str::to_owned), text }
    }

    /// An error of the parser's; the field is what stands left of the `=` on that line.
    fn of_toml(self, error: &toml::de::Error) -> ScriptError {
        let offset = error.span().map_or(0, |span| span.start);
        let line = self.line(offset);
        let field =
            self.0.lines().nth(line - 1).and_then(|line| line.split_once('=')).map(|(name, _)| name.trim());
        let field = field.filter(|name| !name.is_empty() && !name.contains(['[', '#']));
        self.error(offset, field, error.message().trim().replace('\n', " "))
    }
}

/// Reads steps.
struct Reader<'a> {
    place: Text<'a>,
    users: &'a [User],
    file: &'a dyn Fn(&str) -> io::Result<Vec<u8>>,
}

impl Reader<'_> {
    fn step(&self, mut table: Table) -> Result<Step, ScriptError> {
        let begins = table.values().map(|value| value.span().start).min().unwrap_or(0);
        let rest = table.split_off_fields(&COMMON);
        let common = Fields { table, begins, place: self.place };
        let fields = Fields { table: rest, begins, place: self.place };
        let kind: String = common.need("do")?;
        let deed = self.deed(&kind, &fields, &common)?;
        let start = self.start(&common)?;
        let times = common.get("times")?.unwrap_or(1);
        if times > TIMES_MAX {
            return Err(common.wrong("times", &format!("a step is done {TIMES_MAX} times at most")));
        }
        let every = common.get::<Wait>("every")?.map_or(EVERY, |wait| wait.0);
        Ok(Step { line: self.place.line(begins), start, times, every, deed })
    }

    fn start(&self, common: &Fields<'_>) -> Result<Start, ScriptError> {
        let at = common.get::<Wait>("at")?.map(|wait| Start::At(wait.0));
        let after = common.get::<Wait>("after")?.map(|wait| Start::After(wait.0));
        let when = common.get::<Commands>("when")?;
        if let Some(user) = when.as_ref().and_then(|commands| commands.user.as_ref()) {
            self.known(user, common, "when")?;
        }
        let when = when.map(|commands| Start::When(commands.trigger(), commands.count.max(1)));
        let mut starts = [at, after, when].into_iter().flatten();
        match (starts.next(), starts.next()) {
            (_, Some(_)) => Err(common.wrong("do", "a step has one of at, after and when")),
            (Some(start), None) => Ok(start),
            (None, None) => Ok(Start::After(Duration::ZERO)),
        }
    }

    fn deed(&self, kind: &str, own: &Fields<'_>, common: &Fields<'_>) -> Result<Deed, ScriptError> {
        let user = |user: Address| self.known(&user, own, "user").map(|()| user);
        Ok(match kind {
            "deliver" => self.deliver(own)?,
            "revoke" => Deed::Revoke { user: user(own.all::<fields::Somebody>()?.user)? },
            "expire" => Deed::Expire { user: user(own.all::<fields::Somebody>()?.user)? },
            "throttle" => {
                let fields::Throttle { user: whom, long } = own.all()?;
                Deed::Throttle { user: user(whom)?, long: long.0 }
            }
            "drop" => {
                let fields::Drop { user: whom, how } = own.all()?;
                Deed::Drop { user: user(whom)?, how: how.into() }
            }
            "uidvalidity" => {
                let fields::InMailbox { user: whom, mailbox } = own.all()?;
                Deed::UidValidity { user: user(whom)?, mailbox }
            }
            "answer" | "delay" | "lose" => self.strike(kind, own)?,
            "move" => {
                let fields::Move { user: whom, mailbox, message, to } = own.all()?;
                Deed::Move { user: user(whom)?, mailbox, message, to }
            }
            "delete" => {
                let fields::Delete { user: whom, mailbox, message } = own.all()?;
                Deed::Delete { user: user(whom)?, mailbox, message }
            }
            "label" | "flag" => {
                let fields::Mark { user: whom, mailbox, message, add, remove } = own.all()?;
                if add.is_empty() && remove.is_empty() {
                    return Err(own.wrong("add", "there is nothing to add or remove"));
                }
                let user = user(whom)?;
                match kind {
                    "label" => Deed::Label { user, mailbox, message, add, remove },
                    _ => Deed::Flag { user, mailbox, message, add, remove },
                }
            }
            "oauth" => {
                let fields::OAuth { rotation, lifetime } = own.all()?;
                Deed::OAuth { rotation: rotation.map(Into::into), lifetime: lifetime.map(|wait| wait.0) }
            }
            "say" => Deed::Say { text: own.all::<fields::Say>()?.text },
            _ => return Err(common.wrong("do", &format!("\"{kind}\" is no step; there are {DEEDS}"))),
        })
    }

    fn deliver(&self, own: &Fields<'_>) -> Result<Deed, ScriptError> {
        let given: fields::Deliver = own.all()?;
        self.known(&given.user, own, "user")?;
        let mail = match &given.file {
            Some(name) => {
                let made = [&given.from, &given.subject, &given.text, &given.message_id, &given.in_reply_to];
                if made.into_iter().any(Option::is_some) {
                    return Err(own.wrong("file", "a file is delivered as it is, without other fields"));
                }
                let read = (self.file)(name);
                Mail::File(read.map_err(|error| own.wrong("file", &format!("{name}: {error}")))?.into())
            }
            None => Mail::Made {
                from: given.from.unwrap_or_else(|| "Bob Ray <bob@prospects.example>".to_owned()),
                subject: given.subject.unwrap_or_else(|| "Hello".to_owned()),
                text: given.text.unwrap_or_else(|| "Hello.".to_owned()),
                message_id: given.message_id,
                in_reply_to: given.in_reply_to,
            },
        };
        Ok(Deed::Deliver { user: given.user, mailbox: given.mailbox, mail })
    }

    fn strike(&self, kind: &str, own: &Fields<'_>) -> Result<Deed, ScriptError> {
        let given: fields::Strike = own.all()?;
        if let Some(user) = &given.user {
            self.known(user, own, "user")?;
        }
        let act = match (kind, &given.with, given.long) {
            ("answer", Some(with), None) => Act::Answer(with.clone()),
            ("answer", _, _) => {
                return Err(own.wrong("with", "an answer says what it answers with, and no time"));
            }
            ("delay", None, Some(long)) => Act::Delay(long.0),
            ("delay", _, _) => return Err(own.wrong("for", "a delay says for how long, and no text")),
            (_, None, None) => Act::DropAfter(0),
            (_, _, _) => return Err(own.wrong("with", "what is lost has neither text nor time")),
        };
        Ok(Deed::Arm { trigger: given.trigger(), act })
    }

    fn known(&self, user: &Address, fields: &Fields<'_>, field: &str) -> Result<(), ScriptError> {
        match self.users.iter().any(|known| known.address == *user) {
            true => Ok(()),
            false => Err(fields.wrong(field, &format!("{user} is none of the users"))),
        }
    }
}

trait SplitOff {
    fn split_off_fields(&mut self, kept: &[&str]) -> Self;
}

impl SplitOff for Table {
    /// Keeps these and returns the others.
    fn split_off_fields(&mut self, kept: &[&str]) -> Self {
        let all = std::mem::take(self);
        let (own, others) = all.into_iter().partition(|(name, _)| kept.contains(&name.as_str()));
        *self = own;
        others
    }
}

/// Fields of a step, with where each stands.
struct Fields<'a> {
    table: Table,
    begins: usize,
    place: Text<'a>,
}

impl Fields<'_> {
    fn wrong(&self, field: &str, text: &str) -> ScriptError {
        let at = self.table.get(field).map_or(self.begins, |value| value.span().start);
        self.place.error(at, Some(field), text.to_owned())
    }

    fn get<T: DeserializeOwned>(&self, field: &str) -> Result<Option<T>, ScriptError> {
        let Some(value) = self.table.get(field) else { return Ok(None) };
        let read = value.get_ref().clone().try_into();
        read.map(Some).map_err(|error: toml::de::Error| self.wrong(field, error.message().trim()))
    }

    fn need<T: DeserializeOwned>(&self, field: &str) -> Result<T, ScriptError> {
        self.get(field)?.ok_or_else(|| self.wrong(field, "it is missing"))
    }

    /// All of them as one.
    fn all<T: DeserializeOwned>(&self) -> Result<T, ScriptError> {
        let plain = self.table.iter().map(|(name, value)| (name.clone(), value.get_ref().clone()));
        let table = Value::Table(plain.collect());
        serde_path_to_error::deserialize(table).map_err(|error| {
            let path = error.path().to_string();
            let text = error.inner().message().trim().to_owned();
            // What is missing or not known is named by the text alone.
            let named = text.split('`').nth(1).unwrap_or_default().to_owned();
            let field = path.split(['.', '[']).next().filter(|field| self.table.contains_key(*field));
            self.wrong(field.unwrap_or(&named), &text)
        })
    }
}
