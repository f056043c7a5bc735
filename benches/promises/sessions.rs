//! What a session costs that does nothing: greeted, EHLO answered, waiting.
//!
//! Not here: sessions at work.

use std::net::SocketAddr;

use anyhow::Result;

use crate::{
    as_f64,
    gateway::Gateway,
    load::Session,
    peer::Postfix,
    support::server::Server,
    table::{Table, Target},
    usage,
};

/// Postfix forks for each of its own; its memory a session does not depend on how many there are.
const SESSIONS: (usize, usize) = (1000, 100);

pub async fn idle(table: &mut Table) -> Result<()> {
    let gateway = Gateway::start().await?;
    let ours = each(&gateway.server, gateway.mx, SESSIONS.0).await?;
    drop(gateway);
    let peer = match Postfix::start() {
        Some(postfix) => Some((Postfix::NAME, each(&postfix.server, postfix.mx, SESSIONS.1).await?)),
        None => None,
    };
    table.compare("An idle SMTP session: memory", "KiB", (ours, peer), Target::AtMost(16.0));
    Ok(())
}

/// Memory of one of so many sessions. The first few are not counted: they bring what is there only once.
async fn each(server: &Server, address: SocketAddr, count: usize) -> Result<f64> {
    let first = open(address, 10).await?;
    let before = usage::memory(server)?;
    let sessions = open(address, count).await?;
    let used = usage::memory(server)? - before;
    drop((first, sessions));
    Ok(used / as_f64(count))
}

async fn open(address: SocketAddr, count: usize) -> Result<Vec<Session>> {
    let mut sessions = Vec::with_capacity(count);
    for _ in 0..count {
        sessions.push(Session::open(address).await?);
    }
    Ok(sessions)
}
