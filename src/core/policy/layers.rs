//! Puts a policy together: the defaults, a preset, what the workspace and then the user changes; and says of each value where
//! it comes from.
//!
//! Not here: storing what was changed, and what the settings mean (`settings`).

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Map, Value};

use super::{
    preset::Preset,
    settings::{Attachments, Settings},
};

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
}

impl BadSetting {
    /// The setting it is about.
    #[must_use]
    pub fn name(&self) -> &str {
        match self {
            Self::Unknown { name, .. } | Self::Value { name, .. } => name,
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
        let defaults = written(Preset::default_settings());
        for (name, value) in &settings {
            if !defaults.contains_key(name) {
                return Err(BadSetting::Unknown { name: name.clone(), nearest: nearest(name, &defaults) });
            }
            let mut tried = defaults.clone();
            tried.insert(name.clone(), value.clone());
            read(tried).map_err(|reason| BadSetting::Value { name: name.clone(), reason })?;
        }
        Ok(Self(settings))
    }

    #[must_use]
    pub fn settings(&self) -> &Map<String, Value> {
        &self.0
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
/// `BadSetting` when two settings, each right by itself, do not go together.
pub fn effective(preset: &Preset, workspace: &Overrides, user: &Overrides) -> Result<Effective, BadSetting> {
    let mut values = written(Preset::default_settings());
    let mut from: BTreeMap<String, Source> =
        values.keys().map(|name| (name.clone(), Source::Default)).collect();
    let layers = [
        (Source::Preset, preset.overrides.settings()),
        (Source::Workspace, &workspace.0),
        (Source::User, &user.0),
    ];
    for (source, layer) in layers {
        for (name, value) in layer {
            values.insert(name.clone(), value.clone());
            from.insert(name.clone(), source);
        }
    }
    let settings =
        read(values).map_err(|reason| BadSetting::Value { name: "overrides".to_owned(), reason })?;
    agree(&settings)?;
    Ok(Effective { settings, from })
}

/// Whether the settings go together.
fn agree(settings: &Settings) -> Result<(), BadSetting> {
    let wrong = |name: &str, reason: &str| {
        Err(BadSetting::Value { name: name.to_owned(), reason: reason.to_owned() })
    };
    if settings.poll_min > settings.poll_max {
        return wrong("poll_min", "is longer than poll_max: lower it, or raise poll_max");
    }
    if settings.poll_min.duration().is_zero() {
        return wrong("poll_min", "must be a second at least: providers shut out who asks without pause");
    }
    if settings.attachments == Attachments::Listed && settings.attachment_types.is_empty() {
        return wrong(
            "attachment_types",
            "is empty, while attachments is \"listed\": name extensions, or choose \"none\"",
        );
    }
    if settings.thread_start.is_empty() {
        return wrong(
            "thread_start",
            "is empty: nothing could ever come in; to sync nothing, pause the accounts",
        );
    }
    Ok(())
}

pub(super) fn written(settings: &Settings) -> Map<String, Value> {
    match serde_json::to_value(settings) {
        Ok(Value::Object(map)) => map,
        other => unreachable!("settings are an object, not {other:?}"),
    }
}

fn read(values: Map<String, Value>) -> Result<Settings, String> {
    serde_json::from_value(Value::Object(values)).map_err(|error| error.to_string())
}

fn nearest(name: &str, defaults: &Map<String, Value>) -> String {
    let distance = |known: &&String| strsim::damerau_levenshtein(name, known);
    defaults.keys().min_by_key(distance).cloned().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn overrides(value: Value) -> Result<Overrides, BadSetting> {
        let Value::Object(map) = value else { panic!("an object") };
        Overrides::new(map)
    }

    #[track_caller]
    fn refused(value: Value, text: &str) {
        let error = overrides(value)
            .and_then(|workspace| effective(Preset::default_preset(), &workspace, &Overrides::default()))
            .unwrap_err();
        assert!(error.to_string().contains(text), "{error}");
    }

    #[test]
    fn the_last_layer_wins_and_is_named() {
        let preset = Preset::named("keap").unwrap();
        let workspace = overrides(json!({ "match": "all", "backfill_days": 7 })).unwrap();
        let user = overrides(json!({ "backfill_days": 3 })).unwrap();
        let effective = effective(preset, &workspace, &user).unwrap();
        let from = |name: &str| effective.from[name];
        assert_eq!(effective.settings.backfill_days, 3);
        assert_eq!(
            (from("backfill_days"), from("match"), from("append_sent"), from("push")),
            (Source::User, Source::Workspace, Source::Preset, Source::Default)
        );
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
    }
}
