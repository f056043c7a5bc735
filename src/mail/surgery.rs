//! Edits the header of a message in its raw bytes; everything not named stays as it was, the body to the last byte.
//!
//! Not here: building messages (`compose`). What is inserted never lands in the body nor joins another field, even when
//! the message begins with a blank, a folded or a nameless line.

use bytes::Bytes;
use memchr::{memchr, memchr2, memmem};

use super::{
    Address, Party, address_list, encoded_word,
    header::{Field, FieldLines},
    header_text::{HeaderName, HeaderText, write_addresses, write_field},
};

/// Longest line SMTP carries, without its CRLF (RFC 5321 section 4.5.3.1.6).
pub const LINE_BYTES_MAX: usize = 998;
/// Addresses kept when a To or Cc has to be written anew.
const ADDRESSES_MAX: usize = 10_000;

/// Fields of ours and of the last delivery, which nobody else is to see.
const NEVER_SUBMITTED: [&str; 3] = ["Bcc", "Resent-Bcc", "Return-Path"];
const CONTROL_PREFIX: &str = "X-Mailweave-";
const RECIPIENT_FIELDS: [&str; 5] = ["To", "Cc", "Resent-To", "Resent-Cc", "Mail-Followup-To"];
/// Fields in which final delivery notes an envelope recipient.
const DELIVERY_FIELDS: [&str; 6] =
    ["Delivered-To", "X-Original-To", "Envelope-To", "X-Envelope-To", "X-Forwarded-To", "X-RCPT-TO"];

/// What becomes of one field.
enum Edit {
    Keep,
    Drop,
    Replace(Vec<u8>),
}

/// Takes out every field whose name `matches`.
#[must_use]
pub fn remove_fields(raw: &[u8], matches: impl Fn(&str) -> bool) -> Bytes {
    edit(raw, |field| if matches(field.name()) { Edit::Drop } else { Edit::Keep })
}

/// Puts fields before all others, in the order given, as trace fields must be (RFC 5321 section 4.4).
#[must_use]
pub fn prepend_fields(raw: &[u8], fields: &[(HeaderName, HeaderText)]) -> Bytes {
    let written: Vec<u8> = fields.iter().flat_map(|(name, value)| write_field(name, value)).collect();
    assemble(raw, written, |_| Edit::Keep)
}

/// Writes a field of addresses before all others and drops those of its name.
#[must_use]
pub fn set_parties(raw: &[u8], name: &str, parties: &[Party]) -> Bytes {
    let bare = remove_fields(raw, |other| other.eq_ignore_ascii_case(name));
    assemble(&bare, write_addresses(name, parties), |_| Edit::Keep)
}

/// Makes a message fit to leave: without Bcc, our control fields, Return-Path, and without the addresses of ours among its
/// recipients, which `hidden` tells. A recipient field with nobody left goes.
#[must_use]
pub fn strip_for_submission(raw: &[u8], hidden: impl Fn(&Address) -> bool) -> Bytes {
    edit(raw, |field| {
        let name = field.name();
        let is_ours =
            name.get(..CONTROL_PREFIX.len()).is_some_and(|start| start.eq_ignore_ascii_case(CONTROL_PREFIX));
        if is_ours || NEVER_SUBMITTED.iter().any(|never| field.is(never)) {
            return Edit::Drop;
        }
        hide(field, &hidden)
    })
}

/// Takes addresses out of every field that names recipients, as `strip_for_submission` does, and leaves all else.
#[must_use]
pub fn remove_addresses(raw: &[u8], hidden: impl Fn(&Address) -> bool) -> Bytes {
    edit(raw, |field| hide(field, &hidden))
}

fn hide(field: &Field<'_>, hidden: &impl Fn(&Address) -> bool) -> Edit {
    if DELIVERY_FIELDS.iter().any(|delivery| field.is(delivery)) && mentions(field.value, hidden) {
        return Edit::Drop;
    }
    if RECIPIENT_FIELDS.iter().any(|recipient| field.is(recipient)) && mentions(field.value, hidden) {
        return without_addresses(field, hidden);
    }
    Edit::Keep
}

fn mentions(value: &[u8], hidden: &impl Fn(&Address) -> bool) -> bool {
    names_hidden(&encoded_word::decode_text(value), hidden)
        || address_list::parse(value).iter().any(|party| hidden(&party.address))
}

/// Whether a text has a hidden address anywhere in it, a display name for instance.
fn names_hidden(text: &str, hidden: &impl Fn(&Address) -> bool) -> bool {
    let edges = |c: char| !c.is_alphanumeric();
    text.split(|c: char| c.is_whitespace() || "<>()[],;:\"'".contains(c))
        .filter(|word| word.contains('@'))
        .any(|word| Address::parse(word.trim_matches(edges)).is_ok_and(|address| hidden(&address)))
}

fn without_addresses(field: &Field<'_>, hidden: &impl Fn(&Address) -> bool) -> Edit {
    let mut parties = Vec::new();
    address_list::parse_into(field.value, ADDRESSES_MAX, &mut parties);
    parties.retain(|party| !hidden(&party.address));
    for party in &mut parties {
        // A display name may repeat the address; that it was hidden must not be seen either.
        *party = Party {
            name: party.name.take().filter(|name| !names_hidden(name, hidden)),
            address: party.address.clone(),
        };
    }
    if parties.is_empty() { Edit::Drop } else { Edit::Replace(write_addresses(field.name(), &parties)) }
}

fn edit(raw: &[u8], decide: impl FnMut(&Field<'_>) -> Edit) -> Bytes {
    assemble(raw, Vec::new(), decide)
}

/// Writes `before`, the fields as decided, and the body behind an empty line. A byte order mark or mbox line is not part
/// of a message and is left out.
fn assemble(raw: &[u8], before: Vec<u8>, mut decide: impl FnMut(&Field<'_>) -> Edit) -> Bytes {
    let mut lines = FieldLines::new(raw, &|_| false);
    let line_end: &[u8] = if lines.line_end == b'\r' { b"\r" } else { b"\r\n" };
    let mut edited = in_line_ends(before, line_end);
    edited.reserve(raw.len());
    for field in lines.by_ref() {
        let whole = raw.get(field.range.clone()).unwrap_or_default();
        match decide(&field) {
            Edit::Drop => {}
            // Where it comes to stand first it would be taken for the end of a preamble, and hide what follows.
            Edit::Keep if edited.is_empty() && FieldLines::new(whole, &|_| false).at > 0 => {}
            Edit::Keep => edited.extend_from_slice(whole),
            Edit::Replace(written) => edited.extend(in_line_ends(written, line_end)),
        }
    }
    if lines.unseparated {
        edited.extend_from_slice(line_end);
    }
    edited.extend_from_slice(raw.get(lines.at..).unwrap_or_default());
    if lines.line_end == b'\n' && memchr(b'\n', &edited).is_none() && memchr(b'\r', &edited).is_some() {
        // The only LF is gone, and the lone CRs that are left would begin to count as line ends.
        edited.extend_from_slice(b"\r\n");
    }
    Bytes::from(edited)
}

fn in_line_ends(written: Vec<u8>, line_end: &[u8]) -> Vec<u8> {
    if line_end == b"\r" { written.into_iter().filter(|byte| *byte != b'\n').collect() } else { written }
}

/// Turns lone CR and LF into CRLF, for sending only: what is stored stays as it came. Lone line ends on the wire are how
/// one message smuggles another. Gives back the same bytes when there is nothing to do.
#[must_use]
pub fn normalise_line_ends(raw: Bytes) -> Bytes {
    if !has_lone_line_end(&raw) {
        return raw;
    }
    let mut normal = Vec::with_capacity(raw.len() + raw.len() / 32);
    let mut rest: &[u8] = &raw;
    while let Some(at) = memchr2(b'\r', b'\n', rest) {
        let (line, end) = rest.split_at_checked(at).unwrap_or_default();
        normal.extend_from_slice(line);
        normal.extend_from_slice(b"\r\n");
        rest = end.strip_prefix(b"\r\n").or_else(|| end.get(1..)).unwrap_or_default();
    }
    normal.extend_from_slice(rest);
    Bytes::from(normal)
}

/// True when a CR or an LF stands alone.
#[must_use]
pub fn has_lone_line_end(raw: &[u8]) -> bool {
    let crlfs = memmem::find_iter(raw, b"\r\n").count();
    let ends = memchr::memchr2_iter(b'\r', b'\n', raw).count();
    ends != 2 * crlfs
}

/// True when a line is longer than [`LINE_BYTES_MAX`], which SMTP servers cut or refuse.
#[must_use]
pub fn has_overlong_line(raw: &[u8]) -> bool {
    raw.split(|byte| *byte == b'\n')
        .any(|line| line.strip_suffix(b"\r").unwrap_or(line).len() > LINE_BYTES_MAX)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::mail::HeaderBlock;

    fn text(bytes: &[u8]) -> String {
        String::from_utf8_lossy(bytes).into_owned()
    }

    fn field(name: &str, value: &str) -> (HeaderName, HeaderText) {
        (HeaderName::parse(name).unwrap(), HeaderText::parse(value).unwrap())
    }

    #[track_caller]
    fn check_prepend(raw: &str, expect: &str) {
        assert_eq!(text(&prepend_fields(raw.as_bytes(), &[field("X", "1")])), expect, "{raw:?}");
    }

    #[test]
    fn a_prepended_field_stands_first_whatever_follows() {
        check_prepend("A: 1\r\n\r\nb", "X: 1\r\nA: 1\r\n\r\nb");
        check_prepend("\r\nb", "X: 1\r\n\r\nb");
        check_prepend(" folded\r\nA: 1\r\n", "X: 1\r\n\r\n folded\r\nA: 1\r\n");
        check_prepend(": odd\r\nA: 1\r\n\r\nb", "X: 1\r\n: odd\r\nA: 1\r\n\r\nb");
        check_prepend("no header", "X: 1\r\n\r\nno header");
        check_prepend("", "X: 1\r\n");
        check_prepend("From a@b Mon Jan  1 00:00:00 2025\nA: 1\n\nb", "X: 1\r\nA: 1\n\nb");
        check_prepend("A: 1\rB: 2\r\rb", "X: 1\rA: 1\rB: 2\r\rb");
    }

    #[test]
    fn removed_fields_go_with_their_folds() {
        let raw = "A: 1\r\nBCC : x@y,\r\n z@y\r\nC: 2\r\n\r\nBcc: body\r\n";
        let got = remove_fields(raw.as_bytes(), |name| name.eq_ignore_ascii_case("bcc"));
        assert_eq!(text(&got), "A: 1\r\nC: 2\r\n\r\nBcc: body\r\n");
        assert_eq!(text(&remove_fields(b"Bcc: x\r\n\r\nb", |_| true)), "\r\nb");
    }

    #[test]
    fn a_field_after_the_thousandth_is_still_found() {
        let raw = "A: 1\r\n".repeat(2000) + "Bcc: x\r\n\r\nb";
        assert!(!text(&strip_for_submission(raw.as_bytes(), |_| false)).contains("Bcc"));
    }

    #[track_caller]
    fn check_strip(raw: &str, expect: &str) {
        let hidden = [Address::parse("Token@bcc.example").unwrap()];
        assert_eq!(
            text(&strip_for_submission(raw.as_bytes(), |address| hidden.contains(address))),
            expect,
            "{raw:?}"
        );
    }

    #[test]
    fn nothing_of_ours_leaves_with_a_message() {
        check_strip(
            "Bcc: a@b.example\r\nX-Mailweave-Class: bulk\r\nReturn-Path: <a@b>\r\nTo: c@d.example\r\n\r\nhi",
            "To: c@d.example\r\n\r\nhi",
        );
        check_strip("To: Ann <a@x.example>, TOKEN@bcc.example\r\n\r\n", "To: \"Ann\" <a@x.example>\r\n\r\n");
        check_strip("Cc: CRM <token@bcc.example>\r\nA: 1\r\n\r\n", "A: 1\r\n\r\n");
        check_strip("To: \"token@bcc.example\" <a@x.example>\r\n\r\n", "To: <a@x.example>\r\n\r\n");
        check_strip(
            "Delivered-To: token@bcc.example\r\nDelivered-To: c@d.example\r\n\r\n",
            "Delivered-To: c@d.example\r\n\r\n",
        );
        check_strip("To:  Ann  <a@x.example>\r\n\r\n", "To:  Ann  <a@x.example>\r\n\r\n");
    }

    #[test]
    fn lone_line_ends_become_crlf() {
        for (raw, expect) in [
            ("a\rb\nc\r\nd\r\r\n\n", "a\r\nb\r\nc\r\nd\r\n\r\n\r\n"),
            ("\r\n.\n", "\r\n.\r\n"),
            ("", ""),
            ("a", "a"),
        ] {
            let got = normalise_line_ends(Bytes::from_static(raw.as_bytes()));
            assert_eq!(text(&got), expect, "{raw:?}");
            assert!(!has_lone_line_end(&got));
        }
        assert!(
            has_overlong_line("x".repeat(999).as_bytes())
                && !has_overlong_line(format!("{}\r\n", "x".repeat(998)).as_bytes())
        );
    }

    fn headerish() -> impl Strategy<Value = Vec<u8>> {
        let pieces = prop::sample::select(vec![
            "A",
            "B: 1",
            ": ",
            ":",
            "\r\n",
            "\n",
            "\r",
            " ",
            "\t",
            "\r\n\r\n",
            "From x",
            "From a b c d: e",
            "\u{feff}",
            "--",
            "body",
            "\0",
            "Bcc: x@y",
            ";\r\nx=1",
        ]);
        prop::collection::vec(prop_oneof![6 => pieces.prop_map(|s| s.as_bytes().to_vec()), 1 => prop::collection::vec(any::<u8>(), 1..4)], 0..14)
            .prop_map(|pieces| pieces.concat())
    }

    type Fields = Vec<(Vec<u8>, Vec<u8>)>;

    fn read(raw: &[u8]) -> (Fields, Vec<u8>) {
        let block = HeaderBlock::scan(raw);
        let fields = block
            .fields()
            .iter()
            .map(|f| (f.name().as_bytes().to_vec(), f.value.trim_ascii().to_vec()))
            .collect();
        (fields, raw[block.body_offset()..].to_vec())
    }

    proptest! {
        #[test]
        fn prepending_adds_one_field_and_changes_nothing_else(raw in headerish()) {
            let (mut fields, body) = read(&raw);
            fields.insert(0, (b"X-New".to_vec(), b"value".to_vec()));
            prop_assert_eq!(read(&prepend_fields(&raw, &[field("X-New", "value")])), (fields, body));
        }

        #[test]
        fn removing_leaves_the_other_fields_and_the_body(raw in headerish()) {
            let (fields, body) = read(&raw);
            let (left, left_body) = read(&remove_fields(&raw, |name| name == "Bcc" || name == "B"));
            prop_assert_eq!(left_body.trim_ascii_end(), body.trim_ascii_end());
            prop_assert!(left.iter().all(|(name, _)| name != b"Bcc" && name != b"B"));
            prop_assert!(left.iter().all(|kept| fields.contains(kept)), "{:?} {:?}", left, fields);
        }
    }
}
