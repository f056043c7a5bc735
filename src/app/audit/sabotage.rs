//! Ways to break a healthy store by a statement or a few, each with the lines of the audit that must find it.
//!
//! Not here: breaking one (`tests`).

const MOVED: &str = "update messages set conversation = (select conversation from messages where workspace = $1 \
     and rfc822_id = 'a@us.example') where workspace = $1 and rfc822_id = 'c@us.example'";
const LED_ASTRAY: &str = "update thread_keys set conversation = (select conversation from messages where workspace = $1 \
     and rfc822_id = 'a@us.example') where workspace = $1";

/// Statements, parted by a semicolon and a blank, and what they break.
pub(super) const SABOTAGES: [(&str, &[&str]); 54] = [
    (MOVED, &["keys", "threads", "counts"]),
    (LED_ASTRAY, &["keys"]),
    ("delete from thread_keys where workspace = $1", &["keys"]),
    ("update inbound set state = 'filed' where workspace = $1 and state = 'pending'", &["intake"]),
    ("update inbound set state = 'dropped', message = null where workspace = $1", &["intake"]),
    ("delete from quarantine where workspace = $1", &["quarantine"]),
    ("delete from jobs where workspace = $1 and kind = 'process'", &["waiting"]),
    ("delete from jobs where workspace = $1 and kind = 'submit'", &["submissions", "lanes"]),
    ("update submissions set state = 'sent' where workspace = $1", &["submissions"]),
    ("update submission_recipients set state = 'gone' where workspace = $1", &["submissions"]),
    ("update messages set size = size + 1 where workspace = $1", &["bytes"]),
    ("update blobs set data = x'0102' where workspace = $1 and data is not null", &["bytes"]),
    (
        "update messages set identity = randomblob(32) where workspace = $1 and rfc822_id = 'a@us.example'",
        &["identity"],
    ),
    ("update conversations set message_count = message_count + 1 where workspace = $1", &["counts"]),
    ("update conversations set merged_into = id where workspace = $1", &["home", "redirects"]),
    ("delete from sightings where workspace = $1", &["sightings"]),
    ("delete from decisions where workspace = $1", &["decisions", "intake"]),
    ("delete from message_ids where workspace = $1", &["names"]),
    ("delete from events where workspace = $1 and seq = 2", &["journal"]),
    ("update workspaces set event_seq = event_seq + 1 where id = $1", &["journal"]),
    ("update trail set actor = 'admin' where workspace = $1 and seq = 1", &["trail"]),
    ("update trail set at = at + 1 where workspace = $1 and seq = 2", &["trail"]),
    ("delete from trail where workspace = $1 and seq = 1", &["trail"]),
    (
        "delete from trail where workspace = $1 and seq = (select max(seq) from trail where workspace = $1)",
        &["trail"],
    ),
    ("update workspaces set policy_version = policy_version + 1 where id = $1", &["acts"]),
    (
        "insert into api_keys (workspace, id, name, secret_hash, scopes, created_at) \
         select id, randomblob(16), 'planted', x'07', '[\"admin\"]', 1 from workspaces where id = $1",
        &["acts"],
    ),
    ("update lanes set jobs = jobs + 1 where workspace = $1", &["lanes"]),
    ("update jobs set body = '{}' where workspace = $1", &["jobs", "waiting"]),
    (
        "insert into subject_keys select workspace, id, x'07070707070707070707070707070707', 1, sent_at, 86400000000 from messages where workspace = $1",
        &["subjects"],
    ),
    (
        "insert into routes (workspace, id, kind, domain, local_part, user_id, conversation, participant, created_at) \
         select r.workspace, randomblob(16), 'reply', 'reply.example', 'r1forged', r.user_id, c.id, 'eve@out.example', 1 \
         from routes r join conversations c on c.workspace = r.workspace where r.workspace = $1 limit 1",
        &["addresses"],
    ),
    (
        "insert into submission_recipients (workspace, message, address, state) \
         select workspace, message, 'eve@out.example', 'queued' from submissions where workspace = $1",
        &["recipients"],
    ),
    ("update submissions set principal = '{}' where workspace = $1", &["recipients"]),
    (
        "update submissions set principal = '{\"participant\":\"usr_00000000000000000000000000\"}' where workspace = $1; \
         update sightings set via = 'capture' where workspace = $1 and via = 'submission'",
        &["principals"],
    ),
    ("update sightings set via = 'account' where workspace = $1 and via = 'submission'", &["principals"]),
    ("update submission_recipients set doubts = 1 where workspace = $1", &["history"]),
    (
        "update submissions set state = 'sent', dot_intent_at = 1 where workspace = $1; \
         update submission_recipients set state = 'sent' where workspace = $1; \
         delete from jobs where workspace = $1 and kind = 'submit'; \
         update events set type = 'message.deferred', data = '{\"state\":\"deferred\"}', \
         message = (select message from submissions where workspace = $1) where workspace = $1 and seq = 1",
        &["history"],
    ),
    ("update accounts set lease_until = 7 where workspace = $1", &["leases"]),
    ("update accounts set lease_owner = 'a node', lease_until = 7 where workspace = $1", &["leases"]),
    (
        "insert into mailboxes (workspace, account, name, role, uid_validity, last_uid, checked_at) \
         select workspace, id, x'494e424f58', 'inbox', 4294967297, 1, 1 from accounts where workspace = $1",
        &["leases"],
    ),
    ("update jobs set leased_until = 7 where workspace = $1 and attempt = 0", &["leases"]),
    ("update quarantine set settled_at = 1, state = 'released' where workspace = $1", &["settled", "acts"]),
    (
        "update quarantine set settled_at = 1, settled_by = 'admin', shown = null, state = 'rejected' where workspace = $1",
        &["settled"],
    ),
    (
        "insert into sender_routes (workspace, address, route, is_own, pinned_until) \
         select id, 'ann@us.example', 'sent by us.example', 1, 7 from workspaces where id = $1",
        &["settled"],
    ),
    ("update accounts set state = 'erased' where workspace = $1", &["erased"]),
    ("delete from message_contacts where workspace = $1", &["contacts"]),
    ("update sender_checks set level = 'e4' where workspace = $1", &["senders"]),
    ("update sender_checks set rule = 'own_sent' where workspace = $1", &["senders"]),
    ("update sender_checks set facts = '{\"by\":\"unasked\"}' where workspace = $1", &["senders"]),
    ("update sender_checks set context = null where workspace = $1", &["senders"]),
    ("update sender_checks set facts = 'nothing' where workspace = $1", &["senders"]),
    (
        "insert into idempotency_keys (workspace, route, key, request_hash, status, body, created_at) \
         select id, 'POST contacts', 'k', x'00', 0, '', 1 from workspaces where id = $1",
        &["once"],
    ),
    (
        "insert into idempotency_keys (workspace, route, key, request_hash, status, body, created_at) \
         select id, 'POST keys', 'k', x'00', 201, 'sealed:AAAA', 1 from workspaces where id = $1",
        &["once"],
    ),
    (
        "insert into idempotency_keys (workspace, route, key, request_hash, status, body, created_at) \
         select id, 'POST messages', 'k', x'00', 202, '{\"id\":\"msg_00000000000000000000000000\"}', 1 \
         from workspaces where id = $1",
        &["once"],
    ),
    (
        "insert into jobs (workspace, kind, head, body, run_at, created_at) \
         select id, 'deliver', 1, '{\"job\":\"deliver\",\"webhook\":\"whk_00000000000000000000000000\",\"seq\":99999}', 1, 1 \
         from workspaces where id = $1",
        &["jobs"],
    ),
];
