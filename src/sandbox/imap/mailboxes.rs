//! LIST, LSUB, STATUS, CREATE, DELETE, RENAME, SUBSCRIBE and UNSUBSCRIBE.
//!
//! Not here: what is in the mailboxes. The hierarchy delimiter is "/", and parents need not exist.

use imap_types::{
    mailbox::{ListMailbox, Mailbox as MailboxName},
    status::StatusDataItemName,
};

use crate::{
    mail::Address,
    sandbox::{
        behaviour::Manner,
        labels,
        mailbox::Mailbox,
        state::{SandboxError, World},
    },
};

use super::{
    session::{Answer, Session},
    wire,
};

impl Session {
    pub(super) fn list(
        &mut self,
        reference: &MailboxName<'_>,
        pattern: &ListMailbox<'_>,
        verb: &str,
    ) -> Answer {
        let pattern: &[u8] = match pattern {
            ListMailbox::Token(token) => token.as_ref(),
            ListMailbox::String(string) => string.as_ref(),
        };
        let reference = wire::mailbox_name(reference).unwrap_or_default();
        let pattern = format!("{reference}{}", String::from_utf8_lossy(pattern));
        self.list_pattern(&pattern, verb, |_| true)
    }

    fn list_pattern(&mut self, pattern: &str, verb: &str, also: impl Fn(&Mailbox) -> bool) -> Answer {
        if pattern.is_empty() {
            // RFC 9051 section 6.3.9: an empty pattern asks for the delimiter.
            self.output.extend_from_slice(format!("* {verb} (\\Noselect) \"/\" \"\"\r\n").as_bytes());
            return Answer::ok("done");
        }
        let Some(user) = self.user.clone() else { return Answer::bad("log in first") };
        let special_use = self.extensions.special_use && verb == "LIST";
        if self.manner == Manner::Google && matches(pattern.as_bytes(), labels::PARENT.as_bytes()) {
            let line = format!("* {verb} (\\HasChildren \\Noselect) \"/\" \"{}\"\r\n", labels::PARENT);
            self.output.extend_from_slice(line.as_bytes());
        }
        let (provider, output) = (&self.provider, &mut self.output);
        provider.with(|world| {
            let Ok(user) = world.user(&user) else { return };
            let asked = |mailbox: &&Mailbox| (verb == "LIST" || mailbox.subscribed) && also(mailbox);
            for mailbox in user.mailboxes.iter().filter(asked) {
                if matches(pattern.as_bytes(), mailbox.name.as_bytes()) {
                    let parent = user.mailboxes.iter().any(|other| is_below(&other.name, &mailbox.name));
                    list_line(mailbox, (verb, parent, special_use), output);
                }
            }
        });
        Answer::ok("done")
    }

    /// `LIST (SPECIAL-USE) …` and `LIST … RETURN (SPECIAL-USE)` of RFC 6154, which the codec does not know. `None` when
    /// it is anything else.
    pub(super) fn extended_list(&mut self, line: &[u8]) -> Option<Answer> {
        if self.user.is_none() || !self.extensions.special_use {
            return None;
        }
        let text = std::str::from_utf8(line).ok()?.trim_end();
        let (_, arguments) = text.split_once(' ')?;
        let (verb, arguments) = arguments.split_once(' ')?;
        if !verb.eq_ignore_ascii_case("LIST") {
            return None;
        }
        let selected = strip_word(arguments, "(SPECIAL-USE) ");
        let plain = selected.unwrap_or(arguments);
        let at = plain.len().checked_sub(" RETURN (SPECIAL-USE)".len());
        let returned = at.and_then(|at| plain.split_at_checked(at));
        let returned = returned.filter(|(_, tail)| tail.eq_ignore_ascii_case(" RETURN (SPECIAL-USE)"));
        if selected.is_none() && returned.is_none() {
            return None;
        }
        let names = returned.map_or(plain, |(names, _)| names);
        let (reference, pattern) = names.split_once(' ')?;
        let pattern = format!("{}{}", unquoted(reference)?, unquoted(pattern)?);
        Some(
            self.list_pattern(&pattern, "LIST", |mailbox| {
                selected.is_none() || mailbox.special_use.is_some()
            }),
        )
    }

    pub(super) fn status(
        &mut self,
        user: &Address,
        name: &MailboxName<'_>,
        items: &[StatusDataItemName],
    ) -> Answer {
        let Some(name) = wire::mailbox_name(name) else { return Answer::bad("that is no mailbox name") };
        let asks_mod_seq = items.contains(&StatusDataItemName::HighestModSeq);
        if asks_mod_seq && !self.extensions.condstore {
            return Answer::bad("CONDSTORE is not offered");
        }
        self.enabled.condstore |= asks_mod_seq;
        let values = self.provider.with(|world| {
            let mailbox = world.mailbox(user, &name).ok()?;
            items.iter().map(|item| status_item(mailbox, item)).collect::<Option<Vec<_>>>()
        });
        let Some(values) = values else { return Answer::no("[NONEXISTENT] no such mailbox") };
        self.output.extend_from_slice(b"* STATUS ");
        wire::string(&mut self.output, name.as_bytes());
        self.output.extend_from_slice(format!(" ({})\r\n", values.join(" ")).as_bytes());
        Answer::ok("done")
    }

    pub(super) fn create(&mut self, user: &Address, name: &MailboxName<'_>) -> Answer {
        self.change(name, |world, name| world.add_mailbox(user, name.trim_end_matches('/')))
    }

    pub(super) fn delete(&mut self, user: &Address, name: &MailboxName<'_>) -> Answer {
        self.change(name, |world, name| world.remove_mailbox(user, name))
    }

    pub(super) fn rename(&mut self, user: &Address, from: &MailboxName<'_>, to: &MailboxName<'_>) -> Answer {
        let Some(to) = wire::mailbox_name(to) else { return Answer::bad("that is no mailbox name") };
        self.change(from, |world, from| world.rename_mailbox(user, from, &to))
    }

    pub(super) fn subscribe(&mut self, user: &Address, name: &MailboxName<'_>, subscribed: bool) -> Answer {
        self.change(name, |world, name| {
            world.mailbox_mut(user, name).map(|mailbox| mailbox.subscribed = subscribed)
        })
    }

    fn change(
        &self,
        name: &MailboxName<'_>,
        change: impl FnOnce(&mut World, &str) -> Result<(), SandboxError>,
    ) -> Answer {
        let name =
            wire::mailbox_name(name).filter(|name| !name.is_empty() && !name.chars().any(char::is_control));
        let Some(name) = name else { return Answer::bad("that is no mailbox name") };
        match self.provider.with(|world| change(world, &name)) {
            Ok(()) => Answer::ok("done"),
            Err(error) => refuse(error),
        }
    }
}

/// The refusal with its RFC 5530 code.
pub(super) fn refuse(error: SandboxError) -> Answer {
    Answer::no(match error {
        SandboxError::NoUser | SandboxError::NoMailbox | SandboxError::NoMessage => {
            "[NONEXISTENT] no such mailbox"
        }
        SandboxError::Exists => "[ALREADYEXISTS] that mailbox exists",
        SandboxError::Full => "[OVERQUOTA] no room",
        SandboxError::TooLarge => "[TOOBIG] that message is too large",
        SandboxError::Permanent => "[CANNOT] that mailbox stays",
    })
}

fn list_line(mailbox: &Mailbox, how: (&str, bool, bool), out: &mut Vec<u8>) {
    let (verb, parent, special_use) = how;
    let children = if parent { "\\HasChildren" } else { "\\HasNoChildren" };
    let attribute = mailbox.special_use.filter(|_| special_use).map(|special_use| special_use.attribute());
    let attributes = attribute.map_or(children.to_owned(), |attribute| format!("{children} {attribute}"));
    out.extend_from_slice(format!("* {verb} ({attributes}) \"/\" ").as_bytes());
    wire::string(out, mailbox.name.as_bytes());
    out.extend_from_slice(b"\r\n");
}

fn is_below(name: &str, parent: &str) -> bool {
    name.strip_prefix(parent).is_some_and(|rest| rest.starts_with('/'))
}

/// `*` matches anything, `%` anything but the delimiter; INBOX matches in any letter case. Tracks every place the
/// pattern can stand at, so that `*%*%*` costs no more than its length times the name's.
fn matches(pattern: &[u8], name: &[u8]) -> bool {
    let pattern = if pattern.eq_ignore_ascii_case(b"INBOX") { b"INBOX" } else { pattern };
    let mut places = vec![false; name.len() + 1];
    if let Some(first) = places.first_mut() {
        *first = true;
    }
    for byte in pattern {
        let mut next = vec![false; name.len() + 1];
        let mut open = false;
        for (at, place) in places.iter().enumerate() {
            let before = at.checked_sub(1).and_then(|before| name.get(before));
            let (may, here) = match byte {
                b'*' => (open || *place, open || *place),
                b'%' => {
                    let goes_on = open && before.is_some_and(|byte| *byte != b'/');
                    (goes_on || *place, goes_on || *place)
                }
                literal => (*place, at > 0 && before == Some(literal) && open),
            };
            open = may;
            if let Some(slot) = next.get_mut(at) {
                *slot = here;
            }
        }
        places = next;
    }
    places.last().copied().unwrap_or(false)
}

fn status_item(mailbox: &Mailbox, item: &StatusDataItemName) -> Option<String> {
    let with_flag = |flag| mailbox.mails.iter().filter(move |mail| mail.has_flag(flag));
    Some(match item {
        StatusDataItemName::Messages => format!("MESSAGES {}", mailbox.mails.len()),
        StatusDataItemName::Recent => "RECENT 0".to_owned(),
        StatusDataItemName::UidNext => format!("UIDNEXT {}", mailbox.uid_next),
        StatusDataItemName::UidValidity => format!("UIDVALIDITY {}", mailbox.uid_validity),
        StatusDataItemName::Unseen => format!("UNSEEN {}", mailbox.mails.len() - with_flag("\\Seen").count()),
        StatusDataItemName::Deleted => format!("DELETED {}", with_flag("\\Deleted").count()),
        StatusDataItemName::DeletedStorage => {
            format!("DELETED-STORAGE {}", with_flag("\\Deleted").map(|mail| mail.raw.len()).sum::<usize>())
        }
        StatusDataItemName::HighestModSeq => format!("HIGHESTMODSEQ {}", mailbox.highest_mod_seq),
    })
}

fn strip_word<'a>(text: &'a str, word: &str) -> Option<&'a str> {
    let (head, rest) = text.split_at_checked(word.len())?;
    head.eq_ignore_ascii_case(word).then_some(rest)
}

/// A name as an atom or in quotes without escapes; `None` for what the plain way should judge.
fn unquoted(text: &str) -> Option<&str> {
    let inner = text.strip_prefix('"').map_or(Some(text), |rest| rest.strip_suffix('"'))?;
    (!inner.contains(['"', '\\', '{'])).then_some(inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_match_as_rfc_9051_says() {
        let check = |pattern: &str, name: &str, expect: bool| {
            assert_eq!(matches(pattern.as_bytes(), name.as_bytes()), expect, "{pattern} {name}");
        };
        check("*", "a/b", true);
        check("%", "a/b", false);
        check("%", "a", true);
        check("a/%", "a/b", true);
        check("a/%", "a/b/c", false);
        check("a*c", "a/b/c", true);
        check("a*c", "a/b", false);
        check("%/%", "a/b", true);
        check("inbox", "INBOX", true);
        check("sent", "Sent", false);
        check("", "a", false);
        check("ab", "a", false);
        check("a", "ab", false);
    }

    #[test]
    fn a_long_pattern_of_wildcards_costs_little() {
        assert!(!matches(
            "*%".repeat(500).as_bytes().iter().chain(b"x").copied().collect::<Vec<_>>().as_slice(),
            &[b'a'; 200]
        ));
    }
}
