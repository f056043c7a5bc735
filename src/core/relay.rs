//! Passing mail on between a contact and a user who has no account: who it is from, who it goes to, what must not show.
//!
//! Pure. Not here: making the reply addresses and sending (`flow::submit`). We are a Mediator (RFC 5598 section 5): the body,
//! the Message-ID and the references stay, so that both sides' mail clients thread it.

use bytes::Bytes;

use crate::mail::{Address, HeaderName, HeaderText, Party, loop_mark, surgery};

/// The fields that go on, besides `Content-*`: what a reader and his client need. All others stay behind, whatever they are
/// called: servers and clients write the sender's address into fields of their own, ask for answers that would pass us by,
/// and sign what we change.
const KEPT: [&str; 19] = [
    "date",
    "subject",
    "comments",
    "keywords",
    "message-id",
    "in-reply-to",
    "references",
    "thread-topic",
    "thread-index",
    "mime-version",
    "importance",
    "priority",
    "x-priority",
    "x-msmail-priority",
    "sensitivity",
    "auto-submitted",
    "precedence",
    "x-auto-response-suppress",
    "expires",
];

/// How a relayed message is to read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Relayed<'a> {
    /// The author's name at the reply address that stands for him.
    pub from: Party,
    /// Whom to name in To; `None` leaves To and Cc as they are.
    pub to: Option<&'a Party>,
    /// Whom to name in Cc where To is replaced.
    pub cc: &'a [Party],
    /// Where answers go; with none they go to From.
    pub reply_to: &'a [Party],
    /// The loop mark's key and the message it is for.
    pub mark: (&'a [u8; 32], String),
}

/// The author as the other side sees him: his name, never his address.
#[must_use]
pub fn masked(author: Option<&Party>, reply_address: Address) -> Party {
    let name = author.and_then(|party| party.name.clone());
    // A display name that is itself the address would give it away.
    let shown = name.filter(|name| !name.contains('@'));
    Party { address: reply_address, name: shown }
}

/// Rewrites the header for the other side; `hidden` says which addresses must not be left in it.
#[must_use]
pub fn rewrite(raw: &Bytes, relayed: &Relayed<'_>, hidden: impl Fn(&Address) -> bool) -> Bytes {
    let bare = surgery::remove_fields(raw, |name| !passes(name, relayed.to.is_none()));
    let bare = surgery::remove_addresses(&bare, hidden);
    let (key, message) = &relayed.mark;
    let marked = surgery::prepend_fields(
        &bare,
        &[(name(loop_mark::FIELD), HeaderText::clean(&loop_mark::mark(key, message)))],
    );
    let answered = match relayed.reply_to {
        [] => marked,
        reply_to => surgery::set_parties(&marked, "Reply-To", reply_to),
    };
    let from = surgery::set_parties(&answered, "From", std::slice::from_ref(&relayed.from));
    match relayed.to {
        Some(to) => {
            // Each is written before the fields that are there: To stands first in the end.
            let copied = match relayed.cc {
                [] => from,
                cc => surgery::set_parties(&from, "Cc", cc),
            };
            surgery::set_parties(&copied, "To", std::slice::from_ref(to))
        }
        None => from,
    }
}

/// Whether a field goes on. What the CRM wrote for its readers, the recipients and how to leave a list, stays as it is
/// where To does.
fn passes(name: &str, keeps_to: bool) -> bool {
    let name = name.to_ascii_lowercase();
    KEPT.contains(&name.as_str())
        || name.starts_with("content-")
        || (keeps_to && (name == "to" || name == "cc" || name.starts_with("list-")))
}

fn name(name: &str) -> HeaderName {
    HeaderName::parse(name).expect("our own field names are fit")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{HeaderBlock, HeaderSummary};

    fn party(address: &str, name: Option<&str>) -> Party {
        Party::new(Address::parse(address).unwrap(), name)
    }

    const RAW: &str = "Received: from bob.example\r\nDKIM-Signature: v=1\r\nFrom: Bob Ray <bob@out.example>\r\nReply-To: bob@out.example\r\n\
        To: r-abc@reply.example\r\nCc: cora@out.example\r\nX-Authenticated-Sender: host: bob@out.example\r\nResent-From: bob@out.example\r\n\
        List-Unsubscribe: <mailto:bob@out.example>\r\nAutocrypt: addr=bob@out.example\r\nMessage-ID: <1@out.example>\r\nIn-Reply-To: <0@us.example>\r\nSubject: Re: Offer\r\n\r\nYes.\r\n";

    #[test]
    fn the_other_sides_address_is_gone_and_the_thread_stays() {
        let to = party("ann@us.example", Some("Ann"));
        let from = masked(
            Some(&party("bob@out.example", Some("Bob Ray"))),
            Address::parse("r-xyz@reply.example").unwrap(),
        );
        let cc = [party("r-uvw@reply.example", Some("Cora"))];
        let relayed =
            Relayed { from, to: Some(&to), cc: &cc, reply_to: &[], mark: (&[1; 32], "msg_1".into()) };
        let out = rewrite(&Bytes::from_static(RAW.as_bytes()), &relayed, |address| {
            address.domain() == "reply.example" && address.local() == "r-abc"
        });
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(
            !text.contains("bob@out.example")
                && !text.contains("cora@out")
                && !text.contains("r-abc")
                && !text.contains("DKIM"),
            "{text}"
        );
        let summary = HeaderSummary::read(&out);
        assert_eq!(summary.from, [party("r-xyz@reply.example", Some("Bob Ray"))]);
        assert_eq!((summary.to, summary.cc), (vec![to], cc.to_vec()));
        assert_eq!(summary.message_id.unwrap().as_str(), "1@out.example");
        assert_eq!(summary.in_reply_to[0].as_str(), "0@us.example");
        assert!(loop_mark::is_ours(&HeaderBlock::scan(&out), &[1; 32]));
        assert!(text.ends_with("\r\n\r\nYes.\r\n"));
    }

    #[test]
    fn what_the_crm_wrote_for_its_readers_stays_and_what_its_server_noted_goes() {
        let raw = "X-Sender: ann@us.example\r\nSender: ann@us.example\r\nFrom: ann@us.example\r\nTo: bob@out.example\r\n\
            Cc: ann@us.example, cora@out.example\r\nList-Unsubscribe: <https://us.example/u>\r\nContent-Type: text/plain\r\n\
            X-Priority: 1\r\n\r\nHi.";
        let from = Party::new(Address::parse("r-xyz@reply.example").unwrap(), None);
        let desk = [party("desk@out.example", None)];
        let relayed = Relayed { from, to: None, cc: &[], reply_to: &desk, mark: (&[1; 32], "msg_1".into()) };
        let out = rewrite(&Bytes::from_static(raw.as_bytes()), &relayed, |address| address.local() == "ann");
        let text = String::from_utf8_lossy(&out).into_owned();
        assert!(!text.contains("ann@us.example"), "{text}");
        for kept in [
            "To: bob@out",
            "cora@out",
            "List-Unsubscribe: <https",
            "Content-Type: text/plain",
            "X-Priority: 1",
            "Reply-To: <desk@out.example>",
        ] {
            assert!(text.contains(kept), "{kept} in {text}");
        }
    }

    #[test]
    fn a_name_that_is_an_address_is_not_shown() {
        let reply = Address::parse("r-xyz@reply.example").unwrap();
        assert_eq!(masked(Some(&party("bob@out.example", Some("bob@out.example"))), reply).name, None);
    }
}
