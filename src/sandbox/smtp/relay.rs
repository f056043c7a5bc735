//! Carries submitted mail to the hosts of other domains, tries again for a while, and bounces what is refused.
//!
//! Not here: finding those hosts; routes are given (`Provider::route`).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use tokio::{
    net::TcpStream,
    sync::{OwnedSemaphorePermit, Semaphore},
    time::{sleep, timeout},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    mail::{Address, Envelope, Recipient},
    sandbox::{header, provider::Provider},
    smtp::{Channel, Client, ClientError, Outcome, Timeouts, Transmission},
};

use super::HOSTNAME;

/// Messages under way at one time; a submission beyond that is deferred.
const SHIPMENTS_MAX: usize = 256;
/// Pauses between tries. After the last one the message bounces: a sandbox is not for waiting days.
const PAUSES: [Duration; 6] = [
    Duration::from_millis(200),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_secs(2),
    Duration::from_secs(5),
    Duration::from_secs(10),
];
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// A message for one next hop.
#[derive(Debug)]
pub(super) struct Shipment {
    pub(super) next_hop: SocketAddr,
    pub(super) envelope: Envelope,
    message: Arc<[u8]>,
}

impl Shipment {
    pub(super) fn new(next_hop: SocketAddr, envelope: &Envelope, first: Recipient, message: &[u8]) -> Self {
        let envelope = Envelope { recipients: vec![first], ..envelope.clone() };
        Self { next_hop, envelope, message: message.into() }
    }
}

/// What the submission door works with. Clones share it.
#[derive(Clone)]
pub(in crate::sandbox) struct Relay {
    provider: Provider,
    room: Arc<Semaphore>,
    tasks: TaskTracker,
    stop: CancellationToken,
}

impl Relay {
    pub(in crate::sandbox) fn new(
        provider: &Provider,
        tasks: &TaskTracker,
        stop: &CancellationToken,
    ) -> Self {
        let room = Arc::new(Semaphore::new(SHIPMENTS_MAX));
        Self { provider: provider.clone(), room, tasks: tasks.clone(), stop: stop.clone() }
    }

    /// Places for so many shipments; `None` when there are not that many.
    pub(super) fn reserve(&self, count: usize) -> Option<Vec<OwnedSemaphorePermit>> {
        (0..count).map(|_| self.room.clone().try_acquire_owned().ok()).collect()
    }

    pub(super) fn ship(&self, shipment: Shipment, place: OwnedSemaphorePermit) {
        let relay = self.clone();
        self.tasks.spawn(async move {
            let stop = relay.stop.clone();
            tokio::select! {
                () = relay.carry(shipment) => {}
                () = stop.cancelled() => {}
            }
            drop(place);
        });
    }

    /// Does something after a pause, unless the provider stops before.
    pub(super) fn later(&self, pause: Duration, what: impl FnOnce() + Send + 'static) {
        let stop = self.stop.clone();
        self.tasks.spawn(async move {
            tokio::select! {
                () = sleep(pause) => what(),
                () = stop.cancelled() => {}
            }
        });
    }

    async fn carry(&self, mut shipment: Shipment) {
        let mut failed = Vec::new();
        for pause in PAUSES.map(Some).into_iter().chain([None]) {
            let outcomes = self.attempt(&shipment).await;
            let mut left = Vec::new();
            for (recipient, outcome) in
                std::mem::take(&mut shipment.envelope.recipients).into_iter().zip(outcomes)
            {
                match outcome {
                    Tried::Done => {}
                    Tried::Refused(reason) => failed.push((recipient.address, reason)),
                    Tried::Deferred(reason) if pause.is_none() => failed.push((recipient.address, reason)),
                    Tried::Deferred(_) => left.push(recipient),
                }
            }
            shipment.envelope.recipients = left;
            match pause {
                Some(pause) if !shipment.envelope.recipients.is_empty() => sleep(pause).await,
                _ => break,
            }
        }
        self.bounce(&shipment, &failed);
    }

    /// One outcome for each recipient. A lost reply to the dot is tried again, as every MTA does.
    async fn attempt(&self, shipment: &Shipment) -> Vec<Tried> {
        match send(shipment).await {
            Ok(outcomes) => outcomes.into_iter().map(Tried::from).collect(),
            Err(error) => {
                let permanent = error.is_permanent();
                let tried = |_| {
                    if permanent {
                        Tried::Refused(format!("554 5.0.0 {error}"))
                    } else {
                        Tried::Deferred(format!("451 4.4.1 {error}"))
                    }
                };
                shipment.envelope.recipients.iter().map(tried).collect()
            }
        }
    }

    fn bounce(&self, shipment: &Shipment, failed: &[(Address, String)]) {
        // RFC 5321 section 6.1: a null reverse-path gets no report.
        let Some(sender) = shipment.envelope.reverse_path.address().filter(|_| !failed.is_empty()) else {
            return;
        };
        let serial = self.provider.with(|world| world.next_serial());
        let report = header::bounce(sender, failed, &shipment.message, serial);
        let report = header::with("Return-Path: <>\r\n", &report);
        if let Err(error) = self.provider.deliver(sender, &report) {
            tracing::debug!(%error, "a bounce could not be delivered");
        }
    }
}

enum Tried {
    Done,
    Refused(String),
    Deferred(String),
}

impl From<Outcome> for Tried {
    fn from(outcome: Outcome) -> Self {
        match outcome {
            Outcome::Accepted { .. } => Self::Done,
            Outcome::Refused(reply) => Self::Refused(reply.to_string()),
            Outcome::Deferred(reply) => Self::Deferred(reply.to_string()),
            Outcome::Unknown => Self::Deferred("451 4.4.2 the connection broke".to_owned()),
        }
    }
}

async fn send(shipment: &Shipment) -> Result<Vec<Outcome>, ClientError> {
    let connecting = timeout(CONNECT_TIMEOUT, TcpStream::connect(shipment.next_hop)).await;
    let stream = connecting.map_err(|_| ClientError::Timeout)??;
    let mut client = Client::connect(stream, HOSTNAME, Channel::Clear, Timeouts::default()).await?;
    let outcomes = match client.send_data(&shipment.envelope, &shipment.message).await? {
        Transmission::Settled(outcomes) => outcomes,
        Transmission::Pending(pending) => pending.finish().await,
    };
    client.quit().await;
    Ok(outcomes)
}
