//! Postfix: the users' submission server, and the MTA through which the rest of the world writes to us.
//!
//! Not here: mailboxes. What is for people it hands to Dovecot; what is for a gateway's domain, to the gateway.

use std::{
    fmt::Write as _,
    fs,
    io::Write as _,
    net::SocketAddr,
    path::{Path, PathBuf},
    process::Command,
    time::{Duration, SystemTime},
};

use super::{
    clients::SmtpClient,
    dovecot::Dovecot,
    free_address,
    server::{Server, Spec, directory, output, privileged, program},
    tls::{Authority, Certificate},
};

/// A domain and who takes its mail, as its MX record would say.
#[derive(Debug, Clone)]
pub struct Route {
    pub domain: String,
    pub to: SocketAddr,
}

impl Route {
    pub fn new(domain: &str, to: SocketAddr) -> Self {
        Self { domain: domain.to_owned(), to }
    }
}

pub struct Postfix {
    pub server: Server,
    /// Takes mail for everybody here and for the routed domains, from anyone; STARTTLS offered.
    pub mx: SocketAddr,
    /// STARTTLS, AUTH, and the sender must be who logged in.
    pub submission: SocketAddr,
    /// The same with TLS from the first octet.
    pub submissions: SocketAddr,
    /// STARTTLS and AUTH, any sender: what a company sends its bulk mail by.
    pub smarthost: SocketAddr,
}

impl Postfix {
    /// Starts it in front of Dovecot's mailboxes. Mail to domains that are neither Dovecot's nor routed is
    /// refused.
    ///
    /// # Panics
    /// When Postfix is missing, does not start, or root is out of reach.
    pub fn start(dovecot: &Dovecot, routes: &[Route]) -> Self {
        output(&mut privileged("true", true));
        let dir = directory("mta");
        let listeners = [(); 4].map(|()| free_address());
        let conf = dir.join("conf");
        fs::create_dir(&conf).unwrap();
        let certificate = dovecot.authority.issue(&dir, &dovecot.options.names());
        let addresses =
            dovecot.people().into_iter().map(|person| person.address).chain([Self::gone(dovecot)]);
        write(
            &conf,
            "mailboxes",
            &addresses.map(|address| format!("{address} {address}\n")).collect::<String>(),
        );
        let line = |route: &Route| format!("{} smtp:[{}]:{}\n", route.domain, route.to.ip(), route.to.port());
        write(&conf, "routes", &routes.iter().map(line).collect::<String>());
        let main = main_cf(&dir, dovecot, &certificate);
        let server = launch(dir, &main, &doors(listeners), &listeners);
        let [mx, submission, submissions, smarthost] = listeners;
        Self { server, mx, submission, submissions, smarthost }
    }

    /// An address that is taken at RCPT and refused by the mailbox server: mail to it comes back as a report (RFC 3464).
    pub fn gone(dovecot: &Dovecot) -> String {
        format!("gone@{}", dovecot.options.customers_domain)
    }

    /// A client of the submission port, TLS on, not logged in.
    pub fn submission_client(&self, authority: &Authority) -> SmtpClient {
        let mut client = SmtpClient::connect(self.submission);
        client.starttls(authority);
        client
    }

    /// Messages that have not left yet, a JSON object each.
    pub fn queue(&self) -> Vec<String> {
        let conf = self.server.dir().join("conf");
        let queue = output(privileged("postqueue", true).arg("-c").arg(conf).arg("-j"));
        queue.lines().filter(|line| !line.trim().is_empty()).map(str::to_owned).collect()
    }

    /// Tries everything now that waits for another try.
    pub fn flush(&self) {
        output(privileged("postqueue", true).arg("-c").arg(self.server.dir().join("conf")).arg("-f"));
    }

    /// Starts it again with its queue.
    pub fn resume(&mut self) {
        let listeners = [self.mx, self.submission, self.submissions, self.smarthost];
        self.server.resume(|| accepts(&listeners));
    }
}

/// Starts a Postfix whose files are in this directory: `main` is added to main.cf, `doors` to master.cf. It is up when it
/// listens on all of these addresses.
///
/// # Panics
/// As [`Postfix::start`].
pub fn launch(dir: PathBuf, main: &str, doors: &str, listeners: &[SocketAddr]) -> Server {
    let conf = dir.join("conf");
    fs::create_dir_all(&conf).unwrap();
    make_queue(&dir);
    write(&conf, "main.cf", &(places(&dir) + main));
    write(&conf, "master.cf", &(doors.to_owned() + &services()));
    // The master itself: `postfix start-fg` would put it out of the keeper's reach, after a second's checks of its queue.
    let master = Path::new(&built_in("daemon_directory")).join("master");
    let command = vec![master.into(), "-c".into(), conf.into(), "-s".into()];
    let spec = Spec { name: "postfix", dir, command, signal: "TERM", final_signal: "KILL", as_root: true };
    Server::start(spec, || accepts(listeners))
}

fn accepts(listeners: &[SocketAddr]) -> bool {
    listeners.iter().all(|address| std::net::TcpStream::connect(address).is_ok())
}

/// Writes a file that looks an hour old: Postfix waits for a second or two before it trusts one written just now.
fn write(dir: &Path, name: &str, text: &str) {
    let mut file = fs::File::create(dir.join(name)).unwrap();
    file.write_all(text.as_bytes()).unwrap();
    file.set_modified(SystemTime::now() - Duration::from_secs(3600)).unwrap();
}

/// The directories that `postfix check` would make, with the owners and modes it insists on.
fn make_queue(dir: &Path) {
    const PRIVATE: [&str; 11] = [
        "active", "bounce", "corrupt", "defer", "deferred", "flush", "hold", "incoming", "private", "saved",
        "trace",
    ];
    let install = |options: &[&str], paths: &[PathBuf]| {
        output(privileged("install", true).arg("-d").args(options).args(paths));
    };
    let (queue, group) = (dir.join("queue"), built_in("setgid_group"));
    install(&["-o", "root", "-m", "0755"], &[queue.clone(), queue.join("pid")]);
    install(&["-o", "postfix", "-m", "0700"], &PRIVATE.map(|name| queue.join(name)));
    install(&["-o", "postfix", "-m", "0700"], &[dir.join("data")]);
    install(&["-o", "postfix", "-g", &group, "-m", "0730"], &[queue.join("maildrop")]);
    install(&["-o", "postfix", "-g", &group, "-m", "0710"], &[queue.join("public")]);
}

/// Where the distribution put things, whichever distribution it is.
fn built_in(name: &str) -> String {
    output(Command::new(program("postconf")).args(["-d", "-h", name]))
}

/// Where its files are, and that it minds nobody else's.
fn places(dir: &Path) -> String {
    let dir = dir.display();
    let (daemons, commands, group) =
        (built_in("daemon_directory"), built_in("command_directory"), built_in("setgid_group"));
    format!(
        "\
compatibility_level = 3.6
queue_directory = {dir}/queue
data_directory = {dir}/data
daemon_directory = {daemons}
command_directory = {commands}
mail_owner = postfix
setgid_group = {group}
maillog_file = {dir}/log/postfix.log
maillog_file_prefixes = {dir}/log
mydestination =
inet_interfaces = 127.0.0.1
inet_protocols = ipv4
smtpd_peername_lookup = no
mynetworks = 127.0.0.0/8
alias_maps =
alias_database =
local_recipient_maps =
append_dot_mydomain = no
smtpd_client_connection_count_limit = 0
"
    )
}

fn main_cf(dir: &Path, dovecot: &Dovecot, certificate: &Certificate) -> String {
    let (dir, options) = (dir.display(), &dovecot.options);
    let (domain, customers_domain) = (&options.domain, &options.customers_domain);
    let (lmtp, sasl) = (dovecot.lmtp.port(), dovecot.sasl_socket.display());
    let (chain, key) = (certificate.chain.display(), certificate.key.display());
    format!(
        "\
myhostname = mail.{domain}
smtp_host_lookup = native
recipient_delimiter = +
biff = no
virtual_mailbox_domains = {domain}, {customers_domain}
virtual_mailbox_maps = texthash:{dir}/conf/mailboxes
virtual_transport = lmtp:inet:127.0.0.1:{lmtp}
transport_maps = texthash:{dir}/conf/routes
relay_domains = texthash:{dir}/conf/routes
relay_transport = error:5.1.2 no route
default_transport = error:5.1.2 no such domain in this test
smtpd_relay_restrictions = permit_mynetworks, permit_sasl_authenticated, reject
smtpd_sasl_type = dovecot
smtpd_sasl_path = {sasl}
smtpd_sasl_security_options = noanonymous
smtpd_sender_login_maps = texthash:{dir}/conf/mailboxes
smtpd_tls_cert_file = {chain}
smtpd_tls_key_file = {key}
smtpd_tls_security_level = may
smtpd_tls_auth_only = yes
smtp_tls_security_level = may
line_length_limit = 12288
message_size_limit = 52428800
mailbox_size_limit = 0
smtpd_error_sleep_time = 0
queue_run_delay = 2s
minimal_backoff_time = 2s
maximal_backoff_time = 10s
"
    )
}

/// What listens for mail, in master.cf.
fn doors([mx, submission, submissions, smarthost]: [SocketAddr; 4]) -> String {
    const AUTH: &str = "\
\x20 -o smtpd_sasl_auth_enable=yes
  -o smtpd_client_restrictions=permit_sasl_authenticated,reject
  -o smtpd_relay_restrictions=permit_sasl_authenticated,reject
";
    const OWN: &str = "\x20 -o smtpd_sender_restrictions=reject_sender_login_mismatch\n";
    let mut text = String::new();
    writeln!(text, "{mx} inet n - n - - smtpd").expect("a String takes all");
    let doors = [
        (submission, "smtpd_tls_security_level=encrypt", OWN),
        (submissions, "smtpd_tls_wrappermode=yes", OWN),
        (smarthost, "smtpd_tls_security_level=encrypt", ""),
    ];
    for (door, tls, sender) in doors {
        write!(text, "{door} inet n - n - - smtpd\n  -o {tls}\n{AUTH}{sender}").expect("a String takes all");
    }
    text
}

/// The daemons behind the doors, in master.cf.
fn services() -> String {
    // Name, who may connect, wake-up time, how many, program. None is confined to the queue: the files they read are elsewhere.
    let services = [
        ("pickup unix", "n", "60", "1", "pickup"),
        ("cleanup unix", "n", "-", "0", "cleanup"),
        ("qmgr unix", "n", "300", "1", "qmgr"),
        ("tlsmgr unix", "-", "1000?", "1", "tlsmgr"),
        ("rewrite unix", "-", "-", "-", "trivial-rewrite"),
        ("bounce unix", "-", "-", "0", "bounce"),
        ("defer unix", "-", "-", "0", "bounce"),
        ("trace unix", "-", "-", "0", "bounce"),
        ("verify unix", "-", "-", "1", "verify"),
        ("flush unix", "n", "1000?", "0", "flush"),
        ("proxymap unix", "-", "-", "-", "proxymap"),
        ("smtp unix", "-", "-", "-", "smtp"),
        ("relay unix", "-", "-", "-", "smtp"),
        ("lmtp unix", "-", "-", "-", "lmtp"),
        ("discard unix", "-", "-", "-", "discard"),
        ("error unix", "-", "-", "-", "error"),
        ("retry unix", "-", "-", "-", "error"),
        ("showq unix", "n", "-", "-", "showq"),
        ("anvil unix", "-", "-", "1", "anvil"),
        ("scache unix", "-", "-", "1", "scache"),
        ("postlog unix-dgram", "n", "-", "1", "postlogd"),
    ];
    let line = |(name, private, wake_up, count, program)| {
        format!("{name} {private} - n {wake_up} {count} {program}\n")
    };
    services.map(line).concat()
}
