//! What DNS said so far, and what it has yet to be asked: the whole acquaintance that the checks have with the network.
//!
//! Not here: asking (`flow::sender`).

use std::{collections::HashMap, net::IpAddr};

/// The kinds of records that the checks need.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum RecordKind {
    Txt,
    A,
    Aaaa,
    Mx,
    Ptr,
}

/// A name and what is wanted of it. The name is in lower case, without a dot at its end.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Question {
    pub name: String,
    pub kind: RecordKind,
}

/// One record, as far as the checks need it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Record {
    /// The strings of a TXT record joined.
    Text(String),
    Address(IpAddr),
    /// A host of MX or PTR, without a dot at its end.
    Host(String),
}

/// What a question got.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Answer {
    Records(Vec<Record>),
    /// The name does not exist, or has no such record.
    Void,
    /// Nobody could say: it may be known later.
    Silent,
    /// It was not asked, as the message makes for more questions than a message may.
    Refused,
}

/// The answers to the questions of one message.
#[derive(Debug, Clone, Default)]
pub struct Answers {
    known: HashMap<Question, Answer>,
    wanted: Vec<Question>,
}

impl Answers {
    /// The answer, or `None` after noting that it is wanted.
    pub fn ask(&mut self, name: &str, kind: RecordKind) -> Option<Answer> {
        let question = Question { name: name.trim_end_matches('.').to_ascii_lowercase(), kind };
        if let Some(answer) = self.known.get(&question) {
            return Some(answer.clone());
        }
        if !self.wanted.contains(&question) {
            self.wanted.push(question);
        }
        None
    }

    pub fn learn(&mut self, question: Question, answer: Answer) {
        self.wanted.retain(|wanted| *wanted != question);
        self.known.insert(question, answer);
    }

    /// What was asked for and is not known, in the order of asking; it counts as not asked for from here on.
    pub fn take_wanted(&mut self) -> Vec<Question> {
        std::mem::take(&mut self.wanted)
    }
}

impl Answer {
    /// The texts of TXT records.
    pub fn texts(&self) -> impl Iterator<Item = &str> {
        self.records().iter().filter_map(|record| match record {
            Record::Text(text) => Some(text.as_str()),
            _ => None,
        })
    }

    pub fn addresses(&self) -> impl Iterator<Item = IpAddr> {
        self.records().iter().filter_map(|record| match record {
            Record::Address(address) => Some(*address),
            _ => None,
        })
    }

    pub fn hosts(&self) -> impl Iterator<Item = &str> {
        self.records().iter().filter_map(|record| match record {
            Record::Host(host) => Some(host.as_str()),
            _ => None,
        })
    }

    fn records(&self) -> &[Record] {
        match self {
            Self::Records(records) => records,
            _ => &[],
        }
    }
}
