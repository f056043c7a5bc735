//! Passwords, tokens and keys stand nowhere where somebody could read them: not on disk, not in a log, not in an answer.
//!
//! Not here: private mail (`privacy`), and that what is sealed opens in its own place alone (`app::audit`).

use std::{
    io::{self, Write},
    sync::{Mutex, MutexGuard, PoisonError},
};

use mailweave::{mail::Address, sandbox::Behaviour};
use serde_json::{Value, json};

use crate::{
    both,
    crm::text,
    gateway::record_metrics,
    privacy::{holding, stands_in},
    sandboxed::Sandboxed,
    support::{
        PATIENCE, Person,
        sign_in::{PROVIDER, SignInServer},
        wait_for,
    },
    world::{User, endpoint},
};

/// What this process has logged, down to the smallest thing.
static LOG: Mutex<Vec<u8>> = Mutex::new(Vec::new());

struct Log;

impl Log {
    fn lines() -> MutexGuard<'static, Vec<u8>> {
        LOG.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// False when another test of this process was first.
    fn keep() -> bool {
        let all = tracing_subscriber::EnvFilter::new("warn,mailweave=trace");
        tracing_subscriber::fmt()
            .with_env_filter(all)
            .with_ansi(false)
            .with_writer(|| Self)
            .try_init()
            .is_ok()
    }
}

impl Write for Log {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Self::lines().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A word that stands nowhere else.
fn canary(name: &str) -> String {
    format!("{name}{}", uuid::Uuid::new_v4().simple())
}

fn person(world: &Sandboxed, local: &str) -> Person {
    let person = Person { address: format!("{local}@acme.example"), password: canary(local) };
    world.provider().add_user(&Address::parse(&person.address).unwrap(), &person.password).unwrap();
    person
}

/// Has a client try this password at the submission listener.
fn try_password(world: &Sandboxed, password: &str) -> u16 {
    let login = Person { address: "acme".to_owned(), password: password.to_owned() };
    world.submission_client().auth_plain(&login).code
}

both! {
    fn no_secret_is_on_disk_or_in_a_log_or_told(engine) {
        let is_logged = Log::keep();
        record_metrics();
        let server = SignInServer::start();
        let (client_secret, refresh) = (canary("client"), canary("refresh"));
        let mut registration = server.registration();
        registration.client_secret = Some(client_secret.clone().into());
        let world = Sandboxed::with(engine, Behaviour { any_sender: true, ..Behaviour::default() }, |config| {
            config.oauth.0.insert(PROVIDER.to_owned(), registration);
        });
        let crm = &world.crm;
        let (ann, ben) = (person(&world, "ann"), person(&world, "ben"));
        let ann_uses = User::add(crm, ann.clone(), "Ann Lee");
        let ben_uses = User::add(crm, ben.clone(), "Ben Low");
        let bob = world.prospect("bob");
        let relay = person(&world, "relay");
        world.set_smarthost(&relay);
        let hook = crm.post("/webhooks", &json!({ "url": "http://127.0.0.1:9/hook" }));
        let (key, guess) = (crm.key(&["smtp"], None).1, canary("guess"));
        // One account that works, and one whose provider does not take the token.
        crm.await_account(&world.connect(&ann_uses));
        let by_token = crm.post("/accounts", &json!({
            "user_id": ben_uses.id,
            "email": ben.address,
            "imap": endpoint(world.running.imap, "none"),
            "smtp": endpoint(world.running.submission, "none"),
            "auth": { "type": "oauth2", "provider": PROVIDER, "refresh_token": refresh },
        }));
        let refused = format!("/accounts/{}", text(&by_token, "id"));
        wait_for("the token to be refused", PATIENCE, || crm.get(&refused)["status"]["state"] == "reauth_required");
        assert_eq!((try_password(&world, &key), try_password(&world, &guess)), (235, 535));
        let sent = world.post_message(&ann_uses, &[&bob.address], "One");
        crm.await_delivery(&sent, "sent");

        let secrets = [&ann.password, &ben.password, &relay.password, &client_secret, &refresh, &key, &guess];
        let secrets: Vec<&str> = secrets.into_iter().map(String::as_str).chain([text(&hook, "secret")]).collect();
        assert_eq!(holding(&world.gateway.places(), &secrets), []);
        let mut told = vec![crm.everything(), world.gateway.metrics()];
        for path in ["/users", "/keys", "/webhooks", "/trail"] {
            told.push(Value::Array(crm.list(path)).to_string());
        }
        told.push(Value::Array(crm.list(&format!("{refused}/errors"))).to_string());
        told.push(crm.get("/smarthost").to_string());
        let log = String::from_utf8_lossy(&Log::lines()).into_owned();
        assert!(!is_logged || log.contains("a request was answered"), "nothing was logged");
        told.push(log);
        for (at, told) in told.iter().enumerate() {
            let found: Vec<&&str> = secrets.iter().filter(|secret| stands_in(secret, told.as_bytes())).collect();
            assert!(found.is_empty(), "{found:?} in {at}");
        }
    }
}
