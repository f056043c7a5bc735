//! Accounts, their mailboxes, and who works them.

use std::time::{Duration, Instant};

use jiff::SignedDuration;

use super::{
    super::{AccountFilter, Lease, testing::both},
    *,
};
use crate::core::account::{AccountError, Progress};

const WORKED: [AccountState; 2] = [AccountState::Active, AccountState::Connecting];

fn lease(owner: &str, now: i64) -> Lease<'_> {
    Lease { owner, now: at(now), lasts: SignedDuration::from_secs(30) }
}

both! {
    async fn an_account_is_read_back_and_its_secret_opens(world) {
        let place = Place::new(&world).await;
        let user = place.user("ann@example.com").await;
        let mut account = an_account(user, "ann@example.com");
        let mut tx = place.tx().await;
        tx.insert_account(&account, &password("first")).await.unwrap();
        tx.commit().await.unwrap();
        let mut read = place.read().await;
        assert_eq!(read.account(account.id).await.unwrap().as_ref(), Some(&account));
        assert_eq!(secret_of(&read.credentials(account.id).await.unwrap().unwrap()), "first");
        assert!(read.credentials(mint()).await.unwrap().is_none());
        drop(read);

        let mut tx = place.tx().await;
        tx.replace_credentials(account.id, &password("second")).await.unwrap();
        account.settings.imap.host = "imap.example".into();
        account.email = address("ann@new.example");
        tx.update_account_settings(account.id, &account.email, &account.settings).await.unwrap();
        account.status = AccountStatus {
            state: AccountState::Backfilling,
            since: at(9),
            detail: Some("reading".into()),
            advice: Some("wait".into()),
            last_synced_at: Some(at(8)),
            last_checked_at: Some(at(9)),
            next_attempt_at: Some(at(10)),
            progress: Some(Progress { done: 1, total: 2 }),
        };
        tx.set_account_status(account.id, &account.status).await.unwrap();
        assert_eq!(tx.account(account.id).await.unwrap().as_ref(), Some(&account));
        assert_eq!(secret_of(&tx.credentials(account.id).await.unwrap().unwrap()), "second");
        missing(tx.set_account_status(mint(), &account.status).await);
        missing(tx.replace_credentials(mint(), &password("x")).await);
    }

    async fn a_workspace_has_one_account_an_address(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let other = place.user("bob@example.com").await;
        let mut tx = place.tx().await;
        let twin = an_account(other, "Ann@example.com");
        assert_eq!(conflict(tx.insert_account(&twin, &password("x")).await), "accounts_email_unique");
        drop(tx);
        let mut tx = place.tx().await;
        missing(tx.insert_account(&an_account(mint(), "c@example.com"), &password("x")).await);
        drop(tx);
        let mut read = place.read().await;
        let of = |user| AccountFilter { user: Some(user), state: None };
        let owner = read.account(account).await.unwrap().unwrap().user_id;
        assert_eq!(read.accounts(&all(), &of(owner)).await.unwrap().len(), 1);
        assert!(read.accounts(&all(), &of(other)).await.unwrap().is_empty());
        let state = |state| AccountFilter { user: None, state: Some(state) };
        assert_eq!(read.accounts(&all(), &state(AccountState::Connecting)).await.unwrap().len(), 1);
        assert!(read.accounts(&all(), &state(AccountState::Paused)).await.unwrap().is_empty());
    }

    async fn the_same_error_again_is_counted(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let error = |code: &str, second, count| AccountError {
            at: at(second),
            code: code.to_owned(),
            message: format!("at {second}"),
            advice: "wait".to_owned(),
            count,
        };
        let mut tx = place.tx().await;
        for entry in [error("login", 1, 1), error("dns", 2, 1), error("login", 3, 2)] {
            tx.log_account_error(account, &entry).await.unwrap();
        }
        assert_eq!(tx.account_errors(account).await.unwrap(), [error("login", 3, 3), error("dns", 2, 1)]);
        missing(tx.log_account_error(mint(), &error("dns", 1, 1)).await);
    }

    async fn a_cursor_moves_on_and_never_back(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let (mut inbox, sent) = (a_mailbox("INBOX", 7), a_mailbox("Sent &AOk-", 8));
        let mut tx = place.tx().await;
        tx.put_mailbox(account, &inbox).await.unwrap();
        tx.put_mailbox(account, &sent).await.unwrap();
        assert_eq!(tx.mailboxes(account).await.unwrap(), [inbox.clone(), sent.clone()]);

        inbox.cursor = Cursor { uid_validity: 7, last_uid: u32::MAX, modseq: 99 };
        inbox.checked_at = at(60);
        tx.advance_cursor(account, b"INBOX", &inbox.cursor, at(60)).await.unwrap();
        inbox.backfill = Backfill { next_uid: 0, done: 9, total: 9 };
        tx.set_backfill(account, b"INBOX", &inbox.backfill).await.unwrap();
        assert_eq!(tx.mailboxes(account).await.unwrap(), [inbox.clone(), sent]);
        let back = Cursor { uid_validity: 7, last_uid: 3, modseq: 99 };
        missing(tx.advance_cursor(account, b"INBOX", &back, at(61)).await);
        let foreign = Cursor { uid_validity: 8, last_uid: u32::MAX, modseq: 99 };
        missing(tx.advance_cursor(account, b"INBOX", &foreign, at(61)).await);
        missing(tx.set_backfill(account, b"Trash", &inbox.backfill).await);

        tx.put_mailbox(account, &a_mailbox("INBOX", 9)).await.unwrap();
        tx.forget_mailbox(account, "Sent &AOk-".as_bytes()).await.unwrap();
        missing(tx.forget_mailbox(account, b"Sent").await);
        assert_eq!(tx.mailboxes(account).await.unwrap(), [a_mailbox("INBOX", 9)]);
    }

    async fn an_account_is_leased_to_one_worker_at_a_time(world) {
        let place = Place::new(&world).await;
        let first = place.account("ann@example.com").await;
        let second = place.account("bob@example.com").await;
        let mut system = world.store.system().await.unwrap();
        let one = system.lease_accounts(lease("a", 0), &WORKED, 1).await.unwrap();
        let two = system.lease_accounts(lease("b", 0), &WORKED, 9).await.unwrap();
        assert_eq!((one.len(), two.len()), (1, 1));
        let mut both = [one[0].account, two[0].account];
        both.sort_unstable();
        assert_eq!(both, [first, second]);
        assert!(system.lease_accounts(lease("c", 29), &WORKED, 9).await.unwrap().is_empty());
        assert_eq!(system.renew_leases(lease("a", 20), &WORKED).await.unwrap(), one);
        // The other has run out: it cannot be renewed, it is for anyone to take.
        assert!(system.renew_leases(lease("b", 30), &WORKED).await.unwrap().is_empty());
        let taken = system.lease_accounts(lease("c", 30), &WORKED, 9).await.unwrap();
        assert_eq!((taken[0].account, taken[0].epoch), (two[0].account, two[0].epoch + 1));
        // Letting go of what is no longer held lets nothing go.
        assert!(!system.release_lease(two[0]).await.unwrap());
        assert_eq!(system.release_leases("b").await.unwrap(), 0);
        assert_eq!(system.release_leases("a").await.unwrap(), 1);
        assert!(system.release_lease(taken[0]).await.unwrap());
        assert_eq!(system.lease_accounts(lease("d", 31), &WORKED, 9).await.unwrap().len(), 2);
    }

    async fn a_paused_account_is_neither_leased_nor_renewed(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let mut system = world.store.system().await.unwrap();
        assert_eq!(system.lease_accounts(lease("a", 0), &WORKED, 9).await.unwrap().len(), 1);
        system.commit().await.unwrap();
        let mut tx = place.tx().await;
        let mut status = tx.account(account).await.unwrap().unwrap().status;
        status.state = AccountState::Paused;
        tx.set_account_status(account, &status).await.unwrap();
        tx.commit().await.unwrap();
        let mut system = world.store.system().await.unwrap();
        assert!(system.renew_leases(lease("a", 1), &WORKED).await.unwrap().is_empty());
        assert!(system.lease_accounts(lease("b", 90), &WORKED, 9).await.unwrap().is_empty());
    }

    async fn a_former_holder_can_write_nothing(world) {
        let place = Place::new(&world).await;
        let account = place.account("ann@example.com").await;
        let take = async |owner: &str, now| {
            // PostgreSQL may still be undoing a transaction that was dropped, and accounts in use are passed over.
            let deadline = Instant::now() + Duration::from_secs(20);
            loop {
                let mut system = world.store.system().await.unwrap();
                let taken = system.lease_accounts(lease(owner, now), &WORKED, 1).await.unwrap();
                system.commit().await.unwrap();
                match taken.first() {
                    Some(leased) => return leased.epoch,
                    None => assert!(Instant::now() < deadline, "nothing to lease"),
                }
            }
        };
        let old = take("a", 0).await;
        place.tx().await.check_epoch(account, old).await.unwrap();
        let new = take("b", 60).await;
        let refused = place.tx().await.check_epoch(account, old).await;
        assert!(matches!(refused, Err(Error::Fenced)), "{refused:?}");
        place.tx().await.check_epoch(account, new).await.unwrap();

        let mut tx = place.tx().await;
        assert_eq!(tx.fence_account(account).await.unwrap(), new + 1);
        tx.commit().await.unwrap();
        assert!(matches!(place.tx().await.check_epoch(account, new).await, Err(Error::Fenced)));
        assert!(matches!(place.tx().await.check_epoch(mint(), 0).await, Err(Error::Fenced)));
        // Fenced off, it is free at once.
        assert_eq!(take("c", 61).await, new + 2);
    }

    async fn workers_that_lease_at_once_share_the_accounts(world) {
        let place = Place::new(&world).await;
        for number in 0..12 {
            place.account(&format!("u{number}@example.com")).await;
        }
        let workers: Vec<_> = (0..6)
            .map(|number| {
                let store = world.store.clone();
                tokio::spawn(async move {
                    let owner = format!("w{number}");
                    let mut held = Vec::new();
                    for _ in 0..4 {
                        let mut system = store.system().await.unwrap();
                        held.extend(system.lease_accounts(lease(&owner, 0), &WORKED, 1).await.unwrap());
                        system.commit().await.unwrap();
                    }
                    held
                })
            })
            .collect();
        let mut held = Vec::new();
        for worker in workers {
            held.extend(worker.await.unwrap());
        }
        assert!(held.iter().all(|leased| leased.epoch == 1));
        let mut accounts: Vec<_> = held.iter().map(|leased| leased.account).collect();
        accounts.sort_unstable();
        accounts.dedup();
        assert_eq!((held.len(), accounts.len()), (12, 12));
    }
}
