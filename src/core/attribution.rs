//! Who wrote a message, in which direction, and which contacts have a part in it.
//!
//! Not here: whether it belongs into the CRM (`core::policy`), and whether its sender is who he says (a later matter).

use std::{
    borrow::Cow,
    collections::{HashMap, HashSet},
};

use jiff::{SignedDuration, Timestamp};

use super::{
    ids::{ContactId, UserId},
    message::{Author, ContactRole, Direction, Parties},
};
use crate::mail::{
    Address, Automatic, HeaderSummary, Party,
    forward::{Certainty, Forwarded},
};

/// Contacts that one message may create; mail to more people than that is no conversation.
pub const NEW_CONTACTS_MAX: usize = 50;

/// The domains whose addresses are ours: routes into the gateway, never people.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct OurDomains {
    pub capture: Option<String>,
    pub reply: Option<String>,
}

impl OurDomains {
    #[must_use]
    pub fn holds(&self, address: &Address) -> bool {
        [&self.capture, &self.reply].into_iter().flatten().any(|domain| domain == address.domain())
    }

    /// Who is on a message: its header's people without addresses of ours, which belong in nothing we show or send.
    #[must_use]
    pub fn parties(&self, summary: &HeaderSummary) -> Parties {
        let people =
            |list: &[Party]| list.iter().filter(|party| !self.holds(&party.address)).cloned().collect();
        Parties {
            from: people(&summary.from),
            to: people(&summary.to),
            cc: people(&summary.cc),
            bcc: people(&summary.bcc),
            reply_to: people(&summary.reply_to),
        }
    }
}

/// Who of a message's addresses is known to the workspace.
#[derive(Debug, Clone, Default)]
pub struct Known {
    pub users: HashMap<Address, UserId>,
    /// The contact who answers for each address, of those whom policy counts as contacts (`core::policy::people`).
    pub contacts: HashMap<Address, KnownContact>,
    /// Every address that some contact has, whether it counts or not.
    pub listed: HashSet<Address>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KnownContact {
    pub id: ContactId,
    pub assigned_user: Option<UserId>,
    /// When the address became his, where he was a contact before.
    pub since: Option<Timestamp>,
}

/// How far a provider's clock may be behind ours without mail at a new address being taken for older than it.
const CLOCKS_APART: SignedDuration = SignedDuration::from_mins(5);

impl Known {
    /// Who was known when the provider took in mail of this time. An address that a contact was given later counts from then
    /// on: what was exchanged with it before stays private.
    #[must_use]
    pub fn at(&self, time: Timestamp) -> Cow<'_, Self> {
        let is_early = |contact: &KnownContact| {
            contact
                .since
                .is_some_and(|since| time.saturating_add(CLOCKS_APART).is_ok_and(|time| time < since))
        };
        if !self.contacts.values().any(is_early) {
            return Cow::Borrowed(self);
        }
        let mut known = self.clone();
        known.contacts.retain(|_, contact| !is_early(contact));
        Cow::Owned(known)
    }

    /// Counts an address as a user's and nobody else's: his account's, in mail of that account. Whoever is a contact at it, his
    /// private mail is no contact's.
    pub fn claim(&mut self, address: &Address, user: UserId) {
        self.contacts.remove(address);
        self.users.insert(address.clone(), user);
    }

    fn contact(&self, address: &Address) -> Option<ContactId> {
        self.contacts.get(address).map(|contact| contact.id)
    }
}

/// A message as the workspace sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attribution {
    pub direction: Direction,
    pub author: Author,
    pub author_party: Option<Party>,
    /// Each contact once, in the most prominent part he has.
    pub contacts: Vec<(ContactId, ContactRole)>,
    /// The people who are neither users nor addresses of ours.
    pub outsiders: Vec<Address>,
}

/// Who wrote what a message passes on, where it may be filed as his: for mail that a user sent to his capture address alone.
///
/// The caller answers for the rest: that the sender is proved to be that user, that `found` was read from this message
/// (`mail::forward::read`), and that what is filed as the author's is `Forwarded::new_text` and not the user's comment. A contact
/// made of him is the user's, as if the mail had come to the user's mailbox. `None` when the mail stays the user's own: the
/// author is a guess, unnamed, the user himself or one of our routes, or the user wrote to others, who are to see his words.
#[must_use]
pub fn original_author(found: &Forwarded, parties: &Parties, ours: &OurDomains) -> Option<Party> {
    let [sender] = parties.from.as_slice() else { return None };
    let is_to_others = [&parties.to, &parties.cc, &parties.bcc]
        .into_iter()
        .flatten()
        .any(|party| party.address != sender.address && !ours.holds(&party.address));
    if is_to_others || found.certainty == Certainty::Low {
        return None;
    }
    let from = found.from.as_ref()?;
    let address = from.address.clone()?;
    let may_be = address != sender.address && !ours.holds(&address);
    may_be.then(|| Party { address, name: from.name.clone() })
}

/// Attributes a message.
#[must_use]
pub fn attribute(parties: &Parties, known: &Known, ours: &OurDomains) -> Attribution {
    let author_party = parties.from.first().cloned();
    let author = author_party.as_ref().map_or(Author::Other, |party| author_of(&party.address, known));
    let mut outsiders: Vec<_> =
        parties.addresses().filter(|a| is_outsider(a, known, ours)).cloned().collect();
    outsiders.sort();
    outsiders.dedup();
    let direction = match (&author, outsiders.is_empty()) {
        (Author::User(_), true) => Direction::Internal,
        (Author::User(_), false) => Direction::Outbound,
        _ => Direction::Inbound,
    };
    Attribution { direction, author, author_party, contacts: contacts_of(parties, known), outsiders }
}

fn author_of(address: &Address, known: &Known) -> Author {
    let user = known.users.get(address).map(|user| Author::User(*user));
    user.or_else(|| known.contact(address).map(Author::Contact)).unwrap_or(Author::Other)
}

fn is_outsider(address: &Address, known: &Known, ours: &OurDomains) -> bool {
    !known.users.contains_key(address) && !ours.holds(address)
}

fn contacts_of(parties: &Parties, known: &Known) -> Vec<(ContactId, ContactRole)> {
    let roles = [
        (ContactRole::From, &parties.from),
        (ContactRole::To, &parties.to),
        (ContactRole::Cc, &parties.cc),
        (ContactRole::Bcc, &parties.bcc),
    ];
    let mut contacts: Vec<(ContactId, ContactRole)> = Vec::new();
    for (role, people) in roles {
        for id in people.iter().filter_map(|party| known.contact(&party.address)) {
            if !contacts.iter().any(|(seen, _)| *seen == id) {
                contacts.push((id, role));
            }
        }
    }
    contacts
}

/// The contact that a conversation is filed under: who wrote its first message, else the first of the contacts in To, else
/// any. An author who is a contact no more leaves it without one.
#[must_use]
pub fn owner(author: &Author, contacts: &[(ContactId, ContactRole)]) -> Option<ContactId> {
    if let Author::Contact(author) = author {
        return contacts.iter().map(|(contact, _)| *contact).find(|contact| contact == author);
    }
    let first_to = contacts.iter().find(|(_, role)| *role == ContactRole::To);
    first_to.or_else(|| contacts.first()).map(|(contact, _)| *contact)
}

/// Whom of the people on it a message makes contacts of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Whom {
    To,
    ToCc,
    Author,
}

/// The people whom a message makes contacts of: those the workspace does not know yet, never users, addresses of ours, or
/// addresses that nobody reads. Mail that nobody wrote makes no contacts at all (invariant 12).
#[must_use]
pub fn new_contacts<'a>(
    parties: &'a Parties,
    known: &Known,
    ours: &OurDomains,
    automatic: Automatic,
    whom: Whom,
) -> Vec<&'a Party> {
    if automatic != Automatic::No {
        return Vec::new();
    }
    let mut new: Vec<&Party> = Vec::new();
    for party in people(parties, whom) {
        let unknown = is_outsider(&party.address, known, ours) && !known.listed.contains(&party.address);
        let doubled = new.iter().any(|seen| seen.address == party.address);
        if unknown && !doubled && !is_unread(&party.address) && new.len() < NEW_CONTACTS_MAX {
            new.push(party);
        }
    }
    new
}

/// The people of a message who may become contacts, or are matched with contacts instead.
pub fn people(parties: &Parties, whom: Whom) -> impl Iterator<Item = &Party> {
    let (from, to, cc) = match whom {
        Whom::To => (0, usize::MAX, 0),
        Whom::ToCc => (0, usize::MAX, usize::MAX),
        Whom::Author => (1, 0, 0),
    };
    parties.from.iter().take(from).chain(parties.to.iter().take(to)).chain(parties.cc.iter().take(cc))
}

/// Addresses by whose very name nobody reads what is sent there.
fn is_unread(address: &Address) -> bool {
    let plain: String =
        address.local().chars().filter(char::is_ascii_alphabetic).collect::<String>().to_ascii_lowercase();
    ["noreply", "donotreply", "mailerdaemon", "postmaster", "bounce", "bounces"]
        .iter()
        .any(|name| plain.starts_with(name))
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{super::ids::Id, *};

    fn party(text: &str) -> Party {
        Party::new(Address::parse(text).unwrap(), None)
    }

    fn parties(from: &str, to: &[&str], cc: &[&str]) -> Parties {
        let list = |texts: &[&str]| texts.iter().map(|text| party(text)).collect();
        Parties { from: vec![party(from)], to: list(to), cc: list(cc), ..Parties::default() }
    }

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    fn contact(n: u128) -> ContactId {
        ContactId::from_uuid(Uuid::from_u128(n))
    }

    /// Ann and Ben work here, Cora and Dan are contacts; the CRM also lists Ben as a contact, who by policy is none.
    fn known() -> Known {
        let address = |text: &str| Address::parse(text).unwrap();
        let entry = |n| KnownContact { id: contact(n), assigned_user: None, since: None };
        Known {
            users: [(address("ann@us.example"), user(1)), (address("ben@us.example"), user(2))].into(),
            contacts: [(address("cora@out.example"), entry(3)), (address("dan@out.example"), entry(4))]
                .into(),
            listed: ["cora@out.example", "dan@out.example", "ben@us.example", "eva@out.example"]
                .into_iter()
                .map(address)
                .collect(),
        }
    }

    fn ours() -> OurDomains {
        OurDomains { capture: Some("bcc.us.example".into()), reply: Some("reply.us.example".into()) }
    }

    #[track_caller]
    fn check(parties: &Parties, direction: Direction, author: &Author, contacts: &[(u128, ContactRole)]) {
        let got = attribute(parties, &known(), &ours());
        let contacts: Vec<_> = contacts.iter().map(|(n, role)| (contact(*n), *role)).collect();
        assert_eq!((got.direction, &got.author, got.contacts), (direction, author, contacts));
    }

    #[test]
    fn real_17_an_address_that_a_contact_was_given_later_counts_from_then_on() {
        let mut known = known();
        let cora = Address::parse("cora@out.example").unwrap();
        let since: Timestamp = "2026-11-02T09:00:00Z".parse().unwrap();
        known.contacts.get_mut(&cora).unwrap().since = Some(since);
        let names_her = |time: &str| known.at(time.parse().unwrap()).contacts.contains_key(&cora);
        assert!(!names_her("2026-11-01T09:00:00Z"));
        assert!(!names_her("2026-11-02T08:54:59Z"));
        // The provider's clock may be behind.
        assert!(names_her("2026-11-02T08:55:00Z"));
        assert!(names_her("2026-11-03T09:00:00Z"));
        // She stays somebody's contact, of whom no second is made.
        assert!(known.at("2026-11-01T09:00:00Z".parse().unwrap()).listed.contains(&cora));
    }

    #[test]
    fn the_author_is_who_wrote_this_message() {
        use ContactRole::{Cc, From, To};
        let cora = Author::Contact(contact(3));
        check(
            &parties("Ann@us.example", &["cora@out.example"], &[]),
            Direction::Outbound,
            &Author::User(user(1)),
            &[(3, To)],
        );
        check(
            &parties("cora@out.example", &["ann@us.example"], &["dan@out.example"]),
            Direction::Inbound,
            &cora,
            &[(3, From), (4, Cc)],
        );
        check(
            &parties("eve@far.example", &["ann@us.example"], &["cora@out.example"]),
            Direction::Inbound,
            &Author::Other,
            &[(3, Cc)],
        );
    }

    #[test]
    fn a_conversation_is_filed_under_its_author_else_the_first_addressed() {
        use ContactRole::{Cc, From, To};
        let list = |list: &[(u128, ContactRole)]| -> Vec<_> {
            list.iter().map(|(n, role)| (contact(*n), *role)).collect()
        };
        let (user, cora) = (Author::User(user(1)), Author::Contact(contact(3)));
        assert_eq!(owner(&cora, &list(&[(4, To), (3, From)])), Some(contact(3)));
        assert_eq!(owner(&user, &list(&[(3, Cc), (4, To)])), Some(contact(4)));
        assert_eq!(owner(&Author::Other, &list(&[(3, Cc)])), Some(contact(3)));
        assert_eq!(owner(&user, &[]), None);
        // She has been deleted since.
        assert_eq!(owner(&cora, &list(&[(4, To)])), None);
    }

    #[test]
    fn mail_among_users_is_internal_and_names_no_contact() {
        let to_capture = parties("ann@us.example", &["ben@us.example", "x@bcc.us.example"], &[]);
        check(&to_capture, Direction::Internal, &Author::User(user(1)), &[]);
    }

    #[test]
    fn a_message_makes_contacts_of_the_unknown_people_whom_policy_names() {
        let to = [
            "new@out.example",
            "NEW@out.example",
            "cora@out.example",
            "ben@us.example",
            "x@bcc.us.example",
            "no-reply@out.example",
            "eva@out.example",
        ];
        let captured = parties("ann@us.example", &to, &["cc@out.example"]);
        let names = |automatic, whom| {
            let new = new_contacts(&captured, &known(), &ours(), automatic, whom);
            new.iter().map(|party| party.address.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names(Automatic::No, Whom::To), ["new@out.example"]);
        assert_eq!(names(Automatic::No, Whom::ToCc), ["new@out.example", "cc@out.example"]);
        assert_eq!(names(Automatic::No, Whom::Author), [""; 0], "a user is no contact");
        assert_eq!(names(Automatic::AutoReply, Whom::ToCc), [""; 0]);
    }

    #[track_caller]
    fn check_original(outer: &str, inner: &str, expect: Option<&str>) {
        let raw = format!(
            "{outer}\r\nSubject: Fwd: Hi\r\n\r\n---------- Forwarded message ---------\r\nFrom: {inner}\r\nDate: x\r\n\r\nHello\r\n"
        );
        let message = crate::mail::Message::parse(raw.as_bytes());
        let found = crate::mail::forward::read(&message, raw.as_bytes()).unwrap();
        let ours = OurDomains {
            capture: Some("bcc.gw.example".to_owned()),
            reply: Some("reply.gw.example".to_owned()),
        };
        let author = original_author(&found, &ours.parties(&message.summary), &ours);
        assert_eq!(author.as_ref().map(|party| party.address.key()), expect, "{outer} {inner}");
    }

    #[test]
    fn what_is_passed_on_to_the_gateway_alone_is_filed_under_who_wrote_it() {
        let alone = "From: ann@us.example\r\nTo: ann-1@bcc.gw.example";
        check_original(alone, "Bob <bob@x.example>", Some("bob@x.example"));
        // To a colleague with a comment: those are the user's words.
        check_original(&format!("{alone}, ben@us.example"), "Bob <bob@x.example>", None);
        check_original(&format!("{alone}\r\nCc: ben@us.example"), "Bob <bob@x.example>", None);
        check_original(
            "From: ann@us.example, ben@us.example\r\nTo: ann-1@bcc.gw.example",
            "Bob <bob@x.example>",
            None,
        );
        // One of our own addresses, himself, and a name that could be two.
        check_original(alone, "Bob <r-1@reply.gw.example>", None);
        check_original(alone, "Ann <ann@us.example>", None);
        check_original(alone, "bob@x.example; Bob <m@evil.example>", None);
    }
}
