//! SEARCH and UID SEARCH.
//!
//! Not here: character sets; texts are compared as UTF-8 without regard to ASCII letter case, headers also decoded.

use imap_types::{core::AString, datetime::NaiveDate, search::SearchKey};
use jiff::{civil::Date, tz::TimeZone};

use crate::sandbox::mailbox::{StoredMail, header_fields};

use super::{
    google,
    session::{Answer, Session},
    view::Stale,
    wire::Numbers,
};

/// One message as a search looks at it.
struct Candidate<'a> {
    sequence: u32,
    mail: &'a StoredMail,
    /// What `*` means: the last sequence number and the last UID.
    last: (u32, u32),
    /// What a keyword that stands for an item of Gmail's says.
    google: &'a dyn Fn(&str, &StoredMail) -> Option<bool>,
}

impl Session {
    pub(super) fn search(&mut self, keys: &[SearchKey<'_>], by_uid: bool) -> Result<Answer, Stale> {
        let asks_mod_seq = keys.iter().any(asks_mod_seq);
        if asks_mod_seq && !self.extensions.condstore {
            return Ok(Answer::bad("CONDSTORE is not offered"));
        }
        self.enabled.condstore |= asks_mod_seq;
        let Some(view) = &self.view else { return Err(Stale) };
        let last = view.pairs().last().unwrap_or_default();
        let (hits, highest) = self.provider.with(|world| {
            let mailbox = view.open(world)?;
            let google = |keyword: &str, mail: &StoredMail| {
                let labels = world.all_labels(&view.user, mail);
                google::matches(keyword, &self.google.keys, mail, &labels)
            };
            let known = view.pairs().filter_map(|(sequence, uid)| Some((sequence, mailbox.find(uid)?)));
            let found = known.filter(|(sequence, mail)| {
                let candidate = Candidate { sequence: *sequence, mail, last, google: &google };
                keys.iter().all(|key| candidate.matches(key))
            });
            let hits: Vec<(u32, u64)> = found
                .map(|(sequence, mail)| (if by_uid { mail.uid } else { sequence }, mail.mod_seq))
                .collect();
            let highest = hits.iter().map(|(_, mod_seq)| *mod_seq).max();
            Ok((hits, highest))
        })?;
        let mut line = String::from("* SEARCH");
        for (number, _) in &hits {
            line.push(' ');
            line.push_str(&number.to_string());
        }
        if let Some(highest) = highest.filter(|_| asks_mod_seq) {
            line.push_str(&format!(" (MODSEQ {highest})"));
        }
        line.push_str("\r\n");
        self.output.extend_from_slice(line.as_bytes());
        Ok(Answer::ok("searched"))
    }
}

fn asks_mod_seq(key: &SearchKey<'_>) -> bool {
    match key {
        SearchKey::ModSequence { .. } => true,
        SearchKey::And(keys) => keys.as_ref().iter().any(asks_mod_seq),
        SearchKey::Not(key) => asks_mod_seq(key),
        SearchKey::Or(one, other) => asks_mod_seq(one) || asks_mod_seq(other),
        _ => false,
    }
}

impl Candidate<'_> {
    fn matches(&self, key: &SearchKey<'_>) -> bool {
        let mail = self.mail;
        match key {
            SearchKey::And(keys) => keys.as_ref().iter().all(|key| self.matches(key)),
            SearchKey::Or(one, other) => self.matches(one) || self.matches(other),
            SearchKey::Not(key) => !self.matches(key),
            SearchKey::All | SearchKey::Old => true,
            SearchKey::New | SearchKey::Recent => false,
            SearchKey::SequenceSet(set) => Numbers::new(set, self.last.0).contains(self.sequence),
            SearchKey::Uid(set) => Numbers::new(set, self.last.1).contains(mail.uid),
            SearchKey::Larger(bytes) => mail.raw.len() > usize::try_from(*bytes).unwrap_or(usize::MAX),
            SearchKey::Smaller(bytes) => mail.raw.len() < usize::try_from(*bytes).unwrap_or(usize::MAX),
            SearchKey::ModSequence { modseq, .. } => mail.mod_seq >= *modseq,
            flag => self
                .matches_flag(flag)
                .or_else(|| self.matches_date(flag))
                .unwrap_or_else(|| self.matches_text(flag)),
        }
    }

    fn matches_flag(&self, key: &SearchKey<'_>) -> Option<bool> {
        let has = |flag: &str| Some(self.mail.has_flag(flag));
        let lacks = |flag: &str| Some(!self.mail.has_flag(flag));
        match key {
            SearchKey::Answered => has("\\Answered"),
            SearchKey::Deleted => has("\\Deleted"),
            SearchKey::Draft => has("\\Draft"),
            SearchKey::Flagged => has("\\Flagged"),
            SearchKey::Seen => has("\\Seen"),
            SearchKey::Keyword(word) => {
                let word: &str = word.as_ref();
                let asked = word.starts_with("X-GM-").then(|| (self.google)(word, self.mail)).flatten();
                asked.or_else(|| has(word))
            }
            SearchKey::Unanswered => lacks("\\Answered"),
            SearchKey::Undeleted => lacks("\\Deleted"),
            SearchKey::Undraft => lacks("\\Draft"),
            SearchKey::Unflagged => lacks("\\Flagged"),
            SearchKey::Unseen => lacks("\\Seen"),
            SearchKey::Unkeyword(word) => lacks(word.as_ref()),
            _ => None,
        }
    }

    /// Days are those of UTC, in which internal dates are shown.
    fn matches_date(&self, key: &SearchKey<'_>) -> Option<bool> {
        let internal = || Some(self.mail.internal_date.to_zoned(TimeZone::UTC).date());
        let sent = || {
            let date = mail_parser::MessageParser::default().parse_headers(&*self.mail.raw)?;
            let date = date.date()?;
            Date::new(
                i16::try_from(date.year).ok()?,
                i8::try_from(date.month).ok()?,
                i8::try_from(date.day).ok()?,
            )
            .ok()
        };
        let holds = |own: Option<Date>, wanted: &NaiveDate, order: fn(&Date, &Date) -> bool| {
            Some(own.zip(day(wanted)).is_some_and(|(own, wanted)| order(&own, &wanted)))
        };
        match key {
            SearchKey::Before(date) => holds(internal(), date, Date::lt),
            SearchKey::On(date) => holds(internal(), date, Date::eq),
            SearchKey::Since(date) => holds(internal(), date, Date::ge),
            SearchKey::SentBefore(date) => holds(sent(), date, Date::lt),
            SearchKey::SentOn(date) => holds(sent(), date, Date::eq),
            SearchKey::SentSince(date) => holds(sent(), date, Date::ge),
            _ => None,
        }
    }

    fn matches_text(&self, key: &SearchKey<'_>) -> bool {
        let header = |name: &str, wanted: &AString<'_>| self.header_holds(name, wanted.as_ref());
        match key {
            SearchKey::Header(name, wanted) => header(&String::from_utf8_lossy(name.as_ref()), wanted),
            SearchKey::From(wanted) => header("From", wanted),
            SearchKey::To(wanted) => header("To", wanted),
            SearchKey::Cc(wanted) => header("Cc", wanted),
            SearchKey::Bcc(wanted) => header("Bcc", wanted),
            SearchKey::Subject(wanted) => header("Subject", wanted),
            SearchKey::Body(wanted) => holds(self.mail.split().1, wanted.as_ref()),
            SearchKey::Text(wanted) => holds(&self.mail.raw, wanted.as_ref()),
            _ => false,
        }
    }

    /// RFC 9051 section 6.4.4: an empty text asks only whether the field is there.
    fn header_holds(&self, name: &str, wanted: &[u8]) -> bool {
        let raw = self.mail.split().0;
        let plain = header_fields(raw)
            .filter(|(own, _)| own.eq_ignore_ascii_case(name))
            .any(|(_, value)| holds(value.as_bytes(), wanted));
        let decoded = || {
            let message = mail_parser::MessageParser::default().parse_headers(raw)?;
            let text = message.header(name.to_owned())?.as_text()?.to_owned();
            Some(holds(text.as_bytes(), wanted))
        };
        plain || decoded().unwrap_or(false)
    }
}

fn holds(text: &[u8], wanted: &[u8]) -> bool {
    memchr::memmem::find(&text.to_ascii_lowercase(), &wanted.to_ascii_lowercase()).is_some()
}

fn day(date: &NaiveDate) -> Option<Date> {
    // The codec's type is another crate's; its text form is ISO 8601.
    date.as_ref().to_string().parse().ok()
}
