//! Who else is to read what a contact answers: the addresses that policy names, and the user the contact is assigned to.
//!
//! Pure. Not here: writing and sending a copy (`core::relay`, `flow::submit`), and blind copies of what the CRM sends, which
//! are recipients of that message.

use jiff::SignedDuration;

use super::{
    attribution::OurDomains,
    message::{Author, Direction, Parties},
    people::User,
    policy::Settings,
};
use crate::mail::{Address, Automatic, Kind};

/// Answers of one conversation that are copied within [`CAP_WINDOW`]. Nobody writes that many letters by hand: two machines do
/// that answer each other, and neither says that it is one.
pub const COPIED_MAX: u64 = 30;
pub const CAP_WINDOW: SignedDuration = SignedDuration::from_mins(10);

/// Why there are no more copies of a conversation; shown to the CRM.
pub const CAPPED: &str =
    "More than 30 answers of this conversation were copied within ten minutes, which looks like a loop.";

/// What is known of a message that has just been filed.
#[derive(Debug, Clone, Copy)]
pub struct Filed<'a> {
    pub author: &'a Author,
    pub direction: Direction,
    pub kind: Kind,
    pub automatic: Automatic,
    /// It bears the mark of what we passed on ourselves.
    pub is_marked: bool,
    /// It names what it answers, or joined a conversation.
    pub answers: bool,
}

/// Whether it is an answer that a contact wrote: one by his own hand. What machines send is copied to nobody, or two of them
/// might keep each other busy.
#[must_use]
pub fn is_contacts_answer(filed: &Filed<'_>) -> bool {
    matches!(filed.author, Author::Contact(_))
        && filed.direction == Direction::Inbound
        && filed.automatic == Automatic::No
        && !filed.kind.is_machines()
        && !filed.is_marked
        && filed.answers
}

/// Who gets a copy, each once: nobody who has the message by its own To and Cc, and no address of ours, for it would come back.
/// `assigned` is the contact's user, unless the message lies in his own mailbox.
#[must_use]
pub fn readers(
    settings: &Settings,
    (parties, assigned): (&Parties, Option<&User>),
    ours: &OurDomains,
) -> Vec<Address> {
    let mut has_it: Vec<&Address> = parties.addresses().collect();
    let assigned = assigned.filter(|user| {
        settings.reply_copy_assigned
            && ![&user.email].into_iter().chain(&user.aliases).any(|own| has_it.contains(&own))
    });
    let mut readers = Vec::new();
    for address in assigned.map(|user| &user.email).into_iter().chain(&settings.reply_copies) {
        if !has_it.contains(&address) && !ours.holds(address) {
            has_it.push(address);
            readers.push(address.clone());
        }
    }
    readers
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        core::{
            ids::{ContactId, Id as _, UserId},
            people::Role,
            policy::{Policy, Preset},
        },
        mail::Party,
    };

    #[test]
    fn faq_22_only_what_a_contact_answers_by_his_own_hand_is_copied() {
        let (contact, user) = (
            Author::Contact(ContactId::from_uuid(uuid::Uuid::nil())),
            Author::User(UserId::from_uuid(uuid::Uuid::nil())),
        );
        let answer = Filed {
            author: &contact,
            direction: Direction::Inbound,
            kind: Kind::Mail,
            automatic: Automatic::No,
            is_marked: false,
            answers: true,
        };
        for (filed, expect, why) in [
            (answer, true, "an answer"),
            (Filed { kind: Kind::Forward, ..answer }, true, "forwarded by hand"),
            (Filed { answers: false, ..answer }, false, "a first mail answers nothing"),
            (Filed { author: &user, direction: Direction::Outbound, ..answer }, false, "a user wrote it"),
            (Filed { author: &Author::Other, ..answer }, false, "a stranger wrote it"),
            (Filed { automatic: Automatic::AutoReply, ..answer }, false, "Auto-Submitted: auto-replied"),
            (Filed { automatic: Automatic::Generated, ..answer }, false, "Auto-Submitted: auto-generated"),
            (Filed { automatic: Automatic::List, ..answer }, false, "List-Id"),
            (Filed { automatic: Automatic::Bulk, ..answer }, false, "Precedence: bulk"),
            (Filed { kind: Kind::AutoReply, ..answer }, false, "out of office"),
            (Filed { kind: Kind::Bounce, ..answer }, false, "a delivery report"),
            (Filed { kind: Kind::Invitation, ..answer }, false, "a meeting accepted"),
            (Filed { is_marked: true, ..answer }, false, "we passed it on ourselves"),
        ] {
            assert_eq!(is_contacts_answer(&filed), expect, "{why}");
        }
    }

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn named(addresses: &[&str]) -> Vec<Party> {
        addresses.iter().map(|text| Party::new(address(text), None)).collect()
    }

    #[track_caller]
    fn check(copies: &[&str], by_assignment: bool, (to, cc): (&[&str], &[&str]), expect: &[&str]) {
        let mut settings = (*Policy::of_preset(Preset::default_preset()).settings).clone();
        settings.reply_copies = copies.iter().map(|text| address(text)).collect();
        settings.reply_copy_assigned = by_assignment;
        let parties =
            Parties { from: named(&["bob@x.example"]), to: named(to), cc: named(cc), ..Parties::default() };
        let ben = User {
            id: UserId::from_uuid(uuid::Uuid::nil()),
            email: address("ben@acme.example"),
            name: None,
            aliases: vec![address("benjamin@acme.example")],
            role: Role::Member,
            capture_address: None,
            created_at: jiff::Timestamp::UNIX_EPOCH,
        };
        let ours = OurDomains { capture: Some("bcc.example".into()), reply: Some("reply.example".into()) };
        let got = readers(&settings, (&parties, Some(&ben)), &ours);
        assert_eq!(got.iter().map(Address::key).collect::<Vec<_>>(), expect);
    }

    #[test]
    fn faq_22_who_has_it_already_gets_no_copy_and_nobody_gets_two() {
        let ann = &["ann@acme.example"][..];
        check(&["desk@x.example", "Desk@x.example"], false, (ann, &[]), &["desk@x.example"]);
        check(&["desk@x.example"], true, (ann, &[]), &["ben@acme.example", "desk@x.example"]);
        check(&[], false, (ann, &[]), &[]);
        check(&["ben@acme.example"], true, (ann, &[]), &["ben@acme.example"]);
        check(&["desk@x.example"], false, (ann, &["desk@x.example"]), &[]);
        check(&["bob@x.example"], false, (ann, &[]), &[]);
        check(&[], true, (ann, &["Benjamin@acme.example"]), &[]);
        // The operator has made this domain ours since.
        check(
            &["a@bcc.example", "b@reply.example", "desk@x.example"],
            false,
            (ann, &[]),
            &["desk@x.example"],
        );
    }
}
