//! The people who work in a workspace, found by any of their addresses.
//!
//! Not here: their accounts (`store::accounts`) and capture addresses (`store::routes`), though a user shows the latter.

use std::collections::{HashMap, HashSet};

use super::{
    Error, Page, Session, Tx,
    columns::{changed, word},
    routes,
    sql::{Row, sql},
    statement::Statement,
};
use crate::{
    core::{account::Account, ids::UserId, people::User, trail::Act},
    mail::Address,
};

const COLUMNS: &str = "id, email, name, role, created_at";

impl Tx {
    /// Adds a user with all addresses.
    ///
    /// # Errors
    /// `Conflict` of `user_addresses_pkey` when one of the addresses is another user's.
    pub async fn insert_user(&mut self, user: &User) -> Result<(), Error> {
        let query = sql("insert into users (workspace, id, email, name, role, created_at) \
             values ($1, $2, $3, $4, $5, $6)")
        .bind(self.workspace())
        .bind(user.id)
        .bind(user.email.to_string())
        .bind(user.name.clone())
        .bind(word(&user.role))
        .bind(user.created_at);
        self.execute(query).await?;
        self.put_user_addresses(user).await?;
        self.note_act(Act::UserAdded, user.id).await
    }

    /// Replaces address, name, aliases and role.
    ///
    /// # Errors
    /// `Missing` when there is no such user, `Conflict` of `user_addresses_pkey` when one of the addresses is another user's.
    pub async fn update_user(&mut self, user: &User) -> Result<(), Error> {
        let is_given_role = self.user(user.id).await?.is_some_and(|old| old.role != user.role);
        let query = sql("update users set email = $3, name = $4, role = $5 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(user.id)
            .bind(user.email.to_string())
            .bind(user.name.clone())
            .bind(word(&user.role));
        changed(self.execute(query).await?)?;
        let query = Statement::new("delete from user_addresses where workspace = ")
            .arg(self.workspace())
            .text(" and user_id = ")
            .arg(user.id)
            .text(" and address not in ")
            .list(&address_keys(user))
            .query();
        self.execute(query).await?;
        self.put_user_addresses(user).await?;
        if is_given_role {
            self.note_act(Act::RoleChanged, user.id).await?;
        }
        Ok(())
    }

    /// Adds an address that becomes the user's with an account of his, and goes when the account is erased.
    ///
    /// # Errors
    /// `Conflict` of `user_addresses_pkey` when it is somebody's.
    pub async fn add_account_alias(&mut self, account: &Account) -> Result<(), Error> {
        let query =
            sql("insert into user_addresses (workspace, address, user_id, account) values ($1, $2, $3, $4)")
                .bind(self.workspace())
                .bind(account.email.key())
                .bind(account.user_id)
                .bind(account.id);
        self.execute(query).await.map(drop)
    }

    /// Deletes a user with his keys, addresses and disconnected accounts. What he wrote stays, and his contacts are assigned
    /// to nobody from then on.
    ///
    /// # Errors
    /// `Missing` when there is no such user, or while an account of his is connected.
    pub async fn delete_user(&mut self, id: UserId) -> Result<(), Error> {
        for text in [
            "delete from accounts where workspace = $1 and user_id = $2 and state in ('disconnected', 'erased')",
            "delete from routes where workspace = $1 and user_id = $2",
            "delete from limits where workspace = $1 and subject = $2",
            "delete from usage_counts where workspace = $1 and user_id = $2",
            "delete from quota_levels where workspace = $1 and subject = $2",
            "update quarantine set user_id = null where workspace = $1 and user_id = $2",
            "update contacts set assigned_user_id = null where workspace = $1 and assigned_user_id = $2",
        ] {
            self.execute(sql(text).bind(self.workspace()).bind(id)).await?;
        }
        // Addresses and keys go with the row.
        let query = sql("delete from users where workspace = $1 and id = $2").bind(self.workspace()).bind(id);
        changed(self.execute(query).await?)?;
        self.note_act(Act::UserRemoved, id).await
    }

    async fn put_user_addresses(&mut self, user: &User) -> Result<(), Error> {
        let workspace = self.workspace();
        let query = sql("select address from user_addresses where workspace = $1 and user_id = $2")
            .bind(workspace)
            .bind(user.id);
        let rows = self.fetch_all(query).await?;
        let his: Vec<String> = rows.iter().map(|row| row.get("address")).collect::<Result<_, _>>()?;
        let mut new = address_keys(user);
        new.retain(|key| !his.iter().any(|his| his == key));
        if new.is_empty() {
            return Ok(());
        }
        let rows = new.iter().map(|key| [workspace.into(), (*key).into(), user.id.into()]);
        let query = Statement::new("insert into user_addresses (workspace, address, user_id) values ")
            .rows(rows)
            .query();
        self.execute(query).await.map(drop)
    }
}

/// All addresses of a user, each once.
fn address_keys(user: &User) -> Vec<&str> {
    let mut keys: Vec<_> = [&user.email].into_iter().chain(&user.aliases).map(Address::key).collect();
    keys.sort_unstable();
    keys.dedup();
    keys
}

impl Session {
    pub async fn user(&mut self, id: UserId) -> Result<Option<User>, Error> {
        let query = sql(format!("select {COLUMNS} from users where workspace = $1 and id = $2"))
            .bind(self.workspace())
            .bind(id);
        let row = self.fetch_optional(query).await?;
        Ok(self.complete_users(row.as_slice()).await?.pop())
    }

    /// The user with this address, primary or alias.
    pub async fn user_by_address(&mut self, address: &Address) -> Result<Option<User>, Error> {
        let query = sql(format!(
            "select {COLUMNS} from users where workspace = $1 \
             and id = (select user_id from user_addresses where workspace = $1 and address = $2)"
        ))
        .bind(self.workspace())
        .bind(address.key());
        let row = self.fetch_optional(query).await?;
        Ok(self.complete_users(row.as_slice()).await?.pop())
    }

    /// Newest first; with `connected` those alone who have an account that is not disconnected, or who have none.
    pub async fn users(&mut self, page: &Page, connected: Option<bool>) -> Result<Vec<User>, Error> {
        let mut query = Statement::new(format!("select {COLUMNS} from users where workspace = "));
        query = query.arg(self.workspace());
        if let Some(connected) = connected {
            let not = if connected { "" } else { "not " };
            query = query
                .text(&format!(" and id {not}in (select a.user_id from accounts a where a.workspace = "))
                .arg(self.workspace())
                .text(" and a.state not in ('disconnected', 'erasing', 'erased'))");
        }
        let rows = self.fetch_all(query.page(page, "created_at", "id")).await?;
        self.complete_users(&rows).await
    }

    /// Those of the ids that are users of this workspace.
    pub async fn users_present(&mut self, ids: &[UserId]) -> Result<HashSet<UserId>, Error> {
        self.present("users", ids).await
    }

    /// Adds aliases and capture addresses to rows of users: two statements, however many there are.
    async fn complete_users(&mut self, rows: &[Row]) -> Result<Vec<User>, Error> {
        let mut users: Vec<User> = rows.iter().map(read).collect::<Result<_, _>>()?;
        if users.is_empty() {
            return Ok(users);
        }
        let ids: Vec<_> = users.iter().map(|user| user.id).collect();
        let mut aliases = self.addresses_of_users(&ids).await?;
        let mut captures = self.capture_addresses(&ids).await?;
        for user in &mut users {
            let others = aliases.remove(&user.id).unwrap_or_default();
            user.aliases = others.into_iter().filter(|address| *address != user.email).collect();
            user.capture_address = captures.remove(&user.id);
        }
        Ok(users)
    }

    async fn addresses_of_users(&mut self, ids: &[UserId]) -> Result<HashMap<UserId, Vec<Address>>, Error> {
        let query = Statement::new("select user_id, address from user_addresses where workspace = ")
            .arg(self.workspace())
            .text(" and user_id in ")
            .list(ids)
            .text(" order by address")
            .query();
        let mut found: HashMap<UserId, Vec<Address>> = HashMap::new();
        for row in self.fetch_all(query).await? {
            found.entry(row.id("user_id")?).or_default().push(row.address("address")?);
        }
        Ok(found)
    }

    async fn capture_addresses(&mut self, ids: &[UserId]) -> Result<HashMap<UserId, Address>, Error> {
        // Oldest first: of several, the newest is left standing in the map.
        let query = Statement::new("select user_id, domain, local_part from routes where workspace = ")
            .arg(self.workspace())
            .text(" and kind = 'capture' and expires_at is null and user_id in ")
            .list(ids)
            .text(" order by created_at, id")
            .query();
        let rows = self.fetch_all(query).await?;
        rows.iter().map(|row| Ok((row.id("user_id")?, routes::read_address(row)?))).collect()
    }
}

fn read(row: &Row) -> Result<User, Error> {
    Ok(User {
        id: row.id("id")?,
        email: row.address("email")?,
        name: row.get("name")?,
        aliases: Vec::new(),
        role: row.word("role")?,
        capture_address: None,
        created_at: row.get("created_at")?,
    })
}
