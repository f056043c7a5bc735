//! Whether all that is unfinished will be finished: jobs that can be read, and a job for everything that waits.
//!
//! Not here: lanes, which the store's own rules cover.

use jiff::Timestamp;

use super::Report;
use crate::{
    core::{
        ids::{AccountId, MessageKey},
        job::{Job, JobExit, JobKind},
    },
    store::{Error, Page, PageKey, Session},
};

pub(super) async fn look(session: &mut Session, report: &mut Report) -> Result<(), Error> {
    jobs(session, report).await?;
    waiting(session, report).await?;
    submissions(session, report).await?;
    secrets(session, report).await
}

async fn jobs(session: &mut Session, report: &mut Report) -> Result<(), Error> {
    let (mut after, newest) = (0, session.last_seq().await?);
    loop {
        let jobs = session.queued_jobs(after).await?;
        let Some(last) = jobs.last() else { return Ok(()) };
        after = last.id;
        for queued in &jobs {
            let is_told = |job: &Job| match job {
                // What is posted was written down before.
                Job::Deliver { seq, .. } => (1..=newest).contains(seq),
                _ => true,
            };
            let is_sound = |job: &Job| job.kind().as_str() == queued.kind && is_told(job);
            if !queued.job.as_ref().is_some_and(is_sound) {
                report.found("jobs", format!("job {}", queued.id));
            }
        }
    }
}

/// A 250 was said for these: without a job they would wait for ever.
async fn waiting(session: &mut Session, report: &mut Report) -> Result<(), Error> {
    let mut after = None;
    loop {
        let pending = session.pending_inbound(after).await?;
        let Some(last) = pending.last() else { return Ok(()) };
        after = Some(*last);
        let jobs: Vec<Job> = pending.iter().map(|inbound| Job::Process { inbound: *inbound }).collect();
        for at in session.jobs_absent(JobKind::Process, &jobs).await? {
            report.found("waiting", pending.get(at).map(ToString::to_string).unwrap_or_default());
        }
    }
}

async fn submissions(session: &mut Session, report: &mut Report) -> Result<(), Error> {
    let mut after = None;
    loop {
        let open = session.open_submissions(after).await?;
        let Some((last, _)) = open.last() else { return Ok(()) };
        after = Some(*last);
        let jobs: Vec<Job> = open.iter().map(|(message, account)| job(*message, *account)).collect();
        for at in session.jobs_absent(JobKind::Submit, &jobs).await? {
            report.found(
                "submissions",
                open.get(at).map(|(message, _)| message.to_string()).unwrap_or_default(),
            );
        }
    }
}

fn job(message: MessageKey, account: Option<AccountId>) -> Job {
    Job::Submit { message, exit: account.map_or(JobExit::Smarthost, JobExit::Account) }
}

/// Opens every credential and secret: one that was altered, or moved here from another row, does not open.
async fn secrets(session: &mut Session, report: &mut Report) -> Result<(), Error> {
    let mut after = None;
    loop {
        let accounts =
            session.accounts(&Page::new(200, after), &crate::store::AccountFilter::default()).await?;
        let Some(last) = accounts.last() else { break };
        after = Some(PageKey { at: last.connected_at, id: crate::core::ids::Id::uuid(last.id) });
        for account in &accounts {
            use crate::core::account::AccountState::{Disconnected, Erased, Erasing};
            let is_gone = matches!(account.status.state, Disconnected | Erasing | Erased);
            // What was erased is to be unreadable.
            if !is_gone
                && (is_sealed_shut(session.credentials(account.id).await)?
                    || is_sealed_shut(session.grant(account.id).await)?)
            {
                report.found("secrets", account.id);
            }
        }
    }
    if is_sealed_shut(session.smarthost_credentials().await)? {
        report.found("secrets", format!("the smarthost of {}", session.workspace()));
    }
    if is_sealed_shut(session.webhooks(Timestamp::now()).await)? {
        report.found("secrets", format!("a webhook of {}", session.workspace()));
    }
    Ok(())
}

fn is_sealed_shut<T>(opened: Result<T, Error>) -> Result<bool, Error> {
    match opened {
        Ok(_) => Ok(false),
        Err(Error::Corrupt(_) | Error::Missing) => Ok(true),
        Err(other) => Err(other),
    }
}
