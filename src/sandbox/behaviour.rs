//! How the provider behaves: what it announces, what it does to mail it submits, and the faults that a test or the demo
//! has armed.
//!
//! Not here: carrying a fault out. The IMAP session does it by itself, the SMTP side through the wire tap (`tap`).

use std::{collections::VecDeque, time::Duration};

use crate::mail::Address;

/// Faults armed at one time; a test that needs more has a loop it did not mean.
const FAULTS_MAX: usize = 256;

/// What becomes of the sender's own copy of a submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SaveSent {
    /// The client must APPEND it, as with most self-hosted servers.
    #[default]
    Never,
    /// Filed before the final 250, as Gmail does.
    AtOnce,
    /// Filed some time after the final 250, as Exchange Online does.
    After(Duration),
}

/// Whose words the special mailboxes are named in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MailboxNames {
    #[default]
    English,
    German,
    French,
}

/// The IMAP extensions that can be taken away. All are announced unless switched off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extensions {
    pub condstore: bool,
    /// Needs `condstore`.
    pub qresync: bool,
    pub idle: bool,
    pub special_use: bool,
    pub uidplus: bool,
    pub r#move: bool,
    pub literal_plus: bool,
}

impl Default for Extensions {
    fn default() -> Self {
        Self {
            condstore: true,
            qresync: true,
            idle: true,
            special_use: true,
            uidplus: true,
            r#move: true,
            literal_plus: true,
        }
    }
}

/// The character of a provider, or of one user's account at it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Behaviour {
    pub save_sent: SaveSent,
    /// Gives each submission a Message-ID of the provider's and keeps the client's in X-Microsoft-Original-Message-ID.
    pub rewrite_message_id: bool,
    pub extensions: Extensions,
    /// Counts when the user is added; later changes rename nothing.
    pub mailbox_names: MailboxNames,
    /// Takes mail from any reverse-path, the null one too, as a smarthost does; else from the login's own address alone.
    pub any_sender: bool,
}

impl Behaviour {
    /// Files Sent copies itself, at once.
    #[must_use]
    pub fn gmail() -> Self {
        Self { save_sent: SaveSent::AtOnce, ..Self::default() }
    }

    /// Takes mail from any reverse-path.
    #[must_use]
    pub fn smarthost() -> Self {
        Self { any_sender: true, ..Self::default() }
    }

    /// Rewrites Message-IDs, files Sent copies late, and has neither CONDSTORE nor QRESYNC.
    #[must_use]
    pub fn outlook() -> Self {
        let extensions = Extensions { condstore: false, qresync: false, ..Extensions::default() };
        let save_sent = SaveSent::After(Duration::from_secs(2));
        Self { save_sent, rewrite_message_id: true, extensions, ..Self::default() }
    }
}

/// Which of the provider's doors a session came through.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Service {
    Imap,
    Submission,
    Mx,
}

/// When a fault strikes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trigger {
    pub service: Service,
    /// The command, in capitals. `FETCH` also means `UID FETCH`. Besides commands there are `CONNECT` (before the
    /// greeting), `DOT` (the end of DATA) and `APPEND-LITERAL` (before the continuation request of an APPEND).
    pub verb: String,
    /// Counts only commands whose line holds this, compared without regard to letter case.
    pub containing: Option<String>,
    /// Counts only sessions of this user; before authentication there is none.
    pub user: Option<Address>,
    /// Matching commands that pass before the fault strikes.
    pub skip: u32,
    /// How often it strikes then. `u32::MAX` means always.
    pub times: u32,
}

impl Trigger {
    /// The next command of this kind, once.
    #[must_use]
    pub fn next(service: Service, verb: &str) -> Self {
        let verb = verb.to_ascii_uppercase();
        Self { service, verb, containing: None, user: None, skip: 0, times: 1 }
    }

    /// The `n`-th command of this kind from now, once; the first is 1.
    #[must_use]
    pub fn nth(service: Service, verb: &str, n: u32) -> Self {
        Self { skip: n.saturating_sub(1), ..Self::next(service, verb) }
    }

    /// Every command of this kind until the faults are cleared.
    #[must_use]
    pub fn always(service: Service, verb: &str) -> Self {
        Self { times: u32::MAX, ..Self::next(service, verb) }
    }

    #[must_use]
    pub fn containing(self, text: &str) -> Self {
        Self { containing: Some(text.to_ascii_lowercase()), ..self }
    }

    #[must_use]
    pub fn of(self, user: &Address) -> Self {
        Self { user: Some(user.clone()), ..self }
    }
}

/// What a fault does.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// Answers so instead of doing the command. IMAP: what follows the tag (`NO [INUSE] busy`). SMTP: the whole reply.
    Answer(String),
    /// Says good-bye and closes: IMAP `* BYE text`, SMTP `421 text`.
    Bye(String),
    /// Closes without a word, the command not done.
    Drop,
    /// Does the command, sends only so many octets of its answer, and closes. `DropAfter(0)` at `DOT` loses the 250.
    DropAfter(usize),
    /// Does the command after a pause.
    Delay(Duration),
    /// Does the command, and sends its answer after a pause.
    Linger(Duration),
    /// Sends these octets first (`{tag}` stands for the command's tag), then does the command.
    Inject(Vec<u8>),
    /// Sends these octets instead of doing the command.
    Instead(Vec<u8>),
}

#[derive(Debug)]
struct Armed {
    trigger: Trigger,
    act: Act,
}

/// The armed faults, oldest first.
#[derive(Debug, Default)]
pub(super) struct Faults {
    armed: VecDeque<Armed>,
}

/// One command as faults see it.
#[derive(Debug, Clone, Copy)]
pub(super) struct Command<'a> {
    pub(super) service: Service,
    pub(super) verb: &'a str,
    pub(super) line: &'a str,
    pub(super) user: Option<&'a Address>,
}

impl Faults {
    /// Arms one more; the oldest gives way when there are too many.
    pub(super) fn arm(&mut self, trigger: Trigger, act: Act) {
        if self.armed.len() >= FAULTS_MAX {
            self.armed.pop_front();
        }
        self.armed.push_back(Armed { trigger, act });
    }

    pub(super) fn clear(&mut self) {
        self.armed.clear();
    }

    /// What happens to this command: the oldest fault that is due. Every matching trigger counts it.
    pub(super) fn strike(&mut self, command: Command<'_>) -> Option<Act> {
        let mut due = None;
        for Armed { trigger, act } in self.armed.iter_mut().filter(|armed| armed.trigger.matches(command)) {
            if trigger.skip > 0 {
                trigger.skip -= 1;
            } else if due.is_none() {
                due = Some(act.clone());
                trigger.times =
                    if trigger.times == u32::MAX { u32::MAX } else { trigger.times.saturating_sub(1) };
            }
        }
        self.armed.retain(|armed| armed.trigger.times > 0);
        due
    }
}

impl Trigger {
    fn matches(&self, command: Command<'_>) -> bool {
        let verb = command.verb == self.verb
            || command.verb.strip_prefix("UID ").is_some_and(|rest| rest == self.verb);
        let user = self.user.as_ref().is_none_or(|user| command.user == Some(user));
        let text =
            self.containing.as_ref().is_none_or(|text| command.line.to_ascii_lowercase().contains(text));
        self.service == command.service && verb && user && text
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn strike(faults: &mut Faults, verb: &str, line: &str) -> Option<Act> {
        faults.strike(Command { service: Service::Imap, verb, line, user: None })
    }

    #[test]
    fn a_fault_strikes_the_command_it_was_counted_for() {
        let mut faults = Faults::default();
        faults.arm(Trigger::nth(Service::Imap, "fetch", 2), Act::Drop);
        assert_eq!(strike(&mut faults, "FETCH", ""), None);
        assert_eq!(strike(&mut faults, "NOOP", ""), None);
        assert_eq!(strike(&mut faults, "UID FETCH", ""), Some(Act::Drop));
        assert_eq!(strike(&mut faults, "FETCH", ""), None);
    }

    #[test]
    fn a_fault_may_look_at_the_line() {
        let mut faults = Faults::default();
        faults.arm(Trigger::always(Service::Imap, "RCPT").containing("Bob@"), Act::Answer("550 no".into()));
        assert_eq!(strike(&mut faults, "RCPT", "RCPT TO:<ann@x.example>"), None);
        for _ in 0..3 {
            assert!(strike(&mut faults, "RCPT", "RCPT TO:<bob@x.example>").is_some());
        }
        faults.clear();
        assert_eq!(strike(&mut faults, "RCPT", "RCPT TO:<bob@x.example>"), None);
    }

    #[test]
    fn a_fault_of_one_user_leaves_others_alone() {
        let ann = Address::parse("ann@a.example").unwrap();
        let mut faults = Faults::default();
        faults.arm(Trigger::next(Service::Imap, "IDLE").of(&ann), Act::Drop);
        let command = Command { service: Service::Imap, verb: "IDLE", line: "", user: None };
        assert_eq!(faults.strike(command), None);
        assert_eq!(faults.strike(Command { user: Some(&ann), ..command }), Some(Act::Drop));
    }
}
