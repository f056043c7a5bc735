//! Sessions at one time: no more of an account than its provider bears and the operator wants, whoever of ours they are for; and
//! hosts that keep no other host's accounts waiting.
//!
//! Not here: who gives up his place for whom (`account::places`).

use std::{
    net::{SocketAddr, TcpListener},
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use mailweave::{
    mail::Address,
    sandbox::{Act, Allowance, Behaviour, Service, Trigger},
};
use serde_json::json;

use crate::{
    both,
    crm::{Crm, text},
    sandboxed::{ACME, Sandboxed},
    support::{PATIENCE, Person, wait_for},
    world::{User, endpoint},
};

/// One mailbox that several workspaces have connected, each for a user of its own.
fn connect_everywhere(world: &Sandboxed, person: &Person, provider: &str, count: usize) -> Vec<(Crm, User)> {
    let connected = (0..count).map(|number| {
        let crm = world.gateway.crm(&format!("workspace-{number}")).settle_in();
        let user = User::add(&crm, person.clone(), "Ann Lee");
        let account = json!({
            "user_id": user.id,
            "email": person.address,
            "provider": provider,
            "imap": endpoint(world.running.imap, "none"),
            "smtp": endpoint(world.running.submission, "none"),
            "auth": { "type": "password", "username": person.address, "password": person.password },
        });
        let account = text(&crm.post("/accounts", &account), "id").to_owned();
        crm.await_account(&account);
        (crm, user)
    });
    connected.collect()
}

fn send(crm: &Crm, user: &User, to: &Person) -> String {
    let to = json!([{ "email": to.address }]);
    let message = json!({ "from_user_id": user.id, "to": to, "subject": "Offer", "text": "Hello." });
    text(&crm.post("/messages", &message), "id").to_owned()
}

/// Takes every connection and never says a word.
fn silent_host(address: &str) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind((address, 0)).unwrap();
    let (at, count) = (listener.local_addr().unwrap(), Arc::new(AtomicUsize::new(0)));
    let taken = Arc::clone(&count);
    std::thread::spawn(move || {
        let mut kept = Vec::new();
        for stream in listener.incoming() {
            kept.extend(stream.ok());
            taken.store(kept.len(), Ordering::SeqCst);
        }
    });
    (at, count)
}

both! {
    fn twenty_submissions_at_once_are_three_at_a_time_where_the_provider_takes_three(engine) {
        let allowance = Allowance { messages: None, ..Allowance::microsoft() };
        let world = Sandboxed::start(engine, Behaviour { allowance, ..Behaviour::microsoft() });
        let (ann, bob) = (world.person(&format!("ann@{ACME}")), world.prospect("bob"));
        let offices = connect_everywhere(&world, &ann, "microsoft", 4);
        let slow = Act::Delay(Duration::from_millis(200));
        world.provider().arm(Trigger::always(Service::Submission, "DOT"), slow);
        let sent: Vec<_> = (0..5)
            .flat_map(|_| offices.iter().map(|(crm, user)| (crm, send(crm, user, &bob))).collect::<Vec<_>>())
            .collect();
        for (crm, message) in &sent {
            crm.await_delivery(message, "sent");
        }
        let address = Address::parse(&ann.address).unwrap();
        assert_eq!(world.provider().most_sessions(&address, Service::Submission), 3);
        assert_eq!(world.heard(Service::Submission, "DOT").len(), 20, "nothing was refused");
        assert!(offices.iter().all(|(crm, _)| crm.events_of("message.deferred").is_empty()));
        assert_eq!(world.provider().inbox(&Address::parse(&bob.address).unwrap()).len(), 20);
    }

    fn errands_and_those_who_listen_share_what_the_operator_allows_an_account(engine) {
        let allowance = Allowance { connections: Some(4), ..Allowance::default() };
        let world = Sandboxed::with(engine, Behaviour { allowance, ..Behaviour::default() }, |config| {
            config.sync.connections_per_account = 4;
        });
        let (ann, bob) = (world.person(&format!("ann@{ACME}")), world.prospect("bob"));
        let offices = connect_everywhere(&world, &ann, "imap", 3);
        let slow = Act::Delay(Duration::from_millis(300));
        world.provider().arm(Trigger::always(Service::Imap, "APPEND"), slow);
        for _ in 0..2 {
            for (crm, user) in &offices {
                let message = send(crm, user, &bob);
                crm.await_delivery(&message, "sent");
            }
        }
        let address = Address::parse(&ann.address).unwrap();
        wait_for("every copy to lie in Sent", PATIENCE, || {
            world.provider().messages(&address, "Sent").len() == 6
        });
        assert_eq!(world.provider().most_sessions(&address, Service::Imap), 4);
        assert_eq!(world.gateway.count("select count(*) from account_errors"), 0);
    }

    fn a_host_that_never_answers_keeps_no_other_hosts_accounts_waiting(engine) {
        const SILENT: usize = 120;
        let world = Sandboxed::start(engine, Behaviour::default());
        let (silent, taken) = silent_host("127.0.0.2");
        let server = json!({ "host": "127.0.0.2", "port": silent.port(), "security": "none" });
        for number in 0..SILENT {
            let address = format!("user{number}@{ACME}");
            let user = User::add(&world.crm, Person { address, password: "secret".to_owned() }, "Somebody");
            user.connect(&world.crm, &server, &server);
        }
        wait_for("the silent host to be asked", PATIENCE, || taken.load(Ordering::SeqCst) >= 20);
        let ann = world.user("ann", "Ann Lee");
        let account = world.connect(&ann);
        world.crm.await_account(&account);
        let taken = taken.load(Ordering::SeqCst);
        assert!(taken < SILENT, "she had to wait for all of them");
    }
}
