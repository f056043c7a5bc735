//! The responses of a server as far as we use them; all others are `Other` and are skipped.
//!
//! Reading is tolerant and of one kind: a codec that is strict needs a tolerant reader behind it for half of the servers,
//! and then which of the two read a response would decide what it means. imap-codec judges this reader in the tests.

use bytes::Bytes;

use super::{
    capability::Capabilities,
    code::ResponseCode,
    error::{Fault, ServerText},
    fetch::Fetched,
    mailbox::{ListedMailbox, MailboxStatus},
    token::Cursor,
    uid::UidSet,
};

/// The number in a command's tag, `a7`.
pub(super) type Tag = u32;

/// How a status response begins.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Condition {
    Ok,
    No,
    Bad,
    PreAuth,
    Bye,
}

/// `OK [CODE] text`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Status {
    pub(super) condition: Condition,
    pub(super) code: Option<ResponseCode>,
    pub(super) text: ServerText,
}

/// The answer to a UID SEARCH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Found {
    Uids(UidSet),
    /// ESEARCH without UID: sequence numbers, of no use.
    SequenceNumbers,
}

/// One response.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Response {
    Continuation(Bytes),
    /// `None` for a tag that is none of ours.
    Tagged(Option<Tag>, Status),
    Status(Status),
    Capability(Capabilities),
    Exists(u32),
    Expunge,
    Vanished {
        earlier: bool,
        uids: UidSet,
    },
    Fetch(Box<Fetched>),
    List(ListedMailbox),
    MailboxStatus(MailboxStatus),
    Search(Found),
    Id(Vec<(Bytes, Bytes)>),
    Other,
}

impl Response {
    /// Reads one response as the framer cut it off.
    ///
    /// # Errors
    /// The response is one that must not be skipped, and cannot be read.
    pub(super) fn parse(frame: &Bytes) -> Result<Self, Fault> {
        let mut cursor = Cursor::new(frame);
        cursor.skip_spaces();
        match cursor.peek() {
            None => Ok(Self::Other),
            Some(b'+') => {
                cursor.eat(b'+');
                Ok(Self::Continuation(cursor.share(cursor.text())))
            }
            Some(b'*') => {
                cursor.eat(b'*');
                untagged(&mut cursor)
            }
            Some(_) => {
                let tag = parse_tag(cursor.word());
                let status = condition(cursor.word()).map(|condition| status(condition, &mut cursor));
                status.map(|status| Self::Tagged(tag, status)).ok_or(Fault::Malformed)
            }
        }
    }
}

fn parse_tag(word: &[u8]) -> Option<Tag> {
    std::str::from_utf8(word.strip_prefix(b"a")?).ok()?.parse().ok()
}

fn untagged(cursor: &mut Cursor<'_>) -> Result<Response, Fault> {
    let word = cursor.word();
    if word.iter().all(u8::is_ascii_digit) && !word.is_empty() {
        return numbered(word, cursor);
    }
    if let Some(condition) = condition(word) {
        return Ok(Response::Status(status(condition, cursor)));
    }
    let skipped = |response: Option<Response>| Ok(response.unwrap_or(Response::Other));
    match word.to_ascii_uppercase().as_slice() {
        b"CAPABILITY" => Ok(Response::Capability(Capabilities::parse(cursor.text()))),
        b"LIST" | b"XLIST" => skipped(ListedMailbox::parse(cursor).map(Response::List)),
        b"STATUS" => skipped(MailboxStatus::parse(cursor).map(Response::MailboxStatus)),
        b"SEARCH" => search(cursor.text()).map(Response::Search),
        b"ESEARCH" => esearch(cursor).map(Response::Search).ok_or(Fault::Malformed),
        b"VANISHED" => vanished(cursor).ok_or(Fault::Malformed),
        b"ID" => skipped(id(cursor)),
        _ => Ok(Response::Other),
    }
}

fn numbered(digits: &[u8], cursor: &mut Cursor<'_>) -> Result<Response, Fault> {
    let number = std::str::from_utf8(digits).ok().and_then(|digits| digits.parse().ok());
    let number: u32 = number.ok_or(Fault::ImpossibleNumber)?;
    match cursor.word().to_ascii_uppercase().as_slice() {
        b"EXISTS" => Ok(Response::Exists(number)),
        b"EXPUNGE" => Ok(Response::Expunge),
        b"FETCH" => Fetched::parse(cursor, number).map(|fetched| Response::Fetch(Box::new(fetched))),
        _ => Ok(Response::Other),
    }
}

fn condition(word: &[u8]) -> Option<Condition> {
    Some(match word.to_ascii_uppercase().as_slice() {
        b"OK" => Condition::Ok,
        b"NO" => Condition::No,
        b"BAD" => Condition::Bad,
        b"PREAUTH" => Condition::PreAuth,
        b"BYE" => Condition::Bye,
        _ => return None,
    })
}

/// `[CODE arguments] text`; the code, the space after it and the text may each be missing.
fn status(condition: Condition, cursor: &mut Cursor<'_>) -> Status {
    cursor.skip_spaces();
    let code = cursor.eat(b'[').then(|| {
        let code = ResponseCode::parse(cursor.take_until(|byte| byte == b']' || byte == b'\n'));
        cursor.eat(b']');
        code
    });
    Status { condition, code, text: ServerText::new(cursor.text()) }
}

/// `1 2 3`, and behind it perhaps `(MODSEQ 5)`.
fn search(text: &[u8]) -> Result<Found, Fault> {
    let numbers = text.split(|byte| *byte == b'(').next().unwrap_or_default();
    let listed: Vec<u8> = numbers.split(u8::is_ascii_whitespace).collect::<Vec<_>>().join(&b',');
    UidSet::parse(&listed).map(Found::Uids).ok_or(Fault::ImpossibleNumber)
}

/// `(TAG "a1") UID ALL 1:3,5`. Counts and extremes are not asked for.
fn esearch(cursor: &mut Cursor<'_>) -> Option<Found> {
    cursor.skip_spaces();
    if cursor.peek() == Some(b'(') {
        cursor.skip_value()?;
    }
    let (mut by_uid, mut all) = (false, UidSet::new());
    loop {
        match cursor.word().to_ascii_uppercase().as_slice() {
            b"" => break,
            b"UID" => by_uid = true,
            b"ALL" => all = UidSet::parse(cursor.word())?,
            _ => cursor.skip_value()?,
        }
    }
    // Without UID but also without members there is nothing to mistake.
    Some(if by_uid || all.is_empty() { Found::Uids(all) } else { Found::SequenceNumbers })
}

/// `(EARLIER) 1:5`; the set is empty on some servers.
fn vanished(cursor: &mut Cursor<'_>) -> Option<Response> {
    cursor.skip_spaces();
    let earlier = cursor.peek() == Some(b'(');
    if earlier {
        cursor.skip_value()?;
    }
    Some(Response::Vanished { earlier, uids: UidSet::parse(cursor.word())? })
}

fn id(cursor: &mut Cursor<'_>) -> Option<Response> {
    /// RFC 2971 section 3.3.
    const FIELDS_MAX: usize = 30;
    let mut fields = Vec::new();
    cursor.list(|cursor| {
        let (name, value) = (cursor.string()?, cursor.string()?);
        fields.extend(name.zip(value).filter(|_| fields.len() < FIELDS_MAX));
        Some(())
    })?;
    Some(Response::Id(fields))
}

#[cfg(test)]
mod tests {
    use imap_codec::{ResponseCodec, decode::Decoder};
    use imap_types::response::{Data, Response as Judged, Status as JudgedStatus};
    use proptest::prelude::*;

    use super::*;

    fn parse(text: &'static str) -> Result<Response, Fault> {
        Response::parse(&Bytes::from_static(text.as_bytes()))
    }

    #[track_caller]
    fn check_ok(text: &'static str, code: Option<ResponseCode>, words: &str) {
        let status = Status { condition: Condition::Ok, code, text: ServerText::new(words.as_bytes()) };
        assert_eq!(parse(text), Ok(Response::Status(status)), "{text}");
    }

    #[test]
    fn a_status_lacks_what_servers_leave_out() {
        let alert = Some(ResponseCode::Alert);
        check_ok("* OK [ALERT] hi\r\n", alert.clone(), "hi");
        check_ok("* ok [ALERT]hi\n", alert.clone(), "hi");
        check_ok("* OK [alert]\r\n", alert, "");
        check_ok("* OK\r\n", None, "");
        check_ok("* OK [open\r\n", Some(ResponseCode::Other), "");
    }

    #[track_caller]
    fn check_search(text: &'static str, expect: Result<&str, Fault>) {
        let got = parse(text).map(|response| match response {
            Response::Search(Found::Uids(uids)) => uids.to_string(),
            other => format!("{other:?}"),
        });
        assert_eq!(got, expect.map(str::to_owned), "{text}");
    }

    #[test]
    fn searches_answer_in_two_forms() {
        check_search("* SEARCH\r\n", Ok(""));
        check_search("* SEARCH 2  84 3 \r\n", Ok("2:3,84"));
        check_search("* SEARCH 2 5 (MODSEQ 917162500)\r\n", Ok("2,5"));
        check_search("* ESEARCH (TAG \"a1\") UID ALL 1:3,5\r\n", Ok("1:3,5"));
        check_search("* ESEARCH (TAG \"a1\") UID MODSEQ 7 COUNT 3 ALL 5\r\n", Ok("5"));
        check_search("* ESEARCH (TAG \"a1\") UID\r\n", Ok(""));
        check_search("* ESEARCH (TAG \"a1\") ALL 1:3\r\n", Ok("Search(SequenceNumbers)"));
        check_search("* SEARCH 99999999999\r\n", Err(Fault::ImpossibleNumber));
    }

    #[test]
    fn what_is_not_used_is_skipped() {
        for text in [
            "\r\n",
            "* FLAGS (\\Seen )\r\n",
            "* NAMESPACE ((\"\" \".\")) NIL NIL\r\n",
            "* 3 RECENT\r\n",
            "* XYZ {3}\r\nabc\r\n",
            "*\r\n",
        ] {
            assert_eq!(parse(text), Ok(Response::Other), "{text}");
        }
        assert_eq!(parse("* 4294967296 EXISTS\r\n"), Err(Fault::ImpossibleNumber));
        assert_eq!(parse("a1 WHAT\r\n"), Err(Fault::Malformed));
    }

    #[test]
    fn a_tag_is_exact_or_none_of_ours() {
        let tag = |text| match parse(text) {
            Ok(Response::Tagged(tag, _)) => tag,
            other => panic!("{other:?}"),
        };
        assert_eq!(tag("a12 OK done\r\n"), Some(12));
        for text in ["A12 OK done\r\n", "b12 OK\r\n", "12 OK\r\n", "a12x NO\r\n", "a99999999999 NO\r\n"] {
            assert_eq!(tag(text), None, "{text}");
        }
    }

    /// What imap-codec reads we read alike, so far as both have it.
    fn agree(frame: &Bytes) {
        let Ok((_, judged)) = ResponseCodec::default().decode(frame) else { return };
        let ours = Response::parse(frame).expect("imap-codec reads it");
        match judged {
            Judged::CommandContinuationRequest(_) => assert!(matches!(ours, Response::Continuation(_))),
            Judged::Status(JudgedStatus::Tagged(_)) => assert!(matches!(ours, Response::Tagged(..))),
            Judged::Status(_) => assert!(matches!(ours, Response::Status(_))),
            Judged::Data(Data::Exists(number)) => assert_eq!(ours, Response::Exists(number)),
            Judged::Data(Data::Expunge(_)) => assert_eq!(ours, Response::Expunge),
            Judged::Data(Data::Fetch { seq, .. }) => {
                assert!(matches!(ours, Response::Fetch(fetched) if fetched.sequence == seq.get()));
            }
            Judged::Data(Data::Search(numbers, _)) => {
                let Response::Search(Found::Uids(uids)) = ours else { panic!("{ours:?}") };
                assert!(
                    numbers.iter().all(|number| uids
                        .ranges()
                        .any(|(a, b)| (a.get()..=b.get()).contains(&number.get())))
                );
            }
            Judged::Data(Data::Capability(_)) => assert!(matches!(ours, Response::Capability(_))),
            Judged::Data(Data::Vanished { earlier, .. }) => {
                assert!(matches!(ours, Response::Vanished { earlier: e, .. } if e == earlier));
            }
            Judged::Data(_) => {}
        }
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = Response::parse(&bytes.into());
        }

        #[test]
        fn any_words_are_read_without_panic_and_as_imap_codec_reads_them(
            text in "(\\*|a1|\\+) (OK|NO|BYE|LIST|STATUS|SEARCH|ESEARCH|VANISHED|ID|CAPABILITY|[0-9]{1,3} (FETCH|EXISTS|EXPUNGE))?( |\\(|\\)|\\[|\\]|\"|\\\\|[a-zA-Z0-9:,]{1,4}|NIL|UID|ALL|BODY\\[\\]|FLAGS|MODSEQ|\\{2\\}\r\n..|\\\\Seen){0,14}\r\n",
        ) {
            agree(&text.into());
        }
    }
}
