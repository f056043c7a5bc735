//! The house rules that no compiler knows: which module may use which, where SQL may stand, how files begin and end.
//!
//! Not here: what rustfmt and clippy check, the length of functions among it.

// Every index comes from a search in the same text, and a panic here is a failed test.
#![allow(clippy::string_slice)]

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
};

/// Each module and what it may use of ours. `docs/ARCHITECTURE.md` has the reasons; the two change together.
const LAYERS: &[(&str, &[&str])] = &[
    ("mail", &[]),
    ("net", &[]),
    ("core", &["mail"]),
    ("smtp", &["mail"]),
    ("imap", &["mail"]),
    ("failpoint", &[]),
    ("store", &["mail", "core", "failpoint"]),
    ("queue", &["core", "store"]),
    ("coord", &["core"]),
    ("webhook", &["core", "net"]),
    ("account", &["mail", "core", "net", "smtp", "imap", "store", "coord"]),
    ("flow", FLOW),
    ("worker", ON_FLOW),
    ("http", ON_FLOW),
    ("sandbox", ON_FLOW),
    // Plain values go down: below `app` nobody reads the configuration.
    ("config", &["mail"]),
    ("telemetry", &["config"]),
    ("cli", &[]),
];

const FLOW: &[&str] =
    &["mail", "core", "net", "smtp", "imap", "store", "queue", "coord", "webhook", "account", "failpoint"];
const ON_FLOW: &[&str] = &[
    "mail",
    "core",
    "net",
    "smtp",
    "imap",
    "store",
    "queue",
    "coord",
    "webhook",
    "account",
    "failpoint",
    "flow",
];

/// The composition root and the entry points see everything.
const ROOTS: &[&str] = &["app", "main", "lib"];

/// Where SQL may stand, and the crate that speaks it.
const SQL_MODULES: &[&str] = &["store", "queue"];
const SQL_CRATE: &str = "sqlx";

/// Where time, chance and everything outside are arguments (invariant 1).
const PURE_MODULES: &[&str] = &["mail", "core"];
/// What reaches outside: crates, parts of `std` (addresses as values are none of it), types and keywords.
const IMPURE_WORDS: &[&str] = &[
    "tokio",
    "rand",
    "async",
    "Instant",
    "SystemTime",
    "TcpListener",
    "TcpStream",
    "UdpSocket",
    "ToSocketAddrs",
];
const IMPURE_STD: &[&str] = &["env", "fs", "process", "thread"];
/// Reads the clock: `Timestamp::now()`, `Zoned::now()`, `Uuid::now_v7()`.
const CLOCK: &[&str] = &["::now()", "::now_v7()"];

/// What opens a connection or asks for an address.
const OPENS: &[&str] = &[
    "TcpStream::connect",
    "TcpSocket::",
    "UdpSocket::",
    "UnixStream::",
    "lookup_host",
    "to_socket_addrs",
    "TokioResolver::",
    "Client::builder(",
    "ClientBuilder::",
    "reqwest::Client::new(",
    "reqwest::get(",
    "Client::open(",
];
/// Where that may stand. Whatever a tenant can name is reached by the first three alone, which vet every address before they
/// connect to it, and connect to no other; the rest goes where the operator or whoever starts the program has said.
const MAY_OPEN: &[(&str, &str)] = &[
    ("net/dial.rs", "IMAP, SMTP: resolves once, vets every address, connects to those"),
    ("net/web.rs", "webhooks, sign-in servers, files of domains: asks net/dial for addresses"),
    ("net/resolve.rs", "DNS, from the operator's name servers"),
    ("net/listen.rs", "listens, and connects to nobody"),
    ("coord/redis.rs", "the operator's Redis"),
    ("app/health.rs", "this program's own port"),
    ("app/client.rs", "the command line, to the gateway that its user names"),
    ("app/demo/", "the demo's own ports"),
    ("sandbox/smtp/relay.rs", "next hops that whoever started the sandbox has given as addresses"),
];

const LINES_MAX: usize = 500;
const NAMES_FORBIDDEN: &[&str] = &["utils", "util", "helpers", "helper", "common", "manager", "misc"];

/// A source file, ready to be judged.
struct File<'a> {
    /// Path below `src/`.
    path: &'a str,
    text: &'a str,
    /// It, or a module around it, exists in tests alone.
    is_test: bool,
}

impl File<'_> {
    /// The top-level module that the file belongs to: `smtp` for `smtp/session.rs` and `smtp.rs`.
    fn module(&self) -> &str {
        self.path.split('/').next().unwrap_or_default().trim_end_matches(".rs")
    }

    /// What stands before the tests inside the file.
    fn code(&self) -> &str {
        let starts = self.text.match_indices("\n#[cfg(test)]\nmod ").map(|(at, _)| at);
        let has_body = |at: &usize| {
            self.text[*at..]
                .split(['{', ';'])
                .next()
                .is_some_and(|head| self.text[at + head.len()..].starts_with('{'))
        };
        starts.into_iter().find(has_body).map_or(self.text, |end| &self.text[..end])
    }
}

/// The modules in files of their own that a file declares for tests alone: `store/tests` for `mod tests;` in `store/mod.rs`.
fn test_modules(path: &str, text: &str) -> Vec<String> {
    let (dir, name) = path.rsplit_once('/').unwrap_or(("", path));
    let own = name.trim_end_matches(".rs");
    let parts = [dir, if ["mod", "lib", "main"].contains(&own) { "" } else { own }];
    let inside: String =
        parts.iter().filter(|part| !part.is_empty()).map(|part| format!("{part}/")).collect();
    let declaration = |rest: &str| {
        let line = rest.lines().find(|line| !line.trim().is_empty() && !line.trim().starts_with("#["))?;
        let (_, name) = line.trim().strip_suffix(';')?.rsplit_once("mod ")?;
        Some(format!("{inside}{name}"))
    };
    text.split("#[cfg(test)]").skip(1).filter_map(declaration).collect()
}

/// True when the file is one of these modules or lies inside one.
fn is_within(path: &str, modules: &BTreeSet<String>) -> bool {
    let module = path.trim_end_matches(".rs").trim_end_matches("/mod");
    modules.iter().any(|test| {
        module == test || module.strip_prefix(test.as_str()).is_some_and(|rest| rest.starts_with('/'))
    })
}

/// Every rule that the file breaks, each as a sentence.
fn faults(file: &File<'_>) -> Vec<String> {
    let mut faults = Vec::new();
    let name = file.path.rsplit('/').next().unwrap_or_default().trim_end_matches(".rs");
    if NAMES_FORBIDDEN.contains(&name) {
        faults.push(format!("is named {name}, which says nothing of what it holds"));
    }
    if !file.text.starts_with("//!") {
        faults.push("does not begin with //! and what it is".to_owned());
    }
    let bare = without_comments_and_strings(file.code());
    faults.extend(layer_faults(file.module(), &bare.code));
    if file.is_test {
        return faults;
    }
    let lines = file.code().lines().count();
    if lines > LINES_MAX {
        faults.push(format!(
            "has {lines} lines before its tests, {LINES_MAX} at most: look for the second noun"
        ));
    }
    if bare.code.contains(".unwrap()") {
        faults.push("unwraps outside tests".to_owned());
    }
    if PURE_MODULES.contains(&file.module()) {
        faults.extend(purity_faults(&bare.code));
    }
    if !SQL_MODULES.contains(&file.module()) {
        faults.extend(sql_faults(&bare));
    }
    faults.extend(socket_faults(file.path, &bare.code));
    faults
}

fn socket_faults(path: &str, code: &str) -> Vec<String> {
    if MAY_OPEN.iter().any(|(place, _)| path.starts_with(place)) {
        return Vec::new();
    }
    let opens = OPENS.iter().filter(|opens| code.contains(**opens));
    opens.map(|opens| format!("opens connections by {opens}, past the rules of egress")).collect()
}

fn purity_faults(code: &str) -> Vec<String> {
    let words = words(code);
    let used = IMPURE_WORDS.iter().filter(|word| words.contains(**word)).map(|word| (*word).to_owned());
    let heads = heads_after(code, "std::");
    let std = IMPURE_STD.iter().filter(|name| heads.contains(**name)).map(|name| format!("std::{name}"));
    let clock = CLOCK.iter().filter(|call| code.contains(**call)).map(|call| (*call).to_owned());
    let outside = used.chain(std).chain(clock);
    outside.map(|what| format!("uses {what}, but what is outside is an argument here")).collect()
}

fn sql_faults(bare: &Bare) -> Vec<String> {
    let mut faults = Vec::new();
    if words(&bare.code).contains(SQL_CRATE) {
        faults.push(format!("uses {SQL_CRATE}, which only store and queue do"));
    }
    if let Some(sql) = bare.strings.iter().find(|text| is_sql(text)) {
        let start: String = sql.trim().chars().take(40).collect();
        faults.push(format!("speaks SQL (\"{start}\"), which only store and queue do"));
    }
    faults
}

/// Every identifier and keyword.
fn words(code: &str) -> BTreeSet<&str> {
    code.split(|c: char| !c.is_alphanumeric() && c != '_').filter(|word| !word.is_empty()).collect()
}

fn layer_faults(module: &str, code: &str) -> Vec<String> {
    if ROOTS.contains(&module) {
        return Vec::new();
    }
    let Some((_, allowed)) = LAYERS.iter().find(|(name, _)| *name == module) else {
        return vec![format!("belongs to no layer: add {module} to LAYERS and to docs/ARCHITECTURE.md")];
    };
    let ours = |used: &&String| LAYERS.iter().any(|(name, _)| name == used) || ROOTS.contains(&used.as_str());
    let used = heads_after(code, "crate::");
    let forbidden =
        used.iter().filter(ours).filter(|used| *used != module && !allowed.contains(&used.as_str()));
    forbidden.map(|used| format!("uses crate::{used}, but {module} may use only {allowed:?}")).collect()
}

/// The names that follow a root: of `crate::` in `crate::x` and `use crate::{x::…, y::{…}}` it is x and y.
fn heads_after(code: &str, root: &str) -> BTreeSet<String> {
    let mut used = BTreeSet::new();
    for after in code.split(root).skip(1) {
        match after.strip_prefix('{') {
            Some(group) => used.extend(heads_of_group(group)),
            None => used.extend(identifier(after)),
        }
    }
    used
}

/// The first identifiers of a `{…}` group, whatever is nested in it.
fn heads_of_group(group: &str) -> Vec<String> {
    let mut heads = Vec::new();
    let (mut depth, mut item) = (0_usize, String::new());
    for c in group.chars() {
        match c {
            '}' if depth == 0 => break,
            ',' if depth == 0 => heads.extend(identifier(&std::mem::take(&mut item))),
            _ => item.push(c),
        }
        match c {
            '{' => depth += 1,
            '}' => depth -= 1,
            _ => {}
        }
    }
    heads.extend(identifier(&item));
    heads
}

fn identifier(text: &str) -> Option<String> {
    let name: String = text.trim_start().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect();
    (!name.is_empty()).then_some(name)
}

/// A statement's beginning with the word that must follow it: "select" alone is an IMAP command, "update" an English word.
fn is_sql(text: &str) -> bool {
    let words: Vec<String> = text.split_whitespace().map(str::to_ascii_lowercase).collect();
    let has = |word: &str| words.iter().any(|other| other == word);
    let Some(first) = words.first() else { return false };
    let second = words.get(1).map_or("", String::as_str);
    match first.as_str() {
        "select" => has("from") && has("where") || has("from") && words.len() == 4,
        "insert" => second == "into",
        "delete" => second == "from" && (has("where") || words.len() == 3),
        "update" => has("set") && words.len() > 3,
        "create" | "alter" | "drop" => ["table", "index", "unique"].contains(&second) && words.len() > 2,
        "pragma" => words.len() > 1,
        _ => false,
    }
}

struct Bare {
    /// The code without comments, its string literals emptied.
    code: String,
    /// The string literals.
    strings: Vec<String>,
}

/// Takes Rust apart far enough for the rules above: line and block comments, strings, raw strings, character literals.
fn without_comments_and_strings(source: &str) -> Bare {
    let mut bare = Bare { code: String::with_capacity(source.len()), strings: Vec::new() };
    let mut rest = source;
    while let Some(c) = rest.chars().next() {
        if rest.starts_with("//") {
            rest = rest.find('\n').map_or("", |end| &rest[end..]);
        } else if rest.starts_with("/*") {
            rest = rest.find("*/").map_or("", |end| &rest[end + 2..]);
        } else if let Some(hashes) = raw_string_hashes(rest, bare.code.chars().last()) {
            let close = format!("\"{}", "#".repeat(hashes));
            let body = &rest[hashes + 2..];
            let end = body.find(&close).unwrap_or(body.len());
            bare.strings.push(body[..end].to_owned());
            rest = body.get(end + close.len()..).unwrap_or_default();
        } else if c == '"' {
            let (text, after) = string_literal(&rest[1..]);
            bare.strings.push(text);
            bare.code.push_str("\"\"");
            rest = after;
        } else if let Some(length) = char_literal_length(rest) {
            rest = &rest[length..];
        } else {
            bare.code.push(c);
            rest = &rest[c.len_utf8()..];
        }
    }
    bare
}

fn raw_string_hashes(rest: &str, before: Option<char>) -> Option<usize> {
    let after = rest.strip_prefix('r')?;
    let hashes = after.chars().take_while(|c| *c == '#').count();
    let in_a_name = before.is_some_and(|c| (c.is_alphanumeric() && c != 'b') || c == '_');
    (!in_a_name && after[hashes..].starts_with('"')).then_some(hashes)
}

fn string_literal(body: &str) -> (String, &str) {
    let mut escaped = false;
    for (at, c) in body.char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = true,
            '"' => return (body[..at].replace("\\\n", "\n"), &body[at + 1..]),
            _ => {}
        }
    }
    (body.to_owned(), "")
}

/// `'"'` and `'\''` would confuse the search for strings; a lifetime has no closing quote.
fn char_literal_length(rest: &str) -> Option<usize> {
    let inner = rest.strip_prefix('\'')?;
    let length = match inner.strip_prefix('\\') {
        Some(escaped) => 1 + escaped.chars().next()?.len_utf8(),
        None => inner.chars().next()?.len_utf8(),
    };
    inner[length..].starts_with('\'').then_some(length + 2)
}

fn source_files(dir: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(dir).expect("src can be listed") {
        let path = entry.expect("src can be listed").path();
        if path.is_dir() {
            source_files(&path, files);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
}

#[test]
fn the_house_rules_hold() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut files = Vec::new();
    source_files(&src, &mut files);
    assert!(!files.is_empty(), "no source found in {}", src.display());
    let read = |path: &PathBuf| {
        let name = path.strip_prefix(&src).expect("it lies in src").to_string_lossy().into_owned();
        (name, fs::read_to_string(path).expect("a source file can be read"))
    };
    let files: Vec<(String, String)> = files.iter().map(read).collect();
    let tests: BTreeSet<String> = files.iter().flat_map(|(path, text)| test_modules(path, text)).collect();
    let mut all = Vec::new();
    for (path, text) in &files {
        let found = faults(&File { path, text, is_test: is_within(path, &tests) });
        all.extend(found.into_iter().map(|fault| format!("src/{path} {fault}")));
    }
    all.sort();
    assert!(all.is_empty(), "\n{}\n", all.join("\n"));
}

/// The top-level modules that have a layer, by what `src/` holds.
fn modules_there() -> BTreeSet<String> {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let names = fs::read_dir(src).expect("src can be listed").map(|entry| {
        let name = entry.expect("src can be listed").file_name().to_string_lossy().into_owned();
        name.trim_end_matches(".rs").to_owned()
    });
    names.filter(|name| !ROOTS.contains(&name.as_str())).collect()
}

#[test]
fn every_module_has_a_layer_and_every_layer_its_module() {
    let layers: BTreeSet<String> = LAYERS.iter().map(|(name, _)| (*name).to_owned()).collect();
    assert_eq!(layers, modules_there());
    for (module, allowed) in LAYERS {
        for used in *allowed {
            assert!(layers.contains(*used), "{module} may use {used}, which is no layer");
        }
    }
}

/// The words in backticks.
fn quoted(text: &str) -> BTreeSet<String> {
    text.split('`').skip(1).step_by(2).flat_map(str::split_whitespace).map(str::to_owned).collect()
}

#[test]
fn the_table_in_the_documentation_is_this_list() {
    let text = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/ARCHITECTURE.md"));
    let text = text.expect("docs/ARCHITECTURE.md can be read");
    let mut told = BTreeSet::new();
    for line in text.lines() {
        let cells: Vec<&str> = line.split('|').map(str::trim).collect();
        let [_, layer, modules, _, knows, _] = cells.as_slice() else { continue };
        for module in quoted(modules) {
            // From L3 on the table says "all of the above" in words.
            if ["L0", "L1", "L2"].contains(layer) {
                let allowed = LAYERS.iter().find(|(name, _)| *name == module).map(|(_, allowed)| *allowed);
                let allowed: BTreeSet<String> =
                    allowed.into_iter().flatten().map(|name| (*name).to_owned()).collect();
                assert_eq!(quoted(knows), allowed, "what {module} knows");
            }
            told.insert(module);
        }
    }
    let expect: BTreeSet<String> = modules_there().into_iter().chain(["app".to_owned()]).collect();
    assert_eq!(told, expect);
}

/// The checks' own tests: a checker that finds nothing is indistinguishable from a clean house.
mod the_checker {
    use super::*;

    #[track_caller]
    fn check(path: &str, text: &str, expect: &[&str]) {
        let found = faults(&File { path, text, is_test: false });
        assert_eq!(found.len(), expect.len(), "{path}: {found:?}");
        for (fault, part) in found.iter().zip(expect) {
            assert!(fault.contains(part), "{fault:?} does not speak of {part:?}");
        }
    }

    #[test]
    fn catches_a_use_upwards_however_it_is_written() {
        check("mail/x.rs", "//! X.\nuse crate::core::ids::Id;\n", &["crate::core"]);
        check("mail.rs", "//! X.\nfn f() { crate::store::open() }\n", &["crate::store"]);
        check(
            "core/x.rs",
            "//! X.\nuse crate::{mail::{self, Address}, smtp, imap::Uid};\n",
            &["crate::imap", "crate::smtp"],
        );
        check("store/x.rs", "//! X.\nuse crate::{\n    core::ids,\n    app::Parts,\n};\n", &["crate::app"]);
        check("smtp/x.rs", "//! X.\npub(in crate::smtp) fn f() {}\nuse crate::net;\n", &["crate::net"]);
        check("flow/x.rs", "//! X.\nuse crate::config::Config;\n", &["crate::config"]);
    }

    #[test]
    fn lets_a_use_downwards_and_inside_pass() {
        check("core/x.rs", "//! X.\nuse crate::{core::ids::Id, mail::Address};\n", &[]);
        check("http/x.rs", "//! X.\nuse crate::flow::capture;\n", &[]);
        check("app.rs", "//! X.\nuse crate::{config::Config, http, worker};\n", &[]);
        check(
            "mail/x.rs",
            "//! X. See `crate::core`.\n/* crate::store */ const A: &str = \"crate::smtp\";\n",
            &[],
        );
        check(
            "mail/x.rs",
            "//! X.\nconst Q: char = '\"'; // crate::core\nconst R: &str = r#\"a \" crate::core\"#;\n",
            &[],
        );
    }

    #[test]
    fn catches_a_module_that_has_no_layer() {
        check("cache/x.rs", "//! X.\n", &["belongs to no layer"]);
    }

    #[test]
    fn catches_a_file_that_does_not_say_what_it_is() {
        check("mail/x.rs", "use std::fmt;\n", &["begin with //!"]);
    }

    #[test]
    fn catches_a_file_that_is_too_long_and_counts_no_tests() {
        let long = format!("//! X.\n{}", "fn f() {}\n".repeat(LINES_MAX));
        check("mail/x.rs", &long, &["501 lines"]);
        let tested = format!("//! X.\n\n#[cfg(test)]\nmod tests {{\n{}}}\n", "fn f() {}\n".repeat(LINES_MAX));
        check("mail/x.rs", &tested, &[]);
    }

    #[test]
    fn catches_an_unwrap_outside_tests() {
        check("mail/x.rs", "//! X.\nfn f() { g().unwrap(); }\n", &["unwraps"]);
        check("mail/x.rs", "//! X.\n// Never .unwrap() here.\nfn f() { g().unwrap_or(1); }\n", &[]);
        check("mail/x.rs", "//! X.\n\n#[cfg(test)]\nmod tests {\n    fn f() { g().unwrap(); }\n}\n", &[]);
        let declared = "//! X.\n#[cfg(test)]\nmod tests;\n\nfn f() { g().unwrap(); }\n";
        check("mail/mod.rs", declared, &["unwraps"]);
    }

    #[test]
    fn knows_which_files_are_tests() {
        let text = "//! X.\n#[cfg(test)]\npub(crate) mod testing;\n#[cfg(test)]\nmod conformance;\nmod real;\n#[cfg(test)]\nmod inline {}\n";
        assert_eq!(test_modules("store/mod.rs", text), ["store/testing", "store/conformance"]);
        assert_eq!(test_modules("queue/lanes.rs", "#[cfg(test)]\nmod tests;\n"), ["queue/lanes/tests"]);
        assert_eq!(test_modules("lib.rs", "#[cfg(test)]\nmod tests;\n"), ["tests"]);
        let modules = test_modules("store/mod.rs", text).into_iter().collect();
        for (path, expect) in [
            ("store/testing.rs", true),
            ("store/conformance/mod.rs", true),
            ("store/conformance/a.rs", true),
            ("store/real.rs", false),
            ("store/testing_ground.rs", false),
        ] {
            assert_eq!(is_within(path, &modules), expect, "{path}");
        }
    }

    #[test]
    fn catches_sql_outside_the_store() {
        check("flow/x.rs", "//! X.\nconst Q: &str = \"select id from message where key = $1\";\n", &["SQL"]);
        check(
            "flow/x.rs",
            "//! X.\nconst Q: &str = r#\"\n  INSERT INTO message (id) values ($1)\"#;\n",
            &["SQL"],
        );
        check(
            "http/x.rs",
            "//! X.\nconst Q: &str = \"update account set \\\n   state = $1 where id = $2\";\n",
            &["SQL"],
        );
        check("store/x.rs", "//! X.\nconst Q: &str = \"select id from message where key = $1\";\n", &[]);
        check(
            "imap/x.rs",
            "//! X.\nconst Q: &[&str] = &[\"SELECT INBOX\", \"DELETE Drafts\", \"delete\", \"update the mailbox\", \"create an account\"];\n",
            &[],
        );
    }

    #[test]
    fn catches_the_crate_that_speaks_sql_outside_the_store() {
        check("http/x.rs", "//! X.\nuse sqlx::query;\n", &["uses sqlx"]);
        check("flow/x.rs", "//! X.\nfn f() { sqlx::query(\"\"); }\n", &["uses sqlx"]);
        check("queue/x.rs", "//! X.\nuse sqlx::PgPool;\n", &[]);
    }

    #[test]
    fn catches_what_reaches_outside_in_pure_modules() {
        for (code, what) in [
            ("use tokio::sync::Mutex;", "tokio"),
            ("use std::{fmt, fs::File};", "std::fs"),
            ("fn f() { std::env::var(x) }", "std::env"),
            ("fn f() { Timestamp::now() }", "::now()"),
            ("fn f() { Uuid::now_v7() }", "::now_v7()"),
            ("fn f() -> u8 { rand::random() }", "rand"),
            ("async fn f() {}", "async"),
            ("use std::net::TcpStream;", "TcpStream"),
        ] {
            for module in ["mail", "core"] {
                check(&format!("{module}/x.rs"), &format!("//! X.\n{code}\n"), &[what]);
            }
            check("flow/x.rs", &format!("//! X.\n{code}\n"), &[]);
        }
        check("mail/x.rs", "//! X.\nuse std::{net::IpAddr, time::Duration};\nfn f(now: Timestamp) {}\n", &[]);
    }

    #[test]
    fn catches_connections_that_nobody_vets() {
        for code in [
            "fn f() { TcpStream::connect(to) }",
            "fn f() { tokio::net::lookup_host(x) }",
            "fn f() { reqwest::Client::builder() }",
            "fn f() { reqwest::get(url) }",
            "fn f() { UdpSocket::bind(x) }",
        ] {
            check("account/x.rs", &format!("//! X.\n{code}\n"), &["egress"]);
            check("webhook/post.rs", &format!("//! X.\n{code}\n"), &["egress"]);
            check("net/dial.rs", &format!("//! X.\n{code}\n"), &[]);
            check("http/x.rs", &format!("//! X.\n\n#[cfg(test)]\nmod tests {{\n    {code}\n}}\n"), &[]);
        }
        check(
            "smtp/x.rs",
            "//! X.\n// TcpStream::connect\nfn f(stream: TcpStream) { client.connect(stream) }\n",
            &[],
        );
    }

    #[test]
    fn every_place_that_opens_connections_is_there_and_does() {
        let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
        for (place, _) in MAY_OPEN {
            let mut files = Vec::new();
            match place.ends_with('/') {
                true => source_files(&src.join(place), &mut files),
                false => files.push(src.join(place)),
            }
            let opens = |file: &PathBuf| {
                let text = fs::read_to_string(file).expect("it is there");
                OPENS.iter().any(|opens| text.contains(opens))
            };
            assert!(files.iter().any(opens), "{place} opens nothing: take it out of the list");
        }
    }

    #[test]
    fn catches_a_name_that_says_nothing() {
        check("mail/utils.rs", "//! X.\n", &["utils"]);
        check("mail/manager.rs", "//! X.\n", &["manager"]);
    }
}
