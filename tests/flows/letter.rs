//! A mail as somebody's client writes it.
//!
//! Not here: how it travels.

use std::{
    fmt::Write as _,
    sync::atomic::{AtomicU32, Ordering},
};

/// A mail in the making.
#[derive(Debug, Clone)]
pub struct Letter {
    /// Without angle brackets; unlike any other's in this process.
    pub id: String,
    from: String,
    to: Vec<String>,
    cc: Vec<String>,
    subject: String,
    /// Written once, so that every copy of the letter is the same.
    date: String,
    more: Vec<(String, String)>,
    text: String,
}

impl Letter {
    pub fn new(from: &str, to: &[&str]) -> Self {
        static COUNT: AtomicU32 = AtomicU32::new(1);
        let number = COUNT.fetch_add(1, Ordering::Relaxed);
        Self {
            id: format!("mail-{number}@clients.example.test"),
            from: from.to_owned(),
            to: to.iter().map(|to| (*to).to_owned()).collect(),
            cc: Vec::new(),
            subject: format!("About number {number}"),
            date: written(jiff::Timestamp::now()),
            more: Vec::new(),
            text: format!("This is what number {number} says.\n"),
        }
    }

    #[must_use]
    pub fn cc(mut self, cc: &[&str]) -> Self {
        self.cc = cc.iter().map(|cc| (*cc).to_owned()).collect();
        self
    }

    #[must_use]
    pub fn id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    #[must_use]
    pub fn subject(mut self, subject: &str) -> Self {
        self.subject = subject.to_owned();
        self
    }

    #[must_use]
    pub fn text(mut self, text: &str) -> Self {
        self.text = text.to_owned();
        self
    }

    #[must_use]
    pub fn dated(mut self, at: jiff::Timestamp) -> Self {
        self.date = written(at);
        self
    }

    /// Has it written this many days ago.
    #[must_use]
    pub fn days_ago(mut self, days: i64) -> Self {
        let then = jiff::Timestamp::now() - jiff::SignedDuration::from_hours(24 * days);
        self.date = jiff::fmt::rfc2822::to_string(&then.to_zoned(jiff::tz::TimeZone::UTC)).unwrap();
        self
    }

    /// Adds a header field.
    #[must_use]
    pub fn field(mut self, name: &str, value: &str) -> Self {
        self.more.push((name.to_owned(), value.to_owned()));
        self
    }

    /// Makes it an answer to the mail with this id.
    #[must_use]
    pub fn answering(self, id: &str) -> Self {
        self.field("In-Reply-To", &format!("<{id}>")).field("References", &format!("<{id}>"))
    }

    /// The whole mail, lines ended by LF: whoever sends it makes CRLF of them.
    pub fn raw(&self) -> String {
        let mut raw = format!("From: {}\nTo: {}\n", self.from, self.to.join(", "));
        if !self.cc.is_empty() {
            writeln!(raw, "Cc: {}", self.cc.join(", ")).unwrap();
        }
        writeln!(raw, "Subject: {}\nDate: {}\nMessage-ID: <{}>", self.subject, self.date, self.id).unwrap();
        for (name, value) in &self.more {
            writeln!(raw, "{name}: {value}").unwrap();
        }
        write!(raw, "\n{}", self.text).unwrap();
        raw
    }
}

fn written(at: jiff::Timestamp) -> String {
    jiff::fmt::rfc2822::to_string(&at.to_zoned(jiff::tz::TimeZone::UTC)).unwrap()
}
