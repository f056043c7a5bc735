//! `mailweave audit`: a line for each invariant that the stored data can show, with the first rows that break it, as ids.
//!
//! Not here: repairing. What is wrong is shown to somebody who decides.

mod acts;
mod contents;
mod threads;
mod work;

#[cfg(test)]
mod sabotage;
#[cfg(test)]
mod tests;

use std::{
    io::{self, Write},
    path::Path,
    time::Duration,
};

use anyhow::Context as _;
use jiff::Timestamp;

use super::stored;
use crate::{
    config::Config,
    core::{
        attribution::OurDomains,
        ids::{Id as _, WorkspaceId},
        reply_address::ReplyKeys,
    },
    net,
    store::{CameIn, Error, Page, PageKey, RULES, Session, Store},
};

/// Counter-examples shown of each invariant.
const SHOWN_MAX: usize = 10;
/// One more than is shown, to know whether there are more.
const FOUND_MAX: u32 = 11;
/// A file without a row that is younger may belong to a transaction under way, or to one that a crash cut off: upkeep
/// removes those after an hour, and looks once an hour.
const ORPHANS_MAY_STAY: Duration = Duration::from_secs(2 * 60 * 60);

/// One invariant and what breaks it.
#[derive(Debug)]
pub struct Line {
    pub name: &'static str,
    pub says: &'static str,
    /// The first ten counter-examples.
    pub found: Vec<String>,
    /// There are more than those.
    pub more: bool,
}

/// Every invariant, in the order they are told.
#[derive(Debug)]
pub struct Report {
    pub lines: Vec<Line>,
    pub workspaces: usize,
    pub messages: u64,
}

/// The invariants that take more than SQL to check; each is told before the rules of the store.
const LOOKED_INTO: [(&str, &str); 12] = [
    ("waiting", "every message that waits to be filed has its job"),
    ("bytes", "the exact bytes of every message open under its key and have the length they had"),
    ("identity", "every message is still recognised by its Message-ID and content"),
    ("keys", "every key of a message leads to its conversation"),
    ("threads", "the messages of every conversation belong together, in whatever order they are read"),
    ("tenancy", "nothing names a row of another workspace"),
    ("addresses", "every reply address proves whose answers it takes, and for whom"),
    ("jobs", "every job can be read and is of the kind it is claimed by"),
    ("secrets", "every sealed credential opens in its own place"),
    (
        "recipients",
        "mail went to those alone whom a user or the CRM named, or whom a reply address stands for",
    ),
    ("trail", "the trail of acts has every row that was written, as it was written"),
    ("once", "one key of the CRM's stands for one order, and every answer kept can be given again"),
];

impl Report {
    fn new() -> Self {
        let looked_into = LOOKED_INTO.iter().copied();
        let rules = RULES.iter().filter(|rule| !rule.says.is_empty()).map(|rule| (rule.name, rule.says));
        let line = |(name, says)| Line { name, says, found: Vec::new(), more: false };
        Self { lines: looked_into.chain(rules).map(line).collect(), workspaces: 0, messages: 0 }
    }

    /// Notes what breaks an invariant.
    fn found(&mut self, name: &str, what: impl ToString) {
        let Some(line) = self.lines.iter_mut().find(|line| line.name == name) else { return };
        let what = what.to_string();
        match line.found.len() < SHOWN_MAX {
            true if !line.found.contains(&what) => line.found.push(what),
            true => {}
            false => line.more = true,
        }
    }

    #[must_use]
    pub fn is_clean(&self) -> bool {
        self.lines.iter().all(|line| line.found.is_empty())
    }

    /// Writes a line for each invariant.
    ///
    /// # Errors
    /// Those of `out`.
    pub fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        for line in &self.lines {
            let verdict = if line.found.is_empty() { "ok" } else { "VIOLATED" };
            writeln!(out, "{verdict:<8}  {:<11}  {}", line.name, line.says)?;
            for what in &line.found {
                writeln!(out, "          {what}")?;
            }
            if line.more {
                writeln!(out, "          … and more")?;
            }
        }
        writeln!(out, "Looked at: messages {}, workspaces {}.", self.messages, self.workspaces)
    }
}

/// Audits the store of this configuration and prints the report. True when nothing is wrong.
///
/// # Errors
/// Names what kept it from looking.
pub async fn run(config: Option<&Path>) -> anyhow::Result<bool> {
    let config = Config::load(config)?.config;
    net::install_provider();
    let store = stored::open(&config).await.map_err(|error| match error {
        stored::StoredError::InUse(_) => anyhow::Error::new(error)
            .context("stop the gateway for the audit, or audit a copy of its data directory"),
        other => other.into(),
    })?;
    let domain = |domain: &Option<crate::config::DomainName>| domain.as_ref().map(ToString::to_string);
    let ours = OurDomains { capture: domain(&config.domains.capture), reply: domain(&config.domains.reply) };
    let report = audit(&store, &ours).await.context("the audit was cut short");
    store.close().await;
    let report = report?;
    report.write(&mut io::stdout().lock()).context("cannot write the report")?;
    Ok(report.is_clean())
}

/// Looks at everything, workspace by workspace, in pages.
///
/// # Errors
/// When the database is out of reach. What is wrong with the data is in the report.
pub async fn audit(store: &Store, ours: &OurDomains) -> Result<Report, Error> {
    let mut report = Report::new();
    let mut after = None;
    loop {
        let page = store.system_read().await?.workspaces(&Page::new(200, after)).await?;
        for workspace in &page {
            report.workspaces += 1;
            audit_workspace(store, workspace.id, ours, &mut report).await?;
        }
        let Some(last) = page.last() else { break };
        after = Some(PageKey { at: last.created_at, id: last.id.uuid() });
    }
    for file in store.orphan_files(ORPHANS_MAY_STAY, SHOWN_MAX + 1).await? {
        report.found("blobs", format!("file {}", file.display()));
    }
    Ok(report)
}

async fn audit_workspace(
    store: &Store,
    workspace: WorkspaceId,
    ours: &OurDomains,
    report: &mut Report,
) -> Result<(), Error> {
    let mut session = store.snapshot(workspace).await?;
    for rule in RULES {
        for what in session.breaches(rule, FOUND_MAX).await? {
            report.found(rule.name, what);
        }
    }
    work::look(&mut session, report).await?;
    acts::look(&mut session, report).await?;
    contents::look(&mut session, ours, report).await?;
    tenancy(&mut session, report).await?;
    addresses(&mut session, &store.reply_keys().await?, report).await?;
    for place in session.trail_breaks(SHOWN_MAX + 1).await? {
        report.found("trail", format!("row {place} of {workspace}"));
    }
    for blob in session.files_absent(SHOWN_MAX + 1).await? {
        report.found("blobs", format!("blob {blob}"));
    }
    Ok(())
}

/// Of those that still live: the key of one that has ended may be gone.
async fn addresses(session: &mut Session, keys: &ReplyKeys, report: &mut Report) -> Result<(), Error> {
    let (mut after, now) = (None, Timestamp::now());
    loop {
        let routes = session.reply_routes(after).await?;
        let Some(last) = routes.last() else { return Ok(()) };
        after = Some(last.id);
        for route in routes.iter().filter(|route| route.expires_at.is_none_or(|end| end > now)) {
            if !keys.prove(route) {
                report.found("addresses", route.id);
            }
        }
    }
}

async fn tenancy(session: &mut Session, report: &mut Report) -> Result<(), Error> {
    for what in session.foreign_references(FOUND_MAX).await? {
        report.found("tenancy", what);
    }
    let mut after = None;
    loop {
        let page = session.doors(after).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(last.inbound);
        for CameIn { inbound, door, .. } in &page {
            match door {
                None => report.found("intake", inbound),
                Some(crate::core::inbound::Door::Mx { routes, .. })
                    if routes.iter().any(|route| route.workspace != session.workspace()) =>
                {
                    report.found("tenancy", format!("inbound.door {inbound}"));
                }
                Some(_) => {}
            }
        }
    }
}
