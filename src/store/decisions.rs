//! Why each message seen was taken or left, found by keyed hashes of its ids and addresses.
//!
//! Not here: deciding (`core::policy`). Of mail that was left nothing is kept by which it could be read or guessed: the
//! hashes' key is sealed, so that nobody can try names against a stolen database.

use std::collections::HashSet;

use blake3::Hasher as Blake3;
use jiff::Timestamp;
use zeroize::Zeroizing;

use super::{
    Error, Page, Session, Tx,
    columns::word,
    mint,
    sightings::read_place,
    sql::{Arg, Row, sql},
    statement::{LIST_MAX, Statement},
};
use crate::core::{
    account::MailboxUid,
    decision::{Decision, HashRole, NewDecision, Ruling, Verdict},
    ids::{AccountId, DecisionId, MessageKey, UserId},
    policy::{self, ANSWERS_OTHER_WORKSPACE, FINAL_RULES, SENT_BY_OTHER_WORKSPACE},
};

const COLUMNS: &str = "id, at, verdict, rule, reason, preset, policy_version, message, account, via";

/// What the key of the hashes is derived for, and from the workspace's key.
const HASH_PURPOSE: &str = "mailweave 2025 decision hashes";

/// The policy that a decision was made under.
#[derive(Debug, Clone, Copy)]
pub struct PolicyStamp<'a> {
    pub preset: &'a str,
    pub version: i64,
}

/// Which decisions to list; what is `None` does not count.
#[derive(Debug, Clone, Default)]
pub struct DecisionFilter {
    /// Of Message-IDs and addresses (`Session::hash_of`): those that have them all.
    pub hashes: Vec<[u8; 16]>,
    /// Of a Message-ID: those of the mail that has it, and not of mail that only names it.
    pub own_id: Option<[u8; 16]>,
    /// Of an address: those of the mail that it is on. An id that is written alike is not meant.
    pub address: Option<[u8; 16]>,
    pub account: Option<AccountId>,
    pub verdict: Option<Verdict>,
    pub message: Option<MessageKey>,
    /// What this user may be told: all that was filed, and of the rest what came to him.
    pub told: Option<UserId>,
}

/// An id that mail has or names which this workspace sent, or left out for being another's.
#[derive(Debug, Clone)]
pub struct TracedId {
    pub hash: [u8; 16],
    pub role: HashRole,
    /// The rule that left it out; `None` of what this workspace sent.
    pub rule: Option<String>,
}

/// Hashes ids and addresses of one workspace.
pub struct TextHasher(Zeroizing<[u8; 32]>);

impl TextHasher {
    /// Equal texts of one workspace have equal hashes; texts of two workspaces cannot be compared.
    #[must_use]
    pub fn hash(&self, text: &str) -> [u8; 16] {
        let mut hash = [0; 16];
        Blake3::new_keyed(&self.0).update(text.as_bytes()).finalize_xof().fill(&mut hash);
        hash
    }
}

impl Tx {
    /// Writes a decision down. A later decision on the same place in a mailbox replaces the earlier.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn decide(
        &mut self,
        decision: &NewDecision,
        policy: PolicyStamp<'_>,
        now: Timestamp,
    ) -> Result<DecisionId, Error> {
        let minted = mint::<DecisionId>();
        let at = decision.seen_at.as_ref();
        let query = sql("insert into decisions (workspace, id, at, verdict, rule, reason, preset, policy_version, \
             via, message, account, mailbox, uid_validity, uid, user_id, written_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, \
             coalesce((select user_id from accounts where workspace = $1 and id = $11), $15), $16) \
             on conflict (workspace, account, mailbox, uid_validity, uid) where account is not null do update set \
             at = excluded.at, verdict = excluded.verdict, rule = excluded.rule, reason = excluded.reason, \
             preset = excluded.preset, policy_version = excluded.policy_version, via = excluded.via, \
             message = excluded.message, user_id = excluded.user_id, written_at = excluded.written_at \
             returning id")
        .bind(self.workspace())
        .bind(minted)
        .bind(now)
        .bind(word(&decision.ruling.verdict))
        .bind(decision.ruling.rule)
        .bind(decision.ruling.reason)
        .bind(policy.preset)
        .bind(policy.version)
        .bind(decision.via)
        .bind(decision.message)
        .bind(at.map(|at| at.account))
        .bind(at.map(|at| at.mailbox.as_slice()))
        .bind(at.map(|at| at.uid_validity))
        .bind(at.map(|at| at.uid))
        .bind(decision.user)
        .bind(decision.written_at);
        let id: DecisionId = self.fetch_one(query).await?.id("id")?;
        if id != minted {
            let query = sql("delete from decision_hashes where workspace = $1 and decision = $2")
                .bind(self.workspace())
                .bind(id);
            self.execute(query).await?;
        }
        self.put_decision_hashes(id, decision).await?;
        let (via, verdict) = (decision.via, word(&decision.ruling.verdict));
        self.on_commit(move |_| {
            metrics::counter!("mailweave_messages_total", "via" => via, "verdict" => verdict).increment(1);
        });
        Ok(id)
    }

    async fn put_decision_hashes(&mut self, id: DecisionId, decision: &NewDecision) -> Result<(), Error> {
        let workspace = self.workspace();
        for some in decision.hashes.chunks(LIST_MAX) {
            let rows = some.iter().map(|hash| -> [Arg; 4] {
                [workspace.into(), hash.hash.into(), id.into(), hash.role.as_str().into()]
            });
            // Mail may name its own id among its references: the first role given stands.
            let query =
                Statement::new("insert into decision_hashes (workspace, hash, decision, role) values ")
                    .rows(rows)
                    .text(" on conflict (workspace, hash, decision) do nothing")
                    .query();
            self.execute(query).await?;
        }
        Ok(())
    }

    /// Judges mail at a place anew without having seen it again: rule and reason change, the hashes stay. False when
    /// nothing was decided there.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn revise_decision(
        &mut self,
        at: &MailboxUid,
        ruling: &Ruling,
        policy: PolicyStamp<'_>,
        now: Timestamp,
    ) -> Result<bool, Error> {
        let query = sql("update decisions set at = $6, verdict = $7, rule = $8, reason = $9, preset = $10, \
             policy_version = $11 \
             where workspace = $1 and account = $2 and mailbox = $3 and uid_validity = $4 and uid = $5")
        .bind(self.workspace())
        .bind(at.account)
        .bind(at.mailbox.as_slice())
        .bind(at.uid_validity)
        .bind(at.uid)
        .bind(now)
        .bind(word(&ruling.verdict))
        .bind(ruling.rule)
        .bind(ruling.reason)
        .bind(policy.preset)
        .bind(policy.version);
        Ok(self.execute(query).await? > 0)
    }
}

impl Session {
    /// The hash of a Message-ID, or of an address by its key, as decisions hold it.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn hash_of(&mut self, text: &str) -> Result<[u8; 16], Error> {
        Ok(self.text_hasher().await?.hash(text))
    }

    /// Hashes many texts with one look at the database.
    ///
    /// # Errors
    /// `Missing` when the workspace has been deleted.
    pub async fn text_hasher(&mut self) -> Result<TextHasher, Error> {
        let id = self.workspace_key().await?;
        Ok(TextHasher(self.key(id).await?.derive(HASH_PURPOSE)))
    }

    /// How many different people who are no users have had copies kept aside at a user's capture addresses since then.
    pub async fn strangers_held(&mut self, user: UserId, since: Timestamp) -> Result<u64, Error> {
        let query = sql("select count(distinct h.hash) as strangers from decisions d cross join decision_hashes h \
             where h.workspace = d.workspace and h.decision = d.id and h.role = 'author' and d.workspace = $1 \
             and d.verdict = 'held' and d.rule = $4 and d.at >= $3 and d.user_id = $2 and d.via = 'capture'")
        .bind(self.workspace())
        .bind(user)
        .bind(since)
        .bind(policy::capture_sender_unknown().rule);
        self.fetch_one(query).await?.get("strangers")
    }

    /// Newest first.
    pub async fn decisions(&mut self, page: &Page, filter: &DecisionFilter) -> Result<Vec<Decision>, Error> {
        let workspace = self.workspace();
        // Few are about one message or person: they are looked up, and not looked for among all.
        let own_id = filter.own_id.map(|hash| (hash, " = 'id'"));
        let address = filter.address.map(|hash| (hash, " in ('author', 'address')"));
        let hashes: Vec<([u8; 16], &str)> =
            filter.hashes.iter().map(|hash| (*hash, "")).chain(own_id).chain(address).collect();
        let about: String =
            (0..hashes.len()).map(|number| format!("decision_hashes h{number} cross join ")).collect();
        let mut query =
            Statement::new(format!("select {COLUMNS} from {about}decisions d where d.workspace = "))
                .arg(workspace);
        for (number, (hash, roles)) in hashes.into_iter().enumerate() {
            query = query
                .text(&format!(" and d.id = h{number}.decision and h{number}.workspace = "))
                .arg(workspace)
                .text(&format!(" and h{number}.hash = "))
                .arg(hash);
            if !roles.is_empty() {
                query = query.text(&format!(" and h{number}.role{roles}"));
            }
        }
        if let Some(user) = filter.told {
            query = query.text(" and (d.verdict = 'synced' or d.user_id = ").arg(user).text(")");
        }
        let query = query
            .given(" and d.account = ", filter.account)
            .given(" and d.verdict = ", filter.verdict.map(|verdict| word(&verdict)))
            .given(" and d.message = ", filter.message)
            .decision_seen(self.viewer)
            .page(page, "d.at", "d.id");
        self.fetch_all(query).await?.iter().map(read).collect()
    }

    /// Those of the UIDs of a mailbox at which something was decided.
    pub async fn decided_uids(
        &mut self,
        account: AccountId,
        mailbox: &[u8],
        uid_validity: u64,
        uids: &[u32],
    ) -> Result<HashSet<u32>, Error> {
        self.uids_at("decisions", (account, mailbox, uid_validity), uids).await
    }

    /// The UIDs of a mailbox whose mail has one of these Message-IDs of its own, each with the hash it was found by.
    pub async fn decided_with_ids(
        &mut self,
        account: AccountId,
        mailbox: &[u8],
        uid_validity: u64,
        hashes: &[[u8; 16]],
    ) -> Result<Vec<([u8; 16], u32)>, Error> {
        let mut found = Vec::new();
        for some in hashes.chunks(LIST_MAX) {
            let query = Statement::new(
                "select h.hash, d.uid from decision_hashes h cross join decisions d \
                 where d.workspace = h.workspace and d.id = h.decision and h.role = 'id' and h.workspace = ",
            )
            .arg(self.workspace())
            .text(" and h.hash in ")
            .list(some)
            .text(" and d.account = ")
            .arg(account)
            .text(" and d.mailbox = ")
            .arg(mailbox)
            .text(" and d.uid_validity = ")
            .arg(uid_validity)
            .text(" order by d.uid")
            .query();
            for row in self.fetch_all(query).await? {
                found.push((row.get("hash")?, row.get("uid")?));
            }
        }
        Ok(found)
    }

    /// Decisions by which mail was skipped that has one of these ids or names one: it may turn out to belong. Mail left out
    /// by a rule that nothing changes is not among it.
    pub async fn skipped_with_ids(
        &mut self,
        hashes: &[[u8; 16]],
    ) -> Result<Vec<(AccountId, DecisionId)>, Error> {
        let mut found = Vec::new();
        for some in hashes.chunks(LIST_MAX) {
            let query = Statement::new(
                // SQLite would rather read all that was ever skipped: a cross join it does in the order it is written.
                "select distinct d.account, d.id from decision_hashes h cross join decisions d \
                 where d.workspace = h.workspace and d.id = h.decision and d.verdict = 'skipped' \
                 and d.account is not null and h.role in ('id', 'reference') and d.rule not in ",
            )
            .list(&FINAL_RULES)
            .text(" and h.workspace = ")
            .arg(self.workspace())
            .text(" and h.hash in ")
            .list(some)
            .text(" order by d.id")
            .query();
            for row in self.fetch_all(query).await? {
                let skipped = (row.id("account")?, row.id("id")?);
                found.extend(Some(skipped).filter(|skipped| !found.contains(skipped)));
            }
        }
        Ok(found)
    }

    /// Of mail that an account's user was spared: by these hashes of its own ids if it was left out by this rule, each with the
    /// hash of every person on it; or of the ids it names if it was left out by another, each with that of its author, unless a
    /// machine wrote it.
    pub async fn skipped_pairs(
        &mut self,
        account: AccountId,
        (role, rule): (HashRole, &str),
        hashes: &[[u8; 16]],
    ) -> Result<HashSet<([u8; 16], [u8; 16])>, Error> {
        let mut found = HashSet::new();
        for some in hashes.chunks(LIST_MAX) {
            let query = Statement::new(
                "select i.hash as id, p.hash as person from decision_hashes i cross join decisions d \
                 cross join decision_hashes p where d.workspace = i.workspace and d.id = i.decision \
                 and p.workspace = d.workspace and p.decision = d.id \
                 and d.verdict = 'skipped' and i.role = ",
            )
            .arg(role.as_str())
            .text(match role {
                HashRole::Id => " and p.role in ('author', 'address') and d.rule = ",
                _ => " and p.role = 'author' and d.rule <> ",
            })
            .arg(rule)
            .text(" and i.workspace = ")
            .arg(self.workspace())
            .text(" and i.hash in ")
            .list(some)
            .text(" and d.account = ")
            .arg(account)
            .query();
            for row in self.fetch_all(query).await? {
                found.insert((row.get("id")?, row.get("person")?));
            }
        }
        Ok(found)
    }

    /// Those of these hashes of Message-IDs under which mail of an account was decided on before then in a mailbox that it follows
    /// other than INBOX: one of sent mail.
    pub async fn sent_before(
        &mut self,
        account: AccountId,
        hashes: &[[u8; 16]],
        before: Timestamp,
    ) -> Result<HashSet<[u8; 16]>, Error> {
        let mut found = HashSet::new();
        for some in hashes.chunks(LIST_MAX) {
            let query = Statement::new(
                "select distinct h.hash from decision_hashes h cross join decisions d \
                 where d.workspace = h.workspace and d.id = h.decision and h.role = 'id' and h.workspace = ",
            )
            .arg(self.workspace())
            .text(" and h.hash in ")
            .list(some)
            .text(" and d.account = ")
            .arg(account)
            .text(" and d.at < ")
            .arg(before)
            .text(
                " and not exists (select 1 from mailboxes b where b.workspace = d.workspace \
                 and b.account = d.account and b.name = d.mailbox and b.role = 'inbox')",
            )
            .query();
            for row in self.fetch_all(query).await? {
                found.insert(row.get("hash")?);
            }
        }
        Ok(found)
    }

    /// What is known of mail that has one of these ids, or names one, and was sent from this workspace, or left out for being
    /// another's.
    pub async fn traced_ids(&mut self, hashes: &[[u8; 16]]) -> Result<Vec<TracedId>, Error> {
        let mut found = Vec::new();
        let elsewhere = [SENT_BY_OTHER_WORKSPACE, ANSWERS_OTHER_WORKSPACE];
        for some in hashes.chunks(LIST_MAX) {
            let query = Statement::new(
                "select distinct h.hash, h.role, case when d.verdict = 'skipped' then d.rule end as rule \
                 from decision_hashes h cross join decisions d where d.workspace = h.workspace and d.id = h.decision \
                 and h.role in ('id', 'reference') and (d.via in ('submission', 'api') or d.rule in ",
            )
            .list(&elsewhere)
            .text(") and h.workspace = ")
            .arg(self.workspace())
            .text(" and h.hash in ")
            .list(some)
            .query();
            for row in self.fetch_all(query).await? {
                found.push(TracedId {
                    hash: row.get("hash")?,
                    role: row.word("role")?,
                    rule: row.get("rule")?,
                });
            }
        }
        Ok(found)
    }

    /// Where mail lies today that a decision skipped or put off; `None` when something else has been decided since, or
    /// nothing.
    pub async fn skipped_at(&mut self, decision: DecisionId) -> Result<Option<MailboxUid>, Error> {
        let query = sql("select account, mailbox, uid_validity, uid from decisions \
             where workspace = $1 and id = $2 and verdict in ('skipped', 'deferred')");
        let row = self.fetch_optional(query.bind(self.workspace()).bind(decision)).await?;
        Ok(row.as_ref().map(read_place).transpose()?.flatten())
    }
}

fn read(row: &Row) -> Result<Decision, Error> {
    Ok(Decision {
        id: row.id("id")?,
        at: row.get("at")?,
        verdict: row.word("verdict")?,
        rule: row.get("rule")?,
        reason: row.get("reason")?,
        preset: row.get("preset")?,
        policy_version: row.get("policy_version")?,
        message_id: row.opt_id("message")?,
        account_id: row.opt_id("account")?,
        via: row.get("via")?,
    })
}
