//! One task owns the connection that writes and lends it to one transaction after another, each inside a savepoint of
//! its own; one COMMIT, and so one flush of the disk, then makes the whole group durable.
//!
//! Not here: what a transaction does with the connection. It must not wait for anything but the database: all others
//! wait for it.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use sqlx::{Connection as _, SqliteConnection};
use tokio::sync::{mpsc, oneshot};

use super::{
    Error,
    health::Health,
    sql::{Wire, sql},
    sqlite::Lock,
};

/// Transactions in one group. More would gain little and delay the first too long.
const GROUP_TRANSACTIONS_MAX: usize = 128;
/// How long a group goes on taking transactions in: about what the flush itself takes.
const GROUP_TIME_MAX: Duration = Duration::from_millis(5);
/// Transactions waiting their turn; more wait for a place in the queue.
const WAITING_MAX: usize = 1024;
/// A transaction that keeps the writer this long has a bug, and everybody is waiting for it.
const HOLD_TIME_MAX: Duration = Duration::from_secs(30);

/// Who goes before whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Rank {
    /// Somebody outside waits for the commit.
    First,
    Normal,
}

/// Where transactions ask for their turn.
pub(super) struct Writer {
    first: mpsc::Sender<Request>,
    requests: mpsc::Sender<Request>,
    commits: Arc<AtomicU64>,
}

enum Request {
    Turn(Rank, Asker),
    Checkpoint(oneshot::Sender<Result<(), Error>>),
    Close(oneshot::Sender<()>),
}

type Asker = oneshot::Sender<Result<Turn, Error>>;

/// The connection, for the length of one transaction. Dropped without `commit`, the transaction is undone.
pub(super) struct Turn(Option<Lent>);

struct Lent {
    connection: Box<SqliteConnection>,
    back: oneshot::Sender<Returned>,
    /// What went wrong in it last.
    fault: Option<Error>,
}

struct Returned {
    connection: Box<SqliteConnection>,
    /// Whom to tell when the group is durable; `None` undoes the transaction.
    commit: Option<Member>,
    fault: Option<Error>,
}

type Member = oneshot::Sender<Result<(), Error>>;

/// How a turn ended: with somebody waiting for the commit, or to be undone, and because of what.
type Ending = Result<Member, Option<Error>>;

pub(super) fn start(connection: SqliteConnection, lock: Lock, health: Health) -> Writer {
    let (requests, queue) = mpsc::channel(WAITING_MAX);
    let (first, urgent) = mpsc::channel(WAITING_MAX);
    let commits = Arc::new(AtomicU64::new(0));
    let task = Task {
        urgent,
        queue,
        connection: Some(Box::new(connection)),
        pending: None,
        commits: commits.clone(),
        health,
        _lock: lock,
    };
    tokio::spawn(task.run());
    Writer { first, requests, commits }
}

impl Writer {
    /// Waits for a turn to write. Giving up waiting costs nobody anything.
    pub(super) async fn turn(&self, rank: Rank) -> Result<Turn, Error> {
        let requests = if rank == Rank::First { &self.first } else { &self.requests };
        ask(requests, |asker| Request::Turn(rank, asker)).await?
    }

    /// Moves the log into the database and cuts it to nothing: what was deleted is then gone from both.
    pub(super) async fn checkpoint(&self) -> Result<(), Error> {
        ask(&self.requests, Request::Checkpoint).await?
    }

    pub(super) async fn close(&self) {
        // An error says that it is closed already.
        let _ = ask(&self.requests, Request::Close).await;
    }

    /// Commits so far, each with one flush.
    pub(super) fn commits(&self) -> u64 {
        self.commits.load(Ordering::Relaxed)
    }
}

async fn ask<T>(
    requests: &mpsc::Sender<Request>,
    request: impl FnOnce(oneshot::Sender<T>) -> Request,
) -> Result<T, Error> {
    let (answer, answered) = oneshot::channel();
    let closed = || Error::refused("the store is closed");
    requests.send(request(answer)).await.map_err(|_| closed())?;
    answered.await.map_err(|_| closed())
}

impl Turn {
    pub(super) fn connection(&mut self) -> Option<&mut SqliteConnection> {
        self.0.as_mut().map(|lent| &mut *lent.connection)
    }

    /// Keeps what went wrong, for all whose work is lost with it.
    pub(super) fn blame(&mut self, error: &Error) {
        if let Some(lent) = self.0.as_mut() {
            lent.fault = Some(error.again());
        }
    }

    /// Returns when the transaction is durable. Dropping this while it waits undoes nothing.
    pub(super) async fn commit(mut self) -> Result<(), Error> {
        let (member, durable) = oneshot::channel();
        self.hand_back(Some(member));
        durable.await.unwrap_or_else(|_| Err(Error::refused("the store is closed")))
    }

    fn hand_back(&mut self, commit: Option<Member>) {
        if let Some(Lent { connection, back, fault }) = self.0.take() {
            // The task waits for nothing but this, unless its runtime is going down with it.
            let _ = back.send(Returned { connection, commit, fault });
        }
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        self.hand_back(None);
    }
}

/// The transactions between a BEGIN and its COMMIT.
#[derive(Default)]
struct Group {
    /// Whom to tell when it is durable.
    members: Vec<Member>,
    /// The savepoint of the last of them is still open.
    in_savepoint: bool,
}

struct Task {
    /// Of the first rank. They are one task's, which asks again only when it has its answer: nobody else starves.
    urgent: mpsc::Receiver<Request>,
    queue: mpsc::Receiver<Request>,
    /// Away while it is lent.
    connection: Option<Box<SqliteConnection>>,
    /// What ended a group without belonging to it.
    pending: Option<Request>,
    commits: Arc<AtomicU64>,
    health: Health,
    /// Let go after the connection is closed.
    _lock: Lock,
}

impl Task {
    async fn run(mut self) {
        while let Some(request) = self.next().await {
            match request {
                Request::Turn(rank, asker) => self.group((rank, asker)).await,
                Request::Checkpoint(asker) => {
                    let done = self.checkpoint().await;
                    let _ = asker.send(done);
                }
                Request::Close(asker) => {
                    self.close().await;
                    drop(self);
                    let _ = asker.send(());
                    return;
                }
            }
        }
        self.close().await;
    }

    async fn next(&mut self) -> Option<Request> {
        match self.pending.take() {
            Some(request) => Some(request),
            None => tokio::select! {
                biased;
                Some(request) = self.urgent.recv() => Some(request),
                request = self.queue.recv() => request,
            },
        }
    }

    async fn close(&mut self) {
        if let Some(connection) = self.connection.take()
            && let Err(error) = connection.close().await
        {
            tracing::warn!(%error, "the database was not closed in order");
        }
    }

    /// Everything from one BEGIN to its COMMIT, which comes at once when somebody outside waits for it.
    async fn group(&mut self, (mut rank, first): (Rank, Asker)) {
        if let Err(error) = self.begin().await {
            let _ = first.send(Err(error));
            return;
        }
        let started = Instant::now();
        let mut group = Group::default();
        let mut outcome = match self.lend(first).await {
            Ok(Ok(member)) => {
                group.members.push(member);
                Ok(())
            }
            // The first needs no savepoint: undone, it leaves nothing behind.
            Ok(Err(_)) => return drop(self.execute("rollback").await),
            Err(error) => Err(error),
        };
        while outcome.is_ok()
            && rank == Rank::Normal
            && group.members.len() < GROUP_TRANSACTIONS_MAX
            && started.elapsed() < GROUP_TIME_MAX
        {
            let Some(next) = self.waiting() else { break };
            rank = next.0;
            outcome = self.turn(next.1, &mut group).await;
        }
        if outcome.is_ok() {
            outcome = self.commit().await;
        }
        if outcome.is_err() {
            // Whether SQLite has already undone the transaction depends on the error; a second time does no harm.
            let _ = self.execute("rollback").await;
        }
        for member in group.members {
            let _ = member.send(outcome.as_ref().map_or_else(|error| Err(error.again()), |()| Ok(())));
        }
    }

    /// The next transaction of the group, if one is waiting already.
    fn waiting(&mut self) -> Option<(Rank, Asker)> {
        match self.urgent.try_recv().or_else(|_| self.queue.try_recv()) {
            Ok(Request::Turn(rank, asker)) => Some((rank, asker)),
            Ok(other) => {
                self.pending = Some(other);
                None
            }
            Err(_) => None,
        }
    }

    async fn begin(&mut self) -> Result<(), Error> {
        self.health.check()?;
        self.execute("begin immediate").await
    }

    async fn commit(&mut self) -> Result<(), Error> {
        self.execute("commit").await?;
        self.commits.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Lends the connection to one transaction. An error means that the whole group is lost.
    async fn turn(&mut self, asker: Asker, group: &mut Group) -> Result<(), Error> {
        if asker.is_closed() {
            return Ok(());
        }
        // The savepoint before is let go of with the next one, or by COMMIT: each statement is a trip to another thread.
        let text = if group.in_savepoint { "release turn; savepoint turn" } else { "savepoint turn" };
        if let Err(error) = self.execute(text).await {
            let _ = asker.send(Err(error.again()));
            return Err(error);
        }
        group.in_savepoint = true;
        match self.lend(asker).await? {
            Ok(member) => {
                group.members.push(member);
                Ok(())
            }
            // Fails when an error inside, such as a full disk, made SQLite undo everything: then nobody's work is left.
            Err(fault) => {
                group.in_savepoint = false;
                let undone = self.execute("rollback to turn; release turn").await;
                undone.map_err(|error| fault.unwrap_or(error))
            }
        }
    }

    async fn lend(&mut self, asker: Asker) -> Result<Ending, Error> {
        let Some(connection) = self.connection.take() else { return Err(Error::Failed) };
        let (back, mut returned) = oneshot::channel();
        // An asker that is gone drops the turn, which comes straight back.
        drop(asker.send(Ok(Turn(Some(Lent { connection, back, fault: None })))));
        loop {
            match tokio::time::timeout(HOLD_TIME_MAX, &mut returned).await {
                Ok(Ok(Returned { connection, commit, fault })) => {
                    self.connection = Some(connection);
                    return Ok(commit.ok_or(fault));
                }
                Ok(Err(_)) => return Err(self.health.note(Error::Failed)),
                Err(_) => tracing::error!("a transaction keeps the writer for over {HOLD_TIME_MAX:?}"),
            }
        }
    }

    async fn checkpoint(&mut self) -> Result<(), Error> {
        let Some(connection) = self.connection.as_mut() else { return Err(Error::Failed) };
        let done = Wire::Sqlite(connection).fetch_optional(sql("pragma wal_checkpoint(truncate)")).await;
        let row = done.map_err(|error| self.health.judge(error))?;
        match row.map(|row| row.get::<bool>("busy")).transpose()? {
            Some(false) => Ok(()),
            _ => Err(Error::refused("somebody reads a part of the log that is to go")),
        }
    }

    async fn execute(&mut self, text: &'static str) -> Result<(), Error> {
        let Some(connection) = self.connection.as_mut() else { return Err(Error::Failed) };
        let done = Wire::Sqlite(connection).execute(sql(text)).await;
        done.map(|_| ()).map_err(|error| self.health.judge(error))
    }
}
