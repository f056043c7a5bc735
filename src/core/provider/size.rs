//! What a provider takes of one message by its size: the whole of it as it travels, and its files.
//!
//! Not here: how many recipients it may have.

use super::Provider;

/// What of a message is more than its provider takes, and how much that takes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TooLarge {
    Message(u64),
    /// All files together.
    Files(u64),
}

impl Provider {
    /// What is too large of a message of so many octets with files of these sizes.
    pub fn too_large(&self, octets: u64, files: impl IntoIterator<Item = u64>) -> Option<TooLarge> {
        let files = files.into_iter().fold(0_u64, |sum, size| sum.saturating_add(travelling(size)));
        // Text travels as it is: all that there is of the message is then less than that.
        let files = files.min(octets);
        let message = self.message_bytes.filter(|most| octets > *most).map(TooLarge::Message);
        message.or_else(|| self.attachment_bytes.filter(|most| files > *most).map(TooLarge::Files))
    }
}

impl TooLarge {
    /// In words, for whoever hands the message in.
    #[must_use]
    pub fn text(self, provider: &Provider) -> String {
        let title = &provider.title;
        match self {
            Self::Message(most) => {
                format!("{title} takes messages of at most {most} octets as they travel, files and all")
            }
            Self::Files(most) => {
                format!(
                    "{title} takes files of at most {most} octets together, as they travel: a third more than they have"
                )
            }
        }
    }
}

/// Octets of a file in base64, in lines of 76 (RFC 2045 section 6.8).
fn travelling(size: u64) -> u64 {
    let characters = size.div_ceil(3).saturating_mul(4);
    characters.saturating_add(characters.div_ceil(76).saturating_mul(2))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_count_together_and_as_they_travel() {
        let google = Provider::named("google").unwrap();
        let largest = 18_269_229;
        for (octets, files, expect) in [
            (1_000, vec![], None),
            (26_214_400, vec![], None),
            (26_214_401, vec![], Some(TooLarge::Message(26_214_400))),
            (25_000_100, vec![largest], None),
            (25_000_200, vec![largest + 57], Some(TooLarge::Files(25_000_000))),
            (25_000_200, vec![9_200_000, 9_200_000], Some(TooLarge::Files(25_000_000))),
            (24_000_000, vec![23_990_000], None),
        ] {
            assert_eq!(google.too_large(octets, files.clone()), expect, "{octets} {files:?}");
        }
        assert_eq!(Provider::any().too_large(u64::MAX, [u64::MAX]), None);
        assert_eq!((travelling(0), travelling(1), travelling(57), travelling(58)), (0, 6, 78, 84));
    }
}
