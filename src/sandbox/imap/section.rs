//! Sections of a message: `BODY[…]<…>` of RFC 9051 section 6.4.5.
//!
//! Not here: BODYSTRUCTURE and ENVELOPE (`structure`).

use std::{borrow::Cow, num::NonZeroU32};

use imap_types::{core::AString, fetch::Section};

use super::{
    structure::{self, PartBytes},
    wire,
};

/// First octet and number of octets.
type Partial = Option<(u32, NonZeroU32)>;

/// Writes the item with its value; NIL for a part that is not there.
pub(super) fn write(raw: &[u8], what: (Option<&Section<'_>>, Partial), out: &mut Vec<u8>) {
    let (section, partial) = what;
    out.extend_from_slice(format!("BODY[{}]", label(section)).as_bytes());
    if let Some((origin, _)) = partial {
        out.extend_from_slice(format!("<{origin}>").as_bytes());
    }
    out.push(b' ');
    match bytes(raw, section) {
        Some(bytes) => wire::literal(out, cut(&bytes, partial)),
        None => out.extend_from_slice(b"NIL"),
    }
}

fn cut(bytes: &[u8], partial: Partial) -> &[u8] {
    let Some((origin, length)) = partial else { return bytes };
    let origin = usize::try_from(origin).unwrap_or(usize::MAX);
    let length = usize::try_from(length.get()).unwrap_or(usize::MAX);
    let rest = bytes.get(origin..).unwrap_or_default();
    rest.get(..length).unwrap_or(rest)
}

fn bytes<'a>(raw: &'a [u8], section: Option<&Section<'_>>) -> Option<Cow<'a, [u8]>> {
    let whole = || structure::split(raw);
    let part = |part: &imap_types::fetch::Part| {
        let path: Vec<u32> = part.0.as_ref().iter().map(|number| number.get()).collect();
        structure::part(raw, &path)
    };
    let inner = |at: &Option<imap_types::fetch::Part>| match at {
        None => Some(whole()),
        // HEADER and TEXT of a part mean those of the message in it.
        Some(at) => part(at).map(|PartBytes { body, .. }| structure::split(body)),
    };
    Some(match section {
        None => Cow::Borrowed(raw),
        Some(Section::Header(at)) => inner(at)?.0.into(),
        Some(Section::Text(at)) => inner(at)?.1.into(),
        Some(Section::HeaderFields(at, names)) => fields(inner(at)?.0, names.as_ref(), true).into(),
        Some(Section::HeaderFieldsNot(at, names)) => fields(inner(at)?.0, names.as_ref(), false).into(),
        Some(Section::Part(at)) => part(at)?.body.into(),
        Some(Section::Mime(at)) => part(at)?.header.into(),
    })
}

/// The fields that are (or are not) named, folds and all, and the empty line.
fn fields(header: &[u8], names: &[AString<'_>], named: bool) -> Vec<u8> {
    let mut chosen = Vec::new();
    let mut take = false;
    for line in header.split_inclusive(|byte| *byte == b'\n') {
        if !line.starts_with(b" ") && !line.starts_with(b"\t") {
            let name = line.split(|byte| *byte == b':').next().unwrap_or_default().trim_ascii_end();
            let is_named = names.iter().any(|wanted| name.eq_ignore_ascii_case(wanted.as_ref()));
            take = is_named == named && !line.trim_ascii().is_empty();
        }
        if take {
            chosen.extend_from_slice(line);
        }
    }
    chosen.extend_from_slice(b"\r\n");
    chosen
}

/// The section as the answer repeats it.
fn label(section: Option<&Section<'_>>) -> String {
    let numbered = |part: &Option<imap_types::fetch::Part>, word: &str| match part {
        Some(part) => format!("{}.{word}", path(part)),
        None => word.to_owned(),
    };
    match section {
        None => String::new(),
        Some(Section::Part(part)) => path(part),
        Some(Section::Mime(part)) => format!("{}.MIME", path(part)),
        Some(Section::Header(part)) => numbered(part, "HEADER"),
        Some(Section::Text(part)) => numbered(part, "TEXT"),
        Some(Section::HeaderFields(part, names)) => {
            format!("{} ({})", numbered(part, "HEADER.FIELDS"), field_names(names.as_ref()))
        }
        Some(Section::HeaderFieldsNot(part, names)) => {
            format!("{} ({})", numbered(part, "HEADER.FIELDS.NOT"), field_names(names.as_ref()))
        }
    }
}

fn path(part: &imap_types::fetch::Part) -> String {
    part.0.as_ref().iter().map(ToString::to_string).collect::<Vec<_>>().join(".")
}

fn field_names(names: &[AString<'_>]) -> String {
    let word = |name: &AString<'_>| {
        let text = String::from_utf8_lossy(name.as_ref());
        let atom: String = text.chars().filter(|c| c.is_ascii_alphanumeric() || "-_.".contains(*c)).collect();
        atom.to_ascii_uppercase()
    };
    names.iter().map(word).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    const RAW: &[u8] = b"From: a@x.example\r\nSubject: one\r\n two\r\nTo: b@x.example\r\n\r\nbody text\r\n";

    #[track_caller]
    fn check(section: Option<&Section<'_>>, partial: Partial, expect: &str) {
        let mut out = Vec::new();
        write(RAW, (section, partial), &mut out);
        assert_eq!(String::from_utf8(out).unwrap(), expect);
    }

    fn names(names: &[&'static str]) -> imap_types::core::Vec1<AString<'static>> {
        names.iter().map(|name| AString::try_from(*name).unwrap()).collect::<Vec<_>>().try_into().unwrap()
    }

    #[test]
    fn fields_come_with_their_folds_and_an_empty_line() {
        let section = Section::HeaderFields(None, names(&["subject", "x-none"]));
        check(
            Some(&section),
            None,
            "BODY[HEADER.FIELDS (SUBJECT X-NONE)] {25}\r\nSubject: one\r\n two\r\n\r\n"
                .replace("{25}", "{22}")
                .as_str(),
        );
        let section = Section::HeaderFieldsNot(None, names(&["Subject", "FROM"]));
        check(Some(&section), None, "BODY[HEADER.FIELDS.NOT (SUBJECT FROM)] {19}\r\nTo: b@x.example\r\n\r\n");
    }

    #[test]
    fn a_partial_names_its_origin_and_ends_with_the_text() {
        let length = |n| NonZeroU32::new(n).unwrap();
        check(Some(&Section::Text(None)), Some((5, length(100))), "BODY[TEXT]<5> {6}\r\ntext\r\n");
        check(None, Some((0, length(4))), "BODY[]<0> {4}\r\nFrom");
        check(None, Some((9999, length(4))), "BODY[]<9999> {0}\r\n");
    }

    #[test]
    fn part_one_of_a_simple_message_is_its_text() {
        let section = Section::Part(imap_types::fetch::Part(vec![length_one()].try_into().unwrap()));
        check(Some(&section), None, "BODY[1] {11}\r\nbody text\r\n");
        let section =
            Section::Part(imap_types::fetch::Part(vec![NonZeroU32::new(2).unwrap()].try_into().unwrap()));
        check(Some(&section), None, "BODY[2] NIL");
    }

    fn length_one() -> NonZeroU32 {
        NonZeroU32::MIN
    }
}
