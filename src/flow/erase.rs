//! Erasing a workspace (docs/flows.md, "Erase"): for everybody at once, and then row by row by a job that comes to its end
//! whatever happens on the way.
//!
//! Not here: who may ask for it, and which rows there are (`store`).

use jiff::Timestamp;

use super::{FlowError, Gateway};
use crate::{
    core::job::Job,
    queue::{Leased, Settlement},
    store::Tx,
};

/// Ends the workspace of this transaction: nobody gets in, its keys are destroyed, and a job sees to the rest.
///
/// # Errors
/// Those of the store; `Missing` when there is no such workspace.
pub async fn begin(tx: &mut Tx, now: Timestamp) -> Result<(), FlowError> {
    tx.begin_erasure(now).await?;
    tx.enqueue_job(&Job::Erase, now).await?;
    Ok(())
}

/// Erases what is left of a workspace. What fails is done again from where it was.
///
/// # Errors
/// Those of the store.
pub async fn perform(gateway: &Gateway, job: &Leased) -> Result<(), FlowError> {
    gateway.store.erase_rows(job.workspace).await?;
    // Deleted rows stand in SQLite's log until it is emptied, which an open reader prevents: then this job comes again.
    gateway.store.scrub().await?;
    let mut tx = gateway.store.begin(job.workspace).await?;
    tx.settle(job, Settlement::Done).await?;
    tx.end_erasure().await?;
    tx.commit().await?;
    Ok(())
}
