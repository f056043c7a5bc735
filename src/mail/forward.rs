//! Finds the message that somebody forwarded, as an attachment or in the text, and who wrote it.
//!
//! Not here: what a forward means for the CRM (`core::attribution`), and whether he who passed it on is who he says. Nobody is
//! named whom the client's own header does not name: an address that merely stands in the text is never taken for an author.
//! The text passed on is a stranger's, who may have written headers and separators of his own into it and attached what he
//! liked: so the first that looks like a client's header decides, be it readable or not.

use serde::{Deserialize, Serialize};

use super::{
    Address, Automatic, Kind, Message, MessageId, is_shared_by_many, message,
    quoted_header::{self, Mention, QuotedHeader, plain},
    reply, subject,
};

/// Text looked at; what is forwarded begins near the top, below a comment.
const TEXT_BYTES_MAX: usize = 200 * 1024;
/// Blank lines between a separator and the header below it.
const GAP_MAX: usize = 4;

/// Bytes of a line in which a label and an address are looked for, and those in which a separator's words are.
const LABELLED_BYTES_MAX: usize = 400;

/// How sure it is that this is a forward and that the author is right.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Certainty {
    /// An introduction as answers have it, a header below a subject that does not say forward or below what may be another
    /// header, or mail attached to an answer. Who wrote it is a guess: nothing may be filed under a name by it.
    Low,
    /// A header in the text, below a subject that says forward; or an introduction with nothing above it and no marks below.
    Medium,
    /// A client's own words for it with a header below, or the message itself as an attachment.
    High,
}

/// A forwarded message, as far as the forward tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Forwarded {
    pub from: Option<Mention>,
    pub to: Vec<Mention>,
    pub cc: Vec<Mention>,
    pub subject: Option<String>,
    /// As it was written there.
    pub date: Option<String>,
    /// What the forwarding person wrote above it.
    pub comment: String,
    /// The forwarded text.
    pub body: String,
    pub attached: bool,
    /// What the attached mail is called.
    pub own_id: Option<MessageId>,
    pub certainty: Certainty,
}

/// What clients write above a forwarded message, in lower case and without dashes, stars and colon.
const WORDS: [&str; 46] = [
    "forwarded message",
    "begin forwarded message",
    "start of forwarded message",
    "forwarded email",
    "forwarded mail",
    "weitergeleitete nachricht",
    "anfang der weitergeleiteten nachricht",
    "anfang der weitergeleiteten e-mail",
    "mensaje reenviado",
    "inicio del mensaje reenviado",
    "message transféré",
    "message réexpédié",
    "début du message réexpédié",
    "début du message transféré",
    "messaggio inoltrato",
    "inizio messaggio inoltrato",
    "inizio del messaggio inoltrato",
    "mensagem encaminhada",
    "mensagem reencaminhada",
    "início da mensagem reencaminhada",
    "início da mensagem encaminhada",
    "doorgestuurd bericht",
    "begin doorgestuurd bericht",
    "begin van doorgestuurd bericht",
    "videresendt meddelelse",
    "start på videresendt besked",
    "videresendt besked",
    "videresendt melding",
    "vidarebefordrat meddelande",
    "vidarebefordrat mejl",
    "vidarebefordrat brev",
    "edelleenlähetetty viesti",
    "välitetty viesti",
    "välitetty viesti alkaa",
    "välitetty viesti / fwd.msg",
    "wiadomość przesłana dalej",
    "początek przekazywanej wiadomości",
    "treść przekazanej wiadomości",
    "přeposlaná zpráva",
    "preposlaná správa",
    "továbbított üzenet",
    "mesaj redirecționat",
    "începe mesajul redirecționat",
    "proslijeđena poruka",
    "edastatud kiri",
    "メッセージを転送",
];
/// The same in scripts and languages where case folding is of no help.
const WORDS_FOLDED: [&str; 7] = [
    "пересылаемое сообщение",
    "начало переадресованного сообщения",
    "перенаправлене повідомлення",
    "початок листа, що пересилається",
    "i\u{307}letilmiş mesaj",
    "i\u{307}leti başlangıcı",
    "转发的邮件",
];
/// Words that stand above quoted answers as well as forwards: the subject, or the lack of anything above, must decide.
const AMBIGUOUS_WORDS: [&str; 7] = [
    "original message",
    "ursprüngliche nachricht",
    "originalnachricht",
    "mensaje original",
    "message d'origine",
    "messaggio originale",
    "oorspronkelijk bericht",
];

/// Finds the forwarded message of a message.
///
/// The text comes first, since a stranger's mail brings its attachments along when it is passed on. What is attached counts
/// only where the text holds no sign of a header, and where it is the only message attached, directly to this one. Time is
/// linear in the message, which is decoded once more for what is attached: not for a thread that has others waiting.
#[must_use]
pub fn read(message: &Message, raw: &[u8]) -> Option<Forwarded> {
    if message.is_complaint || was_answered_by_machine(message) {
        return None;
    }
    let subject = message.summary.subject.as_deref().unwrap_or_default();
    let text = message.readable_text().unwrap_or_default();
    match search(&text, subject) {
        Search::Found(found) => return Some(*found),
        Search::Unreadable => return None,
        Search::Nothing => {}
    }
    let (inner, is_only) = message::forwarded_part(raw)?;
    let inner = Message::parse(&inner);
    // What machines sent has no author.
    if was_answered_by_machine(&inner) {
        return None;
    }
    // Who answers and attaches what he speaks of writes himself; and where the text names others as headers do, in words that are
    // not known here, what is attached may have come along with their mail.
    let own = message.summary.author().map(|author| &author.address);
    let names_others = |line: &str| is_labelled_address(line) && own.is_none_or(|own| !is_own(line, own));
    let is_sure = is_only && !subject::is_reply_prefix(subject) && !text.lines().any(names_others);
    let certainty = if is_sure { Certainty::High } else { Certainty::Low };
    Some(Forwarded { certainty, ..attached(&inner, &text) })
}

/// Some gateways change the header of a report: then its parts alone tell what it is.
fn was_answered_by_machine(message: &Message) -> bool {
    matches!(message.summary.automatic, Automatic::AutoReply | Automatic::Bounce)
        || matches!(message.kind, Kind::AutoReply | Kind::Bounce)
}

fn attached(inner: &Message, comment: &str) -> Forwarded {
    let mention =
        |party: &super::Party| Mention { name: party.name.clone(), address: Some(party.address.clone()) };
    let summary = &inner.summary;
    Forwarded {
        // Two authors, or two From fields, are nobody's name to file it under.
        from: match summary.from.as_slice() {
            [only] if summary.from_fields == 1 => Some(mention(only)),
            _ => None,
        },
        to: summary.to.iter().map(mention).collect(),
        cc: summary.cc.iter().map(mention).collect(),
        subject: summary.subject.clone(),
        date: summary.date.map(|date| date.to_string()),
        comment: comment.trim().to_owned(),
        body: inner.readable_text().unwrap_or_default(),
        attached: true,
        own_id: summary.message_id.clone(),
        certainty: Certainty::High,
    }
}

/// Finds a message forwarded within a text, below this subject of the outer message.
#[must_use]
pub fn in_text(text: &str, subject: &str) -> Option<Forwarded> {
    match search(text, subject) {
        Search::Found(found) => Some(*found),
        Search::Unreadable | Search::Nothing => None,
    }
}

enum Search {
    Found(Box<Forwarded>),
    /// A client says that a forwarded message begins and names its author in words not known here. What looks like a header
    /// further down is that author's own text.
    Unreadable,
    Nothing,
}

fn search(text: &str, subject: &str) -> Search {
    let text = text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    let says_forward = subject::is_forward_prefix(subject);
    // Below an answer, or below what may be a header in another language, stands text of others.
    let mut is_first = !subject::is_reply_prefix(subject);
    for (at, line) in lines.iter().enumerate() {
        let rest = lines.get(at..).unwrap_or_default();
        let above = lines.get(..at).unwrap_or_default();
        if let Some(found) = begins(rest, says_forward, above) {
            let found = found.with_comment(above);
            let certainty = if is_first { found.certainty } else { Certainty::Low };
            return Search::Found(Box::new(Forwarded { certainty, ..found }));
        }
        if is_separator(line) || is_unknown_separator(rest) {
            return Search::Unreadable;
        }
        if is_answer(rest, line) {
            if !says_forward {
                return Search::Nothing;
            }
            is_first = false;
        }
        is_first &= !is_labelled_address(line);
    }
    Search::Nothing
}

/// Words between dashes that are not known here, with a line below that may be the author's.
fn is_unknown_separator(lines: &[&str]) -> bool {
    let Some(first) = lines.first().map(|line| plain(line)) else { return false };
    let words = first.trim_matches(|c: char| c == '-' || c.is_whitespace());
    let is_ruled =
        first.starts_with("----") && first.ends_with("---") && words.chars().any(char::is_alphabetic);
    let below = lines.iter().skip(1).take(GAP_MAX).find(|line| !plain(line).is_empty());
    is_ruled && below.is_some_and(|line| quoted_header::field(line).is_none() && is_labelled_address(line))
}

/// `Từ: Mallory <m@x.example>`: a label of a word or three, and an address behind it.
fn is_labelled_address(line: &str) -> bool {
    let line = plain(line);
    let line = line.get(..line.floor_char_boundary(LABELLED_BYTES_MAX)).unwrap_or(line);
    let Some((label, value)) = line.split_once([':', '：']) else { return false };
    let words = label.split_whitespace().count();
    (1..=3).contains(&words) && !label.contains('@') && value.contains('@') && !value.starts_with("//")
}

/// Whether the address that a line ends with, as headers and signatures have it, is the author's, or of his own domain.
fn is_own(line: &str, author: &Address) -> bool {
    let line =
        plain(line).trim_end_matches(|c: char| c.is_whitespace() || matches!(c, '>' | ']' | ')' | ';' | ','));
    let written =
        line.rsplit(|c: char| c.is_whitespace() || matches!(c, '<' | '[' | '(' | ':' | '：')).next();
    let Some(address) = written.and_then(|written| Address::parse(written).ok()) else { return false };
    let is_known = address == *author || !is_shared_by_many(author.domain());
    is_known && address.domain().eq_ignore_ascii_case(author.domain()) && line.matches('@').count() == 1
}

/// An introduction, or a separator below which no header could be read: what is quoted below may have forwarded something,
/// this mail has not.
fn is_answer(rest: &[&str], line: &str) -> bool {
    !plain(line).is_empty()
        && (reply::attribution_len(rest).is_some() || separator(line, &AMBIGUOUS_WORDS).is_some())
}

impl Forwarded {
    /// The new text of the author: what he wrote without what he quoted. The comment is not his.
    #[must_use]
    pub fn new_text(&self) -> String {
        reply::split_reply(&self.body)
    }

    fn with_comment(mut self, above: &[&str]) -> Self {
        let rule = |line: &&&str| {
            !line.trim().is_empty() && line.trim().chars().all(|c| matches!(c, '_' | '-' | '='))
        };
        self.comment =
            above.iter().filter(|line| !rule(line)).copied().collect::<Vec<_>>().join("\n").trim().to_owned();
        self
    }
}

/// Whether a forwarded message begins with the first line.
fn begins(lines: &[&str], says_forward: bool, above: &[&str]) -> Option<Forwarded> {
    let first = lines.first()?;
    if plain(first).is_empty() {
        return None;
    }
    if let Some(rest) = separator(first, &WORDS).or_else(|| separator(first, &WORDS_FOLDED)) {
        return below_separator(lines, rest)
            .map(|(header, used)| whole(lines, header, used, Certainty::High));
    }
    if let Some(rest) = separator(first, &AMBIGUOUS_WORDS) {
        let (header, used) = below_separator(lines, rest)?;
        let certainty = if says_forward { Certainty::High } else { Certainty::Low };
        return (header.fields >= 3).then(|| whole(lines, header, used, certainty));
    }
    if let Some((header, used)) = quoted_header::read(lines)
        && header.from.is_some()
        && header.fields >= 3
        && (says_forward || header.fields >= 4)
    {
        let certainty = if says_forward { Certainty::Medium } else { Certainty::Low };
        return Some(whole(lines, header, used, certainty));
    }
    if !says_forward {
        return None;
    }
    let used = reply::attribution_len(lines)?;
    let from = reply::attribution_author(lines.get(..used)?)?;
    let header = QuotedHeader { from: Some(from), fields: 1, ..QuotedHeader::default() };
    // Outlook for Mac forwards like this. Below other text it may be what the author of the forwarded mail quotes himself, and
    // marked it is an answer's quote.
    let is_first = above.iter().all(|line| plain(line).is_empty());
    let is_outlooks = is_first && !lines.iter().skip(used).any(|line| line.trim_start().starts_with('>'));
    Some(whole(lines, header, used, if is_outlooks { Certainty::Medium } else { Certainty::Low }))
}

/// Whether a line is what clients write above a forwarded message.
pub(super) fn is_separator(line: &str) -> bool {
    separator(line, &WORDS).or_else(|| separator(line, &WORDS_FOLDED)).is_some()
}

/// What follows one of these words on its line, when the line begins with it as clients write it.
fn separator<'a>(line: &'a str, words: &[&str]) -> Option<&'a str> {
    let line = plain(line);
    let is_mark = |c: char| c.is_whitespace() || matches!(c, '-' | '_' | '=' | '*' | '\u{a0}' | '~');
    let text = line.trim_start_matches(is_mark);
    let was_marked = text.len() < line.len();
    let folded = text.get(..text.floor_char_boundary(LABELLED_BYTES_MAX))?.to_lowercase();
    let word = words.iter().filter(|word| folded.starts_with(**word)).max_by_key(|word| word.len())?;
    // Lower case may have another length: count characters.
    let end = text.char_indices().nth(folded_len(text, word)).map_or(text.len(), |(at, _)| at);
    let rest = text.get(end..)?;
    let bare = rest.trim_start_matches(|c: char| is_mark(c) || matches!(c, ':' | '：'));
    let ends_well = rest.is_empty() || rest.starts_with(|c: char| is_mark(c) || matches!(c, ':' | '：'));
    // Without dashes around it, it must be the whole line.
    (ends_well && (was_marked || bare.is_empty())).then_some(bare)
}

/// How many characters of the text make up the folded word.
fn folded_len(text: &str, word: &str) -> usize {
    let mut folded = 0;
    for (count, c) in text.chars().enumerate() {
        if folded >= word.chars().count() {
            return count;
        }
        folded += c.to_lowercase().count();
    }
    text.chars().count()
}

/// The header below a separator, or on the same line, and where the body begins.
fn below_separator(lines: &[&str], rest: &str) -> Option<(QuotedHeader, usize)> {
    if !rest.is_empty()
        && let Some(header) = quoted_header::read_joined(rest)
    {
        return Some((header, 1));
    }
    let gap = lines.iter().skip(1).take(GAP_MAX).take_while(|line| plain(line).is_empty()).count();
    let below = lines.get(1 + gap..)?;
    let (header, used) = quoted_header::read(below)?;
    header.from.as_ref()?;
    Some((header, 1 + gap + used))
}

fn whole(lines: &[&str], header: QuotedHeader, used: usize, certainty: Certainty) -> Forwarded {
    let below = lines.get(used..).unwrap_or_default();
    let is_marked = lines.get(used - 1).is_some_and(|line| line.trim_start().starts_with('>'))
        || below.iter().filter(|line| !line.trim().is_empty()).take(3).all(|line| line.starts_with('>'));
    let unquoted = |line: &&str| {
        let text = if is_marked {
            line.strip_prefix('>').map(|text| text.strip_prefix(' ').unwrap_or(text))
        } else {
            None
        };
        text.unwrap_or(line).to_owned()
    };
    let body = below.iter().map(unquoted).collect::<Vec<_>>().join("\n").trim().to_owned();
    let QuotedHeader { from, to, cc, date, subject, .. } = header;
    let (comment, own_id) = (String::new(), None);
    Forwarded { from, to, cc, subject, date, comment, body, attached: false, own_id, certainty }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, subject: &str, expect: Option<(&str, &str, Certainty)>) {
        let got = in_text(text, subject);
        let got = got.as_ref().map(|found| {
            let from = found.from.as_ref().and_then(|from| from.address.as_ref()).map(ToString::to_string);
            (from.unwrap_or_default(), found.comment.as_str(), found.certainty)
        });
        let got = got.as_ref().map(|(from, comment, certainty)| (from.as_str(), *comment, *certainty));
        assert_eq!(got, expect, "{subject:?} {text:?}");
    }

    const BLOCK: &str =
        "From: Ann Lee <ann@x.example>\nDate: Monday\nSubject: Hi\nTo: bob@y.example\n\nShall we?\n";

    #[test]
    fn a_clients_own_words_say_that_it_is_forwarded() {
        let ann = |comment| Some(("ann@x.example", comment, Certainty::High));
        check(&format!("---------- Forwarded message ---------\n{BLOCK}"), "", ann(""));
        check(&format!("See below.\n\nBegin forwarded message:\n\n{BLOCK}"), "", ann("See below."));
        check(&format!("FYI\n\n-------- Weitergeleitete Nachricht --------\n{BLOCK}"), "", ann("FYI"));
        let quoted: String = format!("Begin forwarded message:\n\n{BLOCK}")
            .lines()
            .map(|line| format!("> {line}\n"))
            .collect();
        check(&quoted, "", ann(""));
        let joined = "  ----- Forwarded Message ----- From: Ann Lee <ann@x.example>To: b@y.exampleSent: MondaySubject: Hi\nShall we?";
        check(joined, "", ann(""));
    }

    #[test]
    fn a_header_in_the_text_is_a_forward_when_the_subject_says_so() {
        check(BLOCK, "Fwd: Hi", Some(("ann@x.example", "", Certainty::Medium)));
    }

    #[test]
    fn an_introduction_names_the_author_where_it_begins_a_forward() {
        let begin = "Am 28.10.2021, 12:46 schrieb \"Ann\" <ann@x.example>:\n\n";
        for (text, subject, certainty) in [
            (format!("{begin}    Shall we?"), "WG: Hi", Certainty::Medium),
            // It may be the quote of whoever wrote what is passed on, or an answer's.
            (format!("FYI\n\n{begin}    Shall we?"), "WG: Hi", Certainty::Low),
            (format!("{begin}> Shall we?\n>\n> Ann"), "WG: Hi", Certainty::Low),
        ] {
            check_certainty(&text, subject, Some(("ann@x.example", certainty)));
        }
        for subject in ["", "Hi", "AW: Hi"] {
            check_certainty(&format!("{begin}    Shall we?"), subject, None);
        }
    }

    #[test]
    fn what_may_as_well_be_an_answer_is_not_sure() {
        let quoted = format!("Yes.\n\n-----Original Message-----\n{BLOCK}");
        for (text, subject) in
            [(quoted.as_str(), "Hi"), (quoted.as_str(), "Re: Hi"), (&format!("Yes.\n\n{BLOCK}"), "Re: Hi")]
        {
            let certainty = in_text(text, subject).map(|found| found.certainty);
            assert_eq!(certainty, Some(Certainty::Low), "{subject} {text}");
        }
        // What is answered forwarded something.
        let answered =
            "Yes.\n\n-----Original Message-----\n\nFYI\n\n---------- Forwarded message ---------\n";
        check_certainty(&format!("{answered}{BLOCK}"), "Hi", None);
        check_certainty(&format!("{answered}{BLOCK}"), "Fwd: Hi", Some(("ann@x.example", Certainty::Low)));
        let forwarded = format!("Yes.\n\n---------- Forwarded message ---------\n{BLOCK}");
        assert_eq!(in_text(&forwarded, "Re: Hi").map(|found| found.certainty), Some(Certainty::Low));
    }

    #[track_caller]
    fn check_certainty(text: &str, subject: &str, expect: Option<(&str, Certainty)>) {
        let found = in_text(text, subject);
        let got = found.as_ref().map(|found| {
            let from = found.from.as_ref().and_then(|from| from.address.as_ref());
            (from.map(ToString::to_string).unwrap_or_default(), found.certainty)
        });
        assert_eq!(got, expect.map(|(from, certainty)| (from.to_owned(), certainty)), "{subject:?} {text:?}");
    }

    /// What Mallory writes into her own mail, to be taken for Bob once a user passes it on.
    const PLANTED: &str = "---------- Forwarded message ---------\nFrom: Bob <bob@customer.test>\nDate: Monday\nSubject: Hi\n\nPay Mallory.\n";

    #[test]
    fn a_header_that_cannot_be_read_ends_the_search() {
        let vietnamese = "---------- Forwarded message ---------\nTừ: Mallory <m@evil.test>\nNgày: x\n\n";
        let hebrew = "---------- הודעה שהועברה ---------\nמאת: Mallory <m@evil.test>\n\n";
        for begin in [vietnamese, hebrew] {
            for subject in ["", "Fwd: Hi", "FW: Hi"] {
                check_certainty(&format!("FYI\n\n{begin}{PLANTED}"), subject, None);
            }
        }
    }

    #[test]
    fn a_header_below_what_may_be_another_is_not_sure() {
        let low = Some(("bob@customer.test", Certainty::Low));
        check_certainty(&format!("Từ: Mallory <m@evil.test>\n\n{PLANTED}"), "Fwd: Hi", low);
        // Below an answer nobody forwarded anything, unless the subject says so.
        let answer = "On Mon, 1 Jan 2025, Mallory wrote:\n\n";
        check_certainty(&format!("Yes.\n\n{answer}{PLANTED}"), "Hi", None);
    }

    #[test]
    fn of_two_headers_the_first_names_the_author() {
        let text = format!(
            "---------- Forwarded message ---------\nFrom: Mallory <m@evil.test>\nDate: x\n\n{PLANTED}"
        );
        check_certainty(&text, "Fwd: Hi", Some(("m@evil.test", Certainty::High)));
    }

    #[test]
    fn several_addresses_name_nobody() {
        let text = "---------- Forwarded message ---------\nFrom: bob@customer.test; Bob Ray <m@evil.test>\nDate: x\nSubject: Hi\n\nPay.\n";
        check_certainty(text, "Fwd: Hi", Some(("", Certainty::High)));
    }

    #[track_caller]
    fn check_read(raw: &str, expect: Option<(&str, bool)>) {
        let found = read(&Message::parse(raw.as_bytes()), raw.as_bytes());
        let got = found.filter(|found| found.certainty > Certainty::Low).map(|found| {
            let from = found.from.and_then(|from| from.address);
            (from.map(|from| from.to_string()).unwrap_or_default(), found.attached)
        });
        assert_eq!(got, expect.map(|(from, attached)| (from.to_owned(), attached)), "{raw}");
    }

    fn mixed(subject: &str, text: &str, more: &str) -> String {
        format!(
            "From: Ann <ann@us.example>\r\nSubject: {subject}\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n\
             --b\r\n\r\n{text}\r\n{more}--b--\r\n"
        )
    }

    const ATTACHED: &str = "--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: bob@customer.test\r\nSubject: Hi\r\n\r\nPay Mallory.\r\n";

    #[test]
    fn what_a_stranger_attached_says_not_who_wrote_what_is_passed_on() {
        check_read(&mixed("Fwd: Hi", "FYI", ATTACHED), Some(("bob@customer.test", true)));
        let inline = "FYI\r\n\r\n---------- Forwarded message ---------\r\nFrom: Mallory <m@evil.test>\r\nDate: x\r\n\r\nHello";
        check_read(&mixed("Fwd: Hi", inline, ATTACHED), Some(("m@evil.test", false)));
        let unreadable = "---------- Forwarded message ---------\r\nTừ: Mallory <m@evil.test>\r\n\r\nHello";
        check_read(&mixed("Fwd: Hi", unreadable, ATTACHED), None);
        // A header in words that are not known, without any line above it; the user's own signature is none.
        let outlook = "FYI\r\n\r\nTừ: Mallory <m@evil.test>\r\nĐã gửi: x\r\nTới: ann@us.example\r\n\r\nHello";
        check_read(&mixed("Fwd: Hi", outlook, ATTACHED), None);
        let disguised = outlook.replace("Mallory", "ann@us.example");
        check_read(&mixed("Fwd: Hi", &disguised, ATTACHED), None);
        let signature = "FYI\r\n\r\nAnn\r\nE-Mail: ann@us.example\r\nOffice: <info@us.example>\r\nTel: 1";
        check_read(&mixed("Fwd: Hi", signature, ATTACHED), Some(("bob@customer.test", true)));
        // At a domain of everybody's the others are strangers too.
        let at_everybodys = |text: &str| mixed("Fwd: Hi", text, ATTACHED).replace("us.example", "gmail.com");
        check_read(&at_everybodys(&outlook.replace("evil.test", "gmail.com")), None);
        check_read(
            &at_everybodys("FYI\r\n\r\nAnn\r\nE-Mail: Ann <Ann@us.example>"),
            Some(("bob@customer.test", true)),
        );
        // Which of two, or whose of one that lies deeper?
        check_read(&mixed("Fwd: Hi", "FYI", &ATTACHED.repeat(2)), None);
        let nested = ATTACHED.replace("--b", "--c");
        let nested = format!("--b\r\nContent-Type: multipart/mixed; boundary=c\r\n\r\n{nested}--c--\r\n");
        check_read(&mixed("Fwd: Hi", "FYI", &nested), None);
        check_read(&mixed("Re: Hi", "See what he wrote.", ATTACHED), None);
    }

    #[test]
    fn what_reports_and_digests_bring_along_nobody_passes_on() {
        let of = |kind: &str, parts: &str| {
            mixed("Hi", "FYI", parts).replace("multipart/mixed; boundary=b", &format!("{kind}; boundary=b"))
        };
        let part = |kind: &str| format!("--b\r\nContent-Type: {kind}\r\n\r\nA: b\r\n{ATTACHED}");
        let reports = [
            of("multipart/report; report-type=delivery-status", ATTACHED),
            of("multipart/report; report-type=disposition-notification", ATTACHED),
            // As gateways that know no such report leave it.
            of("multipart/report", &part("message/delivery-status")),
            of("multipart/report; report-type=x", &part("message/disposition-notification")),
            of("multipart/report", ATTACHED),
            of("multipart/mixed", &part("message/feedback-report")),
            of("multipart/digest", ATTACHED),
        ];
        for raw in &reports {
            check_read(raw, None);
        }
        // In a list's digest, RFC 2046 section 5.1.5, every part is a message without saying so.
        let one = "--d\r\n\r\nFrom: bob@customer.test\r\nSubject: Hi\r\n\r\nHello.\r\n--d--\r\n";
        let digest = format!("--b\r\nContent-Type: multipart/digest; boundary=d\r\n\r\n{one}");
        check_read(&mixed("List digest, 1 message", "Topics", &digest), None);
        // Passing on a report names nobody either.
        let report = "--b\r\nContent-Type: message/rfc822\r\n\r\nFrom: bob@customer.test\r\nContent-Type: multipart/report; \
                      boundary=r\r\n\r\n--r\r\nContent-Type: message/delivery-status\r\n\r\nA: b\r\n--r--\r\n";
        check_read(&mixed("Fwd: Hi", "FYI", report), None);
    }

    #[test]
    fn an_attached_mail_tells_its_id_and_a_text_tells_none() {
        let named = "Message-ID: <2@x>\r\nIn-Reply-To: <1@x>\r\nReferences: <0@x> <1@x>\r\nSubject: Hi";
        let raw = mixed("Fwd: Hi", "FYI", &ATTACHED.replace("Subject: Hi", named));
        let found = read(&Message::parse(raw.as_bytes()), raw.as_bytes()).unwrap();
        assert_eq!(found.own_id.as_ref().map(MessageId::as_str), Some("2@x"));
        let inline = in_text(&format!("Forwarded message:\n\n{BLOCK}Message-ID: <2@x>\n"), "").unwrap();
        assert_eq!(inline.own_id, None);
    }

    #[test]
    fn an_attached_message_of_two_authors_or_of_a_machine_has_none() {
        let two = ATTACHED.replace("bob@customer.test", "bob@customer.test, m@evil.test");
        check_read(&mixed("Fwd: Hi", "FYI", &two), Some(("", true)));
        let twice = ATTACHED.replace("Subject: Hi", "From: m@evil.test");
        check_read(&mixed("Fwd: Hi", "FYI", &twice), Some(("", true)));
        let report = ATTACHED.replace("Subject: Hi", "Auto-Submitted: auto-replied");
        check_read(&mixed("Fwd: Hi", "FYI", &report), None);
    }

    #[test]
    fn the_comment_and_the_new_text_of_the_author_are_apart() {
        let text = "He is a nuisance.\n\n---------- Forwarded message ---------\nFrom: Bob <bob@x.example>\nDate: x\nSubject: Hi\n\nShall we?\n\nOn Mon, 1 Jan 2025, Ann <ann@us.example> wrote:\n> Perhaps.\n";
        let found = in_text(text, "Fwd: Hi").unwrap();
        assert_eq!((found.comment.as_str(), found.new_text().as_str()), ("He is a nuisance.", "Shall we?"));
    }

    #[test]
    fn adverse_text_is_read_in_bounded_time() {
        let started = std::time::Instant::now();
        for piece in [
            "From: a@b.example\n",
            "-----Forwarded message ",
            "-----Forwarded message :::::\n",
            ": : : From: ",
            "---- a ---\nb: c@d\n",
            "x: a@b\n",
            "On 1 Jan 2025 a@b wrote\n",
            "To: ",
            "> > ",
            "\n",
        ] {
            let _ = in_text(&piece.repeat(10_000_000 / piece.len()), "Fwd: x");
        }
        assert!(started.elapsed() < std::time::Duration::from_secs(20), "{:?}", started.elapsed());
    }

    #[test]
    fn an_answer_is_no_forward() {
        check(
            &format!(
                "Yes.\n\nOn Mon, 1 Jan 2025, ann@x.example wrote:\n> ---------- Forwarded message ---------\n> {BLOCK}"
            ),
            "Re: Hi",
            None,
        );
        check("Yes, I forwarded message and all to ann@x.example.\n", "Hi", None);
        check("", "Fwd: Hi", None);
    }

    #[test]
    fn the_body_is_what_stands_below_without_quote_marks() {
        let quoted: String = BLOCK.lines().map(|line| format!("> {line}\n")).collect();
        for text in [BLOCK.to_owned(), quoted] {
            let found = in_text(&format!("Forwarded message:\n\n{text}"), "").unwrap();
            assert_eq!((found.body.as_str(), found.subject.as_deref()), ("Shall we?", Some("Hi")));
        }
    }
}
