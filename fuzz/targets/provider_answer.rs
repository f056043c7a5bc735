//! What a provider's web servers say: where a domain's mail is, tokens, and refusals. Holds: servers are hosts by name, reached
//! under TLS; what is shown of a refusal is one short line; who signed in has an address that is read the same again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweave::{
    account::{
        oauth::{TokenError, read_granted, read_refusal},
        read_autoconfig,
    },
    core::account::Security,
    mail::Address,
};

fuzz_target!(|data: &[u8]| {
    if let Some(found) = read_autoconfig(data, "acme.example") {
        for found in [found.imap, found.smtp].into_iter().flatten() {
            let server = found.server;
            assert!(server.port != 0 && server.security != Security::None, "{server:?}");
            assert!(server.host.parse::<std::net::IpAddr>().is_err(), "{server:?}");
            let is_name = |octet: u8| octet.is_ascii_graphic() && !b"/@:?#[]%\\<>".contains(&octet);
            assert!(!server.host.is_empty() && server.host.bytes().all(is_name), "{server:?}");
        }
    }
    if let Ok(granted) = read_granted(data)
        && let Some(email) = granted.signer.and_then(|signer| signer.email)
    {
        assert_eq!(Address::parse(&email.to_string()), Ok(email));
    }
    let status = data.first().map_or(400, |octet| 400 + u16::from(*octet % 200));
    let TokenError::Refused { text, .. } = read_refusal(status, data, None) else { unreachable!() };
    assert!(!text.is_empty() || data.len() > 10);
    assert!(text.chars().count() <= 300 && !text.contains(char::is_control), "{text:?}");
});
