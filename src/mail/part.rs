//! Cuts a message into its MIME parts (RFC 2046) in one pass over the bytes, whatever the boundaries do.
//!
//! Not here: decoding a part and telling text from attachments (`message`). A part of type message/rfc822 is not entered:
//! what somebody else wrote is an attachment.

use std::borrow::Cow;

use memchr::memmem;

use super::{
    content_type::ContentType,
    encoded_word::decode_charset,
    header::{HeaderBlock, trim_line_end},
    message::Defect,
    transfer::TransferEncoding,
};

/// Multiparts inside of multiparts; real mail has four or five.
pub const DEPTH_MAX: usize = 50;
/// Parts of one message.
pub const PARTS_MAX: usize = 1000;

/// One part: its header and its body, still encoded.
#[derive(Debug)]
pub(super) struct Part<'a> {
    pub(super) header: HeaderBlock<'a>,
    pub(super) content_type: ContentType,
    pub(super) disposition: ContentType,
    pub(super) body: &'a [u8],
    /// The enclosing multipart's position in the list.
    pub(super) parent: Option<usize>,
    /// The parts that follow may lie inside of this one.
    pub(super) is_container: bool,
}

impl<'a> Part<'a> {
    fn new(header: HeaderBlock<'a>, body: &'a [u8], parent: Option<(usize, &Self)>) -> Self {
        let in_digest = parent.is_some_and(|(_, part)| part.content_type.essence() == "multipart/digest");
        let content_type = match header.first("Content-Type").map(|field| ContentType::read(field.value)) {
            Some(content_type) if content_type.essence().contains('/') => content_type,
            // RFC 2045 section 5.2 would have it plain text; a name says that it is a file.
            Some(content_type) if content_type.parameter("name").is_some() => {
                content_type.with_essence("application/octet-stream")
            }
            _ if in_digest => ContentType::read(b"message/rfc822"),
            _ => ContentType::read(b"text/plain"),
        };
        let disposition = header
            .first("Content-Disposition")
            .map(|field| ContentType::read(field.value))
            .unwrap_or_default();
        Self {
            header,
            content_type,
            disposition,
            body,
            parent: parent.map(|(index, _)| index),
            is_container: false,
        }
    }

    pub(super) fn encoding(&self) -> TransferEncoding {
        let field = self.header.first("Content-Transfer-Encoding");
        field.map_or(TransferEncoding::Identity, |field| TransferEncoding::read(field.value))
    }

    /// The content as it was before it was encoded for transfer.
    pub(super) fn decoded(&self) -> Cow<'a, [u8]> {
        self.encoding().decode(self.body)
    }

    /// The content as text with `\n` line ends and without NULs, which no database takes.
    pub(super) fn text(&self) -> String {
        let charset = self.content_type.parameter("charset").unwrap_or_default();
        let text = decode_charset(&charset, &self.decoded());
        let text = text.strip_prefix('\u{feff}').unwrap_or(&text);
        text.replace("\r\n", "\n").replace('\r', "\n").replace('\0', "\u{fffd}")
    }
}

/// Every part of a message, in the order of the bytes, the root first.
#[derive(Debug, Default)]
pub(super) struct Parts<'a> {
    pub(super) list: Vec<Part<'a>>,
    pub(super) defects: Vec<Defect>,
}

impl<'a> Parts<'a> {
    /// Cuts a message. Linear: a boundary line is compared with the boundaries in force, of which there are few.
    pub(super) fn read(raw: &'a [u8]) -> Self {
        let mut cutter = Cutter { raw, parts: Self::default(), open: Vec::new(), unended: Vec::new() };
        cutter.run();
        cutter.parts
    }

    /// Parts that hold content rather than other parts.
    pub(super) fn leaves(&self) -> impl Iterator<Item = (usize, &Part<'a>)> {
        self.list.iter().enumerate().filter(|(_, part)| !part.is_container)
    }
}

/// A multipart whose closing delimiter has not come.
struct Open {
    boundary: Vec<u8>,
    part: usize,
}

/// A part whose end has not come.
struct Unended {
    part: usize,
    body_start: usize,
    /// How many multiparts were open around it.
    depth: usize,
}

struct Delimiter {
    /// Position in `open` of the multipart it belongs to.
    level: usize,
    closes: bool,
    /// Where the line begins, without the line end before it, which belongs to the delimiter.
    content_end: usize,
    line_end: usize,
}

struct Cutter<'a> {
    raw: &'a [u8],
    parts: Parts<'a>,
    open: Vec<Open>,
    unended: Vec<Unended>,
}

impl Cutter<'_> {
    fn run(&mut self) {
        let mut at = self.begin_part(0);
        while let Some(delimiter) = self.next_delimiter(at) {
            self.end_parts(delimiter.level, delimiter.content_end);
            at = delimiter.line_end;
            if delimiter.closes {
                self.open.truncate(delimiter.level);
                continue;
            }
            self.open.truncate(delimiter.level + 1);
            if self.parts.list.len() == PARTS_MAX {
                self.note(Defect::TooManyParts);
                break;
            }
            at = self.begin_part(at);
        }
        if !self.open.is_empty() {
            self.note(Defect::UnclosedMultipart);
        }
        self.end_all();
    }

    /// Reads a part's header and opens it if it is a multipart; gives where its body begins.
    fn begin_part(&mut self, start: usize) -> usize {
        let rest = self.raw.get(start..).unwrap_or_default();
        let open = &self.open;
        let header = HeaderBlock::scan_until(rest, &|line| {
            open.iter().any(|o| matches_boundary(line, &o.boundary).is_some())
        });
        let body_start = start + header.body_offset();
        let parent = self.open.last().and_then(|o| Some((o.part, self.parts.list.get(o.part)?)));
        let mut part = Part::new(header, &[], parent);
        let index = self.parts.list.len();
        let boundary = self.boundary_of(&part);
        part.is_container = boundary.is_some();
        self.parts.list.push(part);
        self.unended.push(Unended { part: index, body_start, depth: self.open.len() });
        self.open.extend(boundary.map(|boundary| Open { boundary, part: index }));
        body_start
    }

    /// The boundary of a multipart that can be entered.
    fn boundary_of(&mut self, part: &Part<'_>) -> Option<Vec<u8>> {
        if !part.content_type.essence().starts_with("multipart/") {
            return None;
        }
        let boundary =
            part.content_type.raw_parameter("boundary").unwrap_or_default().trim_ascii_end().to_vec();
        if boundary.is_empty() {
            self.note(Defect::MissingBoundary);
            return None;
        }
        if self.open.len() == DEPTH_MAX {
            self.note(Defect::TooDeep);
            return None;
        }
        Some(boundary)
    }

    fn next_delimiter(&self, from: usize) -> Option<Delimiter> {
        if self.open.is_empty() {
            return None;
        }
        // A delimiter may be the very first line of a body: its line end is the one before `from`.
        let rest = self.raw.get(from..)?;
        let first = rest.starts_with(b"--").then_some(from);
        let starts = memmem::find_iter(rest, b"\n--").map(|at| from + at + 1);
        first.into_iter().chain(starts).find_map(|start| self.delimiter_at(start, from))
    }

    fn delimiter_at(&self, start: usize, from: usize) -> Option<Delimiter> {
        let rest = self.raw.get(start..)?;
        let len = memchr::memchr(b'\n', rest).map_or(rest.len(), |at| at + 1);
        let line = trim_line_end(rest.get(..len)?);
        let matching = |(level, open): (usize, &Open)| Some((level, matches_boundary(line, &open.boundary)?));
        let (level, closes) = self.open.iter().enumerate().rev().find_map(matching)?;
        let before = self.raw.get(from..start)?;
        Some(Delimiter {
            level,
            closes,
            content_end: from + trim_line_end(before).len(),
            line_end: start + len,
        })
    }

    /// Ends every part inside of the multipart at `level`.
    fn end_parts(&mut self, level: usize, end: usize) {
        while let Some(unended) = self.unended.pop_if(|unended| unended.depth > level) {
            self.set_body(&unended, end);
        }
    }

    fn end_all(&mut self) {
        let end = self.raw.len();
        for unended in std::mem::take(&mut self.unended) {
            self.set_body(&unended, end);
        }
    }

    fn set_body(&mut self, unended: &Unended, end: usize) {
        if let Some(part) = self.parts.list.get_mut(unended.part) {
            part.body = self.raw.get(unended.body_start..end.max(unended.body_start)).unwrap_or_default();
        }
    }

    fn note(&mut self, defect: Defect) {
        if !self.parts.defects.contains(&defect) {
            self.parts.defects.push(defect);
        }
    }
}

/// `Some(closes)` when a line without its end is a delimiter of that boundary. The whole line must match: `--ab` is no
/// delimiter of `a`.
fn matches_boundary(line: &[u8], boundary: &[u8]) -> Option<bool> {
    let rest = line.strip_prefix(b"--")?.strip_prefix(boundary)?.trim_ascii_end();
    match rest {
        b"" => Some(false),
        b"--" => Some(true),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(raw: &str, leaves: &[&str]) {
        let parts = Parts::read(raw.as_bytes());
        let got: Vec<_> =
            parts.leaves().map(|(_, part)| String::from_utf8_lossy(part.body).into_owned()).collect();
        assert_eq!(got, leaves, "{raw:?}");
    }

    const MIXED: &str = "Content-Type: multipart/mixed; boundary=a\r\n\r\n";

    #[test]
    fn a_multipart_is_cut_at_its_boundary_lines() {
        check(
            &format!(
                "{MIXED}preamble\r\n--a\r\n\r\nx\r\n--a\r\nContent-Type: text/html\r\n\r\ny\r\n--a--\r\nepilogue"
            ),
            &["x", "y"],
        );
        check(&format!("{MIXED}--a\n\nx\n--a--\n"), &["x"]);
        check("Subject: x\r\n\r\nplain\r\n", &["plain\r\n"]);
    }

    #[test]
    fn a_boundary_counts_only_as_a_whole_line() {
        check(
            &format!("{MIXED}--a\r\n\r\nsee --a here\r\n--ab\r\nz\r\n--a--\r\n"),
            &["see --a here\r\n--ab\r\nz"],
        );
    }

    #[test]
    fn an_unclosed_multipart_keeps_its_text() {
        check(&format!("{MIXED}--a\r\n\r\nx"), &["x"]);
        let inner =
            "--a\r\nContent-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\n\r\nx\r\n--a\r\n\r\ny\r\n--a--";
        check(&format!("{MIXED}{inner}"), &["x", "y"]);
    }

    #[test]
    fn a_part_without_a_blank_line_ends_at_the_next_boundary() {
        check(
            "Content-Type: multipart/mixed; boundary=\"a:b\"\r\n\r\n--a:b\r\nContent-Type: text/html\r\n--a:b\r\n\r\nx\r\n--a:b--",
            &["", "x"],
        );
    }

    #[test]
    fn depth_and_count_are_limited() {
        let mut deep = String::new();
        for n in 0..1000 {
            deep += &format!("Content-Type: multipart/mixed; boundary=\"b{n}\"\r\n\r\n--b{n}\r\n");
        }
        let parts = Parts::read(deep.as_bytes());
        assert_eq!((parts.list.len(), parts.defects.contains(&Defect::TooDeep)), (DEPTH_MAX + 1, true));

        let wide = MIXED.to_owned() + &"--a\r\n\r\nx\r\n".repeat(200_000);
        let parts = Parts::read(wide.as_bytes());
        assert_eq!((parts.list.len(), parts.defects.contains(&Defect::TooManyParts)), (PARTS_MAX, true));
    }
}
