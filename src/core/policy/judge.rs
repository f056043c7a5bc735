//! Whether a message belongs into the CRM, decided on facts alone (invariant 8), with the rule that decided.
//!
//! Not here: gathering the facts (`flow`), limits (`core::limits`), and what attachments may come (`attachments`).

use super::{
    Policy, Settings,
    rulings::{capture_sender_unknown, elsewhere, skipped, synced},
    settings::{CreateOn, Drafts, InternalRule, ThreadFollow, ThreadStart},
    tenancy::Elsewhere,
};
use crate::core::{
    attribution::{Attribution, Known},
    decision::Ruling,
    ids::UserId,
    message::{Author, CaptureField, ContactRole, Direction},
};

/// What is found out about a message in a user's mailbox, beside who is on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Traits {
    pub is_draft: bool,
    /// As [`MailboxFacts::is_sent`].
    pub is_sent: bool,
    /// As [`MailboxFacts::is_before`].
    pub is_before: bool,
    /// As [`MailboxFacts::other_account`].
    pub other_account: bool,
    /// As [`MailboxFacts::answers_user`].
    pub answers_user: bool,
    /// As [`MailboxFacts::answered`].
    pub answered: bool,
}

/// What is known of a message in a user's mailbox from its header.
#[derive(Debug, Clone, Copy)]
pub struct MailboxFacts<'a> {
    /// As the policy's rules about contacts have it ([`super::people`]).
    pub attribution: &'a Attribution,
    /// It shares a thread key with mail in the CRM.
    pub thread_known: bool,
    pub is_draft: bool,
    /// It is the account's own user who wrote it.
    pub own: bool,
    /// It lies where only what he sends lies. In an inbox anybody's From may name him.
    pub is_sent: bool,
    /// The provider took it in before the first day of which policy has mail read.
    pub is_before: bool,
    /// Its author is a contact who is assigned to the account's user.
    pub assigned: bool,
    /// Another account of the workspace, be it disconnected, is among its addresses.
    pub other_account: bool,
    /// A person wrote it in answer to mail that a user wrote to him. Asked only where that makes contacts.
    pub answers_user: bool,
    /// Somebody it was written to has answered it. Asked only where that makes contacts.
    pub answered: bool,
    /// What says that it is another workspace's, as `multi_tenant` has it.
    pub elsewhere: Elsewhere,
}

impl<'a> MailboxFacts<'a> {
    /// The facts about a message in this user's mailbox, but for its conversation: whether that is known matters to few.
    #[must_use]
    pub fn of(user: UserId, attribution: &'a Attribution, known: &Known, traits: Traits) -> Self {
        let author = attribution.author_party.as_ref().and_then(|party| known.contacts.get(&party.address));
        Self {
            attribution,
            thread_known: false,
            is_draft: traits.is_draft,
            own: attribution.author == Author::User(user),
            is_sent: traits.is_sent,
            is_before: traits.is_before,
            assigned: author.is_some_and(|author| author.assigned_user == Some(user)),
            other_account: traits.other_account,
            answers_user: traits.answers_user,
            answered: traits.answered,
            elsewhere: Elsewhere::No,
        }
    }
}

/// The facts in the light of the settings.
struct Judge<'a> {
    settings: &'a Settings,
    facts: MailboxFacts<'a>,
}

/// Judges a message found in a user's mailbox.
#[must_use]
pub fn judge_mailbox(policy: &Policy, facts: MailboxFacts<'_>) -> Ruling {
    let judge = Judge { settings: &policy.settings, facts };
    judge
        .left_out()
        .or_else(|| judge.followed())
        .or_else(|| judge.started())
        .unwrap_or_else(|| judge.unwanted())
}

impl Judge<'_> {
    /// Whether a contact has this part, and policy counts it.
    fn has(&self, role: ContactRole) -> bool {
        let contacts = &self.facts.attribution.contacts;
        self.settings.match_roles.contains(&role) && contacts.iter().any(|(_, held)| *held == role)
    }

    fn to_contact(&self) -> bool {
        self.has(ContactRole::To) || self.has(ContactRole::Cc) || self.has(ContactRole::Bcc)
    }

    fn contact_wrote(&self) -> bool {
        self.has(ContactRole::From)
    }

    fn is_users(&self) -> bool {
        matches!(self.facts.attribution.author, Author::User(_))
    }

    /// What keeps a message out whatever conversation it belongs to.
    fn left_out(&self) -> Option<Ruling> {
        let who = self.facts.attribution;
        if self.facts.is_draft && self.settings.drafts == Drafts::Skip {
            return Some(skipped("draft", "It is a draft, not yet sent."));
        }
        if self.facts.is_before {
            return Some(skipped(
                "before_connection",
                "It came before the account was connected, earlier than policy reads back.",
            ));
        }
        if let Some(ruling) = elsewhere(self.facts.elsewhere) {
            return Some(ruling);
        }
        match self.settings.internal_rule {
            InternalRule::AnyParticipantAccount if self.facts.other_account => {
                return Some(skipped(
                    "other_account",
                    "Another account of this workspace is among its addresses.",
                ));
            }
            InternalRule::SenderIsUser if self.contact_wrote() && self.is_users() && !self.facts.own => {
                return Some(skipped(
                    "colleague_wrote",
                    "Its author is a contact, but works in this workspace.",
                ));
            }
            // Then mail of colleagues is like any other.
            InternalRule::None => return None,
            _ => {}
        }
        let internal = who.direction == Direction::Internal && who.contacts.is_empty();
        internal.then(|| skipped("internal", "Everybody on it works in this workspace."))
    }

    /// Later mail of a conversation.
    fn followed(&self) -> Option<Ruling> {
        let follows = match self.settings.thread_follow {
            ThreadFollow::All => true,
            ThreadFollow::Contacts => self.contact_wrote() || self.to_contact(),
        };
        (self.facts.thread_known && follows)
            .then(|| synced("known_thread", "It belongs to a conversation that is in the CRM."))
    }

    /// What may begin a conversation.
    fn started(&self) -> Option<Ruling> {
        let settings = self.settings;
        if self.contact_wrote() && !self.facts.own && settings.starts(ThreadStart::Inbound) {
            return (!settings.require_assignment || self.facts.assigned)
                .then(|| synced("contact_wrote", "A contact wrote it."));
        }
        let wrote = self.is_users() && settings.starts(ThreadStart::Outbound);
        if wrote && self.to_contact() {
            return Some(synced("wrote_to_contact", "A user wrote it to a contact."));
        }
        let sent = self.facts.own && self.facts.is_sent;
        if wrote && sent && self.has_strangers() && settings.create_on == CreateOn::Sent {
            return Some(synced(
                "sent_makes_contact",
                "A user wrote it, and whom users write to becomes a contact.",
            ));
        }
        let unknown = self.facts.attribution.author == Author::Other;
        if unknown && self.facts.answers_user && settings.create_on == CreateOn::Exchange {
            return Some(synced(EXCHANGE, "It answers a user's mail, and who answers becomes a contact."));
        }
        if self.waits_for_answer() && self.facts.answered {
            return Some(synced("answered", "A user wrote it, and who answered it becomes a contact."));
        }
        (unknown && self.to_contact() && settings.starts(ThreadStart::Stranger))
            .then(|| synced("contact_copied", "Somebody unknown wrote it, to a contact as well."))
    }

    fn has_strangers(&self) -> bool {
        !self.facts.attribution.outsiders.is_empty()
    }

    /// Why nothing was begun.
    fn unwanted(&self) -> Ruling {
        match () {
            () if self.contact_wrote() && self.settings.starts(ThreadStart::Inbound) && !self.facts.own => {
                skipped("not_assigned", "A contact wrote it who is not assigned to this user.")
            }
            () if self.contact_wrote() => skipped(
                "inbound_starts_nothing",
                "A contact wrote it, and by policy that begins no conversation.",
            ),
            () if self.to_contact() && self.is_users() => skipped(
                "outbound_starts_nothing",
                "A user wrote it to a contact, and by policy that begins no conversation.",
            ),
            () if self.to_contact() => {
                skipped("stranger_wrote", "A contact is on it, but somebody unknown wrote it.")
            }
            () if self.waits_for_answer() => skipped(
                AWAITS_ANSWER,
                "A user wrote it to somebody unknown, who becomes a contact by answering.",
            ),
            () => skipped("no_contact", "Nobody on it is a contact."),
        }
    }

    fn waits_for_answer(&self) -> bool {
        let sent = self.facts.own && self.facts.is_sent;
        sent && self.has_strangers() && self.settings.create_on == CreateOn::Exchange
    }
}

/// The rule by which an answer to a user's mail makes a contact.
pub const EXCHANGE: &str = "exchange_makes_contact";
/// The rule by which mail of a user's is left out until it is answered.
pub const AWAITS_ANSWER: &str = "awaits_answer";

/// Rules under which what a user wrote is left out because it begins nothing by itself: a copy of it at his capture address would.
pub const MAY_BEGIN: [&str; 3] = ["no_contact", "outbound_starts_nothing", AWAITS_ANSWER];

/// Judges a copy sent to a capture address. `thread_known` as in [`MailboxFacts`]; asked only where policy lets no copy begin
/// a conversation.
#[must_use]
pub fn judge_capture(policy: &Policy, author: &Author, field: CaptureField, thread_known: bool) -> Ruling {
    if !policy.settings.capture_enabled {
        return skipped("capture_off", "Capture addresses are switched off in this workspace.");
    }
    if !policy.settings.capture_fields.allow(field) {
        return skipped("capture_field", "The capture address stood in a field that policy does not allow.");
    }
    match author {
        Author::User(_) if !thread_known && !policy.settings.starts(ThreadStart::Capture) => skipped(
            "capture_starts_nothing",
            "A user sent a copy to a capture address, and by policy that begins no conversation.",
        ),
        Author::User(_) => synced("captured", "A user sent a copy to a capture address."),
        _ => capture_sender_unknown(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::{collection, prelude::*, sample};
    use serde_json::json;
    use uuid::Uuid;

    use super::*;
    use crate::core::{
        decision::Verdict,
        ids::{ContactId, Id},
        policy::{Choice, Choices, FINAL_RULES, Overrides, preset::Preset},
    };
    use crate::mail::Address;
    use ContactRole::{Cc, From, To};
    use Direction::{Inbound, Internal, Outbound};

    fn attribution(direction: Direction, author: Author, roles: &[ContactRole]) -> Attribution {
        let contact = |n| ContactId::from_uuid(Uuid::from_u128(n));
        let contacts = (1_u128..).zip(roles).map(|(n, role)| (contact(n), *role)).collect();
        let outsiders =
            if direction == Internal { Vec::new() } else { vec![Address::parse("x@out.example").unwrap()] };
        Attribution { direction, author, author_party: None, contacts, outsiders }
    }

    fn user() -> Author {
        Author::User(UserId::from_uuid(Uuid::from_u128(9)))
    }

    fn contact() -> Author {
        Author::Contact(ContactId::from_uuid(Uuid::from_u128(1)))
    }

    fn policy(preset: &str) -> Policy {
        Policy::of_preset(Preset::named(preset).unwrap())
    }

    /// The usual facts of a message of this attribution.
    fn facts(attribution: &Attribution) -> MailboxFacts<'_> {
        MailboxFacts {
            attribution,
            thread_known: false,
            is_draft: false,
            own: attribution.direction == Outbound,
            is_sent: attribution.direction == Outbound,
            is_before: false,
            assigned: false,
            other_account: false,
            answers_user: false,
            answered: false,
            elsewhere: Elsewhere::No,
        }
    }

    #[track_caller]
    fn check(preset: &str, facts: MailboxFacts<'_>, rule: &str) {
        assert_eq!(judge_mailbox(&policy(preset), facts).rule, rule, "{preset}");
    }

    #[test]
    fn mail_with_contacts_is_synced_and_all_else_is_private() {
        let p = "mailweave";
        check(p, facts(&attribution(Inbound, contact(), &[From])), "contact_wrote");
        let out = attribution(Outbound, user(), &[To]);
        check(p, facts(&out), "wrote_to_contact");
        check(p, MailboxFacts { is_draft: true, ..facts(&out) }, "draft");
        let alone = attribution(Outbound, user(), &[]);
        check(p, facts(&alone), "no_contact");
        check(p, MailboxFacts { thread_known: true, ..facts(&alone) }, "known_thread");
        let internal = attribution(Internal, user(), &[]);
        check(p, MailboxFacts { thread_known: true, ..facts(&internal) }, "internal");
        check(p, facts(&attribution(Inbound, Author::Other, &[Cc])), "stranger_wrote");
    }

    #[test]
    fn only_a_users_own_mail_is_captured() {
        let rule =
            |author: &Author| judge_capture(&policy("mailweave"), author, CaptureField::Bcc, false).rule;
        assert_eq!(rule(&user()), "captured");
        assert_eq!(rule(&contact()), "capture_sender_unknown");
        assert_eq!(rule(&Author::Other), "capture_sender_unknown");
    }

    #[test]
    fn where_a_copy_begins_no_conversation_it_still_is_taken_into_one() {
        let mut policy = policy("keap");
        Arc::make_mut(&mut policy.settings).capture_enabled = true;
        let rule = |thread_known| judge_capture(&policy, &user(), CaptureField::Bcc, thread_known).rule;
        assert_eq!((rule(false), rule(true)), ("capture_starts_nothing", "captured"));
    }

    #[test]
    fn keap_22_syncs_mail_to_or_from_a_contact_alone() {
        check("keap", facts(&attribution(Inbound, contact(), &[From])), "contact_wrote");
        check("keap", facts(&attribution(Outbound, user(), &[To])), "wrote_to_contact");
        check("keap", facts(&attribution(Inbound, Author::Other, &[])), "no_contact");
    }

    #[test]
    fn keap_25_an_unknown_address_makes_no_contact() {
        check("keap", facts(&attribution(Outbound, user(), &[])), "no_contact");
    }

    #[test]
    fn shsp_1_records_all_that_the_user_sends() {
        check("sharpspring", facts(&attribution(Outbound, user(), &[])), "sent_makes_contact");
        check("sharpspring", facts(&attribution(Outbound, user(), &[To])), "wrote_to_contact");
        check("sharpspring", facts(&attribution(Inbound, contact(), &[From])), "contact_wrote");
        check("sharpspring", facts(&attribution(Inbound, Author::Other, &[])), "no_contact");
        // Whoever writes the user's address into From has not become the user.
        let forged = attribution(Outbound, user(), &[]);
        check("sharpspring", MailboxFacts { is_sent: false, ..facts(&forged) }, "no_contact");
        check("sharpspring", MailboxFacts { own: false, ..facts(&forged) }, "no_contact");
    }

    #[test]
    fn keap_18_faq_4_real_10_what_was_there_before_stays_out_wherever_it_is_moved() {
        let old = attribution(Inbound, contact(), &[From]);
        for preset in ["keap", "kaname-gmail", "realpad", "mailweave"] {
            let facts = MailboxFacts { is_before: true, assigned: true, ..facts(&old) };
            check(preset, facts, "before_connection");
            check(preset, MailboxFacts { thread_known: true, ..facts }, "before_connection");
        }
    }

    #[test]
    fn kana_2_and_kana_15_only_the_crm_begins_a_thread_at_outlook() {
        for one in [attribution(Inbound, contact(), &[From]), attribution(Outbound, user(), &[To])] {
            assert_eq!(judge_mailbox(&policy("kaname-outlook"), facts(&one)).verdict, Verdict::Skipped);
            check("kaname-outlook", MailboxFacts { thread_known: true, ..facts(&one) }, "known_thread");
        }
    }

    #[test]
    fn kana_5_and_kana_6_a_contact_begins_a_thread_if_he_is_assigned_to_the_user() {
        let inbound = attribution(Inbound, contact(), &[From]);
        check("kaname-gmail", MailboxFacts { assigned: true, ..facts(&inbound) }, "contact_wrote");
        check("kaname-gmail", facts(&inbound), "not_assigned");
        check("kaname-gmail", facts(&attribution(Outbound, user(), &[To])), "outbound_starts_nothing");
    }

    #[test]
    fn hilv_4_any_existing_contact_begins_a_thread() {
        check("highlevel-outlook", facts(&attribution(Inbound, contact(), &[From])), "contact_wrote");
    }

    #[test]
    fn hilv_6_mail_from_a_contact_who_is_a_user_stays_out() {
        let wrote = attribution(Internal, user(), &[From]);
        check("highlevel-outlook", facts(&wrote), "colleague_wrote");
        check("highlevel-outlook", MailboxFacts { thread_known: true, ..facts(&wrote) }, "colleague_wrote");
        check("kaname-gmail", MailboxFacts { assigned: true, ..facts(&wrote) }, "contact_wrote");
    }

    #[test]
    fn hilv_5_and_hilv_7_the_bcc_address_may_stand_in_cc_or_bcc_unless_labs_is_off() {
        let rule = |preset, field| judge_capture(&policy(preset), &user(), field, false).rule;
        assert_eq!(rule("highlevel-outlook", CaptureField::Cc), "captured");
        assert_eq!(rule("highlevel-outlook", CaptureField::Bcc), "captured");
        assert_eq!(rule("highlevel-outlook", CaptureField::To), "capture_field");
        assert_eq!(rule("highlevel-outlook-labs-off", CaptureField::Bcc), "capture_off");
        check(
            "highlevel-outlook-labs-off",
            facts(&attribution(Inbound, contact(), &[From])),
            "inbound_starts_nothing",
        );
    }

    #[test]
    fn real_18_mail_with_another_connected_account_on_it_stays_out() {
        let inbound = attribution(Inbound, contact(), &[From]);
        check("realpad", facts(&inbound), "contact_wrote");
        check("realpad", MailboxFacts { other_account: true, ..facts(&inbound) }, "other_account");
        check("mailweave", MailboxFacts { other_account: true, ..facts(&inbound) }, "contact_wrote");
    }

    #[test]
    fn real_14_mail_copied_to_a_customer_comes_in_whoever_wrote_it() {
        check("realpad", facts(&attribution(Inbound, Author::Other, &[Cc])), "contact_copied");
        check("keap", facts(&attribution(Inbound, Author::Other, &[To])), "contact_copied");
        check("highlevel-outlook", facts(&attribution(Inbound, Author::Other, &[To])), "stranger_wrote");
    }

    #[test]
    fn kana_13_and_hilv_3_all_later_mail_of_a_thread_comes_in_and_keap_22_only_that_with_contacts() {
        let stranger = attribution(Inbound, Author::Other, &[]);
        for preset in ["kaname-outlook", "kaname-gmail", "highlevel-outlook", "highlevel-outlook-labs-off"] {
            check(preset, MailboxFacts { thread_known: true, ..facts(&stranger) }, "known_thread");
        }
        for preset in ["keap", "realpad"] {
            check(preset, MailboxFacts { thread_known: true, ..facts(&stranger) }, "no_contact");
        }
    }

    #[test]
    fn colleagues_mail_in_a_known_thread_comes_in_only_where_nothing_keeps_colleagues_out() {
        let internal = attribution(Internal, user(), &[]);
        let known = MailboxFacts { thread_known: true, ..facts(&internal) };
        check("kaname-gmail", known, "known_thread");
        check("highlevel-outlook", known, "internal");
        check("mailweave", known, "internal");
    }

    #[test]
    fn a_contact_counts_in_the_parts_that_policy_names() {
        let mut policy = policy("mailweave");
        Arc::make_mut(&mut policy.settings).match_roles = vec![From, To];
        let copied = attribution(Outbound, user(), &[Cc]);
        assert_eq!(judge_mailbox(&policy, facts(&copied)).rule, "no_contact");
        check("mailweave", facts(&copied), "wrote_to_contact");
    }

    #[test]
    fn kana_7_and_faq_10_another_workspaces_mail_stays_out_of_this_one() {
        let (sent, answer) = (attribution(Outbound, user(), &[To]), attribution(Inbound, contact(), &[From]));
        for (who, elsewhere, rule) in [
            (&sent, Elsewhere::Sent, "sent_by_other_workspace"),
            (&answer, Elsewhere::Answers, "answers_other_workspace"),
            (&answer, Elsewhere::Beside, "replied_by_other_workspace"),
        ] {
            check("mailweave", MailboxFacts { elsewhere, thread_known: true, ..facts(who) }, rule);
        }
    }

    #[test]
    fn an_answered_mail_comes_in_like_its_answer() {
        let mut policy = policy("mailweave");
        Arc::make_mut(&mut policy.settings).create_on = CreateOn::Exchange;
        let sent = attribution(Outbound, user(), &[]);
        assert_eq!(judge_mailbox(&policy, facts(&sent)).rule, AWAITS_ANSWER);
        assert_eq!(judge_mailbox(&policy, MailboxFacts { answered: true, ..facts(&sent) }).rule, "answered");
        check("mailweave", MailboxFacts { answered: true, ..facts(&sent) }, "no_contact");
        // Whoever writes the user's address into From has not become the user.
        for (own, is_sent) in [(true, false), (false, true)] {
            let forged = MailboxFacts { own, is_sent, answered: true, ..facts(&sent) };
            assert_eq!(judge_mailbox(&policy, forged).rule, "no_contact");
        }
    }

    #[test]
    fn real_19_drafts_are_ignored() {
        let out = attribution(Outbound, user(), &[To]);
        check("realpad", MailboxFacts { is_draft: true, ..facts(&out) }, "draft");
    }

    #[test]
    fn faq_8_a_contacts_mail_to_others_is_his_when_the_user_is_among_them() {
        check("highlevel-outlook", facts(&attribution(Inbound, contact(), &[From, To, Cc])), "contact_wrote");
    }

    #[test]
    fn who_answers_a_user_becomes_a_contact_where_policy_says_so() {
        let answer = attribution(Inbound, Author::Other, &[]);
        let mut policy = policy("mailweave");
        Arc::make_mut(&mut policy.settings).create_on = CreateOn::Exchange;
        let facts = MailboxFacts { answers_user: true, ..facts(&answer) };
        assert_eq!(judge_mailbox(&policy, facts).rule, "exchange_makes_contact");
        check("mailweave", facts, "no_contact");
    }

    /// Settings by the words that a request would have.
    fn settings_of(words: &serde_json::Value) -> Policy {
        let overrides = Overrides::new(words.as_object().unwrap().clone()).unwrap();
        let workspace = Choice { preset: None, overrides };
        Choices { workspace, ..Choices::default() }.policy().unwrap()
    }

    prop_compose! {
        fn any_policy()(
            starts in sample::subsequence(vec!["crm", "capture", "inbound", "outbound", "stranger"], 1..=5),
            roles in sample::subsequence(vec!["from", "to", "cc", "bcc"], 1..=4),
            internal in sample::select(vec!["none", "contact_is_user", "sender_is_user", "any_participant_account"]),
            create in sample::select(vec!["never", "capture", "sent", "exchange"]),
            (assigned, drafts, follow) in (any::<bool>(), any::<bool>(), any::<bool>()),
        ) -> Policy {
            settings_of(&json!({
                "thread_start": starts,
                "match_roles": roles,
                "internal_rule": internal,
                "create_on": create,
                "require_assignment": assigned,
                "drafts": if drafts { "sync" } else { "skip" },
                "thread_follow": if follow { "all" } else { "contacts" },
            }))
        }
    }

    prop_compose! {
        fn any_attribution()(
            direction in sample::select(vec![Inbound, Outbound, Internal]),
            roles in collection::vec(sample::select(vec![From, To, Cc, ContactRole::Bcc]), 0..4),
            author in 0..3,
        ) -> Attribution {
            let author = match author {
                0 => user(),
                1 if roles.contains(&From) => contact(),
                _ => Author::Other,
            };
            attribution(direction, author, &roles)
        }
    }

    fn any_elsewhere() -> impl Strategy<Value = Elsewhere> {
        sample::select(vec![Elsewhere::No, Elsewhere::Sent, Elsewhere::Answers, Elsewhere::Beside])
    }

    proptest! {
        /// Another workspace's mail stays out whatever else policy says, and whatever conversation it belongs to.
        #[test]
        fn what_is_another_workspaces_never_comes_in(
            policy in any_policy(),
            who in any_attribution(),
            elsewhere in any_elsewhere(),
            thread_known in any::<bool>(),
        ) {
            let ruling = judge_mailbox(&policy, MailboxFacts { elsewhere, thread_known, ..facts(&who) });
            prop_assert!(elsewhere == Elsewhere::No || ruling.verdict == Verdict::Skipped, "{}", ruling.rule);
        }

        /// Whom the store names first, and which setting stands first in a list, is chance.
        #[test]
        fn the_verdict_does_not_depend_on_the_order_in_which_facts_came(
            policy in any_policy(),
            who in any_attribution(),
            flags in any::<[bool; 9]>(),
            elsewhere in any_elsewhere(),
        ) {
            let [thread_known, is_draft, own, is_sent, is_before, assigned, other_account, answers_user, answered] =
                flags;
            let facts = |attribution| MailboxFacts {
                attribution, thread_known, is_draft, own, is_sent, is_before, assigned, other_account, answers_user,
                answered, elsewhere,
            };
            let mut turned = who.clone();
            turned.contacts.reverse();
            turned.outsiders.reverse();
            let mut other = policy.clone();
            let settings = Arc::make_mut(&mut other.settings);
            settings.thread_start.reverse();
            settings.match_roles.reverse();
            prop_assert_eq!(judge_mailbox(&policy, facts(&who)), judge_mailbox(&other, facts(&turned)));
        }

        /// Whatever is chosen: mail with strangers alone, which nothing connects with the CRM, comes in only where every mail
        /// that users send does.
        #[test]
        fn no_policy_lets_private_mail_in(policy in any_policy(), who in any_attribution(), is_draft in any::<bool>()) {
            let who = Attribution { contacts: Vec::new(), ..who };
            let alone = MailboxFacts { is_draft, ..facts(&who) };
            let sent = policy.settings.create_on == CreateOn::Sent && matches!(who.author, Author::User(_));
            let ruling = judge_mailbox(&policy, alone);
            prop_assert!(ruling.verdict == Verdict::Skipped || sent, "{}", ruling.rule);
        }

        /// What a rule leaves out stays out whatever conversation it turns out to belong to, or is looked at again.
        #[test]
        fn what_is_final_does_not_depend_on_the_conversation(
            policy in any_policy(),
            who in any_attribution(),
            elsewhere in any_elsewhere(),
        ) {
            let alone = MailboxFacts { elsewhere, ..facts(&who) };
            let ruling = judge_mailbox(&policy, alone);
            if FINAL_RULES.contains(&ruling.rule) {
                let known = judge_mailbox(&policy, MailboxFacts { thread_known: true, ..alone });
                prop_assert_eq!(ruling, known);
            }
        }
    }
}
