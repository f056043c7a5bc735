//! What an operator may rely on: mistakes are all told at once, the shipped file is complete and true.
//!
//! Not here: how single values are written (`value`).

use std::collections::BTreeSet;

use super::*;

fn read(text: &str, variables: &[(&str, &str)]) -> Result<Loaded, ConfigError> {
    let variables = variables.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
    Config::read(Some((Path::new("test.toml"), text)), variables)
}

#[track_caller]
fn config(text: &str, variables: &[(&str, &str)]) -> Config {
    read(text, variables).unwrap_or_else(|error| panic!("{error}")).config
}

/// Checks that these are the mistakes found, each told in one line.
#[track_caller]
fn check_faults(text: &str, variables: &[(&str, &str)], expect: &[&str]) {
    let Err(ConfigError::Faults(faults)) = read(text, variables) else {
        panic!("no mistake found in {text}")
    };
    let lines: Vec<String> = faults.iter().map(ToString::to_string).collect();
    assert_eq!(lines, expect);
}

fn shipped() -> String {
    std::fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/config/mailweave.toml"))
        .expect("the shipped file is there")
}

/// The lines `# name = value` as TOML; prose and the further indented examples stay comments.
fn uncomment(text: &str) -> String {
    let is_default = |line: &&str| {
        let name = line.split(" = ").next().unwrap_or_default();
        line.contains(" = ") && name.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')
    };
    let line = |line: &str| {
        line.strip_prefix("# ").filter(is_default).map_or_else(|| line.to_owned(), str::to_owned)
    };
    text.lines().map(line).collect::<Vec<_>>().join("\n")
}

#[test]
fn the_shipped_file_as_it_stands_changes_nothing() {
    assert_eq!(format!("{:?}", config(&shipped(), &[])), format!("{:?}", Config::default()));
}

#[test]
fn the_shipped_file_states_the_true_default_of_every_option() {
    let text = uncomment(&shipped());
    assert_eq!(format!("{:?}", config(&text, &[])), format!("{:?}", Config::default()));

    let mut reader = Reader::default();
    Config::from_reader(&mut reader);
    let written: toml::Table = toml::from_str(&text).unwrap();
    let mut paths = BTreeSet::new();
    collect_paths("", &written, &mut paths);
    assert_eq!(&paths, reader.known());
}

#[test]
fn the_shipped_file_shows_every_option_of_a_provider() {
    let mut reader = Reader::default();
    reader.add_file(Path::new("test.toml"), "[oauth.example]").unwrap();
    Config::from_reader(&mut reader);
    let text = shipped();
    for key in reader.known().iter().filter_map(|key| key.strip_prefix("oauth.example.")) {
        assert!(text.contains(&format!("\n#   {key} = ")), "{key}");
    }
}

fn collect_paths(prefix: &str, table: &toml::Table, paths: &mut BTreeSet<String>) {
    for (name, value) in table {
        let path = if prefix.is_empty() { name.clone() } else { format!("{prefix}.{name}") };
        match value.as_table() {
            Some(inner) => collect_paths(&path, inner, paths),
            None => drop(paths.insert(path)),
        }
    }
}

#[test]
fn the_examples_in_the_shipped_file_are_valid() {
    let example = |line: &str| line.strip_prefix("#   ").map_or_else(|| line.to_owned(), str::to_owned);
    let text: Vec<_> =
        shipped().lines().map(example).filter(|line| !line.contains("/run/secrets/")).collect();
    let config = config(&text.join("\n"), &[]);
    assert_eq!(config.oauth.0.keys().collect::<Vec<_>>(), ["example", "google", "microsoft"]);
    assert_eq!(config.domains.capture.unwrap().as_str(), "bcc.example.com");
}

#[test]
fn every_mistake_is_told_with_its_line_and_the_way_out() {
    let text = "[smtp]\nmesage_bytes_max = 5\n[smtp.mx]\nlisten = [\"25\"]\n[http]\nadmin_key = \"short\"\n[log]\nlevel = \"loud\"\n";
    check_faults(
        text,
        &[],
        &[
            "test.toml:4: smtp.mx.listen: wants a list of which each is an IP address with a port, such as \"0.0.0.0:25\" or \"[::]:25\"",
            "test.toml:8: log.level: wants one of error, warn, info, debug, trace",
            "http.admin_key: is shorter than 32 characters; make one with: openssl rand -hex 32",
            "test.toml:2: smtp.mesage_bytes_max: is not an option; did you mean smtp.message_bytes_max?",
        ],
    );
}

#[test]
fn an_unknown_name_is_told_with_its_nearest_neighbour_wherever_that_is() {
    check_faults(
        "[htpp]\n",
        &[],
        &["test.toml:1: htpp: is not an option; config/mailweave.toml lists every option"],
    );
    check_faults(
        "[smtp]\nlisten = []\n",
        &[],
        &["test.toml:2: smtp.listen: is not an option; did you mean smtp.mx.listen?"],
    );
    check_faults(
        "[sink]\npoll = \"1s\"\n",
        &[],
        &["test.toml:2: sink.poll: is not an option; did you mean sync.poll?"],
    );
    check_faults(
        "smtp = 25\n",
        &[],
        &["test.toml:1: smtp: is a table of options, not one value; write its options under [smtp]"],
    );
    check_faults(
        "[oauth]\nclient_id = \"x\"\n",
        &[],
        &["test.toml:2: oauth.client_id: is not an option; config/mailweave.toml lists every option"],
    );
}

#[test]
fn the_environment_overrides_the_file() {
    let variables = [
        ("MAILWEAVE__SMTP__MX__LISTEN", "127.0.0.1:2525,[::1]:2525"),
        ("MAILWEAVE__SYNC__POLL", "5s"),
        ("MAILWEAVE__SMTP__RECIPIENTS_MAX", "7"),
        ("MAILWEAVE__DOMAINS__CAPTURE", "BCC.Example.com"),
        ("MAILWEAVE__OAUTH__KEAP__CLIENT_ID", "123"),
        ("MAILWEAVE__OAUTH__KEAP__AUTHORIZE_URL", "https://login.example.com/a"),
        ("MAILWEAVE__OAUTH__KEAP__TOKEN_URL", "https://login.example.com/t"),
    ];
    let config = config("[sync]\npoll = \"1h\"\n[smtp.mx]\nlisten = [\"0.0.0.0:25\"]\n", &variables);
    assert_eq!(config.smtp.mx.listen.len(), 2);
    assert_eq!((config.sync.poll.as_secs(), config.smtp.recipients_max), (5, 7));
    assert_eq!(config.domains.capture.unwrap().as_str(), "bcc.example.com");
    assert_eq!(config.oauth.0["keap"].client_id, "123");
}

#[test]
fn a_slip_in_a_variables_name_is_a_mistake() {
    check_faults(
        "",
        &[("MAILWEAVE__SMTP__MX__LISTN", "[]")],
        &["MAILWEAVE__SMTP__MX__LISTN: smtp.mx.listn: is not an option; did you mean smtp.mx.listen?"],
    );
    check_faults(
        "",
        &[("MAILWEAVE_LOG__LEVEL", "info")],
        &[
            "MAILWEAVE_LOG__LEVEL: MAILWEAVE_LOG__LEVEL: is no variable of ours; did you mean MAILWEAVE__LOG__LEVEL?",
        ],
    );
    check_faults(
        "",
        &[("MAILWEAVE_ADMINKEY", "x")],
        &[
            "MAILWEAVE_ADMINKEY: MAILWEAVE_ADMINKEY: is no variable of ours; did you mean MAILWEAVE_ADMIN_KEY?",
        ],
    );
    // The client's variables, and what Kubernetes sets for a service of our name.
    let others = [
        ("MAILWEAVE_URL", "x"),
        ("MAILWEAVE_API_KEY", "x"),
        ("MAILWEAVE_WORKSPACE", "x"),
        ("MAILWEAVE_LOG", "debug"),
        ("MAILWEAVE_SERVICE_HOST", "10.0.0.1"),
        ("MAILWEAVE_PORT", "x"),
    ];
    assert!(read("", &others).is_ok());
}

#[test]
fn a_secret_may_lie_in_a_file() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("key");
    let key = "k".repeat(ADMIN_KEY_LEN_MIN);
    std::fs::write(&path, format!("{key}\n")).unwrap();
    let text = format!("[http]\nadmin_key_file = \"{}\"\n", path.display());
    let secret = |config: Config| config.http.admin_key.unwrap().expose_secret().to_owned();
    assert_eq!(secret(config(&text, &[])), key);

    let other = "o".repeat(ADMIN_KEY_LEN_MIN);
    assert_eq!(secret(config(&text, &[("MAILWEAVE__HTTP__ADMIN_KEY", &other)])), other);
    assert_eq!(secret(config(&text, &[(ADMIN_KEY_VARIABLE, &other)])), other);
    check_faults(
        &format!("{text}admin_key = \"{other}\"\n"),
        &[],
        &["test.toml:2: http.admin_key_file: is given beside http.admin_key; keep one of the two"],
    );

    std::fs::write(&path, "\n").unwrap();
    let expect =
        format!("test.toml:2: http.admin_key_file: {} is empty; write the secret into it", path.display());
    check_faults(&text, &[], &[&expect]);
    std::fs::remove_file(&path).unwrap();
    assert!(read(&text, &[]).is_err());
}

#[test]
fn debug_output_holds_no_secret() {
    let key = "very-secret-administrators-key-000000";
    let text = format!(
        "[store]\nurl = \"postgres://u:{key}@h/db\"\n[secrets]\nmaster_key_file = \"k\"\n[http]\nadmin_key = \"{key}\"\n"
    );
    assert!(!format!("{:?}", config(&text, &[])).contains("very-secret"));
}

#[test]
fn options_that_contradict_each_other_are_mistakes() {
    check_faults(
        "[store]\nurl = \"postgres://h/db\"\n",
        &[],
        &[
            "secrets.master_key_file: is required with postgres; name a file that every node has, outside the database and its backups",
        ],
    );
    check_faults(
        "[domains]\ncapture = \"a.example\"\nreply = \"A.example.\"\n",
        &[],
        &[
            "domains.reply: is the capture domain too; take two domains, such as bcc.example.com and reply.example.com",
        ],
    );
    check_faults(
        "[tls]\ncertificate = \"c.pem\"\n",
        &[],
        &["tls.private_key: is missing while its counterpart is set; set both, or neither"],
    );
    check_faults(
        "[http]\nlisten = \"0.0.0.0:25\"\n",
        &[],
        &[
            "smtp.mx.listen: listens on 0.0.0.0:25, as http.listen does; give each listener an address of its own",
        ],
    );
    check_faults(
        "[oauth.keap]\nclient_id = \"x\"\ntoken_url = \"https://t.example/t\"\n",
        &[],
        &["oauth.keap.authorize_url: is not set; only google and microsoft are built in"],
    );
    check_faults(
        "[sync]\nidle_renew = \"30m\"\n",
        &[],
        &["sync.idle_renew: is not between 1s and 29m; RFC 2177: servers may hang up after 30 minutes"],
    );
    check_faults(
        "[store]\nurl = \"mysql://h/db\"\n",
        &[],
        &["store.url: is no database we know; write sqlite://PATH or postgres://USER@HOST/NAME"],
    );
    check_faults(
        "[store]\nurl = \"sqlite:///srv/m.db?mode=rwc\"\n",
        &[],
        &["store.url: has a part after ?, which SQLite's url has not; write sqlite://PATH alone"],
    );
    check_faults(
        "[blobs]\nurl = \"s3://bucket/mail\"\n",
        &[],
        &[
            "blobs.url: is not supported in this release: large bodies lie in node.data_dir; leave it empty; several nodes share the directory",
        ],
    );
    check_faults(
        "[node]\nroles = []\n",
        &[],
        &["node.roles: is empty, so this node would do nothing; leave it out to have all roles"],
    );
}

#[test]
fn what_is_seldom_meant_is_noted() {
    let notes = read("", &[]).unwrap().notes;
    for (option, word) in
        [("domains.capture", "capture addresses"), ("tls.certificate", "data/development-ca.pem")]
    {
        assert!(notes.iter().any(|note| note.starts_with(option) && note.contains(word)), "{notes:?}");
    }
    assert_eq!(read("[node]\nroles = [\"jobs\"]\n", &[]).unwrap().notes, Vec::<String>::new());
}

#[test]
fn a_development_certificate_is_for_listeners_that_were_given_none() {
    let authority = |text: &str| config(text, &[]).development_authority();
    assert_eq!(authority(""), Some("data/development-ca.pem".into()));
    assert_eq!(authority("[tls]\ncertificate = \"c.pem\"\nprivate_key = \"k.pem\"\n"), None);
    assert_eq!(authority("[node]\nroles = [\"jobs\", \"http\"]\n"), None);
}

#[test]
fn the_store_and_the_master_key_lie_in_the_data_directory_unless_told_otherwise() {
    let default = Config::default();
    assert_eq!(default.store_url().expose_secret(), "sqlite://data/mailweave.db");
    assert_eq!(default.master_key_file(), Path::new("data/master.key"));
    let moved = config("[node]\ndata_dir = \"/var/lib/mailweave\"\n", &[]);
    assert_eq!(moved.store_url().expose_secret(), "sqlite:///var/lib/mailweave/mailweave.db");
    let apart = config("[store]\nurl = \"sqlite:///srv/mail/m.db\"\n", &[]);
    assert_eq!(apart.master_key_file(), Path::new("/srv/mail/master.key"));
}

#[test]
fn a_server_of_a_provider_is_one_text() {
    let google = "[oauth.google]\nclient_id = \"x\"\nimap = \"none://127.0.0.1:1143\"\n";
    let google = config(google, &[]).oauth.0.remove("google").unwrap();
    assert_eq!(google.imap, Endpoint::parse("none://127.0.0.1:1143"));
    check_faults(
        "[oauth.google]\nclient_id = \"x\"\nimap = \"h.example\"\n",
        &[],
        &[
            "test.toml:3: oauth.google.imap: wants a server: \"imap.example.com:993\" or \"starttls://imap.example.com:143\"",
        ],
    );
    check_faults(
        "[smtp.hostname]\n",
        &[],
        &["test.toml:1: smtp.hostname: is one value, not a table of options; write smtp.hostname = …"],
    );
}

#[test]
fn a_file_that_is_not_toml_or_not_there_is_an_error() {
    for text in ["[smtp", "[smtp]\n[smtp]\n", "[smtp]\nrecipients_max = 99999999999999999999\n"] {
        assert!(matches!(read(text, &[]), Err(ConfigError::Syntax { .. })), "{text}");
    }
    assert!(matches!(Config::load(Some(Path::new("/nonexistent/m.toml"))), Err(ConfigError::Missing { .. })));
}

/// Every `pub name: Type,` of a text, by the struct it stands in.
fn members(text: &str) -> Vec<(&str, &str, &str)> {
    let (mut inside, mut members) = ("", Vec::new());
    for line in text.lines() {
        if let Some(name) = line.strip_prefix("pub struct ").and_then(|rest| rest.strip_suffix(" {")) {
            inside = name;
        }
        if let Some((name, kind)) = line.strip_prefix("    pub ").and_then(|rest| rest.split_once(": ")) {
            members.push((inside, name, kind.trim_end_matches(',')));
        }
    }
    members
}

/// What the sources outside the configuration say, without comments.
fn code_elsewhere(directory: &Path) -> String {
    let mut code = String::new();
    for entry in std::fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() && !path.ends_with("src/config") {
            code += &code_elsewhere(&path);
        } else if path.is_file() {
            let text = std::fs::read_to_string(&path).unwrap();
            code.extend(text.lines().filter(|line| !line.trim_start().starts_with("//")));
        }
    }
    code
}

/// `[oauth.…]` is told to be read and used by nothing yet; `blobs.url` is refused unless it is empty.
const USED_BY_NOTHING_YET: [&str; 2] = ["OauthProvider", "Blobs"];

#[test]
fn every_option_does_something() {
    let (root, sections) = (include_str!("mod.rs"), include_str!("sections.rs"));
    let code = code_elsewhere(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"));
    let sections = members(sections);
    let names = members(root).into_iter().chain(sections.clone()).map(|(_, name, kind)| (kind, name));
    let names: std::collections::BTreeMap<&str, &str> = names.collect();
    let mut unused = Vec::new();
    for (section, name, kind) in &sections {
        let is_option = !names.contains_key(kind) || !sections.iter().any(|(inside, ..)| inside == kind);
        if !is_option || USED_BY_NOTHING_YET.contains(section) {
            continue;
        }
        let Some(prefix) = names.get(section) else { continue };
        // Where a rule spans options the configuration answers for them: `store_url()`, `has_role()`.
        let by_rule = ["store.url", "node.roles", "secrets.master_key_file"];
        let option = format!("{prefix}.{name}");
        if !code.contains(&option) && !by_rule.contains(&option.as_str()) {
            unused.push(option);
        }
    }
    assert!(names.len() > 20 && unused.is_empty(), "nothing reads {unused:?}");
}

#[test]
fn the_name_in_greetings_is_a_host_name() {
    let named = config("[smtp]\nhostname = \"MX.Example.com\"", &[]).smtp.hostname;
    assert_eq!(named.unwrap().as_str(), "mx.example.com");
    for text in ["a b", "mx.example.com>", "<mx", "mx\\r\\nexample", "[192.0.2.1]", "mx..example"] {
        let Err(ConfigError::Faults(faults)) = read(&format!("[smtp]\nhostname = \"{text}\""), &[]) else {
            panic!("{text} was taken")
        };
        assert_eq!(faults.len(), 1, "{text}");
        assert!(faults[0].to_string().contains("smtp.hostname"), "{}", faults[0]);
    }
}
