//! Delivery reports in a user's mailbox: those on mail that left through his account tell that it came back.
//!
//! By its header a report is nobody's: a machine wrote it, and most name what they are about only inside. So one is opened
//! if this account has sent mail at all, and what is about other mail is dropped unread by anybody and not stored.
//! Not here: what a report says (`mail::DeliveryReport`) and what follows (`flow::submit`).

use bytes::Bytes;
use jiff::SignedDuration;
use uuid::Uuid;

use super::{
    Failure,
    connection::{Connection, Wire},
    consume::Whole,
    headers::Seen,
};
use crate::{
    flow::{
        now,
        submit::{self, CameTo, Returned},
    },
    mail::{Automatic, MessageId},
    store::{Error, Tx},
};

/// Larger reports are not opened: they return the whole message, which is here, and say no more than small ones.
const REPORT_BYTES_MAX: u64 = 4 * 1024 * 1024;
/// Reports come within the time that servers go on trying, five days as a rule (RFC 5321 section 4.5.4.1).
const REPORTED_WITHIN: SignedDuration = SignedDuration::from_hours(14 * 24);

impl<S: Wire> Connection<'_, S> {
    /// Whether a message that its header leaves out may report on mail that left through this account.
    pub(super) async fn may_report_on_us(&self, seen: &Seen) -> Result<bool, Failure> {
        if seen.summary.automatic != Automatic::Bounce
            || seen.size.is_some_and(|size| size > REPORT_BYTES_MAX)
        {
            return Ok(false);
        }
        if seen.summary.message_id.as_ref().is_some_and(|id| is_our_own(id, &self.gateway.settings.hostname))
        {
            return Ok(false);
        }
        Ok(self.read().await?.has_sent_by(self.account, now() - REPORTED_WITHIN).await?)
    }

    /// Whether it does.
    pub(super) async fn reports_on_us(&self, seen: &Seen, raw: &Bytes) -> Result<bool, Failure> {
        let mut session = self.read().await?;
        let returned =
            submit::returned(&mut session, (&seen.summary, raw), CameTo::Account(self.account)).await?;
        Ok(returned.is_some())
    }

    /// What a report that is filed is about.
    pub(super) async fn returned(&self, tx: &mut Tx, whole: &Whole) -> Result<Option<Returned>, Error> {
        let Some(raw) = &whole.report else { return Ok(None) };
        let report = (&whole.message.summary, raw.as_ref());
        submit::returned(tx, report, CameTo::Account(self.account)).await
    }
}

/// Whether a report is one that we wrote, for a CRM that sends from the user's address: by the Message-ID that
/// `submit::report` gives it. It tells what is known.
fn is_our_own(id: &MessageId, hostname: &str) -> bool {
    let parts = id.as_str().split_once('@');
    parts.is_some_and(|(key, host)| host == hostname && Uuid::try_parse(key).is_ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{flow::submit::own_message_id, store::mint};

    #[test]
    fn our_own_reports_are_known_by_their_ids() {
        let is_ours = |id: &MessageId| is_our_own(id, "mx.example");
        assert!(is_ours(&own_message_id(mint(), "mx.example")));
        assert!(!is_ours(&own_message_id(mint(), "mail.example")));
        // Another program on this host.
        assert!(!is_ours(&MessageId::parse("20240101.8DE4F9A4166@mx.example").unwrap()));
    }
}
