//! The journal of a workspace: everything the CRM is told, in order, to be read from any point.
//!
//! Not here: following it live (`event_stream`) and posting it (`webhooks`).

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::Parameters,
    page::{self, Limit, List},
    problem::Problem,
};
use crate::{
    core::{
        event::{EVENT_TYPES, JournalEntry},
        ids::{EventId, WorkspaceId},
    },
    store::{self, Session},
};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list))
}

/// An event, as it is posted to endpoints too.
#[derive(Serialize, ToSchema)]
#[schema(as = Event)]
pub(super) struct EventView {
    #[schema(value_type = String)]
    pub(super) id: EventId,
    #[serde(rename = "type")]
    #[schema(example = "message.sent")]
    pub(super) kind: String,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String)]
    workspace_id: WorkspaceId,
    #[schema(value_type = Object)]
    data: Value,
}

impl EventView {
    pub(super) fn of(workspace_id: WorkspaceId, entry: JournalEntry) -> Self {
        let JournalEntry { seq: _, id, kind, created_at, data } = entry;
        Self { id, kind, created_at, workspace_id, data }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Listing {
    /// An event's id, or a cursor: read what came after it.
    after: Option<String>,
    /// The same as `after`.
    cursor: Option<String>,
    /// Types, with commas between them.
    #[param(example = "message.sent,message.bounced")]
    types: Option<String>,
    /// 1 to 200; 50 when left out.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
}

/// The types of a list with commas.
pub(super) fn types(text: Option<&str>) -> Result<Option<Vec<String>>, Problem> {
    let Some(text) = text else { return Ok(None) };
    let types: Vec<String> = text.split(',').map(|kind| kind.trim().to_owned()).collect();
    match types.iter().all(|kind| EVENT_TYPES.contains(&kind.as_str())) {
        true => Ok(Some(types)),
        false => Err(Problem::invalid("types", "There is no such type of event.")),
    }
}

/// The number of the event that a caller stands behind: by id or by cursor.
pub(super) async fn position(session: &mut Session, param: &str, text: &str) -> Result<i64, Problem> {
    if let Some(seq) = page::decode_number(text) {
        return Ok(seq);
    }
    let seq = match text.parse::<EventId>() {
        Ok(id) => session.seq_of(id).await?,
        Err(_) => None,
    };
    seq.ok_or_else(|| {
        Problem::invalid(param, "It names no event of this workspace.").advice(
            "Pass the id of an event you have seen, or a cursor; leave it out to begin at the first event.",
        )
    })
}

/// Looks into the journal for one page or one event of a stream, where much is hidden. Then the caller asks again.
const LOOKS_MAX: usize = 20;

/// At most this many events that the caller may see, and how far the journal was read when it is not read to its end.
pub(super) async fn read(
    session: &mut Session,
    after: i64,
    types: Option<&[String]>,
    limit: u32,
) -> Result<(Vec<JournalEntry>, Option<i64>), store::Error> {
    let (mut entries, mut after) = (Vec::new(), after);
    for _ in 0..LOOKS_MAX {
        let wanted = limit.saturating_sub(u32::try_from(entries.len()).unwrap_or(limit));
        entries.extend(session.journal(after, types, wanted).await?);
        let Some(reach) = session.journal_reach(after) else { return Ok((entries, None)) };
        if entries.len() >= limit as usize || reach >= session.last_seq().await? {
            return Ok((entries, None));
        }
        after = reach;
    }
    Ok((entries, Some(after)))
}

/// Read the journal, oldest first.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/events", tag = "events", operation_id = "list_events",
    params(Listing), responses((status = 200, body = List<EventView>)))]
async fn list(
    State(api): State<Api>,
    access: Access,
    Parameters(query): Parameters<Listing>,
) -> Result<Json<List<EventView>>, Problem> {
    let types = types(query.types.as_deref())?;
    let mut session = access.read(&api).await?;
    let after = match (&query.after, &query.cursor) {
        (None, None) => 0,
        (Some(after), None) => position(&mut session, "after", after).await?,
        // The next page of a list that began with `after`: the cursor is further on.
        (_, Some(cursor)) => position(&mut session, "cursor", cursor).await?,
    };
    let limit = query.limit.0;
    let (mut entries, reached) = read(&mut session, after, types.as_deref(), limit + 1).await?;
    let more = entries.len() > limit as usize;
    entries.truncate(limit as usize);
    let last = entries.last().filter(|_| more).map(|entry| entry.seq);
    let next_cursor = last.or(reached).map(page::encode_number);
    let items = entries.into_iter().map(|entry| EventView::of(access.workspace, entry)).collect();
    Ok(Json(List { items, next_cursor }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_are_those_of_the_contract() {
        assert_eq!(types(None).unwrap(), None);
        let two = types(Some("message.sent, message.bounced")).unwrap().unwrap();
        assert_eq!(two, ["message.sent", "message.bounced"]);
        assert_eq!(types(Some("message.sent,nonsense")).unwrap_err().param.as_deref(), Some("types"));
    }
}
