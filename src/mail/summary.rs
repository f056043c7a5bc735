//! What the header alone says of a message: all that sync and SMTP intake see before a body is fetched or parsed.
//!
//! Not here: the body (`message`), and any decision (`core::policy`).

use jiff::Timestamp;
use mail_parser::decoders::base64::base64_decode;
use serde::{Deserialize, Serialize};

use super::{Address, Automatic, MessageId, Party, header::HeaderBlock};

/// Ids kept of each end of References. The oldest name the thread's root, the newest its nearest ancestors.
pub const REFERENCES_KEPT_EACH_END: usize = 50;
/// Octets of Thread-Index that all messages of one conversation share (MS-OXOMSG section 2.2.1.3).
const THREAD_INDEX_ROOT_BYTES: usize = 22;

/// The fields we act on, read from a header block.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct HeaderSummary {
    pub message_id: Option<MessageId>,
    /// Ids of further Message-ID fields: a message may be known by any of them.
    pub other_message_ids: Vec<MessageId>,
    pub in_reply_to: Vec<MessageId>,
    /// Oldest first; at most `REFERENCES_KEPT_EACH_END` of each end.
    pub references: Vec<MessageId>,
    /// The parties of the first From field.
    pub from: Vec<Party>,
    pub sender: Option<Party>,
    pub reply_to: Vec<Party>,
    pub to: Vec<Party>,
    pub cc: Vec<Party>,
    pub bcc: Vec<Party>,
    /// Decoded; `None` when absent or blank.
    pub subject: Option<String>,
    pub date: Option<Timestamp>,
    /// How many From fields there are: more than one is a forgery or a broken program (RFC 5322 section 3.6).
    pub from_fields: usize,
    pub automatic: Automatic,
    /// The list through which it came, when it is addressed to it: what List-Post or List-Id name (RFC 2369, 2919).
    pub list: Option<Address>,
    /// What the message was called before Exchange or Google renamed it.
    pub original_message_id: Option<MessageId>,
    /// The part of Thread-Index that names the conversation.
    pub thread_index: Option<[u8; THREAD_INDEX_ROOT_BYTES]>,
    /// The header says that this is an unsent draft; providers that flag drafts say it better.
    pub draft_marker: bool,
    pub received_count: usize,
}

impl HeaderSummary {
    /// Reads a header, or a message that begins with one. Never fails: what cannot be read is absent.
    #[must_use]
    pub fn read(raw: &[u8]) -> Self {
        Self::of(&HeaderBlock::scan(raw))
    }

    /// Reads a block already scanned.
    #[must_use]
    pub fn of(header: &HeaderBlock<'_>) -> Self {
        let mut ids = header
            .all("Message-ID")
            .filter_map(|field| MessageId::parse_own(&String::from_utf8_lossy(field.value)));
        let (to, cc) = (header.parties("To"), header.parties("Cc"));
        Self {
            message_id: ids.next(),
            other_message_ids: ids.collect(),
            list: list(header, to.iter().chain(&cc)),
            in_reply_to: both_ends(header.message_ids("In-Reply-To")),
            references: both_ends(header.message_ids("References")),
            from: header.first_parties("From"),
            sender: header.first_parties("Sender").into_iter().next(),
            reply_to: header.first_parties("Reply-To"),
            to,
            cc,
            bcc: header.parties("Bcc"),
            subject: header.text("Subject").filter(|subject| !subject.is_empty()),
            date: header.date(),
            from_fields: header.count("From"),
            automatic: Automatic::read(header),
            original_message_id: original_message_id(header),
            thread_index: thread_index(header),
            draft_marker: has_draft_marker(header),
            received_count: header.count("Received"),
        }
    }

    /// The first author; the others of a From with several are in `from`.
    #[must_use]
    pub fn author(&self) -> Option<&Party> {
        self.from.first()
    }

    /// Every id this message names as an ancestor, References first.
    pub fn ancestors(&self) -> impl Iterator<Item = &MessageId> {
        self.references.iter().chain(self.in_reply_to.iter().filter(|id| !self.references.contains(id)))
    }

    /// Whether nothing in it says by a name what it answers.
    #[must_use]
    pub fn names_nothing(&self) -> bool {
        self.in_reply_to.is_empty() && self.references.is_empty() && self.thread_index.is_none()
    }

    /// To, Cc and Bcc.
    pub fn recipients(&self) -> impl Iterator<Item = &Party> {
        self.to.iter().chain(&self.cc).chain(&self.bcc)
    }
}

fn both_ends(mut ids: Vec<MessageId>) -> Vec<MessageId> {
    if let Some(excess) = ids.len().checked_sub(2 * REFERENCES_KEPT_EACH_END) {
        ids.drain(REFERENCES_KEPT_EACH_END..REFERENCES_KEPT_EACH_END + excess);
    }
    ids
}

fn list<'a>(header: &HeaderBlock<'_>, mut addressees: impl Iterator<Item = &'a Party>) -> Option<Address> {
    let bracketed = |name: &str| {
        let value = header.keyword(name);
        value.split_once('<').and_then(|(_, rest)| rest.split_once('>')).map(|(inner, _)| inner.to_owned())
    };
    let post = bracketed("List-Post").and_then(|url| {
        let target = url.strip_prefix("mailto:")?;
        Address::parse(target.split('?').next()?).ok()
    });
    let id = bracketed("List-Id");
    let is_list = |address: &Address| {
        post.as_ref() == Some(address)
            || id.as_ref().is_some_and(|id| *id == address.key().replacen('@', ".", 1))
    };
    addressees.find(|party| is_list(&party.address)).map(|party| party.address.clone())
}

fn original_message_id(header: &HeaderBlock<'_>) -> Option<MessageId> {
    let names = ["X-Microsoft-Original-Message-ID", "X-Google-Original-Message-ID"];
    let field = names.iter().find_map(|name| header.first(name))?;
    MessageId::parse_own(&String::from_utf8_lossy(field.value))
}

fn thread_index(header: &HeaderBlock<'_>) -> Option<[u8; THREAD_INDEX_ROOT_BYTES]> {
    let letters: Vec<u8> = header
        .first("Thread-Index")?
        .value
        .iter()
        .copied()
        .filter(|byte| !byte.is_ascii_whitespace())
        .collect();
    base64_decode(&letters)?.get(..THREAD_INDEX_ROOT_BYTES)?.try_into().ok()
}

/// Outlook's, Thunderbird's and Apple Mail's marks.
fn has_draft_marker(header: &HeaderBlock<'_>) -> bool {
    let apple = header.keyword("X-Uniform-Type-Identifier") == "com.apple.mail-draft";
    apple || header.keyword("X-Unsent") == "1" || header.first("X-Mozilla-Draft-Info").is_some()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_is_summed_up() {
        let summary = HeaderSummary::read(
            b"Received: x\r\nReceived: y\r\nMessage-ID: <1@x>\r\nMessage-ID: <2@x>\r\nIn-Reply-To: <0@x>\r\n\
              From: Ann <a@x.example>\r\nFrom: b@y.example\r\nTo: c@z.example\r\nTo: d@z.example\r\n\
              Subject: =?utf-8?Q?caf=C3=A9?=\r\nDate: Tue, 1 Apr 2025 10:00:00 +0000\r\nX-Unsent: 1\r\n\r\nbody",
        );
        assert_eq!(summary.message_id, MessageId::parse("1@x"));
        assert_eq!(summary.other_message_ids, [MessageId::parse("2@x").unwrap()]);
        assert_eq!(summary.author().unwrap().address.key(), "a@x.example");
        assert_eq!((summary.from_fields, summary.to.len(), summary.received_count), (2, 2, 2));
        assert_eq!(summary.subject.as_deref(), Some("café"));
        assert_eq!(summary.date.unwrap().as_second(), 1_743_501_600);
        assert!(summary.draft_marker);
    }

    #[test]
    fn references_keep_both_ends() {
        let ids: String = (0..300).map(|n| format!(" <{n}@x>\r\n")).collect();
        let summary = HeaderSummary::read(format!("References:{ids}\r\n").as_bytes());
        let kept: Vec<_> = summary.references.iter().map(ToString::to_string).collect();
        assert_eq!(kept.len(), 100);
        assert_eq!(
            (kept[0].as_str(), kept[49].as_str(), kept[50].as_str(), kept[99].as_str()),
            ("0@x", "49@x", "250@x", "299@x")
        );
    }

    #[test]
    fn names_that_providers_took_away_are_found() {
        let summary = HeaderSummary::read(
            b"X-Microsoft-Original-Message-ID: <a@x>\r\nThread-Index: AdMHBlbJ9AZCCmyFRs+o2uIFg9FhtQ==\r\n",
        );
        assert_eq!(summary.original_message_id, MessageId::parse("a@x"));
        assert_eq!(summary.thread_index.unwrap()[..2], [0x01, 0xd3]);
    }

    #[track_caller]
    fn check_list(header: &str, expect: Option<&str>) {
        let summary =
            HeaderSummary::read(format!("To: b@y.example, Desks@Lists.example\r\n{header}\r\n").as_bytes());
        assert_eq!(summary.list.as_ref().map(Address::key), expect, "{header}");
    }

    #[test]
    fn a_list_is_known_by_its_own_fields_among_those_addressed() {
        let desks = Some("desks@lists.example");
        check_list("List-Id: All about desks <desks.lists.example>\r\n", desks);
        check_list("List-Post: <mailto:desks@lists.example?subject=x>\r\n", desks);
        check_list("List-Id: <chairs.lists.example>\r\n", None);
        check_list("List-Post: NO\r\n", None);
        check_list("", None);
    }

    #[test]
    fn nothing_at_all_is_a_summary_too() {
        assert_eq!(HeaderSummary::read(b""), HeaderSummary::default());
    }
}
