//! File names of attachments as they may be shown and offered for saving.
//!
//! Not here: where an attachment is kept; it never goes by a name that a sender chose.

/// Longest name in octets, what common file systems take.
const FILENAME_BYTES_MAX: usize = 255;
/// Longest ending kept when a name is cut.
const EXTENSION_BYTES_MAX: usize = 16;

/// Makes a display name of what a sender wrote: no path, no control characters, nothing that turns the reading direction
/// around (U+202E makes `exe.pdf` of `fdp.exe`). `None` when nothing is left.
#[must_use]
pub fn display_name(written: &str) -> Option<String> {
    let last = written.trim().rsplit(['/', '\\']).find(|piece| !piece.trim().is_empty())?;
    let clean: String = last.chars().filter(|c| !c.is_control() && !is_direction_control(*c)).collect();
    let name = clean.trim();
    (!name.is_empty() && !name.bytes().all(|byte| byte == b'.')).then(|| shorten(name))
}

fn is_direction_control(c: char) -> bool {
    matches!(c, '\u{200e}' | '\u{200f}' | '\u{061c}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// Cuts a long name, keeping its ending, which says how to open the file.
fn shorten(name: &str) -> String {
    if name.len() <= FILENAME_BYTES_MAX {
        return name.to_owned();
    }
    let dot = name.rfind('.').filter(|dot| name.len() - dot <= EXTENSION_BYTES_MAX).unwrap_or(name.len());
    let (stem, extension) = name.split_at_checked(dot).unwrap_or((name, ""));
    let stem_end = stem.floor_char_boundary(FILENAME_BYTES_MAX - extension.len());
    format!("{}{extension}", stem.get(..stem_end).unwrap_or_default())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(written: &str, expect: Option<&str>) {
        assert_eq!(display_name(written).as_deref(), expect, "{written:?}");
    }

    #[test]
    fn a_name_shows_what_a_file_is() {
        check("../../etc/passwd", Some("passwd"));
        check("C:\\Users\\x\\a.txt", Some("a.txt"));
        check("a.txt\0.exe", Some("a.txt.exe"));
        check("\u{202e}fdp.exe", Some("fdp.exe"));
        check("résumé.pdf", Some("résumé.pdf"));
        check("dir/", Some("dir"));
        check("..", None);
        check(" / ", None);
    }

    #[test]
    fn a_long_name_keeps_its_ending() {
        let name = display_name(&format!("{}.pdf", "é".repeat(300))).unwrap();
        assert!(name.len() <= FILENAME_BYTES_MAX && name.ends_with("é.pdf"));
    }
}
