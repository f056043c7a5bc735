//! The first look at messages: UID, flags, dates, sizes and headers, one message at a time.
//!
//! Not here: which messages are worth their bodies. Memory holds one response, not a mailbox: the caller takes item
//! after item and stops the server by not reading.

use std::collections::{BTreeSet, VecDeque};

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    client::{Client, State},
    command::Command,
    error::{Fault, Result},
    fetch::{Fetched, GmailItems},
    flag::Flags,
    framing::Allowance,
    response::{Response, Tag},
    uid::{ModSeq, Uid, UidSet},
};

/// Longest set in one command line: RFC 7162 section 4 advises 8192 octets for the whole.
const SET_BYTES_MAX: usize = 6_000;

/// How much of each header is asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HeaderExtent {
    Whole,
    /// The first octets only, for a mailbox with a header larger than `Limits::header_bytes_max`.
    First(u32),
}

/// What is known of a message before its body.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HeaderItem {
    pub uid: Uid,
    pub flags: Flags,
    pub internal_date: Option<Timestamp>,
    /// RFC822.SIZE; Exchange only estimates it.
    pub size: Option<u64>,
    pub modseq: Option<ModSeq>,
    /// The header with its empty line. Shares its memory with neighbours: copy what is kept for long.
    pub header: Bytes,
    pub gmail: Option<GmailItems>,
}

/// A FETCH under way. Dropped before `next` has returned `None`, it leaves the client unusable.
#[derive(Debug)]
pub struct HeaderFetch<'c, S> {
    client: &'c mut Client<S>,
    extent: HeaderExtent,
    asked: UidSet,
    pieces: VecDeque<UidSet>,
    tag: Option<Tag>,
    seen: BTreeSet<Uid>,
    last: Option<(u32, Uid)>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Asks for the headers of the messages of the selected mailbox that have these UIDs.
    pub fn fetch_headers(&mut self, uids: &UidSet, extent: HeaderExtent) -> HeaderFetch<'_, S> {
        let pieces = uids.pieces(SET_BYTES_MAX).collect();
        let (asked, seen) = (uids.clone(), BTreeSet::new());
        HeaderFetch { client: self, extent, asked, pieces, tag: None, seen, last: None }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> HeaderFetch<'_, S> {
    /// The next message, or `None` when all are through. Each comes once; what was not asked for does not come.
    ///
    /// # Errors
    /// Those of every command; `UidsNotAscending` when the mailbox is not in order.
    pub async fn next(&mut self) -> Result<Option<HeaderItem>> {
        loop {
            let tag = match self.tag {
                Some(tag) => tag,
                None => match self.pieces.pop_front() {
                    Some(piece) => self.ask(&piece).await?,
                    None => return Ok(None),
                },
            };
            match self.client.next_response().await? {
                Response::Tagged(answered, status) if answered == Some(tag) => {
                    self.tag = None;
                    self.client.state = State::Ready;
                    self.client.outcome(status)?;
                }
                Response::Continuation(_) => return Err(Fault::UnexpectedContinuation.into()),
                Response::Fetch(fetched) => {
                    if let Some(item) = self.item(*fetched)? {
                        return Ok(Some(item));
                    }
                }
                other => {
                    // Sequence numbers shift: the order before says nothing about the order after.
                    if matches!(other, Response::Expunge | Response::Vanished { .. }) {
                        self.last = None;
                    }
                    self.client.absorb(other)?;
                }
            }
        }
    }

    /// What was asked for and did not come. Of a range that counts also the UIDs that no message ever had; of UIDs
    /// known to exist these are messages that are gone or that the server cannot read (Exchange answers OK, without data).
    #[must_use]
    pub fn missing(&self) -> UidSet {
        self.asked.difference(&self.seen.iter().copied().collect())
    }

    async fn ask(&mut self, piece: &UidSet) -> Result<Tag> {
        self.client.prepare().await?;
        let offered = &self.client.capabilities;
        let command =
            Command::new("UID FETCH").raw(" ").uids(piece).raw(" (UID FLAGS INTERNALDATE RFC822.SIZE");
        let command =
            if offered.condstore() && self.client.modseqs { command.raw(" MODSEQ") } else { command };
        let command =
            if offered.gmail() { command.raw(" X-GM-MSGID X-GM-THRID X-GM-LABELS") } else { command };
        let command = command.raw(" BODY.PEEK[HEADER]");
        let command = match self.extent {
            HeaderExtent::Whole => command.raw(")"),
            HeaderExtent::First(bytes) => command.raw("<0.").number(bytes.into()).raw(">)"),
        };
        let allowance = Allowance::plain(&self.client.limits).data(self.client.limits.header_bytes_max);
        let tag = self.client.send(&command, allowance, &mut Some).await?;
        self.tag = Some(tag);
        Ok(tag)
    }

    fn item(&mut self, fetched: Fetched) -> Result<Option<HeaderItem>> {
        let Some(uid) = fetched.uid else {
            self.client.absorb(Response::Fetch(Box::new(fetched)))?;
            return Ok(None);
        };
        let position = (fetched.sequence, uid);
        if self
            .last
            .is_some_and(|(sequence, last)| (fetched.sequence > sequence) != (uid > last) && uid != last)
        {
            return Err(Fault::UidsNotAscending.into());
        }
        self.last = Some(position);
        let header = fetched.section.filter(|section| section.is_header).and_then(|section| section.data);
        let Some(header) = header.filter(|_| self.asked.contains(uid)) else { return Ok(None) };
        if !self.seen.insert(uid) {
            return Ok(None);
        }
        Ok(Some(HeaderItem {
            uid,
            flags: fetched.flags.unwrap_or_default(),
            internal_date: fetched.internal_date,
            size: fetched.size,
            modseq: fetched.modseq,
            header,
            gmail: fetched.gmail,
        }))
    }
}
