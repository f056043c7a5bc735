//! How much of what users write to contacts is in the CRM, and what comparing mailboxes with their servers has found.
//!
//! Not here: comparing (`flow::sync`). Of mail that was left out only keyed hashes are at hand: whose it is and whether a
//! contact is on it is found by hashing what is known.

use std::collections::{HashMap, HashSet};

use jiff::Timestamp;

use super::{
    Error, Session, TextHasher, Tx,
    columns::{changed, stored_count},
    sql::sql,
    statement::{LIST_MAX, Statement},
};
use crate::{
    core::{
        account::{Comparison, Coverage},
        ids::{AccountId, DecisionId},
        people::User,
    },
    mail::Address,
};

/// Hashes of mail left out that are looked at: of some ten thousand mails, the newest. Nobody writes more in the time asked for.
const LEFT_OUT_ROWS_MAX: u32 = 100_000;

type Hash = [u8; 16];

/// Mail that a user wrote and that was left out: its own id, and who is on it.
#[derive(Default)]
struct LeftOut {
    id: Option<Hash>,
    people: Vec<Hash>,
}

impl Tx {
    /// Notes that a mailbox was compared with its server: how many messages that were, and how many of them had been passed
    /// over and were taken in now.
    ///
    /// # Errors
    /// `Missing` when the mailbox is not followed.
    pub async fn note_comparison(
        &mut self,
        (account, mailbox): (AccountId, &[u8]),
        (compared, healed): (u64, u64),
        now: Timestamp,
    ) -> Result<(), Error> {
        let query = sql("update mailboxes set compared_at = $4, compared = $5, healed = healed + $6 \
             where workspace = $1 and account = $2 and name = $3")
        .bind(self.workspace())
        .bind(account)
        .bind(mailbox)
        .bind(now)
        .bind(stored_count(compared))
        .bind(stored_count(healed));
        changed(self.execute(query).await?)
    }
}

impl Session {
    /// What was found for each followed mailbox of an account, by name.
    pub async fn comparisons(&mut self, account: AccountId) -> Result<Vec<Comparison>, Error> {
        let query = sql("select name, compared_at, compared, healed from mailboxes \
             where workspace = $1 and account = $2 order by name")
        .bind(self.workspace())
        .bind(account);
        let rows = self.fetch_all(query).await?;
        let read = |row: &super::Row| {
            Ok(Comparison {
                mailbox: row.get("name")?,
                at: row.get("compared_at")?,
                messages: row.get("compared")?,
                healed: row.get("healed")?,
            })
        };
        rows.iter().map(read).collect()
    }

    /// What this user has written to contacts since then, as far as it was seen, and how much of it is filed.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn coverage(&mut self, user: &User, since: Timestamp) -> Result<Coverage, Error> {
        let query = sql("select count(*) as filed, count(case when exists (select 1 from sightings s \
             where s.workspace = m.workspace and s.message = m.id and s.via = 'capture') then 1 end) as copied \
             from messages m where m.workspace = $1 and m.author_role = 'user' and m.author_id = $2 \
             and m.direction = 'outbound' and m.sent_at >= $3 and exists (select 1 from message_contacts c \
             where c.workspace = m.workspace and c.message = m.id and c.role in ('to', 'cc', 'bcc'))")
        .bind(self.workspace())
        .bind(user.id)
        .bind(since);
        let row = self.fetch_one(query).await?;
        let captured: u64 = row.get("filed")?;
        let left_out = self.left_out(user, since).await?;
        Ok(Coverage {
            sent: captured.saturating_add(left_out),
            captured,
            by_capture_address: row.get("copied")?,
        })
    }

    /// Mails of the user with contacts on them that were left out, each once, however many mailboxes show it.
    async fn left_out(&mut self, user: &User, since: Timestamp) -> Result<u64, Error> {
        let key = self.text_hasher().await?;
        let own: Vec<Hash> =
            std::iter::once(&user.email).chain(&user.aliases).map(|own| key.hash(own.key())).collect();
        let mut mails = self.left_out_by(&own, since).await?;
        mails.retain(|mail| !mail.people.is_empty());
        let ids: Vec<Hash> = mails.iter().filter_map(|mail| mail.id).collect();
        let filed = self.filed_ids(&ids).await?;
        mails.retain(|mail| mail.id.is_none_or(|id| !filed.contains(&id)));
        let people: HashSet<Hash> = mails.iter().flat_map(|mail| mail.people.iter().copied()).collect();
        let contacts = self.contacts_hashed(&key, &people).await?;
        mails.retain(|mail| mail.people.iter().any(|person| contacts.contains(person)));
        let mut ids = HashSet::new();
        let each_once = mails.iter().filter(|mail| mail.id.is_none_or(|id| ids.insert(id)));
        Ok(each_once.count() as u64)
    }

    async fn left_out_by(&mut self, authors: &[Hash], since: Timestamp) -> Result<Vec<LeftOut>, Error> {
        // Drafts were never sent, what stays in the house is no mail with contacts, and another workspace's is there.
        let query = Statement::new(
            "select d.id, o.role, o.hash from decision_hashes h cross join decisions d cross join decision_hashes o \
             where h.role = 'author' and d.workspace = h.workspace and d.id = h.decision and d.verdict <> 'synced' \
             and d.account is not null and d.rule not in ('draft', 'internal', 'sent_by_other_workspace', 'answers_other_workspace', \
             'replied_by_other_workspace') and o.workspace = d.workspace \
             and o.decision = d.id and o.role in ('id', 'address') and h.workspace = ",
        )
        .arg(self.workspace())
        .text(" and h.hash in ")
        .list(authors)
        .text(" and coalesce(d.written_at, d.at) >= ")
        .arg(since)
        .text(" order by d.id desc limit ")
        .arg(LEFT_OUT_ROWS_MAX)
        .query();
        let mut mails: HashMap<DecisionId, LeftOut> = HashMap::new();
        for row in self.fetch_all(query).await? {
            let mail = mails.entry(row.id("id")?).or_default();
            let hash: Hash = row.get("hash")?;
            if row.get::<String>("role")? == "id" {
                mail.id = Some(hash);
            } else {
                mail.people.push(hash);
            }
        }
        Ok(mails.into_values().collect())
    }

    /// Those of the ids whose mail was filed all the same, by another of its copies.
    async fn filed_ids(&mut self, ids: &[Hash]) -> Result<HashSet<Hash>, Error> {
        let mut filed = HashSet::new();
        for some in ids.chunks(LIST_MAX) {
            let query = Statement::new(
                "select h.hash from decision_hashes h cross join decisions d where d.workspace = h.workspace \
                 and d.id = h.decision and d.verdict = 'synced' and h.role = 'id' and h.workspace = ",
            )
            .arg(self.workspace())
            .text(" and h.hash in ")
            .list(some)
            .query();
            for row in self.fetch_all(query).await? {
                filed.insert(row.get("hash")?);
            }
        }
        Ok(filed)
    }

    /// Those of the hashes that are of an address of a contact, users left aside. Every contact is looked at until all are found.
    async fn contacts_hashed(
        &mut self,
        key: &TextHasher,
        people: &HashSet<Hash>,
    ) -> Result<HashSet<Hash>, Error> {
        let (mut found, mut after) = (HashSet::new(), String::new());
        while found.len() < people.len() {
            let query = sql("select distinct a.address from contact_addresses a where a.workspace = $1 \
                 and a.address > $2 and not exists (select 1 from user_addresses u \
                 where u.workspace = a.workspace and u.address = a.address) order by a.address limit $3")
            .bind(self.workspace())
            .bind(after)
            .bind(stored_count(LIST_MAX as u64));
            let rows = self.fetch_all(query).await?;
            let addresses: Vec<Address> =
                rows.iter().map(|row| row.address("address")).collect::<Result<_, _>>()?;
            let Some(last) = addresses.last() else { break };
            after = last.key().to_owned();
            let hashes = addresses.iter().map(|address| key.hash(address.key()));
            found.extend(hashes.filter(|hash| people.contains(hash)));
        }
        Ok(found)
    }
}
