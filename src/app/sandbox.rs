//! `mailweave sandbox`: a mail provider in memory that plays a script, for whoever tries an integration against it.
//!
//! Not here: the provider and its scripts (`crate::sandbox`), and a gateway beside it: that is `demo`, or one of yours.

use std::{io, path::Path, time::Instant};

use anyhow::{Context, bail};
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use crate::{
    config::{LogFormat, LogLevel},
    net,
    sandbox::{
        Running,
        script::{SHIPPED, Script, play},
    },
    telemetry,
};

/// Octets of a file that a script delivers.
const FILE_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// Plays the script, then keeps the provider up until Ctrl-C. With `check` only reads the script.
///
/// # Errors
/// When the script cannot be read or is wrong, or a port is taken.
pub async fn run(script: &Path, check: bool) -> anyhow::Result<()> {
    let name = script.display();
    let parsed = load(script)?;
    if check {
        println!("{name} is right: {}.", parsed.title);
        return Ok(());
    }
    let _log = telemetry::init_log(LogLevel::Warn, LogFormat::Text)?;
    net::install_provider();
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    let opened = Running::of_script(&parsed, CancellationToken::new()).await;
    let running = opened.context("the sandbox cannot listen: is another one running on these ports?")?;
    print!("{}", introduction(&parsed, &running));
    let began = Instant::now();
    let tell = |line: String| println!("  {:7.1} s  {line}", began.elapsed().as_secs_f64());
    let played = async {
        play(&parsed, &running.provider, &tell).await;
        tell("the script is at its end; the provider stays up".to_owned());
        std::future::pending::<()>().await;
    };
    tokio::select! { () = played => {} _ = interrupt.recv() => {} _ = terminate.recv() => {} }
    println!("\nGoing: the mailboxes are forgotten.");
    running.stop().await;
    Ok(())
}

/// A script of the user's, or one of ours where there is no such file.
fn load(path: &Path) -> anyhow::Result<Script> {
    let shipped = SHIPPED.iter().find(|(name, _)| path == Path::new(name)).map(|(_, text)| *text);
    let text = match (std::fs::read_to_string(path), shipped) {
        (Ok(text), _) => text,
        (Err(_), Some(text)) => text.to_owned(),
        (Err(error), None) => {
            let names: Vec<&str> = SHIPPED.iter().map(|(name, _)| *name).collect();
            bail!(
                "{}: {error}; the scripts that come with the program are {}",
                path.display(),
                names.join(", ")
            );
        }
    };
    let beside = path.parent().filter(|parent| !parent.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let file = |name: &str| {
        // Scripts are handed around: none has whoever plays it read out what else he has.
        let path = beside.join(name).canonicalize()?;
        if !path.starts_with(beside.canonicalize()?) {
            return Err(io::Error::other("lies outside the script's directory"));
        }
        if std::fs::metadata(&path)?.len() > FILE_BYTES_MAX {
            return Err(io::Error::other(format!("has more than {FILE_BYTES_MAX} octets")));
        }
        std::fs::read(path)
    };
    Script::read(&text, &file).with_context(|| format!("the script {} is wrong", path.display()))
}

fn introduction(script: &Script, running: &Running) -> String {
    let mut text = format!("Mailweave sandbox: {}. Everything is in memory.\n\n", script.title);
    let issuer = running.issuer();
    for (what, at) in [
        ("IMAP", format!("{} (no TLS)", running.imap)),
        ("Submission", format!("{} (no TLS)", running.submission)),
        ("MX", running.mx.to_string()),
        ("OAuth2", format!("{issuer}/authorize, {issuer}/token, {issuer}/revoke")),
        ("", format!("client_id {:?}", script.oauth.client_id)),
    ] {
        text.push_str(&format!("  {what:<12} {at}\n"));
    }
    text.push_str("\n  Users\n");
    for user in &script.users {
        text.push_str(&format!("  {:<12} {}, password {:?}\n", "", user.address, user.password));
    }
    text.push_str(
        "\nThe gateway's configuration needs:  [egress] allow = [\"127.0.0.0/8\"]\nCtrl-C ends it.\n\n",
    );
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_script_that_is_not_there_or_wrong_is_told_with_its_place() {
        let error = load(Path::new("no-such.toml")).unwrap_err();
        assert!(error.to_string().contains("the scripts that come with the program are gmail, "), "{error}");
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("mine.toml");
        std::fs::write(directory.path().join("mail.eml"), "Subject: x\r\n\r\n").unwrap();
        std::fs::write(&path, "[[users]]\naddress = \"a@b.test\"\n[[steps]]\ndo = \"sing\"\n").unwrap();
        let error = load(&path).unwrap_err();
        assert!(
            error.root_cause().to_string().starts_with("line 4, field do: \"sing\" is no step"),
            "{error:#}"
        );
        let right = "[[users]]\naddress = \"a@b.test\"\n[[steps]]\ndo = \"deliver\"\nuser = \"a@b.test\"\nfile = \"mail.eml\"\n";
        std::fs::write(&path, right).unwrap();
        assert!(load(&path).is_ok());
        let below = directory.path().join("below");
        std::fs::create_dir(&below).unwrap();
        let path = below.join("mine.toml");
        for file in ["../mail.eml", "/etc/hostname", "linked.eml"] {
            std::os::unix::fs::symlink("../mail.eml", below.join("linked.eml")).ok();
            std::fs::write(&path, right.replace("mail.eml", file)).unwrap();
            let error = load(&path).unwrap_err().root_cause().to_string();
            assert!(error.starts_with("line 6, field file: ") && error.contains("lies outside"), "{error}");
        }
    }

    #[tokio::test]
    async fn the_first_lines_say_where_it_listens_and_who_is_there() {
        let script = Script::read("[[users]]\naddress = \"a@b.test\"\npassword = \"pw\"\n", &|_| {
            Err(io::Error::other("no files"))
        });
        let script = script.unwrap();
        let running = Running::of_script(&script, CancellationToken::new()).await.unwrap();
        let text = introduction(&script, &running);
        for part in [
            running.imap.to_string(),
            running.submission.to_string(),
            running.mx.to_string(),
            format!("http://{}/token", running.oauth),
            "a@b.test, password \"pw\"".to_owned(),
        ] {
            assert!(text.contains(&part), "{part} in {text}");
        }
        running.stop().await;
    }
}
