//! The command line: what can be asked for, as types.
//!
//! Not here: doing it. `main` takes these apart and calls `app` or the API's client.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use secrecy::SecretString;
use url::Url;

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
    /// Verify configuration, store, certificates, DNS, ports and providers; a line per finding
    Check(ConfigArg),
    /// Check the stored data against the invariants; a line per invariant
    Audit(ConfigArg),
    /// Ask a running gateway whether it is well; exit 1 if not
    Health(Health),
    /// API keys
    Key(KeyCommand),
    /// Workspaces: the tenants
    Workspace(Resource),
    /// Users: people who work in a workspace
    User(ScopedResource),
    /// Contacts: people the CRM knows
    Contact(ScopedResource),
    /// Accounts: the users' own email accounts
    Account(ScopedResource),
    /// Conversations: messages that belong together
    Conversation(ScopedResource),
    /// Messages
    Message(ScopedResource),
    /// Events: the journal of what happened
    Event(ScopedResource),
    /// Webhooks: where events are posted to
    Webhook(ScopedResource),
    /// Decisions: why a message was synced, skipped, deferred or held
    Decision(ScopedResource),
    /// The smarthost: the workspace's own SMTP provider
    Smarthost(ScopedResource),
}

#[derive(Debug, Args)]
pub struct ConfigArg {
    /// The configuration file [default: config/mailweave.toml, if there is one]
    // No clap default: a file asked for must exist, the default one need not.
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

#[derive(Debug, Args)]
pub struct Health {
    /// Where its API answers
    #[arg(long, env = "MAILWEAVE_URL", default_value = DEFAULT_URL)]
    pub url: Url,
}

/// Where the API listens unless `http.listen` says otherwise.
const DEFAULT_URL: &str = "http://127.0.0.1:8080";

#[derive(Debug, Args)]
pub struct KeyCommand {
    #[command(subcommand)]
    pub verb: KeyVerb,
}

#[derive(Debug, Subcommand)]
pub enum KeyVerb {
    /// Mint an API key in the store itself, and print it once
    Create(KeyCreate),
}

#[derive(Debug, Args)]
pub struct KeyCreate {
    /// The workspace that the key is for
    #[arg(long, value_name = "SLUG")]
    pub workspace: String,
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

impl Scope {
    /// As the API spells it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Send => "send",
            Self::Smtp => "smtp",
            Self::Admin => "admin",
        }
    }
}

/// Something of the API's that belongs to no workspace.
#[derive(Debug, Args)]
pub struct Resource {
    #[command(subcommand)]
    pub verb: Verb,
}

/// Something of the API's within a workspace.
#[derive(Debug, Args)]
pub struct ScopedResource {
    /// The workspace, by id or slug
    #[arg(long, value_name = "WORKSPACE", global = true)]
    pub workspace: Option<String>,
    #[command(subcommand)]
    pub verb: Verb,
}

#[derive(Debug, Subcommand)]
pub enum Verb {
    /// List them, a JSON object a line
    List(List),
    /// Show one
    Get(One),
    /// Make one from a JSON object
    Create(Create),
    /// Remove one
    Delete(One),
}

#[derive(Debug, Args)]
pub struct List {
    /// The answer holds at most this many [default: all, page by page]
    #[arg(long, value_parser = clap::value_parser!(u32).range(1..))]
    pub limit: Option<u32>,
    /// A filter of the API's, such as email=ann@example.com; may be given several times
    #[arg(long = "filter", value_name = "NAME=VALUE", value_parser = name_and_value)]
    pub filters: Vec<(String, String)>,
    #[command(flatten)]
    pub client: Client,
}

#[derive(Debug, Args)]
pub struct One {
    /// Its id; a workspace's may be its slug. The smarthost needs none: there is one
    pub id: Option<String>,
    #[command(flatten)]
    pub client: Client,
}

#[derive(Debug, Args)]
pub struct Create {
    /// The JSON object; read from stdin when it is not given
    #[arg(long, value_name = "JSON")]
    pub data: Option<String>,
    /// Sent as Idempotency-Key: the same key never makes two
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    #[command(flatten)]
    pub client: Client,
}

/// How to reach the API.
#[derive(Debug, Args)]
pub struct Client {
    /// Where the API answers
    #[arg(long, env = "MAILWEAVE_URL", default_value = DEFAULT_URL)]
    pub url: Url,
    /// The API key. Better in the environment: arguments are seen by everyone on the machine
    #[arg(long, env = "MAILWEAVE_API_KEY", hide_env_values = true, value_name = "KEY")]
    pub api_key: Option<SecretString>,
}

fn name_and_value(text: &str) -> Result<(String, String), &'static str> {
    let (name, value) = text.split_once('=').ok_or("a filter is NAME=VALUE")?;
    if name.is_empty() { Err("a filter is NAME=VALUE") } else { Ok((name.to_owned(), value.to_owned())) }
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
            let Ok(Cli { command: Command::Key(KeyCommand { verb: KeyVerb::Create(create) }) }) =
                parse(&line)
            else {
                panic!("{line}")
            };
            assert_eq!((create.workspace.as_str(), create.scopes), ("acme", vec![Scope::Read, Scope::Send]));
        }
        assert!(parse("mailweave key create --workspace acme").is_err());
        assert!(parse("mailweave key create --workspace acme --scope root").is_err());
    }

    #[test]
    fn a_workspace_may_stand_before_or_after_the_verb() {
        for line in [
            "mailweave contact --workspace acme list",
            "mailweave contact list --workspace acme --filter email=a@b.example --limit 5",
        ] {
            let Ok(Cli { command: Command::Contact(resource) }) = parse(line) else { panic!("{line}") };
            assert_eq!(resource.workspace.as_deref(), Some("acme"));
            assert!(matches!(resource.verb, Verb::List(_)));
        }
        assert!(parse("mailweave contact list --filter email").is_err());
        assert!(parse("mailweave contact list --limit 0").is_err());
    }

    #[test]
    fn an_api_key_is_not_shown() {
        let cli = parse("mailweave workspace get acme --api-key very-secret").unwrap();
        assert!(!format!("{cli:?}").contains("very-secret"));
    }
}
