//! Decisions told in words, for a terminal and for mail.
//!
//! Not here: deciding (`core::policy`) and finding what was decided (`store`).

use std::fmt;

use super::decision::{Decision, Verdict};

/// What to say of mail that no decision is known of, with the causes that are likely.
pub const NEVER_SEEN: &str = "Nothing was decided about it: it was never seen. Likely causes:
  - It is only some seconds old.
  - The account it lies in is not connected, is paused or in error, or the mail is older than what was read when the
    account was connected.
  - It lies in a mailbox that is not followed: the inbox and Sent are (at Gmail, All Mail).
  - The copy for the capture address never left: the address was misspelt, or the mail program dropped it.
  - Its provider has given it another Message-ID since: ask by an address instead.
";

/// One block of lines, the last of them ended.
impl fmt::Display for Decision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at = self.at.strftime("%Y-%m-%d %H:%M:%S UTC");
        writeln!(f, "{at}  {}", verdict(self.verdict))?;
        writeln!(f, "  because   {}", self.reason)?;
        writeln!(f, "  rule      {}", self.rule)?;
        writeln!(f, "  policy    {}, version {}", self.preset, self.policy_version)?;
        write!(f, "  seen      {}", door(&self.via))?;
        self.account_id.map_or(Ok(()), |account| write!(f, " ({account})"))?;
        writeln!(f)?;
        self.message_id.map_or(Ok(()), |message| writeln!(f, "  message   {message}"))?;
        if let (true, Some(message)) = (self.is_in_quarantine(), self.message_id) {
            writeln!(f, "  way out   mailweave quarantine release {message}")?;
        }
        writeln!(f, "  decision  {}", self.id)
    }
}

impl Decision {
    /// Whether a person may let it in. What the CRM handed in and is held leaves by itself, or never.
    fn is_in_quarantine(&self) -> bool {
        self.verdict == Verdict::Held && matches!(self.via.as_str(), "capture" | "reply")
    }
}

/// The decisions one after the other, or that there are none.
#[must_use]
pub fn tell(decisions: &[Decision]) -> String {
    if decisions.is_empty() {
        return NEVER_SEEN.to_owned();
    }
    let blocks: Vec<String> = decisions.iter().map(ToString::to_string).collect();
    blocks.join("\n")
}

fn verdict(verdict: Verdict) -> &'static str {
    match verdict {
        Verdict::Synced => "taken into the CRM",
        Verdict::Skipped => "left out of the CRM",
        Verdict::Deferred => "put off until later",
        Verdict::Held => "held until a person decides",
    }
}

fn door(via: &str) -> &str {
    match via {
        "capture" => "as a copy at a capture address",
        "submission" => "handed in by the CRM over SMTP",
        "api" => "handed in by the CRM over the API",
        "account" => "in the mailbox of a connected account",
        "reply" => "as an answer at a reply address",
        other => other,
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::{
        super::ids::{AccountId, DecisionId, Id as _, MessageKey},
        *,
    };

    fn decision() -> Decision {
        Decision {
            id: DecisionId::from_uuid(Uuid::from_u128(1)),
            at: "2026-11-22T16:30:05.123Z".parse().unwrap(),
            verdict: Verdict::Skipped,
            rule: "no_contact".into(),
            reason: "Nobody on it is a contact.".into(),
            preset: "mailweave".into(),
            policy_version: 3,
            message_id: None,
            account_id: Some(AccountId::from_uuid(Uuid::from_u128(2))),
            via: "account".into(),
        }
    }

    #[test]
    fn a_decision_is_a_block_that_says_when_what_why_and_where() {
        let told = decision();
        let (id, account) = (told.id, AccountId::from_uuid(Uuid::from_u128(2)));
        let expected = format!(
            "2026-11-22 16:30:05 UTC  left out of the CRM\n  because   Nobody on it is a contact.\n  \
             rule      no_contact\n  policy    mailweave, version 3\n  \
             seen      in the mailbox of a connected account ({account})\n  decision  {id}\n"
        );
        assert_eq!(told.to_string(), expected);
        assert_eq!(tell(&[told.clone(), told]), format!("{expected}\n{expected}"));
        assert_eq!(tell(&[]), NEVER_SEEN);
    }

    #[test]
    fn what_a_person_may_let_in_says_how() {
        let message = MessageKey::from_uuid(Uuid::from_u128(3));
        for (verdict, via, told) in [
            (Verdict::Held, "capture", true),
            (Verdict::Held, "reply", true),
            (Verdict::Held, "submission", false),
            (Verdict::Synced, "capture", false),
        ] {
            let decision = Decision { verdict, via: via.into(), message_id: Some(message), ..decision() };
            let way_out = format!("  way out   mailweave quarantine release {message}\n");
            assert_eq!(decision.to_string().contains(&way_out), told, "{via}");
        }
    }
}
