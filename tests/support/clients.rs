//! Small blocking clients of SMTP, LMTP and IMAP for the tests' own use: they say what they are told to, and check answers.
//!
//! Not the gateway's clients: a test that proved our client with our client would prove nothing.

use std::{
    io::{BufRead as _, BufReader, Read, Write},
    net::{Ipv4Addr, SocketAddr, TcpStream},
    sync::Arc,
    time::Duration,
};

use base64::{Engine as _, prelude::BASE64_STANDARD};
use rustls::{ClientConfig, ClientConnection, StreamOwned, pki_types::ServerName};
use socket2::{Domain, Socket, Type};

use super::{Person, tls::Authority};

/// A server that stays silent for longer fails the test.
const SILENCE_MAX: Duration = Duration::from_secs(30);

trait Stream: Read + Write + Send {}
impl<T: Read + Write + Send> Stream for T {}

/// A connection read by lines.
struct Connection(BufReader<Box<dyn Stream>>);

impl Connection {
    fn open(address: SocketAddr) -> TcpStream {
        let stream = TcpStream::connect(address)
            .unwrap_or_else(|error| panic!("nobody listens on {address}: {error}"));
        Self::prepared(stream)
    }

    fn prepared(stream: TcpStream) -> TcpStream {
        stream.set_read_timeout(Some(SILENCE_MAX)).unwrap();
        stream.set_nodelay(true).unwrap();
        stream
    }

    fn clear(stream: TcpStream) -> Self {
        Self(BufReader::new(Box::new(stream)))
    }

    fn tls(stream: TcpStream, config: Arc<ClientConfig>) -> Self {
        let name = ServerName::try_from("localhost").unwrap();
        let session = ClientConnection::new(config, name).unwrap();
        Self(BufReader::new(Box::new(StreamOwned::new(session, stream))))
    }

    fn write(&mut self, bytes: &[u8]) {
        self.0.get_mut().write_all(bytes).unwrap();
        self.0.get_mut().flush().unwrap();
    }

    /// One line without its CRLF.
    fn line(&mut self) -> Vec<u8> {
        let mut line = Vec::new();
        self.0.read_until(b'\n', &mut line).expect("the server answers in time");
        assert!(line.ends_with(b"\r\n"), "the server hung up after {:?}", String::from_utf8_lossy(&line));
        line.truncate(line.len() - 2);
        line
    }

    fn exactly(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.0.read_exact(&mut bytes).expect("the server sends what it announced");
        bytes
    }
}

/// An SMTP reply.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Reply {
    pub code: u16,
    /// The text of all lines, joined by line ends.
    pub text: String,
}

/// An SMTP or LMTP client.
pub struct SmtpClient {
    connection: Connection,
    /// For STARTTLS.
    socket: TcpStream,
    /// `EHLO` or `LHLO`.
    hello: &'static str,
}

impl SmtpClient {
    /// Connects in the clear, reads the greeting and says EHLO.
    pub fn connect(address: SocketAddr) -> Self {
        Self::greet(address, "EHLO", |socket| Connection::clear(socket.try_clone().unwrap()))
    }

    /// The same from another address of this machine.
    pub fn connect_from(source: Ipv4Addr, address: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).unwrap();
        socket.bind(&SocketAddr::from((source, 0)).into()).unwrap();
        socket.connect(&address.into()).unwrap();
        let socket = Connection::prepared(socket.into());
        Self::greet_on(socket, "EHLO", |socket| Connection::clear(socket.try_clone().unwrap()))
    }

    /// The same with TLS from the first octet.
    pub fn connect_tls(address: SocketAddr, authority: &Authority) -> Self {
        Self::greet(address, "EHLO", |socket| {
            Connection::tls(socket.try_clone().unwrap(), authority.client_config())
        })
    }

    /// The same for LMTP (RFC 2033).
    pub fn connect_lmtp(address: SocketAddr) -> Self {
        Self::greet(address, "LHLO", |socket| Connection::clear(socket.try_clone().unwrap()))
    }

    fn greet(address: SocketAddr, hello: &'static str, wrap: impl Fn(&TcpStream) -> Connection) -> Self {
        Self::greet_on(Connection::open(address), hello, wrap)
    }

    fn greet_on(socket: TcpStream, hello: &'static str, wrap: impl Fn(&TcpStream) -> Connection) -> Self {
        let mut client = Self { connection: wrap(&socket), socket, hello };
        assert_eq!(client.reply().code, 220);
        client.say_hello();
        client
    }

    fn say_hello(&mut self) {
        let hello = format!("{} client.example.test", self.hello);
        self.expect(250, &hello);
    }

    /// Upgrades the connection (RFC 3207) and says EHLO again.
    pub fn starttls(&mut self, authority: &Authority) {
        self.expect(220, "STARTTLS");
        self.connection = Connection::tls(self.socket.try_clone().unwrap(), authority.client_config());
        self.say_hello();
    }

    pub fn command(&mut self, line: &str) -> Reply {
        self.connection.write(format!("{line}\r\n").as_bytes());
        self.reply()
    }

    /// # Panics
    /// When the answer has another code.
    #[track_caller]
    pub fn expect(&mut self, code: u16, line: &str) -> Reply {
        let reply = self.command(line);
        assert_eq!(reply.code, code, "{line:?} was answered {reply:?}");
        reply
    }

    /// AUTH PLAIN (RFC 4616) with an initial response.
    pub fn auth_plain(&mut self, person: &Person) -> Reply {
        let token = BASE64_STANDARD.encode(format!("\0{}\0{}", person.address, person.password));
        self.command(&format!("AUTH PLAIN {token}"))
    }

    /// One mail transaction. `message` may have any line ends; dots are stuffed.
    ///
    /// # Errors
    /// The first reply that refuses.
    pub fn send(&mut self, from: &str, to: &[&str], message: &str) -> Result<Reply, Reply> {
        let accepted = |reply: Reply| if reply.code < 400 { Ok(reply) } else { Err(reply) };
        accepted(self.command(&format!("MAIL FROM:<{from}>")))?;
        for recipient in to {
            accepted(self.command(&format!("RCPT TO:<{recipient}>")))?;
        }
        accepted(self.command("DATA"))?;
        let stuff =
            |line: &str| if line.starts_with('.') { format!(".{line}\r\n") } else { format!("{line}\r\n") };
        let data: String = message.lines().map(stuff).collect();
        self.connection.write(format!("{data}.\r\n").as_bytes());
        // RFC 2033 section 4.2: LMTP answers for each recipient.
        let count = if self.hello == "LHLO" { to.len() } else { 1 };
        let replies: Vec<_> = (0..count).map(|_| self.reply()).collect();
        replies.into_iter().map(accepted).next_back().expect("there is at least one reply")
    }

    fn reply(&mut self) -> Reply {
        let mut text = Vec::new();
        loop {
            let line = String::from_utf8_lossy(&self.connection.line()).into_owned();
            let (code, rest) = line.split_at_checked(3).unwrap_or_else(|| panic!("no reply: {line:?}"));
            text.push(rest.get(1..).unwrap_or_default().to_owned());
            if !rest.starts_with('-') {
                let code = code.parse().unwrap_or_else(|_| panic!("no reply: {line:?}"));
                return Reply { code, text: text.join("\n") };
            }
        }
    }
}

/// An IMAP client that is logged in.
pub struct ImapClient {
    connection: Connection,
    tags: u32,
}

/// What a command brought: the untagged lines, with the literals that stood in them.
#[derive(Debug, Default)]
pub struct Answer {
    pub lines: Vec<String>,
    pub literals: Vec<Vec<u8>>,
    /// The tagged line without its tag.
    pub status: String,
}

impl ImapClient {
    pub fn login(address: SocketAddr, person: &Person) -> Self {
        Self::begin(Connection::clear(Connection::open(address)), person)
    }

    pub fn login_tls(address: SocketAddr, authority: &Authority, person: &Person) -> Self {
        Self::begin(Connection::tls(Connection::open(address), authority.client_config()), person)
    }

    fn begin(connection: Connection, person: &Person) -> Self {
        let mut client = Self { connection, tags: 0 };
        let greeting = client.connection.line();
        assert!(greeting.starts_with(b"* OK"), "{:?}", String::from_utf8_lossy(&greeting));
        client.expect(&format!("LOGIN \"{}\" \"{}\"", person.address, person.password));
        client
    }

    /// # Panics
    /// When the answer is not OK.
    #[track_caller]
    pub fn expect(&mut self, command: &str) -> Answer {
        let answer = self.command(command);
        assert!(answer.status.starts_with("OK"), "{command:?} was answered {:?}", answer.status);
        answer
    }

    pub fn command(&mut self, command: &str) -> Answer {
        let tag = self.write_tagged(command);
        self.answer(&tag)
    }

    fn write_tagged(&mut self, command: &str) -> String {
        self.tags += 1;
        let tag = format!("t{}", self.tags);
        self.connection.write(format!("{tag} {command}\r\n").as_bytes());
        tag
    }

    fn answer(&mut self, tag: &str) -> Answer {
        let mut answer = Answer::default();
        loop {
            let line = self.line_with_literals(&mut answer.literals);
            if let Some(status) = line.strip_prefix(tag).and_then(|rest| rest.strip_prefix(' ')) {
                answer.status = status.to_owned();
                return answer;
            }
            answer.lines.push(line);
        }
    }

    /// A line goes on after each literal: `* 1 FETCH (BODY[] {5}` five octets `UID 1)`.
    fn line_with_literals(&mut self, literals: &mut Vec<Vec<u8>>) -> String {
        let mut whole = String::new();
        loop {
            let line = String::from_utf8_lossy(&self.connection.line()).into_owned();
            whole.push_str(&line);
            let length = line.strip_suffix('}').and_then(|line| line.rsplit_once('{')?.1.parse().ok());
            let Some(length) = length else { return whole };
            literals.push(self.connection.exactly(length));
        }
    }

    /// Every message of a mailbox, oldest first.
    pub fn messages(&mut self, mailbox: &str) -> Vec<String> {
        self.expect(&format!("EXAMINE \"{mailbox}\""));
        // An empty mailbox answers NO or BAD on some servers, and OK with nothing on others.
        let answer = self.command("FETCH 1:* (BODY.PEEK[])");
        answer.literals.into_iter().map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).collect()
    }

    /// Appends a message as a mail client would file it.
    pub fn append(&mut self, mailbox: &str, flags: &str, message: &str) -> Answer {
        let message: String = message.lines().map(|line| format!("{line}\r\n")).collect();
        let tag = self.write_tagged(&format!("APPEND \"{mailbox}\" ({flags}) {{{}}}", message.len()));
        let go_on = self.connection.line();
        assert!(go_on.starts_with(b"+"), "{:?}", String::from_utf8_lossy(&go_on));
        self.connection.write(format!("{message}\r\n").as_bytes());
        self.answer(&tag)
    }

    /// Begins to wait for news (RFC 2177). From here on only [`Self::next_line`] can be called.
    pub fn begin_idle(&mut self) {
        self.write_tagged("IDLE");
        let go_on = self.connection.line();
        assert!(go_on.starts_with(b"+"), "{:?}", String::from_utf8_lossy(&go_on));
    }

    /// Reads on until a line contains this.
    pub fn next_line(&mut self, text: &str) -> String {
        loop {
            let line = String::from_utf8_lossy(&self.connection.line()).into_owned();
            if line.contains(text) {
                return line;
            }
        }
    }
}
