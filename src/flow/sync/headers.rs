//! Headers of many messages, read into what policy needs to know of each.
//!
//! Not here: judging (`judge`). Nothing of a header outlives the batch unless the message belongs.

use jiff::Timestamp;

use super::{
    Failure,
    connection::{Connection, Wire, is_refusal},
    memory::{Asked, Place},
};
use crate::{
    core::{attribution::OurDomains, ids::AccountId, message::Parties, origin, threading::ThreadNode},
    imap::{Criterion, Error, Fault, Flag, HeaderItem, Kind, Uid, UidSet},
    mail::{HeaderBlock, HeaderSummary},
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
    /// What may show which workspace sent it.
    pub traces: Vec<String>,
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
    /// The headers of as many of these UIDs, from the first, as make a batch; and how many of the UIDs those are. One message
    /// that the server cannot read is found among the others, given up and passed, so that it does not hide them.
    pub(super) async fn headers(
        &mut self,
        place: Place<'_>,
        uids: &[Uid],
    ) -> Result<(Headers, usize), Failure> {
        let uids = uids.get(..BATCH_MAX).unwrap_or(uids);
        loop {
            let asked: Vec<Uid> = uids.iter().take(self.memory.at_once(place, uids)).copied().collect();
            if let Some(given_up) = self.given_up(place, &asked) {
                return Ok((given_up, 1));
            }
            match self.headers_of(&asked.iter().copied().collect()).await {
                Ok(Some(headers)) => {
                    self.memory.trust(place, &asked);
                    self.memory.forget_failures(Asked::Header, place, &asked);
                    return Ok((headers, asked.len()));
                }
                Ok(None) => self.memory.doubt(place, &asked),
                Err(error) => {
                    if let Some(unreadable) = self.take_amiss(place, &asked, error)? {
                        return Ok((unreadable, 1));
                    }
                }
            }
        }
    }

    fn given_up(&mut self, place: Place<'_>, asked: &[Uid]) -> Option<Headers> {
        let [uid] = asked else { return None };
        self.memory.is_given_up(Asked::Header, place, *uid).then(|| self.unreadable(place, *uid))
    }

    fn unreadable(&mut self, place: Place<'_>, uid: Uid) -> Headers {
        self.memory.trust(place, &[uid]);
        self.memory.forget_failures(Asked::Header, place, &[uid]);
        Headers { seen: Vec::new(), unreadable: vec![uid] }
    }

    /// What follows when messages could not be read: one is given up, fewer are asked for (`None`), or the session is over.
    fn take_amiss(
        &mut self,
        place: Place<'_>,
        asked: &[Uid],
        error: Error,
    ) -> Result<Option<Headers>, Failure> {
        if matches!(error, Error::Protocol(Fault::LiteralTooLarge)) && !self.memory.large_headers {
            self.memory.large_headers = true;
            return Err(Failure::Anew);
        }
        // Being asked to wait, or to log in again, says nothing of these messages.
        if matches!(error.kind(), Kind::BackOff(_) | Kind::Credentials) {
            return Err(error.into());
        }
        match asked {
            [uid] if is_refusal(&error) => Ok(Some(self.unreadable(place, *uid))),
            // It may pass: the message is given up only when it goes on.
            [uid] => {
                self.memory.note_failure(Asked::Header, place, *uid);
                Err(error.into())
            }
            _ => {
                self.memory.doubt(place, asked);
                // Fewer at a time, over a new connection where this one is gone.
                if error.connection_lives() { Ok(None) } else { Err(Failure::Anew) }
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
                seen.push(read(account, ours, item));
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

fn read(account: AccountId, ours: &OurDomains, item: HeaderItem) -> Seen {
    let header = HeaderBlock::scan(&item.header);
    let (summary, traces) = (HeaderSummary::of(&header), origin::traces(&header));
    let parties = ours.parties(&summary);
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
        traces,
    }
}
