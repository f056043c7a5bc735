//! A relay before a server, which counts how often the client had to wait for an answer.
//!
//! Not here: what is said. A round trip begins whenever the client speaks after the server has.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread,
    time::Instant,
};

/// Octets passed on at a time.
const CHUNK: usize = 64 * 1024;

/// What went to and fro since the last [`Relay::take`].
#[derive(Debug, Clone, Copy, Default)]
pub struct Traffic {
    pub round_trips: usize,
    /// When the client first and last said something.
    pub first: Option<Instant>,
    pub last: Option<Instant>,
    client_spoke_last: bool,
}

pub struct Relay {
    pub address: SocketAddr,
    traffic: Arc<Mutex<Traffic>>,
}

impl Relay {
    /// # Errors
    /// When there is no free port.
    pub fn before(server: SocketAddr) -> std::io::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let relay = Self { address: listener.local_addr()?, traffic: Arc::default() };
        let traffic = Arc::clone(&relay.traffic);
        // Ends with the process.
        thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let Ok(server) = TcpStream::connect(server) else { continue };
                pass_on(client, server, &traffic);
            }
        });
        Ok(relay)
    }

    /// What was counted, to begin again at nought.
    pub fn take(&self) -> Traffic {
        std::mem::take(&mut *self.traffic.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What was counted so far.
    pub fn traffic(&self) -> Traffic {
        *self.traffic.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn pass_on(client: TcpStream, server: TcpStream, traffic: &Arc<Mutex<Traffic>>) {
    let (Ok(from_client), Ok(from_server)) = (client.try_clone(), server.try_clone()) else { return };
    for socket in [&client, &server] {
        // Waiting for more to send would be counted as the server's time.
        drop(socket.set_nodelay(true));
    }
    for (from, to, is_client) in [(from_client, server, true), (from_server, client, false)] {
        let traffic = Arc::clone(traffic);
        thread::spawn(move || copy(from, to, &traffic, is_client));
    }
}

fn copy(mut from: TcpStream, mut to: TcpStream, traffic: &Mutex<Traffic>, is_client: bool) {
    let mut buffer = vec![0; CHUNK];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        traffic.lock().unwrap_or_else(PoisonError::into_inner).note(is_client);
        if to.write_all(buffer.get(..length).unwrap_or_default()).is_err() {
            break;
        }
    }
    drop(to.shutdown(Shutdown::Both));
}

impl Traffic {
    fn note(&mut self, is_client: bool) {
        if is_client {
            self.round_trips += usize::from(!self.client_spoke_last);
            let now = Instant::now();
            self.first.get_or_insert(now);
            self.last = Some(now);
        }
        self.client_spoke_last = is_client;
    }
}
