//! Reads what a delivery report says in plain words: whom it names, and the codes that stand beside.
//!
//! Most systems older than RFC 3464 and many newer ones write only this. Not here: the fields of a delivery-status part, and
//! whether a message is a report at all. Nobody is named whom the report itself or the mail it returns does not name.

use super::{
    Address,
    report::{Action, EnhancedStatus, ReportRecipient},
};

/// Lines of a report in words that are read; transcripts with many servers have a few hundred.
const LINES_MAX: usize = 600;
/// Bytes of one line that are read.
const LINE_BYTES_MAX: usize = 1000;
/// Recipients taken.
const RECIPIENTS_MAX: usize = 100;
/// Characters kept of what the other server said.
const DIAGNOSTIC_CHARS_MAX: usize = 300;
/// Lines of a returned header that are looked at to tell that it is one.
const HEADER_LINES: usize = 8;

/// Words above the returned message, in lower case.
const RETURNED_BELOW: [&str; 24] = [
    "below this line is a copy",
    "a copy of the message",
    "below is a copy of",
    "copy of the original message",
    "copy of your message",
    "original message follows",
    "message headers follow",
    "unsent message follows",
    "header of the original message",
    "headers of the original message",
    "original message header",
    "original message -----",
    "original message---",
    "-------original message",
    "--- original message",
    "message header follows",
    "text of your message follows",
    "returned message follows",
    "undelivered message follows",
    "original mail headers follow",
    "message text follows",
    "rejected message follows",
    "your original message",
    "ursprüngliche nachricht",
];
/// Fields of a returned header, which tell it from the report above it.
const RETURNED_FIELDS: [&str; 9] = [
    "received",
    "return-path",
    "dkim-signature",
    "message-id",
    "mime-version",
    "from",
    "date",
    "subject",
    "to",
];
/// Labels before a recipient in reports, in lower case and without spaces around.
const RECIPIENT_LABELS: [&str; 22] = [
    "final-recipient",
    "original-recipient",
    "recipient address",
    "recipient",
    "recipients",
    "failed recipient",
    "failed recipients",
    "failed address",
    "invalid recipient",
    "intended recipient",
    "rcpt to",
    ">>> rcpt to",
    "unable to deliver to",
    "could not deliver to",
    "undeliverable to",
    "to",
    "user",
    "address",
    "e-mail address",
    "mail address",
    "empfänger",
    "destinataire",
];
/// Words in a line that names a recipient somewhere, in lower case.
const FAILURE_WORDS: [&str; 34] = [
    "deliver",
    "undeliverable",
    "recipient",
    "failed",
    "rejected",
    "reject",
    "unknown",
    "not exist",
    "no such",
    "mailbox",
    "bounce",
    "returned",
    "permanent error",
    "not found",
    "invalid",
    "disabled",
    "inactive",
    "unreachable",
    "not known",
    "quota",
    "over limit",
    "not listed",
    "deferred",
    "could not be sent",
    "unroutable",
    "refused",
    "error",
    "can't",
    "cannot",
    "unable",
    "not accept",
    "zustell",
    "échou",
    "expanded from",
];
/// Words in a line that names others: the sender, or who may help.
const NOT_ON_RECIPIENTS: [&str; 8] =
    ["mail from", "sender", "from:", "message-id", "contact", "help", "questions", "assistance"];
/// Words of servers that are still trying, in lower case.
const STILL_TRYING: [&str; 14] = [
    "will be retried",
    "still being retried",
    "will be attempted again",
    "will retry",
    "will continue to try",
    "will keep trying",
    "keep trying",
    "being queued and retried",
    "not yet been delivered",
    "no action is required on your part",
    "this is a warning message only",
    "you do not need to resend",
    "delivery attempts will continue",
    "weitere zustellversuche",
];

/// What is known of the report besides its words.
#[derive(Debug, Default)]
pub(super) struct Surroundings {
    /// Whom it came from and went to: they are named often, and seldom meant.
    pub correspondents: Vec<Address>,
    /// Whom the returned message was for, by its own header.
    pub returned_to: Vec<Address>,
}

/// How sure it is that an address is a recipient.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Rank {
    /// In the middle of a line about a failure.
    Mentioned,
    /// At the start of a line, or behind a label.
    Named,
}

struct Found<'a> {
    address: Address,
    rank: Rank,
    lines: Vec<&'a str>,
}

/// The recipients of a report that has only words.
pub(super) fn recipients(text: &str, around: &Surroundings) -> Vec<ReportRecipient> {
    let (report, returned) = split(text);
    let mut found = search(&report);
    let best = |found: &[Found<'_>], strangers: bool| {
        let counts = |one: &&Found<'_>| !strangers || !around.correspondents.contains(&one.address);
        found.iter().filter(counts).map(|one| one.rank).max()
    };
    match (best(&found, true), best(&found, false)) {
        (Some(rank), _) => {
            found.retain(|one| one.rank == rank && !around.correspondents.contains(&one.address));
        }
        (None, Some(Rank::Named)) => found.retain(|one| one.rank == Rank::Named),
        _ => found = of_returned(&returned, around),
    }
    let action = if is_still_trying(text) { Action::Delayed } else { Action::Failed };
    let alone = found.len() == 1;
    found.into_iter().map(|one| one.reported(action, if alone { &report } else { &[] })).collect()
}

/// Whether a report says that the server goes on trying.
pub(super) fn is_still_trying(text: &str) -> bool {
    let (report, _) = split(text);
    report.iter().any(|line| {
        let line = line.to_lowercase();
        STILL_TRYING.iter().any(|words| line.contains(words))
    })
}

/// The best code for a recipient that the words give: that in the lines about him, else in all of them.
pub(super) fn status_of(text: &str, address: &Address) -> Option<EnhancedStatus> {
    let (report, _) = split(text);
    let found = search(&report);
    let his: Vec<&str> = found
        .iter()
        .filter(|one| one.address == *address)
        .flat_map(|one| one.lines.iter().copied())
        .collect();
    best_status(&his)
}

impl Found<'_> {
    fn reported(self, action: Action, report: &[&str]) -> ReportRecipient {
        let status = best_status(&self.lines).or_else(|| best_status(report));
        let lines =
            if self.lines.iter().any(|line| reply_code(line).is_some()) { &self.lines } else { report };
        let diagnostic = lines.iter().find(|line| reply_code(line).is_some()).map(|line| said(line));
        ReportRecipient { address: self.address, original: None, action, status, diagnostic }
    }
}

/// What a line quotes of the other server, from the code on.
fn said(line: &str) -> String {
    let at = reply_code(line).unwrap_or_default();
    line.get(at..).unwrap_or(line).chars().take(DIAGNOSTIC_CHARS_MAX).collect::<String>().trim().to_owned()
}

/// Where the reply code of an SMTP server stands.
fn reply_code(line: &str) -> Option<usize> {
    let is_edge =
        |c: char| c.is_whitespace() || matches!(c, '-' | ':' | '(' | '#' | ';' | '<' | '\'' | '"' | '>');
    let mut at = 0;
    for word in line.split_inclusive(is_edge) {
        let code = word.trim_end_matches(is_edge);
        if code.len() == 3 && code.starts_with(['4', '5']) && code.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(at);
        }
        at += word.len();
    }
    None
}

/// The report's own lines, and those of the message it returns below.
fn split(text: &str) -> (Vec<&str>, Vec<&str>) {
    let lines: Vec<&str> = text
        .lines()
        .take(LINES_MAX)
        .map(|line| line.get(..line.floor_char_boundary(LINE_BYTES_MAX)).unwrap_or(line))
        .collect();
    let begins = |at: &usize| lines.get(*at..).is_some_and(begins_returned);
    let end = (0..lines.len()).find(begins).unwrap_or(lines.len());
    let (report, returned) = lines.split_at_checked(end).unwrap_or_default();
    (report.to_vec(), returned.to_vec())
}

fn begins_returned(lines: &[&str]) -> bool {
    let Some(first) = lines.first() else { return false };
    let lower = first.trim().to_lowercase();
    if lower.starts_with("received:")
        || lower.starts_with("return-path:")
        || lower.starts_with("dkim-signature:")
    {
        return true;
    }
    if lower.len() <= 120 && RETURNED_BELOW.iter().any(|words| lower.contains(words)) {
        // `It's attached below` in a report's first words is followed by its own lines, not by a header.
        let below = lines.iter().skip(1).find(|line| !line.trim().is_empty());
        return lower.starts_with(['-', '=']) || below.is_none_or(|line| field_of(line).is_some());
    }
    let starts_at_edge = first.starts_with(|c: char| c.is_ascii_alphabetic());
    starts_at_edge
        && field_of(first).is_some()
        && lines
            .iter()
            .take(HEADER_LINES)
            .take_while(|line| !line.trim().is_empty())
            .filter(|line| field_of(line).is_some())
            .count()
            >= 3
}

fn field_of(line: &str) -> Option<&'static str> {
    let name = line.split_once(':')?.0;
    RETURNED_FIELDS.into_iter().find(|field| name.trim().eq_ignore_ascii_case(field))
}

/// Every address a report names, with the lines from there to the next.
fn search<'a>(report: &[&'a str]) -> Vec<Found<'a>> {
    let mut found: Vec<Found<'a>> = Vec::new();
    let mut at: Option<usize> = None;
    let helpers: Vec<Address> = report.iter().filter_map(|line| helper(line)).take(RECIPIENTS_MAX).collect();
    for line in report {
        let named = named(line).map(|address| (address, Rank::Named));
        let seen = named.or_else(|| mentioned(line).map(|address| (address, Rank::Mentioned)));
        if let Some((address, rank)) = seen.filter(|(address, _)| !helpers.contains(address)) {
            at = Some(note(&mut found, address, rank));
        }
        if found.len() > RECIPIENTS_MAX {
            break;
        }
        if let Some(one) = at.and_then(|at| found.get_mut(at)) {
            one.lines.push(line);
        }
    }
    found
}

fn note(found: &mut Vec<Found<'_>>, address: Address, rank: Rank) -> usize {
    if let Some(at) = found.iter().position(|one| one.address == address) {
        if let Some(one) = found.get_mut(at) {
            one.rank = one.rank.max(rank);
        }
        return at;
    }
    found.push(Found { address, rank, lines: Vec::new() });
    found.len() - 1
}

/// The recipient that a line begins with, or that its label announces.
fn named(line: &str) -> Option<Address> {
    let line =
        line.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '*' | '•' | '·' | '-' | '|'));
    let first = line.split_whitespace().next()?;
    if first.contains('@') {
        return address_in(first);
    }
    let (label, value) = line.split_once(':')?;
    let label = label.trim().to_lowercase();
    if !RECIPIENT_LABELS.contains(&label.as_str()) {
        return None;
    }
    let value = value.rsplit_once(';').map_or(value, |(_, value)| value);
    value.split_whitespace().find_map(address_in)
}

/// An address somewhere in a line that is about a failure. Senders are named too: a line on `MAIL FROM` says nothing.
fn mentioned(line: &str) -> Option<Address> {
    if !line.contains('@') {
        return None;
    }
    let lower = line.to_lowercase();
    if NOT_ON_RECIPIENTS.iter().any(|words| lower.contains(words)) {
        return None;
    }
    let is_on_failure = FAILURE_WORDS.iter().any(|words| lower.contains(words)) || reply_code(line).is_some();
    if !is_on_failure {
        return None;
    }
    line.split([' ', '\t', ',', ';', '(', ')', '[', ']']).find_map(address_in)
}

/// Whom a report says to write to.
fn helper(line: &str) -> Option<Address> {
    if !line.contains('@') {
        return None;
    }
    let lower = line.to_lowercase();
    let is_on_help =
        ["contact", "assistance", "questions", "for help"].iter().any(|words| lower.contains(words));
    is_on_help.then(|| line.split_whitespace().find_map(address_in)).flatten()
}

/// The address in a word: in brackets or quotes, with punctuation or a `mailto:` behind.
fn address_in(word: &str) -> Option<Address> {
    if !word.contains('@') {
        return None;
    }
    let inner = match (word.find('<'), word.find('>')) {
        (Some(0), Some(end)) => word.get(1..end)?,
        (Some(start), Some(end)) if start < end => {
            let before = word.get(..start)?;
            if before.contains('@') { before } else { word.get(start + 1..end)? }
        }
        _ => word,
    };
    let is_mark = |c: char| {
        matches!(c, '<' | '>' | '"' | '\'' | ':' | ';' | ',' | '.' | '(' | ')' | '[' | ']' | '`' | '。')
    };
    let inner = inner.trim_matches(is_mark).trim_start_matches("mailto:");
    let inner = inner.split(['<', '>', '"']).next()?;
    let domain = inner.rsplit_once('@')?.1;
    (!domain.is_empty() && !domain.contains(['/', '=', '?'])).then(|| Address::parse(inner).ok()).flatten()
}

/// Whom the returned message was for.
fn of_returned<'a>(returned: &[&'a str], around: &Surroundings) -> Vec<Found<'a>> {
    let of_header = || {
        let header = returned.iter().skip_while(|line| field_of(line).is_none());
        let value = |line: &&&str| field_of(line) == Some("to");
        header.take(80).find(value).map(|line| line.split_once(':').map_or("", |(_, to)| to))
    };
    let mut addresses = around.returned_to.clone();
    if addresses.is_empty() {
        addresses = of_header()
            .map(|to| super::address_list::parse(to.trim().as_bytes()))
            .unwrap_or_default()
            .into_iter()
            .map(|party| party.address)
            .collect();
    }
    // Of several nobody knows whom it is about.
    if addresses.len() != 1 {
        return Vec::new();
    }
    addresses.into_iter().map(|address| Found { address, rank: Rank::Named, lines: Vec::new() }).collect()
}

/// The most telling code: one behind a reply of its class, and not merely `5.0.0`.
pub(super) fn best_status(lines: &[&str]) -> Option<EnhancedStatus> {
    let mut best: Option<(u8, EnhancedStatus)> = None;
    for line in lines {
        for (status, after_reply) in statuses(line) {
            let weight = u8::from(after_reply) + 2 * u8::from(!status.is_general());
            if best.is_none_or(|(other, _)| weight > other) {
                best = Some((weight, status));
            }
        }
    }
    best.map(|(_, status)| status)
}

/// The codes of failures in a line, each with whether a reply of its class comes just before.
fn statuses(line: &str) -> Vec<(EnhancedStatus, bool)> {
    let is_edge = |c: char| !(c.is_ascii_alphanumeric() || c == '.');
    let mut found = Vec::new();
    let mut reply = None;
    for word in line.split(is_edge).filter(|word| !word.is_empty()) {
        let word = word.trim_matches('.');
        if let Ok(status) = word.parse::<EnhancedStatus>() {
            if status.class != 2 {
                found.push((status, reply == Some(status.class)));
            }
        } else if word.len() == 3 && word.bytes().all(|byte| byte.is_ascii_digit()) {
            reply = word.get(..1).and_then(|class| class.parse().ok());
            continue;
        }
        reply = None;
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn around() -> Surroundings {
        Surroundings {
            correspondents: vec![address("me@us.example"), address("mailer-daemon@mx.example")],
            returned_to: Vec::new(),
        }
    }

    #[track_caller]
    fn check(text: &str, expect: &[(&str, Option<&str>)]) {
        let got = recipients(text, &around());
        let got: Vec<_> = got
            .iter()
            .map(|one| (one.address.to_string(), one.status.map(|status| status.to_string())))
            .collect();
        let got: Vec<_> = got.iter().map(|(address, status)| (address.as_str(), status.as_deref())).collect();
        assert_eq!(got, expect, "{text}");
    }

    #[test]
    fn a_recipient_stands_where_servers_write_him() {
        let ann = [("ann@x.example", Some("5.1.1"))];
        for text in [
            "I wasn't able to deliver it.\n\n<ann@x.example>:\nRemote host said: 550 5.1.1 no such user\n",
            "The following address failed:\n\n\"ann@x.example\":\nSMTP error\n5.1.1 <ann@x.example>... User unknown",
            "There was an error delivering your mail to <ann@x.example>.\n\nmx said:\n550 5.1.1 unknown",
            "  Recipient address: ann@x.example\n  Diagnostic code: smtp; 550 5.1.1 unknown",
            "ann@x.example: 550-5.1.1 unknown\n",
            "Delivery has failed to these recipients:\nann@x.example<mailto:ann@x.example>\n\n#550 5.1.1 RESOLVER.ADR",
            ">>> MAIL From:<me@us.example>\n>>> RCPT To:<ann@x.example>\n<<< 550 5.1.1 unknown",
            "ann@x.example Invalid Address, ERROR_CODE :550, ERROR_CODE :5.1.1 unknown",
            "The error was:\n550 5.1.1 unknown\n\n--- Original message follows.\n\nReceived: from a\nFrom: me@us.example\nTo: <ann@x.example>\nSubject: x\n",
        ] {
            check(text, &ann);
        }
    }

    #[test]
    fn each_recipient_has_his_own_code() {
        check(
            "<ann@x.example>:\n550 5.1.1 unknown\n\n<bob@y.example>:\n552 5.2.2 full\n\n--- Below this line is a copy of the message.\n\nTo: c@z.example\n550 5.7.1 not this",
            &[("ann@x.example", Some("5.1.1")), ("bob@y.example", Some("5.2.2"))],
        );
    }

    #[test]
    fn nobody_is_named_who_is_not_meant() {
        check("It failed. For help write to <postmaster@x.example>.\n", &[]);
        check("Message from <me@us.example> could not be delivered.", &[]);
        check("It failed.\n\nReceived: from a\nTo: a@x.example, b@x.example\n", &[]);
        check("", &[]);
    }

    #[test]
    fn a_warning_is_no_failure() {
        let text = "<ann@x.example>\nYour message has not yet been delivered and will be retried for 5 days. 450 4.4.1";
        let found = recipients(text, &around());
        assert_eq!(found.iter().map(|one| one.action).collect::<Vec<_>>(), [Action::Delayed]);
    }

    #[test]
    fn the_most_telling_code_counts() {
        let best = |text: &str| best_status(&[text]).map(|status| status.to_string());
        assert_eq!(best("5.0.0 then 550 5.7.26 from 192.0.2.1").as_deref(), Some("5.7.26"));
        assert_eq!(best("gateway 5.1.0 - 550-'5.2.2 <a@b>... full").as_deref(), Some("5.2.2"));
        assert_eq!(best("250 2.0.0 fine"), None);
    }

    #[test]
    fn long_and_adverse_text_is_read_in_bounded_time() {
        let started = std::time::Instant::now();
        for piece in [
            "a@b.example ",
            "<a@b.example>:\n550 5.1.1\n",
            "----- original message",
            "5.1.1 ",
            "To: a@b.example\n",
        ] {
            let _ = recipients(&piece.repeat(10_000_000 / piece.len()), &Surroundings::default());
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(10), "{:?}", started.elapsed());
    }
}
