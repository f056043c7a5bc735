//! What the stored data tells an operator: how the accounts are, whether their providers answer, and where events go.
//!
//! Not here: whether the data is sound (`audit`).

use jiff::Timestamp;

use super::{Findings, chain, providers::Servers};
use crate::{
    account::ProviderDialer,
    core::{account::AccountState, ids::Id as _, people::Workspace},
    store::{Error, Page, PageKey, Store},
};

pub(super) async fn look(store: &Store, dialer: Option<&ProviderDialer>, findings: &mut Findings) {
    let mut servers = Servers::default();
    let looked = match durability(store, findings).await {
        Ok(()) => workspaces(store, &mut servers, findings).await,
        failed => failed,
    };
    if let Err(error) = looked {
        findings.error("store", chain(&error));
    }
    if let Some(dialer) = dialer {
        servers.look(dialer, findings).await;
    }
}

async fn durability(store: &Store, findings: &mut Findings) -> Result<(), Error> {
    for setting in store.settings_that_lose_data().await? {
        let says = format!(
            "{setting} is off in PostgreSQL: when its machine goes down, mail that was acknowledged can be lost; turn it on"
        );
        findings.warning("store", says);
    }
    Ok(())
}

async fn workspaces(store: &Store, servers: &mut Servers, findings: &mut Findings) -> Result<(), Error> {
    let mut after = None;
    loop {
        let page = store.system_read().await?.workspaces(&Page::new(200, after)).await?;
        let Some(last) = page.last() else { return Ok(()) };
        after = Some(PageKey { at: last.created_at, id: last.id.uuid() });
        for workspace in &page {
            accounts(store, workspace, findings).await?;
            webhooks(store, workspace, findings).await?;
            servers.add_workspace(store, workspace.id).await?;
        }
    }
}

async fn accounts(store: &Store, workspace: &Workspace, findings: &mut Findings) -> Result<(), Error> {
    use AccountState::{Error as Failing, ReauthRequired, Stopped};
    let states = store.read(workspace.id).await?.account_states().await?;
    let about = format!("workspace {}", workspace.slug);
    if states.is_empty() {
        findings.ok(&about, "no accounts");
        return Ok(());
    }
    let word = |state: &AccountState| {
        serde_json::to_value(state).ok().and_then(|word| word.as_str().map(str::to_owned)).unwrap_or_default()
    };
    let counts: Vec<String> =
        states.iter().map(|(state, count)| format!("{count} {}", word(state))).collect();
    let says = format!("accounts: {}", counts.join(", "));
    if states.iter().any(|(state, _)| matches!(state, Failing | ReauthRequired | Stopped)) {
        let advice = "`mailweave account list` has the reason and the advice for each";
        findings.warning(&about, format!("{says}; {advice}"));
    } else {
        findings.ok(&about, says);
    }
    Ok(())
}

async fn webhooks(store: &Store, workspace: &Workspace, findings: &mut Findings) -> Result<(), Error> {
    let about = format!("workspace {}", workspace.slug);
    for webhook in store.read(workspace.id).await?.webhooks(Timestamp::now()).await? {
        if let Some(reason) = &webhook.disabled_reason {
            findings.warning(&about, format!("webhook {} is disabled: {reason}", webhook.id));
        }
        if !webhook.url.starts_with("https://") {
            let says = "is posted to without TLS; anybody on the way can read the events";
            findings.warning(&about, format!("webhook {} {says}", webhook.id));
        }
    }
    Ok(())
}
