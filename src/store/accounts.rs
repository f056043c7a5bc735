//! Users' accounts at their providers: settings, sealed credentials, health and the error log.
//!
//! Not here: the mailboxes of an account (`store::mailboxes`) and who works it (`store::leases`).

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Error, Page, Place, ReadSystem, Session, Tx,
    columns::{changed, json_text, word},
    credentials,
    sql::{Row, sql},
    statement::{LIST_MAX, Statement},
};
use crate::{
    core::{
        account::{Account, AccountError, AccountSettings, AccountState, AccountStatus, Credentials, Rest},
        ids::{AccountId, Id as _, UserId},
        trail::Act,
    },
    mail::Address,
};

const COLUMNS: &str = "id, user_id, email, settings, state, state_since, detail, advice, last_synced_at, \
     last_checked_at, next_attempt_at, progress, sending_refused, rests_until, rests_over, rests, \
     connected_at, generation, \
     exists (select 1 from grants g where g.workspace = accounts.workspace and g.account = accounts.id) as is_granted";

/// Most lines of an account's error log that are shown: one for each code, and there are not that many codes.
const ERRORS_MAX: u32 = 200;

/// Which accounts to list; what is `None` does not count.
#[derive(Debug, Clone, Default)]
pub struct AccountFilter {
    pub user: Option<UserId>,
    pub state: Option<AccountState>,
}

impl Tx {
    /// Adds an account and the content key that seals its credentials and mail.
    ///
    /// # Errors
    /// `Conflict` when the workspace has an account with this address, `Missing` when there is no such user.
    pub async fn insert_account(
        &mut self,
        account: &Account,
        credentials: &Credentials,
    ) -> Result<(), Error> {
        let key = self.content_key(Some(account.id)).await?;
        let sealed = credentials::seal(self, key, &place(account.id), credentials).await?;
        let status = &account.status;
        let query =
            sql("insert into accounts (workspace, id, user_id, email, settings, credentials, key_id, \
             state, state_since, detail, advice, last_synced_at, last_checked_at, next_attempt_at, progress, \
             connected_at) values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16)")
            .bind(self.workspace())
            .bind(account.id)
            .bind(account.user_id)
            .bind(account.email.key())
            .bind(json_text(&account.settings))
            .bind(sealed)
            .bind(key)
            .bind(word(&status.state))
            .bind(status.since)
            .bind(status.detail.clone())
            .bind(status.advice.clone())
            .bind(status.last_synced_at)
            .bind(status.last_checked_at)
            .bind(status.next_attempt_at)
            .bind(status.progress.as_ref().map(json_text))
            .bind(account.connected_at);
        self.execute(query).await?;
        self.note_act(Act::AccountConnected, account.id).await
    }

    /// An address with which an account has logged in stays known as an account's, whatever becomes of the account and its user.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn note_account_address(&mut self, account: AccountId, email: &Address) -> Result<(), Error> {
        let hash = self.text_hasher().await?.hash(email.key());
        let query = sql("insert into account_addresses (workspace, hash, account) values ($1, $2, $3) \
             on conflict (workspace, hash) do update set account = excluded.account")
        .bind(self.workspace())
        .bind(hash.to_vec())
        .bind(account);
        self.execute(query).await.map(drop)
    }

    /// Changes address and servers of an account that stays connected. Whether it may send, and wants peace, is found out anew.
    ///
    /// # Errors
    /// `Missing` when there is no such account, `Conflict` when another has the address.
    pub async fn update_account_settings(
        &mut self,
        id: AccountId,
        email: &Address,
        settings: &AccountSettings,
    ) -> Result<(), Error> {
        let query = sql("update accounts set email = $3, settings = $4, sending_refused = null, \
             rests_until = null, rests_over = null, rests = 0 \
             where workspace = $1 and id = $2")
        .bind(self.workspace())
        .bind(id)
        .bind(email.key())
        .bind(json_text(settings));
        changed(self.execute(query).await?)
    }

    /// Keeps what was learnt of the account's servers; nothing else of it changes.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn keep_account_settings(
        &mut self,
        id: AccountId,
        settings: &AccountSettings,
    ) -> Result<(), Error> {
        let query = sql("update accounts set settings = $3 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id)
            .bind(json_text(settings));
        changed(self.execute(query).await?)
    }

    /// Notes that the provider refuses the account's login for sending, or with `None` that it may be tried again.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn refuse_sending(&mut self, id: AccountId, said: Option<&str>) -> Result<(), Error> {
        let query = sql("update accounts set sending_refused = $3 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id)
            .bind(said.map(str::to_owned));
        changed(self.execute(query).await?)
    }

    /// Notes that the provider wants peace. One that ends sooner than what is noted changes nothing.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn rest_account(&mut self, id: AccountId, rest: &Rest) -> Result<(), Error> {
        let query = sql("update accounts set rests_until = $3, rests_over = $4, rests = $5 \
             where workspace = $1 and id = $2 and (rests_until is null or rests_until < $3)")
        .bind(self.workspace())
        .bind(id)
        .bind(rest.until)
        .bind(rest.over.clone())
        .bind(rest.times);
        self.execute(query).await.map(drop)
    }

    /// Takes mail for new that comes from then on.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn set_connected_at(&mut self, id: AccountId, at: Timestamp) -> Result<(), Error> {
        let query = sql("update accounts set connected_at = $3 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id)
            .bind(at);
        changed(self.execute(query).await?)
    }

    /// Has an account that fails count as failing since then.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn set_failing_since(&mut self, id: AccountId, at: Timestamp) -> Result<(), Error> {
        let query = sql("update accounts set failing_since = $3 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id)
            .bind(at);
        changed(self.execute(query).await?)
    }

    /// Has it borne in mind that what lies behind the account may be another mailbox from now on: the next session compares its
    /// mailboxes with what is known by the messages, and no UID of before counts.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn begin_generation(&mut self, id: AccountId) -> Result<(), Error> {
        let query = sql("update accounts set generation = generation + 1 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id);
        changed(self.execute(query).await?)
    }

    /// Follows another mailbox under the same account from now on: nothing is read on from where the former one was left.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn move_account(&mut self, id: AccountId, now: Timestamp) -> Result<(), Error> {
        self.begin_generation(id).await?;
        let query = sql("update accounts set connected_at = $3, last_checked_at = null \
             where workspace = $1 and id = $2")
        .bind(self.workspace())
        .bind(id)
        .bind(now);
        changed(self.execute(query).await?)?;
        let query = sql("delete from mailboxes where workspace = $1 and account = $2")
            .bind(self.workspace())
            .bind(id);
        self.execute(query).await.map(drop)
    }

    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn replace_credentials(
        &mut self,
        id: AccountId,
        credentials: &Credentials,
    ) -> Result<(), Error> {
        let query = sql("select key_id from accounts where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id);
        let row = self.fetch_optional(query).await?.ok_or(Error::Missing)?;
        let key = row.get::<Option<Uuid>>("key_id")?.ok_or(Error::Missing)?;
        let sealed = credentials::seal(self, key, &place(id), credentials).await?;
        let query = sql("update accounts set credentials = $3 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id)
            .bind(sealed);
        changed(self.execute(query).await?)?;
        self.note_act(Act::AccountReconnected, id).await
    }

    /// Forgets what logs in, and what a provider has granted. The account's key stays, since it seals its mail too.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn forget_credentials(&mut self, id: AccountId) -> Result<(), Error> {
        let query = sql("update accounts set credentials = $3 where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id)
            .bind(Vec::new());
        changed(self.execute(query).await?)?;
        self.forget_grant(id).await?;
        self.note_act(Act::AccountDisconnected, id).await
    }

    /// Sets the status. An account fails from its first error until anything else becomes of it.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn set_account_status(&mut self, id: AccountId, status: &AccountStatus) -> Result<(), Error> {
        let query = sql("update accounts set state = $3, state_since = $4, detail = $5, advice = $6, \
             last_synced_at = $7, last_checked_at = $8, next_attempt_at = $9, progress = $10, \
             failing_since = case when $3 in ('error', 'throttled') then coalesce(failing_since, $4) end \
             where workspace = $1 and id = $2")
        .bind(self.workspace())
        .bind(id)
        .bind(word(&status.state))
        .bind(status.since)
        .bind(status.detail.clone())
        .bind(status.advice.clone())
        .bind(status.last_synced_at)
        .bind(status.last_checked_at)
        .bind(status.next_attempt_at)
        .bind(status.progress.as_ref().map(json_text));
        changed(self.execute(query).await?)
    }

    /// Adds a line to the error log, or raises the count of the line with the same code.
    ///
    /// # Errors
    /// `Missing` when there is no such account.
    pub async fn log_account_error(&mut self, account: AccountId, error: &AccountError) -> Result<(), Error> {
        let query = sql("insert into account_errors (workspace, account, code, message, advice, count, at) \
             values ($1, $2, $3, $4, $5, $6, $7) on conflict (workspace, account, code) do update set \
             message = excluded.message, advice = excluded.advice, at = excluded.at, \
             count = account_errors.count + excluded.count")
        .bind(self.workspace())
        .bind(account)
        .bind(error.code.as_str())
        .bind(error.message.as_str())
        .bind(error.advice.as_str())
        .bind(error.count)
        .bind(error.at);
        self.execute(query).await?;
        let code = error.code.clone();
        self.on_commit(|_| metrics::counter!("mailweave_account_errors_total", "code" => code).increment(1));
        Ok(())
    }
}

impl Session {
    pub async fn account(&mut self, id: AccountId) -> Result<Option<Account>, Error> {
        let query = sql(format!("select {COLUMNS} from accounts where workspace = $1 and id = $2"))
            .bind(self.workspace())
            .bind(id);
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }

    /// Those of the addresses with which other accounts of the workspace log in or did, be they disconnected or deleted since. One
    /// that the account itself had before is none of another's.
    pub async fn other_accounts_at(
        &mut self,
        own: AccountId,
        addresses: &[Address],
    ) -> Result<HashSet<Address>, Error> {
        let (present, hasher) = (self.account(own).await?, self.text_hasher().await?);
        let others = addresses.iter().filter(|one| present.as_ref().is_none_or(|own| own.email != **one));
        let by_hash: HashMap<[u8; 16], &Address> = others.map(|one| (hasher.hash(one.key()), one)).collect();
        let hashes: Vec<[u8; 16]> = by_hash.keys().copied().collect();
        let mut found = HashSet::new();
        for some in hashes.chunks(LIST_MAX) {
            let query = Statement::new("select hash from account_addresses where workspace = ")
                .arg(self.workspace())
                .text(" and account <> ")
                .arg(own)
                .text(" and hash in ")
                .list(some)
                .query();
            for row in self.fetch_all(query).await? {
                found.extend(by_hash.get(&row.get::<[u8; 16]>("hash")?).map(|address| (*address).clone()));
            }
        }
        Ok(found)
    }

    /// Newest first.
    pub async fn accounts(&mut self, page: &Page, filter: &AccountFilter) -> Result<Vec<Account>, Error> {
        let query = Statement::new(format!("select {COLUMNS} from accounts where workspace = "))
            .arg(self.workspace())
            .given(" and user_id = ", filter.user)
            .given(" and state = ", filter.state.map(|state| word(&state)))
            .page(page, "connected_at", "id");
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// What logs in to an account. `None` when there is no such account.
    ///
    /// # Errors
    /// `Missing` when the account's key was destroyed, `Corrupt` when the text was altered or moved here from another row.
    pub async fn credentials(&mut self, id: AccountId) -> Result<Option<Credentials>, Error> {
        let query = sql("select credentials, key_id from accounts where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id);
        let Some(row) = self.fetch_optional(query).await? else { return Ok(None) };
        let sealed: Vec<u8> = row.get("credentials")?;
        // Of one that was erased there is neither.
        let key = row.get::<Option<Uuid>>("key_id")?.ok_or(Error::Missing)?;
        credentials::open(self, key, &place(id), &sealed).await.map(Some)
    }

    /// Since when an account has failed without anything having gone well in between; `None` when it does not fail.
    pub async fn failing_since(&mut self, id: AccountId) -> Result<Option<Timestamp>, Error> {
        let query = sql("select failing_since from accounts where workspace = $1 and id = $2")
            .bind(self.workspace())
            .bind(id);
        Ok(self.fetch_optional(query).await?.map(|row| row.get("failing_since")).transpose()?.flatten())
    }

    /// The error log, latest first.
    pub async fn account_errors(&mut self, account: AccountId) -> Result<Vec<AccountError>, Error> {
        let query = sql("select code, message, advice, count, at from account_errors \
             where workspace = $1 and account = $2 order by at desc, code limit $3")
        .bind(self.workspace())
        .bind(account)
        .bind(ERRORS_MAX);
        self.fetch_all(query).await?.iter().map(read_error).collect()
    }
}

fn place(account: AccountId) -> Place {
    Place::new("accounts", "credentials", account.uuid())
}

fn read(row: &Row) -> Result<Account, Error> {
    Ok(Account {
        id: row.id("id")?,
        user_id: row.id("user_id")?,
        email: row.address("email")?,
        settings: row.json("settings")?,
        status: AccountStatus {
            state: row.word("state")?,
            since: row.get("state_since")?,
            detail: row.get("detail")?,
            advice: row.get("advice")?,
            last_synced_at: row.get("last_synced_at")?,
            last_checked_at: row.get("last_checked_at")?,
            next_attempt_at: row.get("next_attempt_at")?,
            progress: row.opt_json("progress")?,
        },
        sending_refused: row.get("sending_refused")?,
        rest: read_rest(row)?,
        connected_at: row.get("connected_at")?,
        generation: row.get("generation")?,
        is_granted: row.get("is_granted")?,
    })
}

fn read_rest(row: &Row) -> Result<Option<Rest>, Error> {
    let until: Option<Timestamp> = row.get("rests_until")?;
    let over: Option<String> = row.get("rests_over")?;
    let Some((until, over)) = until.zip(over) else { return Ok(None) };
    Ok(Some(Rest { until, over, times: row.get("rests")? }))
}

fn read_error(row: &Row) -> Result<AccountError, Error> {
    Ok(AccountError {
        at: row.get("at")?,
        code: row.get("code")?,
        message: row.get("message")?,
        advice: row.get("advice")?,
        count: row.get("count")?,
    })
}

impl ReadSystem {
    /// How many accounts there are in each state, in all workspaces; states without one are left out.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn accounts_by_state(&mut self) -> Result<Vec<(AccountState, i64)>, Error> {
        let rows =
            self.fetch_all(sql("select state, count(*) as accounts from accounts group by state")).await?;
        rows.iter().map(|row| Ok((row.word("state")?, row.get("accounts")?))).collect()
    }
}
