//! Which mail of a shared account is another workspace's: gathers what the traces in its header and our own decisions tell.
//!
//! Nothing is asked of any other workspace. Not here: what follows from it (`core::policy`).

use super::{headers::Seen, judge::Bench, sent_by_hand::own_addresses};
use crate::{
    core::{
        decision::HashRole,
        origin::{SentBy, Tracer},
        policy::{
            Elsewhere, MultiTenant, SENT_BY_OTHER_WORKSPACE,
            tenancy::{self, Ids, Traces},
        },
    },
    mail::{Address, MessageId},
    store::{Error, Session, TextHasher, TracedId},
};

/// What says of each message, in the order given, that it is another workspace's.
pub(super) async fn elsewhere(
    session: &mut Session,
    bench: Bench<'_>,
    seen: &[&Seen],
) -> Result<Vec<Elsewhere>, Error> {
    let setting = bench.policy.settings.multi_tenant;
    if setting == MultiTenant::Fanout {
        return Ok(vec![Elsewhere::No; seen.len()]);
    }
    let senders = own_addresses(session, bench.user, bench.account).await?;
    let tracer = Tracer { secret: bench.secret, workspace: session.workspace(), senders: &senders };
    let hasher = session.text_hasher().await?;
    let mail: Vec<Ids> = seen.iter().map(|message| ids(&tracer, &hasher, message)).collect();
    let traces = traces(session, &mail).await?;
    Ok(tenancy::elsewhere(setting, &mail, traces))
}

fn ids(tracer: &Tracer<'_>, hasher: &TextHasher, seen: &Seen) -> Ids {
    let summary = &seen.summary;
    let own: Vec<&MessageId> =
        [&summary.message_id, &summary.original_message_id].into_iter().flatten().collect();
    let named: Vec<&MessageId> = summary.in_reply_to.iter().chain(&summary.references).collect();
    let by_id = own.iter().filter_map(|id| tracer.of_id(id));
    let by_trace = seen.traces.iter().filter_map(|trace| tracer.of_trace(trace));
    let sent_by = by_id.chain(by_trace).next();
    let is_own = seen.parties.from.iter().any(|from| is_among(tracer.senders, &from.address));
    let hashes = |ids: &[&MessageId]| ids.iter().map(|id| hasher.hash(id.as_str())).collect();
    let names = |by: SentBy| named.iter().any(|id| tracer.of_id(id) == Some(by));
    Ids {
        sent_there: is_own && sent_by == Some(SentBy::AnotherWorkspace),
        names_theirs: names(SentBy::AnotherWorkspace),
        names_ours: names(SentBy::ThisWorkspace),
        own: hashes(&own),
        named: hashes(&named),
    }
}

fn is_among(addresses: &[Address], address: &Address) -> bool {
    addresses.iter().any(|own| own == address)
}

async fn traces(session: &mut Session, mail: &[Ids]) -> Result<Traces, Error> {
    let mut hashes: Vec<tenancy::IdHash> =
        mail.iter().flat_map(|ids| ids.own.iter().chain(&ids.named)).copied().collect();
    hashes.sort_unstable();
    hashes.dedup();
    let mut traces = Traces::default();
    for TracedId { hash, role, rule } in session.traced_ids(&hashes).await? {
        let is_there = rule.is_some();
        let is_sent_there = rule.as_deref() == Some(SENT_BY_OTHER_WORKSPACE);
        match role {
            HashRole::Id if is_there => traces.theirs.insert(hash),
            HashRole::Id => traces.ours.insert(hash),
            HashRole::Reference if is_sent_there => traces.answered_there.insert(hash),
            HashRole::Reference if !is_there => traces.answered_here.insert(hash),
            _ => false,
        };
    }
    Ok(traces)
}
