//! One `* n FETCH (…)`, split into its `NAME value` pairs; what we know is read, the rest stepped over.
//!
//! Not here: ENVELOPE and BODYSTRUCTURE. Servers get them wrong in so many ways that we never ask for them: headers
//! and bodies come as bytes and are read by `mail`.

use bytes::Bytes;
use jiff::Timestamp;

use super::{
    date,
    error::Fault,
    flag::Flags,
    token::Cursor,
    uid::{ModSeq, Uid},
};

/// Labels kept of one message.
const LABELS_MAX: usize = 200;

/// What Gmail says beyond the RFCs.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct GmailItems {
    /// X-GM-MSGID: the same in every mailbox the message is seen in.
    pub message_id: Option<u64>,
    /// X-GM-THRID: the conversation as Gmail sees it.
    pub thread_id: Option<u64>,
    /// X-GM-LABELS: `\Sent`, `\Draft`, `\Inbox` and the user's own, in modified UTF-7.
    pub labels: Vec<Bytes>,
}

/// Message data of one section.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Section {
    /// True for `BODY[HEADER]` and `RFC822.HEADER`.
    pub(super) is_header: bool,
    /// The octet a partial answer starts at: `BODY[]<0>`.
    pub(super) origin: Option<u64>,
    /// `None` for NIL.
    pub(super) data: Option<Bytes>,
}

/// One FETCH response.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(super) struct Fetched {
    pub(super) sequence: u32,
    pub(super) uid: Option<Uid>,
    pub(super) flags: Option<Flags>,
    pub(super) internal_date: Option<Timestamp>,
    pub(super) size: Option<u64>,
    pub(super) modseq: Option<ModSeq>,
    pub(super) gmail: Option<GmailItems>,
    pub(super) section: Option<Section>,
}

impl Fetched {
    /// Reads what follows `* n FETCH`.
    ///
    /// # Errors
    /// The parentheses do not hold the items together (Xeams closes too early): nothing of such a response is used.
    pub(super) fn parse(cursor: &mut Cursor<'_>, sequence: u32) -> Result<Self, Fault> {
        let mut fetched = Self { sequence, ..Self::default() };
        cursor.list(|cursor| fetched.item(cursor)).ok_or(Fault::Malformed)?;
        if cursor.is_at_end() { Ok(fetched) } else { Err(Fault::Malformed) }
    }

    fn item(&mut self, cursor: &mut Cursor<'_>) -> Option<()> {
        let name = cursor.item_name();
        if name.is_empty() {
            return None;
        }
        let start = *cursor;
        if self.known(&name.to_ascii_uppercase(), cursor).is_none() {
            // Unknown, or known with a value we did not expect: only its extent matters then.
            *cursor = start;
            cursor.skip_value()?;
        }
        Some(())
    }

    fn known(&mut self, name: &[u8], cursor: &mut Cursor<'_>) -> Option<()> {
        match name {
            b"UID" => self.uid = Uid::new(u32::try_from(cursor.number()?).ok()?),
            b"FLAGS" => self.flags = Some(Flags::parse(cursor)?),
            b"INTERNALDATE" => self.internal_date = cursor.string()?.and_then(|text| date::parse(&text)),
            b"RFC822.SIZE" => self.size = Some(cursor.number()?),
            b"MODSEQ" => self.modseq = modseq(cursor)?,
            b"X-GM-MSGID" => self.gmail().message_id = Some(cursor.number()?),
            b"X-GM-THRID" => self.gmail().thread_id = Some(cursor.number()?),
            b"X-GM-LABELS" => self.gmail().labels = labels(cursor)?,
            _ => self.section = Some(Section { data: section_data(name, cursor)?, ..section_of(name)? }),
        }
        Some(())
    }

    fn gmail(&mut self) -> &mut GmailItems {
        self.gmail.get_or_insert_default()
    }
}

fn modseq(cursor: &mut Cursor<'_>) -> Option<Option<ModSeq>> {
    let mut modseq = None;
    cursor.list(|cursor| {
        modseq = ModSeq::new(cursor.number()?);
        Some(())
    })?;
    Some(modseq)
}

/// Gmail has been seen to send NIL among the labels.
fn labels(cursor: &mut Cursor<'_>) -> Option<Vec<Bytes>> {
    let mut labels = Vec::new();
    cursor.list(|cursor| {
        let label = cursor.string()?;
        labels.extend(label.filter(|_| labels.len() < LABELS_MAX));
        Some(())
    })?;
    Some(labels)
}

fn section_data(name: &[u8], cursor: &mut Cursor<'_>) -> Option<Option<Bytes>> {
    section_of(name).and_then(|_| cursor.string())
}

/// `BODY[]`, `BODY[HEADER]`, both with `<origin>`, and the RFC822 items. Other sections were not asked for.
fn section_of(name: &[u8]) -> Option<Section> {
    let section = |is_header, origin| Some(Section { is_header, origin, data: None });
    let rest = match name {
        b"RFC822" => return section(false, None),
        b"RFC822.HEADER" => return section(true, None),
        _ => name.strip_prefix(b"BODY[")?,
    };
    let (is_header, rest) = rest.strip_prefix(b"HEADER").map_or((false, rest), |rest| (true, rest));
    match rest.strip_prefix(b"]")? {
        b"" => section(is_header, None),
        partial => {
            let digits = partial.strip_prefix(b"<")?.strip_suffix(b">")?;
            section(is_header, Some(std::str::from_utf8(digits).ok()?.parse().ok()?))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fetch(text: &'static str) -> Result<Fetched, Fault> {
        Fetched::parse(&mut Cursor::new(&Bytes::from_static(text.as_bytes())), 1)
    }

    fn uid(number: u32) -> Option<Uid> {
        Uid::new(number)
    }

    #[test]
    fn a_gmail_line_is_read_whole() {
        let got = fetch("(X-GM-THRID 1278455344230334865 X-GM-MSGID 1278455344230334866 X-GM-LABELS (\"\\\\Starred\" NIL foo {3}\r\nb r) \
                         UID 346 RFC822.SIZE 5000000000 INTERNALDATE \" 7-Jul-1996 02:44:25 -0700\" FLAGS (\\Seen) \
                         MODSEQ (9223372036854775807) BODY[HEADER] {8}\r\nA: b\r\n\r\n)\r\n").unwrap();
        let gmail = got.gmail.unwrap();
        assert_eq!(
            (gmail.thread_id, gmail.message_id),
            (Some(1_278_455_344_230_334_865), Some(1_278_455_344_230_334_866))
        );
        assert_eq!(gmail.labels, ["\\Starred", "foo", "b r"].map(Bytes::from));
        assert_eq!(
            (got.uid, got.size, got.modseq),
            (uid(346), Some(5_000_000_000), ModSeq::new(i64::MAX.unsigned_abs()))
        );
        assert_eq!(got.internal_date.unwrap().to_string(), "1996-07-07T09:44:25Z");
        assert_eq!(
            got.section,
            Some(Section { is_header: true, origin: None, data: Some("A: b\r\n\r\n".into()) })
        );
    }

    #[track_caller]
    fn check_uid(text: &'static str, expect: Result<Option<Uid>, Fault>) {
        assert_eq!(fetch(text).map(|fetched| fetched.uid), expect, "{text}");
    }

    #[test]
    fn odd_items_cost_themselves_and_nothing_else() {
        check_uid("( UID 5  FLAGS (a\"b c]d)  )", Ok(uid(5)));
        check_uid(
            "(BODY (\"application\" \"octet-stream\" (\"name\" \"a.pdf\") NIL \"\"\"\" \"base64\" 65322) UID 5)",
            Ok(uid(5)),
        );
        check_uid("(BODYSTRUCTURE (\"RELATED\" NIL (\"ATTACHMENT\" NIL) NIL) UID 5)", Ok(uid(5)));
        check_uid("(MODSEQ (0) UID 5)", Ok(uid(5)));
        check_uid("(INTERNALDATE \"soon\" UID 5)", Ok(uid(5)));
        check_uid("(RFC822.SIZE NIL UID 5)", Ok(uid(5)));
        check_uid("(BINARY[1] ~{3}\r\n\0\u{1}\u{2} UID 5)", Ok(uid(5)));
        check_uid("(BODY[HEADER.FIELDS (FROM \"To\")]<0> NIL UID 5)", Ok(uid(5)));
        check_uid("(UID 0)", Ok(None));
        check_uid("(UID 4294967296)", Ok(None));
        check_uid("()", Ok(None));
    }

    #[test]
    fn a_response_that_does_not_hold_together_is_not_used_in_part() {
        check_uid("(UID 5 BODY[] {3}\r\nabc) FLAGS (\\Seen) RFC822.SIZE 3)\r\n", Err(Fault::Malformed));
        check_uid("(UID 5", Err(Fault::Malformed));
        check_uid("UID 5", Err(Fault::Malformed));
        check_uid("(UID)", Err(Fault::Malformed));
    }

    #[test]
    fn sections_tell_header_from_body_and_part_from_whole() {
        let section = |text| fetch(text).unwrap().section;
        let some = |is_header, origin, data: Option<&'static str>| {
            Some(Section { is_header, origin, data: data.map(Bytes::from) })
        };
        assert_eq!(section("(BODY[]<1048576> {1}\r\na)"), some(false, Some(1_048_576), Some("a")));
        assert_eq!(section("(body[] NIL)"), some(false, None, None));
        assert_eq!(section("(RFC822.HEADER \"a\")"), some(true, None, Some("a")));
        assert_eq!(section("(BODY[TEXT] \"a\")"), None);
        assert_eq!(section("(BODY[] \"\")"), some(false, None, Some("")));
    }
}
