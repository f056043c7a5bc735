//! Signs messages as a mail provider does (RFC 6376, RFC 8463), with a key that is made of the domain's name.
//!
//! Not here: any code of ours, so that signing and checking cannot be wrong alike.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use ring::signature::{Ed25519KeyPair, KeyPair as _};
use sha2::{Digest as _, Sha256};

/// A domain that signs.
pub struct Signer {
    domain: String,
    key: Ed25519KeyPair,
}

/// How a signature differs from a good one.
#[derive(Debug, Clone)]
pub struct Style {
    pub algorithm: &'static str,
    pub selector: &'static str,
    pub fields: &'static str,
    /// Further tags, each with a semicolon at its end.
    pub tags: String,
    /// Octets of the body that are hashed, all if `None`.
    pub hashed: Option<usize>,
}

impl Default for Style {
    fn default() -> Self {
        let tags = String::new();
        Self {
            algorithm: "ed25519-sha256",
            selector: "s1",
            fields: "from:to:subject:date",
            tags,
            hashed: None,
        }
    }
}

impl Signer {
    pub fn new(domain: &str) -> Self {
        let key = Ed25519KeyPair::from_seed_unchecked(&Sha256::digest(domain)).unwrap();
        Self { domain: domain.to_owned(), key }
    }

    /// The name and text of the record that publishes the key.
    pub fn record(&self) -> (String, String) {
        (format!("s1._domainkey.{}", self.domain), format!("v=DKIM1; k=ed25519; p={}", self.public_key()))
    }

    pub fn public_key(&self) -> String {
        STANDARD.encode(self.key.public_key())
    }

    /// The message with a signature on top.
    pub fn sign(&self, message: &str) -> String {
        self.sign_as(message, &Style::default())
    }

    pub fn sign_as(&self, message: &str, style: &Style) -> String {
        format!("{}{message}", self.signature("DKIM-Signature: v=1;", message, style))
    }

    /// The message as one passes it on who found this out about it: the first set of a chain (RFC 8617) on top.
    pub fn seal(&self, message: &str, found: &str) -> String {
        let results = format!("ARC-Authentication-Results: i=1; {}; {found}\r\n", self.domain);
        let signature = self.signature("ARC-Message-Signature: i=1;", message, &Style::default());
        let own = format!("ARC-Seal: i=1; a=ed25519-sha256; cv=none; d={}; s=s1;\r\n\tb=", self.domain);
        let unfolded = |field: &str| relaxed_field(&field.replace("\r\n", ""));
        let sealed = [results.as_str(), &signature, &own].map(unfolded).join("\r\n");
        let seal = STANDARD.encode(self.key.sign(&Sha256::digest(sealed)));
        format!("{own}{seal}\r\n{signature}{results}{message}")
    }

    /// A field that begins so and signs the message.
    fn signature(&self, head: &str, message: &str, style: &Style) -> String {
        let (header, body) = message.split_once("\r\n\r\n").unwrap();
        let mut body = relaxed_body(body);
        body.truncate(style.hashed.unwrap_or(body.len()));
        let Style { algorithm, selector, fields, tags, .. } = style;
        let own = format!(
            "{head} a={algorithm}; c=relaxed/relaxed; d={}; s={selector}; h={fields};{tags}\r\n\tbh={};\r\n\tb=",
            self.domain,
            STANDARD.encode(Sha256::digest(&body)),
        );
        let unfolded = header.replace("\r\n ", " ").replace("\r\n\t", " ");
        let mut left: Vec<&str> = unfolded.split("\r\n").collect();
        let mut signed = String::new();
        for name in fields.split(':') {
            let is_named = |field: &&str| field.split(':').next().unwrap().eq_ignore_ascii_case(name);
            if let Some(at) = left.iter().rposition(is_named) {
                signed.push_str(&format!("{}\r\n", relaxed_field(left.remove(at))));
            }
        }
        signed.push_str(&relaxed_field(&own.replace("\r\n", "")));
        let signature = self.key.sign(&Sha256::digest(signed));
        format!("{own}{}\r\n", STANDARD.encode(signature))
    }
}

fn relaxed_field(field: &str) -> String {
    let (name, value) = field.split_once(':').unwrap();
    let value = value.split_ascii_whitespace().collect::<Vec<_>>().join(" ");
    format!("{}:{value}", name.trim().to_ascii_lowercase())
}

fn relaxed_body(body: &str) -> String {
    let mut lines: Vec<String> = body.split("\r\n").map(relaxed_line).collect();
    while lines.last().is_some_and(String::is_empty) {
        lines.pop();
    }
    lines.into_iter().map(|line| line + "\r\n").collect()
}

fn relaxed_line(line: &str) -> String {
    let joined = line.split([' ', '\t']).filter(|word| !word.is_empty()).collect::<Vec<_>>().join(" ");
    if joined.is_empty() || !line.starts_with([' ', '\t']) { joined } else { format!(" {joined}") }
}
