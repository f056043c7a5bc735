//! Whether users can sign in at the providers that `[oauth.…]` names.
//!
//! Not here: whether the registration's id and secret are right, which a provider tells nobody before somebody signs in.

use futures_util::future::join_all;

use super::{Findings, chain};
use crate::{
    account::oauth::Registered,
    app::{StartError, parts, providers},
    config::Config,
};

pub(super) async fn look(config: &Config, findings: &mut Findings) {
    let all = match parts::sign_in(config) {
        Ok(all) => all,
        Err(error @ StartError::Provider { .. }) => return findings.error("oauth", chain(&error)),
        // Told where its own option is looked at.
        Err(_) => return,
    };
    let named: Vec<_> = all.names().filter_map(|name| Some((name, all.named(name)?))).collect();
    let is_answering = join_all(named.iter().map(|(_, one)| one.client.is_answering())).await;
    for ((name, one), is_answering) in named.iter().zip(is_answering) {
        tell((name, one), is_answering, findings);
    }
    let has_users = named.iter().any(|(_, one)| one.domains.is_none());
    if has_users && config.http.public_url.is_none() {
        let own = providers::own_url(config);
        let says = format!(
            "is not set: users are sent to {own}, which leads from their browsers to this machine at best"
        );
        findings.warning("http.public_url", says);
    }
}

fn tell((name, one): (&str, &Registered), is_answering: bool, findings: &mut Findings) {
    let about = format!("oauth.{name}");
    let token_url = one.client.token_url();
    if !is_answering {
        let says = format!("{token_url} does not answer: nobody can sign in, and tokens cannot be renewed");
        return findings.warning(&about, says);
    }
    let says = match &one.domains {
        Some(whole) => format!("{token_url} answers; it grants every mailbox of {}", whole.names.join(", ")),
        None => format!(
            "{token_url} answers; users come back to {}, which is to be among the registration's redirect URIs",
            one.client.redirect()
        ),
    };
    findings.ok(&about, says);
}
