//! Erasing an account that is cut off wherever it may be: nothing stays, and nothing is counted twice.
//!
//! Not here: what is erased and what stays (`tests/flows`, "life").

use std::time::Duration;

use jiff::Timestamp;
use mailweave::{
    core::{
        account::{AccountState, Endpoint, Security},
        job::{Job, JobKind},
    },
    flow::erase,
    mail::Address,
    sandbox::{Options, Provider},
};

use crate::support::{
    PATIENCE, Person, eventually,
    office::{Office, Set, address, mail},
    store::Engine,
};

const ANN: &str = "ann@users.example.test";
const CUSTOMER: &str = "carol@customers.example.test";
/// More than go in one transaction.
const MESSAGES: usize = 120;

async fn an_erasure_that_is_cut_off(engine: Engine) {
    let sandbox = Provider::start(Options::default()).await.unwrap();
    let ann: Address = address(ANN);
    sandbox.provider.add_user(&ann, "pw").unwrap();
    let imap = Endpoint { host: "127.0.0.1".into(), port: sandbox.imap.port(), security: Security::None };
    let user = Person { address: ANN.to_owned(), password: "pw".to_owned() };
    let set = Set { user, customer: CUSTOMER.to_owned(), imap, authority: None, engine };
    let mut office = Office::open(set).await;
    for number in 0..MESSAGES {
        let raw = mail(CUSTOMER, ANN, &format!("m{number}"), "").replace('\n', "\r\n");
        sandbox.provider.append(&ann, "INBOX", raw.as_bytes(), &[]).unwrap();
    }
    office.connect().await;
    eventually("all to be filed", PATIENCE, async || office.messages().await.len() == MESSAGES).await;
    office.stop().await;

    let mut tx = office.gateway.store.begin(office.workspace).await.unwrap();
    let mut account = tx.account_to_change(office.account).await.unwrap().unwrap();
    erase::begin_account(&mut tx, &mut account, Timestamp::now()).await.unwrap();
    tx.commit().await.unwrap();
    let lease = Duration::from_secs(600);
    let jobs = office.gateway.queue.claim(&[JobKind::Erase], Timestamp::now(), lease, 10).await.unwrap();
    let [job] = &jobs[..] else { panic!("one job: {jobs:?}") };
    assert_eq!(job.job, Job::EraseAccount { account: office.account });

    let (mut cuts, mut patience) = (0, Duration::from_micros(200));
    while office.status().await.state == AccountState::Erasing {
        let erasing = erase::perform_account(&office.gateway, job, office.account);
        match tokio::time::timeout(patience, erasing).await {
            Ok(done) => done.unwrap(),
            Err(_) => (cuts, patience) = (cuts + 1, patience.mul_f64(1.3)),
        }
    }
    assert!(cuts > 3, "{cuts}");
    assert_eq!(office.status().await.state, AccountState::Erased);
    assert_eq!(office.messages().await.len(), 0);
    let mut session = office.gateway.store.read(office.workspace).await.unwrap();
    let receipt = session.receipt(office.account).await.unwrap().unwrap();
    assert_eq!((receipt.messages, receipt.messages_kept), (MESSAGES as u64, 0), "{receipt:?}");
    assert!(receipt.erased_at.is_some() && receipt.bytes > 0, "{receipt:?}");
    drop(session);
    assert_eq!(office.count("account.erased").await, 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_is_cut_off_anywhere_ends_and_counts_right() {
    an_erasure_that_is_cut_off(Engine::Sqlite).await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_erasure_that_is_cut_off_anywhere_ends_and_counts_right_on_postgresql() {
    an_erasure_that_is_cut_off(Engine::Postgres).await;
}
