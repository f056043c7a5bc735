//! Modified UTF-7 (RFC 3501 section 5.1.3), the spelling of mailbox names outside ASCII.
//!
//! Not here: comparing names; two spellings of one text are two mailboxes to a server.

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig},
};

const BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::IMAP_MUTF7,
    GeneralPurposeConfig::new()
        .with_encode_padding(false)
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// The text of a name. Raw UTF-8 passes; an invalid shift sequence is shown as it is written.
#[must_use]
pub(super) fn decode(name: &[u8]) -> String {
    let name = String::from_utf8_lossy(name);
    let mut text = String::with_capacity(name.len());
    let mut rest: &str = &name;
    while let Some((before, after)) = rest.split_once('&') {
        text.push_str(before);
        match after.split_once('-') {
            Some(("", tail)) => {
                text.push('&');
                rest = tail;
            }
            Some((shifted, tail)) => {
                match decode_shifted(shifted) {
                    Some(decoded) => text.push_str(&decoded),
                    None => text.extend(["&", shifted, "-"]),
                }
                rest = tail;
            }
            None => {
                text.push('&');
                rest = after;
            }
        }
    }
    text.push_str(rest);
    text
}

fn decode_shifted(shifted: &str) -> Option<String> {
    let bytes = BASE64.decode(shifted).ok()?;
    let units = bytes.as_chunks::<2>();
    if !units.1.is_empty() {
        return None;
    }
    char::decode_utf16(units.0.iter().map(|unit| u16::from_be_bytes(*unit))).collect::<Result<_, _>>().ok()
}

/// Writes a text as a name.
#[must_use]
pub(super) fn encode(text: &str) -> String {
    let mut name = String::with_capacity(text.len());
    let mut shifted = Vec::new();
    for c in text.chars() {
        if matches!(c, ' '..='~') {
            unshift(&mut shifted, &mut name);
            name.push(c);
            if c == '&' {
                name.push('-');
            }
        } else {
            shifted.extend(c.encode_utf16(&mut [0; 2]).iter().flat_map(|unit| unit.to_be_bytes()));
        }
    }
    unshift(&mut shifted, &mut name);
    name
}

fn unshift(shifted: &mut Vec<u8>, name: &mut String) {
    if !shifted.is_empty() {
        name.extend(["&", &BASE64.encode(&*shifted), "-"]);
        shifted.clear();
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(name: &str, text: &str) {
        assert_eq!(decode(name.as_bytes()), text);
    }

    #[test]
    fn names_are_shown_as_people_wrote_them() {
        check("~peter/mail/&U,BTFw-/&ZeVnLIqe-", "~peter/mail/台北/日本語");
        check("Entw&APw-rfe", "Entwürfe");
        check("R&-D", "R&D");
        check("&2D3eAA-", "😀");
    }

    #[test]
    fn what_is_no_utf7_is_shown_as_it_is() {
        check("Tom & Jerry", "Tom & Jerry");
        check("&AP-", "&AP-");
        check("&2D0-", "&2D0-");
        check("&!!-x", "&!!-x");
        check("Entwürfe", "Entwürfe");
        assert_eq!(decode(b"\xff"), "\u{fffd}");
    }

    proptest! {
        #[test]
        fn every_text_reads_back_and_is_plain_ascii(text in ".{0,30}") {
            let name = encode(&text);
            prop_assert!(name.bytes().all(|byte| (b' '..=b'~').contains(&byte)));
            prop_assert_eq!(decode(name.as_bytes()), text);
        }
    }
}
