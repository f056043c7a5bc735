//! One session with an account's provider, from login until it is asked to end or fails.
//!
//! Not here: beginning the next one (`worker::accounts`).

use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use super::{
    Failure, Memory,
    connection::{Connection, Followed, Wire},
    followers::Recall,
    news_of_account, news_of_comparing,
    wait::{Next, Watch},
};
use crate::{account::Purpose, flow::Gateway, store};

/// Follows an account over one session. Returns when `stop` is cancelled, after the work in hand, or when the account is
/// gone; with `MadeRoom` when others wait for its place.
///
/// # Errors
/// What ended the session.
pub async fn follow(
    gateway: &Gateway,
    lease: store::Leased,
    stop: &CancellationToken,
    memory: &mut Memory,
) -> Result<(), Failure> {
    memory.well_since = None;
    let whose = (lease.workspace, lease.account);
    let opened = Box::pin(Connection::open_unjudged(gateway, whose, memory, Purpose::Follow));
    // Its place may take long to come.
    let opened =
        tokio::select! { biased; () = stop.cancelled() => return Ok(()), opened = opened => opened? };
    let Some(mut connection) = opened else { return Ok(()) };
    connection.lease = Some(lease);
    let attended = admitted(&mut connection, stop).await;
    // A session that fails has read too, again and again maybe.
    let noted = connection.note_octets().await;
    attended?;
    noted?;
    Box::pin(connection.client.logout()).await;
    // What ends before it is to stop has made room for others.
    if stop.is_cancelled() { Ok(()) } else { Err(Failure::MadeRoom) }
}

async fn admitted<S: Wire>(
    connection: &mut Connection<'_, S>,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    connection.learn_provider().await?;
    connection.require_admitted()?;
    attend(connection, stop).await
}

/// What a session does. Each step is boxed, so that what waits in IDLE for hours is small.
pub(super) async fn attend<S: Wire>(
    connection: &mut Connection<'_, S>,
    stop: &CancellationToken,
) -> Result<(), Failure> {
    let (gateway, account) = (connection.gateway, connection.account);
    let news = (news_of_account(&gateway.coord, account), news_of_comparing(&gateway.coord, account));
    let mut watch = Watch::new(gateway.followers.open_desk(account), news);
    watch.swept(connection.memory.swept_at);
    let mut mailboxes = Box::pin(begin(connection, &mut watch)).await?;
    connection.memory.well_since = Some(Instant::now());
    while !stop.is_cancelled() {
        let next = if Box::pin(connection.backfill(&mut mailboxes)).await? {
            // New mail first, after every chunk; then one of the things that would else wait for the end of history.
            Box::pin(act(connection, Next::Look, (&mut mailboxes, &mut watch), stop)).await?;
            let is_wanted = connection.place.as_ref().is_some_and(|place| place.is_wanted_by_the_living());
            if is_wanted { Some(Next::MakeRoom) } else { watch.next_now() }
        } else {
            Box::pin(connection.return_to_first(&mut mailboxes)).await?;
            Some(connection.wait(&mut watch, stop).await?)
        };
        if matches!(next, Some(Next::MakeRoom)) {
            return Ok(());
        }
        if let Some(next) = next {
            Box::pin(act(connection, next, (&mut mailboxes, &mut watch), stop)).await?;
        }
    }
    Ok(())
}

/// Chooses mailboxes, looks at all of them, and says that all is well.
async fn begin<S: Wire>(
    connection: &mut Connection<'_, S>,
    watch: &mut Watch,
) -> Result<Vec<Followed>, Failure> {
    let mut mailboxes = connection.choose().await?;
    connection.ask_for_notices(&mailboxes).await?;
    connection.look(&mut mailboxes).await?;
    connection.settle().await?;
    watch.looked(connection, mailboxes.len());
    watch.renewed(connection.gateway.settings.idle_renew);
    watch.chosen();
    Ok(mailboxes)
}

async fn act<S: Wire>(
    connection: &mut Connection<'_, S>,
    next: Next,
    (mailboxes, watch): (&mut Vec<Followed>, &mut Watch),
    stop: &CancellationToken,
) -> Result<(), Failure> {
    match next {
        Next::Stop | Next::MakeRoom => {}
        Next::Look => {
            connection.look(mailboxes).await?;
            watch.looked(connection, mailboxes.len());
        }
        Next::News(news) => {
            let before = connection.consumed;
            connection.heed(mailboxes, news).await?;
            watch.calm(connection.consumed > before, stop).await;
        }
        Next::Recall(Recall { job, decision, done, .. }) => {
            let outcome = connection.recall(&job, decision).await?;
            // Whoever asked may have stopped waiting: the job is settled all the same.
            let _ = done.send(outcome);
        }
        Next::Renew => {
            connection.selected = None;
            watch.renewed(connection.gateway.settings.idle_renew);
        }
        Next::Choose => *mailboxes = begin(connection, watch).await?,
        Next::Sweep(span) => {
            // Noted first: a sweep that fails must not be what every session begins with, and ends by.
            connection.memory.swept_at = Some(Instant::now());
            watch.swept(connection.memory.swept_at);
            connection.sweep(mailboxes, span).await?;
        }
    }
    Ok(())
}
