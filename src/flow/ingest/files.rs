//! Takes out of a message the attachments that policy keeps out, before any byte of it is stored.
//!
//! Not here: which those are (`core::policy::attachments`), and cutting (`mail::Message`).

use bytes::Bytes;

use crate::{
    core::{
        decision::Ruling,
        message::SkippedFile,
        policy::{FileRule, Files, Settings, judge_files},
    },
    mail::{Kind, Message},
};

/// What of a message may be stored.
#[derive(Debug)]
pub(in crate::flow) struct Kept {
    /// The message, without the content of the files that stay out.
    pub raw: Bytes,
    /// Those files, by their place among its attachments.
    pub omitted: Vec<(usize, FileRule)>,
}

/// Leaves out what policy leaves out.
///
/// # Errors
/// The ruling by which the message stays out as a whole.
pub(in crate::flow) fn keep(settings: &Settings, message: &Message, raw: Bytes) -> Result<Kept, Ruling> {
    // The parts of a delivery report are no files that somebody sent.
    if message.attachments.is_empty() || message.kind == Kind::Bounce {
        return Ok(Kept { raw, omitted: Vec::new() });
    }
    let files = message.attachments.iter().map(|file| (file.filename.as_deref(), file.size));
    match judge_files(settings, files) {
        Files::SkipMessage(ruling) => Err(ruling),
        Files::Without(omitted) if omitted.is_empty() => Ok(Kept { raw, omitted }),
        Files::Without(omitted) => {
            let places: Vec<usize> = omitted.iter().map(|(place, _)| *place).collect();
            Ok(Kept { raw: Message::without_attachments(&raw, &places), omitted })
        }
    }
}

/// Why a file is not there, as it is shown.
pub(super) fn skipped(omitted: &[(usize, FileRule)], place: usize) -> Option<SkippedFile> {
    let (_, rule) = omitted.iter().find(|(omitted, _)| *omitted == place)?;
    let (reason, limit) = match rule {
        FileRule::None => ("attachments_off", None),
        FileRule::Type => ("type", None),
        FileRule::Larger(limit) => ("too_large", Some(*limit)),
    };
    Some(SkippedFile { reason: reason.to_owned(), limit })
}
