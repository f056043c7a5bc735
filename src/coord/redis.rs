//! Wake-ups over Redis: one channel for all nodes, the topic as the message.
//!
//! Not here: keeping anything in Redis. It is asked to forget every message as soon as it is passed on.

use std::{ops::ControlFlow, sync::Arc, time::Duration};

use futures_util::StreamExt as _;
use redis::{AsyncConnectionConfig, Client, aio::MultiplexedConnection};
use tokio::{sync::mpsc, time::timeout};

use super::{CoordError, Topics, TopicsRef};

/// One channel: nodes are few and wake-ups small, so each hears all and drops what it has no listener for.
const CHANNEL: &str = "mailweave:wake";
/// Wake-ups waiting to be passed on. More are dropped: they would come later than the listeners' own look.
const WAITING_MAX: usize = 1024;
const ANSWER_TIMEOUT: Duration = Duration::from_secs(2);
/// A connection that was cut without a word is noticed by this.
const PING_EVERY: Duration = Duration::from_secs(15);
const RECONNECT_AFTER_MIN: Duration = Duration::from_millis(100);
const RECONNECT_AFTER_MAX: Duration = Duration::from_secs(10);

/// Passes wake-ups on.
#[derive(Clone)]
pub(super) struct Publisher(mpsc::Sender<String>);

impl Publisher {
    pub(super) fn publish(&self, topic: &str) {
        // A full queue means that Redis is away: others find the work by looking.
        let _ = self.0.try_send(topic.to_owned());
    }
}

pub(super) fn start(url: &str, topics: &Arc<Topics>) -> Result<Publisher, CoordError> {
    let client = Client::open(url).map_err(CoordError::Url)?;
    let (sender, queue) = mpsc::channel(WAITING_MAX);
    tokio::spawn(hear(client.clone(), Arc::downgrade(topics), sender.downgrade()));
    tokio::spawn(pass_on(client, queue));
    Ok(Publisher(sender))
}

pub(super) async fn ping(url: &str) -> Result<(), CoordError> {
    let client = Client::open(url).map_err(CoordError::Url)?;
    let mut connection = connect(&client).await.map_err(CoordError::Unreachable)?;
    redis::cmd("PING").query_async::<()>(&mut connection).await.map_err(CoordError::Unreachable)
}

/// Ends when the last `Coord` is gone.
async fn pass_on(client: Client, mut queue: mpsc::Receiver<String>) {
    let mut connection: Option<MultiplexedConnection> = None;
    while let Some(topic) = queue.recv().await {
        let mut connected = match connection.take() {
            Some(connected) => connected,
            None => match connect(&client).await {
                Ok(connected) => connected,
                Err(error) => {
                    tracing::debug!(%error, "a wake-up was not passed on");
                    continue;
                }
            },
        };
        let passed: redis::RedisResult<()> =
            redis::cmd("PUBLISH").arg(CHANNEL).arg(topic).query_async(&mut connected).await;
        match passed {
            Ok(()) => connection = Some(connected),
            Err(error) => tracing::debug!(%error, "a wake-up was not passed on"),
        }
    }
}

async fn connect(client: &Client) -> redis::RedisResult<MultiplexedConnection> {
    let config = AsyncConnectionConfig::new()
        .set_connection_timeout(Some(ANSWER_TIMEOUT))
        .set_response_timeout(Some(ANSWER_TIMEOUT));
    client.get_multiplexed_async_connection_with_config(&config).await
}

/// Connects again and again until the last `Coord` is gone.
async fn hear(client: Client, topics: TopicsRef, alive: mpsc::WeakSender<String>) {
    let mut pause = RECONNECT_AFTER_MIN;
    while alive.upgrade().is_some() {
        match listen(&client, &topics, &mut pause).await {
            Ok(ControlFlow::Break(())) => return,
            Ok(ControlFlow::Continue(())) => tracing::warn!("Redis has closed the connection"),
            Err(error) => tracing::warn!(%error, "Redis is out of reach: work is found by looking, later"),
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(RECONNECT_AFTER_MAX);
    }
}

/// One connection's life. `Break` when there is nobody left to wake.
async fn listen(
    client: &Client,
    topics: &TopicsRef,
    pause: &mut Duration,
) -> redis::RedisResult<ControlFlow<()>> {
    let late = |_| redis::RedisError::from(std::io::Error::from(std::io::ErrorKind::TimedOut));
    let mut pubsub = timeout(ANSWER_TIMEOUT, client.get_async_pubsub()).await.map_err(late)??;
    timeout(ANSWER_TIMEOUT, pubsub.subscribe(CHANNEL)).await.map_err(late)??;
    *pause = RECONNECT_AFTER_MIN;
    let Some(known) = topics.upgrade() else { return Ok(ControlFlow::Break(())) };
    known.wake_all();
    drop(known);
    let (mut sink, mut messages) = pubsub.split();
    loop {
        let message = match timeout(PING_EVERY, messages.next()).await {
            Ok(Some(message)) => message,
            Ok(None) => return Ok(ControlFlow::Continue(())),
            Err(_) => {
                timeout(ANSWER_TIMEOUT, sink.ping::<()>()).await.map_err(late)??;
                if topics.strong_count() == 0 {
                    return Ok(ControlFlow::Break(()));
                }
                continue;
            }
        };
        let Some(topics) = topics.upgrade() else { return Ok(ControlFlow::Break(())) };
        if let Ok(topic) = message.get_payload::<String>() {
            topics.wake(&topic);
        }
    }
}
