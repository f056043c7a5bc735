-- The ground: tenant-composite keys, one message stored once, sightings, conversations, jobs, the journal.
-- The PostgreSQL twin beside this file has the same tables and the same names; a test compares them.
-- Ids are 16 bytes, times are microseconds since 1970 UTC, JSON is text.

create table workspaces (
    id          blob not null primary key,
    slug        text not null constraint workspaces_slug_unique unique,
    name        text not null,
    timezone    text not null,
    preset      text not null,
    -- Settings that differ from the preset's, as JSON.
    overrides   text not null default '{}',
    -- The number of the newest event: the journal is gap-free because this row serialises it.
    event_seq   integer not null default 0,
    -- Raised by every change of policy; decisions name the version that applied.
    policy_version integer not null default 1,
    -- The place of the newest row of the trail, which this row serialises as well.
    trail_seq   integer not null default 0,
    -- Set when it is to be erased: from then on there is no such workspace.
    erasing_at  integer,
    created_at  integer not null
) strict;

-- One row, sealed with the master key: opening the store with another key is noticed at once.
create table vault (
    id          integer not null primary key,
    proof       blob not null
) strict;

-- Keys of the gateway itself, wrapped by the master key: what marks its mail, and what proves its reply addresses.
create table gateway_keys (
    purpose     text not null,
    -- From 1 to 255, and round again.
    id          integer not null,
    wrapped     blob not null,
    created_at  integer not null,
    primary key (purpose, id)
) strict;

-- Sealing keys, wrapped by the master key. Destroying a row makes what it sealed unreadable for ever.
create table content_keys (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    account     blob,
    wrapped     blob not null,
    created_at  integer not null,
    primary key (workspace, id)
) strict;
-- One key an account, and one of the workspace itself.
create unique index content_keys_owner on content_keys (workspace, ifnull(account, x''));

create table users (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    email       text not null,
    name        text,
    role        text not null,
    -- The user's own preset, when he has one, and his settings that differ from the workspace's.
    preset      text,
    overrides   text not null default '{}',
    created_at  integer not null,
    primary key (workspace, id)
) strict;
create index users_recent on users (workspace, created_at, id);

-- Every address of a user, the primary one included, in lower case.
create table user_addresses (
    workspace   blob not null,
    address     text not null,
    user_id     blob not null,
    -- The account with which it became his; null where somebody said that it is his.
    account     blob,
    primary key (workspace, address),
    foreign key (workspace, user_id) references users (workspace, id) on delete cascade
) strict;
create index user_addresses_user on user_addresses (workspace, user_id);

create table api_keys (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    name        text not null,
    secret_hash blob not null constraint api_keys_secret_unique unique,
    scopes      text not null,
    user_id     blob,
    created_at  integer not null,
    last_used_at integer,
    primary key (workspace, id),
    foreign key (workspace, user_id) references users (workspace, id) on delete cascade
) strict;

-- Pages at which a user connects an account of his own; an address is good once.
create table connect_links (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    user_id     blob not null,
    token_hash  blob not null constraint connect_links_token_unique unique,
    -- The one where he is to sign in; null lets him choose.
    provider    text,
    -- The shared mailbox that he is to open by his own login, as JSON; null is his own.
    mailbox     text,
    expires_at  integer not null,
    used_at     integer,
    -- A sign-in from which he has not come back: hashes of its state and of his browser's cookie, and what proves that the code
    -- he brings was given to us, sealed.
    state_hash  blob constraint connect_links_state_unique unique,
    cookie_hash blob,
    verifier    blob,
    key_id      blob,
    departed_to text,
    departed_at integer,
    primary key (workspace, id),
    foreign key (workspace, user_id) references users (workspace, id) on delete cascade
) strict;
create index connect_links_expired on connect_links (expires_at);

create table contacts (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    email       text not null,
    name        text,
    assigned_user_id blob,
    external_id text,
    created_by  text not null,
    metadata    text not null default '{}',
    created_at  integer not null,
    -- When somebody last changed it; null of one that is as it was made.
    changed_at  integer,
    primary key (workspace, id),
    constraint contacts_external_id_unique unique (workspace, external_id)
) strict;
create index contacts_recent on contacts (workspace, created_at, id);
create index contacts_assigned on contacts (workspace, assigned_user_id, id) where assigned_user_id is not null;

create table contact_addresses (
    workspace   blob not null,
    address     text not null,
    contact     blob not null,
    is_primary  integer not null,
    added_at    integer not null,
    -- Several contacts may share an address: the first created answers for it.
    primary key (workspace, address, contact),
    foreign key (workspace, contact) references contacts (workspace, id) on delete cascade
) strict;
create index contact_addresses_contact on contact_addresses (workspace, contact);

-- A deal's additional people. Whoever is deleted is related to nobody any more.
create table contact_relations (
    workspace   blob not null,
    contact     blob not null,
    related     blob not null,
    primary key (workspace, contact, related),
    foreign key (workspace, contact) references contacts (workspace, id) on delete cascade,
    foreign key (workspace, related) references contacts (workspace, id) on delete cascade
) strict;
create index contact_relations_related on contact_relations (workspace, related);

create table accounts (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    user_id     blob not null,
    email       text not null,
    -- Hosts, ports and security as JSON; the credentials sealed under the account's own key.
    settings    text not null,
    credentials blob not null,
    -- Null once the account is erased, and its key destroyed.
    key_id      blob,
    state       text not null,
    state_since integer not null,
    detail      text,
    advice      text,
    last_synced_at integer,
    last_checked_at integer,
    next_attempt_at integer,
    progress    text,
    connected_at integer not null,
    -- How often it was given what may be another mailbox.
    generation  integer not null default 0,
    -- Since when nothing has gone well; null while all is.
    failing_since integer,
    -- What its provider said when it refused the login for sending; null while it takes mail.
    sending_refused text,
    -- Until when its provider is left alone, over what, and the how-manieth time in a row.
    rests_until integer,
    rests_over  text,
    rests       integer not null default 0,
    -- Of an account that is to be erased: what was removed so far, as JSON.
    receipt     text,
    -- The fence: raised on each change of owner, compared by every write of the worker.
    epoch       integer not null default 0,
    lease_owner text,
    lease_until integer not null default 0,
    primary key (workspace, id),
    constraint accounts_email_unique unique (workspace, email),
    foreign key (workspace, user_id) references users (workspace, id),
    foreign key (workspace, key_id) references content_keys (workspace, id)
) strict;
create index accounts_recent on accounts (workspace, connected_at, id);
-- Who is free, longest first, over all workspaces.
create index accounts_lease on accounts (lease_until, id);
create index accounts_waiting on accounts (workspace, connected_at, id) where state = 'waiting_for_quota';

-- What a user has granted at his provider: the account's login where it has no password.
create table grants (
    workspace   blob not null,
    account     blob not null,
    -- Access and refresh token, sealed under the account's own key.
    tokens      blob not null,
    -- The tokens of a renewal that came back after another had taken its place; tried before the grant is given up.
    candidate   blob,
    -- Who signed in (issuer, tenant, subject), as JSON; null where the provider does not say.
    identity    text,
    issued_at   integer not null,
    expires_at  integer not null,
    -- The sign-in it came of: what a renewal of another one brings is none of it.
    sign_in     blob not null,
    -- Raised by every renewal and by whoever signs in anew.
    version     integer not null,
    renewing_until integer not null,
    retry_at    integer not null,
    -- How often in a row the provider has said that the grant is gone.
    doubts      integer not null,
    -- Since when the account's server for sending has taken none of its tokens.
    unwelcome_since integer,
    primary key (workspace, account),
    foreign key (workspace, account) references accounts (workspace, id) on delete cascade
) strict;

-- Grants that nothing here logs in by any more, until their providers have been told.
create table parted_grants (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    -- The refresh token, and whose and where it is, sealed under the workspace's key.
    parted      blob not null,
    created_at  integer not null,
    primary key (workspace, id)
) strict;

-- Keyed hashes of all addresses with which accounts have logged in, by the account that did so last: also those of accounts and
-- users that are gone.
create table account_addresses (
    workspace   blob not null references workspaces (id),
    hash        blob not null,
    account     blob not null,
    primary key (workspace, hash)
) strict;

create table account_errors (
    workspace   blob not null,
    account     blob not null,
    code        text not null,
    message     text not null,
    advice      text not null,
    count       integer not null,
    at          integer not null,
    primary key (workspace, account, code),
    foreign key (workspace, account) references accounts (workspace, id) on delete cascade
) strict;

create table mailboxes (
    workspace   blob not null,
    account     blob not null,
    name        blob not null,
    role        text not null,
    -- Here as elsewhere the server's, and above its 32 bits the account's generation.
    uid_validity integer not null,
    -- Every UID up to this one has been consumed; never passes an unconsumed one.
    last_uid    integer not null,
    modseq      integer not null default 0,
    -- Backfill works downwards from here; 0 when done.
    backfill_next_uid integer not null default 0,
    backfill_done integer not null default 0,
    backfill_total integer not null default 0,
    checked_at  integer not null,
    -- When what the server has was last compared with what was taken note of, and how many messages that were; how many
    -- in all had been passed over and were taken in by it.
    compared_at integer,
    compared    integer not null default 0,
    healed      integer not null default 0,
    primary key (workspace, account, name),
    foreign key (workspace, account) references accounts (workspace, id) on delete cascade
) strict;

-- Addresses of ours that mail can be sent to: capture addresses and reply addresses.
create table routes (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    kind        text not null,
    domain      text not null,
    local_part  text not null,
    user_id     blob,
    conversation blob,
    -- Whose answers this reply address takes, in lower case.
    participant text,
    -- Whom they are for when the participant is the user himself, in lower case; else they are for the user.
    counterpart text,
    created_at  integer not null,
    expires_at  integer,
    primary key (workspace, id),
    constraint routes_address_unique unique (domain, local_part)
) strict;
create index routes_conversation on routes (workspace, conversation, participant);
create index routes_user on routes (workspace, user_id);

-- Raw messages, compressed and sealed; `data` is null when the bytes lie in the blob store under `id`.
create table blobs (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    key_id      blob not null,
    size        integer not null,
    data        blob,
    primary key (workspace, id)
) strict;

-- What a listener has acknowledged: the 250 goes out when this row and its job are on disk.
create table inbound (
    workspace   blob not null references workspaces (id),
    -- The message key promised in the 250.
    id          blob not null,
    -- Envelope and bytes, hashed: the same transaction again finds this row.
    source_key  blob not null,
    blob        blob not null,
    -- Which door, which routes, which principal, and the envelope, as JSON.
    door        text not null,
    received_at integer not null,
    -- pending, filed, held, dropped
    state       text not null,
    -- The message it became part of.
    message     blob,
    primary key (workspace, id),
    constraint inbound_source_key_unique unique (workspace, source_key)
) strict;

-- What was found of who sent a captured copy, and what followed from it: facts and what was known around them, as JSON, so that
-- it can be concluded again.
create table sender_checks (
    workspace   blob not null,
    -- What was taken in, by the key promised in its 250, and what it became part of.
    inbound     blob not null,
    message     blob,
    -- Message-blob and content together, as of messages.
    identity    blob not null,
    -- All that a reader is shown of it, hashed; null where no copy of it in Sent is looked for.
    wording     blob,
    facts       text not null,
    -- Null until DNS has answered.
    context     text,
    level       text,
    rule        text,
    reason      text,
    mark        text,
    -- By which way it came.
    route       text,
    -- How often DNS was asked, and when last.
    asked       integer not null,
    checked_at  integer not null,
    -- When the same message was found in the author's own Sent mailbox.
    sent_copy_at integer,
    primary key (workspace, inbound),
    foreign key (workspace, inbound) references inbound (workspace, id) on delete cascade
) strict;
create index sender_checks_message on sender_checks (workspace, message);
create index sender_checks_identity on sender_checks (workspace, identity);
create index sender_checks_wording on sender_checks (workspace, wording);

-- Mail that was kept aside, by the key promised in its 250. Of what is settled no content is left here.
create table quarantine (
    workspace   blob not null,
    id          blob not null,
    -- checking, held, released, rejected, expired
    state       text not null,
    level       text,
    rule        text not null,
    reason      text not null,
    -- Whom it concerns; null where it is for the admins alone.
    user_id     blob,
    -- Message-blob and content together, as of messages; and a keyed hash of the Message-blob.
    identity    blob not null,
    id_hash     blob,
    -- All that a reader is shown of it, hashed; null of what cannot be read.
    wording     blob,
    -- Who says he wrote what to whom, as JSON.
    shown       text,
    received_at integer not null,
    expires_at  integer not null,
    -- When, and by whom or by which rule.
    settled_at  integer,
    settled_by  text,
    is_trusted  integer not null default 0,
    primary key (workspace, id),
    foreign key (workspace, id) references inbound (workspace, id) on delete cascade
) strict;
create index quarantine_recent on quarantine (workspace, received_at, id);
create index quarantine_open on quarantine (workspace, user_id) where settled_at is null;
create index quarantine_wording on quarantine (workspace, wording) where settled_at is null;
create index quarantine_named on quarantine (workspace, id_hash) where settled_at is null;
create index quarantine_expires on quarantine (expires_at) where settled_at is null;

-- By which ways mail of a user's address has come, and which of them somebody has chosen to trust.
create table sender_routes (
    workspace   blob not null references workspaces (id),
    address     text not null,
    route       text not null,
    -- By servers of the address's own domain.
    is_own      integer not null,
    -- Null of one that was only chosen.
    first_seen_at integer,
    pinned_until integer,
    pinned_by   text,
    primary key (workspace, address, route)
) strict;

create table conversations (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    subject     text,
    contact     blob,
    created_at  integer not null,
    last_message_at integer not null,
    message_count integer not null,
    merged_into blob,
    related_to  blob,
    primary key (workspace, id)
) strict;
create index conversations_recent on conversations (workspace, last_message_at, id);
create index conversations_merged on conversations (workspace, merged_into);
create index conversations_contact on conversations (workspace, contact);

-- What a hand did to conversations, and what undoing it takes, as JSON.
create table conversation_repairs (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    -- The one that went on, and the one that ended or began.
    conversation blob not null,
    other       blob not null,
    body        text not null,
    at          integer not null,
    undone_at   integer,
    primary key (workspace, id)
) strict;

-- Conversations that a hand has parted, each pair in both orders: no mail joins them again.
create table conversation_partings (
    workspace   blob not null references workspaces (id),
    conversation blob not null,
    other       blob not null,
    primary key (workspace, conversation, other)
) strict;

create table messages (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    -- Message-ID and content together: what makes a message this message.
    identity    blob not null,
    rfc822_id   text,
    conversation blob not null,
    direction   text not null,
    kind        text not null,
    author_role text not null,
    author_id   blob,
    author_email text,
    author_name text,
    subject     text,
    -- {from, to, cc, bcc, reply_to}; bcc is what the author's own workspace may see.
    parties     text not null,
    in_reply_to text,
    -- Attachment summaries, without content.
    attachments text not null,
    defects     text not null default '[]',
    -- {user, party, certainty, attached}: who passed it on, of mail that is filed as its original author's.
    forwarded   text,
    -- All that its author said, hashed, as it lies in his Sent mailbox or was handed in; null where neither was seen.
    sent_wording blob,
    sent_at     integer not null,
    received_at integer not null,
    size        integer not null,
    blob        blob not null,
    primary key (workspace, id),
    constraint messages_identity_unique unique (workspace, identity),
    foreign key (workspace, conversation) references conversations (workspace, id)
) strict;
create index messages_conversation on messages (workspace, conversation, sent_at, id);
-- The conversations a user has written in.
create index messages_author on messages (workspace, author_id, conversation) where author_role = 'user';
-- Copies without a Message-ID are recognised by their content alone. There are few.
create index messages_without_id on messages (workspace, identity) where rfc822_id is null;

-- Every id a message is known by: its own, and those that a provider gave it on the wire.
create table message_ids (
    workspace   blob not null,
    rfc822_id   text not null,
    message     blob not null,
    primary key (workspace, rfc822_id, message),
    foreign key (workspace, message) references messages (workspace, id) on delete cascade
) strict;
create index message_ids_message on message_ids (workspace, message);

create table message_contacts (
    workspace   blob not null,
    contact     blob not null,
    message     blob not null,
    role        text not null,
    sent_at     integer not null,
    primary key (workspace, contact, message),
    foreign key (workspace, message) references messages (workspace, id) on delete cascade,
    foreign key (workspace, contact) references contacts (workspace, id) on delete cascade
) strict;
create index message_contacts_timeline on message_contacts (workspace, contact, sent_at, message);
create index message_contacts_message on message_contacts (workspace, message, contact);

create table sightings (
    workspace   blob not null,
    message     blob not null,
    -- Distinguishes sightings of one message: inbound id, or account, mailbox, UIDVALIDITY and UID, hashed.
    origin      blob not null,
    via         text not null,
    account     blob,
    mailbox     blob,
    uid_validity integer,
    uid         integer,
    -- How a capture was addressed: {"recipient": …, "field": "bcc"|"to"|"cc"}.
    detail      text,
    at          integer not null,
    -- Whose account or address it was.
    user_id     blob,
    primary key (workspace, message, origin),
    foreign key (workspace, message) references messages (workspace, id) on delete cascade
) strict;
create unique index sightings_uid on sightings (workspace, account, mailbox, uid_validity, uid) where account is not null;
-- What a user may see of his own.
create index sightings_user on sightings (workspace, user_id, message) where user_id is not null;

-- The threading index: two messages belong together when they share a key (core::threading).
create table thread_keys (
    workspace   blob not null,
    key         blob not null,
    conversation blob not null,
    primary key (workspace, key)
) strict, without rowid;
create index thread_keys_conversation on thread_keys (workspace, conversation);

-- The index of subjects, where policy lets them join conversations (core::subject): of mail that is no answer without
-- references `reach` is null.
create table subject_keys (
    workspace   blob not null,
    message     blob not null,
    -- Keyed hash of the base subject, who wrote and to whom.
    key         blob not null,
    -- Its own, or only one by which it looks for what it answers.
    found_by    integer not null,
    sent_at     integer not null,
    -- Of what it looks for: microseconds before and after within which it is joined.
    reach       integer,
    primary key (workspace, message, key),
    foreign key (workspace, message) references messages (workspace, id) on delete cascade
) strict;
create index subject_keys_met on subject_keys (workspace, key, sent_at);

-- The journal the CRM reads. Gap-free per workspace.
create table events (
    workspace   blob not null references workspaces (id),
    seq         integer not null,
    id          blob not null,
    type        text not null,
    conversation blob,
    message     blob,
    created_at  integer not null,
    data        text not null,
    primary key (workspace, seq),
    constraint events_id_unique unique (workspace, id)
) strict;
create index events_type on events (workspace, type, seq);

create table webhooks (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    url         text not null,
    -- JSON list of types; null means all but those sent on request.
    events      text,
    secret      blob not null,
    old_secret  blob,
    old_secret_until integer,
    disabled_at integer,
    disabled_reason text,
    failing_since integer,
    -- What the last failed post came to.
    last_failure text,
    created_at  integer not null,
    primary key (workspace, id)
) strict;

-- Durable work. A lane is done one job at a time, in order: only its first job can be claimed.
create table jobs (
    id          integer primary key autoincrement,
    workspace   blob not null references workspaces (id),
    kind        text not null,
    lane        text,
    -- 1 for the first job of a lane, and for a job without one.
    head        integer not null,
    body        text not null,
    run_at      integer not null,
    -- Claims, and of them those that came to nothing outside, and those that failed here.
    attempt     integer not null default 0,
    tries       integer not null default 0,
    failures    integer not null default 0,
    leased_until integer,
    created_at  integer not null
) strict;
create index jobs_due on jobs (kind, run_at, id) where leased_until is null and head = 1;
create index jobs_leased on jobs (leased_until) where leased_until is not null;
create index jobs_lane on jobs (workspace, lane, id) where lane is not null;
create unique index jobs_lane_head on jobs (workspace, lane) where lane is not null and head = 1;

-- How many jobs a lane holds. Whoever adds one or takes one away locks this row first.
create table lanes (
    workspace   blob not null references workspaces (id),
    lane        text not null,
    jobs        integer not null,
    primary key (workspace, lane)
) strict;

-- A message on its way out.
create table submissions (
    workspace   blob not null,
    message     blob not null,
    -- The user's account, or null for the workspace's smarthost.
    account     blob,
    class       text not null,
    reverse_path text not null,
    dsn         text not null default '{}',
    -- The bytes to send, when they differ from the stored message.
    blob        blob,
    state       text not null,
    attempt     integer not null default 0,
    principal   text not null,
    accepted_at integer not null,
    next_attempt_at integer,
    dot_intent_at integer,
    detail      text,
    -- none, wanted, queued (a job looks after it), filed (by the provider), appended
    sent_copy   text not null default 'none',
    primary key (workspace, message),
    foreign key (workspace, message) references messages (workspace, id) on delete cascade
) strict;
create index submissions_state on submissions (workspace, state, accepted_at);
create index submissions_account on submissions (workspace, account, accepted_at);

create table submission_recipients (
    workspace   blob not null,
    message     blob not null,
    address     text not null,
    notify      text not null default '"default"',
    original    text,
    -- named, bcc, copy: what policy adds is told of apart.
    role        text not null default 'named',
    state       text not null,
    code        integer,
    status      text,
    text        text,
    -- Final dots whose answer was lost.
    doubts      integer not null default 0,
    -- What a held recipient waits for: way_out, doubt, poison.
    held_for    text,
    primary key (workspace, message, address),
    foreign key (workspace, message) references submissions (workspace, message) on delete cascade
) strict;

create table smarthosts (
    workspace   blob not null primary key references workspaces (id),
    settings    text not null,
    credentials blob not null,
    key_id      blob not null,
    updated_at  integer not null
) strict;

-- Why each message seen was taken or left. Skipped mail leaves keyed hashes only.
create table decisions (
    workspace   blob not null references workspaces (id),
    id          blob not null,
    at          integer not null,
    verdict     text not null,
    rule        text not null,
    reason      text not null,
    preset      text not null,
    policy_version integer not null,
    via         text not null,
    message     blob,
    account     blob,
    mailbox     blob,
    uid_validity integer,
    uid         integer,
    -- Whose account or address the mail came to, or who handed it in.
    user_id     blob,
    -- When the mail was written: it may be decided on much later.
    written_at  integer,
    primary key (workspace, id)
) strict;
create index decisions_recent on decisions (workspace, at, id);
create index decisions_verdict on decisions (workspace, verdict, at, id);
create index decisions_account on decisions (workspace, account, at, id);
create index decisions_message on decisions (workspace, message);
create index decisions_deferred on decisions (workspace, account, at, id) where verdict = 'deferred';
create unique index decisions_uid on decisions (workspace, account, mailbox, uid_validity, uid) where account is not null;

create table decision_hashes (
    workspace   blob not null,
    -- Keyed hash of a Message-ID the mail has or names, or of an address in it.
    hash        blob not null,
    decision    blob not null,
    -- id, reference, author, address
    role        text not null,
    primary key (workspace, hash, decision),
    foreign key (workspace, decision) references decisions (workspace, id) on delete cascade
) strict;
create index decision_hashes_decision on decision_hashes (workspace, decision);

create table idempotency_keys (
    workspace   blob not null references workspaces (id),
    route       text not null,
    key         text not null,
    request_hash blob not null,
    status      integer not null,
    body        text not null,
    created_at  integer not null,
    primary key (workspace, route, key)
) strict;
-- A request that makes a workspace is looked for before there is one.
create index idempotency_keys_request on idempotency_keys (route, key);
create index idempotency_keys_age on idempotency_keys (created_at);

-- The CRM's own keys for what it hands in over SMTP: one key is one order, in however many parts it comes.
create table order_keys (
    workspace   blob not null references workspaces (id),
    -- The key, hashed with who uses it.
    name        blob not null,
    -- What is said under it, hashed.
    content     blob not null,
    -- What it became, once that is filed.
    message     blob,
    created_at  integer not null,
    primary key (workspace, name)
) strict;
create index order_keys_created on order_keys (created_at);

-- Who did what to keys, roles, policies, limits, accounts and mail kept aside: by ids alone, each row chained to the one before.
create table trail (
    workspace   blob not null references workspaces (id),
    seq         integer not null,
    at          integer not null,
    actor       text not null,
    act         text not null,
    -- A key, user, account, message or the workspace itself, by what the act is; it may be gone.
    subject     blob not null,
    hash        blob not null,
    primary key (workspace, seq)
) strict;
create index trail_subject on trail (workspace, subject);

-- What an admin allows the workspace or a user, as JSON.
create table limits (
    workspace   blob not null references workspaces (id),
    -- The workspace itself, or a user of it.
    subject     blob not null,
    body        text not null,
    primary key (workspace, subject)
) strict;

-- What a user sent and what his accounts brought, counted by quarters of an hour in the transaction of the fact itself.
create table usage_counts (
    workspace   blob not null references workspaces (id),
    user_id     blob not null,
    -- synced, sent_messages, sent_recipients, answers
    counted     text not null,
    slot        integer not null,
    used        integer not null,
    primary key (workspace, user_id, counted, slot)
) strict;
create index usage_counts_slot on usage_counts (slot);

-- Limits that the CRM was told of as nearly or wholly used, until they are found to have room again.
create table quota_levels (
    workspace   blob not null references workspaces (id),
    subject     blob not null,
    quota       text not null,
    level       text not null,
    check_at    integer not null,
    primary key (workspace, subject, quota)
) strict;
create index quota_levels_check on quota_levels (check_at);

-- Until when an account's provider takes no more of its mail, by its own word.
create table send_rests (
    workspace   blob not null,
    account     blob not null,
    until       integer not null,
    primary key (workspace, account),
    foreign key (workspace, account) references accounts (workspace, id) on delete cascade
) strict;

-- What has left by an account, by slots of seconds: its provider allows so much in a window.
create table account_sent (
    workspace   blob not null,
    account     blob not null,
    slot        integer not null,
    messages    integer not null,
    recipients  integer not null,
    primary key (workspace, account, slot),
    foreign key (workspace, account) references accounts (workspace, id) on delete cascade
) strict;

-- What has gone over IMAP for an account, by slots of minutes, where its provider allows so much in a window.
create table account_octets (
    workspace   blob not null,
    account     blob not null,
    slot        integer not null,
    read        integer not null,
    handed_over integer not null,
    primary key (workspace, account, slot),
    foreign key (workspace, account) references accounts (workspace, id) on delete cascade
) strict;
