//! A company at a real provider: Dovecot for mailboxes, Postfix for sending, the gateway beside them, a workspace in it.
//!
//! Users are `user1` (Ann), `user2` (Ben), `user3` (Eve) and contacts are customers, all with mailboxes at the same Dovecot.

use std::{
    net::SocketAddr,
    process::{Command, Stdio},
};

use mailweave::config::Config;
use serde_json::{Value, json};

use crate::{
    crm::{Crm, text},
    gateway::{CAPTURE, Gateway, REPLY},
    letter::Letter,
    support::{
        PATIENCE, Person,
        clients::{Reply, SmtpClient},
        dovecot::{Dovecot, Options},
        postfix::{Postfix, Route},
        server::{output, program},
        store::Engine,
        wait_for,
    },
};

pub struct World {
    pub crm: Crm,
    pub gateway: Gateway,
    pub postfix: Postfix,
    pub dovecot: Dovecot,
}

/// Somebody who works in a workspace.
#[derive(Debug, Clone)]
pub struct User {
    pub person: Person,
    pub id: String,
    pub capture_address: String,
}

impl User {
    /// Adds him to a workspace.
    pub fn add(crm: &Crm, person: Person, name: &str) -> Self {
        let user = crm.post("/users", &json!({ "email": person.address, "name": name }));
        let (id, capture_address) = (text(&user, "id").to_owned(), text(&user, "capture_address").to_owned());
        Self { person, id, capture_address }
    }

    /// Connects his account with these servers. Returns its id.
    pub fn connect(&self, crm: &Crm, imap: &Value, smtp: &Value) -> String {
        let Person { address, password } = &self.person;
        let account = json!({
            "user_id": self.id,
            "email": address,
            "imap": imap,
            "smtp": smtp,
            "auth": { "type": "password", "username": address, "password": password },
        });
        text(&crm.post("/accounts", &account), "id").to_owned()
    }
}

impl World {
    pub fn start(engine: Engine) -> Self {
        Self::with(engine, |_| {})
    }

    /// The same with what `adjust` changes of the gateway's configuration.
    pub fn with(engine: Engine, adjust: impl FnOnce(&mut Config)) -> Self {
        let dovecot = Dovecot::with(Options { customers: 9, ..Options::default() });
        let gateway = Gateway::start(engine, &dovecot.authority, adjust);
        let routes = [CAPTURE, REPLY].map(|domain| Route::new(domain, gateway.mx()));
        let postfix = Postfix::start(&dovecot, &routes);
        let crm = gateway.crm("acme").settle_in();
        Self { crm, gateway, postfix, dovecot }
    }

    /// Adds a user to the workspace, his mailbox being the provider's `user` of this number.
    pub fn user(&self, number: usize, name: &str) -> User {
        self.user_in(&self.crm, number, name)
    }

    pub fn user_in(&self, crm: &Crm, number: usize, name: &str) -> User {
        User::add(crm, self.dovecot.user(number), name)
    }

    /// The contact-to-be of this number.
    pub fn customer(&self, number: usize) -> Person {
        self.dovecot.customer(number)
    }

    /// Connects the user's account at the provider, TLS and STARTTLS as in life.
    pub fn connect(&self, user: &User) -> String {
        self.connect_in(&self.crm, user)
    }

    pub fn connect_in(&self, crm: &Crm, user: &User) -> String {
        let smtp = endpoint(self.postfix.submission, "starttls");
        user.connect(crm, &endpoint(self.dovecot.imaps, "tls"), &smtp)
    }

    /// Sets the workspace's smarthost: Postfix, logged in as a user that may send as anybody.
    pub fn set_smarthost(&self) {
        let login = self.dovecot.user(3);
        let smarthost = json!({
            "host": "127.0.0.1",
            "port": self.postfix.smarthost.port(),
            "security": "starttls",
            "username": login.address,
            "password": login.password,
            "from_domains": [self.dovecot.options.domain, REPLY],
        });
        self.crm.put("/smarthost", &smarthost);
    }

    /// What somebody's mail client does: submit at the provider, Bcc in the envelope alone.
    #[track_caller]
    pub fn client_sends(&self, from: &Person, to: &[&str], letter: &Letter) {
        let mut client = self.postfix.submission_client(&self.dovecot.authority);
        assert_eq!(client.auth_plain(from).code, 235);
        client.send(&from.address, to, &letter.raw()).unwrap();
    }

    /// The same by swaks, which is somebody else's client.
    #[track_caller]
    pub fn swaks_sends(&self, server: SocketAddr, login: &Person, to: &[&str], letter: &str) -> String {
        let mail = self.postfix.server.dir().join("swaks.eml");
        std::fs::write(&mail, letter).unwrap();
        let mut command = Command::new(program("swaks"));
        command
            .args(["--server", "127.0.0.1", "--port", &server.port().to_string(), "--tls"])
            .args(["--auth", "PLAIN", "--auth-user", &login.address, "--auth-password", &login.password])
            .args(["--from", &login.address, "--to", &to.join(","), "--suppress-data"])
            .arg("--data")
            .arg(format!("@{}", mail.display()))
            .stdin(Stdio::null());
        output(&mut command)
    }

    /// A client on the gateway's submission port, TLS on, not logged in.
    pub fn submission_client(&self) -> SmtpClient {
        self.gateway.submission_client(&self.dovecot.authority)
    }

    /// The CRM hands a mail in over SMTP, logged in as this user with this key.
    ///
    /// # Errors
    /// The refusing reply.
    pub fn hand_in(&self, user: &User, key: &str, to: &[&str], letter: &Letter) -> Result<Reply, Reply> {
        let mut client = self.submission_client();
        let login = Person { address: user.person.address.clone(), password: key.to_owned() };
        assert_eq!(client.auth_plain(&login).code, 235);
        client.send(&user.person.address, to, &letter.raw())
    }

    /// A key of the workspace with the scope `smtp`.
    pub fn smtp_key(&self) -> String {
        self.crm.key(&["smtp"], None).1
    }

    /// Waits until a mail with this Message-ID lies in a mailbox, and returns it as it lies there.
    #[track_caller]
    pub fn await_mail(&self, person: &Person, mailbox: &str, id: &str) -> String {
        let mut found = None;
        let mut imap = self.dovecot.login(person);
        wait_for(&format!("{id} in {mailbox} of {}", person.address), PATIENCE, || {
            found = imap.messages(mailbox).into_iter().find(|mail| has_id(mail, id));
            found.is_some()
        });
        found.expect("the wait has ended")
    }

    /// How often a mail with this Message-ID lies in a mailbox.
    pub fn count_mail(&self, person: &Person, mailbox: &str, id: &str) -> usize {
        self.dovecot.login(person).messages(mailbox).iter().filter(|mail| has_id(mail, id)).count()
    }
}

/// A server as the API wants it named.
pub fn endpoint(address: SocketAddr, security: &str) -> Value {
    json!({ "host": "127.0.0.1", "port": address.port(), "security": security })
}

fn has_id(mail: &str, id: &str) -> bool {
    mail.contains(&format!("\r\nMessage-ID: <{id}>\r\n"))
}

/// The `msg_…` of a 250.
#[track_caller]
pub fn accepted_id(reply: &Reply) -> String {
    let id = reply.text.split_whitespace().find(|word| word.starts_with("msg_"));
    id.unwrap_or_else(|| panic!("no id in {reply:?}")).to_owned()
}

#[track_caller]
pub fn assert_reply(reply: &Reply, code: u16, status: &str) {
    assert!(reply.code == code && reply.text.starts_with(status), "{reply:?}");
}

/// Fails when the text holds any of these words, whatever their case; says which.
#[track_caller]
pub fn assert_free_of(text: &str, words: &[&str]) {
    let lower = text.to_lowercase();
    let found: Vec<_> = words.iter().filter(|word| lower.contains(&word.to_lowercase())).collect();
    assert!(found.is_empty(), "{found:?} in\n{text}");
}
