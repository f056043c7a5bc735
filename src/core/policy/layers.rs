//! Puts a policy together: the defaults, a preset, what the workspace and then the user changes; and says of each value where
//! it comes from.
//!
//! Not here: storing what was changed, and what the settings mean (`settings`).

use std::{collections::BTreeMap, sync::Arc};

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    Policy,
    preset::{self, DEFAULT_PRESET, Preset},
    settings::{Attachments, Settings},
};
use crate::core::provider::Provider;

/// The setting whose value is a table: a layer changes the lines that it names.
const TABLE: &str = "labels";

/// Where a value comes from. The later ones win.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    Default,
    Preset,
    Workspace,
    User,
}

/// A setting that cannot be.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadSetting {
    #[error("there is no setting {name:?}; the nearest is {nearest:?}")]
    Unknown { name: String, nearest: String },
    #[error("{name}: {reason}")]
    Value { name: String, reason: String },
    #[error("there is no preset {0:?}; the nearest is {near:?}, and there are {names}", near = preset::nearest(.0),
        names = preset::names())]
    Preset(String),
}

impl BadSetting {
    /// The setting it is about; `None` for the preset.
    #[must_use]
    pub fn setting(&self) -> Option<&str> {
        match self {
            Self::Unknown { name, .. } | Self::Value { name, .. } => Some(name),
            Self::Preset(_) => None,
        }
    }
}

/// Settings that somebody chose; all others are inherited. Each is known to exist and to have a value of its kind.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Overrides(Map<String, Value>);

impl Overrides {
    /// Checks each setting by itself.
    ///
    /// # Errors
    /// `BadSetting` of the first that does not exist or has a value of another kind.
    pub fn new(settings: Map<String, Value>) -> Result<Self, BadSetting> {
        let defaults = Preset::default_values();
        for (name, value) in &settings {
            if !defaults.contains_key(name) {
                return Err(BadSetting::Unknown { name: name.clone(), nearest: nearest(name, defaults) });
            }
            let mut tried = defaults.clone();
            tried.insert(name.clone(), value.clone());
            let value = |reason| BadSetting::Value { name: name.clone(), reason };
            let settings = read(tried).map_err(value)?;
            sound(&settings).map_err(|(_, reason)| value(reason.to_owned()))?;
        }
        Ok(Self(settings))
    }

    /// What was checked when it was stored. Should a value not be one any more, no policy comes of it.
    #[must_use]
    pub fn stored(settings: Map<String, Value>) -> Self {
        Self(settings)
    }

    #[must_use]
    pub fn settings(&self) -> &Map<String, Value> {
        &self.0
    }
}

/// What one of those who decide has chosen.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choice {
    /// `None` is the preset of the layer below.
    pub preset: Option<String>,
    pub overrides: Overrides,
}

/// Everything that was chosen for a user, or for no user in particular.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Choices {
    /// Raised by every change in the workspace.
    pub version: i64,
    pub workspace: Choice,
    pub user: Choice,
}

impl Choices {
    /// The name of the preset, and who chose it.
    #[must_use]
    pub fn preset(&self) -> (&str, Source) {
        match (&self.user.preset, &self.workspace.preset) {
            (Some(name), _) => (name, Source::User),
            (None, Some(name)) => (name, Source::Workspace),
            (None, None) => (DEFAULT_PRESET, Source::Default),
        }
    }

    fn overrides_nothing(&self) -> bool {
        self.workspace.overrides.0.is_empty() && self.user.overrides.0.is_empty()
    }

    /// Puts the layers together.
    ///
    /// # Errors
    /// `BadSetting` when there is no such preset, or a value is none of its setting any more.
    pub fn effective(&self) -> Result<Effective, BadSetting> {
        let name = self.preset().0;
        let preset = Preset::named(name).ok_or_else(|| BadSetting::Preset(name.to_owned()))?;
        effective(&preset.overrides, &self.workspace.overrides, &self.user.overrides)
    }

    /// Whether this can be chosen. Settings that do not go together do no harm; they are not what anybody wants.
    ///
    /// # Errors
    /// `BadSetting` of the preset, or the setting that does not go with another.
    pub fn check(&self) -> Result<(), BadSetting> {
        let settings = self.effective()?.settings;
        agree(&settings)
            .map_err(|(name, reason)| BadSetting::Value { name: name.to_owned(), reason: reason.to_owned() })
    }

    /// The policy that follows.
    ///
    /// # Errors
    /// As of [`Self::effective`].
    pub fn policy(&self) -> Result<Policy, BadSetting> {
        let name = self.preset().0;
        let settings = match Preset::named(name) {
            Some(preset) if self.overrides_nothing() => Arc::clone(&preset.settings),
            _ => Arc::new(self.effective()?.settings),
        };
        Ok(Policy { preset: self.preset().0.to_owned(), version: self.version, settings })
    }
}

/// A policy as it applies, with the origin of each value.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Effective {
    pub settings: Settings,
    pub from: BTreeMap<String, Source>,
}

/// Puts the layers together.
///
/// # Errors
/// `BadSetting` when a value is none of its setting any more.
pub fn effective(
    preset: &Overrides,
    workspace: &Overrides,
    user: &Overrides,
) -> Result<Effective, BadSetting> {
    let mut values = Preset::default_values().clone();
    let mut from: BTreeMap<String, Source> =
        values.keys().map(|name| (name.clone(), Source::Default)).collect();
    let layers = [(Source::Preset, &preset.0), (Source::Workspace, &workspace.0), (Source::User, &user.0)];
    for (source, layer) in layers {
        for (name, value) in layer {
            put(&mut values, name, value);
            from.insert(name.clone(), source);
        }
    }
    let settings =
        read(values).map_err(|reason| BadSetting::Value { name: "overrides".to_owned(), reason })?;
    Ok(Effective { settings, from })
}

fn put(values: &mut Map<String, Value>, name: &str, value: &Value) {
    match (values.get_mut(name), value) {
        (Some(Value::Object(lines)), Value::Object(changed)) if name == TABLE => {
            lines.extend(changed.clone());
        }
        _ => {
            values.insert(name.to_owned(), value.clone());
        }
    }
}

/// A setting's name, and what is wrong with it.
type Fault = (&'static str, &'static str);

/// Whether each setting makes sense by itself.
fn sound(settings: &Settings) -> Result<(), Fault> {
    if settings.thread_start.is_empty() {
        return Err((
            "thread_start",
            "is empty: nothing could ever come in; to sync nothing, disconnect the accounts",
        ));
    }
    if settings.attachment_types.iter().any(|extension| extension.contains('.')) {
        return Err(("attachment_types", "has a dot: name extensions alone, like \"pdf\""));
    }
    if settings.match_roles.is_empty() {
        return Err(("match_roles", "is empty: nobody would be a contact in any part"));
    }
    if settings.poll_max.duration().is_zero() {
        return Err(("poll_max", "must be a second at least: providers shut out who asks without pause"));
    }
    if settings.exclude_providers.iter().any(|name| Provider::named(name).is_none()) {
        return Err(("exclude_providers", NO_PROVIDER));
    }
    for (name, list, most) in settings.address_lists() {
        if list.len() > most {
            return Err((name, TOO_MANY));
        }
    }
    Ok(())
}

/// What is wrong with a provider of another name.
const NO_PROVIDER: &str = "names a provider that is not known: an account's `provider` shows how it is called, as \"exchange\" for \
     Exchange on premise";

/// What is wrong with a longer list than `Settings::address_lists` allows.
const TOO_MANY: &str = "holds more addresses than it may: 10 for reply_copies and always_bcc, 5 for reply_to; name a group \
     address instead";

/// Whether the settings go together.
fn agree(settings: &Settings) -> Result<(), Fault> {
    if settings.poll_min > settings.poll_max {
        return Err(("poll_min", "is longer than poll_max: lower it, or raise poll_max"));
    }
    if settings.attachments == Attachments::Listed && settings.attachment_types.is_empty() {
        return Err((
            "attachment_types",
            "is empty, while attachments is \"listed\": name extensions, or choose \"none\"",
        ));
    }
    Ok(())
}

/// Settings as they are written.
#[must_use]
pub fn written(settings: &Settings) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(map)) => map,
        other => unreachable!("settings are an object, not {other:?}"),
    }
}

fn read(values: Map<String, Value>) -> Result<Settings, String> {
    serde_json::from_value(Value::Object(values)).map_err(|error| error.to_string())
}

fn nearest(name: &str, defaults: &Map<String, Value>) -> String {
    nearest_of(name, defaults.keys().map(String::as_str)).to_owned()
}

/// The one of these words that is most like another.
pub(super) fn nearest_of<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> &'a str {
    known.min_by_key(|known| strsim::damerau_levenshtein(name, known)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::core::{account::AccountState, attribution::OurDomains};

    fn overrides(value: Value) -> Result<Overrides, BadSetting> {
        let Value::Object(map) = value else { panic!("an object") };
        Overrides::new(map)
    }

    #[track_caller]
    fn refused(value: Value, text: &str) {
        let error = overrides(value)
            .and_then(|overrides| {
                let workspace = Choice { preset: None, overrides };
                Choices { workspace, ..Choices::default() }.check()
            })
            .unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }

    #[test]
    fn faq_22_whoever_gets_mail_by_policy_has_an_address_and_there_are_few_of_them() {
        let many = |count| (0..count).map(|n| format!("desk-{n}@x.example")).collect::<Vec<_>>();
        for (name, most) in [("reply_copies", 10), ("reply_to", 5), ("always_bcc", 10)] {
            assert!(overrides(json!({ name: many(most) })).is_ok(), "{name}");
            refused(json!({ name: many(most + 1) }), &format!("{name}: holds more addresses"));
            for bad in [
                json!(["desk"]),
                json!(["a@x.example, b@x.example"]),
                json!(["<>"]),
                json!("a@x.example"),
                json!([1]),
            ] {
                refused(json!({ name: bad }), &format!("{name}: "));
            }
        }
        refused(json!({ "reply_copy_assigned": "yes" }), "reply_copy_assigned: ");
        for preset in Preset::all() {
            let settings = &preset.settings;
            let is_off = settings.address_lists().iter().all(|(_, list, _)| list.is_empty());
            assert!(is_off && !settings.reply_copy_assigned, "{}: each company's own choice", preset.name);
        }
    }

    #[test]
    fn faq_22_an_address_of_ours_in_a_setting_is_a_loop() {
        let ours = OurDomains { capture: Some("bcc.example".into()), reply: Some("reply.example".into()) };
        let loops = |value: Value| {
            let workspace = Choice { preset: None, overrides: overrides(value).unwrap() };
            Choices { workspace, ..Choices::default() }.effective().unwrap().settings.loops(&ours)
        };
        for name in ["reply_copies", "reply_to", "always_bcc"] {
            for address in ["ann-1@bcc.example", "r-abc@Reply.Example"] {
                assert_eq!(loops(json!({ name: ["desk@x.example", address] })), Some(name));
            }
            assert_eq!(loops(json!({ name: ["desk@x.example", "a@sub.bcc.example"] })), None);
        }
    }

    #[test]
    fn the_last_layer_wins_and_is_named() {
        let preset = Preset::named("keap").unwrap();
        let workspace = overrides(json!({ "match": "all", "backfill_days": 7 })).unwrap();
        let user = overrides(json!({ "backfill_days": 3 })).unwrap();
        let effective = effective(&preset.overrides, &workspace, &user).unwrap();
        let from = |name: &str| effective.from[name];
        assert_eq!(effective.settings.backfill_days, 3);
        assert_eq!(
            (from("backfill_days"), from("match"), from("append_sent"), from("drafts")),
            (Source::User, Source::Workspace, Source::Preset, Source::Default)
        );
    }

    #[test]
    fn a_users_preset_stands_in_place_of_the_workspaces_and_labels_are_changed_one_by_one() {
        let label = json!({ "labels": { "active": { "label": "On", "color": "green" } } });
        let mut choices = Choices {
            version: 4,
            workspace: Choice { preset: Some("keap".into()), overrides: overrides(label).unwrap() },
            user: Choice::default(),
        };
        let label = |settings: &Settings, state| settings.labels[&state].label.clone();
        assert_eq!(choices.preset(), ("keap", Source::Workspace));
        let settings = choices.policy().unwrap().settings;
        assert_eq!(label(&settings, AccountState::Active), "On");
        assert_eq!(label(&settings, AccountState::AwaitingFirstMail), "Pending");
        choices.user.preset = Some("realpad".into());
        let policy = choices.policy().unwrap();
        assert_eq!((policy.preset.as_str(), policy.version), ("realpad", 4));
        assert_eq!(label(&policy.settings, AccountState::Error), "Problematic");
        assert_eq!(label(&policy.settings, AccountState::Active), "On");
        assert_eq!(choices.preset(), ("realpad", Source::User));
    }

    #[test]
    fn a_bad_setting_is_named_with_the_way_out() {
        refused(
            json!({ "bakfill_days": 3 }),
            "no setting \"bakfill_days\"; the nearest is \"backfill_days\"",
        );
        refused(json!({ "match": "some" }), "match: unknown variant `some`, expected `primary` or `all`");
        refused(json!({ "backfill_days": -1 }), "backfill_days: invalid value");
        refused(json!({ "give_up_after": "soon" }), "give_up_after: a duration is");
        refused(json!({ "subject_threading": "yes" }), "subject_threading: wants \"off\" or a window");
        refused(json!({ "connect_role": "boss" }), "connect_role: wants \"self\", or a list");
        refused(json!({ "poll_min": "2h" }), "poll_min: is longer than poll_max");
        refused(json!({ "attachments": "listed" }), "attachment_types: is empty");
        refused(json!({ "thread_start": [] }), "thread_start: is empty");
        refused(
            json!({ "exclude_providers": ["Exchange"] }),
            "exclude_providers: names a provider that is not known",
        );
        refused(json!({ "match_roles": [] }), "match_roles: is empty");
        refused(json!({ "poll_max": "0s" }), "poll_max: must be a second");
        refused(
            json!({ "labels": { "asleep": { "label": "Asleep", "color": "gray" } } }),
            "labels: unknown variant `asleep`",
        );
        let choices = Choices {
            workspace: Choice { preset: Some("salesforce".into()), ..Choice::default() },
            ..Choices::default()
        };
        let error = choices.effective().unwrap_err();
        assert_eq!(error.setting(), None);
        assert!(error.to_string().contains("\"keap\", \"sharpspring\""), "{error}");
    }
}
