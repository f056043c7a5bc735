//! Finds the fields of a header block in raw bytes: one pass, no copies, every limit kept whatever a sender wrote.
//!
//! Not here: what a field means. `HeaderSummary` reads the ones we act on, `encoded_word` and `address_list` their values.

use std::ops::Range;

use jiff::Timestamp;
use memchr::memchr;

use super::{MessageId, Party, address_list, date, encoded_word};

/// Header bytes read into fields; what follows is skipped. Four times what Gmail and Exchange let through.
pub const HEADER_BYTES_MAX: usize = 256 * 1024;
/// Fields kept of one header block.
pub const FIELDS_MAX: usize = 1000;
/// Bytes of one value that are looked at; the rest of the field stays in `range` and in the raw message.
pub const FIELD_BYTES_MAX: usize = 64 * 1024;
/// Addresses kept of one kind of field.
pub const ADDRESSES_MAX: usize = 1000;

const BYTE_ORDER_MARK: &[u8] = b"\xEF\xBB\xBF";

/// One field as it stands in the bytes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Field<'a> {
    name: &'a [u8],
    /// What follows the colon, folds included, without the final line end. At most [`FIELD_BYTES_MAX`].
    pub value: &'a [u8],
    /// The whole field in the scanned bytes: name, value and line end.
    pub range: Range<usize>,
}

impl<'a> Field<'a> {
    /// The name without the white space that obsolete syntax allows before the colon; empty when it is no ASCII.
    #[must_use]
    pub fn name(&self) -> &'a str {
        std::str::from_utf8(self.name).unwrap_or_default()
    }

    /// Compares the name without regard to case.
    #[must_use]
    pub fn is(&self, name: &str) -> bool {
        self.name.eq_ignore_ascii_case(name.as_bytes())
    }

    /// The value unfolded, RFC 2047 decoded, free of control characters.
    #[must_use]
    pub fn text(&self) -> String {
        encoded_word::decode_text(self.value)
    }
}

/// What was wrong with the block itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HeaderDefect {
    /// Longer than [`HEADER_BYTES_MAX`]: later fields were not read.
    TooLong,
    /// More than [`FIELDS_MAX`] fields: later ones were not read.
    TooManyFields,
    /// A value was cut at [`FIELD_BYTES_MAX`].
    FieldTooLong,
    /// A field's name is empty or holds characters RFC 5322 section 2.2 forbids.
    FieldName,
    /// The block ended at a line that is neither a field nor empty.
    NoSeparator,
}

/// The fields of one header block, in order.
#[derive(Debug, Clone, Default)]
pub struct HeaderBlock<'a> {
    fields: Vec<Field<'a>>,
    start: usize,
    end: usize,
    body: usize,
    defects: Vec<HeaderDefect>,
}

impl<'a> HeaderBlock<'a> {
    /// Reads the block at the start of a message (or a header alone). Linear in the header's length; never fails.
    #[must_use]
    pub fn scan(raw: &'a [u8]) -> Self {
        Self::scan_until(raw, &|_| false)
    }

    /// As [`Self::scan`], but a line that starts with `--` and is a boundary in force ends the block as well.
    pub(super) fn scan_until(raw: &'a [u8], is_boundary: &dyn Fn(&[u8]) -> bool) -> Self {
        let mut lines = FieldLines::new(raw, is_boundary);
        let mut block = Self { start: lines.at, ..Self::default() };
        for field in lines.by_ref() {
            block.take(field);
        }
        (block.end, block.body) = (lines.at, lines.body);
        if lines.unseparated {
            block.note(HeaderDefect::NoSeparator);
        }
        block
    }

    fn take(&mut self, mut field: Field<'a>) {
        if field.range.start - self.start >= HEADER_BYTES_MAX {
            return self.note(HeaderDefect::TooLong);
        }
        if self.fields.len() == FIELDS_MAX {
            return self.note(HeaderDefect::TooManyFields);
        }
        if !field.name.iter().all(u8::is_ascii_graphic) || field.name.is_empty() {
            self.note(HeaderDefect::FieldName);
        }
        if let Some((kept, [_, ..])) = field.value.split_at_checked(FIELD_BYTES_MAX) {
            field.value = kept;
            self.note(HeaderDefect::FieldTooLong);
        }
        self.fields.push(field);
    }

    fn note(&mut self, defect: HeaderDefect) {
        if !self.defects.contains(&defect) {
            self.defects.push(defect);
        }
    }

    #[must_use]
    pub fn fields(&self) -> &[Field<'a>] {
        &self.fields
    }

    #[must_use]
    pub fn defects(&self) -> &[HeaderDefect] {
        &self.defects
    }

    /// Where the fields end: at the empty line, or where the body begins when there is none.
    #[must_use]
    pub fn end_offset(&self) -> usize {
        self.end
    }

    /// Where the body begins.
    #[must_use]
    pub fn body_offset(&self) -> usize {
        self.body
    }

    /// The first field of that name. Where RFC 5322 allows one and a sender wrote several, the first counts everywhere.
    #[must_use]
    pub fn first(&self, name: &str) -> Option<&Field<'a>> {
        self.fields.iter().find(|field| field.is(name))
    }

    pub fn all(&self, name: &str) -> impl Iterator<Item = &Field<'a>> {
        self.fields.iter().filter(move |field| field.is(name))
    }

    #[must_use]
    pub fn count(&self, name: &str) -> usize {
        self.all(name).count()
    }

    /// The first field's decoded text; `None` when it is absent.
    #[must_use]
    pub fn text(&self, name: &str) -> Option<String> {
        self.first(name).map(Field::text)
    }

    /// The first field's decoded text in lower case, empty when it is absent: for keywords.
    #[must_use]
    pub fn keyword(&self, name: &str) -> String {
        self.text(name).unwrap_or_default().to_lowercase()
    }

    /// The addresses of every field of that name, groups flattened, at most [`ADDRESSES_MAX`].
    #[must_use]
    pub fn parties(&self, name: &str) -> Vec<Party> {
        let mut parties = Vec::new();
        for field in self.all(name) {
            address_list::parse_into(field.value, ADDRESSES_MAX, &mut parties);
        }
        parties
    }

    /// The addresses of the first field of that name.
    #[must_use]
    pub fn first_parties(&self, name: &str) -> Vec<Party> {
        self.first(name).map(|field| address_list::parse(field.value)).unwrap_or_default()
    }

    /// The ids of the first field of that name.
    #[must_use]
    pub fn message_ids(&self, name: &str) -> Vec<MessageId> {
        self.first(name)
            .map(|field| MessageId::parse_list(&String::from_utf8_lossy(field.value)))
            .unwrap_or_default()
    }

    /// The first Date field, if it can be read.
    #[must_use]
    pub fn date(&self) -> Option<Timestamp> {
        self.first("Date").and_then(|field| date::parse(field.value))
    }
}

/// Steps through the fields without a limit on their number: header surgery must see all of them.
pub(super) struct FieldLines<'a, 'b> {
    raw: &'a [u8],
    /// Start of the next field, or where the fields ended.
    pub(super) at: usize,
    /// Start of the body, once the fields have ended.
    pub(super) body: usize,
    /// The block ended without an empty line, though bytes follow.
    pub(super) unseparated: bool,
    /// What ends a line: LF, with or without a CR before it, or CR alone.
    pub(super) line_end: u8,
    is_boundary: &'b dyn Fn(&[u8]) -> bool,
}

impl<'a, 'b> FieldLines<'a, 'b> {
    pub(super) fn new(raw: &'a [u8], is_boundary: &'b dyn Fn(&[u8]) -> bool) -> Self {
        let line_end = line_end_of(raw);
        let mut lines = Self { raw, at: 0, body: 0, unseparated: false, line_end, is_boundary };
        lines.at = lines.preamble_len();
        lines
    }

    /// A byte order mark (files) and an mbox `From ` line (exports) stand before the first field and belong to none.
    fn preamble_len(&self) -> usize {
        let mark = if self.raw.starts_with(BYTE_ORDER_MARK) { BYTE_ORDER_MARK.len() } else { 0 };
        let rest = self.raw.get(mark..).unwrap_or_default();
        let len = self.line_len(rest);
        if rest.get(..len).is_some_and(is_mbox_line) { mark + len } else { mark }
    }

    /// Length of the first line with its end.
    fn line_len(&self, rest: &[u8]) -> usize {
        memchr(self.line_end, rest).map_or(rest.len(), |at| at + 1)
    }

    fn finish(&mut self, body: usize, unseparated: bool) -> Option<Field<'a>> {
        self.body = body;
        self.unseparated = unseparated;
        None
    }
}

impl<'a> Iterator for FieldLines<'a, '_> {
    type Item = Field<'a>;

    fn next(&mut self) -> Option<Field<'a>> {
        let start = self.at;
        let rest = self.raw.get(start..).unwrap_or_default();
        let line = rest.get(..self.line_len(rest)).unwrap_or_default();
        let content = trim_line_end(line);
        if content.is_empty() {
            return self.finish(start + line.len(), false);
        }
        let colon = memchr(b':', content).filter(|_| !starts_blank(content));
        let Some(colon) = colon.filter(|_| !(content.starts_with(b"--") && (self.is_boundary)(content)))
        else {
            return self.finish(start, true);
        };
        let mut end = line.len();
        while let Some(next) =
            rest.get(end..).filter(|next| starts_blank(next) || is_stray_parameter(rest.get(..end), next))
        {
            end += self.line_len(next);
        }
        self.at = start + end;
        let (name, value) =
            rest.get(..end).and_then(|whole| whole.split_at_checked(colon)).unwrap_or_default();
        let value = trim_line_end(value.get(1..).unwrap_or_default());
        Some(Field { name: name.trim_ascii_end(), value, range: start..self.at })
    }
}

/// `From ann@x.example Tue Apr  1 10:00:00 2025`: its first colon stands in the time, that of a field behind one word.
fn is_mbox_line(line: &[u8]) -> bool {
    let before_colon = line.split(|byte| *byte == b':').next().unwrap_or_default();
    let words = before_colon.split(u8::is_ascii_whitespace).filter(|word| !word.is_empty()).count();
    let has_colon = before_colon.len() < line.len();
    (line.starts_with(b"From ") || line.starts_with(b">From ")) && (!has_colon || words >= 4)
}

/// Old Macintosh files end lines with a lone CR; anything with an LF does not.
fn line_end_of(raw: &[u8]) -> u8 {
    if memchr(b'\n', raw).is_none() && memchr(b'\r', raw).is_some() { b'\r' } else { b'\n' }
}

/// A parameter that its sender wrapped without indenting it: `name=…` behind a line that ends with a semicolon.
fn is_stray_parameter(before: Option<&[u8]>, next: &[u8]) -> bool {
    let continues = before.is_some_and(|before| before.trim_ascii_end().ends_with(b";"));
    let name_len =
        next.iter().take_while(|byte| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'*')).count();
    continues && name_len > 0 && next.get(name_len) == Some(&b'=')
}

fn starts_blank(line: &[u8]) -> bool {
    matches!(line.first(), Some(b' ' | b'\t'))
}

pub(super) fn trim_line_end(line: &[u8]) -> &[u8] {
    let line = line.strip_suffix(b"\n").unwrap_or(line);
    line.strip_suffix(b"\r").unwrap_or(line)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, fields: &[(&str, &str)], body: &str) {
        let block = HeaderBlock::scan(raw.as_bytes());
        let got: Vec<_> = block.fields().iter().map(|f| (f.name().to_owned(), f.text())).collect();
        let expect: Vec<_> = fields.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect();
        assert_eq!(got, expect, "{raw:?}");
        assert_eq!(raw.get(block.body_offset()..), Some(body), "{raw:?}");
    }

    #[test]
    fn fields_come_in_order_with_folds_joined() {
        check("A: 1\r\nB:  2\r\n\t3\r\n\r\nbody", &[("A", "1"), ("B", "2 3")], "body");
        check("A: 1\nB: 2\n\nbody", &[("A", "1"), ("B", "2")], "body");
        check("A: 1\rB: 2\r\rbody", &[("A", "1"), ("B", "2")], "body");
    }

    #[test]
    fn a_line_of_blanks_is_a_fold_and_not_the_end() {
        check("A: 1\r\n \r\nB: 2\r\n\r\nbody", &[("A", "1"), ("B", "2")], "body");
    }

    #[test]
    fn a_parameter_wrapped_without_indenting_belongs_to_its_field() {
        check(
            "Content-Type: a/b;\nname=\"c\"\nX: 1\n\nb",
            &[("Content-Type", "a/b; name=\"c\""), ("X", "1")],
            "b",
        );
        check("Subject: a;\nname c\n\nb", &[("Subject", "a;")], "name c\n\nb");
    }

    #[test]
    fn what_stands_before_the_first_field_belongs_to_none() {
        check("\u{feff}A: 1\r\n\r\nb", &[("A", "1")], "b");
        check("From a@b Mon Jan 1\nA: 1\n\nb", &[("A", "1")], "b");
    }

    #[test]
    fn obsolete_and_odd_names_do_not_hide_the_fields_after_them() {
        check(
            "Subject : a\r\n: b\r\nFr om: c\r\nX: d\r\n\r\n",
            &[("Subject", "a"), ("", "b"), ("Fr om", "c"), ("X", "d")],
            "",
        );
    }

    #[test]
    fn a_line_that_is_no_field_ends_the_header() {
        check("A: 1\r\nhello\r\nB: 2\r\n", &[("A", "1")], "hello\r\nB: 2\r\n");
        check(" folded\r\nA: 1\r\n", &[], " folded\r\nA: 1\r\n");
        check("\r\nA: 1\r\n", &[], "A: 1\r\n");
        assert_eq!(HeaderBlock::scan(b"A: 1\r\nhello").defects(), [HeaderDefect::NoSeparator]);
    }

    #[test]
    fn limits_are_kept_and_said() {
        let many = "A: 1\r\n".repeat(FIELDS_MAX + 5) + "\r\nbody";
        let block = HeaderBlock::scan(many.as_bytes());
        assert_eq!((block.fields().len(), block.defects()), (FIELDS_MAX, &[HeaderDefect::TooManyFields][..]));
        assert_eq!(many.get(block.body_offset()..), Some("body"));

        let long = format!("A: {}\r\nB: 2\r\n\r\nbody", "x".repeat(FIELD_BYTES_MAX + 1));
        let block = HeaderBlock::scan(long.as_bytes());
        assert_eq!((block.first("a").unwrap().value.len(), block.count("b")), (FIELD_BYTES_MAX, 1));

        let huge = format!("A: {}\r\n", "x".repeat(1000)).repeat(300) + "B: 2\r\n\r\nbody";
        let block = HeaderBlock::scan(huge.as_bytes());
        assert_eq!((block.count("B"), block.defects()), (0, &[HeaderDefect::TooLong][..]));
        assert_eq!(huge.get(block.body_offset()..), Some("body"));
    }
}
