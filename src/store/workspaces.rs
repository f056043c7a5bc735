//! Workspaces: the one thing that is looked up across tenants by name.
//!
//! Not here: what lies in one, and erasing it (`store::erasure`). Every other verb starts from a session that is bound to a workspace.

use super::{
    Error, Page, ReadSystem, Session, System, Tx,
    sql::{Row, sql},
    statement::Statement,
};
use crate::core::{ids::WorkspaceId, people::Workspace, trail::Act};

const COLUMNS: &str = "id, slug, name, timezone, preset, policy_version, created_at";

/// What an update changes; `None` leaves a column as it is.
#[derive(Debug, Clone, Default)]
pub struct WorkspaceChange {
    pub name: Option<String>,
    pub slug: Option<String>,
    pub timezone: Option<String>,
    /// The settings that were chosen beside the preset stay.
    pub preset: Option<String>,
}

impl System {
    /// Adds a workspace and the key that seals what belongs to it.
    ///
    /// # Errors
    /// `Conflict` when the slug is taken.
    pub async fn create_workspace(&mut self, workspace: &Workspace) -> Result<(), Error> {
        let query =
            sql("insert into workspaces (id, slug, name, timezone, preset, policy_version, created_at) \
             values ($1, $2, $3, $4, $5, $6, $7)")
            .bind(workspace.id)
            .bind(workspace.slug.as_str())
            .bind(workspace.name.as_str())
            .bind(workspace.timezone.as_str())
            .bind(workspace.preset.as_str())
            .bind(workspace.policy_version)
            .bind(workspace.created_at);
        self.execute(query).await?;
        self.make_workspace_key(workspace.id).await
    }
}

impl Tx {
    /// Changes what is given.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted, `Conflict` when another has the slug.
    pub async fn update_workspace(&mut self, change: &WorkspaceChange) -> Result<(), Error> {
        let workspace = self.workspace();
        self.lock_filing().await?;
        let version =
            sql("select policy_version from workspaces where id = $1 and erasing_at is null").bind(workspace);
        let before: i64 = self.fetch_one(version).await?.get("policy_version")?;
        let query = sql("update workspaces set name = coalesce($2, name), slug = coalesce($3, slug), \
             timezone = coalesce($4, timezone), preset = coalesce($5, preset), policy_version = policy_version \
             + case when coalesce($5, preset) <> preset then 1 else 0 end where id = $1 and erasing_at is null \
             returning policy_version")
        .bind(workspace)
        .bind(change.name.clone())
        .bind(change.slug.clone())
        .bind(change.timezone.clone())
        .bind(change.preset.clone());
        if self.fetch_one(query).await?.get::<i64>("policy_version")? != before {
            self.note_act(Act::PolicyChanged, workspace).await?;
        }
        Ok(())
    }
}

impl ReadSystem {
    pub async fn workspace(&mut self, id: WorkspaceId) -> Result<Option<Workspace>, Error> {
        let query =
            sql(format!("select {COLUMNS} from workspaces where id = $1 and erasing_at is null")).bind(id);
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }

    pub async fn workspace_by_slug(&mut self, slug: &str) -> Result<Option<Workspace>, Error> {
        let query = sql(format!("select {COLUMNS} from workspaces where slug = $1 and erasing_at is null"))
            .bind(slug);
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }

    /// Every workspace, newest first.
    pub async fn workspaces(&mut self, page: &Page) -> Result<Vec<Workspace>, Error> {
        let query = Statement::new(format!("select {COLUMNS} from workspaces where erasing_at is null"));
        self.fetch_all(query.page(page, "created_at", "id")).await?.iter().map(read).collect()
    }
}

impl Session {
    /// The workspace this session is bound to; `None` once it has been deleted.
    pub async fn this_workspace(&mut self) -> Result<Option<Workspace>, Error> {
        let query = sql(format!("select {COLUMNS} from workspaces where id = $1 and erasing_at is null"))
            .bind(self.workspace());
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }
}

fn read(row: &Row) -> Result<Workspace, Error> {
    Ok(Workspace {
        id: row.id("id")?,
        slug: row.get("slug")?,
        name: row.get("name")?,
        timezone: row.get("timezone")?,
        preset: row.get("preset")?,
        policy_version: row.get("policy_version")?,
        created_at: row.get("created_at")?,
    })
}
