//! `mailweave key create`: mints an API key in the store itself, which is how the first one comes to be, or asks the
//! gateway for it when there is a key already.
//!
//! Not here: who may mint what, which is the API's.

use anyhow::{Context as _, bail};

use super::{
    StartError,
    client::{self, Usage},
    parts,
};
use crate::{
    cli::{Client, KeyCreate},
    config::Config,
    core::{
        people::{ApiKey, Scope, Workspace, is_slug},
        policy::DEFAULT_PRESET,
    },
    flow::{self, api_key},
    net,
    store::{OpenError, Store, mint},
};

/// Longest name of a key, as in the API.
const NAME_CHARS_MAX: usize = 200;

/// Mints a key and prints its secret: once, on stdout, and nothing else there. With an API key the gateway is asked, unless a
/// configuration file is named; else the key is made in the store, which is made first when there is none.
///
/// # Errors
/// Names what to do instead when a running gateway holds the store, or what is wrong.
pub async fn create(client: &Client, order: KeyCreate) -> anyhow::Result<()> {
    let slug = client.workspace.as_deref().filter(|slug| !slug.is_empty());
    let slug = slug.ok_or(Usage("say which workspace the key is for: --workspace SLUG"))?;
    net::install_provider();
    let (id, secret) = if client.api_key.is_some() && order.config.config.is_none() {
        through_the_api(client, order).await?
    } else {
        in_the_store(slug, &order).await?
    };
    eprintln!("{id} of workspace {slug}. It is shown this once:");
    println!("{secret}");
    Ok(())
}

async fn through_the_api(client: &Client, order: KeyCreate) -> anyhow::Result<(String, String)> {
    let made = client::create_key(client, order).await.context(
        "the gateway was asked, since there is an API key (MAILWEAVE_API_KEY); without one the key is made in the store",
    )?;
    let text = |member: &str| made.get(member).and_then(serde_json::Value::as_str).map(str::to_owned);
    text("id").zip(text("secret")).context("the answer holds no key")
}

async fn in_the_store(slug: &str, order: &KeyCreate) -> anyhow::Result<(String, String)> {
    let config = Config::load(order.config.config.as_deref())?.config;
    let store = match parts::store(&config).await {
        Ok(store) => store,
        Err(StartError::Store(OpenError::InUse(lock))) => {
            bail!("{}", instead(&config, slug, order, &lock.display().to_string()))
        }
        Err(error) => return Err(error.into()),
    };
    let made = mint_key(&store, slug, order).await;
    store.close().await;
    let (key, secret) = made?;
    Ok((key.id.to_string(), secret))
}

async fn mint_key(store: &Store, slug: &str, order: &KeyCreate) -> anyhow::Result<(ApiKey, String)> {
    let name = order.name.trim();
    anyhow::ensure!(
        !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX,
        "a name has 1 to 200 characters"
    );
    let scopes = client::scopes(order);
    let workspace = match workspace(store, slug).await? {
        Some(found) => found,
        None => first_workspace(store, slug, &scopes).await?,
    };
    let key = ApiKey {
        id: mint(),
        workspace: workspace.id,
        name: name.to_owned(),
        scopes,
        user_id: None,
        created_at: flow::now(),
        last_used_at: None,
    };
    let secret = api_key::secret(flow::random());
    let mut tx = store.begin(workspace.id).await?.acting_for("command_line");
    tx.insert_key(&key, &api_key::hash(&secret)).await?;
    tx.commit().await?;
    Ok((key, secret))
}

/// By slug or id.
async fn workspace(store: &Store, name: &str) -> anyhow::Result<Option<Workspace>> {
    let mut system = store.system_read().await?;
    Ok(match (system.workspace_by_slug(name).await?, name.parse()) {
        (None, Ok(id)) => system.workspace(id).await?,
        (found, _) => found,
    })
}

/// Whoever may write to the store may have a workspace; but only a key for administering it shows that one is meant, rather
/// than a slip in the name of another.
async fn first_workspace(store: &Store, slug: &str, scopes: &[Scope]) -> anyhow::Result<Workspace> {
    anyhow::ensure!(
        scopes.contains(&Scope::Admin),
        "there is no workspace {slug}; with --scope admin it is made too"
    );
    anyhow::ensure!(is_slug(slug), "{slug} is no slug: lower-case letters, digits and inner hyphens");
    let workspace = Workspace {
        id: mint(),
        slug: slug.to_owned(),
        name: slug.to_owned(),
        timezone: "UTC".to_owned(),
        preset: DEFAULT_PRESET.to_owned(),
        policy_version: 1,
        created_at: flow::now(),
    };
    let mut system = store.system().await?;
    system.create_workspace(&workspace).await?;
    system.commit().await?;
    eprintln!("Made the workspace {slug}; `mailweave workspace update` gives it another name and time zone.");
    Ok(workspace)
}

/// What does the same while the gateway runs.
fn instead(config: &Config, slug: &str, order: &KeyCreate, lock: &str) -> String {
    // The shell takes what stands between the quotes as it is, but for a quote itself.
    let body = client::key_body(order).to_string().replace('\'', r"'\''");
    format!(
        "a running gateway holds the store ({lock}); ask it for the key, as the administrator:\n\n  \
         curl -sS -H \"Authorization: Bearer $MAILWEAVE_ADMIN_KEY\" -H 'Content-Type: application/json' \\\n    \
         -d '{body}' http://{}/v1/workspaces/{slug}/keys\n",
        config.http.listen
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        cli::{self, ConfigArg},
        store::testing::{World, both},
    };

    fn order(scopes: &[cli::Scope]) -> KeyCreate {
        KeyCreate { scopes: scopes.to_vec(), name: "Ann's".to_owned(), config: ConfigArg { config: None } }
    }

    both! {
        async fn a_key_made_in_the_store_is_in_force(world) {
            let (first, _) = mint_key(&world.store, "acme", &order(&[cli::Scope::Admin])).await.unwrap();
            let order = order(&[cli::Scope::Smtp, cli::Scope::Read, cli::Scope::Read]);
            for name in ["acme".to_owned(), first.workspace.to_string()] {
                let (key, secret) = mint_key(&world.store, &name, &order).await.unwrap();
                let found = api_key::find(&world.store, &secret).await.unwrap().expect("the key is in force");
                assert_eq!((found.id, found.workspace), (key.id, first.workspace));
                assert_eq!(found.scopes, [Scope::Read, Scope::Smtp]);
            }
        }

        async fn only_the_first_administrators_key_makes_a_workspace(world) {
            let error = mint_key(&world.store, "other", &order(&[cli::Scope::Smtp])).await.unwrap_err();
            assert_eq!(error.to_string(), "there is no workspace other; with --scope admin it is made too");
            let error = mint_key(&world.store, "No Slug", &order(&[cli::Scope::Admin])).await.unwrap_err();
            assert!(error.to_string().contains("No Slug is no slug"), "{error}");
            assert!(workspace(&world.store, "other").await.unwrap().is_none());
        }
    }

    /// A configuration whose data directory this is.
    fn config(directory: &std::path::Path) -> Config {
        let data_dir = directory.display().to_string();
        let config = Config::read(None, [("MAILWEAVE__NODE__DATA_DIR".to_owned(), data_dir)]);
        config.unwrap().config
    }

    #[tokio::test]
    async fn on_a_fresh_machine_all_that_the_first_key_needs_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let config = config(&directory.path().join("to/be/made"));
        for scopes in [[cli::Scope::Admin], [cli::Scope::Smtp]] {
            let store = parts::store(&config).await.unwrap();
            mint_key(&store, "acme", &order(&scopes)).await.unwrap();
            store.close().await;
        }
        std::fs::remove_file(config.master_key_file()).unwrap();
        assert!(matches!(parts::store(&config).await.err(), Some(StartError::MasterKeyGone(_))));
        assert!(!config.master_key_file().exists(), "a new key would open nothing");
    }

    #[tokio::test]
    async fn while_the_gateway_runs_it_is_told_how_to_ask_it() {
        let world = World::sqlite().await;
        std::fs::write(world.directory.path().join("master.key"), [7; 32]).unwrap();
        let config = config(world.directory.path());
        let in_use = parts::store(&config).await.err();
        assert!(matches!(in_use, Some(StartError::Store(OpenError::InUse(_)))), "{in_use:?}");
        let told = instead(&config, "acme", &order(&[cli::Scope::Admin]), "x.lock");
        assert!(told.contains("http://127.0.0.1:8080/v1/workspaces/acme/keys"), "{told}");
        assert!(told.contains(r#"-d '{"name":"Ann'\''s","scopes":["admin"]}'"#), "{told}");
    }
}
