//! One message's bytes, whole or in chunks.
//!
//! Not here: MIME parts. A part is cut out of the whole by `mail`, since servers disagree on what BODY[1.2] is.

use bytes::{Bytes, BytesMut};
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    client::Client,
    command::Command,
    error::{Error, Result},
    fetch::{Fetched, Section},
    framing::Allowance,
    quirks,
    response::Response,
    uid::{Uid, UidSet},
};

/// Messages up to this size are asked for whole, larger ones in chunks of it: what one response may take in memory.
const CHUNK_BYTES: u64 = 1024 * 1024;
/// RFC822.SIZE is an estimate on some servers (Exchange): a message may be this much larger than said.
const SIZE_SLACK_BYTES: u64 = 256 * 1024;

/// What the server had for a UID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Body {
    Message(Bytes),
    /// Nothing: expunged meanwhile, or unreadable on the server. Record and go on; asking again changes nothing.
    Missing,
    /// Exchange's note that it cannot convert the message. It is no mail.
    Placeholder,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Fetches one message of the selected mailbox without marking it read. `size` is its RFC822.SIZE, if known.
    ///
    /// # Errors
    /// `TooLarge` beyond `bytes_max` or `Limits::message_bytes_max` (the connection lives on); `No` when the server
    /// cannot read the message; the rest as for every command.
    pub async fn fetch_body(&mut self, uid: Uid, size: Option<u64>, bytes_max: u64) -> Result<Body> {
        let bytes_max = bytes_max.min(self.limits.message_bytes_max);
        if size.is_some_and(|size| size > bytes_max) {
            return Err(Error::TooLarge { bytes_max });
        }
        let body = match size {
            Some(size) if size <= CHUNK_BYTES => self.fetch_whole(uid).await?,
            _ => self.fetch_chunks(uid, size, bytes_max).await?,
        };
        Ok(match body {
            None => Body::Missing,
            Some(bytes) if bytes.len() as u64 > bytes_max => return Err(Error::TooLarge { bytes_max }),
            Some(bytes) if quirks::is_exchange_placeholder(&bytes) => Body::Placeholder,
            Some(bytes) => Body::Message(bytes),
        })
    }

    async fn fetch_whole(&mut self, uid: Uid) -> Result<Option<Bytes>> {
        let command = Command::new("UID FETCH").raw(" ").uids(&UidSet::from(uid)).raw(" (UID BODY.PEEK[])");
        let section = self.fetch_section(command, uid).await?;
        Ok(section.and_then(|section| section.data).filter(|data| !data.is_empty()))
    }

    async fn fetch_chunks(&mut self, uid: Uid, size: Option<u64>, bytes_max: u64) -> Result<Option<Bytes>> {
        // What was said is not trusted with memory at once: a chunk's worth, and then as it comes.
        let mut message = BytesMut::new();
        loop {
            let offset = message.len() as u64;
            let command =
                Command::new("UID FETCH").raw(" ").uids(&UidSet::from(uid)).raw(" (UID BODY.PEEK[]<");
            let command = command.number(offset).raw(".").number(CHUNK_BYTES).raw(">)");
            let Some(Section { origin, data, .. }) = self.fetch_section(command, uid).await? else {
                return Ok(None);
            };
            let Some(chunk) = data.filter(|chunk| !chunk.is_empty()) else { break };
            // A server without partial fetch sends the whole from the start, which is then all there is.
            if origin.unwrap_or(0) != offset {
                return if origin.is_none() { Ok(Some(chunk)) } else { Ok(None) };
            }
            message.extend_from_slice(&chunk);
            if message.len() as u64 > bytes_max {
                return Err(Error::TooLarge { bytes_max });
            }
            // A short chunk is the last one, unless the server gives less than it is asked for.
            if (chunk.len() as u64) < CHUNK_BYTES && size.is_none_or(|size| message.len() as u64 >= size) {
                break;
            }
        }
        Ok(Some(message.freeze()).filter(|message| !message.is_empty()))
    }

    /// Runs a FETCH of one section of one message; answers for other messages are none of it.
    async fn fetch_section(&mut self, command: Command, uid: Uid) -> Result<Option<Section>> {
        let data = usize::try_from(CHUNK_BYTES + SIZE_SLACK_BYTES).unwrap_or(usize::MAX);
        let allowance = Allowance::plain(&self.limits).data(data);
        let mut section = None;
        let take = |response| match response {
            Response::Fetch(fetched) => take_section(*fetched, uid, &mut section),
            other => Some(other),
        };
        self.run_with(command, allowance, take).await?;
        Ok(section)
    }
}

fn take_section(fetched: Fetched, uid: Uid, section: &mut Option<Section>) -> Option<Response> {
    match fetched {
        Fetched { uid: Some(answered), section: Some(found), .. } if answered == uid && !found.is_header => {
            *section = Some(found);
            None
        }
        other => Some(Response::Fetch(Box::new(other))),
    }
}
