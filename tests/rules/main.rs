//! Which test shows which rule of the systems that this gateway stands in for: no rule without a test that is named after it,
//! no test of a rule that there is not, and docs/rules.md is what both say.
//!
//! Not here: the tests themselves, which stand where what they test is.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::string_slice,
    reason = "a test may panic; that is how it fails"
)]

use std::{
    collections::{BTreeMap, BTreeSet},
    env,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
};

use mailweave::core::policy::{Policy, Preset};
use serde::Deserialize;

/// Set to write the page instead of comparing it.
const WRITE: &str = "MAILWEAVE_WRITE_DOCS";
const PAGE: &str = "docs/rules.md";
/// Where its limits are named.
const LIMITS: &str = "src/core/allowance.rs";

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    system: Vec<System>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct System {
    prefix: String,
    title: String,
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Rule {
    id: u32,
    says: String,
    /// Settings of a policy that decide it.
    #[serde(default)]
    settings: Vec<String>,
    /// Limits that an admin sets.
    #[serde(default)]
    limits: Vec<String>,
    /// Where the code or the data is.
    #[serde(default)]
    files: Vec<String>,
    /// What stands in its place, or why it cannot be seen from outside.
    instead: Option<String>,
    /// What it comes with.
    waits: Option<String>,
}

/// A rule's name: `("KEAP", 24)`.
type Id = (String, u32);

/// A test, by the file it stands in, from the root of the repository.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Test {
    file: String,
    name: String,
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn table() -> Table {
    toml::from_str(include_str!("rules.toml")).unwrap()
}

/// The rules that a test's name names: each by number, or a first and a last one with `to` between them.
fn named(name: &str, prefixes: &BTreeSet<String>) -> Vec<Id> {
    let words: Vec<&str> = name.split('_').collect();
    let id_at = |at: usize| {
        let prefix = words.get(at)?.to_uppercase();
        let number: u32 = words.get(at + 1)?.parse().ok()?;
        prefixes.contains(&prefix).then_some((prefix, number))
    };
    let mut found: Vec<Id> = Vec::new();
    for at in 0..words.len() {
        let Some((prefix, number)) = id_at(at) else { continue };
        let first = match found.last() {
            Some((before, first)) if at > 0 && words[at - 1] == "to" && *before == prefix => first + 1,
            _ => number,
        };
        found.extend((first..=number).map(|number| (prefix.clone(), number)));
    }
    found
}

/// The functions of a file that run: those that are declared and not ignored.
fn functions(text: &str) -> Vec<String> {
    let mut found = Vec::new();
    let mut ignored = false;
    for line in text.lines().map(str::trim) {
        let declared = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ");
        if line.starts_with("#[ignore") {
            ignored = true;
        } else if let Some(declared) = declared {
            let name: String = declared.chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
            if !ignored {
                found.push(name);
            }
            ignored = false;
        }
    }
    found
}

fn sources(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// The tests of each rule.
fn shown(prefixes: &BTreeSet<String>) -> BTreeMap<Id, BTreeSet<Test>> {
    let mut files = Vec::new();
    // Not this file, which has names that name no rule.
    for directory in ["src", "tests"] {
        sources(&root().join(directory), &mut files);
    }
    files.retain(|file| !file.ends_with("rules/main.rs"));
    let mut shown: BTreeMap<Id, BTreeSet<Test>> = BTreeMap::new();
    for path in files {
        let file = path.strip_prefix(root()).unwrap().to_str().unwrap().to_owned();
        for name in functions(&fs::read_to_string(&path).unwrap()) {
            for id in named(&name, prefixes) {
                shown.entry(id).or_default().insert(Test { file: file.clone(), name: name.clone() });
            }
        }
    }
    shown
}

/// What is wrong with where a rule says that it is decided.
fn misplaced(rule: &Rule, settings: &BTreeSet<String>, limits: &str) -> Vec<String> {
    let mut found = Vec::new();
    for setting in rule.settings.iter().filter(|setting| !settings.contains(*setting)) {
        found.push(format!("there is no setting {setting}"));
    }
    for limit in rule.limits.iter().filter(|limit| !limits.contains(&format!("pub {limit}: "))) {
        found.push(format!("there is no limit {limit}"));
    }
    for file in rule.files.iter().filter(|file| !root().join(file).is_file()) {
        found.push(format!("there is no file {file}"));
    }
    let placed = !(rule.settings.is_empty() && rule.limits.is_empty() && rule.files.is_empty());
    if !placed && rule.instead.is_none() && rule.waits.is_none() {
        found.push("it says nowhere where it is decided".to_owned());
    }
    found
}

/// What is wrong with the tests of a rule.
fn unshown(rule: &Rule, tests: usize) -> Option<String> {
    match tests {
        0 if rule.waits.is_none() && rule.instead.is_none() => Some("no test is named after it".to_owned()),
        1.. if rule.waits.is_some() => Some("a test shows it: it waits for nothing any more".to_owned()),
        _ => None,
    }
}

/// The settings of a policy, by name.
fn settings() -> BTreeSet<String> {
    let policy = Policy::of_preset(Preset::default_preset());
    let written = serde_json::to_value(&*policy.settings).unwrap();
    written.as_object().unwrap().keys().cloned().collect()
}

#[test]
fn every_rule_has_its_tests_and_every_test_its_rule() {
    let table = table();
    let prefixes = table.system.iter().map(|system| system.prefix.clone()).collect();
    let (mut shown, settings) = (shown(&prefixes), settings());
    let limits = fs::read_to_string(root().join(LIMITS)).unwrap();
    let mut wrong = Vec::new();
    for system in &table.system {
        for (number, rule) in (1..).zip(&system.rules) {
            let id = format!("{}-{}", system.prefix, rule.id);
            assert_eq!(rule.id, number, "{} is in order and without a gap", system.prefix);
            let tests = shown.remove(&(system.prefix.clone(), rule.id)).map_or(0, |tests| tests.len());
            let found = misplaced(rule, &settings, &limits).into_iter().chain(unshown(rule, tests));
            wrong.extend(found.map(|what| format!("{id}: {what}")));
        }
    }
    wrong.extend(shown.into_iter().map(|((prefix, number), tests)| {
        format!("{prefix}-{number}: there is no such rule, but tests are named after it: {tests:?}")
    }));
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// What a rule's row says of where it is decided.
fn places(rule: &Rule) -> String {
    let named = |names: &[String], what: &str| {
        let names: Vec<_> = names.iter().map(|name| format!("`{name}`")).collect();
        (!names.is_empty()).then(|| format!("{what} {}", names.join(", ")))
    };
    let files = rule.files.iter().map(|file| format!("[{file}](../{file})"));
    let settings = named(&rule.settings, if rule.settings.len() == 1 { "setting" } else { "settings" });
    let limits = named(&rule.limits, if rule.limits.len() == 1 { "limit" } else { "limits" });
    settings.into_iter().chain(limits).chain(files).collect::<Vec<_>>().join("<br>")
}

/// What it says of its tests.
fn evidence(rule: &Rule, tests: Option<&BTreeSet<Test>>) -> String {
    let links = tests.into_iter().flatten().map(|Test { file, name }| format!("[`{name}`](../{file})"));
    let links: Vec<_> = links.collect();
    match (&rule.instead, &rule.waits) {
        _ if !links.is_empty() => links.join("<br>"),
        (Some(instead), _) => format!("{instead}."),
        (_, Some(waits)) => format!("*not shown yet: comes with {waits}*"),
        _ => "*not shown yet*".to_owned(),
    }
}

fn page() -> String {
    let table = table();
    let prefixes = table.system.iter().map(|system| system.prefix.clone()).collect();
    let shown = shown(&prefixes);
    let total: usize = table.system.iter().map(|system| system.rules.len()).sum();
    let mut page = format!(
        "# Rules\n\n\
         What the systems do that this gateway stands in for, {total} rules in our words: where each is decided here, and which\n\
         test shows it. Where they contradict each other it is policy, and each system is a preset in\n\
         [config/presets](../config/presets). This page is made from `tests/rules/rules.toml` and the names of the tests\n\
         (`{WRITE}=1 cargo test --test rules`), which fail when a rule has no test.\n"
    );
    for system in &table.system {
        writeln!(page, "\n## {}\n\n| rule | | decided in | shown by |\n|---|---|---|---|", system.title)
            .unwrap();
        for rule in &system.rules {
            let id = (system.prefix.clone(), rule.id);
            let evidence = evidence(rule, shown.get(&id));
            writeln!(page, "| {}-{} | {} | {} | {evidence} |", id.0, id.1, rule.says, places(rule)).unwrap();
        }
    }
    page
}

#[test]
fn the_page_says_what_the_tests_are_named() {
    let (path, page) = (root().join(PAGE), page());
    if env::var_os(WRITE).is_some() {
        fs::write(&path, &page).unwrap();
    }
    let there = fs::read_to_string(&path).unwrap_or_default();
    let is_same = there == page;
    assert!(is_same, "{PAGE} is out of date: run `{WRITE}=1 cargo test --test rules`");
}

#[test]
fn names_are_read_as_they_are_meant() {
    let prefixes = ["KEAP", "HILV", "REAL"].map(str::to_owned).into();
    let check = |name: &str, expect: &[(&str, u32)]| {
        let expect: Vec<Id> = expect.iter().map(|(prefix, number)| ((*prefix).to_owned(), *number)).collect();
        assert_eq!(named(name, &prefixes), expect, "{name}");
    };
    check("keap_24_matches_the_primary_address", &[("KEAP", 24)]);
    check("keap_9_keap_10_pending", &[("KEAP", 9), ("KEAP", 10)]);
    check("hilv_12_to_hilv_14_and_real_6_as_said", &[("HILV", 12), ("HILV", 13), ("HILV", 14), ("REAL", 6)]);
    check("real_time_10_to_keap_hilv", &[]);
    check("presets_keep_the_numbers_of_2_systems", &[]);
    let text =
        "  #[test]\n  fn runs() {\n  #[ignore]\n  #[test]\n  async fn rests(\n  async fn runs_too(api) {\n";
    assert_eq!(functions(text), ["runs", "runs_too"]);
}
