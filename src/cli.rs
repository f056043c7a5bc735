//! The command line: what can be asked for, as types.
//!
//! Not here: doing it. `main` takes these apart and calls `app` or the API's client.

mod quarantine;
mod trail;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;
use url::Url;

pub use quarantine::QuarantineVerb;
pub use trail::TrailVerb;

/// A gateway between a CRM, its users' own mailboxes and the outside world.
#[derive(Debug, Parser)]
#[command(name = "mailweave", version, propagate_version = true, disable_help_subcommand = true)]
pub struct Cli {
    #[command(subcommand)]
    pub command: Command,
}

#[derive(Debug, Subcommand)]
pub enum Command {
    /// Run the gateway until SIGTERM
    Serve(ConfigArg),
    /// Run the whole gateway on loopback with a built-in mail provider and a story already playing
    Demo,
    /// Run a mail provider in memory on loopback that behaves as a script says, to try an integration against
    Sandbox(Sandbox),
    /// Verify configuration, store, certificates, DNS, ports and providers; a line per finding
    Check(ConfigArg),
    /// Check the stored data against the invariants; a line per invariant
    Audit(ConfigArg),
    /// Ask a running gateway whether it is well; exit 1 if not
    Health(Health),
    /// The master key: what seals all that is stored
    #[command(visible_alias = "keys")]
    MasterKey {
        #[command(subcommand)]
        verb: MasterKeyVerb,
    },
    /// API keys
    Key(Noun<KeyVerb>),
    /// Workspaces: the tenants
    Workspace(Noun<WorkspaceVerb>),
    /// Users: people who work in a workspace
    User(Noun<UserVerb>),
    /// Contacts: people the CRM knows
    Contact(Noun<ContactVerb>),
    /// Accounts: the users' own email accounts
    Account(Noun<AccountVerb>),
    /// Conversations: messages that belong together
    Conversation(Noun<ConversationVerb>),
    /// Messages
    Message(Noun<MessageVerb>),
    /// Quarantine: mail that is kept aside until somebody decides
    Quarantine(Noun<QuarantineVerb>),
    /// Events: the journal of what happened
    Event(Noun<EventVerb>),
    /// Webhooks: where events are posted to
    Webhook(Noun<WebhookVerb>),
    /// Limits: how much a user may have synced and send, and how many accounts there may be
    Limit(Noun<LimitVerb>),
    /// Why a mail is in the CRM or not: by its Message-ID, an address on it, or a msg_… id
    ///
    /// Exits 0 when something was decided, 1 when nothing is known or the gateway could not be asked, 2 when the command
    /// line is wrong.
    Why(Why),
    /// Decisions: why a message was synced, skipped, deferred or held
    Decision(Noun<DecisionVerb>),
    /// The trail: who changed keys, roles, policies and limits, and decided about mail and accounts
    Trail(Noun<TrailVerb>),
    /// The policy: what is synced and how, of the workspace or of a user
    Policy(Noun<PolicyVerb>),
    /// The smarthost: the workspace's own SMTP provider
    Smarthost(Noun<SmarthostVerb>),
}

#[derive(Debug, Args)]
pub struct ConfigArg {
    /// The configuration file [default: config/mailweave.toml, if there is one]
    // No clap default: a file asked for must exist, the default one need not.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Sandbox {
    /// The script: a file, or one that comes with the program: gmail, gmail-limits, microsoft, microsoft-throttling, revoked,
    /// rough-connections
    #[arg(long, value_name = "FILE")]
    pub script: PathBuf,
    /// Read the script, say what is wrong with it, and do nothing else
    #[arg(long)]
    pub check: bool,
}

#[derive(Debug, Args)]
pub struct Health {
    /// Where its API answers
    #[arg(long, env = "MAILWEAVE_URL", default_value = DEFAULT_URL)]
    pub url: Url,
}

/// Where the API listens unless `http.listen` says otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

/// Something of the API's, and what is to be done with it.
#[derive(Debug, Args)]
pub struct Noun<V: Subcommand> {
    #[command(flatten)]
    pub client: Client,
    #[command(subcommand)]
    pub verb: V,
}

/// How to reach the API, and where in it.
#[derive(Debug, Args)]
pub struct Client {
    /// The workspace, by id or slug
    #[arg(long, env = "MAILWEAVE_WORKSPACE", value_name = "WORKSPACE", global = true)]
    pub workspace: Option<String>,
    /// Where the API answers
    #[arg(long, env = "MAILWEAVE_URL", default_value = DEFAULT_URL, global = true)]
    pub url: Url,
    /// The API key. Better in the environment: arguments are seen by everyone on the machine
    #[arg(long, env = "MAILWEAVE_API_KEY", hide_env_values = true, value_name = "KEY", global = true)]
    pub api_key: Option<SecretString>,
}

#[derive(Debug, Subcommand)]
pub enum MasterKeyVerb {
    /// Put another in its place; the gateway must be stopped. Interrupted, it is finished by running it again
    Rotate(ConfigArg),
}

#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Mint an API key and print its secret once: in the store itself, or with an API key through the API
    Create(KeyCreate),
    /// List the keys, without their secrets
    List(List),
    /// Revoke a key
    Delete(One),
}

#[derive(Debug, Subcommand)]
pub enum WorkspaceVerb {
    /// List the workspaces this key may see, newest first
    List(List),
    /// Show one, by id or slug
    Get(One),
    /// Create a workspace
    Create(Create),
    /// Change a workspace
    Update(Update),
    /// Erase a workspace and everything in it
    Delete(One),
}

#[derive(Debug, Subcommand)]
pub enum UserVerb {
    /// List the users
    List(List),
    /// Show a user
    Get(One),
    /// Add a user
    Create(Create),
    /// Change a user
    Update(Update),
    /// Remove a user whose accounts are disconnected
    Delete(One),
    /// How much of what a user writes to contacts is in the CRM: --query days=30
    Coverage(Within),
    /// Give a user a new capture address: --data '{"overlap_days":14}', or nothing and the old one ends at once
    CaptureAddress(Update),
    /// Make a page at which a user connects an account himself: --data '{"provider":"google"}', or nothing and he chooses
    ConnectLink(Update),
}

#[derive(Debug, Subcommand)]
pub enum ContactVerb {
    /// List the contacts
    List(List),
    /// Show a contact
    Get(One),
    /// Add a contact
    Create(Create),
    /// Change a contact
    Update(Update),
    /// Remove a contact
    Delete(One),
    /// Show the contact that has this id in the CRM
    ByExternalId(One),
    /// Add or replace the contact that has this id in the CRM
    Upsert(Update),
    /// Add or replace many contacts: a JSON object a line
    Import(Create),
    /// The messages that concern a contact, newest first
    Timeline(Within),
}

#[derive(Debug, Subcommand)]
pub enum AccountVerb {
    /// List the accounts, each with its status
    List(List),
    /// Show an account
    Get(One),
    /// Connect an account
    Create(Create),
    /// Change address, servers or credentials without disconnecting
    Update(Update),
    /// How an account is doing
    Status(One),
    /// Look for new mail now, and compare mailboxes with the server
    Sync(One),
    /// Whether an account's mailboxes have been read without a gap
    Completeness(One),
    /// The error log of an account
    Errors(Within),
    /// Read and send nothing until it is resumed
    Pause(One),
    /// Go on with an account that was paused, or stopped because it had failed for too long
    Resume(One),
    /// Disconnect an account, and keep or erase what it brought: --data '{"history":"keep"}', or nothing where policy says
    Disconnect(Update),
}

#[derive(Debug, Subcommand)]
pub enum ConversationVerb {
    /// List the conversations, latest message first
    List(List),
    /// Show a conversation
    Get(One),
    /// The messages of a conversation, newest first
    Messages(Within),
    /// Merge another conversation with this one: --data '{"conversation_id":"cnv_…"}'
    Merge(Update),
    /// Put messages into a conversation of their own: --data '{"message_ids":["msg_…"]}'
    Split(Update),
    /// Undo a merge or a split, by the rep_… id in its answer
    Undo(One),
}

#[derive(Debug, Subcommand)]
pub enum MessageVerb {
    /// Show a message
    Get(One),
    /// The message as it came, byte by byte
    Raw(One),
    /// The content of an attachment
    Attachment(Attachment),
    /// Send a message
    Send(Create),
    /// Say that a message filed with a doubt left is not the user's: it is deleted with what came of it
    Disown(One),
}

#[derive(Debug, Subcommand)]
pub enum EventVerb {
    /// List events, oldest first
    List(Events),
    /// Print events as they happen, as server-sent events, until Ctrl-C
    Stream(Follow),
}

#[derive(Debug, Subcommand)]
pub enum WebhookVerb {
    /// List the endpoints
    List(List),
    /// Show an endpoint
    Get(One),
    /// Add an endpoint; its secret is in the answer
    Create(Create),
    /// Change an endpoint
    Update(Update),
    /// Remove an endpoint
    Delete(One),
    /// Post a test.ping to an endpoint
    Test(One),
    /// Post events of the past once more
    Replay(Update),
    /// Give an endpoint a new secret; the old one holds for another day
    RotateSecret(One),
}

#[derive(Debug, Subcommand)]
pub enum LimitVerb {
    /// Show the limits that hold, of the workspace or a user, with where each comes from
    Get(OfUser),
    /// Set them, null for none: --data '{"sent_per_day":500}'
    Set(LimitSet),
    /// How much of his limits a user has used
    Usage(One),
}

#[derive(Debug, Subcommand)]
pub enum DecisionVerb {
    /// List decisions, newest first: --query rfc822_message_id=…, own_message_id=…, address=…, account_id=…, verdict=…
    List(List),
}

#[derive(Debug, Subcommand)]
pub enum PolicyVerb {
    /// Show the policy, with where each value comes from
    Get(Whose),
    /// Choose it: a preset, and settings that differ from it
    Set(PolicySet),
    /// What another policy would have made of an account's last days, beside the one in force. Nothing is stored
    Simulate(Simulate),
}

#[derive(Debug, Args)]
pub struct Simulate {
    /// The account's id
    #[arg(long, value_name = "ID")]
    pub account: String,
    /// How many days back
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u16).range(1..=90))]
    pub days: u16,
    /// The preset
    #[arg(long)]
    pub preset: String,
    /// A setting that differs from it, such as match=all; lists and tables as JSON; may be given several times
    #[arg(long = "set", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub settings: Vec<(String, String)>,
    /// Another preset to compare with, in place of the policy in force
    #[arg(long, value_name = "PRESET")]
    pub against: Option<String>,
    /// A setting that differs from that one
    #[arg(long = "against-set", value_name = "NAME=VALUE", value_parser = name_and_value, requires = "against")]
    pub against_settings: Vec<(String, String)>,
    /// Print the API's answer as it is
    #[arg(long)]
    pub json: bool,
}

#[derive(Debug, Args)]
pub struct PolicySet {
    #[command(flatten)]
    pub whose: Whose,
    #[command(flatten)]
    pub body: Create,
}

/// Of the workspace, unless a user is named.
#[derive(Debug, Args)]
pub struct Whose {
    /// The user's id
    #[arg(long, value_name = "ID")]
    pub user: Option<String>,
}

#[derive(Debug, Subcommand)]
pub enum SmarthostVerb {
    /// Show the workspace's smarthost
    Get,
    /// Set it
    Set(Create),
    /// Remove it
    Delete,
}

#[derive(Debug, Args)]
pub struct KeyCreate {
    /// What the key may do; may be given several times
    #[arg(long = "scope", value_name = "SCOPE", required = true, num_args = 1.., value_delimiter = ',')]
    pub scopes: Vec<Scope>,
    /// What the key is called in lists
    #[arg(long, default_value = "command line")]
    pub name: String,
    #[command(flatten)]
    pub config: ConfigArg,
}

/// What an API key may do.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Scope {
    Read,
    Write,
    Send,
    Smtp,
    Admin,
}

/// What was decided about a mail.
#[derive(Debug, Args)]
pub struct Why {
    #[command(flatten)]
    pub client: Client,
    /// A Message-ID, an address, or a msg_… id
    #[arg(value_name = "MESSAGE-ID|ADDRESS")]
    pub about: String,
    /// Print the API's answer as it is
    #[arg(long)]
    pub json: bool,
    /// Decisions at most, newest first
    #[arg(long, default_value_t = 20, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: u32,
}

/// One page of a list.
#[derive(Debug, Default, Args)]
pub struct List {
    /// Items in the answer at most
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..=200))]
    pub limit: Option<u32>,
    /// Where to go on: the next_cursor of the page before
    #[arg(long)]
    pub cursor: Option<String>,
    /// A filter of the API's, such as email=ann@example.com; may be given several times
    #[arg(long = "query", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub filters: Vec<(String, String)>,
}

/// Which events.
#[derive(Debug, Args)]
pub struct Follow {
    /// Only events after the one with this id
    #[arg(long, value_name = "EVENT")]
    pub after: Option<String>,
    /// Only these types; commas divide
    #[arg(long)]
    pub types: Option<String>,
}

#[derive(Debug, Args)]
pub struct Events {
    #[command(flatten)]
    pub which: Follow,
    #[command(flatten)]
    pub list: List,
}

#[derive(Debug, Args)]
pub struct Attachment {
    /// The message's id
    pub id: String,
    /// The attachment's id
    pub attachment: String,
}

#[derive(Debug, Args)]
pub struct One {
    /// Its id
    pub id: String,
}

/// Of the workspace, or of one of its users.
#[derive(Debug, Args)]
pub struct OfUser {
    /// The user's id
    #[arg(long, value_name = "USER")]
    pub user: Option<String>,
}

#[derive(Debug, Args)]
pub struct LimitSet {
    #[command(flatten)]
    pub of: OfUser,
    #[command(flatten)]
    pub body: Create,
}

/// A list that belongs to one thing.
#[derive(Debug, Args)]
pub struct Within {
    /// Its id
    pub id: String,
    #[command(flatten)]
    pub list: List,
}

#[derive(Debug, Args)]
pub struct Create {
    /// The JSON object; read from stdin when it is not given
    #[arg(long, value_name = "JSON")]
    pub data: Option<String>,
    /// Sent as Idempotency-Key: the same key never makes two
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
}

#[derive(Debug, Args)]
pub struct Update {
    /// Its id
    pub id: String,
    #[command(flatten)]
    pub body: Create,
}

fn name_and_value(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("it is written NAME=VALUE")?;
    if name.is_empty() { Err("it is written NAME=VALUE") } else { Ok((name.to_owned(), value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    fn parse(line: &str) -> Result<Cli, clap::Error> {
        Cli::try_parse_from(line.split(' '))
    }

    #[test]
    fn the_definition_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_config_file_may_be_named_and_need_not() {
        for (line, expect) in [("mailweave serve", None), ("mailweave serve --config a.toml", Some("a.toml"))]
        {
            let Ok(Cli { command: Command::Serve(arg) }) = parse(line) else { panic!("{line}") };
            assert_eq!(arg.config, expect.map(PathBuf::from));
        }
    }

    #[test]
    fn scopes_are_given_together_or_one_by_one() {
        for scopes in ["--scope read send", "--scope read,send", "--scope read --scope send"] {
            let line = format!("mailweave key create --workspace acme {scopes}");
            let Ok(Cli { command: Command::Key(Noun { client, verb: KeyVerb::Create(create) }) }) =
                parse(&line)
            else {
                panic!("{line}")
            };
            assert_eq!(
                (client.workspace.as_deref(), create.scopes),
                (Some("acme"), vec![Scope::Read, Scope::Send])
            );
        }
        assert!(parse("mailweave key create --workspace acme").is_err());
        assert!(parse("mailweave key create --workspace acme --scope root").is_err());
    }

    #[test]
    fn a_workspace_may_stand_before_or_after_the_verb() {
        for line in [
            "mailweave contact --workspace acme list",
            "mailweave contact list --workspace acme --query email=a@b.example --limit 5",
        ] {
            let Ok(Cli { command: Command::Contact(noun) }) = parse(line) else { panic!("{line}") };
            assert_eq!(noun.client.workspace.as_deref(), Some("acme"));
            assert!(matches!(noun.verb, ContactVerb::List(_)));
        }
        for line in ["list --query email", "list --limit 0", "list --limit 201", "get", "messages x"] {
            assert!(parse(&format!("mailweave contact {line}")).is_err(), "{line}");
        }
    }

    #[test]
    fn why_tells_its_exit_codes() {
        let Ok(Cli { command: Command::Why(why) }) = parse("mailweave why <1@x.example> --workspace acme")
        else {
            panic!("why")
        };
        assert_eq!((why.about.as_str(), why.json, why.limit), ("<1@x.example>", false, 20));
        let help = Cli::command().find_subcommand_mut("why").unwrap().render_long_help().to_string();
        assert!(help.contains("Exits 0"), "{help}");
    }

    #[test]
    fn an_api_key_is_not_shown() {
        let cli = parse("mailweave workspace get acme --api-key very-secret").unwrap();
        assert!(!format!("{cli:?}").contains("very-secret"));
    }
}
