//! A message: its exact bytes, and what can be read of them. Reading never fails, it yields a message and its defects.
//!
//! Not here: showing HTML (`sanitise`), finding the new text of an answer (`reply`), reading bounces (`report`).

use std::{fmt, ops::Deref, panic};

use bytes::Bytes;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::{
    Automatic, ContentIdentity, HeaderSummary, MessageId,
    content_identity::{attachment_hash, words_of_html},
    filename::display_name,
    header::{HeaderBlock, HeaderDefect},
    part::{Part, Parts},
    readable::{Readable, enclosing_alternative},
    subject,
    transfer::TransferEncoding,
};

/// The exact bytes of a message. They are stored once and never changed; everything else can be derived again.
#[derive(Clone, PartialEq, Eq)]
pub struct RawMessage(pub Bytes);

impl RawMessage {
    #[must_use]
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        Self(bytes.into())
    }

    #[must_use]
    pub fn into_bytes(self) -> Bytes {
        self.0
    }
}

impl Deref for RawMessage {
    type Target = [u8];
    fn deref(&self) -> &[u8] {
        &self.0
    }
}

impl AsRef<[u8]> for RawMessage {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

/// Prints no content: what `{:?}` prints ends up in logs.
impl fmt::Debug for RawMessage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "RawMessage({} bytes)", self.0.len())
    }
}

/// What sort of mail it is, for those who look at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Default, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    #[default]
    Mail,
    AutoReply,
    Bounce,
    /// Scheduling: asks to a meeting, answers or calls it off (RFC 6047).
    Invitation,
    Forward,
}

impl Kind {
    /// Whether programs wrote it: it makes no contacts, and nothing is sent on because of it.
    #[must_use]
    pub fn is_machines(self) -> bool {
        match self {
            Self::AutoReply | Self::Bounce | Self::Invitation => true,
            Self::Mail | Self::Forward => false,
        }
    }
}

/// What was wrong with a message. A defect is told, never a reason to refuse.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Defect {
    HeaderTooLong,
    TooManyFields,
    FieldTooLong,
    BadFieldName,
    /// The header ended without an empty line.
    NoSeparator,
    NoFrom,
    SeveralFrom,
    /// A field that decides how the body is read comes twice; the first counts.
    AmbiguousMime,
    MissingBoundary,
    UnclosedMultipart,
    /// Over `part::DEPTH_MAX`; what lies deeper is one opaque part.
    TooDeep,
    /// Over `part::PARTS_MAX`; what follows was not read.
    TooManyParts,
    UnknownTransferEncoding,
    /// Our own fault: reading the body failed, only the header was read.
    Unreadable,
}

impl From<HeaderDefect> for Defect {
    fn from(defect: HeaderDefect) -> Self {
        match defect {
            HeaderDefect::TooLong => Self::HeaderTooLong,
            HeaderDefect::TooManyFields => Self::TooManyFields,
            HeaderDefect::FieldTooLong => Self::FieldTooLong,
            HeaderDefect::FieldName => Self::BadFieldName,
            HeaderDefect::NoSeparator => Self::NoSeparator,
        }
    }
}

/// A part that is not the message's own text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attachment {
    /// Position among the message's attachments: what [`Message::attachment_bytes`] takes.
    pub index: usize,
    /// As it may be shown; `None` when the sender gave none.
    pub filename: Option<String>,
    /// As its sender named it, paths and all: to compare, never to show or to save under. Empty where only its disposition
    /// says that it is a file.
    #[serde(skip)]
    pub written_name: Option<String>,
    /// Type and subtype in lower case.
    pub content_type: String,
    /// Octets after decoding.
    pub size: u64,
    /// SHA-256 of the decoded content.
    pub sha256: [u8; 32],
    /// Without brackets; `cid:` links of the HTML name it.
    pub content_id: Option<String>,
    /// Belongs into the text rather than below it.
    pub inline: bool,
}

/// What could be read of a message.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    pub summary: HeaderSummary,
    pub kind: Kind,
    /// Somebody told his provider that mail was unwanted (RFC 5965); the mail lies inside.
    pub is_complaint: bool,
    /// The mail that a read receipt is about.
    pub receipt_of: Option<MessageId>,
    /// The plain text, lines ending in `\n`. `None` when there is none or only HTML.
    pub text: Option<String>,
    /// The plain text that stands first alone, where mail has several; empty when all are.
    pub first_text: Option<String>,
    /// The HTML as it came: never to be shown unsanitised.
    pub html: Option<String>,
    pub attachments: Vec<Attachment>,
    pub defects: Vec<Defect>,
    pub content: ContentIdentity,
}

impl Message {
    /// Reads a message whole. Never fails and never panics.
    #[must_use]
    pub fn parse(raw: &[u8]) -> Self {
        // The charset decoders are foreign code that once panicked; one message must not stop those behind it.
        panic::catch_unwind(|| Self::read(raw)).unwrap_or_else(|_| Self::of_header_alone(raw))
    }

    fn read(raw: &[u8]) -> Self {
        let parts = Parts::read(raw);
        let root_header = parts.list.first().map(|root| root.header.clone()).unwrap_or_default();
        let summary = HeaderSummary::of(&root_header);
        let readable = Readable::of(&parts);
        let (mut attachments, mut hashes) = (Vec::new(), Vec::new());
        for part in attachment_parts(&parts, &readable) {
            let content = part.decoded();
            hashes.push(attachment_hash(&content, part.content_type.essence().starts_with("text/")));
            attachments.push(describe(attachments.len(), part, &parts, &content));
        }
        let content = ContentIdentity::of(&summary, &readable.identity_text(), hashes);
        let mut defects = defects(&root_header, &parts);
        defects.dedup();
        let is_complaint = is_complaint(&parts);
        let kind = if is_complaint { Kind::Mail } else { kind(&summary, &parts, readable.text.as_deref()) };
        let is_receipt = kind == Kind::AutoReply && is_report(&parts);
        let receipt_of = if is_receipt { receipt_of(&parts) } else { None };
        Self {
            summary,
            kind,
            is_complaint,
            receipt_of,
            text: readable.text,
            first_text: readable.first_plain,
            html: readable.html,
            attachments,
            defects,
            content,
        }
    }

    fn of_header_alone(raw: &[u8]) -> Self {
        let summary = panic::catch_unwind(|| HeaderSummary::read(raw)).unwrap_or_default();
        let content = ContentIdentity::of(&summary, "", vec![attachment_hash(raw, true)]);
        let (text, html, attachments, defects) = (None, None, Vec::new(), vec![Defect::Unreadable]);
        Self {
            summary,
            kind: Kind::Mail,
            is_complaint: false,
            receipt_of: None,
            text,
            first_text: None,
            html,
            attachments,
            defects,
            content,
        }
    }

    /// The decoded content of an attachment, by its [`Attachment::index`].
    #[must_use]
    pub fn attachment_bytes(raw: &[u8], index: usize) -> Option<Bytes> {
        let read = || {
            let parts = Parts::read(raw);
            let readable = Readable::of(&parts);
            attachment_parts(&parts, &readable)
                .nth(index)
                .map(|part| Bytes::from(part.decoded().into_owned()))
        };
        panic::catch_unwind(read).ok().flatten()
    }

    /// The message without the content of these attachments, by their [`Attachment::index`]. All else stays as it is, their
    /// headers too; of a message that cannot be cut nothing stays.
    #[must_use]
    pub fn without_attachments(raw: &[u8], omitted: &[usize]) -> Bytes {
        let cut = || {
            let parts = Parts::read(raw);
            let readable = Readable::of(&parts);
            let (mut rest, mut from) = (Vec::with_capacity(raw.len()), 0);
            for (index, part) in attachment_parts(&parts, &readable).enumerate() {
                // A body is a piece of the message itself.
                let start = part.body.as_ptr().addr().checked_sub(raw.as_ptr().addr());
                if let Some(start) = start.filter(|_| omitted.contains(&index) && !part.body.is_empty()) {
                    rest.extend_from_slice(raw.get(from..start).unwrap_or_default());
                    from = start.saturating_add(part.body.len());
                }
            }
            rest.extend_from_slice(raw.get(from..).unwrap_or_default());
            Bytes::from(rest)
        };
        panic::catch_unwind(cut).unwrap_or_default()
    }

    /// The text, made from the HTML where there is only that.
    #[must_use]
    pub fn readable_text(&self) -> Option<String> {
        self.text.clone().or_else(|| self.html.as_deref().map(super::sanitise::html_to_text))
    }
}

impl Readable {
    /// The words that identify the message: those of its first body, without markup.
    fn identity_text(&self) -> String {
        self.first_text.clone().or_else(|| self.first_html.as_deref().map(words_of_html)).unwrap_or_default()
    }
}

/// What holds messages that nobody passed on.
const REPORTS_AND_DIGESTS: [&str; 2] = ["multipart/report", "multipart/digest"];

/// The first message that is attached whole (message/rfc822 or message/global), and whether it can be the one passed on: no
/// other is attached, and it is the message itself or lies directly below the root. What lies deeper came along with a part.
#[must_use]
pub(super) fn forwarded_part(raw: &[u8]) -> Option<(Bytes, bool)> {
    let read = || {
        let parts = Parts::read(raw);
        let is_message =
            |part: &Part<'_>| matches!(part.content_type.essence(), "message/rfc822" | "message/global");
        let mut found = parts.leaves().filter(|(_, part)| is_message(part));
        let (_, first) = found.next()?;
        // What a report is about and what a list sent in one, nobody passed on.
        let holder = first.parent.and_then(|parent| parts.list.get(parent));
        if holder.is_some_and(|holder| REPORTS_AND_DIGESTS.contains(&holder.content_type.essence())) {
            return None;
        }
        let is_only = found.next().is_none() && first.parent.is_none_or(|parent| parent == 0);
        Some((Bytes::from(first.decoded().into_owned()), is_only))
    };
    panic::catch_unwind(read).ok().flatten()
}

fn attachment_parts<'p, 'a>(parts: &'p Parts<'a>, readable: &Readable) -> impl Iterator<Item = &'p Part<'a>> {
    parts.leaves().filter(|(index, _)| !readable.parts.contains(index)).map(|(_, part)| part)
}

/// The file name from where senders put it; Outlook has it on Content-Type alone.
pub(super) fn filename(part: &Part<'_>) -> Option<String> {
    display_name(&written_name(part)?)
}

fn written_name(part: &Part<'_>) -> Option<String> {
    part.disposition.parameter("filename").or_else(|| part.content_type.parameter("name"))
}

fn describe(index: usize, part: &Part<'_>, parts: &Parts<'_>, content: &[u8]) -> Attachment {
    let in_related = part
        .parent
        .and_then(|parent| parts.list.get(parent))
        .is_some_and(|p| p.content_type.essence() == "multipart/related");
    let content_id = part
        .header
        .text("Content-ID")
        .map(|id| id.trim_matches(['<', '>', ' ']).to_owned())
        .filter(|id| !id.is_empty());
    let disposition = part.disposition.essence();
    Attachment {
        index,
        filename: filename(part),
        written_name: written_name(part).or_else(|| (disposition == "attachment").then(String::new)),
        content_type: part.content_type.essence().to_owned(),
        size: content.len() as u64,
        sha256: Sha256::digest(content).into(),
        inline: disposition == "inline"
            || (disposition != "attachment" && in_related && content_id.is_some()),
        content_id,
    }
}

fn defects(root: &HeaderBlock<'_>, parts: &Parts<'_>) -> Vec<Defect> {
    let mut defects: Vec<Defect> = root.defects().iter().map(|defect| Defect::from(*defect)).collect();
    match root.count("From") {
        0 => defects.push(Defect::NoFrom),
        1 => {}
        _ => defects.push(Defect::SeveralFrom),
    }
    let decisive = ["Content-Type", "Content-Transfer-Encoding", "Content-Disposition"];
    if parts.list.iter().any(|part| decisive.iter().any(|name| part.header.count(name) > 1)) {
        defects.push(Defect::AmbiguousMime);
    }
    if parts.list.iter().any(|part| part.encoding() == TransferEncoding::Unknown) {
        defects.push(Defect::UnknownTransferEncoding);
    }
    defects.extend(&parts.defects);
    defects
}

fn kind(summary: &HeaderSummary, parts: &Parts<'_>, text: Option<&str>) -> Kind {
    match summary.automatic {
        // Gateways that change the header of a report leave its type and fields. The fields alone anybody may attach to what he writes.
        _ if is_report(parts) && parts.leaves().any(|(_, part)| is_delivery_status(part)) => {
            return Kind::Bounce;
        }
        _ if is_report(parts) && parts.leaves().any(|(_, part)| is_disposition_notification(part)) => {
            return Kind::AutoReply;
        }
        Automatic::Bounce => return Kind::Bounce,
        Automatic::AutoReply => return Kind::AutoReply,
        _ => {}
    }
    if parts.leaves().any(|(_, part)| is_scheduling(summary, parts, part)) {
        return Kind::Invitation;
    }
    if is_forward(summary, parts, text) { Kind::Forward } else { Kind::Mail }
}

/// Whether the whole message says that it is a report (RFC 6522), whatever of.
fn is_report(parts: &Parts<'_>) -> bool {
    parts.list.first().is_some_and(|root| root.content_type.essence() == "multipart/report")
}

/// Told by the part that RFC 5965 wants, by the report's own type, or by the words of Hotmail's feedback loop.
fn is_complaint(parts: &Parts<'_>) -> bool {
    let by_part = parts.leaves().any(|(_, part)| part.content_type.essence() == "message/feedback-report");
    let by_type = |root: &Part<'_>| {
        let kind = root.content_type.parameter("report-type");
        kind.is_some_and(|kind| kind.eq_ignore_ascii_case("feedback-report"))
    };
    let by_words = |root: &Part<'_>| {
        let subject = root.header.text("Subject").unwrap_or_default().to_lowercase();
        subject.starts_with("complaint about message from")
            && parts.leaves().any(|(_, part)| part.content_type.essence() == "message/rfc822")
    };
    by_part || parts.list.first().is_some_and(|root| by_type(root) || by_words(root))
}

fn is_delivery_status(part: &Part<'_>) -> bool {
    matches!(part.content_type.essence(), "message/delivery-status" | "message/global-delivery-status")
}

fn is_disposition_notification(part: &Part<'_>) -> bool {
    matches!(
        part.content_type.essence(),
        "message/disposition-notification" | "message/global-disposition-notification"
    )
}

/// What the fields of a receipt call the mail that it is about (RFC 8098 section 3.2.5).
fn receipt_of(parts: &Parts<'_>) -> Option<MessageId> {
    let (_, part) = parts.leaves().find(|(_, part)| is_disposition_notification(part))?;
    let fields = part.decoded();
    MessageId::parse_own(&HeaderBlock::scan(&fields).text("Original-Message-ID")?)
}

/// RFC 6047 section 2.4 wants the method in Content-Type. Where it stands in the calendar alone, the part must be the body or one
/// of its alternatives. A file is a file: what somebody attached to what he writes, to an answer or to what he passes on.
fn is_scheduling(summary: &HeaderSummary, parts: &Parts<'_>, part: &Part<'_>) -> bool {
    if part.content_type.essence() != "text/calendar" {
        return false;
    }
    let subject = summary.subject.as_deref().unwrap_or_default();
    let is_attached = part.disposition.essence() == "attachment";
    if is_attached && (subject::is_reply_prefix(subject) || subject::is_forward_prefix(subject)) {
        return false;
    }
    match part.content_type.parameter("method") {
        Some(method) => is_method(&method),
        None => {
            let is_body = part.parent.is_none() || enclosing_alternative(parts, part).is_some();
            is_body && !is_attached && calendar_method(&part.decoded()).is_some_and(is_method)
        }
    }
}

/// Whether it is about a meeting of several (RFC 5546 section 1.4). What is merely published asks nobody.
fn is_method(method: &str) -> bool {
    !method.trim().is_empty() && !method.trim().eq_ignore_ascii_case("publish")
}

/// What the METHOD line of a calendar says.
fn calendar_method(calendar: &[u8]) -> Option<&str> {
    let lines = calendar.split(|byte| *byte == b'\n');
    let value = lines.map(<[u8]>::trim_ascii).find_map(|line| line.strip_prefix(b"METHOD:"))?;
    std::str::from_utf8(value).ok()
}

/// Lines that clients put above what they forward.
const FORWARD_LINES: [&str; 6] = [
    "---------- Forwarded message",
    "Begin forwarded message:",
    "-------- Forwarded Message --------",
    "----- Forwarded message",
    "----- Weitergeleitete Nachricht",
    "-------- Weitergeleitete Nachricht --------",
];

fn is_forward(summary: &HeaderSummary, parts: &Parts<'_>, text: Option<&str>) -> bool {
    let subject = summary.subject.as_deref().unwrap_or_default();
    if subject::is_reply_prefix(subject) {
        return false;
    }
    let has_message = parts.leaves().any(|(_, part)| part.content_type.essence() == "message/rfc822");
    let has_line = || {
        text.is_some_and(|text| {
            text.lines().any(|line| FORWARD_LINES.iter().any(|start| line.starts_with(start)))
        })
    };
    subject::is_forward_prefix(subject) || has_message || has_line()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const HEAD: &str = "From: Ann <ann@x.example>\r\nDate: Tue, 1 Apr 2025 10:00:00 +0200\r\nMessage-ID: <1@x>\r\nMIME-Version: 1.0\r\n";

    fn identity(raw: &str) -> ContentIdentity {
        Message::parse(raw.as_bytes()).content
    }

    fn plain(encoding: &str, body: &str) -> String {
        format!(
            "{HEAD}Content-Type: text/plain; charset=utf-8\r\nContent-Transfer-Encoding: {encoding}\r\n\r\n{body}"
        )
    }

    #[track_caller]
    fn check(raw: &str, text: Option<&str>, attachments: &[Option<&str>]) {
        let message = Message::parse(raw.as_bytes());
        assert_eq!(message.text.as_deref(), text, "{raw:?}");
        let names: Vec<_> = message.attachments.iter().map(|a| a.filename.as_deref()).collect();
        assert_eq!(names, attachments, "{raw:?}");
    }

    #[test]
    fn files_are_cut_out_and_everything_else_stays() {
        let part = |name: &str, body: &str| {
            format!(
                "--b\r\nContent-Type: application/pdf; name={name}\r\nContent-Transfer-Encoding: base64\r\n\r\n{body}\r\n"
            )
        };
        let message = |first: &str, second: &str| {
            format!(
                "{HEAD}Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nHello\r\n{}{}--b--\r\nend\r\n",
                part("a.pdf", first),
                part("b.pdf", second)
            )
        };
        let raw = message("c2VjcmV0", "b3BlbiE=");
        let without = |omitted: &[usize]| Message::without_attachments(raw.as_bytes(), omitted);
        assert_eq!(without(&[]), raw.as_bytes());
        assert_eq!(without(&[0]), message("", "b3BlbiE=").as_bytes());
        assert_eq!(without(&[1, 0]), message("", "").as_bytes());
        let read = Message::parse(&without(&[0]));
        let shown: Vec<_> =
            read.attachments.iter().map(|file| (file.filename.as_deref(), file.size)).collect();
        assert_eq!(shown, [(Some("a.pdf"), 0), (Some("b.pdf"), 5)]);
        assert_eq!(read.text.as_deref(), Some("Hello"));
        let only = format!("{HEAD}Content-Type: application/pdf\r\n\r\nsecret");
        let rest = Message::without_attachments(only.as_bytes(), &[0]);
        assert_eq!(rest, format!("{HEAD}Content-Type: application/pdf\r\n\r\n"));
    }

    #[track_caller]
    fn check_kind(field: &str, body: &str, kind: Kind) {
        let raw = format!("{HEAD}{field}\r\n\r\n{}", body.replace('\n', "\r\n"));
        assert_eq!(Message::parse(raw.as_bytes()).kind, kind, "{raw}");
    }

    /// A receipt with these fields in a report, whose own fields are given too.
    fn receipt(root: &str, essence: &str, fields: &str) -> (String, String) {
        let text = "--b\nContent-Type: text/plain\n\nYour message was displayed.\n";
        let original = "--b\nContent-Type: text/rfc822-headers\n\nMessage-ID: <offer@x>\n";
        let body = format!("{text}--b\nContent-Type: {essence}\n\n{fields}\n\n{original}--b--\n");
        (format!("{root}; boundary=b"), body)
    }

    #[test]
    fn read_receipts_are_told_by_their_structure() {
        const ROOT: &str = "Content-Type: multipart/report; report-type=disposition-notification";
        const PART: &str = "message/disposition-notification";
        let displayed = "Disposition: manual-action/MDN-sent-manually; displayed";
        let about = |fields: &str| format!("Final-Recipient: rfc822;bob@x.example\n{fields}");
        let thunderbird = about(&format!("Original-Message-ID: <offer@x>\n{displayed}"));
        let exchange = about(
            "Original-Message-ID: <offer@x>\nDisposition: automatic-action/MDN-sent-automatically; deleted",
        );
        let folded = about(&format!("{displayed}\noriginal-message-id:\n <offer@x> (as sent)"));
        for (root, essence, fields) in [
            (ROOT, PART, thunderbird.as_str()),
            (ROOT, PART, exchange.as_str()),
            (ROOT, PART, folded.as_str()),
            (ROOT, "message/global-disposition-notification", thunderbird.as_str()),
            // As gateways leave it that know no such report.
            ("Content-Type: multipart/report", PART, thunderbird.as_str()),
            (
                "Content-Type: multipart/report; report-type=\"Disposition-Notification\"",
                PART,
                thunderbird.as_str(),
            ),
        ] {
            let (root, body) = receipt(root, essence, fields);
            let raw = format!("{HEAD}{root}\r\n\r\n{}", body.replace('\n', "\r\n"));
            let message = Message::parse(raw.as_bytes());
            assert_eq!(
                (message.kind, message.receipt_of),
                (Kind::AutoReply, MessageId::parse("offer@x")),
                "{raw}"
            );
            assert_ne!(message.summary.automatic, Automatic::No, "{raw}");
        }
        let (root, body) = receipt(ROOT, PART, displayed);
        check_kind(&root, &body, Kind::AutoReply);
        // Whoever asks for a receipt writes himself, and so does who attaches one.
        check_kind("Disposition-Notification-To: ann@x.example", "Hello", Kind::Mail);
        let (root, body) = receipt("Content-Type: multipart/mixed", PART, &thunderbird);
        check_kind(&root, &body, Kind::Mail);
    }

    fn calendar(method: &str) -> String {
        format!("BEGIN:VCALENDAR\nVERSION:2.0\n{method}BEGIN:VEVENT\nUID:1\nEND:VEVENT\nEND:VCALENDAR\n")
    }

    fn part(field: &str, content: &str) -> String {
        format!("--b\nContent-Type: {field}\n\n{content}")
    }

    const MIXED: &str = "Content-Type: multipart/mixed; boundary=b";
    const ALTERNATIVE: &str = "Content-Type: multipart/alternative; boundary=b";

    #[test]
    fn scheduling_is_told_by_its_structure() {
        for (subject, method) in [
            ("Invitation: Budget @ Tue Apr 1, 2025 10am", "REQUEST"),
            ("Accepted: Budget", "REPLY"),
            ("Zugesagt: Budget", "reply"),
            ("Abgesagt: Budget", "CANCEL"),
            ("Budget", "COUNTER"),
        ] {
            let line = format!("METHOD:{}\n", method.to_uppercase());
            let said = format!("text/calendar; charset=utf-8; method={method}");
            let text =
                part("text/plain", "You are invited.\n") + &part("text/html", "<p>You are invited.</p>\n");
            let invite = part(&said, &calendar(&line));
            let fields = |root: &str| format!("Subject: {subject}\r\n{root}");
            // Outlook, Exchange.
            check_kind(&fields(ALTERNATIVE), &format!("{text}{invite}--b--\n"), Kind::Invitation);
            // Google, with the same once more as a file.
            let inner = format!("{text}{invite}--b--\n").replace("--b", "--c");
            let file =
                part("application/ics; name=invite.ics\nContent-Disposition: attachment", &calendar(&line));
            let google = format!("{}{file}--b--\n", part("multipart/alternative; boundary=c", &inner));
            check_kind(&fields(MIXED), &google, Kind::Invitation);
            // Nextcloud, as a file that says what it is for.
            let named =
                format!("{said}; name=event.ics\nContent-Disposition: attachment; filename=event.ics");
            check_kind(
                &fields(MIXED),
                &format!("{text}{}--b--\n", part(&named, &calendar(&line))),
                Kind::Invitation,
            );
            // RFC 6047 section 4.1: nothing but the calendar, here without the parameter that it should have.
            check_kind(&fields("Content-Type: text/calendar"), &calendar(&line), Kind::Invitation);
            let silent = part("text/calendar", &calendar(&line));
            check_kind(&fields(ALTERNATIVE), &format!("{text}{silent}--b--\n"), Kind::Invitation);
        }
    }

    #[test]
    fn a_calendar_in_a_letter_leaves_it_a_letter() {
        let text = part("text/plain", "Here is the date.\n");
        let request = calendar("METHOD:REQUEST\n");
        let file = |field: &str, calendar: &str| format!("{text}{}--b--\n", part(field, calendar));
        let attached = "text/calendar; name=invite.ics\nContent-Disposition: attachment; filename=invite.ics";
        let with_method = "text/calendar; method=REQUEST; name=invite.ics\nContent-Disposition: attachment; filename=invite.ics";
        check_kind(MIXED, &file(attached, &request), Kind::Mail);
        // Apple Mail marks what is attached as inline.
        let inline = "text/calendar; name=invite.ics; x-unix-mode=0644\nContent-Disposition: inline; filename=invite.ics";
        check_kind(MIXED, &file(inline, &request), Kind::Mail);
        check_kind(MIXED, &file("text/calendar; name=a.ics", &calendar("")), Kind::Mail);
        check_kind(MIXED, &file("text/calendar; method=PUBLISH", &calendar("METHOD:PUBLISH\n")), Kind::Mail);
        check_kind(&format!("Subject: Re: Budget\r\n{MIXED}"), &file(with_method, &request), Kind::Mail);
        check_kind(&format!("Subject: Fwd: Budget\r\n{MIXED}"), &file(with_method, &request), Kind::Forward);
    }

    #[test]
    fn content_stays_the_same_however_the_message_travelled() {
        let original = identity(&plain("8bit", "Grüße, und\r\nbis bald\r\n"));
        let travelled = [
            plain("quoted-printable", "Gr=C3=BC=C3=9Fe, und =\r\nbis bald\r\n\r\n"),
            plain("base64", "R3LDvMOfZSwgdW5kDQpiaXMgYmFsZA0K"),
            plain("8bit", "Grüße, und  \nbis bald"),
            format!(
                "Received: from a by b\r\nBcc: c@d.example\r\n{}",
                plain("8bit", "Grüße, und\r\nbis bald\r\n")
            ),
            plain("8bit", "Grüße, und\r\nbis bald\r\n")
                .replace("From: Ann", "FROM:\r\n\t\"Ann\"\r\n")
                .replace("<1@x>", "<rewritten@y>"),
            plain("8bit", "Grüße, und\r\nbis bald\r\n").replace("10:00:00 +0200", "08:00:00 GMT"),
        ];
        for raw in travelled {
            assert_eq!(identity(&raw), original, "{raw:?}");
        }
    }

    #[test]
    fn other_content_is_another_identity() {
        let original = plain("8bit", "Hello");
        let others = [
            plain("8bit", "Hallo"),
            original.replace("10:00:00", "10:00:01"),
            original.replace("ann@", "bob@"),
            original.replace("text/plain", "application/pdf"),
        ];
        for other in others {
            assert_ne!(identity(&other), identity(&original), "{other:?}");
        }
    }

    #[test]
    fn text_html_and_attachments_are_told_apart() {
        let raw = format!(
            "{HEAD}Content-Type: multipart/mixed; boundary=m\r\n\r\n--m\r\nContent-Type: multipart/alternative; boundary=a\r\n\r\n\
             --a\r\n\r\nhi\r\n--a\r\nContent-Type: text/html\r\n\r\n<b>hi</b>\r\n--a--\r\n--m\r\n\
             Content-Type: application/pdf; name=\"a.pdf\"\r\nContent-Transfer-Encoding: base64\r\n\r\nSGk=\r\n--m--\r\n"
        );
        check(&raw, Some("hi"), &[Some("a.pdf")]);
        let message = Message::parse(raw.as_bytes());
        assert_eq!(message.html.as_deref(), Some("<b>hi</b>"));
        assert_eq!((message.attachments[0].size, message.attachments[0].inline), (2, false));
        assert_eq!(Message::attachment_bytes(raw.as_bytes(), 0).as_deref(), Some(&b"Hi"[..]));
        assert_eq!(Message::attachment_bytes(raw.as_bytes(), 1), None);
    }

    #[test]
    fn an_unclosed_multipart_has_text_and_says_so() {
        let raw = "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\nhalf a mess";
        check(raw, Some("half a mess"), &[]);
        assert!(Message::parse(raw.as_bytes()).defects.contains(&Defect::UnclosedMultipart));
    }

    #[test]
    fn text_around_an_attachment_is_all_there() {
        let raw = "Content-Type: multipart/mixed; boundary=a\r\n\r\n--a\r\n\r\nbefore\r\n--a\r\nContent-Type: image/png; name=x.png\r\n\r\n.\r\n\
                   --a\r\n\r\nafter\r\n--a--";
        check(raw, Some("before\nafter"), &[Some("x.png")]);
    }

    #[test]
    fn an_embedded_image_is_inline() {
        let raw = "Content-Type: multipart/related; boundary=a\r\n\r\n--a\r\nContent-Type: text/html\r\n\r\n<img src=cid:i@x>\r\n\
                   --a\r\nContent-Type: image/png\r\nContent-ID: <i@x>\r\n\r\n.\r\n--a--";
        let message = Message::parse(raw.as_bytes());
        let image = &message.attachments[0];
        assert_eq!((image.inline, image.content_id.as_deref(), &message.text), (true, Some("i@x"), &None));
    }

    #[test]
    fn kinds_are_told_apart() {
        let cases = [
            ("Subject: x\r\n\r\nhi", Kind::Mail),
            ("Auto-Submitted: auto-replied\r\n\r\nhi", Kind::AutoReply),
            ("Content-Type: multipart/report; report-type=delivery-status; boundary=a\r\n\r\n", Kind::Bounce),
            ("Content-Type: text/calendar; method=REQUEST\r\n\r\nBEGIN:VCALENDAR", Kind::Invitation),
            ("Subject: Fwd: x\r\n\r\nhi", Kind::Forward),
            ("Subject: x\r\n\r\nhi\n\n---------- Forwarded message ---------\nFrom: b", Kind::Forward),
            ("Subject: Re: x\r\n\r\nhi\n\nBegin forwarded message:\n", Kind::Mail),
        ];
        for (raw, kind) in cases {
            assert_eq!(Message::parse(raw.as_bytes()).kind, kind, "{raw:?}");
        }
    }

    #[test]
    fn a_complaint_is_neither_a_forward_nor_a_bounce() {
        let part = "\r\n\r\n--a\r\nContent-Type: message/rfc822\r\n\r\nSubject: x\r\n\r\nhi\r\n--a--\r\n";
        for head in [
            "Content-Type: multipart/report; report-type=feedback-report; boundary=a",
            "Subject: complaint about message from 192.0.2.1\r\nContent-Type: multipart/mixed; boundary=a",
        ] {
            let message = Message::parse(format!("{head}{part}").as_bytes());
            assert_eq!((message.kind, message.is_complaint), (Kind::Mail, true), "{head}");
        }
    }

    #[test]
    fn what_is_wrong_is_said_once() {
        let message = Message::parse(b"Content-Type: text/plain\r\nContent-Type: text/html\r\nContent-Transfer-Encoding: foo\r\n\r\n<b>x</b>");
        assert_eq!(message.defects, [Defect::NoFrom, Defect::AmbiguousMime, Defect::UnknownTransferEncoding]);
        assert_eq!(message.text.as_deref(), Some("<b>x</b>"));
    }

    /// Bytes that look like mail often enough to reach deep into the reader.
    fn mail_like() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop::sample::select(vec![
            "From: a@b\r\n",
            "\r\n",
            "\n",
            "\r",
            "--a",
            "--a--",
            "Content-Type: multipart/mixed; boundary=a",
            "Content-Type: text/html",
            "; charset=utf-7",
            "; charset=iso-2022-jp",
            "Content-Transfer-Encoding: base64",
            "=?utf-8?Q?",
            "?=",
            "=E9",
            "<b>",
            "\"",
            "(",
            " ",
            "\t",
            ":",
            "\0",
            "é",
            "Content-Type: message/rfc822",
            "Content-Disposition: attachment; filename*0*=utf-16''%41",
            "Date: 1 Jan 2020",
        ]);
        let piece = prop_oneof![4 => pieces.prop_map(|s| s.as_bytes().to_vec()), 1 => prop::collection::vec(any::<u8>(), 0..8)];
        prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
    }

    proptest! {
        #[test]
        fn reading_never_panics(raw in mail_like()) {
            // Not through `parse`, which would hide a panic.
            let message = Message::read(&raw);
            for index in 0..message.attachments.len() {
                prop_assert!(Message::attachment_bytes(&raw, index).is_some());
            }
        }

        #[test]
        fn arbitrary_bytes_never_panic(raw in prop::collection::vec(any::<u8>(), 0..512)) {
            let _ = Message::read(&raw);
        }
    }

    #[test]
    fn reading_takes_time_in_proportion_to_the_message() {
        let shapes: [fn(usize) -> String; 5] = [
            |n| "To: a@b.example, ".to_owned() + &"c@d.example,\r\n ".repeat(n) + "\r\n\r\n",
            |n| {
                "Content-Type: multipart/mixed; boundary=a\r\n\r\n".to_owned()
                    + &"--b\r\n--a\r\nX: y\r\n".repeat(n)
            },
            |n| "Subject: ".to_owned() + &"=?utf-8?Q?a".repeat(n) + "\r\n\r\n",
            |n| "X: y\r\n".repeat(n),
            |n| "Content-Type: text/html\r\n\r\n".to_owned() + &"<b <!-- <style".repeat(n),
        ];
        for shape in shapes {
            let time = |n: usize| {
                let raw = shape(n);
                let once = || {
                    let start = std::time::Instant::now();
                    let _ = Message::read(raw.as_bytes());
                    start.elapsed()
                };
                (0..3).map(|_| once()).min().unwrap()
            };
            let (small, large) = (time(5_000), time(40_000));
            // Eight times the input; a quadratic reader would take 64 times as long.
            assert!(
                large < small * 32 + std::time::Duration::from_millis(250),
                "{small:?} {large:?} {:?}",
                shape(1)
            );
        }
    }
}
