//! SIGTERM under load: the work in hand is finished, and nothing acknowledged is lost or left in doubt.
//!
//! Not here: ends that nobody asked for (`kill`).

use std::{net::TcpStream, time::Duration};

use mailweave::sandbox::{Act, Service, Trigger};

use crate::{
    load::{Door, Ledger, Load, offer},
    peer::{Peer, stuffed},
    proof::prove,
    support::{PATIENCE, wait_for},
    world::{STOP_MAX, Setup, World},
};

#[tokio::test(flavor = "multi_thread")]
async fn a_stop_under_load_leaves_nothing_in_doubt() {
    let mut world = World::build(Setup::default()).await;
    let load = Load::begin(&world);
    for _ in 0..3 {
        load.ledger.grown_to(load.ledger.len() + 40).await;
        world.gateway.terminate();
        let status = world.gateway.ended(STOP_MAX).await;
        assert!(status.success(), "{status}\n{}", world.gateway.log_tail());
        world.gateway.start();
        world.gateway.ready().await;
    }
    let ledger = load.finish().await;
    let figures = prove(&world, &ledger).await;
    assert_eq!(figures.uncertain, 0, "whoever is asked to stop finishes what he has begun");
    println!("{figures}");
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_half_received_and_half_sent_at_the_stop_is_finished() {
    let (mut world, ledger) = (World::build(Setup::default()).await, Ledger::default());
    let captured = offer(&world.users, (Door::Capture, 0), 0);
    let submitted = offer(&world.users, (Door::Submission, 0), 0);
    // The provider has the message and takes its time to say so.
    let slow = Trigger::next(Service::Submission, "DOT");
    world.provider().arm(slow, Act::Linger(Duration::from_secs(2)));
    let mut crm = Peer::log_in(world.gateway.at.submission, &world.tls, ("acme", &world.key)).await.unwrap();
    let reply = crm.transaction(&submitted.user.email, &submitted.to, &submitted.raw).await.unwrap();
    ledger.note(&submitted, &reply.key());
    let mut sender = Peer::connect(world.gateway.at.mx).await.unwrap();
    let reply = sender
        .begin(&captured.user.email, std::slice::from_ref(&captured.user.capture_address))
        .await
        .unwrap();
    assert_eq!(reply.code, 354);
    let data = stuffed(&captured.raw);
    let (begun, rest) = data.split_at(data.len() / 2);
    sender.write(begun).await.unwrap();
    wait_for("the final dot to reach the provider", PATIENCE, || {
        world.provider().said().iter().any(|said| said.verb == "DOT")
    });

    world.gateway.terminate();
    let mx = world.gateway.at.mx;
    wait_for("the listener to close", PATIENCE, || TcpStream::connect(mx).is_err());
    sender.write(rest).await.unwrap();
    sender.write(b".\r\n").await.unwrap();
    ledger.note(&captured, &sender.reply().await.unwrap().key());
    assert_eq!(sender.reply().await.unwrap().code, 421, "no further transaction is begun");
    let status = world.gateway.ended(STOP_MAX).await;
    assert!(status.success(), "{status}");

    world.gateway.start();
    world.gateway.ready().await;
    assert_eq!(prove(&world, &ledger).await.uncertain, 0);
    world.audit().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_second_process_on_the_same_store_is_refused() {
    let world = World::build(Setup::default()).await;
    let log = world.gateway.log().len();
    let status = world.gateway.command("serve").status().unwrap();
    assert_eq!(status.code(), Some(1));
    let said = world.gateway.log()[log..].to_owned();
    let error = said.split_once("mailweave: ").expect("an error is told").1;
    assert!(error.contains("store.url") && error.contains("another process has the store open"), "{error}");
    world.api.get("/workspaces/acme").await;
}
