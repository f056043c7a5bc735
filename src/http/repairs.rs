//! Conversations put right by hand: merged and split, each with the path that undoes it.
//!
//! Not here: what moves, and what becomes of mail that comes in later (`flow::repair`).

use axum::{extract::State, response::Response};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    Api,
    access::Access,
    body::{Input, Nothing, PathId},
    conversations::{self, ConversationView},
    field,
    once::{Answer, Stop, Work},
    problem::Problem,
};
use crate::{
    core::ids::{ConversationId, MessageKey, RepairId},
    flow::{
        self,
        repair::{self, Refusal, Repaired, SPLIT_MAX},
    },
};

pub(super) fn router() -> OpenApiRouter<Api> {
    OpenApiRouter::new().routes(routes!(merge)).routes(routes!(split)).routes(routes!(undo))
}

#[derive(Serialize, ToSchema)]
#[schema(as = RepairedConversation)]
struct RepairedView {
    #[serde(flatten)]
    conversation: ConversationView,
    /// A POST to this path makes it as it was.
    #[schema(example = "/v1/workspaces/ws_…/repairs/rep_…/undo")]
    undo: String,
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Merging {
    /// The other conversation.
    #[schema(value_type = String)]
    conversation_id: ConversationId,
}

/// Merge another conversation with this one. The elder of the two stands; the other's id goes on answering, and mail for
/// either arrives there.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/conversations/{id}/merge", tag = "conversations",
    operation_id = "merge_conversations", request_body = Merging, responses((status = 200, body = RepairedView)))]
async fn merge(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<ConversationId>,
    input: Input<Merging>,
) -> Result<Response, Stop> {
    let mut session = access.read(&api).await?;
    session.conversation(id).await?.ok_or_else(Problem::not_found)?;
    let other = input.value.conversation_id;
    let missing = || Problem::invalid("conversation_id", "There is no such conversation in this workspace.");
    session.conversation(other).await?.ok_or_else(missing)?;
    drop(session);
    let mut work = input.stamp.begin(&api, &access).await?;
    let repaired = repair::merge(&mut work, id, other, flow::now()).await?.map_err(refused)?;
    let view = view(&mut work, &access, repaired).await?;
    work.finish(Answer::ok(&view)).await
}

#[derive(Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
struct Splitting {
    /// At most 200, and not all of the conversation.
    #[schema(value_type = Vec<String>)]
    message_ids: Vec<MessageKey>,
}

/// Put messages of a conversation into a new one. Answers to them arrive there, answers to the others stay; no mail joins the
/// two again.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/conversations/{id}/split", tag = "conversations",
    operation_id = "split_conversation", request_body = Splitting, responses((status = 201, body = RepairedView)))]
async fn split(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<ConversationId>,
    input: Input<Splitting>,
) -> Result<Response, Stop> {
    let asked = input.value.message_ids;
    field::at_most("message_ids", &asked, SPLIT_MAX)?;
    access.read(&api).await?.conversation(id).await?.ok_or_else(Problem::not_found)?;
    // The same request again is answered as it was, whatever has changed since.
    input.stamp.require_new(&api, &access).await?;
    let messages = distinct(&asked);
    let leaving = repair::read_leaving(api.store(), access.workspace, &messages).await?;
    if leaving.len() < messages.len() || messages.is_empty() {
        return Err(no_such_message(&api, &access, &asked).await?.into());
    }
    let mut work = input.stamp.begin(&api, &access).await?;
    let split = repair::split(&mut work, id, &leaving, flow::now()).await?;
    let at_fault = |refusal| match refusal {
        // Told by its place in the list that was sent.
        Refusal::NotInIt(place) => {
            let stray = messages.get(place);
            refused(Refusal::NotInIt(asked.iter().position(|id| Some(id) == stray).unwrap_or(place)))
        }
        other => refused(other),
    };
    let view = view(&mut work, &access, split.map_err(at_fault)?).await?;
    work.finish(Answer::created(&view)).await
}

/// Each once, in the order in which they were named.
fn distinct(asked: &[MessageKey]) -> Vec<MessageKey> {
    let mut messages: Vec<MessageKey> = Vec::with_capacity(asked.len());
    for id in asked {
        if !messages.contains(id) {
            messages.push(*id);
        }
    }
    messages
}

async fn no_such_message(api: &Api, access: &Access, asked: &[MessageKey]) -> Result<Problem, Problem> {
    let homes = access.read(api).await?.conversations_of(asked).await?;
    let place = asked.iter().position(|id| !homes.contains_key(id));
    Ok(place.map_or_else(
        || Problem::invalid("message_ids", "It names no message."),
        |place| refused(Refusal::NotInIt(place)),
    ))
}

/// Undo a merge or a split. After a merge the answer is the conversation that stands for itself again, with its messages and
/// the answers to them that have come in since; after a split the one that the messages return to.
#[utoipa::path(post, path = "/v1/workspaces/{ws}/repairs/{id}/undo", tag = "conversations",
    operation_id = "undo_repair", responses((status = 200, body = ConversationView)))]
async fn undo(
    State(api): State<Api>,
    access: Access,
    PathId(id): PathId<RepairId>,
    input: Input<Nothing>,
) -> Result<Response, Stop> {
    input.stamp.require_new(&api, &access).await?;
    let leaving = repair::read_undoing(api.store(), access.workspace, id).await?;
    let mut work = input.stamp.begin(&api, &access).await?;
    let stands = repair::undo(&mut work, id, &leaving, flow::now()).await?.map_err(refused)?;
    let conversation = conversations::find(&mut work, stands).await?;
    work.finish(Answer::ok(&ConversationView::from(conversation))).await
}

async fn view(work: &mut Work, access: &Access, repaired: Repaired) -> Result<RepairedView, Problem> {
    let conversation = conversations::find(work, repaired.conversation).await?.into();
    let undo = format!("/v1/workspaces/{}/repairs/{}/undo", access.workspace, repaired.undo);
    Ok(RepairedView { conversation, undo })
}

fn refused(refusal: Refusal) -> Problem {
    match refusal {
        Refusal::AlreadyOne => {
            let advice = "Nothing is to be done.";
            Problem::conflict("already_one", "The two are one conversation already.", advice)
                .at("conversation_id")
        }
        Refusal::TooMany => {
            let advice = "Merge smaller conversations.";
            Problem::conflict("too_many_messages", "More messages would move than can be moved back.", advice)
        }
        Refusal::NotInIt(place) => {
            Problem::invalid(format!("message_ids[{place}]"), "The conversation has no such message.")
        }
        Refusal::NothingStays => {
            let problem = Problem::invalid("message_ids", "These are all messages of the conversation.");
            problem.advice("Leave at least one where it is.")
        }
        Refusal::Undone => {
            Problem::conflict("already_undone", "It has been undone.", "Nothing is to be done.")
        }
    }
}
