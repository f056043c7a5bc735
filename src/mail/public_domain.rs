//! Mail domains at which everybody can have an address: that somebody is at the same one says nothing of him.
//!
//! Not here: domains of one organisation, and which of two domains belong together (`authenticity`).

const SHARED_BY_MANY: [&str; 22] = [
    "aol.com",
    "fastmail.com",
    "gmail.com",
    "gmx.com",
    "gmx.de",
    "gmx.net",
    "googlemail.com",
    "hotmail.com",
    "icloud.com",
    "live.com",
    "mac.com",
    "mail.com",
    "mail.ru",
    "me.com",
    "msn.com",
    "outlook.com",
    "proton.me",
    "protonmail.com",
    "seznam.cz",
    "web.de",
    "yandex.ru",
    "zoho.com",
];

/// Whether everybody can have an address there.
#[must_use]
pub fn is_shared_by_many(domain: &str) -> bool {
    let domain = domain.to_ascii_lowercase();
    SHARED_BY_MANY.contains(&domain.as_str()) || domain.starts_with("yahoo.")
}
