//! The same company at the built-in provider, which does wrong when told to.
//!
//! Not here: flows that need nothing to go wrong; those run on Dovecot and Postfix (`world`).

use mailweave::{
    config::Config,
    mail::Address,
    sandbox::{self, Act, Behaviour, Provider, Service, Trigger},
};
use serde_json::json;

use crate::{
    crm::{Crm, text},
    gateway::{CAPTURE, Gateway, REPLY},
    letter::Letter,
    support::{
        Person,
        clients::{Reply, SmtpClient},
        store::Engine,
        tls::Authority,
    },
    world::{User, endpoint},
};

pub const ACME: &str = "acme.example";
pub const PROSPECTS: &str = "prospects.example";

pub struct Sandboxed {
    pub crm: Crm,
    pub gateway: Gateway,
    pub running: sandbox::Running,
    pub authority: Authority,
}

impl Sandboxed {
    pub fn start(engine: Engine, behaviour: Behaviour) -> Self {
        Self::with(engine, behaviour, |_| {})
    }

    pub fn with(engine: Engine, behaviour: Behaviour, adjust: impl FnOnce(&mut Config)) -> Self {
        let authority = Authority::new();
        let gateway = Gateway::start(engine, &authority, adjust);
        let options = sandbox::Options {
            domains: [ACME, PROSPECTS].map(str::to_owned).to_vec(),
            behaviour,
            ..sandbox::Options::default()
        };
        let running = gateway.runtime.block_on(Provider::start(options)).unwrap();
        for domain in [CAPTURE, REPLY] {
            running.provider.route(domain, gateway.mx());
        }
        let crm = gateway.crm("acme").settle_in();
        Self { crm, gateway, running, authority }
    }

    pub fn provider(&self) -> &Provider {
        &self.running.provider
    }

    /// Somebody with a mailbox here.
    pub fn person(&self, address: &str) -> Person {
        let person = Person { address: address.to_owned(), password: format!("pw-{address}") };
        self.provider().add_user(&Address::parse(address).unwrap(), &person.password).unwrap();
        person
    }

    /// A user of the workspace with a mailbox here.
    pub fn user(&self, local: &str, name: &str) -> User {
        User::add(&self.crm, self.person(&format!("{local}@{ACME}")), name)
    }

    /// A contact-to-be with a mailbox here.
    pub fn prospect(&self, local: &str) -> Person {
        self.person(&format!("{local}@{PROSPECTS}"))
    }

    pub fn connect(&self, user: &User) -> String {
        let smtp = endpoint(self.running.submission, "none");
        user.connect(&self.crm, &endpoint(self.running.imap, "none"), &smtp)
    }

    /// A workspace's smarthost here, logged in as this person.
    pub fn set_smarthost(&self, login: &Person) {
        let smarthost = json!({
            "host": "127.0.0.1",
            "port": self.running.submission.port(),
            "security": "none",
            "username": login.address,
            "password": login.password,
            "from_domains": [ACME, REPLY],
        });
        self.crm.put("/smarthost", &smarthost);
    }

    /// What goes wrong with the next such command of a submission to the provider.
    pub fn arm(&self, verb: &str, act: Act) {
        self.provider().arm(Trigger::next(Service::Submission, verb), act);
    }

    /// The commands of this verb that a door of the provider has heard.
    pub fn heard(&self, service: Service, verb: &str) -> Vec<String> {
        let said = self.provider().said().into_iter();
        said.filter(|said| said.service == service && said.verb.starts_with(verb))
            .map(|said| said.line)
            .collect()
    }

    /// The CRM sends over HTTP as this user; returns the message's id.
    #[track_caller]
    pub fn post_message(&self, user: &User, to: &[&str], subject: &str) -> String {
        let to: Vec<_> = to.iter().map(|email| json!({ "email": email })).collect();
        let message = json!({ "from_user_id": user.id, "to": to, "subject": subject, "text": "Hello." });
        text(&self.crm.post("/messages", &message), "id").to_owned()
    }

    /// A client on the gateway's submission port, TLS on, not logged in.
    pub fn submission_client(&self) -> SmtpClient {
        self.gateway.submission_client(&self.authority)
    }

    /// The same, logged in as the workspace with a key of its own.
    pub fn workspace_client(&self) -> SmtpClient {
        let mut client = self.submission_client();
        let login = Person { address: "acme".to_owned(), password: self.crm.key(&["smtp"], None).1 };
        assert_eq!(client.auth_plain(&login).code, 235);
        client
    }

    /// A mail arrives at our MX listener.
    ///
    /// # Errors
    /// The refusing reply.
    pub fn arrive(&self, from: &str, to: &[&str], letter: &Letter) -> Result<Reply, Reply> {
        SmtpClient::connect(self.gateway.mx()).send(from, to, &letter.raw())
    }

    /// The mails with this Message-ID in a mailbox here.
    pub fn mails(&self, person: &Person, mailbox: &str, id: &str) -> Vec<String> {
        let address = Address::parse(&person.address).unwrap();
        let mails = self.provider().messages(&address, mailbox).into_iter();
        let texts = mails.map(|mail| String::from_utf8_lossy(&mail.raw).into_owned());
        texts.filter(|mail| mail.contains(&format!("Message-ID: <{id}>"))).collect()
    }
}
