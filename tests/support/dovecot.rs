//! Dovecot: the users' IMAP provider, their customers' too, and the mailboxes that Postfix delivers into.
//!
//! Not here: what a provider does wrong. Dovecot is the one that keeps to the RFCs.

use std::{fmt::Write as _, fs, net::SocketAddr, path::PathBuf, process::Command};

use super::{
    Person,
    clients::{ImapClient, Reply, SmtpClient},
    free_address,
    server::{Owner, Server, Spec, directory, is_root, output, program},
    tls::Authority,
};

/// How the provider is set up.
#[derive(Debug, Clone)]
pub struct Options {
    /// `user1` to `userN` at `domain`, passwords `pw-user1` and so on.
    pub users: usize,
    pub domain: String,
    /// `cust1` to `custN` at `customers_domain`, passwords `pw-cust1` and so on.
    pub customers: usize,
    pub customers_domain: String,
    pub mail_format: MailFormat,
    /// Mailboxes beside INBOX, with their SPECIAL-USE attribute (RFC 6154) where they are to show one.
    pub mailboxes: Vec<(String, Option<String>)>,
    /// In place of the capabilities that Dovecot shows after login.
    pub capabilities: Option<String>,
    /// Connections of one user from one address.
    pub connections_per_user: u32,
    /// Whom it asks about access tokens (RFC 7662); then these log in too, by XOAUTH2 and OAUTHBEARER.
    pub introspection: Option<String>,
    /// Everybody opens everybody's mailbox, as `OWNER*HIMSELF` with his own password.
    pub delegates: bool,
    /// What it is called beside `localhost`, also in its certificate.
    pub server_names: Vec<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MailFormat {
    Maildir,
    /// Dovecot's own, one file a message.
    Sdbox,
}

impl Options {
    /// What is in the certificates of this server, and of the one that sends for it.
    pub fn names(&self) -> Vec<&str> {
        ["localhost", "127.0.0.1"].into_iter().chain(self.server_names.iter().map(String::as_str)).collect()
    }
}

impl Default for Options {
    fn default() -> Self {
        let mailboxes = ["Sent", "Drafts", "Trash", "Junk", "Archive"];
        Self {
            users: 3,
            domain: "users.example.test".to_owned(),
            customers: 3,
            customers_domain: "customers.example.test".to_owned(),
            mail_format: MailFormat::Maildir,
            mailboxes: mailboxes.map(|name| (name.to_owned(), Some(format!("\\{name}")))).to_vec(),
            capabilities: None,
            connections_per_user: 100,
            introspection: None,
            delegates: false,
            server_names: Vec::new(),
        }
    }
}

pub struct Dovecot {
    pub server: Server,
    pub options: Options,
    pub authority: Authority,
    /// IMAP, STARTTLS offered, passwords in the clear allowed.
    pub imap: SocketAddr,
    /// IMAP with TLS from the first octet, for `localhost` and 127.0.0.1.
    pub imaps: SocketAddr,
    pub lmtp: SocketAddr,
    /// Where Postfix asks whether a password is right.
    pub sasl_socket: PathBuf,
}

impl Dovecot {
    pub fn start() -> Self {
        Self::with(Options::default())
    }

    /// # Panics
    /// When Dovecot is missing or does not start.
    pub fn with(options: Options) -> Self {
        let version = output(Command::new(program("dovecot")).arg("--version"));
        assert!(version.starts_with("2.3."), "the tests' configuration is for Dovecot 2.3, not {version}");
        let (dir, owner, authority) = (directory("imap"), Owner::for_tests(), Authority::new());
        let (imap, imaps, lmtp) = (free_address(), free_address(), free_address());
        let sasl_socket = dir.join("sasl");
        let certificate = authority.issue(&dir, &options.names());
        for name in ["run", "state", "mail"] {
            fs::create_dir(dir.join(name)).unwrap();
        }
        owner.take(&dir.join("mail"));
        fs::write(dir.join("users"), users_file(&options)).unwrap();
        if let Some(url) = &options.introspection {
            fs::write(dir.join("oauth2.conf"), introspection(url)).unwrap();
        }
        let parts =
            Parts { options: &options, owner, ports: [imap, imaps, lmtp].map(|address| address.port()) };
        let config = parts.config(
            &dir.display().to_string(),
            &certificate.chain.display().to_string(),
            &certificate.key.display().to_string(),
        );
        let config_file = dir.join("dovecot.conf");
        fs::write(&config_file, config).unwrap();
        let command = vec![program("dovecot").into(), "-F".into(), "-c".into(), config_file.into()];
        let spec =
            Spec { name: "dovecot", dir, command, signal: "TERM", final_signal: "KILL", as_root: false };
        let server = Server::start(spec, || accepts(&[imap, imaps, lmtp]) && sasl_socket.exists());
        Self { server, options, authority, imap, imaps, lmtp, sasl_socket }
    }

    /// `user1` and so on, counting from 1.
    pub fn user(&self, number: usize) -> Person {
        person("user", number, &self.options.domain)
    }

    /// `cust1` and so on, counting from 1.
    pub fn customer(&self, number: usize) -> Person {
        person("cust", number, &self.options.customers_domain)
    }

    /// Everybody with an account here.
    pub fn people(&self) -> Vec<Person> {
        people(&self.options)
    }

    /// Logs in over the clear port.
    pub fn login(&self, person: &Person) -> ImapClient {
        ImapClient::login(self.imap, person)
    }

    /// Puts a message into somebody's INBOX as the last hop does.
    ///
    /// # Errors
    /// The refusing reply.
    pub fn deliver(&self, from: &str, to: &Person, message: &str) -> Result<Reply, Reply> {
        SmtpClient::connect_lmtp(self.lmtp).send(from, &[&to.address], message)
    }

    /// Starts it again with the same mailboxes and ports.
    pub fn resume(&mut self) {
        let listeners = [self.imap, self.imaps, self.lmtp];
        self.server.resume(|| accepts(&listeners));
    }

    /// Runs doveadm: `doveadm(&["expunge", "-u", ADDRESS, "mailbox", "INBOX", "all"])`.
    ///
    /// # Panics
    /// When it fails.
    pub fn doveadm(&self, arguments: &[&str]) -> String {
        output(
            Command::new(program("doveadm"))
                .arg("-c")
                .arg(self.server.dir().join("dovecot.conf"))
                .args(arguments),
        )
    }
}

fn accepts(listeners: &[SocketAddr]) -> bool {
    listeners.iter().all(|address| std::net::TcpStream::connect(address).is_ok())
}

fn person(name: &str, number: usize, domain: &str) -> Person {
    Person { address: format!("{name}{number}@{domain}"), password: format!("pw-{name}{number}") }
}

fn people(options: &Options) -> Vec<Person> {
    let users = (1..=options.users).map(|number| person("user", number, &options.domain));
    users
        .chain((1..=options.customers).map(|number| person("cust", number, &options.customers_domain)))
        .collect()
}

fn users_file(options: &Options) -> String {
    people(options)
        .iter()
        .map(|person| format!("{}:{{PLAIN}}{}::::::\n", person.address, person.password))
        .collect()
}

/// Where Dovecot asks about tokens, and what it believes.
fn introspection(url: &str) -> String {
    format!(
        "introspection_mode = post
introspection_url = {url}
force_introspection = yes
username_attribute = username
active_attribute = active
active_value = true
timeout_msecs = 5000
openid_configuration_url = {url}/openid-configuration
scope = mail
"
    )
}

fn delegates(dir: &str) -> String {
    format!(
        "auth_master_user_separator = *\npassdb {{\n  driver = passwd-file\n  master = yes\n  mechanisms = plain login\n  \
         args = {dir}/users\n  result_success = continue\n}}\n"
    )
}

fn tokens(dir: &str) -> String {
    format!(
        "passdb {{\n  driver = oauth2\n  mechanisms = xoauth2 oauthbearer\n  args = {dir}/oauth2.conf\n}}\n"
    )
}

struct Parts<'a> {
    options: &'a Options,
    owner: &'a Owner,
    /// Of IMAP, IMAP over TLS, LMTP.
    ports: [u16; 3],
}

impl Parts<'_> {
    fn config(&self, dir: &str, chain: &str, key: &str) -> String {
        let Options { domain, connections_per_user, .. } = self.options;
        let Owner { uid, gid, .. } = self.owner;
        let location = match self.options.mail_format {
            MailFormat::Maildir => "maildir:~/Maildir",
            MailFormat::Sdbox => "sdbox:~/sdbox",
        };
        let capabilities =
            self.options.capabilities.as_ref().map(|shown| format!("imap_capability = {shown}"));
        let (capabilities, mailboxes) = (capabilities.unwrap_or_default(), self.mailboxes());
        let (bearer, tokens) = match self.options.introspection {
            Some(_) => (" xoauth2 oauthbearer", tokens(dir)),
            None => ("", String::new()),
        };
        let delegates = if self.options.delegates { delegates(dir) } else { String::new() };
        format!(
            "
base_dir = {dir}/run
state_dir = {dir}/state
instance_name = {dir}
log_path = {dir}/log/dovecot.log
protocols = imap lmtp
default_process_limit = 1000
listen = 127.0.0.1
ssl = yes
ssl_cert = <{chain}
ssl_key = <{key}
disable_plaintext_auth = no
auth_mechanisms = plain login{bearer}
auth_failure_delay = 0
auth_verbose = yes
first_valid_uid = 1
mail_location = {location}
mail_fsync = never
recipient_delimiter = +
hostname = mail.{domain}
postmaster_address = postmaster@{domain}
{tokens}{delegates}passdb {{
  driver = passwd-file
  mechanisms = plain login
  args = {dir}/users
}}
userdb {{
  driver = passwd-file
  args = {dir}/users
  default_fields = uid={uid} gid={gid} home={dir}/mail/%d/%n
}}
namespace inbox {{
  inbox = yes
  separator = /
{mailboxes}}}
protocol imap {{
  mail_max_userip_connections = {connections_per_user}
  {capabilities}
}}
{services}{rootless}",
            services = self.services(dir),
            rootless = self.rootless(),
        )
    }

    fn services(&self, dir: &str) -> String {
        let [imap, imaps, lmtp] = self.ports;
        format!(
            "
service imap-login {{
  inet_listener imap {{
    port = {imap}
  }}
  inet_listener imaps {{
    port = {imaps}
    ssl = yes
  }}
}}
service lmtp {{
  inet_listener lmtp {{
    address = 127.0.0.1
    port = {lmtp}
  }}
}}
service auth {{
  unix_listener {dir}/sasl {{
    mode = 0666
  }}
}}
# Wrong passwords are answered at once, however many there were.
service anvil {{
  unix_listener anvil-auth-penalty {{
    mode = 0
  }}
}}
service stats {{
  unix_listener stats-writer {{
    mode = 0666
  }}
}}
"
        )
    }

    fn mailboxes(&self) -> String {
        let mut text = String::new();
        for (name, special_use) in &self.options.mailboxes {
            let attribute = special_use.as_ref().map(|attribute| format!("    special_use = {attribute}\n"));
            let attribute = attribute.unwrap_or_default();
            write!(text, "  mailbox \"{name}\" {{\n    auto = subscribe\n{attribute}  }}\n")
                .expect("a String takes all");
        }
        text
    }

    /// Without root nobody can change user or root directory.
    fn rootless(&self) -> String {
        if is_root() {
            return String::new();
        }
        let Owner { user, group, .. } = self.owner;
        let services = ["imap-login", "anvil", "stats", "lmtp"]
            .map(|name| format!("service {name} {{\n  chroot =\n}}\n"));
        format!(
            "default_internal_user = {user}\ndefault_login_user = {user}\ndefault_internal_group = {group}\n{}",
            services.concat()
        )
    }
}
