//! The gateway's own addresses: which exist, whose they are, and until when.
//!
//! Not here: minting them (`core::route` writes the local part, the edge draws the secret).

use jiff::Timestamp;
use uuid::Uuid;

use super::{
    Error, ReadSystem, Session, Store, Tx,
    sql::{Row, sql},
};
use crate::{
    core::{
        ids::{ConversationId, Id, RouteId, UserId},
        route::{Route, RouteTarget},
        trail::Act,
    },
    mail::Address,
};

const COLUMNS: &str =
    "workspace, id, kind, domain, local_part, user_id, conversation, participant, counterpart, expires_at";

impl Tx {
    /// # Errors
    /// `Conflict` when the address exists, in whatever workspace.
    pub async fn insert_route(&mut self, route: &Route, now: Timestamp) -> Result<(), Error> {
        let (local, domain) = parts(&route.address);
        let key = |address: &Address| address.key().to_owned();
        let (kind, user, bound) = match &route.target {
            // Asking why is no address of its own.
            RouteTarget::Capture { user } | RouteTarget::Why { user } => ("capture", *user, None),
            RouteTarget::Reply { conversation, participant, user, counterpart } => {
                ("reply", *user, Some((*conversation, key(participant), counterpart.as_ref().map(key))))
            }
        };
        let (conversation, participant, counterpart) = match bound {
            Some((conversation, participant, counterpart)) => {
                (Some(conversation), Some(participant), counterpart)
            }
            None => (None, None, None),
        };
        let query =
            sql("insert into routes (workspace, id, kind, domain, local_part, user_id, conversation, \
             participant, counterpart, created_at, expires_at) \
             values ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)")
            .bind(self.workspace())
            .bind(route.id)
            .bind(kind)
            .bind(domain)
            .bind(local)
            .bind(user)
            .bind(conversation)
            .bind(participant)
            .bind(counterpart)
            .bind(now)
            .bind(route.expires_at);
        self.execute(query).await?;
        Ok(())
    }

    /// Ends the capture addresses of a user but this one; none of them later than it would by itself.
    pub async fn end_capture_routes(
        &mut self,
        user: UserId,
        but: RouteId,
        at: Timestamp,
    ) -> Result<(), Error> {
        let query =
            sql("update routes set expires_at = $4 where workspace = $1 and user_id = $2 and id <> $3 \
             and kind = 'capture' and (expires_at is null or expires_at > $4)")
            .bind(self.workspace())
            .bind(user)
            .bind(but)
            .bind(at);
        self.execute(query).await?;
        self.on_commit(Store::forget_routes);
        self.note_act(Act::CaptureAddressRotated, user).await
    }
}

impl Session {
    /// The capture address a user is shown: the newest without an end.
    pub async fn capture_route(&mut self, user: UserId) -> Result<Option<Route>, Error> {
        let query = sql(format!(
            "select {COLUMNS} from routes where workspace = $1 and user_id = $2 and kind = 'capture' \
             and expires_at is null order by created_at desc, id desc limit 1"
        ))
        .bind(self.workspace())
        .bind(user);
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }

    /// The address at which a participant answers a user in a conversation, which may have been merged since. Where the
    /// participant is the user himself, `counterpart` is whom he answers.
    pub async fn reply_route(
        &mut self,
        conversation: ConversationId,
        (participant, counterpart): (&Address, Option<&Address>),
        user: UserId,
    ) -> Result<Option<Route>, Error> {
        // The one that lives longest, then the oldest: two that a merge brought together must not take turns.
        let query = sql(format!(
            "select {COLUMNS} from routes where workspace = $1 and participant = $3 and user_id = $4 \
             and coalesce(counterpart, '') = $5 \
             and conversation = coalesce((select merged_into from conversations where workspace = $1 and id = $2), $2) \
             order by coalesce(expires_at, 0) desc, created_at, id limit 1"
        ))
        .bind(self.workspace())
        .bind(conversation)
        .bind(participant.key())
        .bind(user)
        .bind(counterpart.map_or("", Address::key));
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }
}

impl Session {
    /// Reply addresses in the order of their ids, some at a time.
    ///
    /// # Errors
    /// When the database is out of reach.
    pub async fn reply_routes(&mut self, after: Option<RouteId>) -> Result<Vec<Route>, Error> {
        const PAGE: u32 = 500;
        let query = sql(format!(
            "select {COLUMNS} from routes where workspace = $1 and kind = 'reply' and id > $2 order by id limit {PAGE}"
        ))
        .bind(self.workspace())
        .bind(after.map_or(Uuid::nil(), Id::uuid));
        self.fetch_all(query).await?.iter().map(read).collect()
    }
}

impl ReadSystem {
    /// The live route of an address, whatever the workspace.
    pub async fn route(&mut self, address: &Address, now: Timestamp) -> Result<Option<Route>, Error> {
        let (local, domain) = parts(address);
        let query = sql(format!(
            "select {COLUMNS} from routes where domain = $1 and local_part = $2 \
             and (expires_at is null or expires_at > $3)"
        ))
        .bind(domain)
        .bind(local)
        .bind(now);
        self.fetch_optional(query).await?.map(|row| read(&row)).transpose()
    }
}

/// Both halves of an address as they are stored: in lower case, the local part quoted where it must be.
pub(super) fn parts(address: &Address) -> (&str, &str) {
    address.key().rsplit_once('@').unwrap_or((address.key(), ""))
}

/// The address in the columns `local_part` and `domain`.
pub(super) fn read_address(row: &Row) -> Result<Address, Error> {
    let (local, domain): (String, String) = (row.get("local_part")?, row.get("domain")?);
    Address::from_parts(&local, &domain).map_err(|_| Error::Corrupt("routes: not an address".into()))
}

fn read(row: &Row) -> Result<Route, Error> {
    let gap = || Error::Corrupt("routes: a target is missing".into());
    let target = match row.get::<String>("kind")?.as_str() {
        "capture" => RouteTarget::Capture { user: row.opt_id("user_id")?.ok_or_else(gap)? },
        "reply" => RouteTarget::Reply {
            conversation: row.opt_id("conversation")?.ok_or_else(gap)?,
            participant: row.opt_address("participant")?.ok_or_else(gap)?,
            user: row.opt_id("user_id")?.ok_or_else(gap)?,
            counterpart: row.opt_address("counterpart")?,
        },
        _ => return Err(Error::Corrupt("routes: an unknown kind".into())),
    };
    Ok(Route {
        id: row.id("id")?,
        workspace: row.id("workspace")?,
        address: read_address(row)?,
        target,
        expires_at: row.get("expires_at")?,
    })
}
