//! Access tokens in use: renewed by one at a time however many want one, and never given up over what may pass.
//!
//! Not here: logging in with them (`flows`).

use std::time::Duration;

use jiff::{SignedDuration, Timestamp};
use mailweave::{
    account::{Login, Trouble},
    core::account::{AccountState, Credentials, Endpoint, Security},
    flow::{
        Gateway,
        login::{begin_grant, login_of},
    },
    store::{Grant, Issued, Kept, Tokens},
};
use secrecy::ExposeSecret as _;
use tokio::task::JoinSet;

use crate::support::{
    PATIENCE, Person, eventually,
    office::{Office, Set},
    sign_in::{Fault, PROVIDER, SignInServer},
    store::Engine,
};

const USER: &str = "ann@users.example.test";
/// Programs, sessions and nodes that want a token at the same moment.
const AT_ONCE: usize = 8;
/// Nodes among which they are: what one has in hand the others do not know.
const NODES: usize = 4;
const EXPIRIES: u64 = 1000;

/// An account at a provider where Ann has signed in, with nobody at work.
struct World {
    office: Office,
    server: SignInServer,
    node: Gateway,
}

impl World {
    async fn new(engine: Engine) -> Self {
        let nowhere = Endpoint { host: "127.0.0.1".into(), port: 143, security: Security::None };
        let person = Person { address: USER.into(), password: String::new() };
        let set = Set {
            user: person,
            customer: "bob@customers.example.test".into(),
            imap: nowhere,
            authority: None,
            engine,
        };
        let (office, server) = (Office::open(set).await, SignInServer::start());
        office.add_account(&credentials()).await;
        let node = server.node(&office.gateway);
        let world = Self { office, server, node };
        world.sign_in().await;
        world
    }

    /// What the account gets when its user signs in.
    async fn sign_in(&self) {
        let token = self.server.consent(USER);
        let mut tx = self.node.store.begin(self.office.workspace).await.unwrap();
        begin_grant(&mut tx, self.office.account, Some(token.into()), Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn grant(&self) -> Grant {
        let mut session = self.node.store.read(self.office.workspace).await.unwrap();
        session.grant(self.office.account).await.unwrap().unwrap()
    }

    /// The provider takes the access token no more.
    async fn expire(&self) {
        self.server.expire(USER);
        let edition = self.grant().await.edition;
        let mut tx = self.node.store.begin(self.office.workspace).await.unwrap();
        tx.expire_grant(self.office.account, edition, Timestamp::now()).await.unwrap();
        tx.commit().await.unwrap();
    }

    /// The access token is good for a minute more, of the hour that it had.
    async fn grow_old(&self) {
        let Grant { tokens, edition, .. } = self.grant().await;
        let now = Timestamp::now();
        let issued = Issued {
            tokens: &tokens,
            issued_at: now - SignedDuration::from_mins(59),
            expires_at: now + SignedDuration::from_mins(1),
        };
        let mut tx = self.node.store.begin(self.office.workspace).await.unwrap();
        assert_eq!(tx.renew_grant(self.office.account, edition, issued).await.unwrap(), Kept::InPlace);
        tx.commit().await.unwrap();
    }

    /// Nobody waits any longer for an endpoint that was in trouble.
    async fn rested(&self) {
        let grant = self.grant().await;
        let mut tx = self.node.store.begin(self.office.workspace).await.unwrap();
        let now = Timestamp::now();
        tx.rest_grant(self.office.account, grant.edition, now, grant.doubts).await.unwrap();
        tx.commit().await.unwrap();
    }

    async fn token(&self) -> Result<String, Trouble> {
        token(self.node.clone(), &self.office).await
    }

    async fn await_trouble_written_down(&self) {
        let rests = async || self.grant().await.state.retry_at > Timestamp::now();
        eventually("the trouble to be known", PATIENCE, rests).await;
        assert_eq!(self.grant().await.doubts, 0);
    }
}

fn credentials() -> Credentials {
    Credentials::OAuth2 { provider: PROVIDER.into(), username: USER.into() }
}

async fn token(node: Gateway, office: &Office) -> Result<String, Trouble> {
    ask(node, (office.workspace, office.account)).await
}

async fn ask(
    node: Gateway,
    whose: (mailweave::core::ids::WorkspaceId, mailweave::core::ids::AccountId),
) -> Result<String, Trouble> {
    let key = login_of(&node, whose, &credentials()).await.unwrap()?;
    let Login::Bearer { token, username, .. } = key.login else { panic!("no token") };
    assert_eq!(username, USER);
    Ok(token.expose_secret().to_owned())
}

async fn a_thousand_expiries(engine: Engine) {
    let world = World::new(engine).await;
    let nodes: Vec<Gateway> = (0..NODES).map(|_| world.server.node(&world.office.gateway)).collect();
    let whose = (world.office.workspace, world.office.account);
    for expiry in 1..=EXPIRIES {
        let mut users = JoinSet::new();
        for user in 0..AT_ONCE {
            users.spawn(ask(nodes[user % NODES].clone(), whose));
        }
        let tokens: Vec<String> = users.join_all().await.into_iter().map(Result::unwrap).collect();
        assert!(tokens.iter().all(|token| *token == tokens[0]), "{tokens:?}");
        assert!(world.server.is_good(&tokens[0]));
        assert_eq!(world.server.renewals(), expiry, "one renewal for each expiry");
        world.expire().await;
    }
    assert_eq!((world.server.refused(), world.server.asked()), (0, EXPIRIES), "none was shown twice");
}

async fn trouble_costs_nothing(engine: Engine) {
    let world = World::new(engine).await;
    let first = world.token().await.unwrap();
    // While the token is good, whatever the endpoint does is not waited for.
    for fault in [Fault::Status(500), Fault::Silence] {
        world.grow_old().await;
        world.server.fail(fault);
        let asked = world.server.asked();
        let token = tokio::time::timeout(Duration::from_secs(5), world.token()).await.expect("nobody waits");
        assert_eq!(token.unwrap(), first);
        eventually("the endpoint to be asked", PATIENCE, async || world.server.asked() > asked).await;
        world.await_trouble_written_down().await;
        assert_eq!(world.token().await.unwrap(), first);
        assert_eq!(world.server.asked(), asked + 1, "it is left alone");
    }
    // When it is not, the login fails for now, and nobody takes that for the provider's last word.
    world.rested().await;
    world.expire().await;
    world.server.fail(Fault::Status(503));
    let trouble = world.token().await.unwrap_err();
    assert_eq!(trouble.state(), AccountState::Error, "{trouble}");
    world.rested().await;
    // A clock that is wrong: what it says of its tokens is nothing, and they are used all the same.
    world.server.fail(Fault::Clock);
    let token = world.token().await.unwrap();
    assert!(world.server.is_good(&token) && token != first);
    world.server.fail(Fault::None);
    assert_eq!(world.token().await.unwrap(), token);
    assert_eq!((world.server.renewals(), world.server.refused()), (2, 0));
}

async fn the_last_word_is_believed(engine: Engine) {
    let world = World::new(engine).await;
    let token = world.token().await.unwrap();
    world.server.revoke(USER);
    // Nobody has noticed.
    assert_eq!(world.token().await.unwrap(), token);
    world.expire().await;
    let trouble = world.token().await.unwrap_err();
    assert!(matches!(trouble, Trouble::SignIn(_)), "{trouble}");
    assert_eq!(trouble.state(), AccountState::ReauthRequired);
    assert_eq!(world.server.refused(), 3, "it was asked again, in case it was a mistake");
    world.sign_in().await;
    assert!(world.server.is_good(&world.token().await.unwrap()));
}

/// While the token is good there is time to find out whether the provider meant it.
async fn nothing_is_given_up_in_haste(engine: Engine) {
    let world = World::new(engine).await;
    let token = world.token().await.unwrap();
    world.grow_old().await;
    world.server.fail(Fault::Status(400));
    assert_eq!(world.token().await.unwrap(), token);
    eventually("a doubt", PATIENCE, || async { world.grant().await.doubts == 1 }).await;
    let asked_again = world.grant().await.state.retry_at.duration_since(Timestamp::now());
    assert!(asked_again > SignedDuration::from_secs(10), "{asked_again:?}");
    assert_eq!(world.token().await.unwrap(), token);
}

/// A node that was frozen while it renewed, and was given up for dead by another.
async fn what_came_too_late_is_tried_before_the_user_is_asked(engine: Engine) {
    let world = World::new(engine).await;
    world.token().await.unwrap();
    let (account, edition) = (world.office.account, world.grant().await.edition);
    let now = Timestamp::now();
    let lost = Tokens { access: "x".into(), refresh: Some("nobody has given this".into()) };
    let late = world.grant().await.tokens;
    let mut tx = world.node.store.begin(world.office.workspace).await.unwrap();
    let over = |tokens| Issued { tokens, issued_at: now, expires_at: now };
    assert_eq!(tx.renew_grant(account, edition, over(&lost)).await.unwrap(), Kept::InPlace);
    assert_eq!(tx.renew_grant(account, edition, over(&late)).await.unwrap(), Kept::Aside);
    tx.commit().await.unwrap();
    assert!(world.server.is_good(&world.token().await.unwrap()));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_grant_is_renewed_once_for_each_of_a_thousand_expiries_sqlite() {
    a_thousand_expiries(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_grant_is_renewed_once_for_each_of_a_thousand_expiries_postgres() {
    a_thousand_expiries(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_500_a_time_out_and_a_skewed_clock_cost_nothing_sqlite() {
    trouble_costs_nothing(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_500_a_time_out_and_a_skewed_clock_cost_nothing_postgres() {
    trouble_costs_nothing(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_given_up_at_the_providers_last_word_sqlite() {
    the_last_word_is_believed(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_grant_is_given_up_at_the_providers_last_word_postgres() {
    the_last_word_is_believed(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_token_is_good_no_grant_is_given_up_in_haste_sqlite() {
    nothing_is_given_up_in_haste(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn while_a_token_is_good_no_grant_is_given_up_in_haste_postgres() {
    nothing_is_given_up_in_haste(Engine::Postgres).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_came_too_late_saves_a_grant_sqlite() {
    what_came_too_late_is_tried_before_the_user_is_asked(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_answer_that_came_too_late_saves_a_grant_postgres() {
    what_came_too_late_is_tried_before_the_user_is_asked(Engine::Postgres).await;
}
