//! How many answers to questions a user gets: no reason to fill a mailbox, or to use up what a provider lets send.
//!
//! Not here: who may ask (`flow::question`).

use jiff::Timestamp;

use crate::{
    core::{
        ids::UserId,
        limits::{Count, Counted, SLOT, Window, slot_of},
    },
    store::{Error, Tx},
};

/// Answers to one user's questions within the present and the last slot: more than anybody asks at a time.
const AT_ONCE_MAX: u64 = 10;
/// The same within a day.
const A_DAY_MAX: u64 = 40;

/// Counts one more answer to a user's questions. False when it is one too many: then it is not counted.
///
/// # Errors
/// Those of the store.
pub(in crate::flow) async fn take_answer(tx: &mut Tx, user: UserId, now: Timestamp) -> Result<bool, Error> {
    // Nobody else counts at the same time.
    tx.user_to_change(user).await?;
    let counts = tx.usage(user, Counted::Answers, Window::sliding(now).since).await?;
    let sum = |counts: &mut dyn Iterator<Item = &Count>| counts.map(|count| count.count).sum::<u64>();
    let lately = slot_of(now) - SLOT;
    let at_once = sum(&mut counts.iter().filter(|count| count.slot >= lately));
    if at_once >= AT_ONCE_MAX || sum(&mut counts.iter()) >= A_DAY_MAX {
        return Ok(false);
    }
    tx.count_usage(user, &[(Counted::Answers, slot_of(now), 1)]).await?;
    Ok(true)
}
