//! Wake-ups between the parts of one process, and between nodes when there is a Redis.
//!
//! Not here: anything that must not be lost. A wake-up only shortens a wait; whoever waits also looks now and then, so a
//! Redis that is down, slow or flushed costs time and nothing else.

mod redis;

#[cfg(test)]
mod tests;

use std::{
    collections::HashMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError, Weak},
};

use tokio::sync::watch;

/// Topics kept before those that nobody listens to any more are cleared away.
const TOPICS_KEPT: usize = 256;

/// Why coordination could not be set up, or looked at.
#[derive(Debug, thiserror::Error)]
pub enum CoordError {
    #[error("the coordination url is not a redis:// url")]
    Url(#[source] ::redis::RedisError),
    /// Only of [`ping`]: a Redis that does not answer keeps nothing from starting.
    #[error("Redis does not answer")]
    Unreachable(#[source] ::redis::RedisError),
}

/// Asks the Redis at this url once whether it is there and lets us in. Waits some seconds at most.
///
/// # Errors
/// [`CoordError`].
pub async fn ping(url: &str) -> Result<(), CoordError> {
    redis::ping(url).await
}

/// Carries wake-ups. Clones share everything.
#[derive(Clone)]
pub struct Coord {
    topics: Arc<Topics>,
    elsewhere: Option<redis::Publisher>,
}

/// Waits for the wake-ups of one topic.
pub struct Subscription(watch::Receiver<()>);

#[derive(Default)]
struct Topics(Mutex<HashMap<String, watch::Sender<()>>>);

impl Coord {
    /// Within this process only.
    #[must_use]
    pub fn local() -> Self {
        Self { topics: Arc::default(), elsewhere: None }
    }

    /// Between all nodes on one Redis. Connects in the background, as often as need be.
    ///
    /// # Errors
    /// When the url is none of Redis.
    pub fn redis(url: &str) -> Result<Self, CoordError> {
        let topics = Arc::new(Topics::default());
        let elsewhere = redis::start(url, &topics)?;
        Ok(Self { topics, elsewhere: Some(elsewhere) })
    }

    /// Wakes whoever waits for this topic, here and on other nodes. Never waits.
    pub fn wake(&self, topic: &str) {
        self.topics.wake(topic);
        if let Some(elsewhere) = &self.elsewhere {
            elsewhere.publish(topic);
        }
    }

    /// Hears wake-ups of this topic from now on.
    #[must_use]
    pub fn subscribe(&self, topic: &str) -> Subscription {
        Subscription(self.topics.subscribe(topic))
    }
}

impl Subscription {
    /// To be called before looking: `wait` then misses nothing that comes after.
    pub fn look(&mut self) {
        self.0.borrow_and_update();
    }

    /// Waits for a wake-up since the last `look` or `wait`. Several in the meantime are one. Never returns once every
    /// `Coord` is gone. Dropping it loses nothing.
    pub async fn wait(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending().await
        }
    }
}

impl Topics {
    fn wake(&self, topic: &str) {
        if let Some(sender) = self.lock().get(topic) {
            sender.send_replace(());
        }
    }

    /// After a time in which wake-ups may have been missed.
    fn wake_all(&self) {
        for sender in self.lock().values() {
            sender.send_replace(());
        }
    }

    fn subscribe(&self, topic: &str) -> watch::Receiver<()> {
        let mut topics = self.lock();
        if topics.len() >= TOPICS_KEPT {
            topics.retain(|_, sender| sender.receiver_count() > 0);
        }
        topics.entry(topic.to_owned()).or_insert_with(|| watch::Sender::new(())).subscribe()
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<String, watch::Sender<()>>> {
        // No code that holds the lock can leave the map half changed.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How the background tasks know that nobody is left to wake.
type TopicsRef = Weak<Topics>;
