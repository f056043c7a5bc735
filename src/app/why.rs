//! `mailweave why`: what was decided about a mail, or about the mail with a person, as a reader wants it told.
//!
//! Not here: the words (`core::explanation`) and the request itself (`app::client`).

use anyhow::Context as _;
use serde::Deserialize;
use serde_json::Value;

use super::client::{self, Usage};
use crate::{
    cli::{List, Why},
    core::{decision::Decision, explanation},
    mail::{Address, MessageId},
    net,
};

/// What was found out.
#[derive(Debug)]
pub struct Answer {
    /// For stdout, its last line ended.
    pub text: String,
    /// Something was decided about it.
    pub known: bool,
}

/// One page of the API's list.
#[derive(Deserialize)]
struct Decisions {
    items: Vec<Decision>,
    next_cursor: Option<String>,
}

/// Prints what was decided. False when nothing is known.
///
/// # Errors
/// The API's refusal, or why it could not be asked.
pub async fn run(why: Why) -> anyhow::Result<bool> {
    net::install_provider();
    let answer = ask(&why).await?;
    client::write(answer.text.as_bytes())?;
    Ok(answer.known)
}

/// Asks the gateway.
///
/// # Errors
/// As [`run`].
pub async fn ask(why: &Why) -> anyhow::Result<Answer> {
    let mut answer = Value::Null;
    for filter in filters(&why.about)? {
        let list = List { limit: Some(why.limit), cursor: None, filters: vec![filter] };
        answer = client::decisions(&why.client, list).await?;
        if answer.get("items").and_then(Value::as_array).is_some_and(|items| !items.is_empty()) {
            return Ok(Answer { text: shown(answer, why.json)?, known: true });
        }
    }
    Ok(Answer { text: shown(answer, why.json)?, known: false })
}

/// What to ask for, one after the other: without brackets a Message-ID and an address look alike.
fn filters(about: &str) -> Result<Vec<(String, String)>, Usage> {
    let about = about.trim();
    let filter = |name: &str| (name.to_owned(), about.to_owned());
    if about.starts_with("msg_") {
        return Ok(vec![filter("message_id")]);
    }
    let id = MessageId::parse(about).filter(|_| about.contains('@') || about.starts_with('<'));
    let address = Address::parse(about).ok();
    let filters: Vec<_> = [id.map(|_| filter("own_message_id")), address.map(|_| filter("address"))]
        .into_iter()
        .flatten()
        .collect();
    if filters.is_empty() {
        Err(Usage("ask about a Message-ID, an address or a msg_… id"))
    } else {
        Ok(filters)
    }
}

fn shown(answer: Value, json: bool) -> anyhow::Result<String> {
    if json {
        return Ok(format!("{answer:#}\n"));
    }
    let page: Decisions = serde_json::from_value(answer).context("the answer is no list of decisions")?;
    let mut text = explanation::tell(&page.items);
    if page.next_cursor.is_some() {
        text.push_str(
            "\nThere are older decisions: ask for more with --limit, or page with mailweave decision list.\n",
        );
    }
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_about_is_known_by_its_looks() {
        for (about, names) in [
            ("<1@x.example>", vec!["own_message_id"]),
            ("1@x.example", vec!["own_message_id", "address"]),
            ("bob@x.example", vec!["own_message_id", "address"]),
            ("msg_1", vec!["message_id"]),
        ] {
            let filters = filters(about).unwrap();
            let found: Vec<_> = filters.iter().map(|(name, _)| name.as_str()).collect();
            assert_eq!(found, names, "{about}");
            assert!(filters.iter().all(|(_, value)| value == about));
        }
        assert!(filters("bob").is_err() && filters("").is_err());
    }

    #[test]
    fn nothing_known_is_told_with_its_causes_and_as_json_without() {
        let nothing = || serde_json::json!({ "items": [], "next_cursor": null });
        assert_eq!(shown(nothing(), false).unwrap(), explanation::NEVER_SEEN);
        assert_eq!(serde_json::from_str::<Value>(&shown(nothing(), true).unwrap()).unwrap(), nothing());
    }
}
