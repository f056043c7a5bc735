//! Every setting of a policy, with the words it is written in (the contract's table "Settings of a policy").
//!
//! Not here: what follows from them (`judge`), and where a value comes from (`layers`).

use std::{collections::BTreeMap, time::Duration};

use serde::{Deserialize, Serialize};

use super::span::Span;
use crate::{
    core::{
        account::{AccountState, AccountStatus, Label, LabelledStatus},
        attribution::OurDomains,
        inbound::SendClass,
        message::{CaptureField, ContactRole},
        people::{CreatedBy, Role},
        provider::Provider,
    },
    mail::Address,
};

/// What may bring a new conversation into the CRM.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThreadStart {
    /// What the CRM hands in: that is a conversation of the CRM's whether it is listed or not.
    Crm,
    Capture,
    /// A contact writes.
    Inbound,
    /// The user writes to a contact.
    Outbound,
    /// Somebody unknown writes to the user and to a contact.
    Stranger,
}

/// Which later mail of a conversation comes in.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ThreadFollow {
    /// Whoever is on it.
    All,
    /// That which has a contact on it.
    Contacts,
}

/// Which of a contact's addresses make mail his.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Match {
    Primary,
    All,
}

/// Which mail is among colleagues, and stays out for that.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum InternalRule {
    None,
    /// A contact who shares an address with a user is no contact.
    ContactIsUser,
    /// The same only for mail that he writes.
    SenderIsUser,
    /// Mail with another connected account's address on it stays out, whoever else is on it; also when that account has
    /// been disconnected since.
    AnyParticipantAccount,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Drafts {
    Skip,
    Sync,
}

/// What makes contacts of unknown people.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum CreateOn {
    Never,
    /// A copy at a capture address.
    Capture,
    /// The same, and mail that the user sends.
    Sent,
    /// A copy at a capture address, and an answer to what the user sent.
    Exchange,
}

impl CreateOn {
    /// Whether mail that comes in this way makes contacts.
    #[must_use]
    pub fn allows(self, by: CreatedBy) -> bool {
        match by {
            CreatedBy::Capture => self != Self::Never,
            CreatedBy::Sent => self == Self::Sent,
            CreatedBy::Exchange => self == Self::Exchange,
            CreatedBy::Api | CreatedBy::Import => false,
        }
    }
}

/// Of whom contacts are made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CreateFor {
    To,
    ToCc,
}

/// Where a capture address may stand.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CaptureFields {
    Bcc,
    CcBcc,
    /// In To as well.
    Any,
}

impl CaptureFields {
    #[must_use]
    pub fn allow(self, field: CaptureField) -> bool {
        match field {
            CaptureField::Bcc => true,
            CaptureField::Cc => self != Self::Bcc,
            CaptureField::To => self == Self::Any,
        }
    }
}

/// How far apart in time an answer without reference and mail of the same people under its subject may be, to be joined.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SubjectThreading {
    Off,
    Within(Span),
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Attachments {
    None,
    All,
    /// Those whose filename's extension `attachment_types` lists.
    Listed,
}

/// What an attachment that may not come in keeps out.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Oversize {
    SkipMessage,
    SkipFile,
}

/// Who puts a copy of sent mail into the user's Sent mailbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum AppendSent {
    /// Search for it first; append only if the provider filed none.
    Auto,
    Never,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverSync {
    Defer,
    Skip,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OverSend {
    Queue,
    Fail,
}

/// What disconnecting does with what was synced.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnDisconnect {
    /// The request must say.
    Ask,
    Keep,
    Erase,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BulkRoute {
    /// The user's account when From is its address.
    AccountIfFromMatches,
    Smarthost,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum WorkflowRoute {
    Account,
    Smarthost,
}

/// What a workspace sees of an account that several workspaces share.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum MultiTenant {
    /// All see everything.
    Fanout,
    /// All see what a contact writes until one answers; from then on that one alone.
    ReplyWins,
    /// What a workspace sent and the answers to it are its own; what a contact writes of himself all see.
    OriginatingOnly,
}

/// What a user sees of the workspace's mail, who is no administrator.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Visibility {
    Everyone,
    /// What came by his accounts, capture and reply addresses, and what he wrote.
    Owner,
    /// That, and all mail with contacts who are assigned to him.
    Assigned,
}

/// Who may connect an account for a user.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConnectRole {
    /// The user alone, over a link of his own.
    OnlySelf,
    /// Users of these roles, also for others.
    Roles(Vec<Role>),
}

/// How much proof of its sender mail at a capture address needs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Trust {
    Strict,
    Balanced,
    Open,
}

/// Addresses that copies of a message go to.
const READERS_MAX: usize = 10;
/// Addresses that answers are diverted to.
const REPLY_TO_MAX: usize = 5;

/// The colour of what has none of its own.
const PLAIN_COLOR: &str = "gray";

/// All settings, each with a value.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Settings {
    pub thread_start: Vec<ThreadStart>,
    /// Inbound mail starts a conversation only when its contact is assigned to the user.
    pub require_assignment: bool,
    pub thread_follow: ThreadFollow,
    #[serde(rename = "match")]
    pub matching: Match,
    /// The parts in which a contact on a message makes it mail with him.
    pub match_roles: Vec<ContactRole>,
    pub internal_rule: InternalRule,
    /// Mail that the provider flags as a draft, in the mailboxes that are followed.
    pub drafts: Drafts,
    pub create_on: CreateOn,
    pub create_for: CreateFor,
    pub capture_enabled: bool,
    pub capture_fields: CaptureFields,
    pub subject_threading: SubjectThreading,
    /// How far back the first sight of a mailbox reads, in days.
    pub backfill_days: u16,
    pub attachments: Attachments,
    /// Filename extensions in lower case, without the dot.
    pub attachment_types: Vec<String>,
    /// Octets of one attachment, decoded.
    pub attachment_bytes_max: Option<u64>,
    pub oversize: Oversize,
    pub append_sent: AppendSent,
    /// What is sent over the API needs a subject and a text.
    pub require_content: bool,
    pub over_sync: OverSync,
    pub over_send: OverSend,
    /// IDLE where the server has it.
    pub push: bool,
    pub poll_min: Span,
    pub poll_max: Span,
    /// How long an account may fail before it is stopped; nought is at once.
    pub give_up_after: Span,
    pub on_disconnect: OnDisconnect,
    pub bulk_route: BulkRoute,
    pub workflow_route: WorkflowRoute,
    pub multi_tenant: MultiTenant,
    pub visibility: Visibility,
    pub connect_role: ConnectRole,
    /// Providers, by name, at which no account is connected.
    pub exclude_providers: Vec<String>,
    pub trust: Trust,
    /// Who gets a copy of what contacts answer.
    pub reply_copies: Vec<Address>,
    /// The user whom a contact is assigned to gets one.
    pub reply_copy_assigned: bool,
    /// Where answers to what the CRM sends go; to nobody in particular when it is empty.
    pub reply_to: Vec<Address>,
    /// Who gets a blind copy of what the CRM sends, bulk mail apart.
    pub always_bcc: Vec<Address>,
    pub labels: BTreeMap<AccountState, Label>,
}

impl Settings {
    /// A status with the word and the colour for it.
    #[must_use]
    pub fn labelled(&self, status: AccountStatus) -> LabelledStatus {
        let plain = || Label { label: status.state.as_str().to_owned(), color: PLAIN_COLOR.to_owned() };
        let label = self.labels.get(&status.state).cloned().unwrap_or_else(plain);
        LabelledStatus { status, label }
    }

    /// Whether accounts at this provider are left out.
    #[must_use]
    pub fn excludes(&self, provider: &Provider) -> bool {
        self.exclude_providers.iter().any(|name| name == provider.name)
    }

    #[must_use]
    pub fn starts(&self, start: ThreadStart) -> bool {
        self.thread_start.contains(&start)
    }

    /// The settings that name addresses, with how many each may hold: a message has that many readers more.
    #[must_use]
    pub fn address_lists(&self) -> [(&'static str, &[Address], usize); 3] {
        [
            ("reply_copies", &self.reply_copies, READERS_MAX),
            ("reply_to", &self.reply_to, REPLY_TO_MAX),
            ("always_bcc", &self.always_bcc, READERS_MAX),
        ]
    }

    /// The setting that names an address of ours: what is sent there would come back and be sent there again.
    #[must_use]
    pub fn loops(&self, ours: &OurDomains) -> Option<&'static str> {
        let is_loop = |list: &[Address]| list.iter().any(|address| ours.holds(address));
        self.address_lists().into_iter().find(|(_, list, _)| is_loop(list)).map(|(name, ..)| name)
    }

    /// Who gets a blind copy of mail of this class.
    #[must_use]
    pub fn blind_copies(&self, class: SendClass) -> &[Address] {
        match class {
            SendClass::Individual | SendClass::Workflow => &self.always_bcc,
            SendClass::Bulk => &[],
        }
    }

    /// How long to wait between two looks at mailboxes. `usual` is what the operator finds right; `spread`, from 0 to 1, is where
    /// between the shortest and the longest pause to look that are not told of mail.
    #[must_use]
    pub fn poll_pause(&self, usual: Duration, spread: f64) -> Duration {
        let longest = self.poll_max.duration();
        let shortest = self.poll_min.duration().max(usual).min(longest);
        if self.push { shortest } else { shortest + longest.saturating_sub(shortest).mul_f64(spread) }
    }

    /// Whether mail of this class leaves by the user's account; else by the smarthost.
    #[must_use]
    pub fn leaves_by_account(&self, class: SendClass, from_is_accounts: bool) -> bool {
        match class {
            SendClass::Individual => true,
            SendClass::Bulk => self.bulk_route == BulkRoute::AccountIfFromMatches && from_is_accounts,
            SendClass::Workflow => self.workflow_route == WorkflowRoute::Account,
        }
    }
}

impl Serialize for SubjectThreading {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Off => serializer.serialize_str("off"),
            Self::Within(span) => span.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for SubjectThreading {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "off" {
            return Ok(Self::Off);
        }
        text.parse().map(Self::Within).map_err(|_| {
            serde::de::Error::custom(format!("wants \"off\" or a window such as \"7d\", not {text:?}"))
        })
    }
}

/// The word that stands in place of a list of roles.
const ONLY_SELF: &str = "self";

impl Serialize for ConnectRole {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::OnlySelf => serializer.serialize_str(ONLY_SELF),
            Self::Roles(roles) => roles.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for ConnectRole {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Written {
            Word(String),
            Roles(Vec<Role>),
        }
        match Written::deserialize(deserializer) {
            Ok(Written::Word(word)) if word == ONLY_SELF => Ok(Self::OnlySelf),
            Ok(Written::Roles(roles)) if !roles.is_empty() => Ok(Self::Roles(roles)),
            _ => Err(serde::de::Error::custom(
                "wants \"self\", or a list of the roles \"member\" and \"admin\"",
            )),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::core::{
        allowance::Said,
        policy::{Policy, Preset},
    };

    fn settings(preset: &str) -> Arc<Settings> {
        Policy::of_preset(Preset::named(preset).unwrap()).settings
    }

    #[track_caller]
    fn check_route(preset: &str, class: SendClass, from_is_accounts: bool, by_account: bool) {
        assert_eq!(
            settings(preset).leaves_by_account(class, from_is_accounts),
            by_account,
            "{preset} {class:?}"
        );
    }

    #[test]
    fn hilv_12_to_hilv_15_and_faq_16_mail_leaves_as_its_class_says() {
        use SendClass::{Bulk, Individual, Workflow};
        for preset in Preset::all() {
            check_route(preset.name, Individual, true, true);
            check_route(preset.name, Workflow, true, false);
        }
        check_route("highlevel-outlook", Bulk, true, true);
        check_route("highlevel-outlook", Bulk, false, false);
        check_route("kaname-gmail", Bulk, true, false);
    }

    #[track_caller]
    fn check_pause(preset: &str, spread: f64, minutes: u64) {
        let pause = settings(preset).poll_pause(Duration::from_secs(60), spread);
        assert_eq!(pause, Duration::from_secs(minutes * 60), "{preset}");
    }

    #[test]
    fn keap_7_and_real_8_how_often_it_is_looked() {
        check_pause("keap", 0.0, 5);
        check_pause("keap", 1.0, 10);
        check_pause("realpad", 0.0, 10);
        check_pause("realpad", 1.0, 30);
        check_pause("mailweave", 1.0, 1);
    }

    #[test]
    fn keap_9_shsp_13_to_shsp_16_and_real_1_states_have_the_systems_own_words() {
        for (preset, state, word) in [
            ("keap", AccountState::AwaitingFirstMail, "Pending"),
            ("keap", AccountState::Active, "Active"),
            ("sharpspring", AccountState::Stopped, "Connection Issue"),
            ("sharpspring", AccountState::Error, "Error"),
            ("sharpspring", AccountState::WaitingForQuota, "Pending"),
            ("sharpspring", AccountState::Active, "Enabled"),
            ("realpad", AccountState::Error, "Problematic"),
            ("realpad", AccountState::Throttled, "Problematic"),
        ] {
            assert_eq!(settings(preset).labels[&state].label, word, "{preset}");
        }
        for state in AccountState::ALL {
            assert!(settings("mailweave").labels.contains_key(&state), "{state:?}");
        }
    }

    #[test]
    fn presets_keep_the_numbers_of_their_systems() {
        assert_eq!(
            settings("sharpspring").give_up_after.duration(),
            Duration::from_secs(48 * 60 * 60),
            "SHSP-13"
        );
        assert!(settings("realpad").give_up_after.duration().is_zero(), "REAL-6");
        let backfill = |preset| settings(preset).backfill_days;
        assert_eq!((backfill("keap"), backfill("realpad"), backfill("kaname-gmail")), (0, 31, 0));
        let limits = |preset| Preset::named(preset).unwrap().limits;
        assert_eq!(limits("sharpspring").synced_per_day, Said::Limit(100), "SHSP-5");
        assert_eq!(limits("kaname-gmail").sent_per_day, Said::Limit(500), "KANA-12");
        assert_eq!(settings("kaname-gmail").over_send, OverSend::Fail, "KANA-12");
    }
}
