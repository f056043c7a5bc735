//! Sending over HTTP: what was asked for becomes a message, is filed and queued, in one transaction.
//!
//! Not here: sending it (a job does) and writing MIME (`mail::Draft`). No field of a request can become a header of its own.

use std::collections::HashSet;

use axum::{body::Bytes, extract::State, http::StatusCode, response::Response};
use base64::{Engine as _, prelude::BASE64_STANDARD};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::Input,
    field,
    once::{Answer, Stamp, Stop, Work},
    openapi::{ClassWord, SubmissionStateWord},
    problem::Problem,
    stored_message,
};
use crate::{
    core::{
        ids::{ConversationId, MessageKey, UserId},
        inbound::{Exit, SendClass, SendOrder},
        origin::Origin,
        people::User,
        policy::Settings,
        submission::SubmissionState,
    },
    flow::{
        self, FlowError,
        submit::{self, Additions, Handed, HandedBytes, HandsIn, Refusal, Sender},
    },
    mail::{
        Address, Draft, DraftAttachment, Envelope, HeaderSummary, Message, MessageId, Party, Recipient,
        ReversePath, reply_references,
    },
    smtp,
    store::{Page, SealedBlob, Session, mint},
};

/// Recipients of one message, in all its fields.
const RECIPIENTS_MAX: usize = 500;
const SUBJECT_CHARS_MAX: usize = 998;
/// Octets of each of text and HTML.
const TEXT_BYTES_MAX: usize = 5 * 1024 * 1024;
const ATTACHMENTS_MAX: usize = 100;
const FILENAME_CHARS_MAX: usize = 255;
/// How often filing is tried again when another node files the same message.
const TRIES: usize = 3;

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(send))
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewParty)]
struct PartyInput {
    #[schema(value_type = String, format = Email)]
    email: Address,
    name: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = NewAttachment)]
struct AttachmentInput {
    filename: String,
    /// `application/octet-stream` when left out.
    content_type: Option<String>,
    /// In base64.
    #[schema(format = Byte)]
    content: String,
    /// With one it belongs into the HTML, which names it `cid:…`.
    content_id: Option<String>,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct NewMessage {
    /// The author: the message comes from his name and address.
    #[schema(value_type = String)]
    from_user_id: UserId,
    to: Vec<PartyInput>,
    #[serde(default)]
    cc: Vec<PartyInput>,
    /// In no header, and shown to nobody else.
    #[serde(default)]
    bcc: Vec<PartyInput>,
    subject: String,
    text: Option<String>,
    html: Option<String>,
    #[serde(default)]
    attachments: Vec<AttachmentInput>,
    /// `individual` when left out.
    #[serde(default)]
    #[schema(value_type = Option<ClassWord>)]
    class: SendClass,
    /// The conversation it belongs to; it answers the last message there unless `reply_to_message_id` says otherwise.
    #[schema(value_type = Option<String>)]
    conversation_id: Option<ConversationId>,
    /// The message it answers.
    #[schema(value_type = Option<String>)]
    reply_to_message_id: Option<MessageKey>,
}

/// What was asked for, checked as far as it can be without the store.
struct Wanted {
    to: Vec<Party>,
    cc: Vec<Party>,
    bcc: Vec<Party>,
    subject: String,
    text: Option<String>,
    html: Option<String>,
    attachments: Vec<DraftAttachment>,
}

#[derive(Serialize, ToSchema)]
struct Sent {
    #[schema(value_type = String)]
    id: MessageKey,
    #[schema(value_type = String)]
    conversation_id: ConversationId,
    #[schema(value_type = SubmissionStateWord)]
    state: SubmissionState,
}

impl NewMessage {
    fn check(&mut self, api: &Api) -> Result<Wanted, Problem> {
        let to = people(api, "to", std::mem::take(&mut self.to))?;
        let cc = people(api, "cc", std::mem::take(&mut self.cc))?;
        let bcc = people(api, "bcc", std::mem::take(&mut self.bcc))?;
        if to.is_empty() {
            return Err(Problem::invalid("to", "It needs at least one recipient."));
        }
        if to.len() + cc.len() + bcc.len() > RECIPIENTS_MAX {
            return Err(Problem::invalid(
                "to",
                format!("A message has at most {RECIPIENTS_MAX} recipients."),
            ));
        }
        let subject = field::optional_line("subject", &self.subject, SUBJECT_CHARS_MAX)?;
        let (text, html) = (body_text("text", self.text.take())?, body_text("html", self.html.take())?);
        let attachments = attachments(std::mem::take(&mut self.attachments))?;
        if text.is_none() && html.is_none() && attachments.is_empty() {
            return Err(Problem::invalid("text", "A message needs a text, HTML or an attachment."));
        }
        Ok(Wanted { to, cc, bcc, subject, text, html, attachments })
    }
}

fn people(api: &Api, param: &str, list: Vec<PartyInput>) -> Result<Vec<Party>, Problem> {
    let mut people = Vec::with_capacity(list.len());
    for (index, PartyInput { email, name }) in list.into_iter().enumerate() {
        if api.gateway.settings.ours.holds(&email) {
            let detail = "This is an address of the gateway itself; it is in no mail the gateway sends.";
            return Err(Problem::invalid(format!("{param}[{index}].email"), detail));
        }
        let name = field::name(&format!("{param}[{index}].name"), name)?;
        people.push(Party { address: email, name });
    }
    Ok(people)
}

fn body_text(param: &str, text: Option<String>) -> Result<Option<String>, Problem> {
    if text.as_ref().is_some_and(|text| text.len() > TEXT_BYTES_MAX) {
        return Err(Problem::invalid(param, format!("It is longer than {TEXT_BYTES_MAX} bytes.")));
    }
    Ok(text.filter(|text| !text.is_empty()))
}

fn attachments(list: Vec<AttachmentInput>) -> Result<Vec<DraftAttachment>, Problem> {
    field::at_most("attachments", &list, ATTACHMENTS_MAX)?;
    let mut attachments = Vec::with_capacity(list.len());
    for (index, input) in list.into_iter().enumerate() {
        let param = |field: &str| format!("attachments[{index}].{field}");
        let content = BASE64_STANDARD
            .decode(input.content.as_bytes())
            .map_err(|_| Problem::invalid(param("content"), "It is not base64."))?;
        attachments.push(DraftAttachment {
            filename: field::line(&param("filename"), &input.filename, FILENAME_CHARS_MAX)?,
            content_type: content_type(&param("content_type"), input.content_type)?,
            content: content.into(),
            content_id: input.content_id.map(|id| content_id(&param("content_id"), &id)).transpose()?,
        });
    }
    Ok(attachments)
}

fn content_type(param: &str, given: Option<String>) -> Result<String, Problem> {
    let Some(given) = given else { return Ok("application/octet-stream".to_owned()) };
    let is_token = |token: &str| {
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    let essence = given.split(';').next().unwrap_or_default().trim();
    let fits = given.len() <= FILENAME_CHARS_MAX
        && !given.contains(char::is_control)
        && essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    if fits { Ok(given) } else { Err(Problem::invalid(param, "It is no media type, like application/pdf.")) }
}

fn content_id(param: &str, given: &str) -> Result<String, Problem> {
    let id = MessageId::parse(given)
        .filter(|id| id.as_str().is_ascii() && id.as_str().len() <= FILENAME_CHARS_MAX);
    id.map(|id| id.to_string()).ok_or_else(|| Problem::invalid(param, "It is no content id."))
}

/// Send a message as a user, by his account or the workspace's smarthost. The answer comes when it is safely queued.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/messages", tag = "messages", operation_id = "send_message",
    request_body = NewMessage, responses((status = 202, body = Sent)))]
async fn send(State(api): State<Api>, access: Access, input: Input<NewMessage>) -> Result<Response, Stop> {
    let mut asked = input.value;
    access.act_as(asked.from_user_id)?;
    let wanted = asked.check(&api)?;
    let order = SendOrder {
        user: asked.from_user_id,
        principal: access.principal,
        class: asked.class,
        conversation: asked.conversation_id,
        api: true,
        key: None,
    };
    // The same request again is answered as it was, whatever has changed since.
    input.stamp.require_new(&api, &access).await?;
    let outgoing = prepare(&api, &access, order, wanted, asked.reply_to_message_id).await?;
    let mut tries = 1;
    loop {
        match outgoing.file(&api, &access, &input.stamp).await? {
            Some(response) => return Ok(response),
            None if tries == TRIES => return Err(Problem::unavailable().into()),
            None => tries += 1,
        }
    }
}

/// A message written and read once, ready to be filed.
struct Outgoing {
    key: MessageKey,
    order: SendOrder,
    envelope: Envelope,
    bytes: SealedBlob,
    message: Message,
    received_at: Timestamp,
}

/// Does all that can be done before the transaction: whoever writes meanwhile does not wait for MIME, nor for a seal.
async fn prepare(
    api: &Api,
    access: &Access,
    order: SendOrder,
    wanted: Wanted,
    answers: Option<MessageKey>,
) -> Result<Outgoing, Problem> {
    let mut session = access.read(api).await?;
    let user = session.user(order.user).await?;
    let mut user =
        user.ok_or_else(|| Problem::invalid("from_user_id", "There is no such user in this workspace."))?;
    require_content(&mut session, order.user, &wanted).await?;
    let sender = Sender { user: order.user, from: &user.email, class: order.class };
    let settings = flow::policy_of(&mut session, Some(order.user)).await?.settings;
    let exit = require_exit(api, &mut session, sender, &settings).await?;
    let additions =
        Additions::read(&mut session, &api.gateway.settings.ours, (order.user, order.class)).await?;
    let people = [&wanted.to, &wanted.cc, &wanted.bcc].into_iter().flatten().map(|party| &party.address);
    let recipients = people.clone().count() + additions.beside(people);
    let hands_in = HandsIn { user: order.user, class: order.class, exit, recipients };
    require_room(&mut session, hands_in, &settings).await?;
    let provider = submit::provider_of(&mut session, exit).await?;
    if let Some(identity) = submit::sender_identity(&mut session, exit).await? {
        user.email = identity;
    }
    let parent = parent(&mut session, order.conversation, answers).await?;
    drop(session);
    let (key, received_at) = (mint(), flow::now());
    let order = SendOrder { conversation: parent.conversation, ..order };
    let mut envelope = wanted.envelope(&user);
    let flow::Settings { loop_key, hostname, .. } = &*api.gateway.settings;
    let origin = Origin { secret: loop_key, workspace: access.workspace, sender: &user.email };
    // Fixed at acceptance, from the key it is accepted under.
    let message_id = submit::sent_message_id(origin, key, hostname);
    let received = smtp::received_over_http(hostname, &origin.trace(key), received_at);
    let has_files = !wanted.attachments.is_empty();
    let draft = wanted.draft(user, parent, message_id, received_at);
    let written = tokio::task::spawn_blocking(move || {
        let written = additions.applied(draft.compose().into_bytes());
        let raw = Bytes::from([received.as_bytes(), &written].concat());
        let message = Message::parse(&raw);
        (raw, message)
    });
    let (raw, message) = written.await.map_err(|_| Problem::internal())?;
    if raw.len() > api.message_bytes_max {
        let detail = format!("The message would be larger than {} bytes.", api.message_bytes_max);
        let advice = "Send fewer or smaller attachments.";
        return Err(Problem::new(StatusCode::PAYLOAD_TOO_LARGE, "too_large", detail, advice));
    }
    if let Some(too_large) =
        provider.too_large(raw.len() as u64, message.attachments.iter().map(|file| file.size))
    {
        return Err(too_large_for_provider(too_large.text(provider), has_files));
    }
    envelope.eight_bit = !raw.is_ascii();
    let content_key = api.store().content_key(access.workspace, None).await?;
    let bytes = api.store().seal_blob(access.workspace, content_key, &raw).await?;
    Ok(Outgoing { key, order, envelope, bytes, message, received_at })
}

impl Outgoing {
    /// One try, in one transaction; `None` when another node filed the same message meanwhile.
    async fn file(&self, api: &Api, access: &Access, stamp: &Stamp) -> Result<Option<Response>, Stop> {
        let mut work: Work = stamp.begin(api, access).await?;
        let handed = Handed {
            key: self.key,
            message: &self.message,
            bytes: HandedBytes::Sealed(&self.bytes),
            order: &self.order,
            envelope: &self.envelope,
            received_at: self.received_at,
        };
        let accepted = match submit::file(&mut work, &api.gateway, handed).await {
            Err(FlowError::Raced) => return Ok(None),
            accepted => accepted?,
        };
        let sent =
            Sent { id: accepted.message, conversation_id: accepted.conversation, state: accepted.state };
        work.finish(Answer::accepted(&sent)).await.map(Some)
    }
}

/// The provider would refuse it.
fn too_large_for_provider(text: String, has_files: bool) -> Problem {
    let param = if has_files { "attachments" } else { "text" };
    Problem::invalid(param, format!("{text}.")).code("too_large").advice("Send fewer or smaller attachments.")
}

/// Where policy wants mail to say something, it has a subject and a text.
async fn require_content(session: &mut Session, user: UserId, wanted: &Wanted) -> Result<(), Problem> {
    if !flow::policy_of(session, Some(user)).await?.settings.require_content {
        return Ok(());
    }
    let is_blank = |text: &Option<String>| text.as_ref().is_none_or(|text| text.trim().is_empty());
    if wanted.subject.trim().is_empty() {
        return Err(Problem::invalid("subject", "By this workspace's policy a message needs a subject."));
    }
    if is_blank(&wanted.text) && is_blank(&wanted.html) {
        return Err(Problem::invalid("text", "By this workspace's policy a message needs a text."));
    }
    Ok(())
}

/// Where policy lets mail over a limit fail, it is not even taken.
async fn require_room(session: &mut Session, hands_in: HandsIn, settings: &Settings) -> Result<(), Problem> {
    let Err(full) = submit::admit(session, hands_in, settings).await? else { return Ok(()) };
    let wait = full.until.duration_since(flow::now()).as_secs().saturating_add(1);
    let seconds = u32::try_from(wait).unwrap_or(if wait < 0 { 1 } else { u32::MAX });
    Err(Problem::limited(format!("The message is not taken: {}.", full.text()), seconds))
}

async fn require_exit(
    api: &Api,
    session: &mut Session,
    sender: Sender<'_>,
    settings: &Settings,
) -> Result<Exit, Problem> {
    let refusal = match submit::choose_exit(session, &api.gateway, sender, settings).await? {
        Ok(exit) => return Ok(exit),
        Err(refusal) => refusal,
    };
    let advice = match &refusal {
        Refusal::ForeignDomain(domain) => {
            format!("Connect an account of the user, or add {domain} to the smarthost's from_domains.")
        }
        Refusal::SmarthostAlone | Refusal::SmarthostAloneFor(_) => {
            "Set a smarthost that sends for the user's domain, or change bulk_route or workflow_route of the policy."
                .to_owned()
        }
        _ => "Connect an account of the user, or set a smarthost.".to_owned(),
    };
    let detail = format!("The message cannot leave: {refusal}.");
    Err(Problem::invalid("from_user_id", detail).code("no_way_out").advice(advice))
}

/// What a message answers, and the conversation it belongs to.
#[derive(Default)]
struct Parent {
    conversation: Option<ConversationId>,
    summary: Option<HeaderSummary>,
}

/// The message that was named, or the last of the conversation that was named.
async fn parent(
    session: &mut Session,
    conversation: Option<ConversationId>,
    answers: Option<MessageKey>,
) -> Result<Parent, Problem> {
    if let Some(id) = conversation {
        let missing =
            || Problem::invalid("conversation_id", "There is no such conversation in this workspace.");
        session.conversation(id).await?.ok_or_else(missing)?;
    }
    let answered = match (answers, conversation) {
        (Some(id), _) => {
            let missing =
                Problem::invalid("reply_to_message_id", "There is no such message in this workspace.");
            Some(stored_message::find(session, id).await.map_err(|problem| named(problem, missing))?)
        }
        (None, Some(id)) => session.conversation_messages(id, &Page::new(1, None)).await?.pop(),
        (None, None) => None,
    };
    let Some(answered) = answered else { return Ok(Parent { conversation, summary: None }) };
    if let Some(id) = conversation
        && session.root(id).await? != session.root(answered.conversation).await?
    {
        let detail = "The message belongs to another conversation than conversation_id.";
        return Err(Problem::invalid("reply_to_message_id", detail).advice("Leave one of the two out."));
    }
    let summary = HeaderSummary::read(&session.blob(answered.blob).await?);
    Ok(Parent { conversation: conversation.or(Some(answered.conversation)), summary: Some(summary) })
}

impl Wanted {
    fn draft(self, user: User, parent: Parent, message_id: MessageId, date: Timestamp) -> Draft {
        Draft {
            from: Party::new(user.email, user.name.as_deref()),
            to: self.to,
            cc: self.cc,
            subject: self.subject,
            text: self.text,
            html: self.html,
            attachments: self.attachments,
            message_id,
            date,
            in_reply_to: parent.summary.as_ref().and_then(|summary| summary.message_id.clone()),
            references: parent.summary.as_ref().map(reply_references).unwrap_or_default(),
        }
    }

    /// Every recipient once, the author as reverse-path.
    fn envelope(&self, user: &User) -> Envelope {
        let mut seen = HashSet::new();
        let people = [&self.to, &self.cc, &self.bcc].into_iter().flatten();
        let recipients: Vec<Recipient> = people
            .filter(|party| seen.insert(party.address.clone()))
            .map(|party| Recipient::new(party.address.clone()))
            .collect();
        let mut envelope = Envelope::new(ReversePath::Address(user.email.clone()));
        envelope.smtputf8 = user.email.needs_smtputf8()
            || recipients.iter().any(|recipient| recipient.address.needs_smtputf8());
        envelope.recipients = recipients;
        envelope
    }
}

/// A missing thing named in a field is that field's fault.
fn named(problem: Problem, missing: Problem) -> Problem {
    if problem.status == StatusCode::NOT_FOUND { missing } else { problem }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn media_types_hold_nothing_but_a_type() {
        assert!(content_type("p", None).is_ok());
        assert!(content_type("p", Some("application/pdf".into())).is_ok());
        assert!(content_type("p", Some("text/plain; charset=utf-8".into())).is_ok());
        for bad in ["pdf", "a/b/c d", "text/plain\r\nX: y", "/", "text/", ""] {
            assert!(content_type("p", Some(bad.into())).is_err(), "{bad}");
        }
    }

    #[test]
    fn an_attachment_at_fault_is_named() {
        let input = |content: &str, filename: &str| AttachmentInput {
            filename: filename.into(),
            content_type: None,
            content: content.into(),
            content_id: None,
        };
        let refused = attachments(vec![input("aGk=", "a.txt"), input("no base64", "b.txt")]).unwrap_err();
        assert_eq!(refused.param.as_deref(), Some("attachments[1].content"));
        let refused = attachments(vec![input("aGk=", "a\r\nX: y")]).unwrap_err();
        assert_eq!(refused.param.as_deref(), Some("attachments[0].filename"));
    }
}
