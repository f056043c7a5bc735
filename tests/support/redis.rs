//! Redis, without persistence: the gateway must bear losing what it holds.
//!
//! Not here: a client. The tests' few commands go over the wire as they are.

use std::{
    io::{BufRead as _, BufReader, Write as _},
    net::{SocketAddr, TcpStream},
    time::Duration,
};

use super::{
    free_address,
    server::{Server, Spec, directory, program},
};

pub struct Redis {
    pub server: Server,
    address: SocketAddr,
}

impl Redis {
    pub fn start() -> Self {
        let (dir, address) = (directory("redis"), free_address());
        let port = address.port().to_string();
        let options = ["--bind", "127.0.0.1", "--port", &port, "--save", "", "--appendonly", "no", "--dir"];
        let mut command = vec![program("redis-server").into_os_string()];
        command.extend(options.map(Into::into));
        command.push(dir.clone().into_os_string());
        let spec = Spec { name: "redis", dir, command, signal: "TERM", final_signal: "KILL", as_root: false };
        Self { server: Server::start(spec, || answers(address)), address }
    }

    pub fn url(&self) -> String {
        format!("redis://{}/", self.address)
    }

    /// Starts it again, empty, on the same port.
    pub fn resume(&mut self) {
        let address = self.address;
        self.server.resume(|| answers(address));
    }

    /// Says one command and returns the first line of the answer.
    pub fn command(&self, line: &str) -> String {
        command(self.address, line).expect("Redis answers")
    }
}

fn answers(address: SocketAddr) -> bool {
    command(address, "PING").is_some_and(|answer| answer == "+PONG")
}

fn command(address: SocketAddr, line: &str) -> Option<String> {
    let mut stream = TcpStream::connect(address).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).ok()?;
    stream.write_all(format!("{line}\r\n").as_bytes()).ok()?;
    let mut answer = String::new();
    BufReader::new(stream).read_line(&mut answer).ok()?;
    Some(answer.trim_end().to_owned())
}
