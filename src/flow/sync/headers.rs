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
    account::judge,
    core::{attribution::OurDomains, ids::AccountId, message::Parties, origin, threading::ThreadNode},
    imap::{Criterion, Error, Fault, Flag, GmailItems, HeaderItem, Kind, Uid, UidSet},
    mail::{HeaderBlock, HeaderSummary, content_type::ContentType},
};

/// Messages whose headers are looked at together, and whose decisions are committed together.
pub(super) const BATCH_MAX: usize = 200;
/// Octets of headers read for one batch; a batch that has more is read in smaller ones.
const HEADERS_BYTES_MAX: usize = 4 * 1024 * 1024;

/// Messages that an answer may leave out and that are asked for one by one then; of one that leaves out more, fewer are asked for.
const HOLES_MAX: usize = 8;

/// A message as its header shows it.
#[derive(Debug)]
pub(super) struct Seen {
    pub uid: Uid,
    pub internal_date: Option<Timestamp>,
    pub size: Option<u64>,
    pub is_draft: bool,
    /// It lies where only what the user sends lies. In an inbox anybody's From may name him.
    pub is_sent: bool,
    pub summary: HeaderSummary,
    pub parties: Parties,
    /// The provider's own thread ids.
    pub nodes: Vec<ThreadNode>,
    /// Its header does not rule out that its body has attachments.
    pub may_hold_files: bool,
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
                Ok(Some(mut headers)) => {
                    if asked.len() > 1 && !self.fill(&mut headers).await {
                        self.memory.doubt(place, &asked);
                        continue;
                    }
                    for message in &mut headers.seen {
                        message.is_sent &= !place.0.is_inbox();
                    }
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

    /// What one answer leaves out, an answer about it alone may hold. False when that did not help, or would take too long.
    async fn fill(&mut self, headers: &mut Headers) -> bool {
        if headers.unreadable.len() > HOLES_MAX {
            return false;
        }
        for uid in std::mem::take(&mut headers.unreadable) {
            // What is wrong here is met again by whoever asks for fewer.
            let Ok(Some(alone)) = self.headers_of(&std::iter::once(uid).collect()).await else {
                return false;
            };
            headers.seen.extend(alone.seen);
            headers.unreadable.extend(alone.unreadable);
        }
        headers.seen.sort_by_key(|message| message.uid);
        true
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
        if matches!(judge(&error), Kind::BackOff(_) | Kind::Credentials) {
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
                seen.push(read(account, ours, &item));
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

fn read(account: AccountId, ours: &OurDomains, item: &HeaderItem) -> Seen {
    let header = HeaderBlock::scan(&item.header);
    let (summary, traces) = (HeaderSummary::of(&header), origin::traces(&header));
    let parties = ours.parties(&summary);
    let gmail = item.gmail.as_ref();
    // Gmail shows drafts in All Mail, where not every one has the flag.
    let is_draft =
        item.flags.contains(Flag::Draft) || gmail.is_some_and(|gmail| has_label(gmail, b"\\Draft"));
    // All Mail holds both what came and what went.
    let is_sent = gmail.is_none_or(|gmail| has_label(gmail, b"\\Sent"));
    let thread = gmail.and_then(|gmail| gmail.thread_id);
    Seen {
        uid: item.uid,
        internal_date: item.internal_date,
        size: item.size,
        is_draft,
        is_sent,
        parties,
        summary,
        nodes: thread.map(|thread| ThreadNode::GmailThread(account, thread)).into_iter().collect(),
        traces,
        may_hold_files: may_hold_files(&header),
    }
}

/// Only a body that is one text, and not sent as a file, surely holds none.
fn may_hold_files(header: &HeaderBlock<'_>) -> bool {
    let value = |name| header.first(name).map(|field| ContentType::read(field.value)).unwrap_or_default();
    let (content, disposition) = (value("Content-Type"), value("Content-Disposition"));
    let is_text = matches!(content.essence(), "" | "text/plain" | "text/html");
    !is_text || disposition.essence() == "attachment" || content.parameter("name").is_some()
}

fn has_label(gmail: &GmailItems, label: &[u8]) -> bool {
    gmail.labels.iter().any(|one| one.eq_ignore_ascii_case(label))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_header_tells_when_a_body_surely_holds_no_file() {
        for (header, expect) in [
            ("Subject: x\r\n\r\n", false),
            ("Content-Type: text/plain; charset=utf-8\r\n\r\n", false),
            ("Content-Type: TEXT/HTML\r\nContent-Disposition: inline\r\n\r\n", false),
            ("Content-Type: text/plain; name=a.txt\r\n\r\n", true),
            ("Content-Type: text/plain\r\nContent-Disposition: attachment\r\n\r\n", true),
            ("Content-Type: multipart/mixed; boundary=b\r\n\r\n", true),
            ("Content-Type: application/pdf\r\n\r\n", true),
        ] {
            assert_eq!(may_hold_files(&HeaderBlock::scan(header.as_bytes())), expect, "{header}");
        }
    }
}
