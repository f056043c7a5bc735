//! A message and what DNS says of its sender: DKIM, SPF, DMARC, ARC. The first octet says how much of the rest is the message; what
//! is behind it are the answers, a line each, given in turn to whatever is asked. Holds: it comes to an end within so many
//! questions, only for names that DNS can have, and what nobody answers proves nothing.

#![no_main]

use jiff::Timestamp;
use libfuzzer_sys::fuzz_target;
use mailweave::{
    core::inquiry::{Inquiry, SmtpSession},
    mail::{
        ReversePath,
        authenticity::{Answer, Answers, Record, RecordKind},
    },
};

/// Rounds of asking; SPF alone allows ten terms with lookups, one behind the other.
const ROUNDS_MAX: usize = 40;
/// Questions in all that the gateway would still answer.
const QUESTIONS_MAX: usize = 20;

fuzz_target!(|data: &[u8]| {
    let Some((share, rest)) = data.split_first() else { return };
    let (raw, said) = rest.split_at(rest.len() * usize::from(*share) / 256);
    let path = ReversePath::Address(mailweave::mail::Address::parse("ann@x.example").unwrap());
    let peer = if share % 2 == 0 { "192.0.2.1".parse().unwrap() } else { "2001:db8::1".parse().unwrap() };
    let session =
        SmtpSession { peer, hello: "mta.x.example", reverse_path: &path, our_hostname: "us.example" };
    let inquiry = Inquiry::open(raw, &session, Timestamp::from_second(1_750_000_000).unwrap());
    let said = String::from_utf8_lossy(said);
    let mut lines = said.lines();
    let (mut answers, mut asked) = (Answers::default(), 0);
    for round in 0.. {
        if let Some(facts) = inquiry.conclude(&mut answers) {
            if said.is_empty() {
                assert!(!facts.proves(), "{facts:?}");
            }
            assert!(facts.signatures.len() <= 5, "{facts:?}");
            return;
        }
        assert!(round < ROUNDS_MAX, "it asks on and on");
        let wanted = answers.take_wanted();
        assert!(!wanted.is_empty(), "it waits for nothing");
        for question in wanted {
            asked += 1;
            let answer = match lines.next() {
                _ if asked > QUESTIONS_MAX => Answer::Refused,
                None => Answer::Void,
                Some("silent") => Answer::Silent,
                Some(line) => Answer::Records(vec![match question.kind {
                    RecordKind::Txt => Record::Text(line.to_owned()),
                    RecordKind::A | RecordKind::Aaaa => Record::Address(line.parse().unwrap_or(peer)),
                    RecordKind::Mx | RecordKind::Ptr => Record::Host(line.to_owned()),
                }]),
            };
            answers.learn(question, answer);
        }
    }
});
