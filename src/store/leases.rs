//! Who works an account: a lease in time, and an epoch that fences off whoever held it before.
//!
//! Not here: renewing in time and letting go (`worker::accounts`). The lease is a courtesy that keeps two workers from
//! doing the same; what is safe is safe by the epoch, which every transaction of a worker compares first.

use jiff::{SignedDuration, Timestamp};

use super::{
    Error, System, Tx,
    columns::word,
    sql::{Arg, Row, sql},
    statement::{LIST_MAX, Statement},
};
use crate::core::{
    account::AccountState,
    ids::{AccountId, WorkspaceId},
};

/// An account held by a worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Leased {
    pub workspace: WorkspaceId,
    pub account: AccountId,
    /// What `Tx::check_epoch` wants to see.
    pub epoch: i64,
}

/// Who leases, and until when.
#[derive(Debug, Clone, Copy)]
pub struct Lease<'a> {
    /// Names one run of one process: a restarted worker is another owner.
    pub owner: &'a str,
    /// By `Store::clock`: nodes' own may be seconds apart.
    pub now: Timestamp,
    pub lasts: SignedDuration,
}

impl System {
    /// Takes at most `max` accounts in one of these states that nobody holds, longest free first.
    pub async fn lease_accounts(
        &mut self,
        lease: Lease<'_>,
        states: &[AccountState],
        max: u32,
    ) -> Result<Vec<Leased>, Error> {
        let locked = if self.store().is_shared() { " for update skip locked" } else { "" };
        // Materialised: PostgreSQL may run a plain subquery several times, and lock other rows each time.
        let query = Statement::new(
            "with free as materialized (select workspace, id from accounts where lease_until <= ",
        )
        .arg(lease.now)
        .text(" and state in ")
        .list(&words(states))
        .text(" order by lease_until, id limit ")
        .arg(max)
        .text(locked)
        .text(") update accounts set epoch = epoch + 1, lease_owner = ")
        .arg(lease.owner)
        .text(", lease_until = ")
        .arg(lease.now + lease.lasts)
        .text(" where (workspace, id) in (select workspace, id from free) returning workspace, id, epoch")
        .query();
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// Prolongs every lease the owner still has on accounts in these states, and returns those: an account that is not
    /// among them was taken, paused or disconnected, and its worker has to stop.
    pub async fn renew_leases(
        &mut self,
        lease: Lease<'_>,
        states: &[AccountState],
    ) -> Result<Vec<Leased>, Error> {
        let query = Statement::new("update accounts set lease_until = ")
            .arg(lease.now + lease.lasts)
            .text(" where lease_owner = ")
            .arg(lease.owner)
            .text(" and lease_until > ")
            .arg(lease.now)
            .text(" and state in ")
            .list(&words(states))
            .text(" returning workspace, id, epoch")
            .query();
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// Notes when accounts were last looked at without anything having changed. Those that somebody else holds by now are
    /// left alone.
    pub async fn note_looks(&mut self, looks: &[(Leased, Timestamp)]) -> Result<(), Error> {
        for some in looks.chunks(LIST_MAX) {
            let rows = some.iter().map(|(held, at)| -> [Arg; 4] {
                [held.workspace.into(), held.account.into(), held.epoch.into(), (*at).into()]
            });
            let query = Statement::new("with v (workspace, account, epoch, at) as (values ")
                .rows(rows)
                .text(
                    ") update accounts set last_checked_at = v.at from v where accounts.workspace = v.workspace \
                     and accounts.id = v.account and accounts.epoch = v.epoch",
                )
                .query();
            self.execute(query).await?;
        }
        Ok(())
    }

    /// Lets one account go, if it is still held. True when it was.
    pub async fn release_lease(&mut self, leased: Leased) -> Result<bool, Error> {
        let query = sql("update accounts set lease_owner = null, lease_until = 0 \
             where workspace = $1 and id = $2 and epoch = $3 and lease_owner is not null")
        .bind(leased.workspace)
        .bind(leased.account)
        .bind(leased.epoch);
        Ok(self.execute(query).await? > 0)
    }

    /// Lets everything of an owner go, as it shuts down. Returns how many accounts that were.
    pub async fn release_leases(&mut self, owner: &str) -> Result<u64, Error> {
        let query =
            sql("update accounts set lease_owner = null, lease_until = 0 where lease_owner = $1").bind(owner);
        self.execute(query).await
    }
}

impl Tx {
    /// Makes sure that no one has taken the account over. First statement of every transaction of a worker; until its end
    /// nobody else can take the account.
    ///
    /// # Errors
    /// `Fenced` when the epoch has moved on or the account is gone: undo everything, drop the connection.
    pub async fn check_epoch(&mut self, account: AccountId, epoch: i64) -> Result<(), Error> {
        // SQLite has one writer, and this transaction is it.
        let share = if self.store().is_shared() { " for share" } else { "" };
        let query = sql(format!("select epoch from accounts where workspace = $1 and id = $2{share}"))
            .bind(self.workspace())
            .bind(account);
        let found = self.fetch_optional(query).await?.map(|row| row.get::<i64>("epoch")).transpose()?;
        if found == Some(epoch) { Ok(()) } else { Err(Error::Fenced) }
    }

    /// Takes the account from whoever works it: nothing that he still does will be written. Returns the new epoch.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn fence_account(&mut self, account: AccountId) -> Result<i64, Error> {
        let query = sql("update accounts set epoch = epoch + 1, lease_owner = null, lease_until = 0 \
             where workspace = $1 and id = $2 returning epoch")
        .bind(self.workspace())
        .bind(account);
        self.fetch_optional(query).await?.ok_or(Error::Missing)?.get("epoch")
    }
}

fn words(states: &[AccountState]) -> Vec<String> {
    states.iter().map(word).collect()
}

fn read(row: &Row) -> Result<Leased, Error> {
    Ok(Leased { workspace: row.id("workspace")?, account: row.id("id")?, epoch: row.get("epoch")? })
}
