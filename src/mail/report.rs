//! Reads delivery reports (RFC 3464), and what can be had of those without structure.
//!
//! Not here: writing one (`compose_report`), and what a failure means for a message of ours (`flow`).

use std::{
    collections::{HashMap, hash_map::Entry},
    fmt, mem,
    str::FromStr,
};

use serde::{Deserialize, Serialize};

use super::{
    Address, Automatic, HeaderBlock, HeaderSummary, MessageId, address_list, encoded_word,
    part::{Part, Parts},
    report_text::{self, Surroundings},
    sanitise::html_to_text,
};

/// Recipients read of one report.
const RECIPIENTS_MAX: usize = 1000;
/// Recipients of whom the words of a report are asked, each of which takes a look through all of them.
const WORDED_MAX: usize = 50;
/// Bytes of an unstructured report searched for the original's Message-ID.
const SEARCHED_BYTES_MAX: usize = 256 * 1024;

/// What happened to a recipient (RFC 3464 section 2.3.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Action {
    Failed,
    Delayed,
    Delivered,
    /// Handed to a system that does not report.
    Relayed,
    /// Delivered to a list or an alias with several members.
    Expanded,
}

impl Action {
    /// The word of RFC 3464.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Failed => "failed",
            Self::Delayed => "delayed",
            Self::Delivered => "delivered",
            Self::Relayed => "relayed",
            Self::Expanded => "expanded",
        }
    }

    fn parse(word: &str) -> Option<Self> {
        [Self::Failed, Self::Delayed, Self::Delivered, Self::Relayed, Self::Expanded]
            .into_iter()
            .find(|action| action.as_str() == word)
    }
}

/// An enhanced status code, `5.1.1` (RFC 3463).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct EnhancedStatus {
    /// 2 success, 4 may work later, 5 will not.
    pub class: u8,
    pub subject: u16,
    pub detail: u16,
}

impl EnhancedStatus {
    #[must_use]
    pub fn is_permanent(self) -> bool {
        self.class == 5
    }

    /// `5.0.0` says no more than that it failed, and `4.4.7` that it took too long: the reason stands elsewhere.
    #[must_use]
    pub fn is_general(self) -> bool {
        matches!((self.class, self.subject, self.detail), (_, 0, 0) | (4, 4, 7))
    }

    /// The first code that stands in a text as a word: `550 5.1.1 no such user`.
    #[must_use]
    pub fn find(text: &str) -> Option<Self> {
        let is_edge = |c: char| !(c.is_ascii_alphanumeric() || c == '.' || c == '-');
        text.split(is_edge).find_map(|word| word.trim_matches(['.', '-']).parse().ok())
    }
}

/// A text that is no status code.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not an enhanced status code")]
pub struct EnhancedStatusError;

impl FromStr for EnhancedStatus {
    type Err = EnhancedStatusError;
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let mut numbers = text.split('.').map(|number| {
            let is_number =
                (1..=3).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit());
            if is_number { number.parse::<u16>().ok() } else { None }
        });
        match (numbers.next().flatten(), numbers.next().flatten(), numbers.next().flatten(), numbers.next()) {
            (Some(class @ (2 | 4 | 5)), Some(subject), Some(detail), None) => {
                Ok(Self { class: u8::try_from(class).unwrap_or(5), subject, detail })
            }
            _ => Err(EnhancedStatusError),
        }
    }
}

impl TryFrom<String> for EnhancedStatus {
    type Error = EnhancedStatusError;
    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<EnhancedStatus> for String {
    fn from(status: EnhancedStatus) -> Self {
        status.to_string()
    }
}

impl fmt::Display for EnhancedStatus {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}.{}", self.class, self.subject, self.detail)
    }
}

/// One recipient of a report.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportRecipient {
    /// Whom the reporting system tried to reach.
    pub address: Address,
    /// Whom the sender wrote to, where aliases or forwarding lay between.
    pub original: Option<Address>,
    pub action: Action,
    pub status: Option<EnhancedStatus>,
    /// What the other server said.
    pub diagnostic: Option<String>,
}

/// A delivery report.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct DeliveryReport {
    /// Of the message reported on.
    pub original_message_id: Option<MessageId>,
    /// The ENVID given at submission.
    pub envelope_id: Option<String>,
    pub recipients: Vec<ReportRecipient>,
}

impl DeliveryReport {
    /// Reads the report in a message. `None` when the message is none, or says nothing about any recipient or message.
    #[must_use]
    pub fn read(raw: &[u8]) -> Option<Self> {
        let parts = Parts::read(raw);
        let is_status = |part: &Part<'_>| {
            matches!(
                part.content_type.essence(),
                "message/delivery-status" | "message/global-delivery-status"
            )
        };
        let status = parts.leaves().find(|(_, part)| is_status(part));
        let mut report = status.map(|(_, part)| Self::of_status(&part.decoded())).unwrap_or_default();
        if status.is_none() && HeaderSummary::of(&parts.list.first()?.header).automatic != Automatic::Bounce {
            return None;
        }
        report.complete(&parts);
        report.original_message_id =
            parts.leaves().find_map(|(_, part)| original_message_id(part)).or_else(|| quoted_message_id(raw));
        let says_something = report.original_message_id.is_some() || !report.recipients.is_empty();
        says_something.then_some(report)
    }

    /// The groups of fields in a delivery-status part: one on the message, then one for each recipient.
    fn of_status(content: &[u8]) -> Self {
        let mut report = Self::default();
        let mut rest = content;
        let mut groups = 0;
        while !rest.is_empty() && groups <= RECIPIENTS_MAX {
            let group = HeaderBlock::scan(rest);
            let after = rest.get(group.body_offset()..).unwrap_or_default();
            // A line that is no field ends a group without an empty line; it is skipped, or reading would stand still.
            rest = if group.end_offset() == group.body_offset() { skip_line(after) } else { after };
            if group.fields().is_empty() {
                continue;
            }
            groups += 1;
            report.envelope_id = report.envelope_id.or_else(|| group.text("Original-Envelope-Id"));
            report.recipients.extend(recipient(&group));
        }
        report
    }

    /// What happened, all recipients together: a failure counts most. `None` when nobody is named.
    #[must_use]
    pub fn action(&self) -> Option<Action> {
        WORST_FIRST.into_iter().find(|action| self.recipients.iter().any(|one| one.action == *action))
    }

    /// Adds what the words of the report tell, and the field in which Exim and its kin name those who failed.
    fn complete(&mut self, parts: &Parts<'_>) {
        let Some(root) = parts.list.first() else { return };
        let text = words(parts);
        if self.recipients.is_empty() {
            let marked = root.header.parties("X-Failed-Recipients").into_iter().map(|party| party.address);
            self.recipients = marked.map(|address| failed(address, &text)).take(WORDED_MAX).collect();
        }
        if self.recipients.is_empty() {
            self.recipients = report_text::recipients(&text, &surroundings(parts));
        }
        self.recipients = once_each(mem::take(&mut self.recipients));
        let alone = self.recipients.len() == 1;
        let vague = |one: &&mut ReportRecipient| one.status.is_none_or(EnhancedStatus::is_general);
        for one in self.recipients.iter_mut().filter(vague).take(WORDED_MAX) {
            let class = one.status.map(|status| status.class);
            let told = report_text::status_of(&text, &one.address).or_else(|| {
                report_text::best_status(&text.lines().take(if alone { 100 } else { 0 }).collect::<Vec<_>>())
            });
            one.status = told.filter(|told| class.is_none_or(|class| class == told.class)).or(one.status);
        }
    }
}

const WORST_FIRST: [Action; 5] =
    [Action::Failed, Action::Delayed, Action::Delivered, Action::Relayed, Action::Expanded];

/// Whoever is named more than once has what is worst of it. Two aliases of one mailbox are two.
fn once_each(recipients: Vec<ReportRecipient>) -> Vec<ReportRecipient> {
    let rank = |one: &ReportRecipient| WORST_FIRST.iter().position(|action| *action == one.action);
    let (mut places, mut kept): (HashMap<_, usize>, Vec<ReportRecipient>) = (HashMap::new(), Vec::new());
    for one in recipients {
        match places.entry((one.address.clone(), one.original.clone())) {
            Entry::Vacant(place) => {
                place.insert(kept.len());
                kept.push(one);
            }
            Entry::Occupied(place) => {
                if let Some(other) = kept.get_mut(*place.get()).filter(|other| rank(&one) < rank(other)) {
                    *other = one;
                }
            }
        }
    }
    kept
}

/// One who failed, by a mark of the header, with what the words say of him.
fn failed(address: Address, text: &str) -> ReportRecipient {
    let around = Surroundings::default();
    let told = report_text::recipients(text, &around).into_iter().find(|one| one.address == address);
    let is_delayed = report_text::is_still_trying(text);
    let action = if is_delayed { Action::Delayed } else { Action::Failed };
    told.unwrap_or(ReportRecipient { address, original: None, action, status: None, diagnostic: None })
}

/// The words of a report: its plain text, or that of its HTML, and what no reader knows the type of.
fn words(parts: &Parts<'_>) -> String {
    let mut text = String::new();
    let essence = |part: &Part<'_>| part.content_type.essence().to_owned();
    let plain = |part: &Part<'_>| {
        matches!(essence(part).as_str(), "text/plain" | "message/delivery-status" | "multipart/report")
    };
    let has_plain = parts.leaves().any(|(_, part)| plain(part) && !part.body.trim_ascii().is_empty());
    for (_, part) in parts.leaves() {
        if text.len() >= SEARCHED_BYTES_MAX {
            break;
        }
        if has_plain && plain(part) {
            text.push_str(&part.text());
            text.push('\n');
        } else if !has_plain && essence(part) == "text/html" {
            text.push_str(&html_to_text(&part.text()));
            text.push('\n');
        }
    }
    if text.trim().is_empty() {
        // A boundary that never comes hides every part.
        text = String::from_utf8_lossy(parts.list.first().map_or(b"", |root| root.body)).into_owned();
    }
    text.truncate(text.floor_char_boundary(SEARCHED_BYTES_MAX));
    text
}

fn surroundings(parts: &Parts<'_>) -> Surroundings {
    let Some(root) = parts.list.first() else { return Surroundings::default() };
    let parties = ["From", "To", "Reply-To"].iter().flat_map(|name| root.header.parties(name));
    let returned = parts.leaves().find(|(_, part)| holds_header(part)).map(|(_, part)| part.decoded());
    let returned = returned.map(|content| HeaderSummary::read(&content));
    Surroundings {
        correspondents: parties.map(|party| party.address).collect(),
        returned_to: returned
            .map(|summary| summary.to.into_iter().map(|party| party.address).collect())
            .unwrap_or_default(),
    }
}

fn skip_line(bytes: &[u8]) -> &[u8] {
    memchr::memchr(b'\n', bytes).and_then(|at| bytes.get(at + 1..)).unwrap_or_default()
}

fn recipient(group: &HeaderBlock<'_>) -> Option<ReportRecipient> {
    let original = typed_address(group, "Original-Recipient");
    let address = typed_address(group, "Final-Recipient").or_else(|| original.clone())?;
    let diagnostic = group
        .text("Diagnostic-Code")
        .map(|text| text.split_once(';').map_or(text.as_str(), |(_, text)| text).trim().to_owned());
    let status = group.text("Status").and_then(|text| EnhancedStatus::find(&text));
    let status = most_telling(status, diagnostic.as_deref());
    let by_status = || {
        status.map(|status| {
            if status.class == 4 {
                Action::Delayed
            } else if status.class == 5 {
                Action::Failed
            } else {
                Action::Delivered
            }
        })
    };
    let action = Action::parse(group.keyword("Action").split([' ', ';', '(']).next().unwrap_or_default())
        .or_else(by_status)?;
    Some(ReportRecipient { address, original, action, status, diagnostic })
}

/// Many servers write `5.0.0` for whatever the other one said more exactly.
fn most_telling(status: Option<EnhancedStatus>, diagnostic: Option<&str>) -> Option<EnhancedStatus> {
    if status.is_some_and(|status| !status.is_general()) {
        return status;
    }
    let told = diagnostic.and_then(|text| report_text::best_status(&[text]));
    told.filter(|told| status.is_none_or(|status| status.class == told.class)).or(status)
}

/// `rfc822; a@b.example`; some systems leave the type out or add brackets.
fn typed_address(group: &HeaderBlock<'_>, name: &str) -> Option<Address> {
    let value = group.first(name)?.value;
    let address = memchr::memchr(b';', value).and_then(|at| value.get(at + 1..)).unwrap_or(value);
    address_list::parse(address)
        .into_iter()
        .next()
        .map(|party| party.address)
        .or_else(|| decode_xtext(address))
}

/// RFC 3461 section 4: `+2B` stands for a plus sign; an ORCPT should have been decoded, and often is not.
fn decode_xtext(value: &[u8]) -> Option<Address> {
    let percent: Vec<u8> = value.iter().map(|byte| if *byte == b'+' { b'%' } else { *byte }).collect();
    Address::parse(&String::from_utf8_lossy(&encoded_word::decode_percent(&percent))).ok()
}

/// Whether a part is the message reported on, or its header.
fn holds_header(part: &Part<'_>) -> bool {
    matches!(
        part.content_type.essence(),
        "message/rfc822"
            | "text/rfc822-headers"
            | "message/global"
            | "message/global-headers"
            | "text/rfc822-header"
            | "message/rfc822-headers"
    )
}

fn original_message_id(part: &Part<'_>) -> Option<MessageId> {
    if !holds_header(part) {
        return None;
    }
    let content = part.decoded();
    // Some systems leave an empty line, or text of their own, before the header they return.
    HeaderSummary::read(&content).message_id.or_else(|| quoted_message_id(&content))
}

/// A Message-ID line in the text of a report, behind the report's own header.
fn quoted_message_id(raw: &[u8]) -> Option<MessageId> {
    let body = raw.get(HeaderBlock::scan(raw).body_offset()..)?;
    let searched = body.get(..SEARCHED_BYTES_MAX).unwrap_or(body);
    searched.split(|byte| *byte == b'\n').find_map(|line| {
        let line = String::from_utf8_lossy(line.get(..1200).unwrap_or(line));
        let (name, value) = line.split_once(':')?;
        let is_named = name.trim_start_matches([' ', '>', '|']).trim_end().eq_ignore_ascii_case("message-id");
        is_named.then(|| MessageId::parse_list(value).into_iter().next()).flatten()
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn report(status: &str, original: &str) -> String {
        format!(
            "From: <>\r\nContent-Type: multipart/report; report-type=delivery-status; boundary=a\r\n\r\n--a\r\n\r\nSorry.\r\n\
             --a\r\nContent-Type: message/delivery-status\r\n\r\n{status}\r\n--a\r\nContent-Type: {original}\r\n\r\n\
             Message-ID: <1@x>\r\nSubject: x\r\n\r\n--a--\r\n"
        )
    }

    #[test]
    fn a_recipient_counts_once_with_the_worst_of_what_is_said_of_him() {
        let group = |original: &str, action: &str| {
            format!(
                "Original-Recipient: rfc822; {original}\r\nFinal-Recipient: rfc822; bob@y.example\r\nAction: {action}\r\n\r\n"
            )
        };
        let status = ["delayed", "failed", "delivered"].map(|action| group("ann@y.example", action)).concat();
        let status = format!("Reporting-MTA: dns; x\r\n\r\n{status}{}", group("eve@y.example", "delivered"));
        let got = DeliveryReport::read(report(&status, "message/rfc822").as_bytes()).unwrap().recipients;
        let got: Vec<_> = got.iter().map(|one| (one.original.as_ref().unwrap().key(), one.action)).collect();
        assert_eq!(got, [("ann@y.example", Action::Failed), ("eve@y.example", Action::Delivered)]);
        let marked = "From: MAILER-DAEMON@x.example\r\nX-Failed-Recipients: bob@y.example, Bob@Y.example\r\n\r\nSorry.\r\n";
        assert_eq!(DeliveryReport::read(marked.as_bytes()).unwrap().recipients.len(), 1);
    }

    #[test]
    fn a_report_is_read_recipient_by_recipient() {
        let status = "Reporting-MTA: dns; mx.example\r\nOriginal-Envelope-Id: env-1\r\n\r\n\
                      Original-Recipient: rfc822;alias@y.example\r\nFinal-Recipient: RFC822; bob@y.example\r\nAction: failed (no)\r\n\
                      Status: 5.1.1\r\nDiagnostic-Code: smtp; 550 5.1.1\r\n no such user\r\n\r\n\
                      Final-Recipient: rfc822; <eve@z.example>\r\nAction: delayed\r\nStatus: 4.4.1 (timeout)\r\n";
        for original in ["text/rfc822-headers", "message/rfc822"] {
            let got = DeliveryReport::read(report(status, original).as_bytes()).unwrap();
            assert_eq!(
                (got.original_message_id, got.envelope_id.as_deref()),
                (MessageId::parse("1@x"), Some("env-1"))
            );
            let [bob, eve] = got.recipients.as_slice() else { panic!("{:?}", got.recipients) };
            assert_eq!(
                (bob.address.key(), bob.original.as_ref().unwrap().key()),
                ("bob@y.example", "alias@y.example")
            );
            assert_eq!((bob.action, bob.status.unwrap().to_string().as_str()), (Action::Failed, "5.1.1"));
            assert_eq!(bob.diagnostic.as_deref(), Some("550 5.1.1 no such user"));
            assert_eq!((eve.address.key(), eve.action), ("eve@z.example", Action::Delayed));
        }
    }

    #[test]
    fn what_a_report_leaves_out_is_taken_from_elsewhere() {
        let got = DeliveryReport::read(
            report(
                "X: y\r\n\r\nFinal-Recipient: bob@y.example\r\nDiagnostic-Code: smtp; 452 4.2.2 full\r\n",
                "x/y",
            )
            .as_bytes(),
        );
        let got = got.unwrap();
        assert_eq!((got.recipients[0].action, got.recipients[0].status.unwrap().class), (Action::Delayed, 4));
    }

    #[test]
    fn a_report_without_structure_names_its_message() {
        let raw = "From: MAILER-DAEMON@x.example\r\nSubject: failure notice\r\nX-Failed-Recipients: bob@y.example\r\nMessage-ID: <own@x>\r\n\r\n\
                   Hi.\r\n--- Below this line is a copy of the message.\r\n\r\nMessage-ID: <1@x>\r\n";
        let got = DeliveryReport::read(raw.as_bytes()).unwrap();
        assert_eq!((got.original_message_id, got.recipients.len()), (MessageId::parse("1@x"), 1));
    }

    #[test]
    fn other_mail_is_no_report() {
        assert_eq!(DeliveryReport::read(b"From: a@b.example\r\nSubject: x\r\n\r\nMessage-ID: <1@x>"), None);
        assert_eq!(DeliveryReport::read(b""), None);
    }

    #[test]
    fn status_codes_are_found_and_checked() {
        assert_eq!(EnhancedStatus::find("550 5.1.1 no").map(|s| s.to_string()).as_deref(), Some("5.1.1"));
        assert_eq!(EnhancedStatus::find("#5.7.1 smtp;550").map(|s| s.is_permanent()), Some(true));
        for text in ["3.1.1", "5.1", "5.1.1.1", "192.0.2.1", "550", ""] {
            assert_eq!(EnhancedStatus::find(text), None, "{text}");
        }
    }
}
