//! One message over an open connection, in two phases: everything but the final dot, then the dot.
//!
//! Between the two the caller records that it is about to send. A failure before the dot means not sent, a failure after it
//! means nobody knows, and there is no third case.
//! Not here: recording anything.

use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite};

use super::{Client, ClientError, Stage, encode, encode::Needs, transparency};
use crate::{
    mail::{Address, Envelope},
    smtp::Reply,
};

/// Octets of one write of message data.
const BLOCK_BYTES: usize = 64 * 1024;
/// Recipients in one pipelined group: their replies must fit the buffers of both ends while nobody reads.
const GROUP_RECIPIENTS_MAX: usize = 50;
/// How long a server that cut us off in mid-message is listened to for its reason.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// What became of a message for one recipient.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// The server has taken responsibility. `text` is what it said, often with its queue id.
    Accepted { text: String },
    /// 5yz: never try again.
    Refused(Reply),
    /// 4yz, or a failure before the final dot: try again later.
    Deferred(Reply),
    /// The final dot was sent and no reply understood: the message may or may not be on its way.
    Unknown,
}

impl Outcome {
    /// What a reply of 4yz or 5yz means.
    fn of_refusal(reply: &Reply) -> Self {
        if reply.is_permanent() { Self::Refused(reply.clone()) } else { Self::Deferred(reply.clone()) }
    }
}

/// A message after its first phase.
#[derive(Debug)]
pub enum Transmission<'a, S> {
    /// No recipient was taken, or the message was not: the outcomes are final, in the order of the envelope.
    Settled(Vec<Outcome>),
    /// All but the final dot is at the server. Dropping this leaves the message unsent and the connection unusable.
    Pending(PendingDot<'a, S>),
}

/// A message that needs only its final dot.
#[derive(Debug)]
pub struct PendingDot<'a, S> {
    client: &'a mut Client<S>,
    /// In the order of the envelope; `None` for recipients that were taken.
    refusals: Vec<Option<Outcome>>,
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    /// Sends envelope and message up to, but without, the final dot, and flushes it.
    ///
    /// # Errors
    /// Always means that the message was not sent; [`ClientError::outcome`] says how to go on.
    pub async fn send_data(
        &mut self,
        envelope: &Envelope,
        message: &[u8],
    ) -> Result<Transmission<'_, S>, ClientError> {
        transparency::check(message)?;
        let needs = self.needs(envelope, message)?;
        let refusals = match self.address(envelope, needs).await? {
            Ok(refusals) => refusals,
            Err(reply) => return Ok(Transmission::Settled(same_for_all(envelope, &reply))),
        };
        if refusals.iter().all(Option::is_some) {
            self.reset().await?;
            return Ok(Transmission::Settled(refusals.into_iter().flatten().collect()));
        }
        let go_ahead = self.command(b"DATA\r\n", self.timeouts.data_start).await?;
        if go_ahead.code() != 354 {
            if !go_ahead.is_transient() && !go_ahead.is_permanent() {
                self.in_step = false;
                return Err(ClientError::OutOfStep);
            }
            if self.in_step {
                self.reset().await?;
            }
            return Ok(Transmission::Settled(settle(refusals, &Outcome::of_refusal(&go_ahead))));
        }
        match self.pour(message).await {
            Ok(()) => Ok(Transmission::Pending(PendingDot { client: self, refusals })),
            Err(ClientError::Refused { reply, .. }) => {
                Ok(Transmission::Settled(settle(refusals, &Outcome::of_refusal(&reply))))
            }
            Err(error) => Err(error),
        }
    }

    fn needs(&self, envelope: &Envelope, message: &[u8]) -> Result<Needs, ClientError> {
        let offer = &self.capabilities;
        let addresses = envelope
            .reverse_path
            .address()
            .into_iter()
            .chain(envelope.recipients.iter().map(|recipient| &recipient.address));
        let smtputf8 = envelope.smtputf8 || addresses.into_iter().any(Address::needs_smtputf8);
        let eight_bit = !message.is_ascii();
        if smtputf8 && !offer.smtputf8 {
            return Err(ClientError::NeedsExtension("SMTPUTF8"));
        }
        if eight_bit && !offer.eight_bit_mime {
            return Err(ClientError::NeedsExtension("8BITMIME"));
        }
        match offer.message_bytes_max {
            Some(bytes_max) if u64::try_from(message.len()).is_ok_and(|size| size > bytes_max) => {
                Err(ClientError::TooLarge { bytes_max })
            }
            _ => Ok(Needs { size: message.len(), eight_bit, smtputf8 }),
        }
    }

    /// MAIL and RCPT. The inner error is the reply that refused MAIL.
    async fn address(
        &mut self,
        envelope: &Envelope,
        needs: Needs,
    ) -> Result<Result<Vec<Option<Outcome>>, Reply>, ClientError> {
        self.begin()?;
        let mut batch = encode::mail(envelope, needs, &self.capabilities);
        let mut mail_owed = self.capabilities.pipelining;
        let mut refusals = Vec::with_capacity(envelope.recipients.len());
        if !self.capabilities.pipelining {
            self.write(&std::mem::take(&mut batch), self.timeouts.mail).await?;
            if let Some(refusal) = self.mail_reply().await? {
                self.in_step = true;
                return Ok(Err(refusal));
            }
        }
        let group = if self.capabilities.pipelining { GROUP_RECIPIENTS_MAX } else { 1 };
        let mut mail_refusal = None;
        for recipients in envelope.recipients.chunks(group) {
            batch.extend(recipients.iter().flat_map(|recipient| encode::rcpt(recipient, &self.capabilities)));
            self.write(&std::mem::take(&mut batch), self.timeouts.rcpt).await?;
            if std::mem::take(&mut mail_owed) {
                mail_refusal = self.mail_reply().await?;
            }
            for _ in recipients {
                let reply = self.reply(self.timeouts.rcpt).await?;
                refusals.push(self.judge_recipient(&reply)?);
            }
            if mail_refusal.is_some() {
                break;
            }
        }
        self.in_step = self.replies.is_empty();
        Ok(mail_refusal.map_or(Ok(refusals), Err))
    }

    async fn mail_reply(&mut self) -> Result<Option<Reply>, ClientError> {
        let reply = self.reply(self.timeouts.mail).await?;
        if reply.is_positive() {
            return Ok(None);
        }
        match ClientError::unexpected(Stage::Mail, reply) {
            ClientError::Refused { reply, .. } if reply.code() != 421 => Ok(Some(reply)),
            // 421: the server closes, so the replies to the rest of the group will not come.
            other => Err(other),
        }
    }

    fn judge_recipient(&self, reply: &Reply) -> Result<Option<Outcome>, ClientError> {
        match reply.code() {
            421 => Err(ClientError::Refused { stage: Stage::Mail, reply: reply.clone() }),
            200..=299 => Ok(None),
            400..=599 => Ok(Some(Outcome::of_refusal(reply))),
            _ => Err(ClientError::OutOfStep),
        }
    }

    /// Writes the message. A server that replies before the dot has made up its mind against it, or is out of step.
    async fn pour(&mut self, message: &[u8]) -> Result<(), ClientError> {
        self.in_step = false;
        let mut block = Vec::with_capacity(BLOCK_BYTES.min(message.len().saturating_add(1_024)));
        for piece in transparency::stuffed(message) {
            block.extend_from_slice(piece);
            if block.len() >= BLOCK_BYTES {
                self.pour_block(&block).await?;
                block.clear();
            }
        }
        self.pour_block(&block).await?;
        match self.reply(Duration::ZERO).await {
            Err(ClientError::Timeout) => Ok(()),
            Ok(reply) => Err(ClientError::unexpected(Stage::Data, reply)),
            Err(error) => Err(error),
        }
    }

    async fn pour_block(&mut self, block: &[u8]) -> Result<(), ClientError> {
        match self.write(block, self.timeouts.data_block).await {
            Ok(()) => Ok(()),
            Err(error) => match self.reply(LAST_WORDS).await {
                Ok(reply) => Err(ClientError::unexpected(Stage::Data, reply)),
                Err(_) => Err(error),
            },
        }
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> PendingDot<'_, S> {
    /// What the server said to each recipient, in the order of the envelope; `None` for those it has taken.
    #[must_use]
    pub fn refusals(&self) -> &[Option<Outcome>] {
        &self.refusals
    }

    /// Sends the final dot and waits for the verdict. The outcomes are in the order of the envelope.
    pub async fn finish(self) -> Vec<Outcome> {
        let Self { client, refusals } = self;
        let verdict = client.dot().await;
        settle(refusals, &verdict)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> Client<S> {
    async fn dot(&mut self) -> Outcome {
        let limit = self.timeouts.data_end;
        if let Err(error) = self.write(b".\r\n", limit).await {
            // Some of it may have arrived; and then the server's word would still count.
            tracing::debug!(%error, "the final dot may not have arrived");
        }
        let reply = self.reply(limit).await;
        match reply {
            Ok(reply) if reply.is_positive() => {
                self.in_step = true;
                Outcome::Accepted { text: reply.lines().collect::<Vec<_>>().join(" ") }
            }
            Ok(reply) if reply.is_transient() || reply.is_permanent() => {
                self.in_step = reply.code() != 421;
                Outcome::of_refusal(&reply)
            }
            _ => Outcome::Unknown,
        }
    }
}

/// Recipients that were taken share the verdict on the message.
fn settle(refusals: Vec<Option<Outcome>>, verdict: &Outcome) -> Vec<Outcome> {
    refusals.into_iter().map(|refusal| refusal.unwrap_or_else(|| verdict.clone())).collect()
}

fn same_for_all(envelope: &Envelope, reply: &Reply) -> Vec<Outcome> {
    envelope.recipients.iter().map(|_| Outcome::of_refusal(reply)).collect()
}
