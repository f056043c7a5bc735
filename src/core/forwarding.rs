//! Whose a message is that a user forwarded to his capture address: his own, or its original author's.
//!
//! Not here: finding in it who the author is (`mail::forward`), and who the user is (`core::evidence`).

use super::{
    attribution::{self, Known, OurDomains},
    evidence::Level,
    ids::UserId,
    message::Parties,
};
use crate::mail::{Party, forward::Forwarded};

/// A user and the mail he forwarded.
#[derive(Debug, Clone, Copy)]
pub struct Scene<'a> {
    pub user: UserId,
    /// How strong what speaks for him is.
    pub level: Level,
    /// Of the mail that he sent.
    pub parties: &'a Parties,
    /// Who of those, and of those whom the forwarded mail names, is known.
    pub known: &'a Known,
    pub ours: &'a OurDomains,
    /// Everybody sees the mail of every contact.
    pub shares: bool,
}

/// The author under whom it is filed; `None` when it stays the user's.
///
/// Whoever is not proven to be the user names nobody. Users are never filed as people outside, and where not everybody sees
/// everything, nobody writes into the mail of a contact who is a colleague's.
#[must_use]
pub fn author_of(found: &Forwarded, scene: &Scene<'_>) -> Option<Party> {
    if scene.level < Level::E2 {
        return None;
    }
    let author = attribution::original_author(found, scene.parties, scene.ours)?;
    if scene.known.users.contains_key(&author.address) {
        return None;
    }
    let assigned = scene.known.contacts.get(&author.address).and_then(|contact| contact.assigned_user);
    let is_a_colleagues = assigned.is_some_and(|assigned| assigned != scene.user);
    (scene.shares || !is_a_colleagues).then_some(author)
}

/// Whether a user's word makes a contact of an author whom nobody knows: with a doubt left about who he is, it does not.
#[must_use]
pub fn makes_contact(level: Level) -> bool {
    level >= Level::E3
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{
        super::{
            attribution::KnownContact,
            ids::{ContactId, Id as _},
        },
        *,
    };
    use crate::mail::{Address, forward};

    const TEXT: &str = "---------- Forwarded message ---------\nFrom: Cora <cora@out.example>\nDate: Monday\n\
                        Subject: Hi\nTo: ann@us.example\n\nShall we?\n";

    fn address(text: &str) -> Address {
        Address::parse(text).unwrap()
    }

    fn user(n: u128) -> UserId {
        UserId::from_uuid(Uuid::from_u128(n))
    }

    /// Ann (1) forwards to her capture address; Ben is user 2; Cora is a contact assigned to this user.
    fn filed(text: &str, level: Level, assigned: Option<u128>, shares: bool) -> Option<String> {
        let found = forward::in_text(text, "Fwd: Hi").unwrap();
        let party = |text| Party::new(address(text), None);
        let parties = Parties {
            from: vec![party("ann@us.example")],
            to: vec![party("ann-1@bcc.us.example")],
            ..Parties::default()
        };
        let cora = KnownContact {
            id: ContactId::from_uuid(Uuid::from_u128(3)),
            assigned_user: assigned.map(user),
            since: None,
        };
        let known = Known {
            users: [(address("ann@us.example"), user(1)), (address("ben@us.example"), user(2))].into(),
            contacts: [(address("cora@out.example"), cora)].into(),
            ..Known::default()
        };
        let ours = OurDomains { capture: Some("bcc.us.example".into()), reply: None };
        let scene = Scene { user: user(1), level, parties: &parties, known: &known, ours: &ours, shares };
        author_of(&found, &scene).map(|author| author.address.to_string())
    }

    #[test]
    fn only_who_is_proven_names_an_author() {
        for (level, names) in
            [(Level::E0, false), (Level::E1, false), (Level::E2, true), (Level::E3, true), (Level::E4, true)]
        {
            assert_eq!(filed(TEXT, level, None, true).is_some(), names, "{level:?}");
            assert_eq!(makes_contact(level), level >= Level::E3);
        }
        assert_eq!(filed(TEXT, Level::E3, None, true).as_deref(), Some("cora@out.example"));
    }

    #[test]
    fn a_colleague_is_nobody_outside() {
        let bens = TEXT.replace("Cora <cora@out.example>", "Ben <ben@us.example>");
        assert_eq!(filed(&bens, Level::E4, None, true), None);
    }

    #[test]
    fn a_colleagues_contact_is_written_to_only_where_all_is_shared() {
        assert!(filed(TEXT, Level::E3, Some(2), true).is_some());
        assert_eq!(filed(TEXT, Level::E3, Some(2), false), None);
        for assigned in [Some(1), None] {
            assert!(filed(TEXT, Level::E3, assigned, false).is_some());
        }
    }
}
