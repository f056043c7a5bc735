//! Scripts: what is wrong with them is named, and what is right is done.

use std::{io, sync::Mutex, time::Duration};

use tokio::time::timeout;
use tokio_util::sync::CancellationToken;

use super::{SHIPPED, Script, ScriptError, play};
use crate::{
    mail::Address,
    sandbox::{Running, Service},
};

const HEAD: &str = "[[users]]\naddress = \"ann@example.test\"\n\n[[steps]]\n";

fn read(text: &str) -> Result<Script, ScriptError> {
    Script::read(text, &|name| match name {
        "mail.eml" => Ok(b"Subject: from a file\r\n\r\nbody\r\n".to_vec()),
        _ => Err(io::Error::from(io::ErrorKind::NotFound)),
    })
}

#[track_caller]
fn check(steps: &str, line: usize, field: &str, says: &str) {
    let error = read(&format!("{HEAD}{steps}")).unwrap_err();
    assert_eq!((error.line, error.field.as_deref()), (line, Some(field)), "{error}");
    assert!(error.text.contains(says), "{error}");
    assert!(error.to_string().starts_with(&format!("line {line}, field {field}: ")), "{error}");
}

#[test]
fn what_is_wrong_with_a_step_is_named_by_line_and_field() {
    check("do = \"delivr\"\n", 5, "do", "there are deliver, revoke");
    check("do = \"deliver\"\n", 5, "user", "missing field");
    check("user = \"ann@example.test\"\n", 5, "do", "missing");
    check("do = \"deliver\"\nuser = \"eve@example.test\"\n", 6, "user", "none of the users");
    check("do = \"deliver\"\nuser = 7\n", 6, "user", "expected");
    check("do = \"deliver\"\nuser = \"ann@example.test\"\nsubjct = \"x\"\n", 7, "subjct", "unknown field");
    check("do = \"deliver\"\nuser = \"ann@example.test\"\nfile = \"none.eml\"\n", 7, "file", "none.eml");
    check(
        "do = \"deliver\"\nuser = \"ann@example.test\"\ntext = \"x\"\nfile = \"mail.eml\"\n",
        8,
        "file",
        "as it is",
    );
    check("do = \"throttle\"\nuser = \"ann@example.test\"\nfor = \"5 minutes\"\n", 7, "for", "duration");
    check("do = \"say\"\ntext = \"x\"\nat = \"soon\"\n", 7, "at", "duration");
    check("do = \"say\"\ntext = \"x\"\nat = \"1s\"\nafter = \"1s\"\n", 5, "do", "one of at, after and when");
    check("do = \"say\"\ntext = \"x\"\nwhen = { service = \"pop\", command = \"x\" }\n", 7, "when", "pop");
    check(
        "do = \"say\"\ntext = \"x\"\nwhen = { service = \"imap\", command = \"x\", usr = 1 }\n",
        7,
        "when",
        "usr",
    );
    check("do = \"answer\"\nservice = \"imap\"\ncommand = \"NOOP\"\n", 5, "with", "answers with");
    check("do = \"delay\"\nservice = \"imap\"\ncommand = \"NOOP\"\n", 5, "for", "how long");
    check("do = \"label\"\nuser = \"ann@example.test\"\n", 5, "add", "nothing to add");
    check(
        "do = \"move\"\nuser = \"ann@example.test\"\nto = \"x\"\nmessage = \"newest\"\n",
        8,
        "message",
        "first",
    );
    check("do = \"drop\"\nuser = \"ann@example.test\"\nhow = \"rudely\"\n", 7, "how", "bye");
    check("do = \"say\"\ntext = \"x\"\ntimes = 10001\n", 7, "times", "10000 times at most");
    check("do = \"say\"\ntext = \"x\"\ntimes = -1\n", 7, "times", "");
}

#[test]
fn what_is_wrong_with_the_rest_is_named_too() {
    for (text, line, field, says) in [
        ("title = 7\n", 1, Some("title"), "expected a string"),
        ("[provider]\nlike = \"gmial\"\n[[users]]\naddress = \"a@b.test\"\n", 2, Some("like"), "gmail"),
        (
            "[provider]\nsave_sent = \"later\"\n[[users]]\naddress = \"a@b.test\"\n",
            2,
            Some("save_sent"),
            "at_once",
        ),
        ("[[users]]\naddress = \"nobody\"\n", 2, Some("address"), ""),
        (
            "[[users]]\naddress = \"a@b.test\"\n[[users]]\naddress = \"A@b.test\"\n",
            4,
            Some("address"),
            "already",
        ),
        ("[listen]\nimap = \"here\"\n", 2, Some("imap"), "socket address"),
        ("[listen]\nimap = \"0.0.0.0:1143\"\n", 2, Some("imap"), "loopback"),
        ("[listen]\nmx = \"[2001:db8::1]:25\"\n", 2, Some("mx"), "loopback"),
        (
            "[[users]]\naddress = \"a@b.test\"\n[routes]\n\"c.test\" = \"192.0.2.1:25\"\n",
            4,
            Some("c.test"),
            "loopback",
        ),
        ("[oauth]\nrotation = \"sometimes\"\n", 2, Some("rotation"), "strict"),
        ("users = [\n", 1, None, ""),
    ] {
        let error = read(text).unwrap_err();
        assert_eq!(error.line, line, "{text}: {error}");
        if field.is_some() {
            assert_eq!(error.field.as_deref(), field, "{text}: {error}");
        }
        assert!(error.text.contains(says), "{text}: {error}");
    }
}

#[test]
fn every_script_that_comes_with_the_program_is_right() {
    for (name, text) in SHIPPED {
        let script = read(text).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(!script.users.is_empty() && !script.chains.is_empty(), "{name}");
        let doors = script.doors;
        for door in [doors.imap, doors.submission, doors.mx, doors.oauth] {
            assert!(door.ip().is_loopback(), "{name}");
        }
    }
}

#[test]
fn every_kind_of_step_is_in_the_integrators_guide() {
    let guide = include_str!("../../../docs/sandbox.md");
    for deed in super::read::DEEDS.split(", ") {
        assert!(guide.contains(&format!("| `{deed}`")), "{deed} is not explained");
    }
    for (name, _) in SHIPPED {
        assert!(guide.contains(&format!("| `{name}`")), "{name} is not explained");
    }
}

const ALL_KINDS: &str = r#"
        [provider]
        like = "gmail"
        [[users]]
        address = "ann@example.test"
        [[steps]]
        do = "deliver"
        user = "ann@example.test"
        message_id = "1@x.test"
        [[steps]]
        do = "deliver"
        user = "ann@example.test"
        file = "mail.eml"
        times = 2
        every = "1ms"
        [[steps]]
        do = "label"
        user = "ann@example.test"
        message = "1@x.test"
        add = ["Deals"]
        [[steps]]
        do = "flag"
        user = "ann@example.test"
        mailbox = "Deals"
        add = ["\\Seen"]
        [[steps]]
        do = "move"
        user = "ann@example.test"
        message = "last"
        to = "[Gmail]/Trash"
        [[steps]]
        do = "delete"
        user = "ann@example.test"
        message = "first"
        [[steps]]
        do = "delete"
        user = "ann@example.test"
        message = "9@x.test"
        [[steps]]
        do = "uidvalidity"
        user = "ann@example.test"
        [[steps]]
        do = "answer"
        service = "imap"
        command = "NOOP"
        next = 2
        with = "NO busy"
        [[steps]]
        do = "say"
        when = { service = "oauth", command = "TOKEN" }
        text = "somebody wants a token"
    "#;

#[tokio::test]
async fn steps_are_done_in_turn_and_told() {
    crate::net::install_provider();
    let script = read(ALL_KINDS).unwrap();
    let running = Running::of_script(&script, CancellationToken::new()).await.unwrap();
    let (told, provider) = (Mutex::new(Vec::new()), running.provider.clone());
    let ask = async {
        // The last step is due when a token is asked for.
        let token = format!("{}/token", running.issuer());
        let all_but_one = |provider: &crate::sandbox::Provider| {
            provider.with(|world| world.watches.len()) == 1 && told.lock().unwrap().len() == 10
        };
        while !all_but_one(&provider) {
            tokio::task::yield_now().await;
        }
        let http = reqwest::Client::builder().no_proxy().build().unwrap();
        http.post(token).send().await.unwrap();
    };
    let tell = |line: String| told.lock().unwrap().push(line);
    let played = async { tokio::join!(play(&script, &provider, &tell), ask) };
    timeout(Duration::from_secs(20), played).await.expect("the script ends");
    let ann = Address::parse("ann@example.test").unwrap();
    let count = |mailbox: &str| provider.messages(&ann, mailbox).len();
    assert_eq!(
        (count("INBOX"), count("[Gmail]/All Mail"), count("[Gmail]/Trash"), count("Deals")),
        (1, 2, 1, 1)
    );
    assert!(provider.messages(&ann, "Deals")[0].has_flag("\\Seen"));
    assert!(provider.said().iter().any(|said| said.service == Service::OAuth));
    let told = told.into_inner().unwrap();
    assert!(told[0].starts_with("ann@example.test: \"Hello\" arrives in INBOX"), "{told:?}");
    assert!(told.iter().any(|line| line.starts_with("line 36: not done: no such message")), "{told:?}");
    assert_eq!(told.last().map(String::as_str), Some("somebody wants a token"));
    running.stop().await;
}
