//! What a caller writes behind the `?` of any list, read as every list reads it: for the fuzz targets and for tests.
//!
//! Not here: a list. Each has some of these filters; all of them together are met nowhere else.

use serde::Deserialize;
use serde_json::json;

use super::{
    body::from_query,
    page::{self, Limit},
    users::Whether,
};
use crate::{
    core::{
        account::AccountState,
        decision::Verdict,
        ids::{AccountId, ContactId, UserId},
        people::CreatedBy,
        quarantine::QuarantineState,
    },
    mail::{Address, MessageId},
};

/// Every type that a parameter of a list has.
#[derive(Deserialize, Default)]
#[serde(deny_unknown_fields, default)]
struct Asked {
    user_id: Option<UserId>,
    contact_id: Option<ContactId>,
    account_id: Option<AccountId>,
    state: Option<AccountState>,
    quarantined: Option<QuarantineState>,
    email: Option<Address>,
    created_by: Option<CreatedBy>,
    rfc822_message_id: Option<MessageId>,
    verdict: Option<Verdict>,
    connected: Option<Whether>,
    types: Option<String>,
    q: Option<String>,
    after: Option<String>,
    limit: Limit,
    cursor: Option<String>,
}

/// What of a query was understood.
#[derive(Debug, PartialEq, Eq)]
pub struct Understood {
    /// Rows that are read at once.
    pub rows: u32,
    /// The cursor as we would have written it.
    pub cursor: Option<String>,
    /// Every text that goes on to the store.
    pub texts: Vec<String>,
}

/// Reads a query. The error is the name of the parameter that is wrong.
///
/// # Errors
/// As every list: for what is no filter, no cursor and no number of rows.
pub fn read_query(query: &str) -> Result<Understood, Option<String>> {
    let asked: Asked = from_query(query).map_err(|problem| problem.param)?;
    let page = page::page(asked.limit, asked.cursor.as_deref()).map_err(|problem| problem.param)?;
    let types = super::events::types(asked.types.as_deref()).map_err(|problem| problem.param)?;
    let mut texts: Vec<String> = [asked.q, asked.after].into_iter().flatten().collect();
    texts.extend(types.into_iter().flatten());
    texts.extend(asked.email.map(|email| email.to_string()));
    texts.extend(asked.rfc822_message_id.map(|id| id.to_string()));
    let ids = [
        asked.user_id.map(|id| id.to_string()),
        asked.contact_id.map(|id| id.to_string()),
        asked.account_id.map(|id| id.to_string()),
    ];
    texts.extend(ids.into_iter().flatten());
    let words = [
        asked.state.map(|word| json!(word)),
        asked.quarantined.map(|word| json!(word)),
        asked.created_by.map(|word| json!(word)),
        asked.verdict.map(|word| json!(word)),
        asked.connected.map(|whether| json!(bool::from(whether))),
    ];
    texts.extend(words.into_iter().flatten().map(|word| word.to_string()));
    Ok(Understood { rows: page.limit, cursor: page.after.map(page::encode), texts })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_filter_is_refused_by_name() {
        for (query, wrong) in [
            ("limit=0", "limit"),
            ("limit=201", "limit"),
            ("limit=1&limit=2", "limit"),
            ("cursor=AQ", "cursor"),
            ("state=dancing", "state"),
            ("email=a@b%0d%0aRCPT", "email"),
            ("q=a%00b", "q"),
            ("user_id=con_00000000000000000000000000", "user_id"),
            ("rfc822_message_id=a%0Ab", "rfc822_message_id"),
        ] {
            assert_eq!(read_query(query), Err(Some(wrong.to_owned())), "{query}");
        }
    }

    #[test]
    fn what_is_one_is_understood() {
        let read = read_query("limit=200&q=%25%27%22;--&email=A@B.example").unwrap();
        assert_eq!((read.rows, read.cursor), (201, None));
        assert_eq!(read.texts, ["%'\";--", "A@b.example"]);
    }
}
