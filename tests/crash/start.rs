//! Starts that cannot succeed: one error that names the option and the way out, and exit status 1.
//!
//! Not here: every rule of the configuration (`src/config`).

use std::{
    fs,
    net::TcpListener,
    os::unix::ffi::OsStrExt as _,
    path::Path,
    process::{Command, Output, Stdio},
};

use crate::gateway::PROGRAM;

/// Runs `mailweave serve` with this configuration and nothing of ours in its environment.
fn serve(directory: &Path, config: &[u8], variables: &[(&str, &str)]) -> Output {
    let file = directory.join("mailweave.toml");
    fs::write(&file, config).unwrap();
    let mut command = Command::new(PROGRAM);
    let ours = std::env::vars_os().filter(|(name, _)| name.as_bytes().starts_with(b"MAILWEAVE"));
    for (name, _) in ours {
        command.env_remove(name);
    }
    command.args(["serve", "--config"]).arg(&file).envs(variables.iter().copied());
    command.current_dir(directory).stdin(Stdio::null()).output().unwrap()
}

/// Refused with one error that says all of these.
#[track_caller]
fn check(config: &[u8], variables: &[(&str, &str)], expect: &[&str]) {
    let directory = tempfile::tempdir().unwrap();
    let output = serve(directory.path(), config, variables);
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let from = said.find("mailweave: ").unwrap_or_else(|| panic!("no error: {said}"));
    let error = &said[from..];
    assert_eq!(error.matches("mailweave: ").count(), 1, "{said}");
    for word in expect {
        assert!(error.contains(word), "no {word:?} in {error}");
    }
    assert!(!error.contains("panicked"), "{error}");
}

/// Ports that nobody minds, and a directory of the test's own.
fn elsewhere(more: &str) -> Vec<u8> {
    let listen = |table: &str| format!("[{table}]\nlisten = [\"127.0.0.1:0\"]\n");
    let tables: String = ["smtp.mx", "smtp.submission", "smtp.submissions"].map(listen).concat();
    format!("{tables}[http]\nlisten = \"127.0.0.1:0\"\n{more}").into_bytes()
}

#[test]
fn garbage_is_no_configuration() {
    check(b"[smtp\nx", &[], &["mailweave.toml is not TOML", "line"]);
    check(b"\xff\xfe\x00\x01", &[], &["mailweave.toml cannot be read"]);
    check(b"\x00\x01\x02", &[], &["mailweave.toml is not TOML"]);
    check(b"PK\x03\x04 = 1", &[], &["mailweave.toml is not TOML"]);
}

#[test]
fn a_wrong_option_is_named_with_its_line_and_the_way_out() {
    check(
        b"[smtp]\nhostnam = \"x\"\n",
        &[],
        &["mailweave.toml:2: smtp.hostnam:", "did you mean smtp.hostname?"],
    );
    check(b"[smtp]\nrecipients_max = \"many\"\n", &[], &["mailweave.toml:2: smtp.recipients_max: wants"]);
    check(b"[sync]\npoll = 60\n", &[], &["sync.poll: wants a duration such as"]);
    check(b"[store]\nurl = \"mysql://x\"\n", &[], &["store.url: is no database we know; write sqlite://"]);
    check(b"[http]\nlisten = \"nowhere\"\n", &[], &["http.listen: wants"]);
    check(b"", &[("MAILWEAVE__SMTP__RECIPIENTS_MAX", "x")], &["MAILWEAVE__SMTP__RECIPIENTS_MAX", "wants"]);
    check(b"", &[("MAILWEAVE_LOG", "info,mailweave=loudly")], &["MAILWEAVE_LOG is no log filter"]);
    check(b"", &[("MAILWEAVE_ADMIN_KEY", "short")], &["http.admin_key: is shorter", "openssl rand -hex 32"]);
    check(
        b"[node]\nroles = []\n[dns]\ntimeout = \"0s\"\n",
        &[],
        &["2 mistakes", "node.roles", "dns.timeout"],
    );
}

#[test]
fn what_the_machine_does_not_give_is_named_too() {
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap();
    let config = format!("[http]\nlisten = \"{taken}\"\n");
    check(config.as_bytes(), &[], &["cannot listen on", &taken.to_string(), "http.listen"]);
    check(&elsewhere("[node]\ndata_dir = \"/proc/no/such\"\n"), &[], &["/proc/no/such", "node.data_dir"]);
    let missing = "[tls]\ncertificate = \"/no/such.pem\"\nprivate_key = \"/no/such.key\"\n";
    check(&elsewhere(missing), &[], &["tls.certificate", "/no/such.pem"]);
    let postgres = "[store]\nurl = \"postgres://nobody:very-secret@127.0.0.1:1/none\"\n\
                    [secrets]\nmaster_key_file = \"/no/such.key\"\n";
    check(&elsewhere(postgres), &[], &["secrets.master_key_file"]);
}

#[test]
fn a_file_that_was_asked_for_must_be_there() {
    let directory = tempfile::tempdir().unwrap();
    let output = Command::new(PROGRAM)
        .args(["serve", "--config", "no-such.toml"])
        .current_dir(directory.path())
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1));
    assert!(said.contains("no-such.toml") && said.contains("--config"), "{said}");
}
