//! Tells a copy of a known message from a new one: by Message-ID and content together (invariant 5).
//!
//! Not here: what is done with either.

use super::Arrival;
use crate::{
    core::{
        ids::{ConversationId, MessageKey},
        message::{Parties, Sighting},
    },
    mail::{Message, MessageId, Party},
    store::{Error, Tx},
};

/// Finds the message this is a copy of: same id (its own, or the one a provider replaced) *and* same content.
pub(super) async fn recognise(
    tx: &mut Tx,
    arrival: &Arrival<'_>,
) -> Result<Option<(MessageKey, ConversationId)>, Error> {
    if let Some(original) = original(tx, arrival).await? {
        return Ok(Some(original));
    }
    let summary = &arrival.message.summary;
    let ids: Vec<MessageId> =
        [&summary.message_id, &summary.original_message_id].into_iter().flatten().cloned().collect();
    let content = content_half(arrival.message);
    let mut other = None;
    for found in tx.messages_by_rfc822_id(&ids).await? {
        if !found.identity.starts_with(&content) {
            continue;
        }
        let Some(stored) = tx.message(found.message).await? else { continue };
        let copy = (found.message, found.conversation);
        if same_recipients(&stored.parties, &arrival.parties) {
            return Ok(Some(copy));
        }
        other.get_or_insert(copy);
    }
    if other.is_some() {
        // Lists and gateways change To on the way, so the id decides. What the CRM hands in is as it wrote it: one text to
        // several people under one id, each in a To of his own, is a letter to each.
        return Ok(other.filter(|_| !is_handed_in(arrival)));
    }
    // Mail that one of its copies has no id in, or a submission of ours whose id the provider replaced without a trace:
    // content, sender, date and recipients decide.
    let in_mailbox = arrival.sightings.iter().any(|sighting| matches!(sighting, Sighting::Account(_)));
    let same = tx.messages_by_content(&content, summary.message_id.is_some() && !in_mailbox).await?;
    let copy = same.into_iter().find(|found| {
        let one_has_no_id = summary.message_id.is_none() || !found.has_id;
        (one_has_no_id || (in_mailbox && found.submitted))
            && same_recipients(&found.parties, &arrival.parties)
    });
    Ok(copy.map(|found| (found.message, found.conversation)))
}

fn is_handed_in(arrival: &Arrival<'_>) -> bool {
    let handed_in = |sighting: &Sighting| matches!(sighting, Sighting::Submission { .. } | Sighting::Api);
    arrival.sightings.iter().any(handed_in)
}

/// The message that we passed on as this one: its author is hidden in it, so its content is another. A mark copied onto
/// other mail proves nothing: the id is the original's too, or where a provider replaced that, the date.
async fn original(tx: &mut Tx, arrival: &Arrival<'_>) -> Result<Option<(MessageKey, ConversationId)>, Error> {
    let Some(key) = arrival.passed_on else { return Ok(None) };
    let Some(original) = tx.message(key).await? else { return Ok(None) };
    let summary = &arrival.message.summary;
    let ids = tx.ids_of_message(key).await?;
    let same_id = summary.message_id.as_ref().is_some_and(|id| ids.contains(id));
    let same = same_id || summary.date == Some(original.sent_at);
    Ok(same.then_some((original.id, original.conversation)))
}

fn same_recipients(a: &Parties, b: &Parties) -> bool {
    keys_of(&a.to, &a.cc) == keys_of(&b.to, &b.cc)
}

fn keys_of<'a>(to: &'a [Party], cc: &'a [Party]) -> Vec<&'a str> {
    let mut keys: Vec<_> = to.iter().chain(cc).map(|party| party.address.key()).collect();
    keys.sort_unstable();
    keys
}

/// Content first, so that copies under other ids lie side by side in the index; then the Message-ID, and whom it is to.
pub(crate) fn identity(message: &Message) -> [u8; 32] {
    let summary = &message.summary;
    let id = summary.message_id.as_ref().map_or("", MessageId::as_str);
    let mut identity = [0; 32];
    let (content, rest) = identity.split_at_mut(16);
    content.copy_from_slice(&content_half(message));
    let mut hash = blake3::Hasher::new();
    hash.update(id.as_bytes());
    for key in keys_of(&summary.to, &summary.cc) {
        hash.update(b"\n").update(key.as_bytes());
    }
    hash.finalize_xof().fill(rest);
    identity
}

/// All that a reader is shown of a message: what [`identity`] leaves out because it changes on the way counts here. Only who says
/// all of the same, and nothing else, can have another's word for it.
pub(crate) fn wording(message: &Message) -> [u8; 32] {
    let summary = &message.summary;
    let mut hash = blake3::Hasher::new();
    hash.update(&identity(message));
    let bodies = [&summary.subject, &message.text, &message.html];
    for body in bodies {
        hash.update(&[0]);
        body.iter().flat_map(|body| body.split_whitespace()).for_each(|word| {
            hash.update(word.as_bytes()).update(b" ");
        });
    }
    for answered in &summary.reply_to {
        hash.update(b"\n").update(answered.address.key().as_bytes());
    }
    hash.update(&[0]);
    for id in summary.in_reply_to.iter().chain(&summary.references) {
        hash.update(b"\n").update(id.as_str().as_bytes());
    }
    for attachment in &message.attachments {
        hash.update(b"\0").update(attachment.filename.as_deref().unwrap_or_default().as_bytes());
        hash.update(b"\n").update(attachment.content_type.as_bytes());
    }
    *hash.finalize().as_bytes()
}

fn content_half(message: &Message) -> [u8; 16] {
    message.content.as_bytes().first_chunk::<16>().copied().unwrap_or_default()
}
