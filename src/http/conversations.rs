//! Conversations: the messages that belong together.
//!
//! An id that was merged away keeps answering, with `merged_into`. Not here: finding what belongs together
//! (`core::threading`), and putting conversations right by hand (`repairs`).

use axum::{Json, extract::State};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{Parameters, PathId},
    message_view::{MessageView, Reader},
    page::{self, Limit, List},
    problem::Problem,
};
use crate::{
    core::{
        ids::{ContactId, ConversationId, Id as _, UserId},
        message::Conversation,
    },
    store::{ConversationFilter, Page, PageKey, Session},
};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(list)).routes(routes!(show)).routes(routes!(messages))
}

#[derive(Serialize, ToSchema)]
#[schema(as = Conversation)]
pub(super) struct ConversationView {
    #[schema(value_type = String)]
    id: ConversationId,
    subject: Option<String>,
    /// The contact it is filed under.
    #[schema(value_type = Option<String>)]
    contact_id: Option<ContactId>,
    #[schema(value_type = String, format = DateTime)]
    created_at: Timestamp,
    #[schema(value_type = String, format = DateTime)]
    last_message_at: Timestamp,
    message_count: i64,
    /// The conversation that stands for this one since they were merged; everything else here is that one's.
    #[schema(value_type = Option<String>)]
    merged_into: Option<ConversationId>,
    /// A conversation that this one names but has no right to join, or that it was split from.
    #[schema(value_type = Option<String>)]
    related_to: Option<ConversationId>,
}

impl From<Conversation> for ConversationView {
    fn from(conversation: Conversation) -> Self {
        Self {
            id: conversation.id,
            subject: conversation.subject,
            contact_id: conversation.contact,
            created_at: conversation.created_at,
            last_message_at: conversation.last_message_at,
            message_count: conversation.message_count,
            merged_into: conversation.merged_into,
            related_to: conversation.related_to,
        }
    }
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Listing {
    /// One of its messages concerns this contact.
    #[param(value_type = Option<String>)]
    contact_id: Option<ContactId>,
    /// This user wrote one of its messages, or has a copy of one.
    #[param(value_type = Option<String>)]
    user_id: Option<UserId>,
    /// Part of the subject.
    q: Option<String>,
    /// 1 to 200; 50 when left out.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    cursor: Option<String>,
}

/// List the conversations, latest message first.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/conversations", tag = "conversations",
    operation_id = "list_conversations", params(Listing), responses((status = 200, body = List<ConversationView>)))]
async fn list(
    State(api): State<Api>,
    access: Access,
    Parameters(query): Parameters<Listing>,
) -> Result<Json<List<ConversationView>>, Problem> {
    let page = page::page(query.limit, query.cursor.as_deref())?;
    let filter = ConversationFilter { contact: query.contact_id, user: query.user_id, subject: query.q };
    let mut session = access.read(&api).await?;
    let rows = match filter.subject.is_some() || filter.user.is_some() || session.hides() {
        true => {
            drop(session);
            search(&api, &access, page, filter).await?
        }
        false => session.conversations(&page, &filter).await?,
    };
    let key = |row: &Conversation| PageKey { at: row.last_message_at, id: row.id.uuid() };
    Ok(List::page(rows, query.limit, key, ConversationView::from))
}

/// Reads a list for which many conversations may have to be looked at. It runs to its end also when its caller is gone,
/// since the database does: until then it has its place.
async fn search(
    api: &Api,
    access: &Access,
    page: Page,
    filter: ConversationFilter,
) -> Result<Vec<Conversation>, Problem> {
    let place = api.searches.wait(access.workspace).await?;
    let mut session = access.read(api).await?;
    let searching = tokio::spawn(async move {
        let found = session.conversations(&page, &filter).await;
        drop((session, place));
        found
    });
    Ok(searching.await.map_err(|_| Problem::internal())??)
}

/// A conversation as callers see it: one that was merged shows what stands for it now, under its own id.
pub(super) async fn find(session: &mut Session, id: ConversationId) -> Result<Conversation, Problem> {
    let found = session.conversation(id).await?.ok_or_else(Problem::not_found)?;
    if found.merged_into.is_none() {
        return Ok(found);
    }
    let root = session.root(id).await?;
    let standing = session.conversation(root).await?.ok_or_else(Problem::not_found)?;
    Ok(Conversation { id, merged_into: Some(root), ..standing })
}

/// Show a conversation.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/conversations/{id}", tag = "conversations",
    operation_id = "get_conversation", responses((status = 200, body = ConversationView)))]
async fn show(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<ConversationId>,
) -> Result<Json<ConversationView>, Problem> {
    Ok(Json(find(&mut access.read(&api).await?, id).await?.into()))
}

#[derive(Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
struct Paging {
    /// 1 to 200; 50 when left out. A page is shorter when its messages are long.
    #[serde(default)]
    #[param(value_type = Option<u32>)]
    limit: Limit,
    cursor: Option<String>,
}

/// The messages of a conversation, newest first.
#[utoipa::path(get, path = "/v1/workspaces/{ws}/conversations/{id}/messages", tag = "conversations",
    operation_id = "list_conversation_messages", params(Paging),
    responses((status = 200, body = List<MessageView>)))]
async fn messages(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<ConversationId>,
    Parameters(query): Parameters<Paging>,
) -> Result<Json<List<MessageView>>, Problem> {
    let page = page::page(query.limit, query.cursor.as_deref())?;
    let mut session = access.read(&api).await?;
    let rows = session.conversation_messages(id, &page).await?;
    Reader::new(&api, session).page(rows, query.limit).await
}
