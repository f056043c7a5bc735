//! The public keys that domains publish for signatures (RFC 6376 section 3.6.1, RFC 8463), and checking with them.
//!
//! Not here: what is signed.

use ring::signature::{
    ED25519, RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, RsaPublicKeyComponents, UnparsedPublicKey,
};
use sha2::{Digest as _, Sha256};

use super::{
    answers::{Answer, Answers, RecordKind},
    tag_list::TagList,
};

/// What a key shorter than this signs, others can sign (RFC 8301).
const RSA_BITS_MIN: usize = 1024;
/// Records of one name that are tried.
const RECORDS_MAX: usize = 3;

/// How a signature is made. SHA-1 is none of them (RFC 8301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Algorithm {
    Rsa,
    Ed25519,
}

impl Algorithm {
    /// Of an `a=` value.
    #[must_use]
    pub fn of(value: &str) -> Option<Self> {
        match value.to_ascii_lowercase().as_str() {
            "rsa-sha256" => Some(Self::Rsa),
            "ed25519-sha256" => Some(Self::Ed25519),
            _ => None,
        }
    }
}

/// A key that may be used.
#[derive(Debug, Clone)]
pub struct PublicKey {
    material: Material,
    /// `t=y`: signatures by it count as none.
    pub is_test: bool,
    /// `t=s`: the signer is the domain itself, none below it.
    pub is_strict: bool,
}

#[derive(Debug, Clone)]
enum Material {
    Rsa { modulus: Vec<u8>, exponent: Vec<u8> },
    Ed25519(Vec<u8>),
}

/// Why there is no key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum NoKey {
    /// DNS has to answer first.
    Waiting,
    /// DNS does not answer.
    Silent,
    Because(&'static str),
}

/// The key of a selector of a domain for an algorithm.
///
/// # Errors
/// [`NoKey`].
pub fn public_key(
    answers: &mut Answers,
    (selector, domain): (&str, &str),
    algorithm: Algorithm,
) -> Result<PublicKey, NoKey> {
    let name = format!("{selector}._domainkey.{domain}");
    match answers.ask(&name, RecordKind::Txt).ok_or(NoKey::Waiting)? {
        Answer::Silent => Err(NoKey::Silent),
        Answer::Void => Err(NoKey::Because("the domain publishes no such key")),
        Answer::Refused => Err(NoKey::Because("the message needs more lookups than a message may")),
        answer => {
            let mut outcome = Err(NoKey::Because("the domain publishes no such key"));
            for text in answer.texts().take(RECORDS_MAX) {
                outcome = PublicKey::parse(text, algorithm).map_err(NoKey::Because);
                if outcome.is_ok() {
                    break;
                }
            }
            outcome
        }
    }
}

impl PublicKey {
    fn parse(record: &str, algorithm: Algorithm) -> Result<Self, &'static str> {
        let tags = TagList::parse(record).ok_or("the key is malformed")?;
        if tags.get("v").is_some_and(|version| version != "DKIM1" || tags.first() != Some("v")) {
            return Err("the key is of another version");
        }
        let kind = tags.get("k").unwrap_or("rsa").to_ascii_lowercase();
        let is_kind = kind == if algorithm == Algorithm::Rsa { "rsa" } else { "ed25519" };
        let allows = |tag: &str, words: [&str; 2]| {
            tags.list(tag).is_none_or(|list| list.iter().any(|item| words.contains(&item.as_str())))
        };
        if !is_kind || !allows("h", ["sha256", "sha256"]) {
            return Err("the key is for another algorithm");
        }
        if !allows("s", ["*", "email"]) {
            return Err("the key is not for mail");
        }
        if tags.get("p").is_some_and(str::is_empty) {
            return Err("the key was revoked");
        }
        let bytes = tags.bytes("p").ok_or("the key is malformed")?;
        let flags = tags.list("t").unwrap_or_default();
        let has = |flag: &str| flags.iter().any(|is| is == flag);
        Ok(Self { material: Material::parse(&bytes, algorithm)?, is_test: has("y"), is_strict: has("s") })
    }

    /// Whether the holder of the key signed this.
    #[must_use]
    pub fn has_signed(&self, text: &[u8], signature: &[u8]) -> bool {
        match &self.material {
            Material::Rsa { modulus, exponent } => RsaPublicKeyComponents { n: modulus, e: exponent }
                .verify(&RSA_PKCS1_1024_8192_SHA256_FOR_LEGACY_USE_ONLY, text, signature)
                .is_ok(),
            // It signs the hash, not the text (RFC 8463 section 3).
            Material::Ed25519(key) => {
                UnparsedPublicKey::new(&ED25519, key).verify(&Sha256::digest(text), signature).is_ok()
            }
        }
    }
}

impl Material {
    fn parse(bytes: &[u8], algorithm: Algorithm) -> Result<Self, &'static str> {
        if algorithm == Algorithm::Ed25519 {
            return if bytes.len() == 32 {
                Ok(Self::Ed25519(bytes.to_vec()))
            } else {
                Err("the key is malformed")
            };
        }
        let (modulus, exponent) = rsa_numbers(bytes).ok_or("the key is malformed")?;
        let bits = modulus.first().map_or(0, |first| modulus.len() * 8 - first.leading_zeros() as usize);
        if bits < RSA_BITS_MIN {
            return Err("the key is shorter than 1024 bits");
        }
        Ok(Self::Rsa { modulus: modulus.to_vec(), exponent: exponent.to_vec() })
    }
}

/// Modulus and exponent of an RSAPublicKey, which may stand in a SubjectPublicKeyInfo (RFC 8017 appendix A.1.1, RFC 5280).
fn rsa_numbers(der: &[u8]) -> Option<(&[u8], &[u8])> {
    const SEQUENCE: u8 = 0x30;
    const INTEGER: u8 = 0x02;
    const BIT_STRING: u8 = 0x03;
    let (outer, _) = element(der, SEQUENCE)?;
    let key = match element(outer, SEQUENCE) {
        Some((_algorithm, rest)) => {
            let (bits, _) = element(rest, BIT_STRING)?;
            element(bits.strip_prefix(&[0])?, SEQUENCE)?.0
        }
        None => outer,
    };
    let (modulus, rest) = element(key, INTEGER)?;
    let (exponent, _) = element(rest, INTEGER)?;
    Some((without_zeros(modulus), without_zeros(exponent)))
}

fn without_zeros(number: &[u8]) -> &[u8] {
    let zeros = number.iter().take_while(|octet| **octet == 0).count();
    number.get(zeros..).unwrap_or_default()
}

/// The content of the DER element at the start, and what follows it.
fn element(der: &[u8], tag: u8) -> Option<(&[u8], &[u8])> {
    let (first, rest) = der.split_first()?;
    let (length, rest) = rest.split_first()?;
    let (length, rest) = match length {
        0..=0x7f => (usize::from(*length), rest),
        0x81 => (usize::from(*rest.first()?), rest.get(1..)?),
        0x82 => (usize::from(u16::from_be_bytes([*rest.first()?, *rest.get(1)?])), rest.get(2..)?),
        _ => return None,
    };
    (*first == tag).then(|| rest.split_at_checked(length))?
}
