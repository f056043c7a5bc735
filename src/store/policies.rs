//! What workspaces and users chose of policy: presets by name, and the settings that they override.
//!
//! Not here: what policy follows from it (`core::policy`). The version lies with the workspace and is read in the same
//! statement: whoever judges knows which policy he judged by, on whichever node.

use super::{
    Error, Session, Tx,
    columns::{changed, json_text},
    sql::sql,
};
use crate::core::{
    ids::UserId,
    policy::{Choice, Choices, Overrides},
    trail::Act,
};

impl Session {
    /// What was chosen in the workspace and, when one is named, for this user.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn policy_choices(&mut self, user: Option<UserId>) -> Result<Choices, Error> {
        let query = sql("select w.preset, w.overrides, w.policy_version, u.preset as user_preset, \
             coalesce(u.overrides, '{}') as user_overrides from workspaces w \
             left join users u on u.workspace = w.id and u.id = $2 where w.id = $1")
        .bind(self.workspace())
        .bind(user);
        let row = self.fetch_optional(query).await?.ok_or(Error::Missing)?;
        let workspace =
            Choice { preset: Some(row.get("preset")?), overrides: Overrides::stored(row.json("overrides")?) };
        let user = Choice {
            preset: row.get("user_preset")?,
            overrides: Overrides::stored(row.json("user_overrides")?),
        };
        Ok(Choices { version: row.get("policy_version")?, workspace, user })
    }
}

impl Tx {
    /// Chooses the workspace's policy.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn set_policy(&mut self, preset: &str, overrides: &Overrides) -> Result<(), Error> {
        let query = sql("update workspaces set preset = $2, overrides = $3, \
             policy_version = policy_version + 1 where id = $1")
        .bind(self.workspace())
        .bind(preset)
        .bind(json_text(overrides.settings()));
        changed(self.execute(query).await?)?;
        let workspace = self.workspace();
        self.note_act(Act::PolicyChanged, workspace).await
    }

    /// Chooses a user's policy.
    ///
    /// # Errors
    /// `Missing` when there is no such user.
    pub async fn set_user_policy(&mut self, user: UserId, choice: &Choice) -> Result<(), Error> {
        let query = sql("update users set preset = $3, overrides = $4 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(user)
            .bind(choice.preset.clone())
            .bind(json_text(choice.overrides.settings()));
        changed(self.execute(query).await?)?;
        let query = sql("update workspaces set policy_version = policy_version + 1 where id = $1")
            .bind(self.workspace());
        changed(self.execute(query).await?)?;
        self.note_act(Act::PolicyChanged, user).await
    }
}
