//! The policy that applies to a user's mail, read anew for every unit of work: a change holds for the next message, whichever
//! node the message comes to.
//!
//! Not here: what a policy says (`core::policy`) and changing it (`http`).

use crate::{
    core::{ids::UserId, policy::Policy},
    store::{Error, Session},
};

/// The policy of a user's mail, or of the workspace's where no user is concerned.
///
/// # Errors
/// Those of the store. `Corrupt` when what was chosen makes no policy: nothing is taken in by a policy nobody chose.
pub async fn policy_of(session: &mut Session, user: Option<UserId>) -> Result<Policy, Error> {
    let choices = session.policy_choices(user).await?;
    choices.policy().map_err(|error| Error::Corrupt(format!("the policy: {error}")))
}
