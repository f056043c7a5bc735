//! The policy that applies to a user's mail, read anew for every unit of work: a change holds for the next message, whichever
//! node the message comes to.
//!
//! Not here: what a policy says (`core::policy`) and changing it (`http`).

use crate::{
    core::{
        ids::UserId,
        people::Role,
        policy::{Policy, settings::Visibility},
    },
    store::{Error, Sees, Session, Viewer},
};

/// The policy of a user's mail, or of the workspace's where no user is concerned.
///
/// # Errors
/// Those of the store. `Corrupt` when what was chosen makes no policy: nothing is taken in by a policy nobody chose.
pub async fn policy_of(session: &mut Session, user: Option<UserId>) -> Result<Policy, Error> {
    let choices = session.policy_choices(user).await?;
    choices.policy().map_err(|error| Error::Corrupt(format!("the policy: {error}")))
}

/// As whom a user reads the workspace's mail; `None` for one who sees everything: by policy, or as an administrator.
///
/// # Errors
/// As of [`policy_of`].
pub async fn viewer(session: &mut Session, user: UserId) -> Result<Option<Viewer>, Error> {
    if session.user(user).await?.is_some_and(|user| user.role == Role::Admin) {
        return Ok(None);
    }
    let sees = match policy_of(session, Some(user)).await?.settings.visibility {
        Visibility::Everyone => return Ok(None),
        Visibility::Owner => Sees::Own,
        Visibility::Assigned => Sees::OwnAndAssigned,
    };
    Ok(Some(Viewer { user, sees }))
}
