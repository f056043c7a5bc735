//! A message by its id, as it is stored: its row and its bytes.
//!
//! Not here: how it is shown (`message_view`), and routes.

use axum::body::Bytes;
use uuid::Uuid;

use super::{Api, problem::Problem};
use crate::{
    core::{
        ids::{MessageKey, WorkspaceId},
        message::StoredMessage,
    },
    store::{self, InboundState, Session},
};

/// The message with this id, or the one that it turned out to be a copy of after a listener had accepted it.
pub(super) async fn find(session: &mut Session, id: MessageKey) -> Result<StoredMessage, Problem> {
    if let Some(message) = session.message(id).await? {
        return Ok(message);
    }
    let taken = session.inbound_head(id).await?.ok_or_else(Problem::not_found)?;
    // Whose it will be is not known yet: only who sees everything is told of it.
    let missing = if session.hides() { Problem::not_found() } else { unfiled(taken.state) };
    let became = taken.message.ok_or(missing)?;
    session.message(became).await?.ok_or_else(Problem::not_found)
}

/// What to say of a message that a listener has accepted and that is no part of a conversation, or not yet.
fn unfiled(state: InboundState) -> Problem {
    match state {
        InboundState::Pending | InboundState::Filed => Problem::not_found()
            .detail("The message has been accepted and is being filed.")
            .advice("Ask again in a moment, or wait for its event."),
        InboundState::Held | InboundState::Dropped => Problem::not_found()
            .detail("The message has been accepted and is in no conversation.")
            .advice("GET …/decisions says why."),
    }
}

/// The bytes of a blob. Nobody's connection to the database waits while they are opened.
pub(super) async fn content(api: &Api, workspace: WorkspaceId, blob: Uuid) -> Result<Bytes, store::Error> {
    let sealed = api.store().read(workspace).await?.sealed_content(blob).await?;
    sealed.open().await
}
