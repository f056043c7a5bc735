//! A TCP proxy that breaks connections on purpose, in front of our provider or any other server.
//!
//! Not here: TLS; the proxy sees octets. With `Protocol::Smtp` it also sees commands and replies (`tap`).

use std::{
    io,
    net::{Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{
        TcpListener, TcpStream,
        tcp::{OwnedReadHalf, OwnedWriteHalf},
    },
    sync::{Semaphore, watch},
    time::sleep,
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    behaviour::{Act, Command, Faults, Service, Trigger},
    gate::{At, Gate, GateStep, Then},
    running::Listening,
    tap::{Tap, TapStep},
};

const CONNECTIONS_MAX: usize = 1_000;
const READ_BYTES: usize = 16 * 1024;

/// What the proxy understands of what passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Nothing but octets and lines: `arm_at`.
    Octets,
    /// SMTP commands and replies: `arm`. After STARTTLS it sees nothing any more.
    Smtp,
}

/// A proxy on 127.0.0.1. Dropping it closes every connection.
pub struct FaultProxy {
    pub address: SocketAddr,
    plan: Arc<Plan>,
    stop: CancellationToken,
    tasks: TaskTracker,
}

/// What is armed, shared with the connections.
struct Plan {
    protocol: Protocol,
    upstream: SocketAddr,
    faults: Mutex<Faults>,
    gates: Mutex<Vec<(At, Then)>>,
    /// How often held connections were let go.
    released: watch::Sender<u64>,
    /// Octets that reached the upstream server and the client, over all connections.
    passed: watch::Sender<(u64, u64)>,
}

impl FaultProxy {
    /// Listens on a free port and passes everything on to `upstream` until something is armed.
    ///
    /// # Errors
    /// When no port can be bound.
    pub async fn start(upstream: SocketAddr, protocol: Protocol) -> io::Result<Self> {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
        let address = listener.local_addr()?;
        let (stop, tasks) = (CancellationToken::new(), TaskTracker::new());
        let plan = Arc::new(Plan {
            protocol,
            upstream,
            faults: Mutex::default(),
            gates: Mutex::default(),
            released: watch::Sender::new(0),
            passed: watch::Sender::new((0, 0)),
        });
        let room = Arc::new(Semaphore::new(CONNECTIONS_MAX));
        let listening = Listening { listener, room, stop: stop.clone(), tasks: tasks.clone() };
        let (served, ending) = (plan.clone(), stop.clone());
        tasks.spawn(listening.accept(move |stream, _| {
            let (plan, stop) = (served.clone(), ending.clone());
            async move {
                let passing = async {
                    match plan.protocol {
                        Protocol::Octets => pass_octets(stream, &plan).await,
                        Protocol::Smtp => pass_smtp(stream, &plan).await,
                    }
                };
                tokio::select! {
                    ended = passing => tracing::debug!(ok = ended.is_ok(), "a proxied connection ended"),
                    () = stop.cancelled() => {}
                }
            }
        }));
        Ok(Self { address, plan, stop, tasks })
    }

    /// Arms a fault at an SMTP command (`Protocol::Smtp`). The trigger's service and user do not matter here. `Answer`
    /// at `DOT` replaces the server's reply, so the message is taken all the same.
    pub fn arm(&self, trigger: Trigger, act: Act) {
        let trigger = Trigger { service: Service::Mx, user: None, ..trigger };
        self.plan.faults.lock().unwrap_or_else(PoisonError::into_inner).arm(trigger, act);
    }

    /// Arms a fault at an octet or a line (`Protocol::Octets`) of every connection from the next one on.
    pub fn arm_at(&self, at: At, then: Then) {
        self.plan.gates.lock().unwrap_or_else(PoisonError::into_inner).push((at, then));
    }

    /// Disarms everything for new connections.
    pub fn disarm(&self) {
        self.plan.faults.lock().unwrap_or_else(PoisonError::into_inner).clear();
        self.plan.gates.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Lets go of every connection that is held.
    pub fn release(&self) {
        self.plan.released.send_modify(|count| *count += 1);
    }

    /// Octets that reached the server and the client so far; changes as they pass.
    #[must_use]
    pub fn passed(&self) -> watch::Receiver<(u64, u64)> {
        self.plan.passed.subscribe()
    }

    /// Closes everything and waits.
    pub async fn stop(self) {
        self.stop.cancel();
        self.tasks.close();
        self.tasks.wait().await;
    }
}

impl Drop for FaultProxy {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

async fn pass_octets(client: TcpStream, plan: &Plan) -> io::Result<()> {
    let server = TcpStream::connect(plan.upstream).await?;
    server.set_nodelay(true)?;
    let armed = plan.gates.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let (from_client, to_client) = client.into_split();
    let (from_server, to_server) = server.into_split();
    let of = |to_server: bool| {
        Gate::new(armed.iter().filter(|(at, _)| at.to_server() == to_server).cloned().collect())
    };
    // Either side's end of sending is passed on; a cut ends both at once.
    let up = pass(from_client, to_server, of(true), (plan, true));
    let down = pass(from_server, to_client, of(false), (plan, false));
    tokio::pin!(up, down);
    tokio::select! {
        ended = &mut up => if ended? == Passed::End { down.await.map(drop) } else { Ok(()) },
        ended = &mut down => if ended? == Passed::End { up.await.map(drop) } else { Ok(()) },
    }
}

#[derive(PartialEq, Eq)]
enum Passed {
    /// The sender closed its side.
    End,
    /// A fault did.
    Cut,
}

async fn pass(
    mut from: OwnedReadHalf,
    mut to: OwnedWriteHalf,
    mut gate: Gate,
    on: (&Plan, bool),
) -> io::Result<Passed> {
    let (plan, to_server) = on;
    let mut buffer = vec![0; READ_BYTES];
    loop {
        match gate.step() {
            GateStep::Pass(octets) => {
                to.write_all(&octets).await?;
                let count = u64::try_from(octets.len()).unwrap_or(u64::MAX);
                plan.passed.send_modify(|(up, down)| *(if to_server { up } else { down }) += count);
            }
            GateStep::Wait(pause) => sleep(pause).await,
            GateStep::Hold => held(plan).await,
            GateStep::Cut => return Ok(Passed::Cut),
            GateStep::More => match from.read(&mut buffer).await? {
                0 => {
                    to.shutdown().await?;
                    return Ok(Passed::End);
                }
                count => gate.receive(buffer.get(..count).unwrap_or_default()),
            },
        }
    }
}

/// Until the next `release`.
async fn held(plan: &Plan) {
    let mut released = plan.released.subscribe();
    // The sender lives in the plan, so it cannot be gone.
    let _ = released.changed().await;
}

async fn pass_smtp(mut client: TcpStream, plan: &Plan) -> io::Result<()> {
    let mut server = TcpStream::connect(plan.upstream).await?;
    server.set_nodelay(true)?;
    let mut tap = Tap::new();
    let mut buffers = (vec![0; READ_BYTES], vec![0; READ_BYTES]);
    loop {
        match tap.step() {
            TapStep::Judge { verb, line } => {
                let command = Command { service: Service::Mx, verb: &verb, line: &line, user: None };
                let act = plan.faults.lock().unwrap_or_else(PoisonError::into_inner).strike(command);
                tap.judged(act);
            }
            TapStep::ToServer(octets) => {
                server.write_all(&octets).await?;
                plan.passed.send_modify(|(up, _)| *up += u64::try_from(octets.len()).unwrap_or(u64::MAX));
            }
            TapStep::ToClient(octets) => {
                client.write_all(&octets).await?;
                plan.passed.send_modify(|(_, down)| *down += u64::try_from(octets.len()).unwrap_or(u64::MAX));
            }
            TapStep::Hold(Duration::MAX) => held(plan).await,
            TapStep::Hold(pause) => sleep(pause).await,
            TapStep::Close => return Ok(()),
            TapStep::More => tokio::select! {
                read = client.read(&mut buffers.0), if tap.wants_client() => match read? {
                    0 => return Ok(()),
                    count => tap.client(buffers.0.get(..count).unwrap_or_default()),
                },
                read = server.read(&mut buffers.1) => match read? {
                    0 => return Ok(()),
                    count => tap.server(buffers.1.get(..count).unwrap_or_default()),
                },
            },
        }
    }
}
