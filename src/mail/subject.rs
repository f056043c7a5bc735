//! Base subjects (RFC 5256 section 2.1, widened to the prefixes of other languages) and what a subject gives away.
//!
//! Not here: whether two messages with one base subject belong together (`core::threading`).

/// Prefixes that mail clients put before the subject of an answer, in lower case, without the colon.
const REPLY_PREFIXES: [&str; 29] = [
    "re",
    "aw",
    "sv",
    "vs",
    "antw",
    "antwort",
    "odp",
    "ref",
    "rif",
    "r",
    "res",
    "resp",
    "bls",
    "atb",
    "vá",
    "ynt",
    "yan",
    "απ",
    "σχετ",
    "ответ",
    "отв",
    "回复",
    "回覆",
    "答复",
    "返信",
    "השב",
    "รก",
    "hb",
    "ad",
];

/// Prefixes of forwarded mail.
const FORWARD_PREFIXES: [&str; 25] = [
    "fwd",
    "fw",
    "wg",
    "tr",
    "rv",
    "enc",
    "i",
    "doorst",
    "vb",
    "vl",
    "fs",
    "pd",
    "videresend",
    "vidarebefordrat",
    "továbbítás",
    "ilt",
    // `İLT` in lower case: the dot stays behind as a character of its own.
    "i\u{307}lt",
    "πρθ",
    "пересл",
    "fwd fwd",
    "转发",
    "轉寄",
    "העבר",
    "転送",
    "rvs",
];

/// Starts of the subjects of automatic answers, in lower case.
const AUTO_REPLY_STARTS: [&str; 36] = [
    "automatic reply:",
    "auto reply:",
    "auto-reply:",
    "autoreply:",
    "auto response:",
    "auto-response:",
    "autoresponse:",
    "autoresponder:",
    "out of office:",
    "out of office reply:",
    "out of office autoreply:",
    "out of the office:",
    "out-of-office:",
    "vacation reply:",
    "automatische antwort:",
    "abwesenheitsnotiz:",
    "automatische antwort auf",
    "abwesend:",
    "respuesta automática:",
    "fuera de oficina:",
    "fuera de la oficina:",
    "réponse automatique :",
    "réponse automatique:",
    "absence du bureau",
    "risposta automatica:",
    "fuori sede:",
    "automatisch antwoord:",
    "afwezig:",
    "afwezigheidsbericht:",
    "resposta automática:",
    "autosvar:",
    "automaattinen vastaus:",
    "automatyczna odpowiedź:",
    "automatická odpověď:",
    "ārpus biroja",
    "arpus biroja",
];
const AUTO_REPLY_STARTS_CJK: [&str; 6] =
    ["自動応答", "自動返信", "自动回复", "自動回覆", "自动答复", "자동 회신"];
/// Notes' agent puts the name first.
const AUTO_REPLY_ENDS: [&str; 3] = ["is out of the office.", "is out of the office", "ist außer haus."];

/// Starts of the subjects of delivery reports without structure, in lower case.
pub(super) const FAILURE_SUBJECTS: [&str; 29] = [
    "failure notice",
    "undeliverable",
    "undelivered mail",
    "mail delivery",
    "delivery status notification",
    "delivery failure",
    "delivery notification",
    "returned mail",
    "unzustellbar",
    "mail system error",
    "warning: could not send",
    "warning: message",
    "message delivery",
    "delivery report",
    "nicht zustellbar",
    "non remis",
    "failure delivery",
    "permanent delivery failure",
    "delayed mail",
    "mail could not be delivered",
    "mail undeliverable",
    "successful mail delivery",
    "could not deliver",
    "unable to deliver",
    "rejected mail",
    "メールを配信できません",
    "メッセージを配信できません",
    "配信不能",
    "postfix smtp server: errors from",
];

/// Rounds of taking prefixes off; a subject with more has been made to waste time.
const PREFIXES_MAX: usize = 32;

/// The subject without reply and forward prefixes, list tags, `(fwd)` and superfluous blanks.
#[must_use]
pub fn base_subject(subject: &str) -> String {
    let single_spaced = subject.split_whitespace().collect::<Vec<_>>().join(" ");
    let mut base = single_spaced.as_str();
    for _ in 0..PREFIXES_MAX {
        let Some(shorter) = strip_once(base) else { break };
        base = shorter;
    }
    base.to_owned()
}

/// True when the subject begins as that of an answer does: `Re:`, `AW:`, `[list] Sv[2]:`.
#[must_use]
pub fn is_reply_prefix(subject: &str) -> bool {
    prefix_word(skip_tags(subject)).is_some_and(|(word, _)| REPLY_PREFIXES.contains(&word.as_str()))
}

/// True when the subject is that of forwarded mail: `Fwd: …`, `WG: …`, `[Fwd: …]` as Netscape and its heirs write it, or
/// `… (fwd)` as Pine does.
#[must_use]
pub fn is_forward_prefix(subject: &str) -> bool {
    let untagged = skip_tags(subject);
    let is_wrapped = bracketed_forward(untagged.trim_end()).is_some();
    let is_trailed =
        || strip_end_ignoring_case(subject.trim_end(), "(fwd)").is_some() && !is_reply_prefix(subject);
    let begins = |(word, _): (String, _)| FORWARD_PREFIXES.contains(&word.as_str());
    is_wrapped || prefix_word(untagged).is_some_and(begins) || is_trailed()
}

/// What stands in `[Fwd: …]`.
fn bracketed_forward(subject: &str) -> Option<&str> {
    let inner = subject.strip_prefix('[')?.strip_suffix(']')?;
    let (word, rest) = inner.split_at_checked("fwd:".len())?;
    word.eq_ignore_ascii_case("fwd:").then(|| rest.trim())
}

/// True when the subject is one that programs write on automatic answers.
pub(super) fn is_auto_reply(subject: &str) -> bool {
    // `Re: Ann is out of the office.` is a person writing about it.
    if is_reply_prefix(subject) {
        return false;
    }
    let subject = subject.trim().to_lowercase();
    let starts =
        AUTO_REPLY_STARTS.iter().chain(&AUTO_REPLY_STARTS_CJK).any(|start| subject.starts_with(start));
    starts || AUTO_REPLY_ENDS.iter().any(|end| subject.ends_with(end))
}

/// One step of RFC 5256: a trailer, a prefix, or a tag with something behind it.
fn strip_once(subject: &str) -> Option<&str> {
    let subject = subject.trim();
    if let Some(rest) = strip_end_ignoring_case(subject, "(fwd)") {
        return Some(rest.trim_end());
    }
    if let Some(inner) = bracketed_forward(subject) {
        return Some(inner);
    }
    let untagged = skip_tags(subject);
    let is_prefix =
        |word: &String| REPLY_PREFIXES.contains(&word.as_str()) || FORWARD_PREFIXES.contains(&word.as_str());
    if let Some((_, rest)) = prefix_word(untagged).filter(|(word, _)| is_prefix(word)) {
        return Some(rest);
    }
    (untagged.len() < subject.len() && !untagged.is_empty()).then_some(untagged)
}

fn strip_end_ignoring_case<'a>(text: &'a str, end: &str) -> Option<&'a str> {
    let (rest, tail) = text.split_at_checked(text.len().checked_sub(end.len())?)?;
    tail.eq_ignore_ascii_case(end).then_some(rest)
}

/// Skips `[tag]`s; a subject that is nothing but a tag keeps it.
fn skip_tags(subject: &str) -> &str {
    let mut rest = subject.trim_start();
    for _ in 0..PREFIXES_MAX {
        let after = rest
            .strip_prefix('[')
            .and_then(|inner| inner.split_once(']'))
            .map(|(_, after)| after.trim_start());
        match after.filter(|after| !after.is_empty()) {
            Some(after) => rest = after,
            None => break,
        }
    }
    rest
}

/// The lower-case word before a colon, without a counter such as `[2]` or `(3)`, and what follows the colon.
fn prefix_word(subject: &str) -> Option<(String, &str)> {
    let colon = subject.char_indices().take(40).find(|(_, c)| matches!(c, ':' | '：'));
    let (at, colon) = colon?;
    let (word, rest) = (subject.get(..at)?, subject.get(at + colon.len_utf8()..)?);
    let word = word.split(['[', '(', '^', '*']).next().unwrap_or(word).trim();
    Some((word.to_lowercase(), rest.trim_start()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(subject: &str, expect: &str) {
        assert_eq!(base_subject(subject), expect, "{subject:?}");
    }

    #[test]
    fn prefixes_tags_and_trailers_fall_off() {
        check("Re: Offer", "Offer");
        check("RE: AW: Sv: [list] Fwd: Offer  2", "Offer 2");
        check("Re[2]: Offer", "Offer");
        check("Re (3): Offer", "Offer");
        check("Antw: WG: Angebot", "Angebot");
        check("[Fwd: Offer]", "Offer");
        check("Offer (fwd)", "Offer");
        check("[dev] Re: [dev] Offer", "Offer");
        check("回复：报价", "报价");
        check("Odp: Re: Oferta", "Oferta");
    }

    #[test]
    fn what_only_looks_like_a_prefix_stays() {
        check("Reminder: pay", "Reminder: pay");
        check("Project: Re", "Project: Re");
        check("[only a tag]", "[only a tag]");
        check("Re:", "");
        check("", "");
    }

    #[test]
    fn answers_are_told_from_forwarded_mail() {
        assert!(
            is_reply_prefix("AW: Angebot") && is_reply_prefix("[list] Re: x") && !is_reply_prefix("Fwd: x")
        );
        for subject in
            ["WG: Angebot", "[Fwd: Offer]", "[list] [FWD: Re: Offer]", "Offer (fwd)", "İLT: Teklif"]
        {
            assert!(is_forward_prefix(subject), "{subject}");
        }
        for subject in ["Forward march: x", "Re: Offer (fwd)", "Re: [Fwd: Offer]", "[forward]", "[Fwd", ""] {
            assert!(!is_forward_prefix(subject), "{subject}");
        }
    }

    #[test]
    fn a_subject_made_of_prefixes_takes_bounded_time() {
        assert!(base_subject(&"Re: ".repeat(100_000)).len() < 400_000);
    }
}
