//! Named policies: `config/presets/*.toml`, part of the program. Settings that a preset does not
//! name are as in the default one.
//!
//! Not here: any preset by name, but for the default, which every workspace has that chose none.

use std::sync::{Arc, LazyLock};

use serde::Deserialize;
use serde_json::{Map, Value};

use super::{
    layers::{self, Overrides},
    settings::Settings,
};
use crate::core::allowance::Limits;

/// The preset of a workspace that chose none.
pub const DEFAULT_PRESET: &str = "mailweave";

macro_rules! files {
    ($($name:literal),* $(,)?) => {
        [$(($name, include_str!(concat!("../../../config/presets/", $name, ".toml")))),*]
    };
}

/// Name and text of each. The first gives every setting; the others what they change.
const FILES: [(&str, &str); 8] = files![
    "mailweave",
    "keap",
    "sharpspring",
    "kaname-gmail",
    "kaname-outlook",
    "highlevel-outlook",
    "highlevel-outlook-labs-off",
    "realpad",
];

/// A named policy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Preset {
    pub name: &'static str,
    /// The system whose rules it keeps.
    pub title: String,
    pub overrides: Overrides,
    /// All its settings, those of the default among them.
    pub settings: Arc<Settings>,
    /// What is allowed where no admin says otherwise; what it does not name there is no limit on.
    pub limits: Limits,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    title: String,
    settings: Map<String, Value>,
    #[serde(default)]
    limits: Limits,
}

static DEFAULTS: LazyLock<Map<String, Value>> = LazyLock::new(|| {
    let [(_, text), ..] = FILES;
    let file: File = toml::from_str(text).expect("the default preset is part of the program, and tested");
    let settings: Settings =
        serde_json::from_value(Value::Object(file.settings)).expect("the default preset gives every setting");
    // Written anew: what may be left out, like a limit that there is not, is there to be overridden.
    layers::written(&settings)
});

static PRESETS: LazyLock<Vec<Preset>> = LazyLock::new(|| FILES.into_iter().map(read).collect());

fn read((name, text): (&'static str, &str)) -> Preset {
    let file: File = toml::from_str(text).expect("presets are part of the program, and tested");
    // The default preset is what all others start from: it overrides nothing.
    let settings = if name == DEFAULT_PRESET { Map::new() } else { file.settings };
    let overrides = Overrides::new(settings).expect("presets are part of the program, and tested");
    let alone = layers::effective(&overrides, &Overrides::default(), &Overrides::default());
    let settings = Arc::new(alone.expect("presets are part of the program, and tested").settings);
    Preset { name, title: file.title, overrides, settings, limits: file.limits }
}

impl Preset {
    /// The preset of this name.
    #[must_use]
    pub fn named(name: &str) -> Option<&'static Self> {
        PRESETS.iter().find(|preset| preset.name == name)
    }

    /// The preset of a workspace that chose none.
    #[must_use]
    pub fn default_preset() -> &'static Self {
        Self::named(DEFAULT_PRESET).expect("the default preset is the first of the list")
    }

    /// All presets, the default first.
    #[must_use]
    pub fn all() -> &'static [Self] {
        &PRESETS
    }

    /// Every setting with its default, as they are written.
    pub(super) fn default_values() -> &'static Map<String, Value> {
        &DEFAULTS
    }
}

/// The names of all presets, to choose from.
pub(super) fn names() -> String {
    PRESETS.iter().map(|preset| format!("{:?}", preset.name)).collect::<Vec<_>>().join(", ")
}

/// The name of a preset that is most like another word.
pub(super) fn nearest(name: &str) -> &'static str {
    layers::nearest_of(name, PRESETS.iter().map(|preset| preset.name))
}

#[cfg(test)]
mod tests {
    use std::{collections::BTreeSet, fs};

    use super::*;
    use crate::core::policy::{Choice, Choices};

    #[test]
    fn every_file_of_the_directory_is_a_preset_whose_settings_go_together() {
        let directory = concat!(env!("CARGO_MANIFEST_DIR"), "/config/presets");
        let files =
            fs::read_dir(directory).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
        let names: BTreeSet<String> = files.map(|name| name.trim_end_matches(".toml").to_owned()).collect();
        assert_eq!(names, Preset::all().iter().map(|preset| preset.name.to_owned()).collect());
        for preset in Preset::all() {
            let workspace = Choice { preset: Some(preset.name.to_owned()), ..Choice::default() };
            Choices { workspace, ..Choices::default() }.check().unwrap();
            assert!(!preset.title.is_empty(), "{}", preset.name);
        }
    }
}
