//! X-GM-EXT-1, Gmail's own items: X-GM-MSGID, X-GM-THRID and X-GM-LABELS in FETCH, SEARCH and STORE, and X-GM-RAW in SEARCH.
//!
//! The codec does not know them, so they are taken out of a command before it is read, and put in place of something that it
//! knows. Not here: what labels are (`sandbox::labels`).

use imap_types::sequence::SequenceSet;

use crate::sandbox::{
    mailbox::{FlagChange, StoredMail},
    state::{SandboxError, World},
};

use super::{
    mailboxes::refuse,
    session::{Answer, Session},
    view::Stale,
};

/// Stands for the item of this number in a SEARCH.
const KEYWORD: &str = "X-GM-KEY-";
/// Items of ours in one command.
const ITEMS_MAX: usize = 100;

/// An item of a FETCH.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Item {
    Message,
    Thread,
    Labels,
}

const ITEMS: [(&str, Item); 3] =
    [("X-GM-MSGID", Item::Message), ("X-GM-THRID", Item::Thread), ("X-GM-LABELS", Item::Labels)];

/// A condition of a SEARCH.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Key {
    Message(u64),
    Thread(u64),
    Label(String),
    Raw(String),
}

/// What a command asks for beyond the standard.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Asked {
    pub(super) items: Vec<Item>,
    pub(super) keys: Vec<Key>,
    pub(super) labels: Option<(FlagChange, Vec<String>)>,
}

/// Takes Gmail's items out of a command. `None` when it has none, or is not to be understood: then the codec judges it.
pub(super) fn take_out(command: &[u8]) -> Option<(Vec<u8>, Asked)> {
    let text = std::str::from_utf8(command).ok()?;
    let upper = text.to_ascii_uppercase();
    if !upper.contains("X-GM-") || upper.contains("}\r\n") {
        return None;
    }
    let mut words = upper.split(' ').skip(1);
    let verb = words.next().filter(|verb| *verb != "UID").or_else(|| words.next())?;
    let (plain, asked) = match verb {
        "FETCH" => fetch(text)?,
        "SEARCH" => search(text)?,
        "STORE" => store(text)?,
        _ => return None,
    };
    Some((plain.into_bytes(), asked))
}

fn fetch(text: &str) -> Option<(String, Asked)> {
    let mut asked = Asked::default();
    let mut plain = String::new();
    for word in words(text) {
        let bare = word.trim_matches(['(', ')', '\r', '\n']);
        let item = ITEMS.iter().find(|(name, _)| bare.eq_ignore_ascii_case(name));
        if !plain.is_empty() && item.is_none() {
            plain.push(' ');
        }
        let Some((_, item)) = item else {
            plain.push_str(word);
            continue;
        };
        asked.items.push(*item);
        // The parentheses stay where they were, and something stays between them.
        plain.push(' ');
        plain.push_str(&word.replace(bare, "UID"));
    }
    Some((plain, asked))
}

fn search(text: &str) -> Option<(String, Asked)> {
    let mut asked = Asked::default();
    let mut plain: Vec<String> = Vec::new();
    let mut all = words(text).into_iter();
    while let Some(word) = all.next() {
        let name = word.trim_start_matches('(').to_ascii_uppercase();
        if !name.starts_with("X-GM-") {
            plain.push(word.to_owned());
            continue;
        }
        let argument = all.next()?;
        let value = argument.trim_end_matches(['\r', '\n', ')']);
        let key = match name.as_str() {
            "X-GM-MSGID" => Key::Message(value.parse().ok()?),
            "X-GM-THRID" => Key::Thread(value.parse().ok()?),
            "X-GM-LABELS" => Key::Label(unquoted(value)),
            "X-GM-RAW" => Key::Raw(unquoted(value)),
            _ => return None,
        };
        let (before, after) = (word.len() - name.len(), argument.get(value.len()..)?);
        plain.push(format!("{}KEYWORD {KEYWORD}{}{after}", "(".repeat(before), asked.keys.len()));
        asked.keys.push(key);
        if asked.keys.len() > ITEMS_MAX {
            return None;
        }
    }
    Some((plain.join(" "), asked))
}

fn store(text: &str) -> Option<(String, Asked)> {
    let at = text.to_ascii_uppercase().find("X-GM-LABELS")?;
    let (before, rest) = text.split_at_checked(at)?;
    let (name, labels) = rest.trim_end().split_once(' ')?;
    let (change, before) = match (before.strip_suffix('+'), before.strip_suffix('-')) {
        (Some(before), _) => (FlagChange::Add, before),
        (_, Some(before)) => (FlagChange::Remove, before),
        _ => (FlagChange::Replace, before),
    };
    let silent = if name.to_ascii_uppercase().ends_with(".SILENT") { ".SILENT" } else { "" };
    let list = labels.strip_prefix('(').and_then(|rest| rest.strip_suffix(')')).unwrap_or(labels);
    let labels: Vec<String> =
        words(list).into_iter().filter(|word| !word.is_empty()).map(unquoted).take(ITEMS_MAX).collect();
    let asked = Asked { labels: Some((change, labels)), ..Asked::default() };
    Some((format!("{before}+FLAGS{silent} ()\r\n"), asked))
}

/// Words, a quoted text being one.
fn words(text: &str) -> Vec<&str> {
    let (mut words, mut from, mut quoted, mut escaped) = (Vec::new(), 0, false, false);
    for (at, letter) in text.char_indices() {
        match letter {
            _ if escaped => escaped = false,
            '\\' if quoted => escaped = true,
            '"' => quoted = !quoted,
            ' ' if !quoted => {
                words.extend(text.get(from..at));
                from = at + 1;
            }
            _ => {}
        }
    }
    words.extend(text.get(from..));
    words
}

fn unquoted(word: &str) -> String {
    match word.strip_prefix('"').and_then(|rest| rest.strip_suffix('"')) {
        Some(inner) => inner.replace("\\\"", "\"").replace("\\\\", "\\"),
        None => word.to_owned(),
    }
}

/// Writes one item of a message.
pub(super) fn write_item(item: Item, mail: &StoredMail, labels: &[String], out: &mut Vec<u8>) {
    let ids = mail.google.map_or((0, 0), |ids| (ids.message, ids.thread));
    let text = match item {
        Item::Message => format!("X-GM-MSGID {}", ids.0),
        Item::Thread => format!("X-GM-THRID {}", ids.1),
        Item::Labels => {
            let labels: Vec<String> = labels.iter().map(|label| written(label)).collect();
            format!("X-GM-LABELS ({})", labels.join(" "))
        }
    };
    out.extend_from_slice(text.as_bytes());
}

/// A label as Gmail writes it: its own in quotes with the backslash doubled, a plain word as it is.
fn written(label: &str) -> String {
    let is_atom = !label.is_empty()
        && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_&/.".contains(&byte));
    if is_atom {
        label.to_owned()
    } else {
        format!("\"{}\"", label.replace('\\', "\\\\").replace('"', "\\\""))
    }
}

/// Whether a message is what the key of this number asks for.
pub(super) fn matches(keyword: &str, keys: &[Key], mail: &StoredMail, labels: &[String]) -> Option<bool> {
    let number: usize = keyword.strip_prefix(KEYWORD)?.parse().ok()?;
    let ids = mail.google;
    Some(match keys.get(number)? {
        Key::Message(id) => ids.is_some_and(|ids| ids.message == *id),
        Key::Thread(id) => ids.is_some_and(|ids| ids.thread == *id),
        Key::Label(label) => labels.iter().any(|own| own.eq_ignore_ascii_case(label)),
        Key::Raw(query) => query.split_whitespace().all(|word| matches_word(word, mail, labels)),
    })
}

/// One word of Gmail's own search language; of its operators those that mail programs use.
fn matches_word(word: &str, mail: &StoredMail, labels: &[String]) -> bool {
    let holds = |text: &str, wanted: &str| text.to_lowercase().contains(&wanted.to_lowercase());
    let field = |name: &str, wanted: &str| mail.header(name).is_some_and(|value| holds(&value, wanted));
    match word.split_once(':') {
        Some(("rfc822msgid", id)) => field("Message-ID", id.trim_matches(['<', '>'])),
        Some((name @ ("from" | "to" | "cc" | "subject"), wanted)) => field(name, wanted),
        Some(("in" | "label", wanted)) => {
            labels.iter().any(|label| label.trim_start_matches('\\').eq_ignore_ascii_case(wanted))
        }
        _ => holds(&String::from_utf8_lossy(&mail.raw), word),
    }
}

impl World {
    /// The labels of a message that a search of its own mailbox may ask for: the mailbox's own among them.
    pub(super) fn all_labels(&self, user: &crate::mail::Address, mail: &StoredMail) -> Vec<String> {
        let ids = mail.google;
        self.user(user).ok().zip(ids).map(|(user, ids)| user.labels(ids.message, "")).unwrap_or_default()
    }
}

impl Session {
    /// STORE of labels.
    pub(super) fn store_labels(
        &mut self,
        (set, by_uid): (&SequenceSet, bool),
        (change, labels): (FlagChange, Vec<String>),
    ) -> Result<Answer, Stale> {
        let Some(view) = &self.view else { return Err(Stale) };
        if !view.writable {
            return Ok(Answer::no("the mailbox is open for reading only"));
        }
        let stored = self.provider.with(|world| {
            view.open(world)?;
            let change = |(_, uid)| match world.relabel(&view.user, (&view.mailbox, uid), (change, &labels)) {
                // Another client was faster.
                Err(SandboxError::NoMessage) => Ok(()),
                other => other,
            };
            Ok(view.chosen(set, by_uid).into_iter().try_for_each(change))
        })?;
        Ok(stored.map_or_else(refuse, |()| Answer::ok("Success")))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(command: &str, plain: &str, asked: Asked) {
        let (text, found) = take_out(format!("{command}\r\n").as_bytes()).unwrap();
        assert_eq!(String::from_utf8(text).unwrap(), format!("{plain}\r\n"));
        assert_eq!(found, asked);
    }

    #[test]
    fn items_are_taken_out_of_a_fetch() {
        let items = |items: &[Item]| Asked { items: items.to_vec(), ..Asked::default() };
        check(
            "a UID FETCH 1:* (FLAGS X-GM-MSGID x-gm-labels BODY.PEEK[HEADER.FIELDS (To)])",
            "a UID FETCH 1:* (FLAGS UID UID BODY.PEEK[HEADER.FIELDS (To)])",
            items(&[Item::Message, Item::Labels]),
        );
        check("a FETCH 1 (X-GM-THRID)", "a FETCH 1 (UID)", items(&[Item::Thread]));
        check("a FETCH 1 X-GM-THRID", "a FETCH 1 UID", items(&[Item::Thread]));
        assert_eq!(take_out(b"a FETCH 1 (FLAGS)\r\n"), None);
        assert_eq!(take_out(b"a LIST \"\" X-GM-RAW\r\n"), None);
    }

    #[test]
    fn keys_are_taken_out_of_a_search_wherever_they_stand() {
        let keys = |keys: &[Key]| Asked { keys: keys.to_vec(), ..Asked::default() };
        check(
            "a UID SEARCH OR (X-GM-MSGID 12 SEEN) NOT X-GM-LABELS \"Big deals\"",
            "a UID SEARCH OR (KEYWORD X-GM-KEY-0 SEEN) NOT KEYWORD X-GM-KEY-1",
            keys(&[Key::Message(12), Key::Label("Big deals".into())]),
        );
        check(
            "a SEARCH (SEEN X-GM-RAW \"subject:offer in:inbox\")",
            "a SEARCH (SEEN KEYWORD X-GM-KEY-0)",
            keys(&[Key::Raw("subject:offer in:inbox".into())]),
        );
        assert_eq!(take_out(b"a SEARCH X-GM-MSGID\r\n"), None);
        assert_eq!(take_out(b"a SEARCH X-GM-MSGID many\r\n"), None);
    }

    #[test]
    fn labels_are_taken_out_of_a_store() {
        let labels = |change, labels: &[&str]| Asked {
            labels: Some((change, labels.iter().map(ToString::to_string).collect())),
            ..Asked::default()
        };
        check(
            "a STORE 1 +X-GM-LABELS (Deals \"My \\\"own\\\"\" \\Inbox)",
            "a STORE 1 +FLAGS ()",
            labels(FlagChange::Add, &["Deals", "My \"own\"", "\\Inbox"]),
        );
        check(
            "a UID STORE 1:2 X-GM-LABELS.SILENT ()",
            "a UID STORE 1:2 +FLAGS.SILENT ()",
            labels(FlagChange::Replace, &[]),
        );
        check("a STORE 1 -X-GM-LABELS Deals", "a STORE 1 +FLAGS ()", labels(FlagChange::Remove, &["Deals"]));
    }
}
