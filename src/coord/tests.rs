//! Wake-ups arrive, and a Redis that is away only delays them.

use std::{
    process::{Child, Command, Stdio},
    time::Duration,
};

use futures_util::future::poll_immediate;
use tempfile::TempDir;

use super::*;

const DEADLINE: Duration = Duration::from_secs(60);

async fn woken(subscription: &mut Subscription) -> bool {
    tokio::time::timeout(DEADLINE, subscription.wait()).await.is_ok()
}

#[tokio::test]
async fn a_wake_up_reaches_the_listeners_of_its_topic_only() {
    let coord = Coord::local();
    let (mut one, mut again, mut other) = (coord.subscribe("a"), coord.subscribe("a"), coord.subscribe("b"));
    coord.wake("a");
    assert!(woken(&mut one).await && woken(&mut again).await);
    assert!(poll_immediate(std::pin::pin!(other.wait())).await.is_none());
}

#[tokio::test]
async fn a_wake_up_before_the_wait_is_not_lost_and_several_are_one() {
    let coord = Coord::local();
    let mut subscription = coord.subscribe("a");
    coord.wake("a");
    coord.wake("a");
    assert!(woken(&mut subscription).await);
    assert!(poll_immediate(std::pin::pin!(subscription.wait())).await.is_none());
    coord.wake("a");
    subscription.look();
    assert!(poll_immediate(std::pin::pin!(subscription.wait())).await.is_none());
}

#[test]
fn topics_that_nobody_listens_to_are_forgotten() {
    let coord = Coord::local();
    let kept = coord.subscribe("kept");
    for number in 0..10 * TOPICS_KEPT {
        drop(coord.subscribe(&number.to_string()));
    }
    assert!(coord.topics.lock().len() <= TOPICS_KEPT);
    coord.wake("kept");
    assert!(kept.0.has_changed().unwrap());
}

#[test]
fn a_url_of_something_else_is_refused() {
    assert!(matches!(Coord::redis("http://localhost"), Err(CoordError::Url(_))));
}

struct Redis {
    directory: TempDir,
    server: Child,
}

impl Redis {
    fn start() -> Self {
        let directory = TempDir::new().unwrap();
        let server = spawn(&directory);
        Self { directory, server }
    }

    fn url(&self) -> String {
        format!("redis+unix://{}", self.directory.path().join("redis.sock").display())
    }

    fn stop(&mut self) {
        self.server.kill().unwrap();
        self.server.wait().unwrap();
    }

    fn restart(&mut self) {
        self.server = spawn(&self.directory);
    }
}

fn spawn(directory: &TempDir) -> Child {
    Command::new("redis-server")
        .args(["--port", "0", "--save", "", "--unixsocket", "redis.sock"])
        .current_dir(directory.path())
        .stdout(Stdio::null())
        .spawn()
        .expect("Redis must be installed to test coordination")
}

impl Drop for Redis {
    fn drop(&mut self) {
        self.stop();
    }
}

/// Wakes until the other node hears it: before it has connected it cannot.
async fn wakes_up(from: &Coord, to: &mut Subscription) -> bool {
    let trying = async {
        loop {
            from.wake("topic");
            if tokio::time::timeout(Duration::from_millis(50), to.wait()).await.is_ok() {
                return;
            }
        }
    };
    tokio::time::timeout(DEADLINE, trying).await.is_ok()
}

#[tokio::test]
async fn nodes_wake_each_other_also_after_their_redis_was_away() {
    let mut redis = Redis::start();
    let (one, two) = (Coord::redis(&redis.url()).unwrap(), Coord::redis(&redis.url()).unwrap());
    let mut far = two.subscribe("topic");
    assert!(wakes_up(&one, &mut far).await);
    redis.stop();
    let mut near = one.subscribe("topic");
    one.wake("topic");
    assert!(woken(&mut near).await, "here it works all the time");
    let mut far = two.subscribe("topic");
    redis.restart();
    assert!(woken(&mut far).await, "whatever was missed, whoever reconnects is woken to look");
    assert!(wakes_up(&two, &mut near).await);
}
