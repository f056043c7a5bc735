//! Held mail of a large workspace: what has a way out goes on, however much before it has none.
//!
//! Not here: what else becomes of a user's held mail when he connects an account (`honest`).

use std::time::Duration;

use futures_util::future::join_all;
use mailweave::{
    core::{
        account::{Endpoint, Security},
        submission::SubmissionState,
    },
    flow::submit,
};

use crate::support::{
    Person, eventually,
    office::{Office, Set, login, mail},
    store::Engine,
};

const ANN: &str = "ann@users.example.test";
const BEN: &str = "ben@users.example.test";
const CUSTOMER: &str = "carol@customers.example.test";
/// More than one look takes.
const HEAP: usize = 501;
/// All of it is filed before.
const FILING: Duration = Duration::from_secs(100);

async fn a_heap_without_a_way_out(engine: Engine) {
    let ann = Person { address: ANN.to_owned(), password: "pw".to_owned() };
    let nowhere = Endpoint { host: "127.0.0.1".into(), port: 9, security: Security::None };
    let customer = CUSTOMER.to_owned();
    let set = Set { user: ann.clone(), customer, imap: nowhere, authority: None, engine };
    let mut office = Office::open(set).await;
    office.add_user(BEN).await;
    let heap: Vec<String> = (0..HEAP).map(|n| mail(BEN, CUSTOMER, &format!("ben-{n}"), "")).collect();
    let heap = join_all(heap.iter().map(|letter| office.hand_in(CUSTOMER, letter))).await;
    // Held after all the others.
    let last = office.hand_in(CUSTOMER, &mail(ANN, CUSTOMER, "ann", "")).await;
    office.start_jobs();
    let states = async |messages: &[_]| {
        let mut session = office.gateway.store.read(office.workspace).await.unwrap();
        let found = session.submissions(messages).await.unwrap();
        found.values().filter(|found| found.state == SubmissionState::Held).count()
    };
    let all = [&heap[..], &[last]].concat();
    eventually("all to be held", FILING, async || states(&all).await == all.len()).await;
    office.stop().await;
    office.add_account(&login(&ann)).await;
    submit::release_all_held(&office.gateway, office.workspace).await.unwrap();
    let mut session = office.gateway.store.read(office.workspace).await.unwrap();
    let found = session.submission(last).await.unwrap().unwrap();
    assert_eq!((found.state, found.account), (SubmissionState::Queued, Some(office.account)));
    assert_eq!(session.submissions_held(None, (None, 1000)).await.unwrap().len(), HEAP);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_a_way_out_goes_on_behind_a_heap_that_has_none() {
    a_heap_without_a_way_out(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_has_a_way_out_goes_on_behind_a_heap_that_has_none_on_postgresql() {
    a_heap_without_a_way_out(Engine::Postgres).await;
}
