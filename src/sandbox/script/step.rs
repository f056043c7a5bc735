//! The steps of a script, as they are written and as they are played.
//!
//! Not here: the file around them (`read`) and doing them (`play`).

use std::{str::FromStr, sync::Arc, time::Duration};

use serde::{Deserialize, Deserializer, de::Error as _};

use crate::{
    core::policy::span::Span,
    mail::Address,
    sandbox::{Act, Farewell, Rotation, Service, Trigger},
};

/// A step and when it is its turn.
#[derive(Debug)]
pub(in crate::sandbox) struct Step {
    pub(super) line: usize,
    pub(super) start: Start,
    pub(super) times: u32,
    pub(super) every: Duration,
    pub(super) deed: Deed,
}

/// What a step waits for.
#[derive(Debug, Clone)]
pub(super) enum Start {
    /// So long after the script began.
    At(Duration),
    /// So long after the step before it.
    After(Duration),
    /// Until so many such commands have been heard.
    When(Trigger, u32),
}

/// What happens.
#[derive(Debug, Clone)]
pub(super) enum Deed {
    Deliver { user: Address, mailbox: String, mail: Mail },
    Revoke { user: Address },
    Expire { user: Address },
    Throttle { user: Address, long: Duration },
    Drop { user: Address, how: Farewell },
    UidValidity { user: Address, mailbox: String },
    Arm { trigger: Trigger, act: Act },
    Move { user: Address, mailbox: String, message: Which, to: String },
    Delete { user: Address, mailbox: String, message: Which },
    Label { user: Address, mailbox: String, message: Which, add: Vec<String>, remove: Vec<String> },
    Flag { user: Address, mailbox: String, message: Which, add: Vec<String>, remove: Vec<String> },
    OAuth { rotation: Option<Rotation>, lifetime: Option<Duration> },
    Say { text: String },
}

/// A message that is delivered: a file as it is, or one made of these.
#[derive(Debug, Clone)]
pub(super) enum Mail {
    File(Arc<[u8]>),
    Made {
        from: String,
        subject: String,
        text: String,
        message_id: Option<String>,
        in_reply_to: Option<String>,
    },
}

/// Which messages of a mailbox.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Which {
    First,
    Last,
    All,
    /// Its Message-ID, without angle brackets.
    Id(String),
}

impl<'de> Deserialize<'de> for Which {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        Ok(match text.as_str() {
            "first" => Self::First,
            "last" => Self::Last,
            "all" => Self::All,
            id if id.contains('@') => Self::Id(id.trim_matches(['<', '>']).to_owned()),
            _ => return Err(D::Error::custom("expected \"first\", \"last\", \"all\" or a Message-ID")),
        })
    }
}

/// A length of time: `"250ms"`, `"90s"`, `"5m"`, `"48h"`, `"30d"`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Wait(pub(super) Duration);

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        if let Some(number) = text.strip_suffix("ms") {
            let wait = number.parse().map(|number| Self(Duration::from_millis(number)));
            return wait.map_err(|_| "expected a length of time such as \"250ms\" or \"5m\"".to_owned());
        }
        text.parse::<Span>().map(|span| Self(span.duration())).map_err(|error| error.to_string())
    }
}

impl<'de> Deserialize<'de> for Wait {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(D::Error::custom)
    }
}

/// The services as scripts name them.
#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum ServiceName {
    Imap,
    Submission,
    Mx,
    OAuth,
}

impl From<ServiceName> for Service {
    fn from(name: ServiceName) -> Self {
        match name {
            ServiceName::Imap => Self::Imap,
            ServiceName::Submission => Self::Submission,
            ServiceName::Mx => Self::Mx,
            ServiceName::OAuth => Self::OAuth,
        }
    }
}

#[derive(Debug, Clone, Copy, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum RotationName {
    Never,
    Lax,
    Strict,
}

impl From<RotationName> for Rotation {
    fn from(name: RotationName) -> Self {
        match name {
            RotationName::Never => Self::Never,
            RotationName::Lax => Self::Lax,
            RotationName::Strict => Self::Strict,
        }
    }
}

#[derive(Debug, Clone, Copy, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub(super) enum How {
    #[default]
    Bye,
    Close,
    Silent,
}

impl From<How> for Farewell {
    fn from(how: How) -> Self {
        match how {
            How::Bye => Self::Bye,
            How::Close => Self::Drop,
            How::Silent => Self::Silence,
        }
    }
}

/// The commands that a step waits for or strikes.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Commands {
    service: ServiceName,
    command: String,
    #[serde(default)]
    containing: Option<String>,
    #[serde(default)]
    pub(super) user: Option<Address>,
    /// How many, or which one; the first is 1.
    #[serde(default = "one")]
    pub(super) count: u32,
}

fn one() -> u32 {
    1
}

impl Commands {
    pub(super) fn trigger(&self) -> Trigger {
        let trigger = Trigger::always(self.service.into(), &self.command);
        Trigger {
            containing: self.containing.as_ref().map(|text| text.to_ascii_lowercase()),
            user: self.user.clone(),
            ..trigger
        }
    }
}

fn inbox() -> String {
    "INBOX".to_owned()
}

fn last() -> Which {
    Which::Last
}

/// The fields of each step, without those that every step has.
pub(super) mod fields {
    use super::{
        Address, Commands, Deserialize, How, RotationName, ServiceName, Wait, Which, inbox, last, one,
    };

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Deliver {
        pub user: Address,
        #[serde(default = "inbox")]
        pub mailbox: String,
        pub file: Option<String>,
        pub from: Option<String>,
        pub subject: Option<String>,
        pub text: Option<String>,
        pub message_id: Option<String>,
        pub in_reply_to: Option<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Somebody {
        pub user: Address,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Throttle {
        pub user: Address,
        #[serde(rename = "for")]
        pub long: Wait,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Drop {
        pub user: Address,
        #[serde(default)]
        pub how: How,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct InMailbox {
        pub user: Address,
        #[serde(default = "inbox")]
        pub mailbox: String,
    }

    /// What `answer`, `delay` and `lose` strike.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Strike {
        pub service: ServiceName,
        pub command: String,
        pub containing: Option<String>,
        pub user: Option<Address>,
        #[serde(default = "one")]
        pub next: u32,
        pub with: Option<String>,
        #[serde(rename = "for")]
        pub long: Option<Wait>,
    }

    impl Strike {
        /// The next so many of them; 0 is all.
        pub fn trigger(&self) -> super::Trigger {
            let (service, command, user) = (self.service, self.command.clone(), self.user.clone());
            let commands = Commands { service, command, containing: self.containing.clone(), user, count: 1 };
            let times = if self.next == 0 { u32::MAX } else { self.next };
            super::Trigger { times, ..commands.trigger() }
        }
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Move {
        pub user: Address,
        #[serde(default = "inbox")]
        pub mailbox: String,
        #[serde(default = "last")]
        pub message: Which,
        pub to: String,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Delete {
        pub user: Address,
        #[serde(default = "inbox")]
        pub mailbox: String,
        #[serde(default = "last")]
        pub message: Which,
    }

    /// What `label` and `flag` change.
    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Mark {
        pub user: Address,
        #[serde(default = "inbox")]
        pub mailbox: String,
        #[serde(default = "last")]
        pub message: Which,
        #[serde(default)]
        pub add: Vec<String>,
        #[serde(default)]
        pub remove: Vec<String>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct OAuth {
        pub rotation: Option<RotationName>,
        pub lifetime: Option<Wait>,
    }

    #[derive(Deserialize)]
    #[serde(deny_unknown_fields)]
    pub struct Say {
        pub text: String,
    }
}
