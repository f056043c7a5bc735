//! APPEND: a message into a mailbox.
//!
//! Not here: whether the provider has already filed one; the caller searches first.

use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncWrite};

use super::{
    client::Client,
    code::ResponseCode,
    command::Command,
    date,
    error::{Error, Result},
    flag::Flag,
    mailbox::MailboxName,
    uid::{Uid, UidValidity},
};

/// Where APPEND put the message (RFC 4315).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Appended {
    pub uid_validity: UidValidity,
    pub uid: Uid,
}

/// A message and how it is to be filed.
#[derive(Debug, Clone)]
pub struct Append<'a> {
    pub mailbox: &'a MailboxName,
    pub flags: &'a [Flag],
    pub internal_date: Option<Timestamp>,
    pub message: Bytes,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Files a message. `None` when the server does not tell its UID.
    ///
    /// # Errors
    /// `No` with TRYCREATE when there is no such mailbox; `TooLarge` when the server has said that it takes no such
    /// size. After `Io` or `Timeout` the message may be there: search before trying again.
    pub async fn append(&mut self, append: Append<'_>) -> Result<Option<Appended>> {
        let bytes_max = self.capabilities.append_bytes_max().filter(|max| append.message.len() as u64 > *max);
        if let Some(bytes_max) = bytes_max {
            return Err(Error::TooLarge { bytes_max });
        }
        let mut command = Command::new("APPEND").raw(" ").mailbox(append.mailbox).raw(" (");
        for (index, flag) in append.flags.iter().enumerate() {
            command = command.raw(if index > 0 { " " } else { "" }).raw(flag.as_str());
        }
        command = command.raw(") ");
        if let Some(at) = append.internal_date {
            command = command.string(date::format(at).as_bytes()).raw(" ");
        }
        let done = self.run(command.message(append.message), Some).await?;
        Ok(match done.code {
            Some(ResponseCode::AppendUid { uid_validity, uid }) => Some(Appended { uid_validity, uid }),
            _ => None,
        })
    }
}
