//! What a simulation of a policy asks: which of what is stored is there for other mail than the mail simulated.
//!
//! Not here: the simulation (`core::policy::simulate`). Nothing is written.

use std::collections::HashSet;

use jiff::Timestamp;

use super::{
    Error, Session,
    statement::{LIST_MAX, Statement},
};
use crate::core::{
    account::MailboxUid,
    ids::{AccountId, ContactId, ConversationId},
};

impl Session {
    /// Those of these conversations that have a message which an account did not bring, or not alone.
    pub async fn conversations_beside(
        &mut self,
        account: AccountId,
        conversations: &[ConversationId],
    ) -> Result<HashSet<ConversationId>, Error> {
        let mut found = HashSet::new();
        for some in conversations.chunks(LIST_MAX) {
            let query = Statement::new("select distinct m.conversation from messages m where m.workspace = ")
                .arg(self.workspace())
                .text(" and m.conversation in ")
                .list(some)
                .text(
                    " and (not exists (select 1 from sightings s where s.workspace = m.workspace and s.message = m.id) \
                     or exists (select 1 from sightings s where s.workspace = m.workspace and s.message = m.id \
                     and (s.account is null or s.account <> ",
                )
                .arg(account)
                .text(")))")
                .query();
            for row in self.fetch_all(query).await? {
                found.insert(row.id("conversation")?);
            }
        }
        Ok(found)
    }

    /// Where the messages of these conversations lie in an account.
    pub async fn places_of_conversations(
        &mut self,
        account: AccountId,
        conversations: &[ConversationId],
    ) -> Result<Vec<(ConversationId, MailboxUid)>, Error> {
        let mut found = Vec::new();
        for some in conversations.chunks(LIST_MAX) {
            let query = Statement::new(
                "select m.conversation, s.mailbox, s.uid_validity, s.uid from messages m cross join sightings s \
                 where s.workspace = m.workspace and s.message = m.id and m.workspace = ",
            )
            .arg(self.workspace())
            .text(" and m.conversation in ")
            .list(some)
            .text(" and s.account = ")
            .arg(account)
            .query();
            for row in self.fetch_all(query).await? {
                let mailbox = row.get("mailbox")?;
                let (uid_validity, uid) = (row.get("uid_validity")?, row.get("uid")?);
                found.push((row.id("conversation")?, MailboxUid { account, mailbox, uid_validity, uid }));
            }
        }
        Ok(found)
    }

    /// Those of these contacts that mail of an account made, not a copy at a capture address and nobody's hand, since then.
    pub async fn contacts_made_by_mail(
        &mut self,
        contacts: &[ContactId],
        since: Timestamp,
    ) -> Result<HashSet<ContactId>, Error> {
        let mut found = HashSet::new();
        for some in contacts.chunks(LIST_MAX) {
            let query = Statement::new("select id from contacts where workspace = ")
                .arg(self.workspace())
                .text(" and id in ")
                .list(some)
                .text(" and created_by in ('sent', 'exchange') and created_at >= ")
                .arg(since)
                .query();
            for row in self.fetch_all(query).await? {
                found.insert(row.id("id")?);
            }
        }
        Ok(found)
    }
}
