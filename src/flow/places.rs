//! What the addresses of ours that a message came to tell of it: whose copy it is, and where the address stood.
//!
//! Not here: judging and filing it (`process`).

use crate::{
    core::{
        ids::{MessageKey, UserId},
        message::{CaptureField, Sighting},
        route::{Route, RouteTarget},
    },
    mail::{Address, Message, Party},
    store::{self, Session},
};

/// Whether it came to a reply address.
pub(super) fn is_answer(routes: &[Route]) -> bool {
    routes.iter().any(|route| matches!(route.target, RouteTarget::Reply { .. }))
}

/// The user whose capture address it came to: its author, if it came to those of several. In whatever order a client names them.
///
/// # Errors
/// Those of the store.
pub(super) async fn captured_for(
    session: &mut Session,
    routes: &[Route],
    message: &Message,
) -> Result<Option<UserId>, store::Error> {
    let mut users: Vec<UserId> = routes
        .iter()
        .filter_map(|route| match route.target {
            RouteTarget::Capture { user } => Some(user),
            RouteTarget::Reply { .. } | RouteTarget::Why { .. } => None,
        })
        .collect();
    users.sort_unstable();
    users.dedup();
    if let (2.., Some(author)) = (users.len(), message.summary.author()) {
        let author = session.user_by_address(&author.address).await?.map(|user| user.id);
        if author.is_some_and(|author| users.contains(&author)) {
            return Ok(author);
        }
    }
    Ok(users.first().copied())
}

/// How a message was seen by one of them.
pub(super) fn sighting(inbound: MessageKey, route: &Route, message: &Message) -> Sighting {
    let recipient = route.address.clone();
    match route.target {
        RouteTarget::Capture { .. } | RouteTarget::Why { .. } => {
            let field = capture_field(&recipient, message);
            Sighting::Capture { inbound, recipient, field }
        }
        RouteTarget::Reply { .. } => Sighting::Reply { inbound, recipient },
    }
}

/// Where the capture address stood. A Bcc leaves no trace in the header, so absence means Bcc.
pub(super) fn capture_field(address: &Address, message: &Message) -> CaptureField {
    let names = |list: &[Party]| list.iter().any(|party| party.address == *address);
    match () {
        () if names(&message.summary.to) => CaptureField::To,
        () if names(&message.summary.cc) => CaptureField::Cc,
        () => CaptureField::Bcc,
    }
}
