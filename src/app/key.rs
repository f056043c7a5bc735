//! `mailweave key create`: mints an API key in the store itself, which is how the first one comes to be.
//!
//! Not here: keys made by keys, which is the API's.

use anyhow::{Context as _, bail};

use super::{
    client::Usage,
    stored::{self, StoredError},
};
use crate::{
    cli::{self, KeyCreate},
    config::Config,
    core::people::{ApiKey, Scope},
    flow::{self, api_key},
    net,
    store::{Store, mint},
};

/// Longest name of a key, as in the API.
const NAME_CHARS_MAX: usize = 200;

/// Mints a key and prints its secret: once, on stdout, and nothing else there.
///
/// # Errors
/// Names what to do instead when a running gateway holds the store, or what is wrong.
pub async fn create(workspace: Option<&str>, order: &KeyCreate) -> anyhow::Result<()> {
    let slug = workspace.ok_or(Usage("say which workspace the key is for: --workspace SLUG"))?;
    let config = Config::load(order.config.config.as_deref())?.config;
    net::install_provider();
    let store = match stored::open(&config).await {
        Ok(store) => store,
        Err(StoredError::InUse(lock)) => {
            bail!("{}", instead(&config, slug, order, &lock.display().to_string()))
        }
        Err(error) => return Err(error.into()),
    };
    let made = mint_key(&store, slug, order).await;
    store.close().await;
    let (key, secret) = made?;
    eprintln!("{} of workspace {slug}. It is shown this once:", key.id);
    println!("{secret}");
    Ok(())
}

async fn mint_key(store: &Store, slug: &str, order: &KeyCreate) -> anyhow::Result<(ApiKey, String)> {
    let mut system = store.system_read().await?;
    let by_slug = system.workspace_by_slug(slug).await?;
    let found = match (by_slug, slug.parse()) {
        (None, Ok(id)) => system.workspace(id).await?,
        (found, _) => found,
    };
    drop(system);
    let workspace = found.with_context(|| format!("there is no workspace {slug}"))?;
    let name = order.name.trim();
    anyhow::ensure!(
        !name.is_empty() && name.chars().count() <= NAME_CHARS_MAX,
        "a name has 1 to 200 characters"
    );
    let mut scopes: Vec<Scope> = order.scopes.iter().copied().map(scope).collect();
    scopes.sort_unstable();
    scopes.dedup();
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
    let mut tx = store.begin(workspace.id).await?;
    tx.insert_key(&key, &api_key::hash(&secret)).await?;
    tx.commit().await?;
    Ok((key, secret))
}

fn scope(asked: cli::Scope) -> Scope {
    match asked {
        cli::Scope::Read => Scope::Read,
        cli::Scope::Write => Scope::Write,
        cli::Scope::Send => Scope::Send,
        cli::Scope::Smtp => Scope::Smtp,
        cli::Scope::Admin => Scope::Admin,
    }
}

/// What does the same while the gateway runs.
fn instead(config: &Config, slug: &str, order: &KeyCreate, lock: &str) -> String {
    let scopes: Vec<Scope> = order.scopes.iter().copied().map(scope).collect();
    let body = serde_json::json!({ "name": order.name, "scopes": scopes });
    // The shell takes what stands between the quotes as it is, but for a quote itself.
    let body = body.to_string().replace('\'', r"'\''");
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
        cli::ConfigArg,
        core::people::Workspace,
        store::testing::{World, both},
    };

    fn order(scopes: &[cli::Scope]) -> KeyCreate {
        KeyCreate { scopes: scopes.to_vec(), name: "Ann's".to_owned(), config: ConfigArg { config: None } }
    }

    async fn workspace(store: &Store) -> Workspace {
        let workspace = Workspace {
            id: mint(),
            slug: "acme".into(),
            name: "Acme".into(),
            timezone: "UTC".into(),
            preset: "mailweave".into(),
            policy_version: 1,
            created_at: flow::now(),
        };
        let mut system = store.system().await.unwrap();
        system.create_workspace(&workspace).await.unwrap();
        system.commit().await.unwrap();
        workspace
    }

    both! {
        async fn a_key_made_in_the_store_is_in_force(world) {
            let workspace = workspace(&world.store).await;
            let order = order(&[cli::Scope::Smtp, cli::Scope::Read, cli::Scope::Read]);
            for name in ["acme".to_owned(), workspace.id.to_string()] {
                let (key, secret) = mint_key(&world.store, &name, &order).await.unwrap();
                let found = api_key::find(&world.store, &secret).await.unwrap().expect("the key is in force");
                assert_eq!((found.id, found.workspace), (key.id, workspace.id));
                assert_eq!(found.scopes, [Scope::Read, Scope::Smtp]);
            }
            let error = mint_key(&world.store, "other", &order).await.unwrap_err();
            assert_eq!(error.to_string(), "there is no workspace other");
        }
    }

    #[tokio::test]
    async fn while_the_gateway_runs_it_is_told_how_to_ask_it() {
        let world = World::sqlite().await;
        let data_dir = world.directory.path().display().to_string();
        let key_file = world.directory.path().join("master.key");
        std::fs::write(&key_file, [7; 32]).unwrap();
        let config = Config::read(None, [("MAILWEAVE__NODE__DATA_DIR".to_owned(), data_dir)]);
        let config = config.unwrap().config;
        assert!(matches!(stored::open(&config).await.err(), Some(StoredError::InUse(_))));
        let told = instead(&config, "acme", &order(&[cli::Scope::Admin]), "x.lock");
        assert!(told.contains("http://127.0.0.1:8080/v1/workspaces/acme/keys"), "{told}");
        assert!(told.contains(r#"-d '{"name":"Ann'\''s","scopes":["admin"]}'"#), "{told}");
        world.store.close().await;
        stored::open(&config).await.unwrap().close().await;
        std::fs::remove_file(key_file).unwrap();
        assert!(matches!(stored::open(&config).await.err(), Some(StoredError::NoMasterKey(_))));
    }
}
