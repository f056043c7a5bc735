//! The new text of an answer. Holds: it is made of lines of the text, and splitting it again takes nothing it should not.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweave::mail::{forward, reply};

fuzz_target!(|data: &[u8]| {
    let text = String::from_utf8_lossy(data);
    let (visible, bare) = (reply::visible_text(&text), reply::split_reply(&text));
    assert!(visible.len() <= text.len() && bare.len() <= text.len());
    for line in bare.lines().filter(|line| !line.trim().is_empty()) {
        assert!(text.contains(line.trim()), "{line:?} was never written");
    }
    for subject in ["", "Fwd: x", "Re: x"] {
        let _ = forward::in_text(&text, subject);
    }
});
