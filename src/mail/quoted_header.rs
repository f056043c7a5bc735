//! Reads the header that mail clients write into the text above a message they quote or forward, in the languages of the
//! common clients.
//!
//! Not here: where such a header may stand and what it means (`reply`, `forward`).

use super::{Address, address_list};

/// Lines of one block, blank ones not counted.
const LINES_MAX: usize = 12;
/// Bytes of a line that can be part of a block.
const LINE_BYTES_MAX: usize = 4000;
/// Colons of one line looked at for the labels of a block without line breaks.
const COLONS_MAX: usize = 50;
/// Longest label, in bytes.
const LABEL_BYTES_MAX: usize = 40;

/// What a line of the block tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) enum Field {
    From,
    To,
    Cc,
    Date,
    Subject,
    Other,
}

/// Labels in lower case, as the clients write them in 25 languages.
const LABELS: [(Field, &[&str]); 6] = [
    (
        Field::From,
        &[
            "from",
            "von",
            "de",
            "da",
            "van",
            "från",
            "fra",
            "lähettäjä",
            "od",
            "nadawca",
            "odesílatel",
            "odosielateľ",
            "feladó",
            "de la",
            "expeditorul",
            "expeditor",
            "šalje",
            "šalje:",
            "kimden",
            "gönderen",
            "от",
            "от кого",
            "від",
            "від кого",
            "saatja",
            "mittente",
            "remitente",
            "差出人",
            "送信元",
            "发件人",
            "寄件者",
            "보낸 사람",
            "από",
            "pošiljatelj",
            "nuo",
            "no",
            "expéditeur",
            "absender",
        ],
    ),
    (
        Field::To,
        &[
            "to",
            "an",
            "à",
            "a",
            "pour",
            "para",
            "aan",
            "til",
            "till",
            "vastaanottaja",
            "do",
            "adresat",
            "komu",
            "címzett",
            "către",
            "destinatarul",
            "prima",
            "za",
            "kime",
            "alıcı",
            "кому",
            "saaja",
            "adresse",
            "destinatario",
            "destinataire",
            "宛先",
            "送信先",
            "收件人",
            "收件者",
            "받는 사람",
            "προς",
            "empfänger",
            "naar",
        ],
    ),
    (
        Field::Cc,
        &[
            "cc",
            "kopie",
            "kopie (cc)",
            "kopi",
            "kopia",
            "kopio",
            "copie à",
            "copie",
            "copia",
            "cópia",
            "dw",
            "másolatot kap",
            "másolat",
            "bilgi",
            "копия",
            "копія",
            "kópia",
            "抄送",
            "副本",
            "참조",
            "κοιν",
            "koopia",
        ],
    ),
    (
        Field::Date,
        &[
            "date",
            "sent",
            "datum",
            "gesendet",
            "envoyé",
            "enviado",
            "enviado el",
            "enviada em",
            "enviada",
            "inviato",
            "verzonden",
            "fecha",
            "data",
            "dato",
            "sendt",
            "skickat",
            "päivämäärä",
            "päiväys",
            "lähetetty",
            "wysłano",
            "odesláno",
            "odoslané",
            "dátum",
            "elküldve",
            "küldve",
            "dată",
            "trimis",
            "poslano",
            "tarih",
            "gönderildi",
            "gönderme tarihi",
            "дата",
            "отправлено",
            "надіслано",
            "kuupäev",
            "saadetud",
            "日付",
            "送信日時",
            "日期",
            "发送时间",
            "寄件日期",
            "날짜",
            "보낸 날짜",
            "ημερομηνία",
            "enviado em",
            "date d'envoi",
        ],
    ),
    (
        Field::Subject,
        &[
            "subject",
            "betreff",
            "objet",
            "sujet",
            "asunto",
            "assunto",
            "oggetto",
            "onderwerp",
            "emne",
            "ämne",
            "aihe",
            "temat",
            "předmět",
            "predmet",
            "tárgy",
            "subiectul",
            "subiect",
            "naslov",
            "konu",
            "тема",
            "teema",
            "件名",
            "主题",
            "主旨",
            "제목",
            "θέμα",
            "titre",
        ],
    ),
    (
        Field::Other,
        &[
            "reply-to",
            "bcc",
            "antwort an",
            "répondre à",
            "responder a",
            "risposta",
            "importance",
            "priority",
            "attachments",
            "message-id",
            "organization",
            "mailed-by",
            "signed-by",
            "cci",
            "cco",
            "bilaga",
            "anlagen",
            "wichtigkeit",
        ],
    ),
];

/// Somebody as a client names him: perhaps without an address.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Mention {
    pub name: Option<String>,
    pub address: Option<Address>,
}

/// The block as far as it could be read.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct QuotedHeader {
    pub from: Option<Mention>,
    pub to: Vec<Mention>,
    pub cc: Vec<Mention>,
    pub date: Option<String>,
    pub subject: Option<String>,
    /// How many different fields it has.
    pub fields: usize,
}

/// A line without quote marks, without the stars of bold text, without what byte-order marks and no-break spaces add.
pub(super) fn plain(line: &str) -> &str {
    line.trim_start_matches(|c: char| c.is_whitespace() || matches!(c, '>' | '\u{feff}' | '\u{a0}' | '|'))
        .trim_end()
}

/// The field that a line is, and its value.
pub(super) fn field(line: &str) -> Option<(Field, &str)> {
    let line = plain(line);
    let at = line.find([':', '：'])?;
    let (label, rest) = line.split_at_checked(at)?;
    let value = rest.trim_start_matches([':', '：']);
    let label = label.trim_matches(|c: char| c.is_whitespace() || matches!(c, '*' | '_' | '\u{a0}'));
    if label.len() > LABEL_BYTES_MAX || line.len() > LINE_BYTES_MAX {
        return None;
    }
    let label = label.to_lowercase();
    let (field, _) = LABELS.iter().find(|(_, labels)| labels.contains(&label.as_str()))?;
    Some((*field, value.trim_matches(|c: char| c.is_whitespace() || matches!(c, '*' | '\u{a0}'))))
}

/// Reads the block that begins with the first line, and says how many lines it takes.
pub(super) fn read(lines: &[&str]) -> Option<(QuotedHeader, usize)> {
    field(lines.first()?)?;
    let mut values: Vec<(Field, String)> = Vec::new();
    let mut used = 0;
    for line in lines.iter().take(LINES_MAX) {
        match field(line) {
            // A label that comes again begins something else.
            Some((field, _)) if values.iter().any(|(seen, _)| *seen == field && field != Field::Other) => {
                break;
            }
            Some((field, value)) => values.push((field, value.to_owned())),
            None if continues(values.last(), line) => {
                if let Some((_, value)) = values.last_mut() {
                    value.push(' ');
                    value.push_str(plain(line));
                }
            }
            None => break,
        }
        used += 1;
    }
    Some((collect(&values), used))
}

/// Recipients go on over several lines, and an empty value stands on the next one.
fn continues(last: Option<&(Field, String)>, line: &str) -> bool {
    let Some((field, value)) = last else { return false };
    let text = plain(line);
    let goes_on = match field {
        Field::To | Field::Cc => value.ends_with([',', ';']) || value.is_empty() || line.starts_with('\t'),
        // One person is on one line: what stands below his name is not his.
        Field::From => value.is_empty(),
        _ => false,
    };
    goes_on && !text.is_empty()
}

/// Reads a block whose line breaks were lost, as Yahoo's are: `From: A <a@x>To: B <b@y>Subject: …`.
pub(super) fn read_joined(line: &str) -> Option<QuotedHeader> {
    let line = line.get(..line.floor_char_boundary(LINE_BYTES_MAX))?;
    let mut marks: Vec<(Field, usize, usize)> = Vec::new();
    for (at, colon) in line.char_indices().filter(|(_, c)| matches!(c, ':' | '：')).take(COLONS_MAX) {
        let before = line.get(..at)?;
        let found =
            LABELS.iter().flat_map(|(field, labels)| labels.iter().map(move |label| (*field, *label)));
        let ending = found.filter_map(|(field, label)| Some((field, starts_label(before, label)?)));
        if let Some((field, start)) = ending.min_by_key(|(_, start)| *start)
            && !marks.iter().any(|(seen, _, _)| *seen == field)
        {
            marks.push((field, start, at + colon.len_utf8()));
        }
    }
    let ends = marks.iter().skip(1).map(|(_, start, _)| *start).chain([line.len()]);
    let values: Vec<(Field, String)> = marks
        .iter()
        .zip(ends)
        .filter_map(|((field, _, begin), end)| Some((*field, line.get(*begin..end)?.trim().to_owned())))
        .collect();
    (values.len() >= 3).then(|| collect(&values))
}

/// Where a label begins that the text ends with: in a capital, unless the script has none.
fn starts_label(text: &str, label: &str) -> Option<usize> {
    let text = text.trim_end();
    let count = label.chars().count();
    let (start, first) = text.char_indices().rev().take(count).last()?;
    let tail = text.get(start..)?;
    (!first.is_lowercase() && tail.chars().count() == count && tail.to_lowercase() == label).then_some(start)
}

fn collect(values: &[(Field, String)]) -> QuotedHeader {
    let value =
        |wanted: Field| values.iter().find(|(field, _)| *field == wanted).map(|(_, value)| value.as_str());
    let people = |wanted: Field| value(wanted).map(mentions).unwrap_or_default();
    let text = |wanted: Field| value(wanted).filter(|text| !text.is_empty()).map(str::to_owned);
    let mut kinds: Vec<Field> =
        values.iter().map(|(field, _)| *field).filter(|field| *field != Field::Other).collect();
    kinds.sort_unstable();
    kinds.dedup();
    QuotedHeader {
        from: value(Field::From).and_then(author),
        to: people(Field::To),
        cc: people(Field::Cc),
        date: text(Field::Date),
        subject: text(Field::Subject),
        fields: kinds.len(),
    }
}

/// The one person whom a value names. The name is its owner's to choose and may look like another's address, so that of
/// several addresses none is taken: clients write the true one last and in brackets, or alone.
fn author(value: &str) -> Option<Mention> {
    let named = mentions(value);
    let known: Vec<&Address> = named.iter().filter_map(|one| one.address.as_ref()).collect();
    let words = value
        .split(|c: char| c.is_whitespace() || "<>[]();,\"'„“”«»*".contains(c))
        .map(|word| word.trim_start_matches("mailto:"))
        .filter_map(|word| Address::parse(word).ok());
    let bracketed = value.trim_end().strip_suffix(['>', ']']).and_then(|rest| {
        let inner = rest.rsplit(['<', '[']).next()?;
        Address::parse(inner.trim().trim_start_matches("mailto:")).ok()
    });
    let is_sure = known.windows(2).all(|pair| pair.first() == pair.last())
        && known.first().is_none_or(|only| match &bracketed {
            Some(last) => last == *only,
            None => words.into_iter().all(|word| word == **only),
        });
    let mut first = named.into_iter().next()?;
    if !is_sure {
        first = Mention::default();
    }
    Some(first)
}

/// The people of a value: with semicolons as Outlook writes them, `[mailto:…]`, doubled addresses, typographic quotes.
pub(super) fn mentions(value: &str) -> Vec<Mention> {
    let cleaned: String = value
        .replace("[mailto:", "<")
        .replace("<mailto:", "<")
        .chars()
        .map(|c| match c {
            ';' => ',',
            '„' | '”' | '“' | '«' | '»' | '*' => ' ',
            ']' => '>',
            other => other,
        })
        .collect();
    let parties = address_list::parse(cleaned.trim().as_bytes());
    if parties.is_empty() {
        let name = cleaned.trim().trim_matches(['"', '\'', '<', '>', ' ']).to_owned();
        return if name.is_empty() { Vec::new() } else { vec![Mention { name: Some(name), address: None }] };
    }
    parties
        .into_iter()
        .map(|party| {
            let own = party.address.to_string();
            let name = party.name.map(|name| name.split_whitespace().collect::<Vec<_>>().join(" "));
            // Many clients repeat the address where there is no name.
            let name = name.filter(|name| !name.is_empty() && !name.eq_ignore_ascii_case(&own));
            Mention { name, address: Some(party.address) }
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(mention: &Mention) -> Option<String> {
        mention.address.as_ref().map(ToString::to_string)
    }

    #[track_caller]
    fn check(text: &str, from: (&str, &str), to: &[&str], subject: Option<&str>) {
        let lines: Vec<&str> = text.lines().collect();
        let (block, used) = read(&lines).unwrap_or_else(|| panic!("{text:?}"));
        let by = block.from.clone().unwrap_or_default();
        assert_eq!(
            (by.name.as_deref().unwrap_or(""), address(&by).as_deref().unwrap_or("")),
            from,
            "{text:?}"
        );
        assert_eq!(block.to.iter().filter_map(address).collect::<Vec<_>>(), to, "{text:?}");
        assert_eq!(block.subject.as_deref(), subject, "{text:?}");
        assert!(used >= 3, "{text:?}");
    }

    #[test]
    fn a_block_is_read_in_the_languages_of_the_clients() {
        let ann = ("Ann Lee", "ann@x.example");
        check(
            "From: Ann Lee <ann@x.example>\nSent: Monday\nTo: bob@y.example; c@z.example\nSubject: Hi",
            ann,
            &["bob@y.example", "c@z.example"],
            Some("Hi"),
        );
        check(
            "Von: Ann Lee [mailto:ann@x.example]\nGesendet: Montag\nAn: <bob@y.example>\nBetreff: Hi",
            ann,
            &["bob@y.example"],
            Some("Hi"),
        );
        check(
            "*De :* Ann Lee <ann@x.example>\n*Envoyé :* lundi\n*À :* bob@y.example\n*Objet :* Hi",
            ann,
            &["bob@y.example"],
            Some("Hi"),
        );
        check(
            "> Předmět: \tHi\n> Datum: \tx\n> Od: \tAnn Lee <ann@x.example>\n> Komu: \tbob@y.example",
            ann,
            &["bob@y.example"],
            Some("Hi"),
        );
        check(
            "От: Ann Lee <ann@x.example>\nДата: x\nКому: bob@y.example\nТема: Hi",
            ann,
            &["bob@y.example"],
            Some("Hi"),
        );
        check(
            "送信元: Ann Lee <ann@x.example>\n日付: x\n送信先: bob@y.example\n件名: Hi",
            ann,
            &["bob@y.example"],
            Some("Hi"),
        );
        check("From: Ann Lee\nDate: x\nTo: Bob\nSubject: Hi", ("Ann Lee", ""), &[], Some("Hi"));
        check(
            "From: Ann Lee <ann@x.example>\nTo: bob@y.example,\n c@z.example\nDate: x",
            ann,
            &["bob@y.example", "c@z.example"],
            None,
        );
    }

    #[test]
    fn a_block_without_its_line_breaks_is_read_by_its_labels() {
        let line = "From: Ann Lee <ann@x.example>To: \"bob@y.example\" <bob@y.example>Sent: Tuesday, 09:26:50 AM GMT+1Subject: Re: Hi";
        let block = read_joined(line).unwrap();
        assert_eq!(block.from.as_ref().and_then(|from| from.name.as_deref()), Some("Ann Lee"));
        assert_eq!((block.subject.as_deref(), block.to.len()), (Some("Re: Hi"), 1));
        assert_eq!(read_joined("Please note: from now on I write to: you"), None);
    }

    #[track_caller]
    fn check_author(value: &str, expect: &str) {
        let found = author(value).and_then(|one| address(&one)).unwrap_or_default();
        assert_eq!(found, expect, "{value:?}");
    }

    #[test]
    fn a_name_that_looks_like_another_persons_address_is_not_believed() {
        check_author("Ann Lee <ann@x.example>", "ann@x.example");
        check_author("ann@x.example <ann@x.example>", "ann@x.example");
        check_author("ann@x.example [mailto:ann@x.example]", "ann@x.example");
        check_author("ann@x.example", "ann@x.example");
        check_author("\"bob@customer.test\" <mallory@evil.test>", "mallory@evil.test");
        check_author("“bob@customer.test” <mallory@evil.test>", "mallory@evil.test");
        for value in [
            "bob@customer.test; Bob Ray <mallory@evil.test>",
            "bob@customer.test, Bob <mallory@evil.test>",
            "<bob@customer.test> <mallory@evil.test>",
            "bob@customer.test (Bob <mallory@evil.test>",
            "Bob <bob@customer.test> mallory@evil.test",
            "bob@customer.test mallory@evil.test",
            "bob@customer.test (mallory@evil.test)",
        ] {
            check_author(value, "");
        }
    }

    #[test]
    fn other_text_is_no_block() {
        for text in ["Dear Bob:", "http://x.example", "Re: x", "", "a b c: d"] {
            assert_eq!(read(&[text]), None, "{text}");
        }
    }
}
