//! A message as it is shown: its rows, and its text read from the raw bytes at the time of asking.
//!
//! Not here: routes. HTML is sanitised; Bcc is shown only of mail that a user of this workspace wrote.

use std::collections::HashMap;

use axum::Json;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;

use super::{
    Api,
    openapi::{AuthorRoleWord, ContactRoleWord, DirectionWord, KindWord, SubmissionStateWord, ViaWord},
    page::{self, Limit, List},
    problem::Problem,
    stored_message,
    verification_view::VerificationView,
};
use crate::{
    core::{
        account::uid_validity_of,
        ids::{AccountId, AttachmentId, ContactId, ConversationId, Id as _, MessageKey, WorkspaceId},
        message::{
            AttachmentSummary, Author, ContactRole, Direction, ForwardedBy, Sighting, SightingRow,
            SkippedFile, StoredMessage,
        },
        submission::{RecipientRole, RecipientState, Submission, SubmissionState},
    },
    imap::MailboxName,
    mail::{
        Address, Kind, Message, MessageId, Party,
        forward::{self, Certainty, Forwarded},
        reply, sanitise,
    },
    store::{self, PageKey, Session, Verification},
};

/// Octets of text on one page of messages: then the page ends, however many were asked for.
const PAGE_TEXT_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Octets of messages that are read for one page, with everything attached to them; one is read however large it is.
const PAGE_RAW_BYTES_MAX: u64 = 64 * 1024 * 1024;

#[derive(Serialize, ToSchema)]
#[schema(as = Message)]
pub(super) struct MessageView {
    #[schema(value_type = String)]
    id: MessageKey,
    #[schema(value_type = String)]
    conversation_id: ConversationId,
    /// Without angle brackets.
    #[schema(value_type = Option<String>)]
    rfc822_message_id: Option<MessageId>,
    #[schema(value_type = DirectionWord)]
    direction: Direction,
    #[schema(value_type = KindWord)]
    kind: Kind,
    author: AuthorView,
    /// Of mail that a user passed on to his capture address and that is filed as its original author's.
    #[serde(skip_serializing_if = "Option::is_none")]
    forwarded: Option<ForwardedView>,
    from: Vec<PartyView>,
    to: Vec<PartyView>,
    cc: Vec<PartyView>,
    /// Of mail that a user of this workspace wrote.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    bcc: Vec<PartyView>,
    subject: Option<String>,
    /// When it was written.
    #[schema(value_type = String, format = DateTime)]
    date: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    received_at: Timestamp,
    /// Made of the HTML when there is only that.
    text: Option<String>,
    /// Sanitised: no scripts, no styles, nothing that is loaded from elsewhere.
    html: Option<String>,
    /// The new text, without quotes and signature.
    reply_text: Option<String>,
    attachments: Vec<AttachmentView>,
    contacts: Vec<ContactPart>,
    sightings: Vec<SightingView>,
    /// Of a message that came to a capture address.
    #[serde(skip_serializing_if = "Option::is_none")]
    verification: Option<VerificationView>,
    /// Of a message that is or was on its way out.
    #[serde(skip_serializing_if = "Option::is_none")]
    delivery: Option<DeliveryView>,
    /// What policy sends of it to others: they are none of its recipients.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    copies: Vec<CopyView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = Author)]
struct AuthorView {
    #[schema(value_type = AuthorRoleWord)]
    role: &'static str,
    /// The user's or contact's.
    #[serde(skip_serializing_if = "Option::is_none")]
    id: Option<String>,
    #[schema(value_type = Option<String>, format = Email)]
    email: Option<Address>,
    name: Option<String>,
}

impl AuthorView {
    fn of(author: &Author, party: Option<Party>) -> Self {
        let (role, id) = match author {
            Author::User(id) => ("user", Some(id.to_string())),
            Author::Contact(id) => ("contact", Some(id.to_string())),
            Author::Other => ("other", None),
        };
        let (email, name) = party.map_or((None, None), |party| (Some(party.address), party.name));
        Self { role, id, email, name }
    }
}

/// Who passed a message on.
#[derive(Serialize, ToSchema)]
#[schema(as = Forwarded)]
struct ForwardedView {
    by: AuthorView,
    /// How sure the author is: `high` where the mail is attached or the mail program says that it is forwarded, `medium` where
    /// the subject does and the text begins with the mail's header.
    #[schema(value_type = String)]
    confidence: Certainty,
    /// Whether the author's mail is attached; else it stands in the text.
    attached: bool,
    /// What the user wrote above it.
    #[serde(skip_serializing_if = "Option::is_none")]
    comment: Option<String>,
}

impl ForwardedView {
    fn of(by: ForwardedBy, comment: Option<String>) -> Self {
        let ForwardedBy { user, party, certainty, attached } = by;
        let by = AuthorView::of(&Author::User(user), Some(party));
        Self { by, confidence: certainty, attached, comment }
    }
}

#[derive(Serialize, ToSchema)]
#[schema(as = Party)]
struct PartyView {
    #[schema(value_type = String, format = Email)]
    email: Address,
    #[serde(skip_serializing_if = "Option::is_none")]
    name: Option<String>,
}

fn parties(list: Vec<Party>) -> Vec<PartyView> {
    list.into_iter().map(|Party { address, name }| PartyView { email: address, name }).collect()
}

#[derive(Serialize, ToSchema)]
#[schema(as = Attachment)]
struct AttachmentView {
    #[schema(value_type = String)]
    id: AttachmentId,
    filename: Option<String>,
    content_type: String,
    /// Decoded octets.
    size: u64,
    /// In hexadecimal.
    sha256: String,
    /// What `cid:` links of the HTML name.
    #[serde(skip_serializing_if = "Option::is_none")]
    content_id: Option<String>,
    /// Set when policy kept the content out of the CRM: it cannot be had here.
    #[serde(skip_serializing_if = "Option::is_none")]
    skipped: Option<SkippedView>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = SkippedAttachment)]
struct SkippedView {
    /// `attachments_off`, `type` or `too_large`.
    reason: String,
    /// The octets that an attachment may have.
    limit: Option<u64>,
}

impl From<AttachmentSummary> for AttachmentView {
    fn from(attachment: AttachmentSummary) -> Self {
        let AttachmentSummary { id, index: _, filename, content_type, size, sha256, content_id, skipped } =
            attachment;
        let skipped = skipped.map(|SkippedFile { reason, limit }| SkippedView { reason, limit });
        Self { id, filename, content_type, size, sha256, content_id, skipped }
    }
}

/// A contact and its part in the message.
#[derive(Serialize, ToSchema)]
struct ContactPart {
    #[schema(value_type = String)]
    id: ContactId,
    #[schema(value_type = ContactRoleWord)]
    role: ContactRole,
}

/// One way the message was seen.
#[derive(Serialize, ToSchema)]
#[schema(as = Sighting)]
struct SightingView {
    #[schema(value_type = ViaWord)]
    via: &'static str,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>)]
    account_id: Option<AccountId>,
    #[serde(skip_serializing_if = "Option::is_none")]
    mailbox: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uid: Option<u32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    uidvalidity: Option<u32>,
    #[schema(value_type = String, format = DateTime)]
    at: Timestamp,
}

impl From<SightingRow> for SightingView {
    fn from(SightingRow { sighting, at }: SightingRow) -> Self {
        let via = sighting.via();
        let Sighting::Account(seen) = sighting else {
            return Self { via, account_id: None, mailbox: None, uid: None, uidvalidity: None, at };
        };
        Self {
            via,
            account_id: Some(seen.account),
            mailbox: Some(mailbox_name(&seen.mailbox)),
            uid: Some(seen.uid),
            uidvalidity: Some(uid_validity_of(seen.uid_validity)),
            at,
        }
    }
}

/// As the user knows the mailbox; bytes that are no name of any kind are shown as far as they are text.
pub(super) fn mailbox_name(name: &[u8]) -> String {
    MailboxName::new(name).map_or_else(|| String::from_utf8_lossy(name).into_owned(), |name| name.display())
}

#[derive(Serialize, ToSchema)]
#[schema(as = Delivery)]
struct DeliveryView {
    #[schema(value_type = SubmissionStateWord)]
    state: SubmissionState,
    recipients: Vec<RecipientView>,
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(value_type = Option<String>, format = DateTime)]
    next_attempt_at: Option<Timestamp>,
    /// Why it is held or uncertain.
    #[serde(skip_serializing_if = "Option::is_none")]
    detail: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = RecipientDelivery)]
struct RecipientView {
    #[schema(value_type = String, format = Email)]
    address: Address,
    #[schema(value_type = SubmissionStateWord)]
    state: SubmissionState,
    /// The server's last reply code.
    #[serde(skip_serializing_if = "Option::is_none")]
    code: Option<u16>,
    /// What the server said last.
    #[serde(skip_serializing_if = "Option::is_none")]
    text: Option<String>,
}

#[derive(Serialize, ToSchema)]
#[schema(as = CopyDelivery)]
struct CopyView {
    /// `bcc` of mail that leaves (`always_bcc`), `copy` of an answer (`reply_copies`, `reply_copy_assigned`).
    #[schema(value_type = String)]
    role: RecipientRole,
    #[serde(flatten)]
    recipient: RecipientView,
}

impl From<RecipientState> for CopyView {
    fn from(state: RecipientState) -> Self {
        Self { role: state.role, recipient: state.into() }
    }
}

impl From<RecipientState> for RecipientView {
    fn from(RecipientState { recipient, state, code, text, .. }: RecipientState) -> Self {
        Self { address: recipient.address, state, code, text }
    }
}

impl From<Submission> for DeliveryView {
    fn from(submission: Submission) -> Self {
        let next_attempt_at = submission.next_attempt_at.filter(|_| !submission.state.is_final());
        let named = submission.recipients.into_iter().filter(RecipientState::is_named);
        let recipients = named.map(RecipientView::from).collect();
        Self { state: submission.state, recipients, next_attempt_at, detail: submission.detail }
    }
}

/// How a message fares, and the copies of it. One that is sent to nobody but as a copy is not on its way.
fn fates(submission: Option<Submission>) -> (Option<DeliveryView>, Vec<CopyView>) {
    let Some(submission) = submission else { return (None, Vec::new()) };
    let copies = submission.recipients.iter().filter(|state| !state.is_named()).cloned();
    let copies = copies.map(CopyView::from).collect();
    (submission.names_anybody().then(|| DeliveryView::from(submission)), copies)
}

/// What is read from the raw bytes.
#[derive(Default)]
struct Content {
    text: Option<String>,
    html: Option<String>,
    reply_text: Option<String>,
    /// What stands above the mail that is passed on.
    comment: Option<String>,
}

impl Content {
    fn read(raw: &[u8], is_passed_on: bool) -> Self {
        let message = Message::parse(raw);
        let text = message.readable_text();
        let html = message.html.as_deref().map(sanitise::sanitise);
        if is_passed_on {
            // What the user wrote beside it is not its author's.
            let found = forward::read(&message, raw);
            let reply_text = found.as_ref().map(Forwarded::new_text);
            let comment = found.map(|found| found.comment).filter(|comment| !comment.is_empty());
            return Self { text, html, reply_text, comment };
        }
        let reply_text = text.as_deref().map(reply::split_reply);
        Self { text, html, reply_text, comment: None }
    }

    fn len(&self) -> usize {
        [&self.text, &self.html, &self.reply_text, &self.comment].into_iter().flatten().map(String::len).sum()
    }
}

/// What stands in rows of their own about some messages.
struct Context {
    contacts: HashMap<MessageKey, Vec<(ContactId, ContactRole)>>,
    sightings: HashMap<MessageKey, Vec<SightingRow>>,
    submissions: HashMap<MessageKey, Submission>,
    verifications: HashMap<MessageKey, Verification>,
}

/// Reads messages for showing: their rows first, and then, without a connection to the database, their bytes one by one.
pub(super) struct Reader<'a> {
    api: &'a Api,
    session: Session,
}

impl<'a> Reader<'a> {
    pub(super) fn new(api: &'a Api, session: Session) -> Self {
        Self { api, session }
    }

    pub(super) async fn one(self, row: StoredMessage) -> Result<MessageView, Problem> {
        let (api, workspace) = (self.api, self.session.workspace());
        let mut context = self.context(std::slice::from_ref(&row)).await?;
        let content = content(api, workspace, &row).await?;
        Ok(view(row, content, &mut context))
    }

    /// A page of messages, out of rows of which one more than the page holds were read.
    pub(super) async fn page(
        self,
        mut rows: Vec<StoredMessage>,
        limit: Limit,
    ) -> Result<Json<List<MessageView>>, Problem> {
        let (api, workspace) = (self.api, self.session.workspace());
        let limit = limit.0 as usize;
        let mut more = rows.len() > limit;
        rows.truncate(limit);
        let mut context = self.context(&rows).await?;
        let (mut items, mut text, mut raw, mut last) = (Vec::with_capacity(rows.len()), 0, 0, None);
        for row in rows {
            raw += row.size;
            let is_full = text >= PAGE_TEXT_BYTES_MAX || raw > PAGE_RAW_BYTES_MAX;
            if is_full && !items.is_empty() {
                more = true;
                break;
            }
            let content = content(api, workspace, &row).await?;
            text += content.len();
            last = Some(PageKey { at: row.sent_at, id: row.id.uuid() });
            items.push(view(row, content, &mut context));
        }
        let next_cursor = last.filter(|_| more).map(page::encode);
        Ok(Json(List { items, next_cursor }))
    }

    /// What stands in rows; then the connection is given back.
    async fn context(mut self, rows: &[StoredMessage]) -> Result<Context, Problem> {
        let keys: Vec<MessageKey> = rows.iter().map(|row| row.id).collect();
        Ok(Context {
            contacts: self.session.message_contacts(&keys).await?,
            sightings: self.session.sightings(&keys).await?,
            submissions: self.session.submissions(&keys).await?,
            verifications: self.session.verifications(&keys).await?,
        })
    }
}

/// The text of a message; nothing when its bytes were erased.
async fn content(api: &Api, workspace: WorkspaceId, row: &StoredMessage) -> Result<Content, Problem> {
    let place = api.readers.wait(workspace).await?;
    let raw = match stored_message::content(api, workspace, row.blob).await {
        Ok(raw) => raw,
        Err(store::Error::Missing) => return Ok(Content::default()),
        Err(error) => return Err(error.into()),
    };
    // A large message takes long enough to hold up everything else on this thread.
    let is_passed_on = row.forwarded.is_some();
    let reading = tokio::task::spawn_blocking(move || {
        let content = Content::read(&raw, is_passed_on);
        // Given back when the work ends, also when nobody waits for it any more.
        drop((raw, place));
        content
    });
    reading.await.map_err(|_| Problem::internal())
}

fn view(row: StoredMessage, content: Content, context: &mut Context) -> MessageView {
    let author_wrote = matches!(row.author, Author::User(_));
    let contacts = context.contacts.remove(&row.id).unwrap_or_default();
    let sightings = context.sightings.remove(&row.id).unwrap_or_default();
    let (delivery, copies) = fates(context.submissions.remove(&row.id));
    MessageView {
        id: row.id,
        conversation_id: row.conversation,
        rfc822_message_id: row.rfc822_id,
        direction: row.direction,
        kind: row.kind,
        author: AuthorView::of(&row.author, row.author_party),
        forwarded: row.forwarded.map(|by| ForwardedView::of(by, content.comment)),
        from: parties(row.parties.from),
        to: parties(row.parties.to),
        cc: parties(row.parties.cc),
        bcc: if author_wrote { parties(row.parties.bcc) } else { Vec::new() },
        subject: row.subject,
        date: row.sent_at,
        received_at: row.received_at,
        text: content.text,
        html: content.html,
        reply_text: content.reply_text,
        attachments: row.attachments.into_iter().map(AttachmentView::from).collect(),
        contacts: contacts.into_iter().map(|(id, role)| ContactPart { id, role }).collect(),
        sightings: sightings.into_iter().map(SightingView::from).collect(),
        verification: context.verifications.remove(&row.id).map(VerificationView::from),
        delivery,
        copies,
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::{
        core::message::{Conversation, Parties},
        http::testing,
        store::{Page, mint, testing::World},
    };

    /// A workspace with one message.
    async fn a_message(world: &World) -> StoredMessage {
        let workspace = world.workspace().await;
        let raw = axum::body::Bytes::from_static(b"Subject: Hello\r\n\r\nHello.\r\n");
        let key = world.store.content_key(workspace, None).await.unwrap();
        let sealed = world.store.seal_blob(workspace, key, &raw).await.unwrap();
        let mut tx = world.store.begin(workspace).await.unwrap();
        let conversation = Conversation {
            id: mint(),
            subject: None,
            contact: None,
            created_at: Timestamp::UNIX_EPOCH,
            last_message_at: Timestamp::UNIX_EPOCH,
            message_count: 1,
            merged_into: None,
            related_to: None,
        };
        tx.insert_conversation(&conversation).await.unwrap();
        let message = StoredMessage {
            id: mint(),
            identity: [1; 32],
            rfc822_id: None,
            conversation: conversation.id,
            direction: Direction::Inbound,
            kind: Kind::Mail,
            author: Author::Other,
            author_party: None,
            subject: None,
            parties: Parties::default(),
            in_reply_to: None,
            attachments: Vec::new(),
            defects: Vec::new(),
            forwarded: None,
            sent_at: Timestamp::UNIX_EPOCH,
            received_at: Timestamp::UNIX_EPOCH,
            size: raw.len() as u64,
            blob: tx.put_sealed_blob(sealed).await.unwrap(),
        };
        tx.insert_message(&message).await.unwrap().unwrap();
        tx.commit().await.unwrap();
        message
    }

    #[tokio::test]
    async fn whoever_waits_to_read_a_message_keeps_no_connection_from_others() {
        let world = World::sqlite().await;
        let message = a_message(&world).await;
        let workspace =
            world.store.system_read().await.unwrap().workspaces(&Page::new(1, None)).await.unwrap()[0].id;
        let api = testing::api(world.store.clone());
        let mut sessions = Vec::new();
        for _ in 0..4 {
            sessions.push(world.store.read(workspace).await.unwrap());
        }
        // All connections are taken, and all places to read in, so that the page waits.
        let places = [api.readers.take(workspace).unwrap(), api.readers.take(workspace).unwrap()];
        let last = sessions.pop().unwrap();
        let page = tokio::spawn({
            let api = api.clone();
            async move { Reader::new(&api, last).page(vec![message], Limit(1)).await }
        });
        let free = tokio::time::timeout(Duration::from_secs(8), world.store.read(workspace)).await;
        assert!(free.expect("a connection is free").is_ok());
        drop((places, sessions));
        let Json(page) = page.await.unwrap().unwrap();
        assert_eq!(page.items[0].text.as_deref(), Some("Hello.\n"));
    }

    #[test]
    fn text_is_read_from_the_bytes_and_html_is_made_safe() {
        let raw =
            b"From: a@b.example\r\nContent-Type: text/html\r\n\r\n<p onclick=x()>Hi</p><script>x()</script>";
        let content = Content::read(raw, false);
        assert_eq!(content.text.as_deref(), Some("Hi"));
        let html = content.html.unwrap();
        assert!(html.contains("Hi") && !html.contains("script") && !html.contains("onclick"), "{html}");
    }

    #[test]
    fn mailboxes_are_named_as_their_user_knows_them() {
        assert_eq!(mailbox_name(b"INBOX"), "INBOX");
        assert_eq!(mailbox_name(b"Gel&APY-scht"), "Gelöscht");
    }
}
