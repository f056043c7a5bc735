//! MIME structure as IMAP shows it: the bytes of a part by its number, BODYSTRUCTURE and ENVELOPE.
//!
//! Not here: decoding; clients do that. Extension data of BODYSTRUCTURE ends with the disposition.

use mail_parser::{
    Addr, Address, ContentType, HeaderName, HeaderValue, Message, MessageParser, MessagePart, MimeHeaders,
    PartType,
};

use super::wire;

/// Levels of nesting that are shown; deeper parts count as application/octet-stream.
const DEPTH_MAX: usize = 20;

/// The octets of a part: its MIME header with the empty line, and its body.
pub(super) struct PartBytes<'a> {
    pub(super) header: &'a [u8],
    pub(super) body: &'a [u8],
}

/// Header with the empty line, and body.
pub(super) fn split(raw: &[u8]) -> (&[u8], &[u8]) {
    let end = memchr::memmem::find(raw, b"\r\n\r\n").map(|at| at + 4);
    raw.split_at_checked(end.unwrap_or(raw.len())).unwrap_or((raw, &[]))
}

/// The part of that number: `[1, 2]` is the second part of the first.
pub(super) fn part<'a>(raw: &'a [u8], path: &[u32]) -> Option<PartBytes<'a>> {
    let message = MessageParser::default().parse(raw)?;
    let mut here = message.parts.first()?;
    let mut raw = raw;
    let mut message = &message;
    for number in path.iter().take(DEPTH_MAX) {
        if let PartType::Message(inner) = &here.body {
            // A message in a part keeps its own offsets; when it had to be decoded there is nothing to cut from.
            raw = if here.encoding == mail_parser::Encoding::None { raw } else { return None };
            message = inner;
            here = inner.parts.first()?;
        }
        here = match (&here.body, number) {
            (PartType::Multipart(children), number) => {
                let at = usize::try_from(number.checked_sub(1)?).ok()?;
                message.parts.get(usize::try_from(*children.get(at)?).ok()?)?
            }
            (_, 1) => here,
            _ => return None,
        };
    }
    Some(PartBytes {
        header: range(raw, here.offset_header, here.offset_body),
        body: range(raw, here.offset_body, here.offset_end),
    })
}

fn range(raw: &[u8], from: u32, to: u32) -> &[u8] {
    let (from, to) = (usize::try_from(from).unwrap_or(usize::MAX), usize::try_from(to).unwrap_or(usize::MAX));
    raw.get(from..to.min(raw.len())).unwrap_or_default()
}

/// Writes `BODY (…)` or `BODYSTRUCTURE (…)`.
pub(super) fn body(raw: &[u8], name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(name.as_bytes());
    out.push(b' ');
    let extended = name == "BODYSTRUCTURE";
    match MessageParser::default().parse(raw) {
        Some(message) => write_part(&message, 0, (extended, DEPTH_MAX), out),
        None => write_octets(raw.len(), out),
    }
}

fn write_octets(size: usize, out: &mut Vec<u8>) {
    let line = format!("(\"application\" \"octet-stream\" NIL NIL NIL \"8bit\" {size})");
    out.extend_from_slice(line.as_bytes());
}

fn write_part(message: &Message<'_>, id: usize, how: (bool, usize), out: &mut Vec<u8>) {
    let (extended, depth) = how;
    let Some(part) = message.parts.get(id) else { return write_octets(0, out) };
    let size = part.offset_end.saturating_sub(part.offset_body);
    let Some(depth) = depth.checked_sub(1) else {
        return write_octets(usize::try_from(size).unwrap_or(0), out);
    };
    out.push(b'(');
    match &part.body {
        PartType::Multipart(children) if !children.is_empty() => {
            for child in children {
                write_part(message, usize::try_from(*child).unwrap_or(usize::MAX), (extended, depth), out);
            }
            let subtype = part.content_type().and_then(ContentType::subtype).unwrap_or("mixed");
            out.push(b' ');
            wire::string(out, subtype.as_bytes());
            if extended {
                out.push(b' ');
                write_parameters(part, out);
                out.push(b' ');
                write_disposition(part, out);
            }
        }
        _ => write_leaf(message, part, (extended, depth), out),
    }
    out.push(b')');
}

fn write_leaf(message: &Message<'_>, part: &MessagePart<'_>, how: (bool, usize), out: &mut Vec<u8>) {
    let (extended, depth) = how;
    let kind =
        part.content_type().map_or(("text", "plain"), |own| (own.ctype(), own.subtype().unwrap_or("plain")));
    wire::string(out, kind.0.as_bytes());
    out.push(b' ');
    wire::string(out, kind.1.as_bytes());
    out.push(b' ');
    write_parameters(part, out);
    out.push(b' ');
    let id = part.content_id().map(|id| format!("<{id}>"));
    wire::nstring(out, id.as_deref());
    out.push(b' ');
    wire::nstring(out, part.content_description());
    out.push(b' ');
    wire::string(out, part.content_transfer_encoding().unwrap_or("7bit").as_bytes());
    let bytes = range(&message.raw_message, part.offset_body, part.offset_end);
    let lines = memchr::memchr_iter(b'\n', bytes).count();
    out.extend_from_slice(format!(" {}", bytes.len()).as_bytes());
    if let PartType::Message(inner) = &part.body {
        out.push(b' ');
        write_envelope(inner, out);
        out.push(b' ');
        write_part(inner, 0, (extended, depth), out);
    }
    if kind.0.eq_ignore_ascii_case("text") || matches!(part.body, PartType::Message(_)) {
        out.extend_from_slice(format!(" {lines}").as_bytes());
    }
    if extended {
        out.extend_from_slice(b" NIL ");
        write_disposition(part, out);
    }
}

fn write_parameters(part: &MessagePart<'_>, out: &mut Vec<u8>) {
    let attributes = part.content_type().and_then(ContentType::attributes);
    write_pairs(attributes.into_iter().flatten().map(|own| (own.name.as_ref(), own.value.as_ref())), out);
}

fn write_disposition(part: &MessagePart<'_>, out: &mut Vec<u8>) {
    let Some(disposition) = part.content_disposition() else { return out.extend_from_slice(b"NIL") };
    out.push(b'(');
    wire::string(out, disposition.ctype().as_bytes());
    out.push(b' ');
    let attributes = disposition.attributes().into_iter().flatten();
    write_pairs(attributes.map(|own| (own.name.as_ref(), own.value.as_ref())), out);
    out.push(b')');
}

fn write_pairs<'a>(pairs: impl Iterator<Item = (&'a str, &'a str)>, out: &mut Vec<u8>) {
    let mut any = false;
    for (name, value) in pairs {
        out.push(if any { b' ' } else { b'(' });
        wire::string(out, name.as_bytes());
        out.push(b' ');
        wire::string(out, value.as_bytes());
        any = true;
    }
    out.extend_from_slice(if any { b")" } else { b"NIL" });
}

/// Writes `ENVELOPE (…)`.
pub(super) fn envelope(raw: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(b"ENVELOPE ");
    match MessageParser::default().parse_headers(raw) {
        Some(message) => write_envelope(&message, out),
        None => out.extend_from_slice(b"(NIL NIL NIL NIL NIL NIL NIL NIL NIL NIL)"),
    }
}

fn write_envelope(message: &Message<'_>, out: &mut Vec<u8>) {
    let text = |name: &str| {
        message.header_raw(name).map(|value| value.split_whitespace().collect::<Vec<_>>().join(" "))
    };
    out.push(b'(');
    wire::nstring(out, text("Date").as_deref());
    out.push(b' ');
    wire::nstring(out, text("Subject").as_deref());
    // RFC 9051 section 7.5.2: Sender and Reply-To default to From.
    let from = addresses(message, HeaderName::From);
    let or_from = |own: Vec<Addr<'_>>| {
        if own.is_empty() { from.clone() } else { own.into_iter().map(Addr::into_owned).collect() }
    };
    for list in [
        from.clone(),
        or_from(addresses(message, HeaderName::Sender)),
        or_from(addresses(message, HeaderName::ReplyTo)),
        addresses(message, HeaderName::To),
        addresses(message, HeaderName::Cc),
        addresses(message, HeaderName::Bcc),
    ] {
        out.push(b' ');
        write_addresses(&list, out);
    }
    for name in ["In-Reply-To", "Message-ID"] {
        out.push(b' ');
        wire::nstring(out, text(name).as_deref());
    }
    out.push(b')');
}

fn addresses(message: &Message<'_>, name: HeaderName<'static>) -> Vec<Addr<'static>> {
    match message.header(name) {
        Some(HeaderValue::Address(Address::List(list))) => {
            list.iter().cloned().map(Addr::into_owned).collect()
        }
        Some(HeaderValue::Address(Address::Group(groups))) => {
            groups.iter().flat_map(|group| group.addresses.iter().cloned()).map(Addr::into_owned).collect()
        }
        _ => Vec::new(),
    }
}

fn write_addresses(list: &[Addr<'_>], out: &mut Vec<u8>) {
    if list.is_empty() {
        return out.extend_from_slice(b"NIL");
    }
    out.push(b'(');
    for one in list {
        let address = one.address.as_deref().unwrap_or_default();
        let (local, domain) = address.rsplit_once('@').unwrap_or((address, ""));
        out.push(b'(');
        wire::nstring(out, one.name.as_deref());
        out.extend_from_slice(b" NIL ");
        wire::string(out, local.as_bytes());
        out.push(b' ');
        wire::string(out, domain.as_bytes());
        out.push(b')');
    }
    out.push(b')');
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIXED: &[u8] = b"From: Ann <ann@x.example>\r\nTo: bob@y.example\r\nSubject: =?utf-8?q?h=C3=A9?=\r\nMessage-ID: <1@x>\r\n\
        Content-Type: multipart/mixed; boundary=b\r\n\r\n--b\r\nContent-Type: text/plain; charset=utf-8\r\n\r\nhello\r\n--b\r\n\
        Content-Type: application/pdf; name=a.pdf\r\nContent-Disposition: attachment; filename=a.pdf\r\n\
        Content-Transfer-Encoding: base64\r\n\r\nQUJD\r\n--b--\r\n";

    #[test]
    fn parts_are_found_by_number() {
        let body =
            |path: &[u32]| part(MIXED, path).map(|part| String::from_utf8_lossy(part.body).into_owned());
        assert_eq!(body(&[1]).as_deref(), Some("hello"));
        assert_eq!(body(&[2]).as_deref(), Some("QUJD"));
        assert_eq!(body(&[3]), None);
        assert_eq!(body(&[0]), None);
        assert!(part(MIXED, &[2]).unwrap().header.starts_with(b"Content-Type: application/pdf"));
    }

    #[test]
    fn a_body_structure_is_read_by_the_codec_of_clients() {
        use imap_codec::{ResponseCodec, decode::Decoder};
        for raw in [
            MIXED,
            b"Subject: x\r\n\r\nhi\r\n",
            b"\r\n",
            b"Content-Type: multipart/mixed; boundary=b\r\n\r\n",
        ] {
            let mut line = b"* 1 FETCH (".to_vec();
            body(raw, "BODYSTRUCTURE", &mut line);
            line.push(b' ');
            envelope(raw, &mut line);
            line.extend_from_slice(b")\r\n");
            let read = ResponseCodec::default().decode(&line);
            assert!(matches!(read, Ok(([], _))), "{}", String::from_utf8_lossy(&line));
        }
    }
}
