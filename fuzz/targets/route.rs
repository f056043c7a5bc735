//! Addresses and the routes they may be. Holds: an address is read the same again, and what asks why is an address with less.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweave::{core::route, mail::Address};

fuzz_target!(|data: &[u8]| {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let label = route::capture_local_part(text, [7; 10]);
    assert!(Address::from_parts(&label, "bcc.example").is_ok());
    let Ok(address) = Address::parse(text) else { return };
    assert_eq!(Address::parse(&address.to_string()), Ok(address.clone()));
    assert_eq!(
        Address::parse(address.key()).map(|again| again.key().to_owned()),
        Ok(address.key().to_owned())
    );
    assert!(!address.to_string().contains(['\r', '\n', '\0']));
    if let Some(owner) = route::asked_at(&address) {
        assert_eq!(owner.domain(), address.domain());
    }
});
