//! Headers of many messages, read into what policy needs to know of each.
//!
//! Not here: judging (`judge`). Nothing of a header outlives the batch unless the message belongs.

use jiff::Timestamp;

use super::{
    Failure,
    connection::{Connection, Wire},
};
use crate::{
    core::{ids::AccountId, message::Parties, threading::ThreadNode},
    flow::process,
    imap::{Criterion, Error, Fault, Flag, HeaderItem, Uid, UidSet},
    mail::HeaderSummary,
};

/// Messages whose headers are looked at together, and whose decisions are committed together.
pub(super) const BATCH_MAX: usize = 200;
/// Octets of headers read for one batch; a batch that has more is read in smaller ones.
const HEADERS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// A message as its header shows it.
#[derive(Debug)]
pub(super) struct Seen {
    pub uid: Uid,
    pub internal_date: Option<Timestamp>,
    pub size: Option<u64>,
    pub is_draft: bool,
    pub summary: HeaderSummary,
    pub parties: Parties,
    /// The provider's own thread ids.
    pub nodes: Vec<ThreadNode>,
}

/// A batch of messages.
#[derive(Debug, Default)]
pub(super) struct Headers {
    /// In ascending order of UIDs.
    pub seen: Vec<Seen>,
    /// There, but the server has no header to show.
    pub unreadable: Vec<Uid>,
}

impl<S: Wire> Connection<'_, S> {
    /// The headers of as many of these UIDs, from the first, as make a batch; and how many of the UIDs those are.
    pub(super) async fn headers(&mut self, uids: &[Uid]) -> Result<(Headers, usize), Failure> {
        let mut count = uids.len().min(BATCH_MAX);
        loop {
            let some: UidSet = uids.iter().take(count).copied().collect();
            match self.headers_of(&some).await {
                Ok(Some(headers)) => return Ok((headers, count)),
                Ok(None) => count = (count / 2).max(1),
                Err(Error::Protocol(Fault::LiteralTooLarge)) if !self.memory.large_headers => {
                    self.memory.large_headers = true;
                    return Err(Failure::Anew);
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    /// `None` when they are too large together.
    async fn headers_of(&mut self, uids: &UidSet) -> Result<Option<Headers>, Error> {
        let (extent, account, ours) = (self.extent(), self.account, &self.gateway.settings.ours);
        let mut fetch = self.client.fetch_headers(uids, extent);
        let (mut seen, mut bytes, mut is_whole) = (Vec::new(), 0_usize, true);
        while let Some(item) = fetch.next().await? {
            bytes = bytes.saturating_add(item.header.len());
            if seen.is_empty() || bytes <= HEADERS_BYTES_MAX {
                let summary = HeaderSummary::read(&item.header);
                let parties = process::parties_of(ours, &summary);
                seen.push(read(account, item, summary, parties));
            } else {
                is_whole = false;
            }
        }
        let missing = fetch.missing();
        if !is_whole {
            return Ok(None);
        }
        seen.sort_unstable_by_key(|message| message.uid);
        // What was deleted meanwhile is not there to be wondered at.
        let unreadable = if missing.is_empty() {
            Vec::new()
        } else {
            let left = self.client.uid_search(Criterion::Uids(&missing)).await?;
            missing.iter().filter(|uid| left.contains(*uid)).collect()
        };
        Ok(Some(Headers { seen, unreadable }))
    }
}

fn read(account: AccountId, item: HeaderItem, summary: HeaderSummary, parties: Parties) -> Seen {
    let gmail = item.gmail.unwrap_or_default();
    // Gmail shows drafts in All Mail, where not every one has the flag.
    let is_draft = item.flags.contains(Flag::Draft)
        || gmail.labels.iter().any(|label| label.eq_ignore_ascii_case(b"\\Draft"));
    Seen {
        uid: item.uid,
        internal_date: item.internal_date,
        size: item.size,
        is_draft,
        summary,
        parties,
        nodes: gmail.thread_id.map(|thread| ThreadNode::GmailThread(account, thread)).into_iter().collect(),
    }
}
