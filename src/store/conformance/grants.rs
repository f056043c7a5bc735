//! What users have granted, and that a grant is renewed by one at a time and never falls back.

use jiff::SignedDuration;

use super::{
    super::{Edition, Issued, Kept, PartedGrant, Tokens, testing::both},
    *,
};
use crate::core::grant::Signer;

fn tokens(n: u32) -> Tokens {
    Tokens { access: format!("access-{n}").into(), refresh: Some(format!("refresh-{n}").into()) }
}

fn issued(tokens: &Tokens, seconds: i64) -> Issued<'_> {
    let issued_at = at(seconds);
    Issued { tokens, issued_at, expires_at: issued_at + SignedDuration::from_hours(1) }
}

fn signer() -> Signer {
    Signer {
        issuer: "https://accounts.example".into(),
        tenant: None,
        subject: "7".into(),
        email: Some(address("ann@example.com")),
    }
}

#[track_caller]
fn is(tokens: &Tokens, n: u32) {
    assert_eq!(tokens.access.expose_secret(), format!("access-{n}"));
    assert_eq!(tokens.refresh.as_ref().unwrap().expose_secret(), format!("refresh-{n}"));
}

async fn edition(tx: &mut Tx, account: AccountId, version: i64) -> Edition {
    Edition { version, ..tx.grant(account).await.unwrap().unwrap().edition }
}

async fn renew(tx: &mut Tx, account: AccountId, version: i64, issued: Issued<'_>) -> Kept {
    let edition = edition(tx, account, version).await;
    tx.renew_grant(account, edition, issued).await.unwrap()
}

async fn claim(tx: &mut Tx, account: AccountId, version: i64, (now, until): (Timestamp, Timestamp)) -> bool {
    let edition = edition(tx, account, version).await;
    tx.claim_renewal(account, edition, now, until).await.unwrap()
}

/// An account with the first tokens, granted at second 0.
async fn granted(place: &Place) -> AccountId {
    let account = place.account("ann@example.com").await;
    let mut tx = place.tx().await;
    tx.put_grant(account, issued(&tokens(1), 0), Some(&signer())).await.unwrap();
    tx.commit().await.unwrap();
    account
}

both! {
    async fn a_grant_is_read_back_and_replaced_by_who_signs_in_anew(world) {
        let place = Place::new(&world).await;
        let account = granted(&place).await;
        let grant = place.read().await.grant(account).await.unwrap().unwrap();
        is(&grant.tokens, 1);
        assert_eq!((grant.signer, grant.edition.version, grant.doubts), (Some(signer()), 1, 0));
        assert_eq!((grant.state.issued_at, grant.state.expires_at), (at(0), at(3600)));
        let mut tx = place.tx().await;
        let of = edition(&mut tx, account, 1).await;
        tx.rest_grant(account, of, at(100), 2).await.unwrap();
        tx.put_grant(account, issued(&tokens(2), 50), None).await.unwrap();
        let grant = tx.grant(account).await.unwrap().unwrap();
        is(&grant.tokens, 2);
        assert_eq!((grant.signer, grant.edition.version, grant.doubts, grant.state.retry_at), (None, 2, 0, at(50)));
        assert!(tx.grant(mint()).await.unwrap().is_none());
        missing(tx.put_grant(mint(), issued(&tokens(1), 0), None).await);
        tx.forget_grant(account).await.unwrap();
        assert!(tx.grant(account).await.unwrap().is_none());
    }

    async fn a_renewal_is_one_mans_work_until_he_has_fallen_silent(world) {
        let place = Place::new(&world).await;
        let account = granted(&place).await;
        let mut tx = place.tx().await;
        assert!(claim(&mut tx, account, 1, (at(10), at(55))).await);
        assert!(!claim(&mut tx, account, 1, (at(54), at(99))).await, "somebody is at it");
        assert!(!claim(&mut tx, account, 1, (at(9), at(54))).await, "who read the clock before him comes too late");
        assert!(claim(&mut tx, account, 1, (at(55), at(100))).await, "he is silent");
        assert_eq!(renew(&mut tx, account, 1, issued(&tokens(2), 60)).await, Kept::InPlace);
        assert!(!claim(&mut tx, account, 1, (at(200), at(245))).await, "it has been done");
        let grant = tx.grant(account).await.unwrap().unwrap();
        is(&grant.tokens, 2);
        assert_eq!((grant.edition.version, grant.candidate.is_none()), (2, true));
        assert!(claim(&mut tx, account, 2, (at(60), at(105))).await);
    }

    async fn an_answer_that_comes_too_late_is_kept_aside(world) {
        let place = Place::new(&world).await;
        let account = granted(&place).await;
        let mut tx = place.tx().await;
        assert_eq!(renew(&mut tx, account, 1, issued(&tokens(2), 60)).await, Kept::InPlace);
        assert_eq!(renew(&mut tx, account, 1, issued(&tokens(3), 61)).await, Kept::Aside);
        let grant = tx.grant(account).await.unwrap().unwrap();
        is(&grant.tokens, 2);
        is(&grant.candidate.unwrap(), 3);
        assert_eq!(renew(&mut tx, account, 2, issued(&tokens(4), 62)).await, Kept::InPlace);
        assert!(tx.grant(account).await.unwrap().unwrap().candidate.is_none(), "what is renewed is believed");
    }

    async fn what_another_sign_in_brings_is_kept_nowhere(world) {
        let place = Place::new(&world).await;
        let account = granted(&place).await;
        let mut tx = place.tx().await;
        let before = edition(&mut tx, account, 1).await;
        for signs_in_anew in [true, false] {
            if signs_in_anew {
                tx.put_grant(account, issued(&tokens(2), 50), None).await.unwrap();
            } else {
                tx.forget_grant(account).await.unwrap();
            }
            assert_eq!(tx.renew_grant(account, before, issued(&tokens(3), 60)).await.unwrap(), Kept::Not);
            tx.rest_grant(account, before, at(99), 3).await.unwrap();
        }
        tx.put_grant(account, issued(&tokens(4), 70), None).await.unwrap();
        let grant = tx.grant(account).await.unwrap().unwrap();
        assert_eq!((grant.edition.version, grant.candidate.is_none(), grant.doubts), (1, true, 0));
        assert_eq!(tx.renew_grant(account, before, issued(&tokens(3), 80)).await.unwrap(), Kept::Not);
        assert!(!tx.claim_renewal(account, before, at(80), at(125)).await.unwrap(), "versions begin anew");
        tx.expire_grant(account, before, at(80)).await.unwrap();
        assert_eq!(tx.grant(account).await.unwrap().unwrap().state, grant.state);
    }

    async fn what_a_person_has_granted_is_in_use_while_any_account_of_his_lives_by_it(world) {
        let (acme, beta) = (Place::new(&world).await, Place::new(&world).await);
        let account = acme.account("new@example.com").await;
        let carl = || Signer { subject: "8".into(), email: Some(address("carl@example.com")), ..signer() };
        let elsewhere = beta.account("SALES@example.com").await;
        let parted = |account: Option<AccountId>, email: &str, signer: Option<Signer>| PartedGrant {
            provider: "office".into(),
            account,
            emails: vec![address(email)],
            signer,
            refresh: "refresh-0".into(),
        };
        // Who signed in for the account in use; what is parted with; whether that is still lived by.
        for (own, other, expect) in [
            (None, parted(Some(account), "old@example.com", None), true),
            (None, parted(Some(account), "old@example.com", Some(signer())), true),
            (Some(carl()), parted(Some(account), "new@example.com", Some(signer())), false),
            (Some(signer()), parted(Some(account), "new@example.com", Some(signer())), true),
            (Some(signer()), parted(None, "else@example.com", Some(signer())), true),
            (Some(signer()), parted(None, "Ann@Example.com", None), true),
            (Some(carl()), parted(None, "ann@example.com", None), false),
            (None, parted(None, "ann@example.com", Some(signer())), false),
            (None, parted(None, "New@example.com", Some(signer())), true),
        ] {
            let mut tx = acme.tx().await;
            tx.put_grant(account, issued(&tokens(1), 0), own.as_ref()).await.unwrap();
            tx.commit().await.unwrap();
            let found = world.store.system_read().await.unwrap().is_still_granted(&other).await.unwrap();
            assert_eq!(found, expect, "{own:?} {other:?}");
        }
        // In another workspace too; not where the account is gone.
        let shared = parted(None, "sales@example.com", None);
        for (state, expect) in [(AccountState::Active, true), (AccountState::Disconnected, false)] {
            let mut tx = beta.tx().await;
            tx.put_grant(elsewhere, issued(&tokens(1), 0), None).await.unwrap();
            let status = AccountStatus { state, ..an_account(mint(), "x@example.com").status };
            tx.set_account_status(elsewhere, &status).await.unwrap();
            tx.commit().await.unwrap();
            let found = world.store.system_read().await.unwrap().is_still_granted(&shared).await.unwrap();
            assert_eq!(found, expect, "{state:?}");
        }
    }

    async fn what_is_to_be_given_back_is_read_back_until_it_is(world) {
        let place = Place::new(&world).await;
        let parted = PartedGrant {
            provider: "office".into(),
            account: Some(mint()),
            emails: vec![address("ann@example.com")],
            signer: Some(signer()),
            refresh: "refresh-0".into(),
        };
        let mut tx = place.tx().await;
        let id = tx.keep_parted_grant(&parted, at(0)).await.unwrap();
        let read = tx.parted_grant(id).await.unwrap().unwrap();
        assert_eq!((&read.provider, read.account, &read.emails), (&parted.provider, parted.account, &parted.emails));
        assert_eq!((read.signer, read.refresh.expose_secret()), (parted.signer, "refresh-0"));
        tx.drop_parted_grant(id).await.unwrap();
        assert!(tx.parted_grant(id).await.unwrap().is_none());
    }

    async fn a_provider_in_trouble_is_left_alone(world) {
        let place = Place::new(&world).await;
        let account = granted(&place).await;
        let mut tx = place.tx().await;
        assert!(claim(&mut tx, account, 1, (at(10), at(55))).await);
        let of = edition(&mut tx, account, 1).await;
        tx.rest_grant(account, of, at(40), 1).await.unwrap();
        assert!(!claim(&mut tx, account, 1, (at(39), at(80))).await);
        assert_eq!(tx.grant(account).await.unwrap().unwrap().doubts, 1);
        assert!(claim(&mut tx, account, 1, (at(40), at(85))).await);
        // Another version's trouble is none of this one's.
        let of = edition(&mut tx, account, 7).await;
        tx.rest_grant(account, of, at(9999), 3).await.unwrap();
        assert_eq!(tx.grant(account).await.unwrap().unwrap().doubts, 1);
    }

    async fn a_doubt_rests_for_long_only_while_there_is_a_token(world) {
        let place = Place::new(&world).await;
        let account = granted(&place).await;
        let mut tx = place.tx().await;
        let of = edition(&mut tx, account, 1).await;
        tx.rest_grant(account, of, at(180), 1).await.unwrap();
        tx.expire_grant(account, of, at(20)).await.unwrap();
        let state = tx.grant(account).await.unwrap().unwrap().state;
        assert_eq!((state.retry_at, state.renewing_until), (at(28), at(28)));
        // Whoever renews it now is left to it.
        assert!(claim(&mut tx, account, 1, (at(30), at(75))).await);
        tx.expire_grant(account, of, at(19)).await.unwrap();
        assert_eq!(tx.grant(account).await.unwrap().unwrap().state.renewing_until, at(75));
    }

    async fn since_when_a_server_takes_no_token_is_kept_until_it_does(world) {
        let place = Place::new(&world).await;
        let account = granted(&place).await;
        let mut tx = place.tx().await;
        assert_eq!(tx.note_unwelcome(account, at(5)).await.unwrap(), Some(at(5)));
        assert_eq!(tx.note_unwelcome(account, at(9)).await.unwrap(), Some(at(5)));
        assert_eq!(tx.grant(account).await.unwrap().unwrap().unwelcome_since, Some(at(5)));
        tx.note_welcome(account).await.unwrap();
        assert_eq!(tx.note_unwelcome(account, at(20)).await.unwrap(), Some(at(20)));
        tx.put_grant(account, issued(&tokens(2), 50), None).await.unwrap();
        assert_eq!(tx.grant(account).await.unwrap().unwrap().unwelcome_since, None);
        assert_eq!(tx.note_unwelcome(mint(), at(1)).await.unwrap(), None);
    }

    async fn a_token_that_is_refused_is_over_for_everybody_who_has_the_same(world) {
        let place = Place::new(&world).await;
        let account = granted(&place).await;
        let mut tx = place.tx().await;
        let of = edition(&mut tx, account, 1).await;
        tx.expire_grant(account, of, at(20)).await.unwrap();
        assert_eq!(tx.grant(account).await.unwrap().unwrap().state.expires_at, at(20));
        assert_eq!(renew(&mut tx, account, 1, issued(&tokens(2), 30)).await, Kept::InPlace);
        let of = edition(&mut tx, account, 1).await;
        tx.expire_grant(account, of, at(40)).await.unwrap();
        assert_eq!(tx.grant(account).await.unwrap().unwrap().state.expires_at, at(3630), "the old one's end is no news");
    }
}
