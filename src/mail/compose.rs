//! Builds messages of ours: what the HTTP API was asked to send becomes bytes that every mail system takes.
//!
//! Not here: sending, and Bcc, which is the envelope's business alone (no message we write has such a field).

use std::borrow::Cow;

use bytes::Bytes;
use jiff::Timestamp;
use mail_builder::{
    MessageBuilder,
    headers::{content_type::ContentType, date::Date, message_id, text::Text},
    mime::{BodyPart, MimePart},
};
use sha2::{Digest, Sha256};

use super::{
    HeaderBlock, HeaderSummary, MessageId, Party, RawMessage,
    filename::display_name,
    header_text::{HeaderName, HeaderText, address_header},
    surgery::{has_lone_line_end, has_overlong_line, normalise_line_ends, prepend_fields, remove_fields},
};

/// Ids in a References field we write, besides the thread's first: enough for every client to find the thread, short
/// enough for every server to take the header.
const REFERENCES_NEWEST: usize = 20;
/// Longest id written; a longer one fits no line.
const WRITTEN_ID_BYTES_MAX: usize = 900;

/// A message to be written.
#[derive(Debug, Clone)]
pub struct Draft {
    pub from: Party,
    pub to: Vec<Party>,
    pub cc: Vec<Party>,
    pub subject: String,
    pub text: Option<String>,
    pub html: Option<String>,
    pub attachments: Vec<DraftAttachment>,
    pub message_id: MessageId,
    pub date: Timestamp,
    pub in_reply_to: Option<MessageId>,
    pub references: Vec<MessageId>,
}

#[derive(Debug, Clone)]
pub struct DraftAttachment {
    pub filename: String,
    /// `type/subtype`; anything else is sent as application/octet-stream.
    pub content_type: String,
    pub content: Bytes,
    /// With one, the attachment is embedded in the HTML, which names it `cid:…`.
    pub content_id: Option<String>,
}

impl Draft {
    /// Writes the message. The same draft gives the same bytes.
    #[must_use]
    pub fn compose(&self) -> RawMessage {
        let mut builder = MessageBuilder::new()
            .header("Date", Date::new(self.date.as_second()))
            .header("From", address_header(std::slice::from_ref(&self.from)));
        for (name, parties) in [("To", &self.to), ("Cc", &self.cc)] {
            if !parties.is_empty() {
                builder = builder.header(name, address_header(parties));
            }
        }
        builder = builder.header("Subject", Text::new(HeaderText::clean(&self.subject).to_string()));
        builder = builder.header("Message-ID", ids(std::slice::from_ref(&self.message_id)));
        let in_reply_to: Vec<MessageId> =
            self.in_reply_to.iter().filter(|id| is_writable(id)).cloned().collect();
        let references: Vec<MessageId> =
            self.references.iter().filter(|id| is_writable(id)).cloned().collect();
        for (name, list) in [("In-Reply-To", in_reply_to), ("References", references)] {
            if !list.is_empty() {
                builder = builder.header(name, ids(&list));
            }
        }
        written(builder.body(self.body()))
    }

    /// mixed( related( alternative(text, html), embedded ), attached ), each layer only where it has something to hold.
    fn body(&self) -> MimePart<'_> {
        let text = self.text.as_deref().map(|text| text_part("text/plain", text));
        let html = self.html.as_deref().map(|html| text_part("text/html", html));
        let body = match (text, html) {
            (Some(text), Some(html)) => self.multipart("multipart/alternative", vec![text, html]),
            (Some(one), None) | (None, Some(one)) => one,
            (None, None) => text_part("text/plain", ""),
        };
        let is_embedded =
            |attachment: &&DraftAttachment| attachment.content_id.is_some() && self.html.is_some();
        let embedded: Vec<MimePart<'_>> =
            self.attachments.iter().filter(is_embedded).map(DraftAttachment::part).collect();
        let attached: Vec<MimePart<'_>> =
            self.attachments.iter().filter(|a| !is_embedded(a)).map(DraftAttachment::part).collect();
        let body = self.around("multipart/related", body, embedded);
        self.around("multipart/mixed", body, attached)
    }

    fn around<'a>(&self, kind: &'static str, body: MimePart<'a>, others: Vec<MimePart<'a>>) -> MimePart<'a> {
        if others.is_empty() {
            return body;
        }
        let mut parts = vec![body];
        parts.extend(others);
        self.multipart(kind, parts)
    }

    fn multipart<'a>(&self, kind: &'static str, parts: Vec<MimePart<'a>>) -> MimePart<'a> {
        MimePart::new(ContentType::new(kind).attribute("boundary", self.boundary(kind)), parts)
    }

    fn boundary(&self, kind: &str) -> String {
        let mut hash = Sha256::new();
        hash.update(self.message_id.as_str());
        for text in [&self.text, &self.html].into_iter().flatten() {
            hash.update(text);
        }
        boundary(kind, hash)
    }
}

/// A delimiter that stands in no part: `=_` occurs in no encoded text, and the hash depends on the text that is not encoded.
pub(super) fn boundary(kind: &str, mut hash: Sha256) -> String {
    hash.update(kind);
    let digest = hash.finalize();
    let hex: String = digest.iter().take(16).map(|byte| format!("{byte:02x}")).collect();
    format!("=_{hex}")
}

/// Serialises, and makes sure that no lone CR or LF leaves: what the encoders let through is made CRLF.
pub(super) fn written(builder: MessageBuilder<'_>) -> RawMessage {
    let bytes = builder.write_to_vec().expect("writing to memory cannot fail");
    RawMessage::new(normalise_line_ends(Bytes::from(bytes)))
}

impl DraftAttachment {
    fn part(&self) -> MimePart<'_> {
        let essence = essence(&self.content_type);
        let name = display_name(&self.filename);
        // RFC 2046 section 5.2.1 forbids base64 for an enclosed message, so that one must be fit for the wire as it is.
        let is_message = essence == "message/rfc822"
            && !has_overlong_line(&self.content)
            && !has_lone_line_end(&self.content);
        let essence = if essence.starts_with("message/") && !is_message {
            "application/octet-stream".to_owned()
        } else {
            essence
        };
        let part = MimePart::new(ContentType::new(essence), BodyPart::Binary(Cow::Borrowed(&self.content)));
        let part = if is_message { part.transfer_encoding("8bit") } else { part.transfer_encoding("base64") };
        let part = part.header("Content-Disposition", self.disposition(name));
        let part = match self.content_id.as_deref().and_then(MessageId::parse).filter(is_writable) {
            Some(id) => part.cid(id.to_string()),
            None => part,
        };
        if is_message { part } else { with_base64(part) }
    }

    fn disposition(&self, name: Option<String>) -> ContentType<'static> {
        let kind = if self.content_id.is_some() { "inline" } else { "attachment" };
        let disposition = ContentType::new(kind);
        match name {
            Some(name) => disposition.attribute("filename", name),
            None => disposition,
        }
    }
}

/// With its encoding named, mail-builder writes a body as it is.
fn with_base64(mut part: MimePart<'_>) -> MimePart<'_> {
    if let BodyPart::Binary(content) = &part.contents {
        part.contents = BodyPart::Binary(Cow::Owned(base64_lines(content)));
    }
    part
}

/// RFC 2045 section 6.8: lines of 76 characters.
fn base64_lines(content: &[u8]) -> Vec<u8> {
    use base64::{Engine, engine::general_purpose::STANDARD};
    let mut lines = Vec::with_capacity(content.len() / 3 * 4 + content.len() / 28 + 8);
    for chunk in content.chunks(57) {
        lines.extend_from_slice(STANDARD.encode(chunk).as_bytes());
        lines.extend_from_slice(b"\r\n");
    }
    lines
}

fn text_part<'a>(essence: &'static str, text: &str) -> MimePart<'a> {
    let text = text
        .replace('\0', "")
        .replace("\r\n", "\n")
        .replace(['\r', '\u{2028}', '\u{2029}'], "\n")
        .replace('\n', "\r\n");
    MimePart::new(ContentType::new(essence).attribute("charset", "utf-8"), text)
}

fn essence(content_type: &str) -> String {
    let essence = content_type.split(';').next().unwrap_or_default().trim().to_ascii_lowercase();
    let is_token = |token: &str| {
        !token.is_empty() && token.bytes().all(|b| b.is_ascii_alphanumeric() || b"!#$&-^_.+".contains(&b))
    };
    let is_fit = essence.len() <= 127
        && essence.split_once('/').is_some_and(|(kind, subtype)| is_token(kind) && is_token(subtype));
    if is_fit && !essence.starts_with("multipart/") { essence } else { "application/octet-stream".to_owned() }
}

fn ids(ids: &[MessageId]) -> message_id::MessageId<'static> {
    message_id::MessageId::new_list(ids.iter().map(ToString::to_string))
}

/// Ids of inbound mail may hold what RFC 5322 does not allow in a header without SMTPUTF8.
fn is_writable(id: &MessageId) -> bool {
    id.as_str().is_ascii() && id.as_str().len() <= WRITTEN_ID_BYTES_MAX
}

/// The References of an answer to `parent` (RFC 5322 section 3.6.4): its own, or its only In-Reply-To, and its id; cut to
/// the first and the newest.
#[must_use]
pub fn reply_references(parent: &HeaderSummary) -> Vec<MessageId> {
    let mut references = match parent.in_reply_to.as_slice() {
        [only] if parent.references.is_empty() => vec![only.clone()],
        _ => parent.references.clone(),
    };
    references.retain(|id| Some(id) != parent.message_id.as_ref());
    references.extend(parent.message_id.clone());
    if let Some(excess) = references.len().checked_sub(REFERENCES_NEWEST + 1) {
        references.drain(1..1 + excess);
    }
    references
}

/// Adds Date and Message-ID to a submitted message that has none that can be read (RFC 6409 sections 8.2 and 8.3).
#[must_use]
pub fn ensure_date_and_message_id(raw: &[u8], date: Timestamp, message_id: &MessageId) -> Bytes {
    let header = HeaderBlock::scan(raw);
    let has_id = header
        .first("Message-ID")
        .is_some_and(|field| MessageId::parse(&String::from_utf8_lossy(field.value)).is_some());
    let date = header.date().is_none().then(|| ("Date", Date::new(date.as_second()).to_rfc822()));
    let id = (!has_id).then(|| ("Message-ID", format!("<{message_id}>")));
    let added: Vec<(&str, String)> = [date, id].into_iter().flatten().collect();
    if added.is_empty() {
        return Bytes::copy_from_slice(raw);
    }
    let unreadable_gone =
        remove_fields(raw, |name| added.iter().any(|(added, _)| added.eq_ignore_ascii_case(name)));
    let fields: Vec<_> = added
        .iter()
        .map(|(name, value)| (HeaderName::parse(name).expect("both names are fit"), HeaderText::clean(value)))
        .collect();
    prepend_fields(&unreadable_gone, &fields)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mail::{Address, Message};

    fn party(name: &str, address: &str) -> Party {
        Party::new(Address::parse(address).unwrap(), Some(name))
    }

    fn draft() -> Draft {
        Draft {
            from: party("Ännä", "ann@x.example"),
            to: vec![party("Bob, B.", "bob@y.example"), party("", "\"odd local\"@z.example")],
            cc: Vec::new(),
            subject: "Grüße".to_owned(),
            text: Some("Hallo\nWelt ü\n".to_owned()),
            html: None,
            attachments: Vec::new(),
            message_id: MessageId::parse("1@x.example").unwrap(),
            date: Timestamp::from_second(1_743_501_600).unwrap(),
            in_reply_to: None,
            references: Vec::new(),
        }
    }

    #[test]
    fn a_composed_message_reads_back_as_it_was_meant() {
        let mut draft = draft();
        draft.in_reply_to = MessageId::parse("0@x");
        draft.references = vec![MessageId::parse("r@x").unwrap(), MessageId::parse("0@x").unwrap()];
        let raw = draft.compose();
        let message = Message::parse(&raw);
        let summary = &message.summary;
        assert_eq!((&summary.from, &summary.to), (&vec![draft.from.clone()], &draft.to));
        assert_eq!((summary.subject.as_deref(), summary.date), (Some("Grüße"), Some(draft.date)));
        assert_eq!(
            (&summary.in_reply_to, &summary.references),
            (&vec![MessageId::parse("0@x").unwrap()], &draft.references)
        );
        assert_eq!(message.text.as_deref(), Some("Hallo\nWelt ü\n"));
        assert_eq!((message.defects, raw.is_ascii()), (vec![], true));
        assert_eq!(draft.compose(), raw);
    }

    #[test]
    fn parts_are_nested_as_clients_expect() {
        let mut draft = draft();
        draft.html = Some("<img src=\"cid:i@x\">ü".to_owned());
        let attachment = |name: &str, id: Option<&str>| DraftAttachment {
            filename: name.to_owned(),
            content_type: "image/png".to_owned(),
            content: Bytes::from_static(b"\x89PNG\r\n\x00\n"),
            content_id: id.map(str::to_owned),
        };
        draft.attachments = vec![attachment("i.png", Some("i@x")), attachment("résumé.png", None)];
        let raw = draft.compose();
        let message = Message::parse(&raw);
        assert_eq!(
            (message.text.as_deref(), message.html.as_deref()),
            (Some("Hallo\nWelt ü\n"), draft.html.as_deref())
        );
        let described: Vec<_> = message
            .attachments
            .iter()
            .map(|a| (a.filename.as_deref().unwrap(), a.inline, a.content_id.as_deref()))
            .collect();
        assert_eq!(described, [("i.png", true, Some("i@x")), ("résumé.png", false, None)]);
        assert_eq!(Message::attachment_bytes(&raw, 1).unwrap(), draft.attachments[1].content);
        let kinds: Vec<_> = String::from_utf8(raw.to_vec())
            .unwrap()
            .lines()
            .filter_map(|l| l.strip_prefix("Content-Type: multipart/"))
            .map(|l| l.split(';').next().unwrap().to_owned())
            .collect();
        assert_eq!(kinds, ["mixed", "related", "alternative"]);
    }

    #[test]
    fn an_enclosed_message_is_not_base64() {
        let mut draft = draft();
        let content = Bytes::from_static("Subject: ü\r\n\r\nhi\r\n".as_bytes());
        draft.attachments = vec![DraftAttachment {
            filename: "a.eml".into(),
            content_type: "message/rfc822".into(),
            content: content.clone(),
            content_id: None,
        }];
        let raw = draft.compose();
        assert_eq!(Message::attachment_bytes(&raw, 0).unwrap(), content.slice(..content.len()));
        assert!(memchr::memmem::find(&raw, b"Content-Transfer-Encoding: 8bit").is_some());
    }

    #[test]
    fn references_grow_by_the_parent_and_stay_short() {
        let ids = |list: &[&str]| list.iter().map(|id| MessageId::parse(id).unwrap()).collect::<Vec<_>>();
        let mut parent = HeaderSummary {
            message_id: MessageId::parse("p@x"),
            in_reply_to: ids(&["g@x"]),
            ..HeaderSummary::default()
        };
        assert_eq!(reply_references(&parent), ids(&["g@x", "p@x"]));
        parent.references = (0..40).map(|n| MessageId::parse(&format!("{n}@x")).unwrap()).collect();
        let got = reply_references(&parent);
        assert_eq!(
            (got.len(), got[0].as_str(), got[1].as_str(), got[20].as_str()),
            (21, "0@x", "21@x", "p@x")
        );
        assert_eq!(reply_references(&HeaderSummary::default()), []);
    }

    #[test]
    fn date_and_message_id_are_added_only_where_they_lack() {
        let (date, id) = (Timestamp::from_second(1_743_501_600).unwrap(), MessageId::parse("n@x").unwrap());
        let ensure = |raw: &str| {
            String::from_utf8(ensure_date_and_message_id(raw.as_bytes(), date, &id).to_vec()).unwrap()
        };
        let whole = "Date: Tue, 1 Apr 2025 10:00:00 +0000\r\nMessage-ID: <1@x>\r\n\r\nb";
        assert_eq!(ensure(whole), whole);
        assert_eq!(
            ensure("A: 1\r\n\r\nb"),
            "Date: Tue, 1 Apr 2025 10:00:00 +0000\r\nMessage-ID: <n@x>\r\nA: 1\r\n\r\nb"
        );
        assert_eq!(
            ensure("Message-ID:\r\nDate: Tue, 1 Apr 2025 10:00:00 +0000\r\n\r\n"),
            "Message-ID: <n@x>\r\nDate: Tue, 1 Apr 2025 10:00:00 +0000\r\n\r\n"
        );
    }

    proptest! {
        #[test]
        fn nothing_in_a_draft_can_add_a_field_or_a_lone_line_end(
            subject in "(?s).{0,80}", name in "(?s).{0,40}", filename in "(?s).{0,40}", kind in "(?s).{0,20}", text in "(?s).{0,200}",
            id in "(?s).{0,20}", content in prop::collection::vec(any::<u8>(), 0..100),
        ) {
            let mut draft = draft();
            draft.subject = format!("{subject}\r\nBcc: v@w");
            draft.from = party(&format!("{name}\r\nBcc: v@w"), "ann@x.example");
            draft.html = Some(format!("{text}\r\n\r\n.\r\n"));
            draft.text = Some(text);
            let content_id = (!id.is_empty()).then(|| format!("{id}\r\nBcc: v@w"));
            draft.attachments = vec![DraftAttachment { filename, content_type: kind, content: content.into(), content_id }];
            let raw = draft.compose();
            let header = HeaderBlock::scan(&raw);
            let names: Vec<_> = header.fields().iter().map(|field| field.name().to_owned()).collect();
            prop_assert_eq!(names, ["Date", "From", "To", "Subject", "Message-ID", "MIME-Version", "Content-Type"]);
            prop_assert!(!has_lone_line_end(&raw) && !has_overlong_line(&raw));
            prop_assert_eq!(Message::attachment_bytes(&raw, 0).unwrap(), draft.attachments[0].content.clone());
            prop_assert_eq!(Message::parse(&raw).attachments.len(), 1);
        }
    }
}
