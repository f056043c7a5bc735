//! What admins allow: what a preset, the workspace and a user's own limits say, and which of it is in force.
//!
//! Not here: how much of it is used, and when there is room again (`limits`).

use serde::{Deserialize, Deserializer, Serialize, Serializer};

use super::{limits::SentUnit, policy::Source};

/// What one of those who decide says of a limit. In writing it is left out, null, or given.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Said<T> {
    /// What the layer below says holds.
    #[default]
    Nothing,
    /// There is none, whatever the layers below say.
    NoLimit,
    Limit(T),
}

impl<T> Said<T> {
    #[must_use]
    pub fn is_nothing(&self) -> bool {
        matches!(self, Self::Nothing)
    }
}

impl<T: Serialize> Serialize for Said<T> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Nothing | Self::NoLimit => serializer.serialize_none(),
            Self::Limit(limit) => limit.serialize(serializer),
        }
    }
}

/// Of a field that is there; one that is left out has its default.
impl<'de, T: Deserialize<'de>> Deserialize<'de> for Said<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Ok(Option::deserialize(deserializer)?.map_or(Self::NoLimit, Self::Limit))
    }
}

/// What a preset, a workspace or a user's own limits say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Limits {
    /// Messages of a user's accounts that are filed in a day.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    pub synced_per_day: Said<u32>,
    /// What a user sends in a day.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    pub sent_per_day: Said<u32>,
    /// What a user sends in any 24 hours.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    pub sent_per_24h: Said<u32>,
    /// What is counted as sent; recipients when nothing is said, or no limit.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    pub sent_unit: Said<SentUnit>,
    /// Accounts of the workspace as a whole that may be connected at a time. No user's own limits say anything of it.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    pub accounts: Said<u32>,
    /// Accounts of a user that may be connected at a time.
    #[serde(skip_serializing_if = "Said::is_nothing")]
    pub accounts_per_user: Said<u32>,
}

/// A limit as it holds, and whose word it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Held<T> {
    /// `None` allows everything.
    pub limit: Option<T>,
    /// `Default` when nobody says anything.
    pub from: Source,
}

/// What holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct InForce {
    pub synced_per_day: Held<u32>,
    pub sent_per_day: Held<u32>,
    pub sent_per_24h: Held<u32>,
    pub sent_unit: Held<SentUnit>,
    /// Of the workspace as a whole.
    pub accounts: Held<u32>,
    pub accounts_per_user: Held<u32>,
}

/// Everything that is said of a user's limits, or of the workspace's, and whose day counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Allowance {
    /// IANA name.
    pub timezone: String,
    /// The workspace's preset.
    pub preset: Limits,
    /// The preset chosen for the user; the workspace's where none is, or no user is asked about.
    pub users_preset: Limits,
    pub workspace: Limits,
    pub user: Limits,
}

impl Allowance {
    /// What holds in the workspace for users of whom nothing else is said.
    #[must_use]
    pub fn of_workspace(&self) -> InForce {
        in_force(&[(Source::Preset, &self.preset), (Source::Workspace, &self.workspace)])
    }

    /// What holds for the user: his own limits over the workspace's over his preset's. The cap on the accounts of the
    /// workspace is nobody's own.
    #[must_use]
    pub fn of_user(&self) -> InForce {
        let layers = [
            (Source::Preset, &self.users_preset),
            (Source::Workspace, &self.workspace),
            (Source::User, &self.user),
        ];
        InForce { accounts: self.of_workspace().accounts, ..in_force(&layers) }
    }
}

/// The layers, the last of which wins.
fn in_force(layers: &[(Source, &Limits)]) -> InForce {
    InForce {
        synced_per_day: held(layers, |limits| limits.synced_per_day),
        sent_per_day: held(layers, |limits| limits.sent_per_day),
        sent_per_24h: held(layers, |limits| limits.sent_per_24h),
        sent_unit: held(layers, |limits| limits.sent_unit),
        accounts: held(layers, |limits| limits.accounts),
        accounts_per_user: held(layers, |limits| limits.accounts_per_user),
    }
}

fn held<T>(layers: &[(Source, &Limits)], said: impl Fn(&Limits) -> Said<T>) -> Held<T> {
    let last = layers.iter().rev().find_map(|(from, limits)| match said(limits) {
        Said::Nothing => None,
        Said::NoLimit => Some(Held { limit: None, from: *from }),
        Said::Limit(limit) => Some(Held { limit: Some(limit), from: *from }),
    });
    last.unwrap_or(Held { limit: None, from: Source::Default })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn the_last_who_says_something_wins_and_no_limit_is_something_said() {
        use Said::{Limit, NoLimit, Nothing};
        for (preset, workspace, user, limit, from) in [
            (Nothing, Nothing, Nothing, None, Source::Default),
            (Limit(100), Nothing, Nothing, Some(100), Source::Preset),
            (Limit(100), NoLimit, Nothing, None, Source::Workspace),
            (Limit(100), Limit(0), Nothing, Some(0), Source::Workspace),
            (Limit(100), Limit(7), NoLimit, None, Source::User),
            (Limit(100), NoLimit, Limit(7), Some(7), Source::User),
            (Nothing, Limit(7), Nothing, Some(7), Source::Workspace),
        ] {
            let limits = |said| Limits { sent_per_day: said, accounts_per_user: said, ..Limits::default() };
            let allowance = Allowance {
                timezone: "UTC".into(),
                preset: Limits::default(),
                users_preset: limits(preset),
                workspace: limits(workspace),
                user: limits(user),
            };
            let found = allowance.of_user();
            assert_eq!(found.sent_per_day, Held { limit, from }, "{preset:?} {workspace:?} {user:?}");
            assert_eq!(found.accounts_per_user, found.sent_per_day);
            assert_eq!(found.synced_per_day, Held { limit: None, from: Source::Default });
        }
    }

    #[test]
    fn a_users_preset_stands_in_place_of_the_workspaces_but_for_the_workspaces_own_cap() {
        let limits = |count| Limits {
            synced_per_day: Said::Limit(count),
            accounts: Said::Limit(count),
            accounts_per_user: Said::Limit(count),
            ..Limits::default()
        };
        let allowance = Allowance {
            timezone: "UTC".into(),
            preset: limits(1),
            users_preset: limits(2),
            workspace: Limits::default(),
            user: limits(3),
        };
        let found = Allowance { user: Limits::default(), ..allowance.clone() }.of_user();
        assert_eq!(found.synced_per_day, Held { limit: Some(2), from: Source::Preset });
        assert_eq!(found.accounts_per_user, Held { limit: Some(2), from: Source::Preset });
        assert_eq!(found.accounts, Held { limit: Some(1), from: Source::Preset });
        assert_eq!(allowance.of_user().accounts, found.accounts);
        assert_eq!(allowance.of_user().accounts_per_user, Held { limit: Some(3), from: Source::User });
        assert_eq!(allowance.of_workspace().synced_per_day, Held { limit: Some(1), from: Source::Preset });
    }

    #[test]
    fn left_out_null_and_given_are_three_things_and_are_written_as_they_were_read() {
        let written = json!({ "synced_per_day": null, "sent_per_day": 5, "sent_unit": "messages" });
        let read: Limits = serde_json::from_value(written.clone()).unwrap();
        assert_eq!(read.synced_per_day, Said::NoLimit);
        assert_eq!(read.sent_per_day, Said::Limit(5));
        assert_eq!(read.sent_per_24h, Said::Nothing);
        assert_eq!(read.sent_unit, Said::Limit(SentUnit::Messages));
        assert_eq!(serde_json::to_value(read).unwrap(), written);
    }
}
