//! Whether the users' providers and the smarthosts can be reached from this machine.
//!
//! Not here: logging in. A login that fails is the account's own trouble, which its error log tells.

use std::collections::BTreeMap;

use futures_util::{StreamExt as _, stream};

use super::{Findings, chain};
use crate::{
    account::{Protocol, ProviderDialer},
    core::{
        account::{Endpoint, Security},
        ids::{Id as _, WorkspaceId},
    },
    net::DialError,
    store::{AccountFilter, Error, Page, PageKey, Store},
};

/// Servers that are dialled: most accounts are at a few providers, and nobody reads more lines.
const SERVERS_MAX: usize = 200;
/// Dialled at the same time: together they take hardly longer than the slowest.
const AT_ONCE: usize = 20;
/// Accounts read at a time.
const ACCOUNTS_EACH: u32 = 200;

/// Every server that accounts and smarthosts name, each once, by how it is told.
#[derive(Debug, Default)]
pub(super) struct Servers(BTreeMap<String, (Protocol, Endpoint)>);

impl Servers {
    fn add(&mut self, protocol: Protocol, endpoint: Endpoint) {
        let by = match endpoint.security {
            Security::Tls => "TLS",
            Security::Starttls => "STARTTLS",
            Security::None => "no TLS",
        };
        let name = if protocol == Protocol::Imap { "IMAP" } else { "SMTP" };
        if self.0.len() < SERVERS_MAX {
            let told = format!("{name} {}:{} ({by})", endpoint.host, endpoint.port);
            self.0.insert(told, (protocol, endpoint));
        }
    }

    /// Those of one workspace.
    pub(super) async fn add_workspace(&mut self, store: &Store, id: WorkspaceId) -> Result<(), Error> {
        let mut session = store.read(id).await?;
        if let Some(smarthost) = session.smarthost().await? {
            self.add(Protocol::Smtp, smarthost.endpoint);
        }
        let mut after = None;
        loop {
            let filter = AccountFilter { user: None, state: None };
            let accounts = session.accounts(&Page::new(ACCOUNTS_EACH, after), &filter).await?;
            let Some(last) = accounts.last() else { return Ok(()) };
            after = Some(PageKey { at: last.connected_at, id: last.id.uuid() });
            for account in accounts.into_iter().filter(|account| account.status.state.is_worked()) {
                self.add(Protocol::Imap, account.settings.imap);
                self.add(Protocol::Smtp, account.settings.smtp);
            }
        }
    }

    /// Dials each, and says which answer.
    pub(super) async fn look(&self, dialer: &ProviderDialer, findings: &mut Findings) {
        let dialled = stream::iter(&self.0)
            .map(async |(told, (protocol, endpoint))| (told, dialer.reach(endpoint, *protocol).await));
        let mut answers: Vec<_> = dialled.buffer_unordered(AT_ONCE).collect().await;
        answers.sort_by_key(|(told, _)| *told);
        for (told, answer) in answers {
            match answer {
                Ok(()) => findings.ok("provider", format!("{told} answers")),
                Err(error) => {
                    findings.warning("provider", format!("{told}: {}; {}", chain(&error), advice(&error)));
                }
            }
        }
    }
}

fn advice(error: &DialError) -> &'static str {
    match error {
        DialError::Resolve(_) => "see whether the name is right, and dns.servers",
        DialError::Forbidden | DialError::Port => "add the range to egress.allow if it is one of yours",
        DialError::Timeout | DialError::Connect(_) => {
            "see whether a firewall lets this machine out to that port"
        }
        DialError::Tls(_) | DialError::Name => {
            "see whether it speaks TLS there; the certificate of a private authority goes into egress.ca_file"
        }
    }
}
