-- The ground: tenant-composite keys, one message stored once, sightings, conversations, jobs, the journal.
-- The SQLite twin beside this file has the same tables and the same names; a test compares them.
-- Ids are uuids, times are microseconds since 1970 UTC, JSON is text.

create table workspaces (
    id          uuid not null primary key,
    slug        text not null constraint workspaces_slug_unique unique,
    name        text not null,
    timezone    text not null,
    preset      text not null,
    -- Settings that differ from the preset's, as JSON.
    overrides   text not null default '{}',
    -- The number of the newest event: the journal is gap-free because this row serialises it.
    event_seq   bigint not null default 0,
    -- Raised by every change of policy; decisions name the version that applied.
    policy_version bigint not null default 1,
    -- The place of the newest row of the trail, which this row serialises as well.
    trail_seq   bigint not null default 0,
    -- Set when it is to be erased: from then on there is no such workspace.
    erasing_at  bigint,
    created_at  bigint not null
);

-- One row, sealed with the master key: opening the store with another key is noticed at once.
create table vault (
    id          bigint not null primary key,
    proof       bytea not null
);

-- Keys of the gateway itself, wrapped by the master key: what marks its mail, and what proves its reply addresses.
create table gateway_keys (
    purpose     text not null,
    -- From 1 to 255, and round again.
    id          bigint not null,
    wrapped     bytea not null,
    created_at  bigint not null,
    primary key (purpose, id)
);

-- Sealing keys, wrapped by the master key. Destroying a row makes what it sealed unreadable for ever.
create table content_keys (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    account     uuid,
    wrapped     bytea not null,
    created_at  bigint not null,
    primary key (workspace, id)
);
-- One key an account, and one of the workspace itself.
create unique index content_keys_owner on content_keys (workspace, coalesce(account, '00000000-0000-0000-0000-000000000000'));

create table users (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    email       text not null,
    name        text,
    role        text not null,
    -- The user's own preset, when he has one, and his settings that differ from the workspace's.
    preset      text,
    overrides   text not null default '{}',
    created_at  bigint not null,
    primary key (workspace, id)
);
create index users_recent on users (workspace, created_at, id);

-- Every address of a user, the primary one included, in lower case.
create table user_addresses (
    workspace   uuid not null,
    address     text not null,
    user_id     uuid not null,
    -- The account with which it became his; null where somebody said that it is his.
    account     uuid,
    primary key (workspace, address),
    foreign key (workspace, user_id) references users (workspace, id) on delete cascade
);
create index user_addresses_user on user_addresses (workspace, user_id);

create table api_keys (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    name        text not null,
    secret_hash bytea not null constraint api_keys_secret_unique unique,
    scopes      text not null,
    user_id     uuid,
    created_at  bigint not null,
    last_used_at bigint,
    primary key (workspace, id),
    foreign key (workspace, user_id) references users (workspace, id) on delete cascade
);

-- Pages at which a user connects an account of his own; an address is good once.
create table connect_links (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    user_id     uuid not null,
    token_hash  bytea not null constraint connect_links_token_unique unique,
    -- The one where he is to sign in; null lets him choose.
    provider    text,
    -- The shared mailbox that he is to open by his own login, as JSON; null is his own.
    mailbox     text,
    expires_at  bigint not null,
    used_at     bigint,
    -- A sign-in from which he has not come back: hashes of its state and of his browser's cookie, and what proves that the code
    -- he brings was given to us, sealed.
    state_hash  bytea constraint connect_links_state_unique unique,
    cookie_hash bytea,
    verifier    bytea,
    key_id      uuid,
    departed_to text,
    departed_at bigint,
    primary key (workspace, id),
    foreign key (workspace, user_id) references users (workspace, id) on delete cascade
);
create index connect_links_expired on connect_links (expires_at);

create table contacts (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    email       text not null,
    name        text,
    assigned_user_id uuid,
    external_id text,
    created_by  text not null,
    metadata    text not null default '{}',
    created_at  bigint not null,
    -- When somebody last changed it; null of one that is as it was made.
    changed_at  bigint,
    primary key (workspace, id),
    constraint contacts_external_id_unique unique (workspace, external_id)
);
create index contacts_recent on contacts (workspace, created_at, id);
create index contacts_assigned on contacts (workspace, assigned_user_id, id) where assigned_user_id is not null;

create table contact_addresses (
    workspace   uuid not null,
    address     text not null,
    contact     uuid not null,
    is_primary  bigint not null,
    added_at    bigint not null,
    -- Several contacts may share an address: the first created answers for it.
    primary key (workspace, address, contact),
    foreign key (workspace, contact) references contacts (workspace, id) on delete cascade
);
create index contact_addresses_contact on contact_addresses (workspace, contact);

-- A deal's additional people. Whoever is deleted is related to nobody any more.
create table contact_relations (
    workspace   uuid not null,
    contact     uuid not null,
    related     uuid not null,
    primary key (workspace, contact, related),
    foreign key (workspace, contact) references contacts (workspace, id) on delete cascade,
    foreign key (workspace, related) references contacts (workspace, id) on delete cascade
);
create index contact_relations_related on contact_relations (workspace, related);

create table accounts (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    user_id     uuid not null,
    email       text not null,
    -- Hosts, ports and security as JSON; the credentials sealed under the account's own key.
    settings    text not null,
    credentials bytea not null,
    -- Null once the account is erased, and its key destroyed.
    key_id      uuid,
    state       text not null,
    state_since bigint not null,
    detail      text,
    advice      text,
    last_synced_at bigint,
    last_checked_at bigint,
    next_attempt_at bigint,
    progress    text,
    connected_at bigint not null,
    -- How often it was given what may be another mailbox.
    generation  bigint not null default 0,
    -- Since when nothing has gone well; null while all is.
    failing_since bigint,
    -- What its provider said when it refused the login for sending; null while it takes mail.
    sending_refused text,
    -- Until when its provider is left alone, over what, and the how-manieth time in a row.
    rests_until bigint,
    rests_over  text,
    rests       bigint not null default 0,
    -- Of an account that is to be erased: what was removed so far, as JSON.
    receipt     text,
    -- The fence: raised on each change of owner, compared by every write of the worker.
    epoch       bigint not null default 0,
    lease_owner text,
    lease_until bigint not null default 0,
    primary key (workspace, id),
    constraint accounts_email_unique unique (workspace, email),
    foreign key (workspace, user_id) references users (workspace, id),
    foreign key (workspace, key_id) references content_keys (workspace, id)
);
create index accounts_recent on accounts (workspace, connected_at, id);
-- Who is free, longest first, over all workspaces.
create index accounts_lease on accounts (lease_until, id);
create index accounts_waiting on accounts (workspace, connected_at, id) where state = 'waiting_for_quota';

-- What a user has granted at his provider: the account's login where it has no password.
create table grants (
    workspace   uuid not null,
    account     uuid not null,
    -- Access and refresh token, sealed under the account's own key.
    tokens      bytea not null,
    -- The tokens of a renewal that came back after another had taken its place; tried before the grant is given up.
    candidate   bytea,
    -- Who signed in (issuer, tenant, subject), as JSON; null where the provider does not say.
    identity    text,
    issued_at   bigint not null,
    expires_at  bigint not null,
    -- The sign-in it came of: what a renewal of another one brings is none of it.
    sign_in     uuid not null,
    -- Raised by every renewal and by whoever signs in anew.
    version     bigint not null,
    renewing_until bigint not null,
    retry_at    bigint not null,
    -- How often in a row the provider has said that the grant is gone.
    doubts      bigint not null,
    -- Since when the account's server for sending has taken none of its tokens.
    unwelcome_since bigint,
    primary key (workspace, account),
    foreign key (workspace, account) references accounts (workspace, id) on delete cascade
);

-- Grants that nothing here logs in by any more, until their providers have been told.
create table parted_grants (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    -- The refresh token, and whose and where it is, sealed under the workspace's key.
    parted      bytea not null,
    created_at  bigint not null,
    primary key (workspace, id)
);

-- Keyed hashes of all addresses with which accounts have logged in, by the account that did so last: also those of accounts and
-- users that are gone.
create table account_addresses (
    workspace   uuid not null references workspaces (id),
    hash        bytea not null,
    account     uuid not null,
    primary key (workspace, hash)
);

create table account_errors (
    workspace   uuid not null,
    account     uuid not null,
    code        text not null,
    message     text not null,
    advice      text not null,
    count       bigint not null,
    at          bigint not null,
    primary key (workspace, account, code),
    foreign key (workspace, account) references accounts (workspace, id) on delete cascade
);

create table mailboxes (
    workspace   uuid not null,
    account     uuid not null,
    name        bytea not null,
    role        text not null,
    -- Here as elsewhere the server's, and above its 32 bits the account's generation.
    uid_validity bigint not null,
    -- Every UID up to this one has been consumed; never passes an unconsumed one.
    last_uid    bigint not null,
    modseq      bigint not null default 0,
    -- Backfill works downwards from here; 0 when done.
    backfill_next_uid bigint not null default 0,
    backfill_done bigint not null default 0,
    backfill_total bigint not null default 0,
    checked_at  bigint not null,
    -- When what the server has was last compared with what was taken note of, and how many messages that were; how many
    -- in all had been passed over and were taken in by it.
    compared_at bigint,
    compared    bigint not null default 0,
    healed      bigint not null default 0,
    primary key (workspace, account, name),
    foreign key (workspace, account) references accounts (workspace, id) on delete cascade
);

-- Addresses of ours that mail can be sent to: capture addresses and reply addresses.
create table routes (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    kind        text not null,
    domain      text not null,
    local_part  text not null,
    user_id     uuid,
    conversation uuid,
    -- Whose answers this reply address takes, in lower case.
    participant text,
    -- Whom they are for when the participant is the user himself, in lower case; else they are for the user.
    counterpart text,
    created_at  bigint not null,
    expires_at  bigint,
    primary key (workspace, id),
    constraint routes_address_unique unique (domain, local_part)
);
create index routes_conversation on routes (workspace, conversation, participant);
create index routes_user on routes (workspace, user_id);

-- Raw messages, compressed and sealed; `data` is null when the bytes lie in the blob store under `id`.
create table blobs (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    key_id      uuid not null,
    size        bigint not null,
    data        bytea,
    primary key (workspace, id)
);

-- What a listener has acknowledged: the 250 goes out when this row and its job are on disk.
create table inbound (
    workspace   uuid not null references workspaces (id),
    -- The message key promised in the 250.
    id          uuid not null,
    -- Envelope and bytes, hashed: the same transaction again finds this row.
    source_key  bytea not null,
    blob        uuid not null,
    -- Which door, which routes, which principal, and the envelope, as JSON.
    door        text not null,
    received_at bigint not null,
    -- pending, filed, held, dropped
    state       text not null,
    -- The message it became part of.
    message     uuid,
    primary key (workspace, id),
    constraint inbound_source_key_unique unique (workspace, source_key)
);

-- What was found of who sent a captured copy, and what followed from it: facts and what was known around them, as JSON, so that
-- it can be concluded again.
create table sender_checks (
    workspace   uuid not null,
    -- What was taken in, by the key promised in its 250, and what it became part of.
    inbound     uuid not null,
    message     uuid,
    -- Message-uuid and content together, as of messages.
    identity    bytea not null,
    -- All that a reader is shown of it, hashed; null where no copy of it in Sent is looked for.
    wording     bytea,
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
    asked       bigint not null,
    checked_at  bigint not null,
    -- When the same message was found in the author's own Sent mailbox.
    sent_copy_at bigint,
    primary key (workspace, inbound),
    foreign key (workspace, inbound) references inbound (workspace, id) on delete cascade
);
create index sender_checks_message on sender_checks (workspace, message);
create index sender_checks_identity on sender_checks (workspace, identity);
create index sender_checks_wording on sender_checks (workspace, wording);

-- Mail that was kept aside, by the key promised in its 250. Of what is settled no content is left here.
create table quarantine (
    workspace   uuid not null,
    id          uuid not null,
    -- checking, held, released, rejected, expired
    state       text not null,
    level       text,
    rule        text not null,
    reason      text not null,
    -- Whom it concerns; null where it is for the admins alone.
    user_id     uuid,
    -- Message-uuid and content together, as of messages; and a keyed hash of the Message-uuid.
    identity    bytea not null,
    id_hash     bytea,
    -- All that a reader is shown of it, hashed; null of what cannot be read.
    wording     bytea,
    -- Who says he wrote what to whom, as JSON.
    shown       text,
    received_at bigint not null,
    expires_at  bigint not null,
    -- When, and by whom or by which rule.
    settled_at  bigint,
    settled_by  text,
    is_trusted  bigint not null default 0,
    primary key (workspace, id),
    foreign key (workspace, id) references inbound (workspace, id) on delete cascade
);
create index quarantine_recent on quarantine (workspace, received_at, id);
create index quarantine_open on quarantine (workspace, user_id) where settled_at is null;
create index quarantine_wording on quarantine (workspace, wording) where settled_at is null;
create index quarantine_named on quarantine (workspace, id_hash) where settled_at is null;
create index quarantine_expires on quarantine (expires_at) where settled_at is null;

-- By which ways mail of a user's address has come, and which of them somebody has chosen to trust.
create table sender_routes (
    workspace   uuid not null references workspaces (id),
    address     text not null,
    route       text not null,
    -- By servers of the address's own domain.
    is_own      bigint not null,
    -- Null of one that was only chosen.
    first_seen_at bigint,
    pinned_until bigint,
    pinned_by   text,
    primary key (workspace, address, route)
);

create table conversations (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    subject     text,
    contact     uuid,
    created_at  bigint not null,
    last_message_at bigint not null,
    message_count bigint not null,
    merged_into uuid,
    related_to  uuid,
    primary key (workspace, id)
);
create index conversations_recent on conversations (workspace, last_message_at, id);
create index conversations_merged on conversations (workspace, merged_into);
create index conversations_contact on conversations (workspace, contact);

-- What a hand did to conversations, and what undoing it takes, as JSON.
create table conversation_repairs (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    -- The one that went on, and the one that ended or began.
    conversation uuid not null,
    other       uuid not null,
    body        text not null,
    at          bigint not null,
    undone_at   bigint,
    primary key (workspace, id)
);

-- Conversations that a hand has parted, each pair in both orders: no mail joins them again.
create table conversation_partings (
    workspace   uuid not null references workspaces (id),
    conversation uuid not null,
    other       uuid not null,
    primary key (workspace, conversation, other)
);

create table messages (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    -- Message-ID and content together: what makes a message this message.
    identity    bytea not null,
    rfc822_id   text,
    conversation uuid not null,
    direction   text not null,
    kind        text not null,
    author_role text not null,
    author_id   uuid,
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
    sent_wording bytea,
    sent_at     bigint not null,
    received_at bigint not null,
    size        bigint not null,
    blob        uuid not null,
    primary key (workspace, id),
    constraint messages_identity_unique unique (workspace, identity),
    foreign key (workspace, conversation) references conversations (workspace, id)
);
create index messages_conversation on messages (workspace, conversation, sent_at, id);
-- The conversations a user has written in.
create index messages_author on messages (workspace, author_id, conversation) where author_role = 'user';
-- Copies without a Message-ID are recognised by their content alone. There are few.
create index messages_without_id on messages (workspace, identity) where rfc822_id is null;

-- Every id a message is known by: its own, and those that a provider gave it on the wire.
create table message_ids (
    workspace   uuid not null,
    rfc822_id   text not null,
    message     uuid not null,
    primary key (workspace, rfc822_id, message),
    foreign key (workspace, message) references messages (workspace, id) on delete cascade
);
create index message_ids_message on message_ids (workspace, message);

create table message_contacts (
    workspace   uuid not null,
    contact     uuid not null,
    message     uuid not null,
    role        text not null,
    sent_at     bigint not null,
    primary key (workspace, contact, message),
    foreign key (workspace, message) references messages (workspace, id) on delete cascade,
    foreign key (workspace, contact) references contacts (workspace, id) on delete cascade
);
create index message_contacts_timeline on message_contacts (workspace, contact, sent_at, message);
create index message_contacts_message on message_contacts (workspace, message, contact);

create table sightings (
    workspace   uuid not null,
    message     uuid not null,
    -- Distinguishes sightings of one message: inbound id, or account, mailbox, UIDVALIDITY and UID, hashed.
    origin      bytea not null,
    via         text not null,
    account     uuid,
    mailbox     bytea,
    uid_validity bigint,
    uid         bigint,
    -- How a capture was addressed: {"recipient": …, "field": "bcc"|"to"|"cc"}.
    detail      text,
    at          bigint not null,
    -- Whose account or address it was.
    user_id     uuid,
    primary key (workspace, message, origin),
    foreign key (workspace, message) references messages (workspace, id) on delete cascade
);
create unique index sightings_uid on sightings (workspace, account, mailbox, uid_validity, uid) where account is not null;
-- What a user may see of his own.
create index sightings_user on sightings (workspace, user_id, message) where user_id is not null;

-- The threading index: two messages belong together when they share a key (core::threading).
create table thread_keys (
    workspace   uuid not null,
    key         bytea not null,
    conversation uuid not null,
    primary key (workspace, key)
);
create index thread_keys_conversation on thread_keys (workspace, conversation);

-- The index of subjects, where policy lets them join conversations (core::subject): of mail that is no answer without
-- references `reach` is null.
create table subject_keys (
    workspace   uuid not null,
    message     uuid not null,
    -- Keyed hash of the base subject, who wrote and to whom.
    key         bytea not null,
    -- Its own, or only one by which it looks for what it answers.
    found_by    bigint not null,
    sent_at     bigint not null,
    -- Of what it looks for: microseconds before and after within which it is joined.
    reach       bigint,
    primary key (workspace, message, key),
    foreign key (workspace, message) references messages (workspace, id) on delete cascade
);
create index subject_keys_met on subject_keys (workspace, key, sent_at);

-- The journal the CRM reads. Gap-free per workspace.
create table events (
    workspace   uuid not null references workspaces (id),
    seq         bigint not null,
    id          uuid not null,
    type        text not null,
    conversation uuid,
    message     uuid,
    created_at  bigint not null,
    data        text not null,
    primary key (workspace, seq),
    constraint events_id_unique unique (workspace, id)
);
create index events_type on events (workspace, type, seq);

create table webhooks (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    url         text not null,
    -- JSON list of types; null means all but those sent on request.
    events      text,
    secret      bytea not null,
    old_secret  bytea,
    old_secret_until bigint,
    disabled_at bigint,
    disabled_reason text,
    failing_since bigint,
    -- What the last failed post came to.
    last_failure text,
    created_at  bigint not null,
    primary key (workspace, id)
);

-- Durable work. A lane is done one job at a time, in order: only its first job can be claimed.
create table jobs (
    id          bigint generated always as identity primary key,
    workspace   uuid not null references workspaces (id),
    kind        text not null,
    lane        text,
    -- 1 for the first job of a lane, and for a job without one.
    head        bigint not null,
    body        text not null,
    run_at      bigint not null,
    -- Claims, and of them those that came to nothing outside, and those that failed here.
    attempt     bigint not null default 0,
    tries       bigint not null default 0,
    failures    bigint not null default 0,
    leased_until bigint,
    created_at  bigint not null
);
create index jobs_due on jobs (kind, run_at, id) where leased_until is null and head = 1;
create index jobs_leased on jobs (leased_until) where leased_until is not null;
create index jobs_lane on jobs (workspace, lane, id) where lane is not null;
create unique index jobs_lane_head on jobs (workspace, lane) where lane is not null and head = 1;

-- How many jobs a lane holds. Whoever adds one or takes one away locks this row first.
create table lanes (
    workspace   uuid not null references workspaces (id),
    lane        text not null,
    jobs        bigint not null,
    primary key (workspace, lane)
);

-- A message on its way out.
create table submissions (
    workspace   uuid not null,
    message     uuid not null,
    -- The user's account, or null for the workspace's smarthost.
    account     uuid,
    class       text not null,
    reverse_path text not null,
    dsn         text not null default '{}',
    -- The bytes to send, when they differ from the stored message.
    blob        uuid,
    state       text not null,
    attempt     bigint not null default 0,
    principal   text not null,
    accepted_at bigint not null,
    next_attempt_at bigint,
    dot_intent_at bigint,
    detail      text,
    -- none, wanted, queued (a job looks after it), filed (by the provider), appended
    sent_copy   text not null default 'none',
    primary key (workspace, message),
    foreign key (workspace, message) references messages (workspace, id) on delete cascade
);
create index submissions_state on submissions (workspace, state, accepted_at);
create index submissions_account on submissions (workspace, account, accepted_at);

create table submission_recipients (
    workspace   uuid not null,
    message     uuid not null,
    address     text not null,
    notify      text not null default '"default"',
    original    text,
    -- named, bcc, copy: what policy adds is told of apart.
    role        text not null default 'named',
    state       text not null,
    code        bigint,
    status      text,
    text        text,
    -- Final dots whose answer was lost.
    doubts      bigint not null default 0,
    -- What a held recipient waits for: way_out, doubt, poison.
    held_for    text,
    primary key (workspace, message, address),
    foreign key (workspace, message) references submissions (workspace, message) on delete cascade
);

create table smarthosts (
    workspace   uuid not null primary key references workspaces (id),
    settings    text not null,
    credentials bytea not null,
    key_id      uuid not null,
    updated_at  bigint not null
);

-- Why each message seen was taken or left. Skipped mail leaves keyed hashes only.
create table decisions (
    workspace   uuid not null references workspaces (id),
    id          uuid not null,
    at          bigint not null,
    verdict     text not null,
    rule        text not null,
    reason      text not null,
    preset      text not null,
    policy_version bigint not null,
    via         text not null,
    message     uuid,
    account     uuid,
    mailbox     bytea,
    uid_validity bigint,
    uid         bigint,
    -- Whose account or address the mail came to, or who handed it in.
    user_id     uuid,
    -- When the mail was written: it may be decided on much later.
    written_at  bigint,
    primary key (workspace, id)
);
create index decisions_recent on decisions (workspace, at, id);
create index decisions_verdict on decisions (workspace, verdict, at, id);
create index decisions_account on decisions (workspace, account, at, id);
create index decisions_message on decisions (workspace, message);
create index decisions_deferred on decisions (workspace, account, at, id) where verdict = 'deferred';
create unique index decisions_uid on decisions (workspace, account, mailbox, uid_validity, uid) where account is not null;

create table decision_hashes (
    workspace   uuid not null,
    -- Keyed hash of a Message-ID the mail has or names, or of an address in it.
    hash        bytea not null,
    decision    uuid not null,
    -- id, reference, author, address
    role        text not null,
    primary key (workspace, hash, decision),
    foreign key (workspace, decision) references decisions (workspace, id) on delete cascade
);
create index decision_hashes_decision on decision_hashes (workspace, decision);

create table idempotency_keys (
    workspace   uuid not null references workspaces (id),
    route       text not null,
    key         text not null,
    request_hash bytea not null,
    status      bigint not null,
    body        text not null,
    created_at  bigint not null,
    primary key (workspace, route, key)
);
-- A request that makes a workspace is looked for before there is one.
create index idempotency_keys_request on idempotency_keys (route, key);
create index idempotency_keys_age on idempotency_keys (created_at);

-- The CRM's own keys for what it hands in over SMTP: one key is one order, in however many parts it comes.
create table order_keys (
    workspace   uuid not null references workspaces (id),
    -- The key, hashed with who uses it.
    name        bytea not null,
    -- What is said under it, hashed.
    content     bytea not null,
    -- What it became, once that is filed.
    message     uuid,
    created_at  bigint not null,
    primary key (workspace, name)
);
create index order_keys_created on order_keys (created_at);

-- Who did what to keys, roles, policies, limits, accounts and mail kept aside: by ids alone, each row chained to the one before.
create table trail (
    workspace   uuid not null references workspaces (id),
    seq         bigint not null,
    at          bigint not null,
    actor       text not null,
    act         text not null,
    -- A key, user, account, message or the workspace itself, by what the act is; it may be gone.
    subject     uuid not null,
    hash        bytea not null,
    primary key (workspace, seq)
);
create index trail_subject on trail (workspace, subject);

-- What an admin allows the workspace or a user, as JSON.
create table limits (
    workspace   uuid not null references workspaces (id),
    -- The workspace itself, or a user of it.
    subject     uuid not null,
    body        text not null,
    primary key (workspace, subject)
);

-- What a user sent and what his accounts brought, counted by quarters of an hour in the transaction of the fact itself.
create table usage_counts (
    workspace   uuid not null references workspaces (id),
    user_id     uuid not null,
    -- synced, sent_messages, sent_recipients, answers
    counted     text not null,
    slot        bigint not null,
    used        bigint not null,
    primary key (workspace, user_id, counted, slot)
);
create index usage_counts_slot on usage_counts (slot);

-- Limits that the CRM was told of as nearly or wholly used, until they are found to have room again.
create table quota_levels (
    workspace   uuid not null references workspaces (id),
    subject     uuid not null,
    quota       text not null,
    level       text not null,
    check_at    bigint not null,
    primary key (workspace, subject, quota)
);
create index quota_levels_check on quota_levels (check_at);

-- Until when an account's provider takes no more of its mail, by its own word.
create table send_rests (
    workspace   uuid not null,
    account     uuid not null,
    until       bigint not null,
    primary key (workspace, account),
    foreign key (workspace, account) references accounts (workspace, id) on delete cascade
);

-- What has left by an account, by slots of seconds: its provider allows so much in a window.
create table account_sent (
    workspace   uuid not null,
    account     uuid not null,
    slot        bigint not null,
    messages    bigint not null,
    recipients  bigint not null,
    primary key (workspace, account, slot),
    foreign key (workspace, account) references accounts (workspace, id) on delete cascade
);

-- What has gone over IMAP for an account, by slots of minutes, where its provider allows so much in a window.
create table account_octets (
    workspace   uuid not null,
    account     uuid not null,
    slot        bigint not null,
    read        bigint not null,
    handed_over bigint not null,
    primary key (workspace, account, slot),
    foreign key (workspace, account) references accounts (workspace, id) on delete cascade
);
