//! Mail domains at which everybody can have an address: that somebody is at the same one says nothing of him.
//!
//! Not here: domains of one organisation, and which of two domains belong together (`authenticity`).

/// The larger providers of the public and of those who connect homes, in the order of the alphabet.
const SHARED_BY_MANY: [&str; 100] = [
    "126.com",
    "163.com",
    "abv.bg",
    "alice.it",
    "aol.com",
    "arcor.de",
    "att.net",
    "bellsouth.net",
    "bigpond.com",
    "bk.ru",
    "bluewin.ch",
    "bol.com.br",
    "btinternet.com",
    "centrum.cz",
    "charter.net",
    "comcast.net",
    "cox.net",
    "daum.net",
    "earthlink.net",
    "fastmail.com",
    "fastmail.fm",
    "free.fr",
    "freenet.de",
    "gmail.com",
    "gmx.at",
    "gmx.ch",
    "gmx.com",
    "gmx.de",
    "gmx.net",
    "googlemail.com",
    "hanmail.net",
    "hey.com",
    "hushmail.com",
    "icloud.com",
    "inbox.lv",
    "inbox.ru",
    "interia.pl",
    "juno.com",
    "laposte.net",
    "libero.it",
    "list.ru",
    "live.co.uk",
    "live.com",
    "live.de",
    "live.fr",
    "live.nl",
    "mac.com",
    "mail.com",
    "mail.de",
    "mail.ru",
    "mailbox.org",
    "me.com",
    "msn.com",
    "naver.com",
    "ntlworld.com",
    "o2.pl",
    "onet.pl",
    "optonline.net",
    "orange.fr",
    "pm.me",
    "posteo.de",
    "posteo.net",
    "proton.me",
    "protonmail.ch",
    "protonmail.com",
    "qq.com",
    "rediffmail.com",
    "rocketmail.com",
    "rogers.com",
    "runbox.com",
    "sbcglobal.net",
    "seznam.cz",
    "sfr.fr",
    "shaw.ca",
    "sina.com",
    "sky.com",
    "sympatico.ca",
    "t-online.de",
    "talktalk.net",
    "telenet.be",
    "terra.com.br",
    "tiscali.it",
    "tuta.com",
    "tutanota.com",
    "ukr.net",
    "uol.com.br",
    "verizon.net",
    "virgilio.it",
    "virginmedia.com",
    "wanadoo.fr",
    "web.de",
    "wp.pl",
    "xs4all.nl",
    "ya.ru",
    "yandex.com",
    "yandex.ru",
    "ymail.com",
    "ziggo.nl",
    "zoho.com",
    "zohomail.com",
];

/// Providers with a domain in many countries.
const FAMILIES: [&str; 3] = ["hotmail.", "outlook.", "yahoo."];

/// Whether everybody can have an address there.
#[must_use]
pub fn is_shared_by_many(domain: &str) -> bool {
    let domain = domain.to_ascii_lowercase();
    SHARED_BY_MANY.binary_search(&domain.as_str()).is_ok()
        || FAMILIES.iter().any(|family| domain.starts_with(family))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn everybody_can_be_at_a_public_domain_and_nobody_else_at_a_companys() {
        assert!(SHARED_BY_MANY.is_sorted());
        for domain in ["gmail.com", "GMX.net", "t-online.de", "yahoo.co.jp", "outlook.fr", "hotmail.com"] {
            assert!(is_shared_by_many(domain), "{domain}");
        }
        for domain in ["acme.example", "mail.gmail.com.example", "notgmail.com", "yahoo"] {
            assert!(!is_shared_by_many(domain), "{domain}");
        }
    }
}
