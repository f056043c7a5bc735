//! A name server on loopback, over UDP, that knows the records it is given and can be made to fail at names of them.
//!
//! Not here: zones as real servers have them (no SOA, no delegation), and TCP: an answer has to fit a datagram.

use std::{
    collections::HashMap,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
    time::Duration,
};

use hickory_resolver::proto::{
    op::{Message, ResponseCode},
    rr::{
        Name, RData, Record, RecordType,
        rdata::{A, AAAA, CNAME, MX, SRV, TXT},
    },
};

/// How often the server looks whether it is to end.
const TICK: Duration = Duration::from_millis(50);
/// Aliases that are followed in one answer.
const ALIASES_MAX: usize = 8;
/// What a datagram may hold, and more than any query has.
const DATAGRAM_BYTES: usize = 4096;

/// How a name fails.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Failure {
    ServFail,
    NxDomain,
    Refused,
    /// Nothing is answered.
    Dropped,
}

/// Records by name. Names are compared without regard to case and to a dot at their end.
#[derive(Debug, Clone, Default)]
pub struct Zone {
    records: HashMap<String, Vec<RData>>,
    failures: HashMap<String, Failure>,
}

impl Zone {
    fn with(mut self, name: &str, data: RData) -> Self {
        self.records.entry(key(name)).or_default().push(data);
        self
    }

    /// An A or AAAA record.
    #[must_use]
    pub fn address(self, name: &str, address: &str) -> Self {
        let data = match address.parse().unwrap() {
            IpAddr::V4(address) => RData::A(A(address)),
            IpAddr::V6(address) => RData::AAAA(AAAA(address)),
        };
        self.with(name, data)
    }

    /// A TXT record of one text; what is longer than a string of it may be (255 octets) is cut into several.
    #[must_use]
    pub fn txt(self, name: &str, text: &str) -> Self {
        let strings = text.as_bytes().chunks(255).collect();
        self.with(name, RData::TXT(TXT::from_bytes(strings)))
    }

    #[must_use]
    pub fn mx(self, name: &str, preference: u16, exchange: &str) -> Self {
        self.with(name, RData::MX(MX::new(preference, fqdn(exchange))))
    }

    #[must_use]
    pub fn srv(self, name: &str, (priority, port): (u16, u16), target: &str) -> Self {
        self.with(name, RData::SRV(SRV::new(priority, 0, port, fqdn(target))))
    }

    #[must_use]
    pub fn cname(self, name: &str, target: &str) -> Self {
        self.with(name, RData::CNAME(CNAME(fqdn(target))))
    }

    /// Has every query for the name fail.
    #[must_use]
    pub fn failing(mut self, name: &str, failure: Failure) -> Self {
        self.failures.insert(key(name), failure);
        self
    }

    /// What is answered to a query; `None` is nothing at all.
    fn answer(&self, name: &Name, kind: RecordType) -> Option<(ResponseCode, Vec<Record>)> {
        let (mut at, mut records) = (name.clone(), Vec::new());
        for _ in 0..ALIASES_MAX {
            let here = key(&at.to_utf8());
            match self.failures.get(&here) {
                Some(Failure::Dropped) => return None,
                Some(Failure::ServFail) => return Some((ResponseCode::ServFail, Vec::new())),
                Some(Failure::Refused) => return Some((ResponseCode::Refused, Vec::new())),
                Some(Failure::NxDomain) => return Some((ResponseCode::NXDomain, records)),
                None => {}
            }
            let Some(found) = self.records.get(&here) else {
                let exists = self.records.keys().any(|other| other.ends_with(&format!(".{here}")));
                let code = if exists { ResponseCode::NoError } else { ResponseCode::NXDomain };
                return Some((code, records));
            };
            let alias = found.iter().find_map(|data| match data {
                RData::CNAME(CNAME(target)) if kind != RecordType::CNAME => Some(target.clone()),
                _ => None,
            });
            let wanted = |data: &&RData| data.record_type() == kind || alias.is_some();
            let own = found.iter().filter(wanted).cloned();
            records.extend(own.map(|data| Record::from_rdata(at.clone(), 60, data)));
            let Some(target) = alias else { return Some((ResponseCode::NoError, records)) };
            at = target;
        }
        Some((ResponseCode::ServFail, Vec::new()))
    }
}

fn key(name: &str) -> String {
    name.trim_end_matches('.').to_ascii_lowercase()
}

fn fqdn(name: &str) -> Name {
    Name::from_utf8(format!("{}.", name.trim_end_matches('.'))).unwrap()
}

#[derive(Default)]
struct Shared {
    zone: Mutex<Zone>,
    asked: Mutex<Vec<(String, RecordType)>>,
    ended: AtomicBool,
}

/// A running server; it ends with this value.
pub struct Dns {
    address: SocketAddr,
    shared: Arc<Shared>,
    thread: Option<JoinHandle<()>>,
}

impl Dns {
    pub fn start(zone: Zone) -> Self {
        let socket = UdpSocket::bind(("127.0.0.1", 0)).unwrap();
        socket.set_read_timeout(Some(TICK)).unwrap();
        let address = socket.local_addr().unwrap();
        let shared = Arc::new(Shared { zone: Mutex::new(zone), ..Shared::default() });
        let own = Arc::clone(&shared);
        let thread = std::thread::spawn(move || serve(&socket, &own));
        Self { address, shared, thread: Some(thread) }
    }

    /// What goes into `[dns].servers`.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// Has it know these records and no others from now on. Resolvers may remember what they were told: it is good for a minute.
    pub fn set(&self, zone: Zone) {
        *lock(&self.shared.zone) = zone;
    }

    /// What it was asked so far, in order; names in lower case, without the dot at the end.
    pub fn asked(&self) -> Vec<(String, RecordType)> {
        lock(&self.shared.asked).clone()
    }
}

impl Drop for Dns {
    fn drop(&mut self) {
        self.shared.ended.store(true, Ordering::Relaxed);
        drop(self.thread.take().map(JoinHandle::join));
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn serve(socket: &UdpSocket, shared: &Shared) {
    let mut datagram = [0; DATAGRAM_BYTES];
    while !shared.ended.load(Ordering::Relaxed) {
        let Ok((length, from)) = socket.recv_from(&mut datagram) else { continue };
        if let Some(answer) = answer(&datagram[..length], shared) {
            drop(socket.send_to(&answer, from));
        }
    }
}

fn answer(datagram: &[u8], shared: &Shared) -> Option<Vec<u8>> {
    let query = Message::from_vec(datagram).ok()?;
    let question = query.queries.first()?.clone();
    let (name, kind) = (question.name().clone(), question.query_type());
    lock(&shared.asked).push((key(&name.to_utf8()), kind));
    let (code, records) = lock(&shared.zone).answer(&name, kind)?;
    let mut response = Message::response(query.metadata.id, query.metadata.op_code);
    response.metadata.response_code = code;
    response.metadata.recursion_desired = query.metadata.recursion_desired;
    response.metadata.recursion_available = true;
    response.add_query(question);
    response.add_answers(records);
    response.to_vec().ok()
}
