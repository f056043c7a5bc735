//! What another server says that it found out about a message: an Authentication-Results field (RFC 8601), read for what it says.
//!
//! Not here: whether that server is to be believed. Anybody can write such a field; alone in a chain of seals it is signed.

/// What one server found.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Results {
    /// Who found it; some leave it out.
    pub by: Option<String>,
    pub found: Vec<Found>,
}

/// What one method came to. Words are in lower case.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pub method: String,
    pub result: String,
    /// Such as `header.d`, each with its value.
    pub properties: Vec<(String, String)>,
}

impl Results {
    /// Reads the value of a field. `None` where it is malformed, or of a version that is not known.
    #[must_use]
    pub fn parse(value: &str) -> Option<Self> {
        let mut parts = parts(value)?.into_iter();
        let mut results = Self::default();
        let head = parts.next()?;
        match head.as_slice() {
            // Exchange Online begins with the first result.
            [first, ..] if first.contains('=') => results.found.extend(found(&head)),
            [by] => results.by = Some(by.clone()),
            [by, version] if version == "1" => results.by = Some(by.clone()),
            _ => return None,
        }
        results.found.extend(parts.filter_map(|part| found(&part)));
        Some(results)
    }

    /// Whether it says that the mail of this domain was proven to be that, by a method that looks at who wrote it.
    #[must_use]
    pub fn prove(&self, domain: &str) -> bool {
        self.found.iter().filter(|one| one.result == "pass").any(|one| match one.method.as_str() {
            "dmarc" => one.says("header.from", domain),
            "dkim" => one.says("header.d", domain) || one.says("header.i", domain),
            _ => false,
        })
    }
}

impl Found {
    /// Whether a property is this domain, be it that of an address.
    fn says(&self, property: &str, domain: &str) -> bool {
        let of =
            |value: &str| value.rsplit_once('@').map_or(value, |(_, domain)| domain).to_ascii_lowercase();
        self.properties
            .iter()
            .any(|(name, value)| name == property && of(value) == domain.to_ascii_lowercase())
    }
}

/// `method[/version]=result`, and its properties. Nothing where it is none of that, as `none` is.
fn found(words: &[String]) -> Option<Found> {
    let (first, more) = words.split_first()?;
    let (method, result) = first.split_once('=')?;
    let method = method.split_once('/').map_or(method, |(method, _)| method);
    let property = |word: &String| {
        let (name, value) = word.split_once('=')?;
        name.contains('.').then(|| (name.to_ascii_lowercase(), value.to_owned()))
    };
    Some(Found {
        method: method.to_ascii_lowercase(),
        result: result.to_ascii_lowercase(),
        properties: more.iter().filter_map(property).collect(),
    })
}

/// The words between semicolons, without comments and the quotes of quoted strings; white space around an equals sign or a slash
/// divides nothing. `None` where a comment or a quote has no end.
fn parts(value: &str) -> Option<Vec<Vec<String>>> {
    let (mut parts, mut words, mut word) = (Vec::new(), Vec::new(), String::new());
    let mut chars = value.chars().peekable();
    while let Some(c) = chars.next() {
        match c {
            '(' => comment(&mut chars)?,
            '"' => word.push_str(&quoted(&mut chars)?),
            ';' => {
                words.extend(Some(std::mem::take(&mut word)).filter(|word| !word.is_empty()));
                parts.push(std::mem::take(&mut words));
            }
            c if c.is_whitespace() => {
                let is_open = word.ends_with(['=', '/']) || matches!(chars.peek(), Some('=' | '/'));
                if !is_open && !word.is_empty() {
                    words.push(std::mem::take(&mut word));
                }
            }
            c => word.push(c),
        }
    }
    words.extend(Some(word).filter(|word| !word.is_empty()));
    parts.push(words);
    Some(parts)
}

/// Steps over the rest of a comment, with those inside it.
fn comment(chars: &mut impl Iterator<Item = char>) -> Option<()> {
    let mut depth = 1_u32;
    while depth > 0 {
        match chars.next()? {
            '(' => depth += 1,
            ')' => depth -= 1,
            '\\' => drop(chars.next()?),
            _ => {}
        }
    }
    Some(())
}

fn quoted(chars: &mut impl Iterator<Item = char>) -> Option<String> {
    let mut text = String::new();
    loop {
        match chars.next()? {
            '"' => return Some(text),
            '\\' => text.push(chars.next()?),
            c => text.push(c),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_in_comments_and_quotes_is_no_result() {
        let read = |value: &str| Results::parse(value).unwrap();
        let methods = |value: &str| -> Vec<String> {
            read(value).found.iter().map(|one| format!("{}={}", one.method, one.result)).collect()
        };
        let rows = [
            ("gw.example; none", &[][..]),
            ("gw.example (v1); spf=pass (ok=fail; dkim=pass (no)) smtp.mailfrom=a@b", &["spf=pass"]),
            ("\"gw.example\" 1; dkim=pass reason=\"good; dmarc=pass\" header.d=x", &["dkim=pass"]),
            (
                "gw.example;\r\n\tDKIM/1 = Pass\r\n\theader.d = x.example;dmarc=fail",
                &["dkim=pass", "dmarc=fail"],
            ),
            (
                "spf=pass (sender IP is 192.0.2.1) smtp.mailfrom=x; compauth=pass reason=100",
                &["spf=pass", "compauth=pass"],
            ),
        ];
        for (value, expect) in rows {
            assert_eq!(methods(value), expect, "{value}");
        }
        assert_eq!(read("gw.example; none").by.as_deref(), Some("gw.example"));
        assert_eq!(read("spf=pass; dkim=pass").by, None);
        for malformed in [
            "gw.example 2; dkim=pass",
            "gw.example (v1; dkim=pass",
            "gw.example; dkim=\"pass",
            "",
            "a b c; dkim=pass",
        ] {
            assert_eq!(Results::parse(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn only_the_domain_itself_is_proven() {
        let proves =
            |value: &str| Results::parse(&format!("gw.example; {value}")).unwrap().prove("Corp.example");
        for value in [
            "dmarc=pass (p=none) header.from=corp.example",
            "spf=fail; dkim=pass header.i=@corp.example header.s=s1",
            "dkim=fail header.d=corp.example; dkim=pass header.d=CORP.example",
        ] {
            assert!(proves(value), "{value}");
        }
        for value in [
            "dmarc=fail header.from=corp.example",
            "dmarc=pass header.from=corp.example.evil.example",
            "dmarc=pass header.from=evil.example reason=\"header.from=corp.example\"",
            "dkim=pass header.d=evil.example",
            "spf=pass smtp.mailfrom=corp.example",
            "dmarc=pass",
        ] {
            assert!(!proves(value), "{value}");
        }
    }
}
