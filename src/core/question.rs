//! What somebody asks about who forwards a mail to ask why it was filed or left out: its ids, else the people it names.
//!
//! Not here: who may ask, and the answer (`flow`). A forward is read as it comes: attached whole, or written into the text
//! by a mail program in whatever language, with or without a reference to what it forwards.

use bytes::Bytes;

use crate::mail::{Address, HeaderSummary, Message, MessageId};

/// Mails attached to one question that are looked at.
const ATTACHED_MAX: usize = 5;
/// Addresses taken from one question.
const ADDRESSES_MAX: usize = 10;
/// Lines of a header written into the text, folded ones among them.
const HEADER_LINES_MAX: usize = 20;
/// The longest name of a field in any mail program's language, in characters.
const LABEL_CHARS_MAX: usize = 30;

/// What is asked about.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Asked {
    /// The mail's own ids, as far as the forward tells them.
    pub ids: Vec<MessageId>,
    /// Who is on it; the user who asks and addresses of ours may be among them.
    pub addresses: Vec<Address>,
}

impl Asked {
    /// Reads a question.
    #[must_use]
    pub fn read(message: &Message, raw: &[u8]) -> Self {
        let attached = attached(message, raw);
        if !attached.is_empty() {
            let ids = attached.iter().flat_map(own_ids).collect();
            let people = attached.iter().flat_map(|mail| mail.from.iter().chain(mail.recipients()));
            return Self { ids, addresses: few(people.map(|party| party.address.clone())) };
        }
        // Most programs name what they forward as if they answered it.
        let summary = &message.summary;
        let named = summary.in_reply_to.last().or(summary.references.last());
        let text = message.readable_text().unwrap_or_default();
        Self { ids: named.into_iter().cloned().collect(), addresses: few(named_in_text(&text)) }
    }
}

fn attached(message: &Message, raw: &[u8]) -> Vec<HeaderSummary> {
    let is_mail = |name: &Option<String>| {
        name.as_deref().is_some_and(|name| name.to_ascii_lowercase().ends_with(".eml"))
    };
    let mails = message
        .attachments
        .iter()
        .filter(|attachment| attachment.content_type == "message/rfc822" || is_mail(&attachment.filename));
    let bytes: Vec<Bytes> =
        mails.take(ATTACHED_MAX).filter_map(|mail| Message::attachment_bytes(raw, mail.index)).collect();
    bytes.iter().map(|bytes| HeaderSummary::read(bytes)).collect()
}

fn own_ids(mail: &HeaderSummary) -> Vec<MessageId> {
    [&mail.message_id, &mail.original_message_id].into_iter().flatten().cloned().collect()
}

/// The addresses in the header that a mail program wrote above the text it forwards.
fn named_in_text(text: &str) -> Vec<Address> {
    let lines = text.lines().map(|line| line.trim_start_matches(['>', '*', ' ', '\t']));
    let header = lines.skip_while(|line| !names_somebody(line)).take(HEADER_LINES_MAX);
    let values = header.take_while(|line| !line.is_empty()).filter(|line| line.contains('@'));
    values.flat_map(addresses).collect()
}

/// `From: Bob <bob@x.example>`, in any language.
fn names_somebody(line: &str) -> bool {
    line.split_once([':', '：']).is_some_and(|(label, value)| {
        !label.is_empty()
            && label.chars().count() <= LABEL_CHARS_MAX
            && !label.contains('@')
            && value.contains('@')
    })
}

fn addresses(line: &str) -> Vec<Address> {
    let words = line.split(|c: char| c.is_whitespace() || "<>()[],;:\"'*：".contains(c));
    words.filter(|word| word.contains('@')).filter_map(|word| Address::parse(word).ok()).collect()
}

fn few(addresses: impl IntoIterator<Item = Address>) -> Vec<Address> {
    let mut few: Vec<Address> = Vec::new();
    for address in addresses {
        if few.len() < ADDRESSES_MAX && !few.contains(&address) {
            few.push(address);
        }
    }
    few
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, ids: &[&str], addresses: &[&str]) {
        let raw = raw.replace('\n', "\r\n");
        let asked = Asked::read(&Message::parse(raw.as_bytes()), raw.as_bytes());
        let found: Vec<_> = asked.ids.iter().map(MessageId::as_str).collect();
        assert_eq!(found, ids);
        let found: Vec<_> = asked.addresses.iter().map(Address::key).collect();
        assert_eq!(found, addresses);
    }

    #[test]
    fn an_attached_mail_is_asked_about_by_its_own_id_and_people() {
        check(
            "From: ann@a.example\nReferences: <other@x>\nMIME-Version: 1.0\n\
             Content-Type: multipart/mixed; boundary=b\n\n--b\nContent-Type: text/plain\n\nWhy?\n--b\n\
             Content-Type: message/rfc822\n\nFrom: Bob <bob@b.example>\nTo: ann@a.example\nCc: cora@c.example\n\
             Message-ID: <1@b.example>\nIn-Reply-To: <0@b.example>\n\nHello.\n--b--\n",
            &["1@b.example"],
            &["bob@b.example", "ann@a.example", "cora@c.example"],
        );
    }

    #[test]
    fn a_mail_written_into_the_text_is_asked_about_by_what_the_forward_names() {
        check(
            "From: ann@a.example\nIn-Reply-To: <1@b.example>\nReferences: <0@x> <1@b.example>\n\nWhy?\n",
            &["1@b.example"],
            &[],
        );
        check(
            "From: ann@a.example\n\nWhy? Mail me at ann@a.example.\n\n-------- Original --------\n\
             > *Von:* Bob Ray <bob@b.example>\n> Datum: 3. Mai 2026 um 10:30\n> An: ann@a.example; mailto:Cora@c.example\n\n\
             Signed: dan@d.example\n",
            &[],
            &["bob@b.example", "ann@a.example", "cora@c.example"],
        );
        check("From: ann@a.example\n\nWhy was it left out?\n", &[], &[]);
    }
}
