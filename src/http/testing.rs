//! An API over a store of a test, without a listener and without anybody at work behind it.
//!
//! Not here: requests. Those are made over loopback, in the tests beside the library.

use std::{
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use tokio_util::sync::CancellationToken;

use super::{Api, ApiState, Discovery, HostRule};
use crate::{
    account::{Discovered, ProviderDialer, oauth::Providers},
    coord::Coord,
    core::attribution::OurDomains,
    flow::{Gateway, Keyring, LoopBrake, Settings, login::SignIn, sync::Followers},
    imap,
    net::{self, Egress, Resolver},
    queue::Queue,
    smtp,
    store::Store,
    webhook::Poster,
};

pub(super) fn api(store: Store) -> Api {
    net::install_provider();
    let state = ApiState {
        gateway: gateway(store),
        admin_key: None,
        ready: Arc::new(AtomicBool::new(true)),
        metrics: Arc::new(String::new),
        public_url: None,
        own_url: "http://127.0.0.1/".parse().unwrap(),
        discovery: Discovery::new(|_| Box::pin(std::future::ready(Discovered::default()))),
        plain_hosts: HostRule::of(Resolver::System, Egress::default()),
        message_bytes_max: 36 << 20,
        shutdown_grace: Duration::from_secs(1),
    };
    Api::new(state, CancellationToken::new())
}

fn gateway(store: Store) -> Gateway {
    let tls = net::client_config(None).unwrap();
    let nowhere =
        net::Resolve::new(|_| Box::pin(std::future::ready(Err(std::io::ErrorKind::PermissionDenied.into()))));
    let webhooks = Poster::new(nowhere, &tls).unwrap();
    let dialer = net::Dialer::new(Resolver::System, Egress::default(), tls, Duration::from_secs(5));
    let (limits, deadlines) = (imap::Limits::default(), imap::Deadlines::default());
    let dialer = ProviderDialer::new(dialer, limits, deadlines, smtp::Timeouts::default());
    let settings = Settings {
        node: "node".into(),
        hostname: "gateway.example.com".into(),
        ours: OurDomains::default(),
        trusted_peers: Vec::new(),
        trusted_sealers: Vec::new(),
        loop_key: [9; 32],
        submission_lifetime: Duration::from_secs(3600),
        reconcile_waits: Vec::new(),
        sent_copy_wait: Duration::from_secs(60),
        sync_poll: Duration::from_secs(60),
        idle_renew: Duration::from_secs(600),
        message_bytes_max: 36 << 20,
        accounts_max: 10,
        job_lease: Duration::from_secs(60),
    };
    Gateway {
        queue: Queue::new(store.clone()),
        coord: Coord::local(),
        dialer,
        sign_in: SignIn::new(Providers::default()),
        webhooks,
        followers: Followers::default(),
        brake: LoopBrake::default(),
        senders: crate::flow::sender::SenderChecker::default(),
        reply_keys: Keyring::default(),
        settings: Arc::new(settings),
        store,
    }
}
