//! UID SEARCH, as far as we need it.
//!
//! Not here: Gmail's X-GM-RAW; `HEADER Message-ID` finds the same there and everywhere else.

use jiff::civil::Date;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    client::Client,
    command::Command,
    date::format_date,
    error::{Fault, Result},
    framing::Allowance,
    response::{Found, Response},
    uid::UidSet,
};
use crate::mail::MessageId;

/// What is looked for in the selected mailbox.
#[derive(Debug, Clone, Copy)]
pub enum Criterion<'a> {
    /// Everything.
    All,
    /// Those of these UIDs that exist.
    Uids(&'a UidSet),
    /// What the server received on this day (in its own time zone) or later.
    Since(Date),
    /// Messages with this Message-ID.
    MessageId(&'a MessageId),
    /// Messages received on this day or later whose provider keeps this Message-ID in a field of its own, having replaced
    /// it. No server has an index of such fields: the day keeps it from reading the whole mailbox.
    OriginalId { field: &'static str, id: &'a MessageId, since: Date },
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// The UIDs of the messages that match.
    ///
    /// # Errors
    /// `SequenceNumbers` when the server does not answer with UIDs: nothing found would be the wrong conclusion.
    pub async fn uid_search(&mut self, criterion: Criterion<'_>) -> Result<UidSet> {
        let command = Command::new("UID SEARCH");
        let command = if self.capabilities.esearch() { command.raw(" RETURN (ALL)") } else { command };
        let command = match criterion {
            Criterion::All => command.raw(" ALL"),
            Criterion::Uids(uids) => command.raw(" UID ").uids(uids),
            Criterion::Since(date) => command.raw(" SINCE ").date(date),
            Criterion::MessageId(id) => charset(command, id).by_id("Message-ID", id),
            Criterion::OriginalId { field, id, since } => {
                charset(command, id).raw(" SINCE ").date(since).by_id(field, id)
            }
        };
        let allowance = Allowance { line: self.limits.uid_line_bytes_max, ..Allowance::plain(&self.limits) };
        // Some servers leave SEARCH out when nothing matches. One answer is meant, but none may be lost where a server sends
        // several; they are put together once, for a server could else have each of many cost as much as all before it.
        let (mut found, mut room) = (Ok(Vec::new()), self.limits.uid_ranges_max);
        let take = |response| match response {
            Response::Search(Found::Uids(uids)) => {
                match (&mut found, room.checked_sub(uids.range_count())) {
                    (Ok(_), None) => found = Err(Fault::TooManyResponses),
                    (Ok(known), Some(left)) => {
                        room = left;
                        known.push(uids);
                    }
                    (Err(_), _) => {}
                }
                None
            }
            Response::Search(Found::SequenceNumbers) => {
                found = Err(Fault::SequenceNumbers);
                None
            }
            other => Some(other),
        };
        self.run_with(command, allowance, take).await?;
        Ok(UidSet::union_of(&found?))
    }
}

impl Command {
    fn date(self, date: Date) -> Self {
        // Digits, letters and hyphens: quoting leaves it as it is.
        self.string(format_date(date).as_bytes())
    }

    fn by_id(self, field: &'static str, id: &MessageId) -> Self {
        self.raw(" HEADER ").raw(field).raw(" ").string(format!("<{id}>").as_bytes())
    }
}

/// It goes before every key (RFC 9051 section 6.4.4).
fn charset(command: Command, id: &MessageId) -> Command {
    command.raw(if id.as_str().is_ascii() { "" } else { " CHARSET UTF-8" })
}
