//! The harness itself: its servers start, mail passes through them from end to end, and nothing of them stays behind.
//!
//! Not here: the gateway. When these tests fail, the other tests' failures mean nothing.

mod support;

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::TcpListener,
    sync::mpsc,
};

use support::{
    PATIENCE,
    clients::{ImapClient, SmtpClient},
    dovecot::{Dovecot, MailFormat, Options},
    free_address, free_port,
    postfix::{Postfix, Route},
    postgres::{Durability, Postgres},
    redis::Redis,
    server::is_alive,
    wait_for,
};

fn message(from: &str, to: &str, subject: &str) -> String {
    format!(
        "From: <{from}>\nTo: <{to}>\nSubject: {subject}\nMessage-ID: <{subject}@test.example>\n\nFirst line.\n.dotted\n"
    )
}

/// Waits until a message with this subject lies in the mailbox, and returns it.
fn await_message(imap: &mut ImapClient, mailbox: &str, subject: &str) -> String {
    let mut found = None;
    wait_for(&format!("{subject} in {mailbox}"), PATIENCE, || {
        let messages = imap.messages(mailbox);
        found = messages.into_iter().find(|message| message.contains(&format!("\r\nSubject: {subject}\r\n")));
        found.is_some()
    });
    found.expect("the wait has ended")
}

#[test]
fn a_mail_goes_from_submission_into_the_customers_mailbox_and_the_answer_comes_back() {
    let dovecot = Dovecot::start();
    let postfix = Postfix::start(&dovecot, &[]);
    let (user, customer) = (dovecot.user(1), dovecot.customer(1));

    let mut submission = postfix.submission_client(&dovecot.authority);
    assert_eq!(submission.auth_plain(&user).code, 235);
    let offer = message(&user.address, &customer.address, "offer");
    submission.send(&user.address, &[&customer.address], &offer).unwrap();
    let arrived = await_message(&mut dovecot.login(&customer), "INBOX", "offer");
    assert!(arrived.ends_with("First line.\r\n.dotted\r\n"), "{arrived}");
    assert!(arrived.contains("with ESMTPSA"), "{arrived}");

    let answer = message(&customer.address, &user.address, "answer");
    SmtpClient::connect(postfix.mx).send(&customer.address, &[&user.address], &answer).unwrap();
    let mut imap = ImapClient::login_tls(dovecot.imaps, &dovecot.authority, &user);
    await_message(&mut imap, "INBOX", "answer");
}

#[test]
fn the_submission_server_takes_no_other_sender_no_wrong_password_and_no_mail_without_one() {
    let dovecot = Dovecot::start();
    let postfix = Postfix::start(&dovecot, &[]);
    let (user, other, customer) = (dovecot.user(1), dovecot.user(2), dovecot.customer(1));
    let mail = message(&other.address, &customer.address, "forged");

    let mut client = SmtpClient::connect_tls(postfix.submissions, &dovecot.authority);
    let anonymous = client.send(&user.address, &[&customer.address], &mail).unwrap_err();
    assert!((500..600).contains(&anonymous.code), "{anonymous:?}");

    let mut client = SmtpClient::connect_tls(postfix.submissions, &dovecot.authority);
    let wrong = support::Person { password: "wrong".to_owned(), ..user.clone() };
    assert_eq!(client.auth_plain(&wrong).code, 535);
    assert_eq!(client.auth_plain(&user).code, 235);
    let forged = client.send(&other.address, &[&customer.address], &mail).unwrap_err();
    assert_eq!(forged.code, 553, "{forged:?}");

    let mut clear = SmtpClient::connect(postfix.submission);
    assert_eq!(clear.auth_plain(&user).code, 530);
}

#[test]
fn mail_to_a_routed_domain_goes_to_the_gateways_port() {
    let gateway = TcpListener::bind(free_address()).unwrap();
    let dovecot = Dovecot::start();
    let postfix = Postfix::start(&dovecot, &[Route::new("bcc.example.test", gateway.local_addr().unwrap())]);
    let (sender, lines) = mpsc::channel();
    std::thread::spawn(move || {
        let (stream, _) = gateway.accept().unwrap();
        let mut writer = stream.try_clone().unwrap();
        writer.write_all(b"220 gateway.test\r\n").unwrap();
        for line in BufReader::new(stream).lines().map_while(Result::ok) {
            writer
                .write_all(if line.starts_with("RCPT") { b"450 4.0.0 later\r\n" } else { b"250 ok\r\n" })
                .unwrap();
            if sender.send(line).is_err() {
                break;
            }
        }
    });
    let (user, customer) = (dovecot.user(1), dovecot.customer(1));
    let mut submission = postfix.submission_client(&dovecot.authority);
    submission.auth_plain(&user);
    let recipients = [customer.address.as_str(), "acme@bcc.example.test"];
    submission.send(&user.address, &recipients, &message(&user.address, &customer.address, "filed")).unwrap();
    await_message(&mut dovecot.login(&customer), "INBOX", "filed");
    wait_for("Postfix to name the capture address", PATIENCE, || {
        lines.try_iter().any(|line| line.starts_with("RCPT TO:<acme@bcc.example.test>"))
    });
    wait_for("the deferred mail in the queue", PATIENCE, || {
        postfix.queue().iter().any(|mail| mail.contains("4.0.0 later"))
    });
}

#[test]
fn mail_to_an_unknown_domain_is_refused_and_to_a_closed_mailbox_comes_back_as_a_report() {
    let dovecot = Dovecot::start();
    let postfix = Postfix::start(&dovecot, &[]);
    let (user, gone) = (dovecot.user(1), Postfix::gone(&dovecot));
    let lost = message(&user.address, &gone, "lost");
    let mut client = SmtpClient::connect(postfix.mx);
    assert_eq!(client.send(&user.address, &["x@nowhere.example.test"], &lost).unwrap_err().code, 550);
    SmtpClient::connect(postfix.mx).send(&user.address, &[&gone], &lost).unwrap();
    let report = await_message(&mut dovecot.login(&user), "INBOX", "Undelivered Mail Returned to Sender");
    assert!(report.contains("report-type=delivery-status"), "{report}");
}

#[test]
fn an_account_has_its_special_mailboxes_and_what_is_appended_to_them() {
    for mail_format in [MailFormat::Maildir, MailFormat::Sdbox] {
        let dovecot = Dovecot::with(Options { mail_format, ..Options::default() });
        let user = dovecot.user(3);
        let mut imap = dovecot.login(&user);
        let list = imap.expect("LIST (SPECIAL-USE) \"\" \"*\" RETURN (SPECIAL-USE)").lines.join("\n");
        for name in ["Sent", "Drafts", "Trash", "Junk", "Archive"] {
            assert!(list.contains(&format!("\\{name}) \"/\" {name}")), "{list}");
        }
        let copy = imap.append("Sent", "\\Seen", &message(&user.address, "c@example.test", "filed"));
        assert!(copy.status.contains("[APPENDUID "), "{}", copy.status);
        assert_eq!(imap.messages("Sent").len(), 1);
        assert_eq!(imap.messages("INBOX").len(), 0);
        dovecot.doveadm(&["expunge", "-u", &user.address, "mailbox", "Sent", "all"]);
        assert_eq!(dovecot.login(&user).messages("Sent").len(), 0);
    }
}

#[test]
fn mailboxes_outlive_a_crash_of_their_server() {
    let mut dovecot = Dovecot::start();
    let user = dovecot.user(1);
    dovecot.deliver("c@example.test", &user, &message("c@example.test", &user.address, "kept")).unwrap();
    dovecot.server.crash();
    dovecot.resume();
    assert_eq!(dovecot.login(&user).messages("INBOX").len(), 1);
}

#[test]
fn redis_comes_back_empty() {
    let mut redis = Redis::start();
    assert!(redis.url().starts_with("redis://127.0.0.1:"));
    assert_eq!(redis.command("SET key value"), "+OK");
    redis.server.halt();
    assert!(!redis.server.is_running());
    redis.resume();
    assert_eq!(redis.command("GET key"), "$-1");
}

#[test]
fn each_database_is_fresh_and_a_copy_of_its_template() {
    let postgres = Postgres::shared();
    let template = postgres.database();
    template.run("create table place (name text not null); insert into place values ('here')");
    let name = template.url().rsplit('/').next().expect("a URL has a path").to_owned();
    let (one, other) = (postgres.database_from(&name), postgres.database_from(&name));
    one.run("delete from place");
    assert_eq!(
        (one.run("select count(*) from place"), other.run("select name from place")),
        ("0".into(), "here".into())
    );
    assert_eq!(postgres.database().run("select count(*) from pg_tables where schemaname = 'public'"), "0");
}

#[test]
fn a_durable_cluster_keeps_what_it_committed_through_a_crash() {
    let mut postgres = Postgres::start(Durability::Full);
    assert_eq!(postgres.run("postgres", "show fsync"), "on");
    postgres.run("postgres", "create table place (name text not null); insert into place values ('here')");
    postgres.server.crash();
    postgres.resume();
    assert_eq!(postgres.run("postgres", "select name from place"), "here");
}

#[test]
fn nothing_is_left_of_a_server_that_is_dropped() {
    let dovecot = Dovecot::start();
    let postfix = Postfix::start(&dovecot, &[]);
    let postgres = Postgres::start(Durability::Fast);
    let redis = Redis::start();
    // Each with a session open, so that there are children.
    let _imap = dovecot.login(&dovecot.user(1));
    let _submission = postfix.submission_client(&dovecot.authority);
    let servers = [&dovecot.server, &postfix.server, &postgres.server, &redis.server];
    let processes: Vec<u32> = servers.iter().flat_map(|server| server.processes()).collect();
    let directories: Vec<_> = servers.iter().map(|server| server.dir().to_owned()).collect();
    assert!(processes.len() > 12, "only {processes:?}");
    drop((postfix, dovecot, postgres, redis));
    let left = || processes.iter().filter(|pid| is_alive(**pid)).collect::<Vec<_>>();
    wait_for("every process to end", PATIENCE, || left().is_empty());
    assert!(directories.iter().all(|dir| !dir.exists()), "{directories:?}");
}

#[test]
fn a_port_is_handed_out_once() {
    let mut ports: Vec<u16> = (0..50).map(|_| free_port()).collect();
    ports.sort_unstable();
    ports.dedup();
    assert_eq!(ports.len(), 50);
}
