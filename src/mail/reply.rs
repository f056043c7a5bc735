//! Finds what an author newly wrote in a plain-text answer: without quotes, the lines that introduce them, and signatures.
//!
//! Not here: HTML (`sanitise::html_to_text` first). Linear, and right for the common clients in the languages of the tables below; where a
//! text is ambiguous, more is kept rather than less.

use super::{
    Address,
    quoted_header::{self, Mention, plain},
};

/// Text looked at; nobody writes more above a quote.
const TEXT_BYTES_MAX: usize = 200 * 1024;
/// Lines over which a client may wrap `On …, … wrote:`.
const ATTRIBUTION_LINES_MAX: usize = 4;
/// Lines below a rule that can be a signature or a mailing list's footer.
const SIGNATURE_LINES_MAX: usize = 12;
/// Longest attribution, wrapped lines joined.
const ATTRIBUTION_BYTES_MAX: usize = 400;

/// How attributions begin, in lower case.
const ATTRIBUTION_STARTS: [&str; 24] = [
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
    "dňa ",
    "dnia ",
    "pada ",
    "på ",
    "a ",
    "at ",
    "il giorno ",
    "vào ",
    "în data de ",
    "pe ",
    "el día ",
    "ha scritto",
    "dana ",
    "στις ",
];
/// The verbs they end with before the colon.
const ATTRIBUTION_ENDS: [&str; 38] = [
    "wrote",
    "writes",
    "schrieb",
    "schrieb folgendes",
    "folgendes geschrieben",
    "a écrit",
    "escribió",
    "ha scritto",
    "schreef",
    "geschreven",
    "escreveu",
    "skrev",
    "skrev följande",
    "napisał",
    "napisał(a)",
    "napisała",
    "pisze",
    "napsal",
    "napsal(a)",
    "napísal",
    "napísal(a)",
    "írta",
    "kirjoitti",
    "đã viết",
    "написал",
    "написал(а)",
    "написав",
    "пише",
    "пишет",
    "a scris",
    "yazdı",
    "şunu yazdı",
    "je napisao/la",
    "έγραψε",
    "写道",
    "寫道",
    "のメール",
    "님이 작성",
];
/// `Ann Lee <ann@x.example> wrote on Monday:` and `ann@x.example schrieb am …:`.
const ATTRIBUTION_VERBS: [&str; 15] = [
    " wrote",
    " schrieb",
    " a écrit",
    " escribió",
    " ha scritto",
    " schreef",
    " escreveu",
    " skrev",
    " kirjoitti",
    " napisał",
    " napisana przez",
    " şunları yazdı",
    " ezt írta",
    " написал",
    " пише",
];

/// Words between dashes above a quoted message.
const SEPARATOR_WORDS: [&str; 37] = [
    "original message",
    "original",
    "original email",
    "ursprüngliche nachricht",
    "ursprüngliche mail",
    "originalnachricht",
    "original-nachricht",
    "message d'origine",
    "message original",
    "mensaje original",
    "messaggio originale",
    "oorspronkelijk bericht",
    "mensagem original",
    "ursprungligt meddelande",
    "originalmeddelande",
    "ursprungsmeddelande",
    "oprindelig meddelelse",
    "oprindelig besked",
    "opprinnelig melding",
    "alkuperäinen viesti",
    "oryginalna wiadomość",
    "wiadomość oryginalna",
    "původní zpráva",
    "pôvodná správa",
    "eredeti üzenet",
    "mesaj original",
    "orijinal mesaj",
    "özgün ileti",
    "исходное сообщение",
    "оригинальное сообщение",
    "原始邮件",
    "原始郵件",
    "原始信件",
    "元のメッセージ",
    "원본 메시지",
    "reply message",
    "antwoord bericht",
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

/// How programs say that they sent something, in lower case, and what else they ask to be got: with a device or a program in the
/// same line they are its signature.
const DEVICE_WORDS: [&str; 25] = [
    "sent from",
    "gesendet",
    "holen sie sich",
    "obtenir",
    "obtener",
    "obter",
    "scarica",
    "ottieni",
    "downloaden",
    "wysłan",
    "pobierz",
    "skickat",
    "hämta",
    "sendt fra",
    "hent",
    "odesláno",
    "lähetetty",
    "отправлено",
    "надіслано",
    "送信",
    "发自",
    "發自",
    "傳送",
    "gönderildi",
    "보냄",
];
const DEVICES: [&str; 9] =
    ["iphon", "ipad", "android", "galaxy", "samsung", "outlook", "yahoo mail", "huawei", "xiaomi"];
/// Longest signature of a device, in characters, and in bytes what is looked at to know.
const DEVICE_LINE_CHARS_MAX: usize = 80;
const DEVICE_LINE_BYTES_MAX: usize = 4 * DEVICE_LINE_CHARS_MAX;

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
    while visible.last().is_some_and(|line| is_rule_or_blank(line)) {
        visible.pop();
    }
    let visible = visible.join("\n").trim().to_owned();
    // Nothing new: what there is is better than nothing.
    if visible.is_empty() { text.trim().to_owned() } else { visible }
}

/// A ruled line that clients put above the header they quote.
fn is_rule_or_blank(line: &str) -> bool {
    let line = line.trim();
    line.is_empty() || (line.len() >= 5 && line.bytes().all(|byte| matches!(byte, b'-' | b'_' | b'=' | b'*')))
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
    if let Some(inner) = text.strip_suffix(QUOTES).and_then(|text| text.get(text.rfind(QUOTES)?..)) {
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
    if is_unended_attribution(first, lines.get(1..).unwrap_or_default()) {
        return Some(1);
    }
    let mut joined = String::new();
    for (index, line) in lines.iter().take(ATTRIBUTION_LINES_MAX).enumerate() {
        let line = line.trim();
        let begins_later = index > 0 && (!may_begin(first) || begins_with_word(line));
        if line.is_empty()
            || is_quote(line)
            || begins_later
            || joined.len() + line.len() > ATTRIBUTION_BYTES_MAX
        {
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

/// What wraps begins with its words, a date or an author: text above an attribution is not part of it.
fn may_begin(first: &str) -> bool {
    begins_with_word(first) || first.contains('@') || first.bytes().filter(u8::is_ascii_digit).count() >= 3
}

/// A line that can only be the first one, since it has a date behind the word.
fn begins_with_word(line: &str) -> bool {
    let lower = line.to_lowercase();
    let starts = ATTRIBUTION_STARTS.iter().any(|start| lower.starts_with(start));
    starts && lower.bytes().filter(u8::is_ascii_digit).count() >= 3
}

/// Attributions without a colon: the old one of Gmail, `2013/7/20 Ann Lee <ann@x.example>`, and Polymail's, which goes on with
/// a link in lines of its own.
fn is_unended_attribution(first: &str, below: &[&str]) -> bool {
    let digits = first.bytes().filter(u8::is_ascii_digit).count();
    let starts_with_date = first.as_bytes().first().is_some_and(u8::is_ascii_digit) && digits >= 6;
    let gmail = starts_with_date && first.ends_with('>') && first.contains('@');
    let mut filled = below.iter().map(|line| line.trim()).filter(|line| !line.is_empty());
    let polymail = digits >= 4
        && below.len() >= 2
        && filled.next() == Some("<")
        && filled.next().is_some_and(|line| line.starts_with("mailto:"));
    gmail || polymail
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
    // Whatever the language: a date, a name and an address, which nobody else writes in this order.
    let dated = sentence.ends_with('>')
        && sentence.contains('@')
        && lower.bytes().filter(u8::is_ascii_digit).count() >= 8
        && (lower.contains(':') || sentence.as_bytes().first().is_some_and(u8::is_ascii_digit));
    let dated_verb = ends && sentence.bytes().filter(u8::is_ascii_digit).count() >= 5;
    has_detail && ((starts && ends) || named_first || (ends && sentence.contains('@')) || dated || dated_verb)
}

/// A separator line or a header block: all that follows is quoted.
fn begins_quoted_message(lines: &[&str]) -> bool {
    let Some(first) = lines.first().map(|line| line.trim()) else { return false };
    let after = lines.get(1..).unwrap_or_default();
    let is_rule = first.len() >= 8 && first.bytes().all(|byte| byte == b'_');
    is_separator(first) || is_header_block(lines) || (is_rule && is_header_block(skip_blank(after)))
}

fn is_separator(line: &str) -> bool {
    let bare = line.trim_start_matches(['*', ' ']);
    let is_dashed = ["--", "__", "=="].iter().any(|dashes| bare.starts_with(dashes));
    if !is_dashed || line.len() > ATTRIBUTION_BYTES_MAX {
        return false;
    }
    let words = line.trim_matches(['-', '_', '=', ' ', '*', ':']).to_lowercase().replace('’', "'");
    // `---- On Monday Ann Lee wrote ----` is Zoho's and Android's.
    let is_attribution = line.ends_with("--") && ATTRIBUTION_ENDS.iter().any(|verb| words.ends_with(verb));
    is_attribution || SEPARATOR_WORDS.contains(&words.as_str()) || super::forward::is_separator(line)
}

fn skip_blank<'a, 'b>(lines: &'a [&'b str]) -> &'a [&'b str] {
    let blank = lines.iter().take_while(|line| line.trim().is_empty()).count();
    lines.get(blank..).unwrap_or_default()
}

/// `From: … / Sent: … / To: …` in any order: the author's line and two others.
fn is_header_block(lines: &[&str]) -> bool {
    let first = lines.first().and_then(|line| quoted_header::field(line));
    first.is_some_and(|(_, value)| !value.is_empty() || lines.len() > 1)
        && quoted_header::read(lines).is_some_and(|(block, _)| block.from.is_some() && block.fields >= 3)
}

/// Cuts at the dashes of RFC 3676 section 4.3 or the rule above a mailing list's lines, else takes a phone's line off the end.
fn without_signature(text: &str) -> String {
    let lines: Vec<&str> = text.lines().collect();
    let begins = |at: &usize| lines.get(*at..).is_some_and(begins_signature);
    let dashes = (0..lines.len()).find(begins);
    let kept = lines.get(..dashes.unwrap_or(lines.len())).unwrap_or_default();
    let mut end = kept.iter().rposition(|line| !line.trim().is_empty()).map_or(0, |last| last + 1);
    if end > 0 && kept.get(end - 1).is_some_and(|line| is_device_signature(line)) {
        end -= 1;
    }
    kept.get(..end).unwrap_or_default().join("\n")
}

fn is_device_signature(line: &str) -> bool {
    let line = line.trim();
    if line.len() > DEVICE_LINE_BYTES_MAX || line.chars().count() > DEVICE_LINE_CHARS_MAX {
        return false;
    }
    let line = line.to_lowercase();
    let holds = |words: &[&str]| words.iter().any(|word| line.contains(word));
    DEVICE_SIGNATURES.iter().any(|start| line.starts_with(start)) || (holds(&DEVICE_WORDS) && holds(&DEVICES))
}

fn begins_signature(lines: &[&str]) -> bool {
    let Some(line) = lines.first().map(|line| line.trim_end()) else { return false };
    let is_rule = line.len() >= 2 && line.bytes().all(|byte| byte == b'_');
    matches!(line, "--" | "—") || (is_rule && lines.len() <= SIGNATURE_LINES_MAX)
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
    fn attributions_in_other_languages_end_the_new_text() {
        for attribution in [
            "Vào 14:24 8 tháng 6, 2017, Ann <ann@x.example> đã viết:",
            "понедельник, 6 октября 2014 г. пользователь Ann написал:",
            "30 серп. 2016 р. 20:45 \"Ann\" <ann@x.example> пише:",
            "Thu, 26 Jun 2014 14:00:51 +0400 от Ann <ann@x.example>:",
            "2013/7/20 Ann Lee <ann@x.example>",
            "---- On Tue, 22 Dec 2015 14:17:36 +0530 Ann Lee wrote ----",
            "-----Oprindelig meddelelse-----",
            "*-------- Original Message --------*",
        ] {
            check(
                &format!("Good.\nSee you in 2 weeks, ok?\n{attribution}\n\nShall we?\n"),
                "Good.\nSee you in 2 weeks, ok?",
            );
        }
    }

    /// Where one thing stands above what is quoted, the new text ends there, whether the quote is marked or not.
    #[track_caller]
    fn check_above(intro: &str) {
        for quote in ["Shall we?", "> Shall we?\n>\n> Ann", "\n\nShall we?"] {
            check(&format!("Yes.\n\n{intro}\n{quote}\n"), "Yes.");
        }
    }

    #[test]
    fn outlooks_header_ends_the_new_text_in_its_languages() {
        for header in [
            "From: Ann Lee <ann@x.example>\nSent: Tuesday, April 1, 2025 10:00 AM\nTo: Bob <bob@y.example>\nSubject: Offer",
            "Von: Ann Lee <ann@x.example>\nGesendet: Dienstag, 1. April 2025 10:00\nAn: Bob <bob@y.example>\nBetreff: Angebot",
            "De : Ann Lee <ann@x.example>\nEnvoyé : mardi 1 avril 2025 10:00\nÀ : Bob <bob@y.example>\nObjet : Offre",
            "De: Ann Lee <ann@x.example>\nEnviado el: martes, 1 de abril de 2025 10:00\nPara: Bob <bob@y.example>\nAsunto: Oferta",
            "Da: Ann Lee <ann@x.example>\nInviato: martedì 1 aprile 2025 10:00\nA: Bob <bob@y.example>\nOggetto: Offerta",
            "Van: Ann Lee <ann@x.example>\nVerzonden: dinsdag 1 april 2025 10:00\nAan: Bob <bob@y.example>\nOnderwerp: Offerte",
            "De: Ann Lee <ann@x.example>\nEnviada em: terça-feira, 1 de abril de 2025 10:00\nPara: Bob <bob@y.example>\nAssunto: Oferta",
            "Od: Ann Lee <ann@x.example>\nWysłano: wtorek, 1 kwietnia 2025 10:00\nDo: Bob <bob@y.example>\nTemat: Oferta",
            "Från: Ann Lee <ann@x.example>\nSkickat: den 1 april 2025 10:00\nTill: Bob <bob@y.example>\nÄmne: Offert",
            "Fra: Ann Lee <ann@x.example>\nSendt: 1. april 2025 10:00\nTil: Bob <bob@y.example>\nEmne: Tilbud",
            "Od: Ann Lee <ann@x.example>\nOdesláno: úterý 1. dubna 2025 10:00\nKomu: Bob <bob@y.example>\nPředmět: Nabídka",
            "От: Ann Lee <ann@x.example>\nОтправлено: 1 апреля 2025 г. 10:00\nКому: Bob <bob@y.example>\nТема: Предложение",
            "差出人: Ann Lee <ann@x.example>\n送信日時: 2025年4月1日 10:00\n宛先: Bob <bob@y.example>\n件名: 見積",
            "发件人: Ann Lee <ann@x.example>\n发送时间: 2025年4月1日 10:00\n收件人: Bob <bob@y.example>\n主题: 报价",
            "寄件者: Ann Lee <ann@x.example>\n寄件日期: 2025年4月1日 10:00\n收件者: Bob <bob@y.example>\n主旨: 報價",
            "Kimden: Ann Lee <ann@x.example>\nGönderildi: 1 Nisan 2025 Salı 10:00\nKime: Bob <bob@y.example>\nKonu: Teklif",
            "Gönderen: Ann Lee <ann@x.example>\nGönderme Tarihi: 1 Nisan 2025 Salı 10:00\nAlıcı: Bob <bob@y.example>\nKonu: Teklif",
            "De: Ann Lee <ann@x.example>\nEnviado: 1 de abril de 2025 10:00\nPara: Bob <bob@y.example>\nAssunto: Oferta",
            "Fra: Ann Lee <ann@x.example>\nSendt: tirsdag 1. april 2025 10:00\nTil: Bob <bob@y.example>\nEmne: Tilbud",
            "Lähettäjä: Ann Lee <ann@x.example>\nLähetetty: tiistai 1. huhtikuuta 2025 10.00\nVastaanottaja: Bob <bob@y.example>\nAihe: Tarjous",
            "보낸 사람: Ann Lee <ann@x.example>\n보낸 날짜: 2025년 4월 1일 10:00\n받는 사람: Bob <bob@y.example>\n제목: 견적",
        ] {
            check_above(header);
            check_above(&format!("________________________________\n{header}"));
        }
    }

    #[test]
    fn introductions_end_the_new_text_in_the_languages_of_the_clients() {
        // Apple Mail and iOS, Gmail, Thunderbird, Yahoo.
        for introduction in [
            "On Apr 1, 2025, at 10:00 AM, Ann Lee <ann@x.example> wrote:",
            "Am 01.04.2025 um 10:00 schrieb Ann Lee <ann@x.example>:",
            "Le 1 avr. 2025 à 10:00, Ann Lee <ann@x.example> a écrit :",
            "El 1 abr 2025, a las 10:00, Ann Lee <ann@x.example> escribió:",
            "Il giorno 1 apr 2025, alle ore 10:00, Ann Lee <ann@x.example> ha scritto:",
            "Op 1 apr. 2025 om 10:00 heeft Ann Lee <ann@x.example> het volgende geschreven:",
            "No dia 1 de abr de 2025, às 10:00, Ann Lee <ann@x.example> escreveu:",
            "Em 1 de abr. de 2025, à(s) 10:00, Ann Lee <ann@x.example> escreveu:",
            "Wiadomość napisana przez Ann Lee <ann@x.example> w dniu 1 kwi 2025, o godz. 10:00:",
            "1 apr. 2025 kl. 10:00 skrev Ann Lee <ann@x.example>:",
            "Den 1. apr. 2025 kl. 10.00 skrev Ann Lee <ann@x.example>:",
            "1. 4. 2025 v 10:00, Ann Lee <ann@x.example>:",
            "1 апр. 2025 г., в 10:00, Ann Lee <ann@x.example> написал(а):",
            "2025/04/01 10:00、Ann Lee <ann@x.example>のメール:",
            "2025年4月1日 上午10:00，Ann Lee <ann@x.example> 写道：",
            "在 2025年4月1日，上午10:00，Ann Lee <ann@x.example> 写道：",
            "Ann Lee <ann@x.example> şunları yazdı (1 Nis 2025 10:00):",
            "On Tue, Apr 1, 2025 at 10:00 AM Ann Lee <ann@x.example> wrote:",
            "Am Di., 1. Apr. 2025 um 10:00 Uhr schrieb Ann Lee <ann@x.example>:",
            "Le mar. 1 avr. 2025 à 10:00, Ann Lee <ann@x.example> a écrit :",
            "El mar, 1 abr 2025 a las 10:00, Ann Lee (<ann@x.example>) escribió:",
            "Il giorno mar 1 apr 2025 alle ore 10:00 Ann Lee <ann@x.example> ha\nscritto:",
            "Op di 1 apr 2025 om 10:00 schreef Ann Lee <ann@x.example>:",
            "Ann Lee <ann@x.example> escreveu (terça, 1/04/2025 à(s) 10:00):",
            "wt., 1 kwi 2025 o 10:00 Ann Lee <ann@x.example> napisał(a):",
            "Den tis 1 apr. 2025 kl 10:00 skrev Ann Lee <ann@x.example>:",
            "Den tirs. 1. apr. 2025 kl. 10.00 skrev Ann Lee <ann@x.example>:",
            "tir. 1. apr. 2025 kl. 10:00 skrev Ann Lee <ann@x.example>:",
            "út 1. 4. 2025 v 10:00 odesílatel Ann Lee <ann@x.example> napsal:",
            "вт, 1 апр. 2025 г. в 10:00, Ann Lee <ann@x.example>:",
            "2025年4月1日(火) 10:00 Ann Lee <ann@x.example>:",
            "Ann Lee <ann@x.example> 于2025年4月1日周二 10:00写道：",
            "Ann Lee <ann@x.example> 於 2025年4月1日 週二 上午10:00寫道：",
            "Ann Lee <ann@x.example>, 1 Nis 2025 Sal, 10:00 tarihinde şunu yazdı:",
            "ti 1. huhtik. 2025 klo 10.00 Ann Lee (ann@x.example) kirjoitti:",
            "Ann Lee <ann@x.example> ezt írta (időpont: 2025. ápr. 1., K, 10:00):",
            "2025년 4월 1일 (화) 오전 10:00, Ann Lee <ann@x.example>님이 작성:",
            "вт, 1 квіт. 2025 р. о 10:00 Ann Lee <ann@x.example> пише:",
            "On 4/1/25 10:00, Ann Lee wrote:",
            "On 4/1/25 10:00, Ann Lee wrote:",
            "Am 01.04.25 um 10:00 schrieb Ann Lee:",
            "Le 01/04/2025 à 10:00, Ann Lee a écrit :",
            "El 1/4/25 a las 10:00, Ann Lee escribió:",
            "Il 01/04/25 10:00, Ann Lee ha scritto:",
            "Op 01-04-2025 om 10:00 schreef Ann Lee:",
            "Em 01/04/2025 10:00, Ann Lee escreveu:",
            "Às 10:00 de 01/04/2025, Ann Lee escreveu:",
            "W dniu 1.04.2025 o 10:00, Ann Lee pisze:",
            "Den 2025-04-01 kl. 10:00, skrev Ann Lee:",
            "Den 01.04.2025 kl. 10.00 skrev Ann Lee:",
            "Dne 01. 04. 25 v 10:00 Ann Lee napsal(a):",
            "01.04.2025 10:00, Ann Lee пишет:",
            "On 2025/04/01 10:00, Ann Lee wrote:",
            "在 2025/4/1 10:00, Ann Lee 写道:",
            "01.04.2025 10:00 tarihinde Ann Lee yazdı:",
            "On Tuesday, April 1, 2025 at 10:00:00 AM GMT+2, Ann Lee <ann@x.example> wrote:",
            "Am Dienstag, 1. April 2025 um 10:00:00 MESZ hat Ann Lee <ann@x.example> Folgendes geschrieben:",
            "Le mardi 1 avril 2025 à 10:00:00 UTC+2, Ann Lee <ann@x.example> a écrit :",
            "El martes, 1 de abril de 2025, 10:00:00 CEST, Ann Lee <ann@x.example> escribió:",
            "Il martedì 1 aprile 2025 alle ore 10:00:00 CEST, Ann Lee <ann@x.example> ha scritto:",
            "Em terça-feira, 1 de abril de 2025 10:00:00 BRT, Ann Lee <ann@x.example> escreveu:",
        ] {
            check_above(introduction);
        }
    }

    #[test]
    fn separators_of_phones_end_the_new_text_in_their_languages() {
        for words in [
            "Original message",
            "Ursprüngliche Nachricht",
            "Message d'origine",
            "Message d’origine",
            "Mensaje original",
            "Messaggio originale",
            "Oorspronkelijk bericht",
            "Mensagem original",
            "Oryginalna wiadomość",
            "Wiadomość oryginalna",
            "Originalmeddelande",
            "Oprindelig besked",
            "Původní zpráva",
            "Исходное сообщение",
            "Orijinal mesaj",
            "元のメッセージ",
            "原始邮件",
        ] {
            check_above(&format!("-------- {words} --------\nFrom: Ann Lee <ann@x.example>"));
        }
    }

    #[test]
    fn devices_and_programs_sign_in_their_languages() {
        for signature in [
            "Sent from my iPhone",
            "Von meinem iPhone gesendet",
            "Envoyé de mon iPhone",
            "Enviado desde mi iPhone",
            "Inviato da iPhone",
            "Verstuurd vanaf mijn iPhone",
            "Enviado do meu iPhone",
            "Wysłane z iPhone'a",
            "Skickat från min iPhone",
            "Sendt fra min iPhone",
            "Odesláno z iPhonu",
            "Отправлено с iPhone",
            "iPhoneから送信",
            "发自我的 iPhone",
            "從我的 iPhone 傳送",
            "iPhone'umdan gönderildi",
            "Lähetetty iPhonesta",
            "나의 iPhone에서 보냄",
            "Get Outlook for iOS<https://aka.ms/o0ukef>",
            "Holen Sie sich Outlook für iOS<https://aka.ms/o0ukef>",
            "Obtenir Outlook pour iOS<https://aka.ms/o0ukef>",
            "Obtener Outlook para iOS<https://aka.ms/o0ukef>",
            "Scarica Outlook per iOS<https://aka.ms/o0ukef>",
            "Outlook voor iOS downloaden<https://aka.ms/o0ukef>",
            "Sent from my Galaxy",
            "Von meinem Galaxy gesendet",
            "Sent from Yahoo Mail on Android",
            "Von Yahoo Mail auf Android gesendet",
        ] {
            check(&format!("Yes.\n\n{signature}"), "Yes.");
        }
        for text in [
            "Wysłane.",
            "Ihr iPhone ist da.",
            "Das Paket wurde gesendet.",
            "Das habe ich gesendet.\nIn Outlook.",
        ] {
            check(&format!("Yes.\n\n{text}"), &format!("Yes.\n\n{text}"));
        }
    }

    #[track_caller]
    fn check_html(html: &str, expect: &str) {
        check(&super::super::sanitise::html_to_text(html), expect);
    }

    #[test]
    fn the_quotes_of_html_are_quotes() {
        let wrote = "On Tue, Apr 1, 2025 at 10:00 AM Ann Lee &lt;<a href=\"mailto:ann@x.example\">ann@x.example</a>&gt; wrote:";
        let header = "<b>Von:</b> Ann Lee &lt;ann@x.example&gt; <br><b>Gesendet:</b> Dienstag<br><b>An:</b> Bob<br><b>Betreff:</b> Hi";
        let begin = "<div dir=\"ltr\">Yes.</div><br>";
        for quoted in [
            format!(
                "<div class=\"gmail_quote\"><div class=\"gmail_attr\">{wrote}<br></div><blockquote class=\"gmail_quote\">Shall we?</blockquote></div>"
            ),
            format!(
                "<div id=\"appendonsend\"></div><hr><div id=\"divRplyFwdMsg\"><font>{header}</font><div>&nbsp;</div></div><div>Shall we?</div>"
            ),
            format!(
                "<div style=\"border-top:solid\"><p class=\"MsoNormal\">{header}</p></div><p class=\"MsoNormal\">Shall we?</p>"
            ),
            format!("<blockquote type=\"cite\"><div>{wrote}</div><br><div>Shall we?</div></blockquote>"),
            format!(
                "<div class=\"moz-cite-prefix\">{wrote}<br></div><blockquote type=\"cite\"><p>Shall we?</p></blockquote>"
            ),
            format!(
                "<div class=\"yahoo_quoted\"><div>{wrote}</div><div><br></div><div>Shall we?</div></div>"
            ),
            format!(
                "<div class=\"protonmail_quote\">{wrote}<br><blockquote type=\"cite\">Shall we?</blockquote></div>"
            ),
        ] {
            check_html(&format!("{begin}{quoted}"), "Yes.");
        }
        check_html(
            "<div>Yes.</div><blockquote type=\"cite\">Two?</blockquote><div>No.</div>",
            "Yes.\n\n\nNo.",
        );
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
    fn a_text_of_nothing_but_a_quote_is_shown_whole() {
        check("> Shall we?\n", "> Shall we?");
    }

    #[test]
    fn splitting_is_linear() {
        for piece in ["> ", "On 123 ", "On 1 Jan 2025 a@b\n", ">\n", "From: a\n", "-- \n", "\n"] {
            assert!(split_reply(&piece.repeat(100_000)).len() <= TEXT_BYTES_MAX);
        }
    }
}
