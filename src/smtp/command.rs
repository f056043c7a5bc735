//! Command lines of RFC 5321 as typed commands: addresses, numbers and parameters are values or the line is refused.
//!
//! The grammar is our own rather than a library's: what matters in it (quoted local parts, address literals, `<>` against
//! `<postmaster>`, digits of SIZE, which parameters exist) is where general parsers round off.
//! Not here: whether a command may come now (`session`).

use crate::mail::{Address, Notify, Recipient, Return, ReversePath};

/// Digits of SIZE that are read; one more and no disk is large enough.
const SIZE_DIGITS_MAX: usize = 15;
/// RFC 3461 section 4.4: ENVID holds up to 100 characters.
const ENVELOPE_ID_BYTES_MAX: usize = 100;
/// RFC 3461 section 4.2: ORCPT holds up to 500 characters.
const ORIGINAL_RECIPIENT_BYTES_MAX: usize = 500;

/// One command, read whole.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Command {
    Helo(String),
    Ehlo(String),
    Mail(MailFrom),
    Rcpt(RcptTo),
    Data,
    Rset,
    Noop,
    Help,
    Vrfy,
    Quit,
    StartTls,
    /// `AUTH mechanism [initial-response]`; `=` stands for an empty response.
    Auth(String, Option<String>),
    /// BDAT of CHUNKING, which is not offered.
    Bdat,
}

/// `MAIL FROM`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct MailFrom {
    pub(super) reverse_path: ReversePath,
    /// True when the path itself was written outside ASCII.
    pub(super) beyond_ascii: bool,
    pub(super) size: Option<u64>,
    pub(super) eight_bit: Option<bool>,
    pub(super) smtputf8: bool,
    pub(super) ret: Option<Return>,
    pub(super) envelope_id: Option<String>,
    /// RFC 4954 section 5; we trust nobody's word for it, but must take it.
    pub(super) auth: Option<()>,
}

/// `RCPT TO`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RcptTo {
    pub(super) path: ForwardPath,
    pub(super) beyond_ascii: bool,
    pub(super) notify: Option<Notify>,
    pub(super) original: Option<String>,
}

/// Where `RCPT TO` points.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum ForwardPath {
    Address(Address),
    /// `<postmaster>` without a domain (RFC 5321 section 4.5.1): ours.
    Postmaster,
}

impl RcptTo {
    /// The recipient, with `<postmaster>` completed by our own host name.
    pub(super) fn recipient(self, hostname: &str) -> Option<Recipient> {
        let address = match self.path {
            ForwardPath::Address(address) => address,
            ForwardPath::Postmaster => Address::from_parts("postmaster", hostname).ok()?,
        };
        Some(Recipient { address, notify: self.notify.unwrap_or_default(), original: self.original })
    }
}

/// Why a line is no command of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Fault {
    /// A browser or a script speaks HTTP to us.
    Http,
    Unknown,
    /// A command of RFC 5321 or an extension that we do not offer.
    Unimplemented,
    /// A bare CR, a bare LF, a NUL or octets that are not UTF-8.
    Octets,
    Syntax,
    ReversePath,
    ForwardPath,
    UnknownParameter,
    BadParameter,
    /// SIZE names more than anyone takes.
    Size,
}

/// Reads one line, given without its CRLF.
pub(super) fn parse(line: &[u8]) -> Result<Command, Fault> {
    if line.iter().any(|octet| matches!(octet, 0 | b'\r' | b'\n')) {
        return Err(Fault::Octets);
    }
    let text = str::from_utf8(line).map_err(|_| Fault::Octets)?.trim_end_matches([' ', '\t']);
    let (verb, rest) = text.split_once(' ').unwrap_or((text, ""));
    let rest = rest.trim_start_matches(' ');
    let bare = |command| if rest.is_empty() { Ok(command) } else { Err(Fault::Syntax) };
    match verb.to_ascii_uppercase().as_str() {
        "MAIL" => mail(rest),
        "RCPT" => rcpt(rest),
        "DATA" => bare(Command::Data),
        "EHLO" => hello_name(rest).map(Command::Ehlo),
        "HELO" => hello_name(rest).map(Command::Helo),
        "RSET" => bare(Command::Rset),
        "QUIT" => bare(Command::Quit),
        "STARTTLS" => bare(Command::StartTls),
        "NOOP" => Ok(Command::Noop),
        "HELP" => Ok(Command::Help),
        "VRFY" if rest.is_empty() => Err(Fault::Syntax),
        "VRFY" => Ok(Command::Vrfy),
        "AUTH" => auth(rest),
        "BDAT" => Ok(Command::Bdat),
        "EXPN" | "TURN" | "ETRN" | "ATRN" | "SEND" | "SOML" | "SAML" | "BURL" | "LHLO" => {
            Err(Fault::Unimplemented)
        }
        "GET" | "POST" | "HEAD" | "PUT" | "DELETE" | "OPTIONS" | "CONNECT" | "TRACE" | "PATCH" | "PRI" => {
            Err(Fault::Http)
        }
        _ => Err(Fault::Unknown),
    }
}

/// Real clients say all sorts of things in EHLO; printable ASCII without blanks is all we ask.
fn hello_name(text: &str) -> Result<String, Fault> {
    let sound = !text.is_empty() && text.len() <= 255 && text.bytes().all(|b| b.is_ascii_graphic());
    if sound { Ok(text.to_owned()) } else { Err(Fault::Syntax) }
}

fn auth(rest: &str) -> Result<Command, Fault> {
    let mut words = rest.split(' ').filter(|word| !word.is_empty());
    let (mechanism, initial, more) = (words.next().ok_or(Fault::Syntax)?, words.next(), words.next());
    if more.is_some() {
        return Err(Fault::Syntax);
    }
    let initial = initial.map(|response| if response == "=" { String::new() } else { response.to_owned() });
    Ok(Command::Auth(mechanism.to_owned(), initial))
}

fn mail(rest: &str) -> Result<Command, Fault> {
    let (path, parameters) = keyword(rest, "FROM:").and_then(split_path).ok_or(Fault::Syntax)?;
    let reverse_path = match path {
        "" => ReversePath::Null,
        _ => ReversePath::Address(mailbox(path).ok_or(Fault::ReversePath)?),
    };
    let beyond_ascii = !path.is_ascii();
    let mut mail = MailFrom {
        reverse_path,
        beyond_ascii,
        size: None,
        eight_bit: None,
        smtputf8: false,
        ret: None,
        envelope_id: None,
        auth: None,
    };
    for parameter in parameters.split(' ').filter(|word| !word.is_empty()) {
        mail.set(parameter)?;
    }
    Ok(Command::Mail(mail))
}

impl MailFrom {
    fn set(&mut self, parameter: &str) -> Result<(), Fault> {
        let (name, value) = split_parameter(parameter);
        match (name.to_ascii_uppercase().as_str(), value) {
            ("SIZE", Some(digits)) => once(&mut self.size, size(digits)?),
            ("BODY", Some(kind)) if kind.eq_ignore_ascii_case("8BITMIME") => once(&mut self.eight_bit, true),
            ("BODY", Some(kind)) if kind.eq_ignore_ascii_case("7BIT") => once(&mut self.eight_bit, false),
            ("SMTPUTF8", None) if !self.smtputf8 => {
                self.smtputf8 = true;
                Ok(())
            }
            ("RET", Some(what)) if what.eq_ignore_ascii_case("FULL") => once(&mut self.ret, Return::Full),
            ("RET", Some(what)) if what.eq_ignore_ascii_case("HDRS") => once(&mut self.ret, Return::Headers),
            ("ENVID", Some(id)) if is_xtext(id) && id.len() <= ENVELOPE_ID_BYTES_MAX => {
                once(&mut self.envelope_id, id.to_owned())
            }
            ("AUTH", Some(_)) => once(&mut self.auth, ()),
            ("SIZE" | "BODY" | "SMTPUTF8" | "RET" | "ENVID" | "AUTH", _) => Err(Fault::BadParameter),
            _ => Err(Fault::UnknownParameter),
        }
    }
}

fn rcpt(rest: &str) -> Result<Command, Fault> {
    let (path, parameters) = keyword(rest, "TO:").and_then(split_path).ok_or(Fault::Syntax)?;
    let beyond_ascii = !path.is_ascii();
    let path = match mailbox(path) {
        Some(address) => ForwardPath::Address(address),
        None if path.eq_ignore_ascii_case("postmaster") => ForwardPath::Postmaster,
        None => return Err(Fault::ForwardPath),
    };
    let mut rcpt = RcptTo { path, beyond_ascii, notify: None, original: None };
    for parameter in parameters.split(' ').filter(|word| !word.is_empty()) {
        rcpt.set(parameter)?;
    }
    Ok(Command::Rcpt(rcpt))
}

impl RcptTo {
    fn set(&mut self, parameter: &str) -> Result<(), Fault> {
        let (name, value) = split_parameter(parameter);
        match (name.to_ascii_uppercase().as_str(), value) {
            ("NOTIFY", Some(list)) => once(&mut self.notify, notify(list).ok_or(Fault::BadParameter)?),
            ("ORCPT", Some(original)) if is_original_recipient(original) => {
                once(&mut self.original, original.to_owned())
            }
            ("NOTIFY" | "ORCPT", _) => Err(Fault::BadParameter),
            _ => Err(Fault::UnknownParameter),
        }
    }
}

fn keyword<'a>(text: &'a str, keyword: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(keyword.len())?;
    head.eq_ignore_ascii_case(keyword).then_some(rest)
}

fn split_parameter(parameter: &str) -> (&str, Option<&str>) {
    parameter.split_once('=').map_or((parameter, None), |(name, value)| (name, Some(value)))
}

/// A parameter given twice is one too many: which one a library obeys is an attacker's choice.
fn once<T>(slot: &mut Option<T>, value: T) -> Result<(), Fault> {
    if slot.replace(value).is_some() { Err(Fault::BadParameter) } else { Ok(()) }
}

/// Divides `<path> parameters`. A blank before the path and a path without brackets are taken, as old clients send them.
fn split_path(text: &str) -> Option<(&str, &str)> {
    let text = text.trim_start_matches(' ');
    let Some(inner) = text.strip_prefix('<') else {
        let (path, parameters) = text.split_once(' ').unwrap_or((text, ""));
        return (!path.is_empty() && !path.contains(['<', '>', '"'])).then_some((path, parameters));
    };
    let (mut quoted, mut escaped) = (false, false);
    let closes = |c: char| {
        let plain = !std::mem::take(&mut escaped);
        match c {
            '"' if plain => quoted = !quoted,
            '\\' if plain && quoted => escaped = true,
            _ => {}
        }
        c == '>' && !quoted
    };
    let (path, rest) = inner.split_at_checked(inner.find(closes)?)?;
    let parameters = rest.strip_prefix('>')?;
    (parameters.is_empty() || parameters.starts_with(' ')).then_some((path, parameters))
}

/// An address, any source route before it dropped (RFC 5321 section 4.1.1.3 and appendix C).
fn mailbox(path: &str) -> Option<Address> {
    let path = match path.strip_prefix('@') {
        Some(route) => route.split_once(':')?.1,
        None => path,
    };
    if path.starts_with(char::is_whitespace) || path.ends_with(char::is_whitespace) {
        return None;
    }
    Address::parse(path).ok()
}

fn size(digits: &str) -> Result<u64, Fault> {
    if digits.is_empty() || !digits.bytes().all(|b| b.is_ascii_digit()) {
        return Err(Fault::BadParameter);
    }
    let digits = digits.trim_start_matches('0');
    if digits.len() > SIZE_DIGITS_MAX {
        return Err(Fault::Size);
    }
    Ok(digits.parse().unwrap_or(0))
}

/// `NEVER` alone, or a list of the others (RFC 3461 section 4.1).
fn notify(list: &str) -> Option<Notify> {
    if list.eq_ignore_ascii_case("NEVER") {
        return Some(Notify::Never);
    }
    let (mut success, mut failure, mut delay) = (false, false, false);
    for word in list.split(',') {
        match word.to_ascii_uppercase().as_str() {
            "SUCCESS" => success = true,
            "FAILURE" => failure = true,
            "DELAY" => delay = true,
            _ => return None,
        }
    }
    Some(Notify::On { success, failure, delay })
}

/// RFC 3461 section 4: printable ASCII, `+` and `=` only as `+HH`.
pub(super) fn is_xtext(text: &str) -> bool {
    let mut octets = text.bytes();
    let hex = |octet: Option<u8>| octet.is_some_and(|o| o.is_ascii_digit() || (b'A'..=b'F').contains(&o));
    while let Some(octet) = octets.next() {
        let sound = match octet {
            b'+' => hex(octets.next()) && hex(octets.next()),
            other => other.is_ascii_graphic() && other != b'=',
        };
        if !sound {
            return false;
        }
    }
    !text.is_empty()
}

/// `addr-type;xtext`. Only ever echoed, so printable ASCII is enough (RFC 6533 adds `\x{…}` to xtext).
pub(super) fn is_original_recipient(text: &str) -> bool {
    let Some((kind, address)) = text.split_once(';') else { return false };
    let kind_sound = !kind.is_empty() && kind.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
    let address_sound =
        !address.is_empty() && address.bytes().all(|b| b.is_ascii_graphic() && !matches!(b, b'<' | b'>'));
    kind_sound && address_sound && text.len() <= ORIGINAL_RECIPIENT_BYTES_MAX
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reverse(line: &str) -> Result<String, Fault> {
        match parse(line.as_bytes())? {
            Command::Mail(mail) => Ok(mail.reverse_path.to_string()),
            other => panic!("{other:?}"),
        }
    }

    fn forward(line: &str) -> Result<String, Fault> {
        match parse(line.as_bytes())? {
            Command::Rcpt(rcpt) => Ok(rcpt.recipient("gw.example").unwrap().address.to_string()),
            other => panic!("{other:?}"),
        }
    }

    #[track_caller]
    fn check_reverse(path: &str, expect: Result<&str, Fault>) {
        assert_eq!(reverse(&format!("MAIL FROM:{path}")), expect.map(str::to_owned), "{path}");
    }

    #[track_caller]
    fn check_forward(path: &str, expect: Result<&str, Fault>) {
        assert_eq!(forward(&format!("RCPT TO:{path}")), expect.map(str::to_owned), "{path}");
    }

    #[test]
    fn a_path_is_an_address_or_nothing() {
        check_reverse("<>", Ok("<>"));
        check_reverse("<a@b.example>", Ok("<a@b.example>"));
        check_reverse(" <a@b.example> SIZE=3", Ok("<a@b.example>"));
        check_reverse("a@b.example", Ok("<a@b.example>"));
        check_reverse("<a@[192.0.2.1]>", Ok("<a@[192.0.2.1]>"));
        check_reverse("<a@[IPv6:2001:db8::1]>", Ok("<a@[ipv6:2001:db8::1]>"));
        check_reverse("", Err(Fault::Syntax));
        check_reverse("<a@b.example", Err(Fault::Syntax));
        check_reverse("<a@b.example>SIZE=3", Err(Fault::Syntax));
        check_reverse("<a@b.example >", Err(Fault::ReversePath));
        check_reverse("<a>", Err(Fault::ReversePath));
        check_reverse("<a@-b-.c>", Err(Fault::ReversePath));
    }

    #[test]
    fn quotes_keep_what_they_quote() {
        check_forward("<\"x@evil.example\"@good.example>", Ok("\"x@evil.example\"@good.example"));
        check_forward("<\"x>y\"@b.example>", Ok("\"x>y\"@b.example"));
        check_forward("<\"a\\\"b\"@c.example>", Ok("\"a\\\"b\"@c.example"));
        check_forward("<\"a", Err(Fault::Syntax));
        check_forward("<b\"@gw.example>", Err(Fault::Syntax));
    }

    #[test]
    fn source_routes_are_dropped_and_postmaster_needs_no_domain() {
        check_forward("<@a.example,@b.example:c@d.example>", Ok("c@d.example"));
        check_forward("<Postmaster>", Ok("Postmaster@gw.example".to_lowercase().as_str()));
        check_forward("<Token@GW.Example.>", Ok("Token@gw.example"));
        check_forward("<>", Err(Fault::ForwardPath));
        check_forward("<somebody>", Err(Fault::ForwardPath));
    }

    #[test]
    fn parameters_are_known_sound_and_given_once() {
        let from = |parameters: &str| parse(format!("MAIL FROM:<a@b.example> {parameters}").as_bytes());
        let to = |parameters: &str| parse(format!("RCPT TO:<a@b.example> {parameters}").as_bytes());
        assert!(from("SIZE=1000 BODY=8BITMIME SMTPUTF8 RET=HDRS ENVID=a+2Bb AUTH=<>").is_ok());
        assert!(to("NOTIFY=SUCCESS,DELAY ORCPT=rfc822;a@b.example").is_ok());
        assert_eq!(from("SIZE=999999999999999999999999"), Err(Fault::Size));
        for unknown in ["BY=1;R", "MT-PRIORITY=3", "HOLDFOR=9", "REQUIRETLS", "X=Y"] {
            assert_eq!(from(unknown), Err(Fault::UnknownParameter), "{unknown}");
        }
        for bad in [
            "SIZE=",
            "SIZE=-1",
            "SIZE=1 SIZE=2",
            "SIZE",
            "BODY=BINARYMIME",
            "SMTPUTF8=1",
            "SMTPUTF8 SMTPUTF8",
            "RET=NONE",
            "ENVID=a=b",
            "ENVID=+2",
        ] {
            assert_eq!(from(bad), Err(Fault::BadParameter), "{bad}");
        }
        for bad in ["NOTIFY=NEVER,SUCCESS", "NOTIFY=", "NOTIFY=SOON", "ORCPT=a@b.example", "ORCPT=rfc822;"] {
            assert_eq!(to(bad), Err(Fault::BadParameter), "{bad}");
        }
    }

    #[test]
    fn octets_that_no_command_holds_are_refused() {
        for line in [&b"EHLO a\rMAIL"[..], b"NOOP \0", b"NOOP \xff", b"a\nb"] {
            assert_eq!(parse(line), Err(Fault::Octets));
        }
        assert_eq!(parse(b"GET / HTTP/1.1"), Err(Fault::Http));
        assert_eq!(parse(b"STARTTLS foo"), Err(Fault::Syntax));
        assert_eq!(parse(b"EHLO"), Err(Fault::Syntax));
        assert_eq!(parse(b""), Err(Fault::Unknown));
    }

    /// Whatever another implementation of the grammar takes for the same verb, ours does not take for a different one.
    fn other_reading(line: &str) -> Option<&'static str> {
        let line = format!("{line}\r\n");
        smtp_proto::Request::parse(&mut line.as_bytes().iter()).ok().map(|request| request.name())
    }

    proptest::proptest! {
        #[test]
        fn no_line_panics_and_verbs_agree_with_another_parser(line in "(MAIL FROM:|RCPT TO:|EHLO |NOOP |DATA|RSET|AUTH |STARTTLS)[ -~é]{0,60}") {
            let ours = match parse(line.as_bytes()) {
                Ok(Command::Mail(_)) => Some("MAIL"),
                Ok(Command::Rcpt(_)) => Some("RCPT"),
                Ok(Command::Data) => Some("DATA"),
                Ok(Command::Ehlo(_)) => Some("EHLO"),
                _ => None,
            };
            if let (Some(ours), Some(theirs)) = (ours, other_reading(&line)) {
                proptest::prop_assert_eq!(ours, theirs);
            }
        }

        #[test]
        fn random_octets_never_panic(line in proptest::collection::vec(proptest::prelude::any::<u8>(), 0..200)) {
            let _ = parse(&line);
        }
    }
}
