//! Which attachments may come into the CRM, and what one that may not keeps out.
//!
//! Not here: taking a file out of a message (`mail::surgery`).

use super::settings::{Attachments, Oversize, Settings};
use crate::core::decision::{Ruling, Verdict};

/// Why a file stays out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FileRule {
    /// No attachments come in.
    None,
    /// Files of this type do not.
    Type,
    /// It is larger than this many octets.
    Larger(u64),
}

/// What becomes of a message and its attachments.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Files {
    /// The message stays out as a whole.
    SkipMessage(Ruling),
    /// It comes without these, by their place.
    Without(Vec<(usize, FileRule)>),
}

/// Judges the attachments of a message: each with its filename and its decoded octets.
#[must_use]
pub fn judge_files<'a>(
    settings: &Settings,
    files: impl IntoIterator<Item = (Option<&'a str>, u64)>,
) -> Files {
    let ruled = files.into_iter().enumerate();
    let out: Vec<(usize, FileRule)> =
        ruled.filter_map(|(place, file)| Some((place, rule(settings, file)?))).collect();
    // What a file is says nothing against the message: a signature's logo must not keep a contact's mail out.
    let is_too_large = out.iter().any(|(_, rule)| matches!(rule, FileRule::Larger(_)));
    if is_too_large && settings.oversize == Oversize::SkipMessage {
        return Files::SkipMessage(Ruling {
            verdict: Verdict::Skipped,
            rule: "attachment",
            reason: "An attachment is larger than policy allows, and keeps the message out.",
        });
    }
    Files::Without(out)
}

fn rule(settings: &Settings, (name, octets): (Option<&str>, u64)) -> Option<FileRule> {
    let larger = settings.attachment_bytes_max.filter(|most| octets > *most).map(FileRule::Larger);
    match settings.attachments {
        Attachments::None => Some(FileRule::None),
        Attachments::Listed if !is_listed(&settings.attachment_types, name) => {
            larger.or(Some(FileRule::Type))
        }
        Attachments::Listed | Attachments::All => larger,
    }
}

/// A file without a name has no type that could be listed.
fn is_listed(types: &[String], name: Option<&str>) -> bool {
    let extension = name.and_then(|name| name.rsplit_once('.')).map(|(_, extension)| extension);
    extension.is_some_and(|extension| types.iter().any(|listed| listed.eq_ignore_ascii_case(extension)))
}

#[cfg(test)]
mod tests {
    use super::{super::preset::Preset, *};
    use crate::core::policy::Policy;

    const MB: u64 = 1024 * 1024;

    #[track_caller]
    fn check(preset: &str, files: &[(Option<&str>, u64)], expect: Option<&[(usize, FileRule)]>) {
        let policy = Policy::of_preset(Preset::named(preset).unwrap());
        let got = judge_files(&policy.settings, files.iter().copied());
        match expect {
            None => assert!(matches!(got, Files::SkipMessage(_)), "{preset}: {got:?}"),
            Some(out) => assert_eq!(got, Files::Without(out.to_vec()), "{preset}"),
        }
    }

    #[test]
    fn keap_12_attachments_never_come_and_the_message_does() {
        check(
            "keap",
            &[(Some("a.pdf"), 9 * MB), (None, 1)],
            Some(&[(0, FileRule::None), (1, FileRule::None)]),
        );
    }

    #[test]
    fn kana_17_and_hilv_8_a_file_over_3_mb_keeps_the_message_out() {
        for preset in ["kaname-outlook", "highlevel-outlook"] {
            check(preset, &[(Some("a.pdf"), 3 * MB)], Some(&[]));
            check(preset, &[(Some("a.pdf"), 3 * MB + 1)], None);
        }
    }

    #[test]
    fn kana_18_and_hilv_9_only_listed_types_come() {
        for preset in ["kaname-outlook", "highlevel-outlook"] {
            check(preset, &[(Some("A.JPEG"), 1), (Some("b.tar.zip"), 1)], Some(&[]));
            // The rules say of size alone that it keeps a message out.
            check(preset, &[(Some("c.exe"), 1)], Some(&[(0, FileRule::Type)]));
            check(preset, &[(None, 1)], Some(&[(0, FileRule::Type)]));
            check(preset, &[(Some("c.exe"), 3 * MB + 1)], None);
        }
    }

    #[test]
    fn kana_14_a_file_over_25_mb_stays_out_at_gmail() {
        check(
            "kaname-gmail",
            &[(Some("a.iso"), 25 * MB), (None, 25 * MB + 1)],
            Some(&[(1, FileRule::Larger(25 * MB))]),
        );
    }
}
