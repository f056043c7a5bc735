//! The rules of an audit that SQL alone can check, each as a statement that returns what breaks it.
//!
//! Not here: asking them (`store::audit`).

/// How the `id` column of a rule's statement is shown.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Shown {
    Conversation,
    Message,
    User,
    Account,
    Contact,
    Key,
    Workspace,
    /// A text of ours that holds ids alone.
    Text,
    Blob,
}

/// A rule that one statement can check.
#[derive(Debug)]
pub struct Rule {
    pub name: &'static str,
    /// The rule as a sentence.
    pub says: &'static str,
    pub(super) shown: Shown,
    /// Returns the `id` of every row that breaks it in workspace `$1`. [`COUNTED_SINCE`] stands for the moment since which
    /// everything that was counted is still there, in microseconds.
    pub(super) text: &'static str,
}

/// See [`Rule::text`].
pub(super) const COUNTED_SINCE: &str = ":counted_since";

/// Every rule that SQL alone can check. Several may have one name: then they are one rule, looked at from several sides.
pub const RULES: &[Rule] = &[
    Rule {
        name: "intake",
        says: "every message taken in is filed, held, left out, or waits with its job",
        shown: Shown::Message,
        text: "select i.id from inbound i where i.workspace = $1 and not ( \
             (i.state = 'filed' and exists (select 1 from messages m where m.workspace = i.workspace \
              and m.id = i.message)) \
             or (i.state = 'pending' and i.message is null) \
             or (i.state = 'held' and i.message is null and exists (select 1 from decisions d \
              where d.workspace = i.workspace and d.message = i.id and d.verdict = 'held')) \
             or (i.state = 'dropped' and i.message is null and not exists (select 1 from blobs b \
              where b.workspace = i.workspace and b.id = i.blob)))",
    },
    Rule {
        name: "acts",
        says: "every key, change of policy and decision on mail kept aside has its row in the trail",
        shown: Shown::Key,
        text: "select k.id from api_keys k where k.workspace = $1 and not exists (select 1 from trail t \
             where t.workspace = k.workspace and t.subject = k.id and t.act = 'key.created')",
    },
    Rule {
        name: "acts",
        says: "",
        shown: Shown::Workspace,
        text: "select w.id from workspaces w where w.id = $1 and w.policy_version - 1 <> \
             (select count(*) from trail t where t.workspace = w.id and t.act = 'policy.changed')",
    },
    Rule {
        name: "acts",
        says: "",
        shown: Shown::Message,
        text: "select q.id from quarantine q where q.workspace = $1 and q.state in ('released', 'rejected') \
             and not exists (select 1 from trail t where t.workspace = q.workspace and t.subject = q.id \
             and ((q.state = 'rejected' and t.act = 'mail.rejected') \
             or (q.state = 'released' and t.act in ('mail.released', 'mail.trusted'))))",
    },
    Rule {
        name: "quarantine",
        says: "mail that is kept aside lies in quarantine, and nothing that was filed or left out does",
        shown: Shown::Message,
        text: "select i.id from inbound i left join quarantine q on q.workspace = i.workspace and q.id = i.id \
             where i.workspace = $1 and ((i.state = 'held' and (q.id is null or q.settled_at is not null)) \
             or (i.state in ('filed', 'dropped') and q.id is not null and q.settled_at is null))",
    },
    Rule {
        name: "home",
        says: "every message lies in one conversation, which stands for itself",
        shown: Shown::Message,
        text: "select m.id from messages m \
             left join conversations c on c.workspace = m.workspace and c.id = m.conversation \
             where m.workspace = $1 and (c.id is null or c.merged_into is not null)",
    },
    Rule {
        name: "subjects",
        says: "messages that meet by their subjects lie in one conversation, unless a hand has parted them",
        shown: Shown::Message,
        text: "select m.id from subject_keys a \
             join subject_keys s on s.workspace = a.workspace and s.key = a.key and s.found_by = 1 \
             and s.sent_at between a.sent_at - a.reach and a.sent_at + a.reach \
             join messages m on m.workspace = a.workspace and m.id = a.message \
             join messages o on o.workspace = s.workspace and o.id = s.message \
             where a.workspace = $1 and a.reach is not null and m.conversation <> o.conversation \
             and not exists (select 1 from conversation_partings p where p.workspace = m.workspace \
             and p.conversation = m.conversation and p.other = o.conversation)",
    },
    Rule {
        name: "redirects",
        says: "every merged conversation leads to one that stands for itself, and every key to a conversation",
        shown: Shown::Conversation,
        text: "select c.id from conversations c \
             left join conversations r on r.workspace = c.workspace and r.id = c.merged_into \
             where c.workspace = $1 and c.merged_into is not null and (r.id is null or r.merged_into is not null)",
    },
    Rule {
        name: "redirects",
        says: "",
        shown: Shown::Conversation,
        text: "select distinct k.conversation as id from thread_keys k \
             left join conversations c on c.workspace = k.workspace and c.id = k.conversation \
             where k.workspace = $1 and c.id is null",
    },
    Rule {
        name: "counts",
        says: "every conversation counts its messages right",
        shown: Shown::Conversation,
        text: "select c.id from conversations c where c.workspace = $1 and c.message_count <> \
             (select count(*) from messages m where m.workspace = c.workspace and m.conversation = c.id)",
    },
    Rule {
        name: "sightings",
        says: "every message was seen somewhere, and every sighting is of a message",
        shown: Shown::Message,
        text: "select m.id from messages m where m.workspace = $1 and not exists \
             (select 1 from sightings s where s.workspace = m.workspace and s.message = m.id)",
    },
    Rule {
        name: "sightings",
        says: "",
        shown: Shown::Message,
        text: "select distinct s.message as id from sightings s where s.workspace = $1 and not exists \
             (select 1 from messages m where m.workspace = s.workspace and m.id = s.message)",
    },
    Rule {
        name: "decisions",
        says: "every message has the decision that let it in, and mail that was skipped left none",
        shown: Shown::Message,
        text: "select m.id from messages m where m.workspace = $1 and not exists (select 1 from decisions d \
             where d.workspace = m.workspace and d.message = m.id and d.verdict <> 'skipped')",
    },
    Rule {
        name: "decisions",
        says: "",
        shown: Shown::Message,
        text: "select d.message as id from decisions d \
             where d.workspace = $1 and d.verdict = 'skipped' and d.message is not null",
    },
    Rule {
        name: "names",
        says: "every message is found by its Message-ID",
        shown: Shown::Message,
        text: "select m.id from messages m where m.workspace = $1 and m.rfc822_id is not null and not exists \
             (select 1 from message_ids i where i.workspace = m.workspace and i.rfc822_id = m.rfc822_id \
              and i.message = m.id)",
    },
    Rule {
        name: "submissions",
        says: "every submission is in a state that its recipients' states allow, and is worked on until it is final",
        shown: Shown::Message,
        text: "select s.message as id from submissions s where s.workspace = $1 and ( \
             s.state not in ('queued', 'sending', 'sent', 'deferred', 'uncertain', 'bounced', 'held', 'cancelled') \
             or (s.state in ('sent', 'bounced', 'cancelled') and exists (select 1 from submission_recipients r \
              where r.workspace = s.workspace and r.message = s.message and r.role = 'named' \
              and r.state in ('queued', 'sending', 'deferred', 'uncertain'))) \
             or (s.state = 'sent' and not exists (select 1 from submission_recipients r \
              where r.workspace = s.workspace and r.message = s.message and r.state = 'sent')) \
             or (s.state = 'bounced' and exists (select 1 from submission_recipients r \
              where r.workspace = s.workspace and r.message = s.message and r.role = 'named' and r.state = 'sent')) \
             or (s.state = 'sending' and s.dot_intent_at is null))",
    },
    Rule {
        name: "submissions",
        says: "",
        shown: Shown::Message,
        text: "select distinct r.message as id from submission_recipients r where r.workspace = $1 and r.state \
             not in ('queued', 'sending', 'sent', 'deferred', 'uncertain', 'bounced', 'held', 'cancelled')",
    },
    Rule {
        name: "journal",
        says: "the journal is numbered without a gap",
        shown: Shown::Text,
        text: "select 'event ' || cast(e.seq as text) as id from events e where e.workspace = $1 and (e.seq < 1 \
             or (e.seq > 1 and not exists (select 1 from events p where p.workspace = e.workspace and p.seq = e.seq - 1)))",
    },
    Rule {
        name: "journal",
        says: "",
        shown: Shown::Text,
        text: "select 'event ' || cast(w.event_seq as text) as id from workspaces w where w.id = $1 and w.event_seq <> \
             coalesce((select max(e.seq) from events e where e.workspace = w.id), 0)",
    },
    Rule {
        name: "limits",
        says: "no count of what a user sent or had synced in the last day is below what is stored of it",
        shown: Shown::User,
        // Each of these left by the user's account, or by the smarthost as mail to one person, and none was passed on:
        // with its last intent it was counted in that slot. What was refused was given back.
        text: "select t.user_id as id from (select m.author_id as user_id, \
             s.dot_intent_at - s.dot_intent_at % 900000000 as slot, count(*) as truth \
             from submissions s join messages m on m.workspace = s.workspace and m.id = s.message \
             where s.workspace = $1 and s.dot_intent_at >= :counted_since and m.author_role = 'user' \
             and s.principal not like '{\"participant\"%' and (s.class = 'individual' \
             or (s.account is not null and s.sent_copy in ('queued', 'filed', 'appended'))) \
             and exists (select 1 from submission_recipients r where r.workspace = s.workspace \
             and r.message = s.message and r.state in ('sending', 'uncertain', 'sent')) group by 1, 2) t \
             join users u on u.workspace = $1 and u.id = t.user_id \
             left join usage_counts c on c.workspace = $1 and c.user_id = t.user_id and c.slot = t.slot \
             and c.counted = 'sent_messages' where coalesce(c.used, 0) < t.truth",
    },
    Rule {
        name: "limits",
        says: "",
        shown: Shown::User,
        // Not by slots: some of a message's recipients may have had it with an earlier intent than the last.
        text: "select t.user_id as id from (select m.author_id as user_id, count(*) as truth \
             from submissions s join messages m on m.workspace = s.workspace and m.id = s.message \
             join submission_recipients r on r.workspace = s.workspace and r.message = s.message \
             where s.workspace = $1 and m.received_at >= :counted_since and m.author_role = 'user' \
             and s.principal not like '{\"participant\"%' and s.class = 'individual' \
             and r.state in ('sending', 'uncertain', 'sent') group by 1) t \
             join users u on u.workspace = $1 and u.id = t.user_id where t.truth > \
             (select coalesce(sum(c.used), 0) from usage_counts c where c.workspace = $1 \
              and c.user_id = t.user_id and c.counted = 'sent_recipients' and c.slot >= :counted_since)",
    },
    Rule {
        name: "limits",
        says: "",
        shown: Shown::User,
        // What an account was the first to show was filed then; unless another account that showed it before was erased.
        text: "select t.user_id as id from (select a.user_id, s.at - s.at % 900000000 as slot, \
             count(distinct s.message) as truth from sightings s \
             join accounts a on a.workspace = s.workspace and a.id = s.account \
             where s.workspace = $1 and s.via = 'account' and s.at >= :counted_since \
             and not exists (select 1 from sightings o where o.workspace = s.workspace and o.message = s.message \
              and o.at < s.at) and not exists (select 1 from accounts e where e.workspace = s.workspace \
              and e.state in ('erasing', 'erased') and e.state_since >= :counted_since) group by 1, 2) t \
             left join usage_counts c on c.workspace = $1 and c.user_id = t.user_id and c.slot = t.slot \
             and c.counted = 'synced' where coalesce(c.used, 0) < t.truth",
    },
    Rule {
        name: "principals",
        says: "nothing leaves without somebody known whose word it is, and nothing that strangers sent to us leaves by theirs",
        shown: Shown::Message,
        text: "select s.message as id from submissions s where s.workspace = $1 \
             and s.principal not like '{\"participant\"%' and not exists (select 1 from sightings g \
             where g.workspace = s.workspace and g.message = s.message and g.via in ('submission', 'api'))",
    },
    Rule {
        name: "principals",
        says: "",
        shown: Shown::Message,
        // What is passed on came to a reply address; copies of answers may have come to an account.
        text: "select s.message as id from submissions s where s.workspace = $1 and s.principal like '{\"participant\"%' \
             and exists (select 1 from submission_recipients r where r.workspace = s.workspace \
             and r.message = s.message and r.role = 'named') and not exists (select 1 from sightings g \
             where g.workspace = s.workspace and g.message = s.message and g.via in ('reply', 'submission', 'api'))",
    },
    Rule {
        name: "history",
        says: "the CRM was told last of a message what became of it",
        shown: Shown::Message,
        // Of what is passed on at once nothing is told beside that it came.
        text: "select s.message as id from submissions s \
             join (select message, max(seq) as seq from events where workspace = $1 and message is not null and type in \
             ('message.sent', 'message.bounced', 'message.deferred', 'message.uncertain') group by message) l \
             on l.message = s.message join events e on e.workspace = s.workspace and e.seq = l.seq \
             where s.workspace = $1 and s.state in ('sent', 'bounced') and s.principal not like '{\"participant\"%' \
             and e.data not like '%\"state\":\"' || s.state || '\"%'",
    },
    Rule {
        name: "history",
        says: "",
        shown: Shown::Message,
        // In doubt is only what was being sent; what was sent, or is being sent, was begun.
        text: "select r.message as id from submission_recipients r \
             join submissions s on s.workspace = r.workspace and s.message = r.message where r.workspace = $1 \
             and s.dot_intent_at is null and (r.doubts > 0 or r.state in ('sending', 'uncertain', 'sent'))",
    },
    Rule {
        name: "leases",
        says: "every account and every job is held by one worker at most, under a number that grows",
        shown: Shown::Account,
        // The epoch is raised by whoever takes the lease, and fences off whoever had it.
        text: "select a.id from accounts a where a.workspace = $1 and (a.epoch < 0 \
             or (a.lease_owner is null) <> (a.lease_until = 0) or (a.lease_owner is not null and a.epoch = 0))",
    },
    Rule {
        name: "leases",
        says: "",
        shown: Shown::Account,
        // Written by somebody who worked it as another mailbox than it is by now: the generation stands above 32 bits.
        text: "select a.id from accounts a where a.workspace = $1 and (exists (select 1 from mailboxes b \
             where b.workspace = a.workspace and b.account = a.id and b.uid_validity / 4294967296 > a.generation) \
             or exists (select 1 from sightings g where g.workspace = a.workspace and g.account = a.id \
             and g.uid_validity / 4294967296 > a.generation))",
    },
    Rule {
        name: "leases",
        says: "",
        shown: Shown::Text,
        // A job is claimed at the head of its lane, and each claim is counted.
        text: "select 'job ' || cast(id as text) as id from jobs where workspace = $1 \
             and leased_until is not null and (head <> 1 or attempt = 0)",
    },
    Rule {
        name: "settled",
        says: "whatever a person or a rule decided bears who it was, and was done",
        shown: Shown::Message,
        text: "select q.id from quarantine q where q.workspace = $1 and ( \
             (q.settled_at is null) <> (q.settled_by is null) \
             or (q.settled_at is null) <> (q.state in ('checking', 'held')) \
             or (q.settled_at is not null and q.shown is not null) \
             or (q.is_trusted = 1 and q.state <> 'released'))",
    },
    Rule {
        name: "settled",
        says: "",
        shown: Shown::Message,
        text: "select q.id from quarantine q join inbound i on i.workspace = q.workspace and i.id = q.id \
             where q.workspace = $1 and q.state in ('rejected', 'expired') and i.state <> 'dropped'",
    },
    Rule {
        name: "settled",
        says: "",
        shown: Shown::Text,
        text: "select 'a trusted route of ' || route as id from sender_routes where workspace = $1 \
             and (pinned_until is null) <> (pinned_by is null)",
    },
    Rule {
        name: "erased",
        says: "of an account that is erased nothing is left, and there is a receipt",
        shown: Shown::Account,
        text: "select a.id from accounts a where a.workspace = $1 and a.state = 'erased' and ( \
             a.receipt is null or a.key_id is not null \
             or exists (select 1 from content_keys k where k.workspace = a.workspace and k.account = a.id) \
             or exists (select 1 from sightings g where g.workspace = a.workspace and g.account = a.id) \
             or exists (select 1 from mailboxes b where b.workspace = a.workspace and b.account = a.id) \
             or exists (select 1 from grants g where g.workspace = a.workspace and g.account = a.id))",
    },
    Rule {
        name: "contacts",
        says: "every contact that mail has made and nobody has touched is on mail that was let in",
        shown: Shown::Contact,
        text: "select c.id from contacts c where c.workspace = $1 and c.created_by in ('capture', 'sent', 'exchange') \
             and c.changed_at is null and not exists (select 1 from message_contacts p \
             where p.workspace = c.workspace and p.contact = c.id) and not exists (select 1 from contact_relations r \
             where r.workspace = c.workspace and r.related = c.id)",
    },
    Rule {
        name: "senders",
        says: "how far a sender is believed follows from what was found, and nobody who is not is filed",
        shown: Shown::Message,
        text: "select c.inbound as id from sender_checks c \
             join inbound i on i.workspace = c.workspace and i.id = c.inbound \
             where c.workspace = $1 and i.state = 'filed' and c.level = 'e0' and (c.mark is null or c.mark <> 'released')",
    },
    Rule {
        name: "lanes",
        says: "every lane knows its jobs, and one of them leads it",
        shown: Shown::Text,
        text: "select l.lane as id from lanes l where l.workspace = $1 and (l.jobs <> (select count(*) from jobs j \
             where j.workspace = l.workspace and j.lane = l.lane) or 1 <> (select count(*) from jobs j \
             where j.workspace = l.workspace and j.lane = l.lane and j.head = 1))",
    },
    Rule {
        name: "lanes",
        says: "",
        shown: Shown::Text,
        text: "select 'job ' || cast(j.id as text) as id from jobs j where j.workspace = $1 and \
             ((j.lane is null and j.head <> 1) or (j.lane is not null and not exists (select 1 from lanes l \
             where l.workspace = j.workspace and l.lane = j.lane)))",
    },
    Rule {
        name: "blobs",
        says: "every stored content belongs to a message, and none is missing",
        shown: Shown::Message,
        text: "select m.id from messages m left join blobs b on b.workspace = m.workspace and b.id = m.blob \
             where m.workspace = $1 and b.id is null",
    },
    Rule {
        name: "blobs",
        says: "",
        shown: Shown::Message,
        text: "select i.id from inbound i left join blobs b on b.workspace = i.workspace and b.id = i.blob \
             where i.workspace = $1 and i.state <> 'dropped' and b.id is null",
    },
    Rule {
        name: "blobs",
        says: "",
        shown: Shown::Message,
        text: "select s.message as id from submissions s \
             left join blobs b on b.workspace = s.workspace and b.id = s.blob \
             where s.workspace = $1 and s.blob is not null and b.id is null",
    },
    Rule {
        name: "blobs",
        says: "",
        shown: Shown::Blob,
        // Joins, since no index leads from a blob to who names it: each side is read once.
        text: "select b.id from blobs b left join messages m on m.workspace = b.workspace and m.blob = b.id \
             left join inbound i on i.workspace = b.workspace and i.blob = b.id \
             left join submissions s on s.workspace = b.workspace and s.blob = b.id \
             where b.workspace = $1 and m.id is null and i.id is null and s.message is null",
    },
];

/// Every column that names a row of another table: table, column, and where that row lies. A test compares this with the
/// schema.
pub(super) const REFERENCES: &[(&str, &str, &str)] = &[
    ("content_keys", "account", "accounts"),
    ("user_addresses", "user_id", "users"),
    ("user_addresses", "account", "accounts"),
    ("api_keys", "user_id", "users"),
    ("connect_links", "user_id", "users"),
    ("connect_links", "key_id", "content_keys"),
    ("contacts", "assigned_user_id", "users"),
    ("contact_addresses", "contact", "contacts"),
    ("contact_relations", "contact", "contacts"),
    ("contact_relations", "related", "contacts"),
    ("accounts", "user_id", "users"),
    ("accounts", "key_id", "content_keys"),
    ("account_addresses", "account", "accounts"),
    ("account_errors", "account", "accounts"),
    ("grants", "account", "accounts"),
    ("mailboxes", "account", "accounts"),
    ("routes", "user_id", "users"),
    ("routes", "conversation", "conversations"),
    ("blobs", "key_id", "content_keys"),
    ("inbound", "blob", "blobs"),
    ("inbound", "message", "messages"),
    ("sender_checks", "inbound", "inbound"),
    ("sender_checks", "message", "messages"),
    ("quarantine", "user_id", "users"),
    ("conversations", "contact", "contacts"),
    ("conversations", "merged_into", "conversations"),
    ("conversations", "related_to", "conversations"),
    ("conversation_repairs", "conversation", "conversations"),
    ("conversation_repairs", "other", "conversations"),
    ("conversation_partings", "conversation", "conversations"),
    ("conversation_partings", "other", "conversations"),
    ("messages", "conversation", "conversations"),
    ("messages", "author_id", "users"),
    ("messages", "author_id", "contacts"),
    ("messages", "blob", "blobs"),
    ("message_ids", "message", "messages"),
    ("message_contacts", "contact", "contacts"),
    ("message_contacts", "message", "messages"),
    ("sightings", "message", "messages"),
    ("sightings", "account", "accounts"),
    ("sightings", "user_id", "users"),
    ("thread_keys", "conversation", "conversations"),
    ("subject_keys", "message", "messages"),
    ("events", "conversation", "conversations"),
    ("events", "message", "messages"),
    // Mail that is held was filed nowhere.
    ("events", "message", "inbound"),
    ("submissions", "message", "messages"),
    ("submissions", "account", "accounts"),
    ("submissions", "blob", "blobs"),
    ("submission_recipients", "message", "messages"),
    ("smarthosts", "key_id", "content_keys"),
    ("order_keys", "message", "messages"),
    ("decisions", "message", "messages"),
    ("decisions", "message", "inbound"),
    ("decisions", "account", "accounts"),
    ("decisions", "user_id", "users"),
    ("decision_hashes", "decision", "decisions"),
    // A key, a message in quarantine or the workspace itself is none of these.
    ("trail", "subject", "users"),
    ("trail", "subject", "accounts"),
    ("trail", "subject", "inbound"),
    // Or the workspace itself.
    ("limits", "subject", "users"),
    ("usage_counts", "user_id", "users"),
    ("quota_levels", "subject", "users"),
    ("account_sent", "account", "accounts"),
    ("account_octets", "account", "accounts"),
    ("send_rests", "account", "accounts"),
];

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn every_column_that_names_a_row_is_known() {
        let schema = include_str!("../../../migrations/postgres/0001_ground.sql");
        let (mut table, mut columns) = ("", BTreeSet::new());
        for line in schema.lines() {
            if let Some(rest) = line.strip_prefix("create table ") {
                table = rest.split_whitespace().next().unwrap();
            }
            let mut words = line.split([' ', ',']).filter(|word| !word.is_empty());
            let (Some(column), Some("uuid")) = (words.next(), words.next()) else { continue };
            // A sign-in is no row.
            if !["id", "workspace", "--", "sign_in"].contains(&column) {
                columns.insert((table, column));
            }
        }
        let known: BTreeSet<_> = REFERENCES.iter().map(|(table, column, _)| (*table, *column)).collect();
        assert_eq!(columns, known);
    }

    #[test]
    fn a_rule_is_said_once() {
        let mut said = BTreeSet::new();
        for rule in RULES {
            assert_eq!(said.insert(rule.name), !rule.says.is_empty(), "{}", rule.name);
        }
    }
}
