//! Which of the workspace's contacts count, by the policy's rules `match` and `internal_rule`, and of whom new ones are made.
//!
//! Not here: finding them (`store`), and what part they have in a message (`core::attribution`).

use std::collections::HashMap;

use super::settings::{CreateFor, InternalRule, Match, Settings};
use crate::{
    core::{
        attribution::{Known, KnownContact, Whom},
        ids::{ContactId, UserId},
        people::CreatedBy,
    },
    mail::Address,
};

/// A contact with one of his addresses, as the CRM lists him.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedContact {
    pub address: Address,
    pub contact: ContactId,
    pub assigned_user: Option<UserId>,
    /// It is his primary address.
    pub is_primary: bool,
    /// One of his addresses, be it another, is a user's too.
    pub is_user: bool,
}

/// Who is known. Of several contacts with one address the first of the list answers: the first created.
#[must_use]
pub fn known(
    settings: &Settings,
    users: HashMap<Address, UserId>,
    listed: impl IntoIterator<Item = ListedContact>,
) -> Known {
    let mut known = Known { users, ..Known::default() };
    for one in listed {
        known.listed.insert(one.address.clone());
        if counts(settings, &one) {
            let contact = KnownContact { id: one.contact, assigned_user: one.assigned_user };
            known.contacts.entry(one.address).or_insert(contact);
        }
    }
    known
}

fn counts(settings: &Settings, one: &ListedContact) -> bool {
    let matches = settings.matching == Match::All || one.is_primary;
    matches && !(settings.internal_rule == InternalRule::ContactIsUser && one.is_user)
}

/// Of whom mail that comes in this way makes contacts, where it does.
#[must_use]
pub fn whom(settings: &Settings, by: CreatedBy) -> Whom {
    match (by, settings.create_for) {
        (CreatedBy::Exchange, _) => Whom::Author,
        (_, CreateFor::To) => Whom::To,
        (_, CreateFor::ToCc) => Whom::ToCc,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::core::{
        ids::Id as _,
        policy::{Policy, Preset},
    };

    /// Cora's second address is her private one; the CRM lists Ben, a user, as a contact at his private address.
    fn listed() -> Vec<ListedContact> {
        let one = |text: &str, n, is_primary, is_user| ListedContact {
            address: Address::parse(text).unwrap(),
            contact: ContactId::from_uuid(Uuid::from_u128(n)),
            assigned_user: None,
            is_primary,
            is_user,
        };
        vec![
            one("cora@out.example", 1, true, false),
            one("cora@home.example", 1, false, false),
            one("ben@us.example", 2, false, true),
            one("ben@home.example", 2, true, true),
            // Another contact has an address of Cora's.
            one("cora@home.example", 3, true, false),
        ]
    }

    #[track_caller]
    fn check(preset: &str, expect: &[(&str, u128)]) {
        let policy = Policy::of_preset(Preset::named(preset).unwrap());
        let ben = UserId::from_uuid(Uuid::from_u128(9));
        let users = HashMap::from([(Address::parse("ben@us.example").unwrap(), ben)]);
        let known = known(&policy.settings, users, listed());
        let mut got: Vec<_> =
            known.contacts.iter().map(|(at, who)| (at.to_string(), who.id.uuid().as_u128())).collect();
        got.sort();
        let expect: Vec<_> = expect.iter().map(|(at, n)| ((*at).to_owned(), *n)).collect();
        assert_eq!(got, expect, "{preset}");
        assert_eq!(known.listed.len(), 4, "{preset}: whoever is listed needs no second contact");
    }

    #[test]
    fn keap_24_matches_the_primary_address_only() {
        check("keap", &[("cora@home.example", 3), ("cora@out.example", 1)]);
    }

    #[test]
    fn keap_23_a_contact_who_shares_an_address_with_a_user_is_none() {
        check("mailweave", &[("cora@home.example", 1), ("cora@out.example", 1)]);
    }

    #[test]
    fn real_11_and_real_14_only_mail_at_the_primary_address_counts() {
        check("realpad", &[("ben@home.example", 2), ("cora@home.example", 3), ("cora@out.example", 1)]);
    }

    #[test]
    fn faq_14_an_address_of_several_contacts_is_the_first_created_ones() {
        let all = [
            ("ben@home.example", 2),
            ("ben@us.example", 2),
            ("cora@home.example", 1),
            ("cora@out.example", 1),
        ];
        check("kaname-gmail", &all);
        check("highlevel-outlook", &all);
    }
}
