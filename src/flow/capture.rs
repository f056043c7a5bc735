//! The MX listener's answers: who is taken at RCPT, and the 250 once the message is on disk (docs/flows.md, "Capture").
//!
//! Not here: reading the message. Between the final dot and the 250 there is no DNS and no parsing beyond the header.

use bytes::Bytes;
use jiff::Timestamp;

use super::Gateway;
use crate::{
    core::{
        ids::{MessageKey, WorkspaceId},
        inbound::{Door, Intake, fingerprint},
        route::{Route, RouteTarget, asked_at},
    },
    mail::{Address, Envelope, HeaderBlock, Recipient, ReversePath, loop_mark},
    smtp::{self, AuthOutcome, Credentials, Reply, SessionInfo},
    store::{self, mint},
};

/// Answers one connection to the MX listener.
pub struct MxHandler {
    gateway: Gateway,
    /// The routes of the recipients accepted so far.
    routes: Vec<Route>,
    /// As MAIL FROM said.
    reverse_path: ReversePath,
}

impl MxHandler {
    #[must_use]
    pub fn new(gateway: Gateway) -> Self {
        Self { gateway, routes: Vec::new(), reverse_path: ReversePath::Null }
    }

    /// The live route of an address: one that was made, or a capture address at which its owner asks why.
    async fn route(&self, address: &Address) -> Result<Option<Route>, store::Error> {
        let now = super::now();
        let found = self.gateway.live_route(address, now).await?;
        let Some(capture) = asked_at(address).filter(|_| found.is_none()) else { return Ok(found) };
        let owner = self.gateway.live_route(&capture, now).await?;
        Ok(owner.and_then(|route| match route.target {
            RouteTarget::Capture { user } => {
                Some(Route { address: address.clone(), target: RouteTarget::Why { user }, ..route })
            }
            _ => None,
        }))
    }

    /// Whether what comes from here would likely be kept aside where no more can be: MAIL FROM is nobody from whom mail is
    /// expected at this address. Taken in, it would push out what waits there for a decision; refused for now, it stays with
    /// its sender until there is room.
    async fn is_without_room(&self, info: &SessionInfo, route: &Route) -> Result<bool, store::Error> {
        let ReversePath::Address(sender) = &self.reverse_path else { return Ok(false) };
        let (user, participant) = match &route.target {
            RouteTarget::Capture { user } => (*user, None),
            RouteTarget::Reply { user, participant, .. } => (*user, Some(participant)),
            // Questions are answered or dropped.
            RouteTarget::Why { .. } => return Ok(false),
        };
        if self.gateway.settings.trusts(info.peer.ip()) || participant == Some(sender) {
            return Ok(false);
        }
        let mut session = self.gateway.store.read(route.workspace).await?;
        if !session.is_quarantine_full(user).await? {
            return Ok(false);
        }
        let (users, contacts) = session.people_among(std::slice::from_ref(sender)).await?;
        Ok(users.is_empty() && (participant.is_none() || contacts.is_empty()))
    }

    /// Takes a recipient whose address this is.
    async fn take_recipient(&mut self, info: &SessionInfo, route: Route) -> Result<Reply, store::Error> {
        if self.is_without_room(info, &route).await? {
            return Ok(quarantine_full());
        }
        self.routes.push(route);
        Ok(Reply::recipient_ok())
    }

    /// Stores the message once for each workspace it is for; all or the sender keeps it.
    async fn take_in(
        &self,
        info: &SessionInfo,
        envelope: &Envelope,
        message: &Bytes,
    ) -> Result<MessageKey, store::Error> {
        let (received_at, fingerprint) = (super::now(), fingerprint(envelope, message));
        let mut taken = None;
        for workspace in workspaces(&self.routes) {
            let key = mint();
            let raw = traced(&self.gateway, info, envelope, (key, received_at), message);
            let routes: Vec<Route> =
                self.routes.iter().filter(|route| route.workspace == workspace).cloned().collect();
            let envelope = own_part(envelope, &routes);
            let hello = info.hello.clone().unwrap_or_default();
            let door = Door::Mx { routes, envelope, peer: info.peer.ip().to_string(), hello };
            let intake = Intake { workspace, door, raw, fingerprint };
            let id = self.gateway.store.take_in(intake, key, received_at).await?.id;
            taken = taken.or(Some(id));
        }
        taken.ok_or(store::Error::Missing)
    }
}

/// Each workspace once, in the order of the recipients.
fn workspaces(routes: &[Route]) -> Vec<WorkspaceId> {
    let mut seen = Vec::new();
    for route in routes {
        if !seen.contains(&route.workspace) {
            seen.push(route.workspace);
        }
    }
    seen
}

/// The envelope as one workspace may know it: the addresses of others are theirs alone (invariant 14).
fn own_part(envelope: &Envelope, routes: &[Route]) -> Envelope {
    let is_own = |recipient: &&Recipient| routes.iter().any(|route| route.address == recipient.address);
    Envelope { recipients: envelope.recipients.iter().filter(is_own).cloned().collect(), ..envelope.clone() }
}

impl smtp::Handler for MxHandler {
    async fn mail(&mut self, _info: &SessionInfo, from: &ReversePath, _declared_size: Option<u64>) -> Reply {
        self.routes.clear();
        self.reverse_path = from.clone();
        Reply::sender_ok()
    }

    async fn rcpt(&mut self, info: &SessionInfo, to: &Recipient) -> Reply {
        match self.route(&to.address).await {
            Ok(Some(route)) => {
                self.take_recipient(info, route).await.unwrap_or_else(|error| unavailable(&error))
            }
            // One answer for unknown, expired and malformed: nothing is learned by guessing.
            Ok(None) => Reply::no_such_recipient(),
            Err(error) => unavailable(&error),
        }
    }

    async fn message(&mut self, info: &SessionInfo, envelope: Envelope, message: Bytes) -> Reply {
        if loop_mark::is_ours(&HeaderBlock::scan(&message), &self.gateway.settings.loop_key) {
            return Reply::mail_loop();
        }
        let outcome = self.take_in(info, &envelope, &message).await;
        self.routes.clear();
        match outcome {
            Ok(id) => accepted(id),
            Err(error) => unavailable(&error),
        }
    }

    async fn authenticate(&mut self, _info: &SessionInfo, _credentials: Credentials) -> AuthOutcome {
        AuthOutcome::Refused
    }

    fn reset(&mut self) {
        self.routes.clear();
    }
}

/// The message with our trace field in front.
fn traced(
    gateway: &Gateway,
    info: &SessionInfo,
    envelope: &Envelope,
    (key, now): (MessageKey, Timestamp),
    message: &Bytes,
) -> Bytes {
    let field =
        smtp::received_field(info, envelope.smtputf8, &gateway.settings.hostname, &key.to_string(), now);
    [field.as_bytes(), message].concat().into()
}

/// 250, with the id by which the message can be asked for.
pub(super) fn accepted(id: MessageKey) -> Reply {
    Reply::new(250, [2, 0, 0], format!("Taken, {id}"))
}

/// 452 4.2.2: as a mailbox that is full.
fn quarantine_full() -> Reply {
    Reply::new(452, [4, 2, 2], "Too much mail waits for a decision here, try again later")
}

/// Our fault: the peer keeps the message and comes back.
pub(super) fn unavailable(error: &store::Error) -> Reply {
    tracing::warn!(error = %error, "the store did not take a message; the sender was asked to try again");
    match error {
        store::Error::Full => Reply::no_room(),
        _ => Reply::local_error(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_workspace_learns_no_capture_address_of_another() {
        let address = |text: &str| Address::parse(text).unwrap();
        let recipients = ["ann-1@bcc.example", "eve-2@bcc.example"].map(|to| Recipient::new(address(to)));
        let reverse_path = ReversePath::Address(address("ann@acme.example"));
        let envelope = Envelope { recipients: recipients.to_vec(), ..Envelope::new(reverse_path) };
        let route = Route {
            id: mint(),
            workspace: mint(),
            address: address("Ann-1@bcc.example"),
            target: RouteTarget::Capture { user: mint() },
            expires_at: None,
        };
        let own = own_part(&envelope, &[route]);
        assert_eq!((own.recipients.as_slice(), own.reverse_path), (&recipients[..1], envelope.reverse_path));
    }
}
