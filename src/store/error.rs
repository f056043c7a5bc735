//! What can go wrong in the store, by what the caller does next.
//!
//! Not here: refusing mail or requests. The doors turn these into 4yz replies and HTTP statuses.

/// Why a verb of the store did not do what it says. After one, the transaction takes no more statements.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// Another row holds this place. `what` is the constraint's name.
    #[error("{what} is violated")]
    Conflict { what: &'static str },
    /// What was asked for, or what a new row refers to, is not there.
    #[error("there is no such thing")]
    Missing,
    /// Somebody else owns this by now: undo everything, touch nothing.
    #[error("another owner has taken over")]
    Fenced,
    /// Try again later.
    #[error("the database cannot do this now")]
    Unavailable(#[source] sqlx::Error),
    /// Stored data cannot be read, or the database refuses this data. Trying again does not help.
    #[error("data is unreadable, or refused: {0}")]
    Corrupt(String),
    /// No space is left: accept nothing more until there is.
    #[error("the disk is full")]
    Full,
    /// The disk failed, and what it still holds is unknown: accept nothing more and stop.
    #[error("the disk failed")]
    Failed,
}

/// Why a store could not be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    #[error("the store's url is neither sqlite:// with a path nor postgres://: {0}")]
    Url(String),
    #[error("another process has the store open ({0})")]
    InUse(std::path::PathBuf),
    #[error("cannot use {path}")]
    Path {
        path: std::path::PathBuf,
        #[source]
        source: std::io::Error,
    },
    #[error(
        "the store was written by a newer release (it has migration {0}): upgrade, or restore a backup made before"
    )]
    Newer(i64),
    /// Only where the tables are not to be touched.
    #[error(
        "the store's tables are those of an earlier release (migration {0}): `mailweave serve` of this release brings them up to date, so make a backup first"
    )]
    Older(i64),
    #[error("migration {0} differs from the one the store was made with")]
    Altered(i64),
    #[error("the store cannot be opened")]
    Database(#[source] sqlx::Error),
    #[error("the store's tables cannot be brought up to date")]
    Migrate(#[source] sqlx::migrate::MigrateError),
    #[error("the store is sealed under another master key")]
    MasterKey,
}

impl Error {
    /// Whether the data is at fault and not the moment. A conflict, or something missing, may still be a race: one such
    /// failure says little, several in a row say enough.
    #[must_use]
    pub fn is_lasting(&self) -> bool {
        matches!(self, Self::Corrupt(_) | Self::Missing | Self::Conflict { .. })
    }

    /// An error that tells several callers of the one that struck them all.
    pub(super) fn again(&self) -> Self {
        match self {
            Self::Conflict { what } => Self::Conflict { what },
            Self::Missing => Self::Missing,
            Self::Fenced => Self::Fenced,
            Self::Corrupt(what) => Self::Corrupt(what.clone()),
            Self::Full => Self::Full,
            Self::Failed => Self::Failed,
            Self::Unavailable(source) => Self::Unavailable(sqlx::Error::Protocol(source.to_string())),
        }
    }

    /// The statement was not even tried.
    pub(super) fn refused(why: &str) -> Self {
        Self::Unavailable(sqlx::Error::InvalidArgument(why.to_owned()))
    }

    /// Whether the disk can no longer be trusted.
    pub(super) fn is_fatal(&self) -> bool {
        matches!(self, Self::Failed)
    }
}

impl From<sqlx::Error> for Error {
    fn from(error: sqlx::Error) -> Self {
        let Some(database) = error.as_database_error() else {
            return match error {
                sqlx::Error::RowNotFound => Self::Missing,
                sqlx::Error::ColumnDecode { .. } | sqlx::Error::Decode(_) => Self::Corrupt(error.to_string()),
                other => Self::Unavailable(other),
            };
        };
        if database.is_unique_violation() {
            return Self::Conflict { what: constraint(database) };
        }
        if database.is_foreign_key_violation() {
            return Self::Missing;
        }
        if let Some(code) = database.code().filter(|code| code.starts_with("22") && code.len() == 5) {
            // Class 22, data exception: the value will be refused again, and what the server says of it may quote it.
            return Self::Corrupt(format!("the database cannot hold a value ({code})"));
        }
        let fault = match database.code() {
            Some(code) if database.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some() => {
                sqlite_fault(&code)
            }
            Some(code) => postgres_fault(&code),
            None => Fault::Passing,
        };
        match fault {
            Fault::Full => Self::Full,
            Fault::Disk => Self::Failed,
            Fault::Data => Self::Corrupt(error.to_string()),
            Fault::Passing => Self::Unavailable(error),
        }
    }
}

/// Whether SQLite could not write, but has lost nothing: SQLITE_IOERR_WRITE. A failed flush is another matter.
pub(super) fn is_failed_write(error: &sqlx::Error) -> bool {
    error.as_database_error().is_some_and(|error| {
        error.try_downcast_ref::<sqlx::sqlite::SqliteError>().is_some()
            && error.code().is_some_and(|code| code == "778")
    })
}

enum Fault {
    Full,
    Disk,
    Data,
    Passing,
}

/// Result codes of SQLite, with their extensions.
fn sqlite_fault(code: &str) -> Fault {
    let code: i32 = code.parse().unwrap_or(0);
    match (code, code & 0xff) {
        // SQLITE_FULL; and SQLITE_IOERR_SHMSIZE, which is a full disk met while growing the WAL index.
        (_, 13) | (4874, _) => Fault::Full,
        // SQLITE_IOERR in all its kinds: after a failed fsync the page may be gone from memory and disk alike.
        (_, 10) => Fault::Disk,
        // SQLITE_CORRUPT and SQLITE_NOTADB; and what it refuses to store: SQLITE_TOOBIG, SQLITE_CONSTRAINT (unique and
        // foreign keys have their own errors) and SQLITE_MISMATCH.
        (_, 11 | 18 | 19 | 20 | 26) => Fault::Data,
        _ => Fault::Passing,
    }
}

/// SQLSTATE classes of PostgreSQL.
fn postgres_fault(code: &str) -> Fault {
    match code {
        "53100" => Fault::Full,
        "58030" => Fault::Disk,
        "XX001" | "XX002" => Fault::Data,
        // What it refuses to store: constraints other than unique and foreign keys, and limits of the program (a row too
        // large for an index).
        code if ["23", "54"].iter().any(|class| code.starts_with(class)) => Fault::Data,
        _ => Fault::Passing,
    }
}

/// PostgreSQL names the constraint, SQLite only its columns.
fn constraint(error: &dyn sqlx::error::DatabaseError) -> &'static str {
    let found = match error.constraint() {
        Some(name) => CONSTRAINTS.iter().find(|(known, _)| *known == name),
        None => {
            let columns = error.message().rsplit_once(": ").map_or("", |(_, columns)| columns);
            CONSTRAINTS.iter().find(|(_, known)| *known == columns)
        }
    };
    found.map_or("an unnamed constraint", |(name, _)| name)
}

/// Every unique constraint: its name, and what SQLite says in its place. A test compares this with the schema.
pub(super) const CONSTRAINTS: [(&str, &str); 64] = [
    ("account_addresses_pkey", "account_addresses.workspace, account_addresses.hash"),
    ("grants_pkey", "grants.workspace, grants.account"),
    ("account_errors_pkey", "account_errors.workspace, account_errors.account, account_errors.code"),
    ("account_octets_pkey", "account_octets.workspace, account_octets.account, account_octets.slot"),
    ("account_sent_pkey", "account_sent.workspace, account_sent.account, account_sent.slot"),
    ("accounts_email_unique", "accounts.workspace, accounts.email"),
    ("accounts_pkey", "accounts.workspace, accounts.id"),
    ("api_keys_pkey", "api_keys.workspace, api_keys.id"),
    ("api_keys_secret_unique", "api_keys.secret_hash"),
    ("blobs_pkey", "blobs.workspace, blobs.id"),
    ("connect_links_pkey", "connect_links.workspace, connect_links.id"),
    ("connect_links_state_unique", "connect_links.state_hash"),
    ("connect_links_token_unique", "connect_links.token_hash"),
    (
        "contact_addresses_pkey",
        "contact_addresses.workspace, contact_addresses.address, contact_addresses.contact",
    ),
    (
        "contact_relations_pkey",
        "contact_relations.workspace, contact_relations.contact, contact_relations.related",
    ),
    ("contacts_external_id_unique", "contacts.workspace, contacts.external_id"),
    ("contacts_pkey", "contacts.workspace, contacts.id"),
    ("content_keys_owner", "index 'content_keys_owner'"),
    ("content_keys_pkey", "content_keys.workspace, content_keys.id"),
    (
        "conversation_partings_pkey",
        "conversation_partings.workspace, conversation_partings.conversation, conversation_partings.other",
    ),
    ("conversation_repairs_pkey", "conversation_repairs.workspace, conversation_repairs.id"),
    ("conversations_pkey", "conversations.workspace, conversations.id"),
    ("decision_hashes_pkey", "decision_hashes.workspace, decision_hashes.hash, decision_hashes.decision"),
    ("decisions_pkey", "decisions.workspace, decisions.id"),
    (
        "decisions_uid",
        "decisions.workspace, decisions.account, decisions.mailbox, decisions.uid_validity, decisions.uid",
    ),
    ("events_id_unique", "events.workspace, events.id"),
    ("events_pkey", "events.workspace, events.seq"),
    ("gateway_keys_pkey", "gateway_keys.purpose, gateway_keys.id"),
    ("idempotency_keys_pkey", "idempotency_keys.workspace, idempotency_keys.route, idempotency_keys.key"),
    ("inbound_pkey", "inbound.workspace, inbound.id"),
    ("inbound_source_key_unique", "inbound.workspace, inbound.source_key"),
    ("jobs_lane_head", "jobs.workspace, jobs.lane"),
    ("jobs_pkey", "jobs.id"),
    ("lanes_pkey", "lanes.workspace, lanes.lane"),
    ("limits_pkey", "limits.workspace, limits.subject"),
    ("mailboxes_pkey", "mailboxes.workspace, mailboxes.account, mailboxes.name"),
    (
        "message_contacts_pkey",
        "message_contacts.workspace, message_contacts.contact, message_contacts.message",
    ),
    ("message_ids_pkey", "message_ids.workspace, message_ids.rfc822_id, message_ids.message"),
    ("messages_identity_unique", "messages.workspace, messages.identity"),
    ("messages_pkey", "messages.workspace, messages.id"),
    ("order_keys_pkey", "order_keys.workspace, order_keys.name"),
    ("parted_grants_pkey", "parted_grants.workspace, parted_grants.id"),
    ("quarantine_pkey", "quarantine.workspace, quarantine.id"),
    ("quota_levels_pkey", "quota_levels.workspace, quota_levels.subject, quota_levels.quota"),
    ("routes_address_unique", "routes.domain, routes.local_part"),
    ("routes_pkey", "routes.workspace, routes.id"),
    ("send_rests_pkey", "send_rests.workspace, send_rests.account"),
    ("sender_checks_pkey", "sender_checks.workspace, sender_checks.inbound"),
    ("sender_routes_pkey", "sender_routes.workspace, sender_routes.address, sender_routes.route"),
    ("sightings_pkey", "sightings.workspace, sightings.message, sightings.origin"),
    (
        "sightings_uid",
        "sightings.workspace, sightings.account, sightings.mailbox, sightings.uid_validity, sightings.uid",
    ),
    ("smarthosts_pkey", "smarthosts.workspace"),
    (
        "submission_recipients_pkey",
        "submission_recipients.workspace, submission_recipients.message, submission_recipients.address",
    ),
    ("subject_keys_pkey", "subject_keys.workspace, subject_keys.message, subject_keys.key"),
    ("submissions_pkey", "submissions.workspace, submissions.message"),
    ("thread_keys_pkey", "thread_keys.workspace, thread_keys.key"),
    ("trail_pkey", "trail.workspace, trail.seq"),
    (
        "usage_counts_pkey",
        "usage_counts.workspace, usage_counts.user_id, usage_counts.counted, usage_counts.slot",
    ),
    ("user_addresses_pkey", "user_addresses.workspace, user_addresses.address"),
    ("users_pkey", "users.workspace, users.id"),
    ("vault_pkey", "vault.id"),
    ("webhooks_pkey", "webhooks.workspace, webhooks.id"),
    ("workspaces_pkey", "workspaces.id"),
    ("workspaces_slug_unique", "workspaces.slug"),
];
