//! Finds what an author newly wrote in a plain-text answer: without quotes, the lines that introduce them, and signatures.
//!
//! Not here: HTML (`sanitise::html_to_text` first). Linear, and right for the common clients in seven languages; where a
//! text is ambiguous, more is kept rather than less.

use super::{
    Address,
    quoted_header::{Mention, plain},
};

/// Text looked at; nobody writes more above a quote.
const TEXT_BYTES_MAX: usize = 200 * 1024;
/// Lines over which a client may wrap `On …, … wrote:`.
const ATTRIBUTION_LINES_MAX: usize = 4;
/// Longest attribution, wrapped lines joined.
const ATTRIBUTION_BYTES_MAX: usize = 400;

/// How attributions begin (in lower case) and end before the colon.
const ATTRIBUTION_STARTS: [&str; 17] = [
    "on ",
    "am ",
    "le ",
    "el ",
    "il ",
    "op ",
    "em ",
    "den ",
    "w dniu ",
    "dne ",
    "dnia ",
    "pada ",
    "på ",
    "a ",
    "ha scritto",
    "at ",
    "il giorno ",
];
const ATTRIBUTION_ENDS: [&str; 16] = [
    "wrote",
    "schrieb",
    "a écrit",
    "escribió",
    "ha scritto",
    "schreef",
    "escreveu",
    "skrev",
    "napisał",
    "napisał(a)",
    "napsal",
    "napsal(a)",
    "írta",
    "het volgende geschreven",
    "writes",
    "geschreven",
];
/// `Ann Lee <ann@x.example> wrote on Monday:` and `ann@x.example schrieb am …:`.
const ATTRIBUTION_VERBS: [&str; 8] =
    [" wrote", " schrieb", " a écrit", " escribió", " ha scritto", " schreef", " escreveu", " skrev"];

/// Words between dashes above a quoted message.
const SEPARATOR_WORDS: [&str; 12] = [
    "original message",
    "ursprüngliche nachricht",
    "originalnachricht",
    "message d'origine",
    "message original",
    "mensaje original",
    "messaggio originale",
    "oorspronkelijk bericht",
    "mensagem original",
    "ursprungligt meddelande",
    "reply message",
    "antwoord bericht",
];

/// Labels of the header block that Outlook and its kin put above a quoted message: author first, then others.
const AUTHOR_LABELS: [&str; 8] = ["from", "von", "de", "da", "van", "från", "fra", "od"];
const OTHER_LABELS: [&str; 24] = [
    "sent",
    "to",
    "cc",
    "date",
    "subject",
    "gesendet",
    "an",
    "datum",
    "betreff",
    "envoyé",
    "à",
    "objet",
    "enviado",
    "enviado el",
    "para",
    "asunto",
    "inviato",
    "a",
    "oggetto",
    "verzonden",
    "aan",
    "onderwerp",
    "assunto",
    "data",
];

/// Lines that phones add below a text, in lower case.
const DEVICE_SIGNATURES: [&str; 16] = [
    "sent from my ",
    "sent from mail for windows",
    "sent from outlook",
    "get outlook for ",
    "sent via ",
    "von meinem ",
    "gesendet von ",
    "gesendet mit ",
    "envoyé de mon ",
    "envoyé depuis ",
    "enviado desde mi ",
    "enviado do meu ",
    "inviato da ",
    "verzonden vanaf ",
    "verstuurd vanaf ",
    "outlook für ",
];

/// The new text of an answer, without quotes and signature.
#[must_use]
pub fn split_reply(text: &str) -> String {
    let visible = visible_text(text);
    without_signature(&visible).trim().to_owned()
}

/// The new text with its signature.
#[must_use]
pub fn visible_text(text: &str) -> String {
    let text = text.get(..text.floor_char_boundary(TEXT_BYTES_MAX)).unwrap_or(text);
    let lines: Vec<&str> = text.lines().collect();
    let mut visible: Vec<&str> = Vec::new();
    let mut rest = lines.as_slice();
    while let Some((line, after)) = rest.split_first() {
        if begins_quoted_message(rest) {
            break;
        }
        if let Some(len) = attribution_len(rest) {
            let quoted = rest.get(len..).unwrap_or_default();
            if !is_marked_quote(quoted) && !is_answered_inline(quoted) {
                break;
            }
            rest = quoted;
            continue;
        }
        if !is_quote(line) {
            visible.push(line);
        }
        rest = after;
    }
    visible.join("\n").trim().to_owned()
}

fn is_quote(line: &str) -> bool {
    line.trim_start().starts_with('>')
}

/// The next line that holds anything is marked with `>`.
fn is_marked_quote(lines: &[&str]) -> bool {
    lines.iter().find(|line| !line.trim().is_empty()).is_some_and(|line| is_quote(line))
}

/// Marks come later: a client that wrapped its attribution oddly, with answers between the quotes.
fn is_answered_inline(lines: &[&str]) -> bool {
    lines.iter().take(3).any(|line| is_quote(line))
}

/// Whom an attribution names: the address in it with the words about it that are no date.
pub(super) fn attribution_author(lines: &[&str]) -> Option<Mention> {
    let joined = lines.iter().map(|line| plain(line)).collect::<Vec<_>>().join(" ");
    let (at, end) = address_span(&joined)?;
    let address = Address::parse(joined.get(at..end)?).ok()?;
    let before = joined.get(..at)?.trim_end_matches(['<', '(', ' ', '"', '\u{a0}']);
    Some(Mention { name: name_before(before), address: Some(address) })
}

/// Where the address stands.
fn address_span(text: &str) -> Option<(usize, usize)> {
    let at = text.find('@')?;
    let is_edge =
        |c: char| c.is_whitespace() || matches!(c, '<' | '>' | '(' | ')' | '"' | ',' | ';' | '[' | ']' | ':');
    let start = text.get(..at)?.rfind(is_edge).map_or(0, |edge| edge + 1);
    let end = text.get(at..)?.find(is_edge).map_or(text.len(), |edge| at + edge);
    Some((start, end))
}

/// The quoted words before an address, else the words since the last comma, digit or verb.
fn name_before(text: &str) -> Option<String> {
    const QUOTES: [char; 6] = ['"', '„', '“', '”', '«', '»'];
    let text = text.trim();
    if let Some(inner) = text.strip_suffix(QUOTES).and_then(|text| Some(text.get(text.rfind(QUOTES)?..)?)) {
        let name = inner.trim_matches(|c: char| QUOTES.contains(&c) || c.is_whitespace());
        return (!name.is_empty()).then(|| name.to_owned());
    }
    let text = text.get(text.rfind(QUOTES).map_or(0, |at| text.ceil_char_boundary(at + 1))..)?;
    let is_end = |c: char| c.is_ascii_digit() || matches!(c, ',' | ':' | '.');
    let words = text.get(text.rfind(is_end).map_or(0, |at| at + 1)..)?;
    let verbs = ["schrieb", "skrev", "schreef", "użytkownik", "používateľ", "uživatel"];
    let name: Vec<&str> =
        words.split_whitespace().skip_while(|word| verbs.contains(&word.to_lowercase().as_str())).collect();
    (!name.is_empty()).then(|| name.join(" "))
}

/// How many lines an attribution at the start takes.
pub(super) fn attribution_len(lines: &[&str]) -> Option<usize> {
    let first = lines.first()?.trim();
    if first.is_empty() || is_quote(first) {
        return None;
    }
    let mut joined = String::new();
    for (index, line) in lines.iter().take(ATTRIBUTION_LINES_MAX).enumerate() {
        let line = line.trim();
        if line.is_empty() || is_quote(line) || joined.len() + line.len() > ATTRIBUTION_BYTES_MAX {
            return None;
        }
        joined.push_str(if joined.is_empty() { "" } else { " " });
        joined.push_str(line);
        if line.ends_with([':', '：']) && is_attribution(&joined) {
            return Some(index + 1);
        }
    }
    None
}

/// A date or an address must be in it: `On the whole, as I wrote:` is a sentence.
fn is_attribution(text: &str) -> bool {
    let lower = text.to_lowercase();
    let sentence = lower.trim_end_matches([':', '：']).trim_end();
    let has_detail = lower.contains('@') || lower.bytes().filter(u8::is_ascii_digit).count() >= 3;
    let starts = ATTRIBUTION_STARTS.iter().any(|start| sentence.starts_with(start));
    let ends = ATTRIBUTION_ENDS.iter().any(|end| sentence.ends_with(end));
    let named_first =
        ATTRIBUTION_VERBS.iter().any(|verb| sentence.contains(verb)) && (sentence.contains('@') || starts);
    let gmail_old = sentence.contains('<')
        && sentence.ends_with('>')
        && sentence.as_bytes().first().is_some_and(u8::is_ascii_digit);
    has_detail && ((starts && ends) || named_first || (ends && sentence.contains('@')) || gmail_old)
}

/// A separator line or a header block: all that follows is quoted.
fn begins_quoted_message(lines: &[&str]) -> bool {
    let Some(first) = lines.first().map(|line| line.trim()) else { return false };
    let after = lines.get(1..).unwrap_or_default();
    let is_rule = first.len() >= 8 && first.bytes().all(|byte| byte == b'_');
    is_separator(first) || is_header_block(lines) || (is_rule && is_header_block(skip_blank(after)))
}

fn is_separator(line: &str) -> bool {
    let is_dashed = line.starts_with("--") || line.starts_with("__") || line.starts_with("==");
    let words = line.trim_matches(['-', '_', '=', ' ', '*']).to_lowercase();
    is_dashed && SEPARATOR_WORDS.iter().any(|separator| words == *separator)
}

fn skip_blank<'a, 'b>(lines: &'a [&'b str]) -> &'a [&'b str] {
    let blank = lines.iter().take_while(|line| line.trim().is_empty()).count();
    lines.get(blank..).unwrap_or_default()
}

/// `From: … / Sent: … / To: …`: the author's line and two others among the next six.
fn is_header_block(lines: &[&str]) -> bool {
    let has_label =
        |line: &&str, labels: &[&str]| label(line).is_some_and(|label| labels.contains(&label.as_str()));
    let is_author = lines.first().is_some_and(|line| has_label(line, &AUTHOR_LABELS));
    is_author && lines.iter().skip(1).take(6).filter(|line| has_label(line, &OTHER_LABELS)).count() >= 2
}

/// The word before the colon in lower case, without the stars that bold text leaves behind.
fn label(line: &str) -> Option<String> {
    let (label, _) = line.trim().trim_start_matches('*').split_once(':')?;
    (label.len() <= 24).then(|| label.trim_matches(['*', ' ', '\u{a0}']).to_lowercase())
}

/// Cuts at the dashes of RFC 3676 section 4.3, else takes a phone's line off the end.
fn without_signature(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let dashes = lines.iter().position(|line| matches!(line.trim_end(), "--" | "-- " | "—"));
    let kept = lines.get(..dashes.unwrap_or(lines.len())).unwrap_or_default();
    let is_device = |line: &str| {
        let line = line.trim().to_lowercase();
        line.len() <= 80 && DEVICE_SIGNATURES.iter().any(|start| line.starts_with(start))
    };
    let mut end = kept.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
    if end > 0 && kept.get(end - 1).is_some_and(|line| is_device(line)) {
        end -= 1;
    }
    kept.get(..end).unwrap_or_default().join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, expect: &str) {
        assert_eq!(split_reply(text), expect, "{text:?}");
    }

    #[test]
    fn what_stands_above_an_attribution_is_new() {
        let attributions = [
            "On Tue, Apr 1, 2025 at 10:00 AM Ann Lee <ann@x.example> wrote:",
            "On Tue, Apr 1, 2025 at 10:00 AM Ann Lee\n<ann@x.example> wrote:",
            "Am 01.04.2025 um 10:00 schrieb Ann Lee:",
            "Ann Lee <ann@x.example> schrieb am Di., 1. Apr. 2025, 10:00:",
            "Le mar. 1 avr. 2025 à 10:00, Ann Lee <ann@x.example> a écrit :",
            "El mar, 1 abr 2025 a las 10:00, Ann Lee (<ann@x.example>) escribió:",
            "Il giorno mar 1 apr 2025 alle ore 10:00 Ann Lee <ann@x.example> ha scritto:",
            "Op di 1 apr. 2025 om 10:00 schreef Ann Lee <ann@x.example>:",
            "Em ter., 1 de abr. de 2025 às 10:00, Ann Lee <ann@x.example> escreveu:",
        ];
        for attribution in attributions {
            check(&format!("Yes.\n\n{attribution}\n\n> Shall we?\n"), "Yes.");
            check(&format!("Yes.\n\n{attribution}\n\nShall we?\n"), "Yes.");
        }
    }

    #[test]
    fn header_blocks_and_separators_end_the_new_text() {
        check("Yes.\n\n-----Original Message-----\nFrom: Ann\nShall we?", "Yes.");
        check(
            "Yes.\n\n________________________________\nFrom: Ann\nSent: Monday\nTo: Bob\nSubject: x\n\nShall we?",
            "Yes.",
        );
        check("Ja.\n\nVon: Ann\nGesendet: Montag\nAn: Bob\nBetreff: x\n\nWollen wir?", "Ja.");
        check("Oui.\n\n*De :* Ann\n*Envoyé :* lundi\n*À :* Bob\n*Objet :* x\n\nOn y va ?", "Oui.");
    }

    #[test]
    fn answers_between_quotes_stay() {
        check("On Mon, 1 Jan 2025, ann@x.example wrote:\n> One?\nYes.\n> Two?\nNo.\n", "Yes.\nNo.");
        check("> One?\n\nYes.\n\nBob", "Yes.\n\nBob");
    }

    #[test]
    fn signatures_go() {
        check("Yes.\n\n-- \nBob\n+44 1", "Yes.");
        check("Yes.\n\nSent from my iPhone", "Yes.");
        check("Ja.\n\nVon meinem iPhone gesendet\n\nAm 01.04.2025 um 10:00 schrieb Ann:\n> x", "Ja.");
    }

    #[test]
    fn ordinary_sentences_stay() {
        for text in [
            "On the whole, as I wrote:\nfine.",
            "From: here on we agree.\nReally.",
            "Sent from my heart, and then\nmore text",
            "a: b\nc: d",
            "",
        ] {
            check(text, text);
        }
    }

    #[test]
    fn splitting_is_linear() {
        for piece in ["> ", "On 123 ", "On 1 Jan 2025 a@b\n", ">\n", "From: a\n", "-- \n", "\n"] {
            assert!(split_reply(&piece.repeat(100_000)).len() <= TEXT_BYTES_MAX);
        }
    }
}
