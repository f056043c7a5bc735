//! Accounts at IMAP servers that say what none should: their mail is read all the same, or they stop with a state, a cause and
//! an advice, and a healthy account beside them notices nothing.
//!
//! Each thing that servers say wrong is the account's server for as long as it is followed. Not here: what the client makes of
//! each of them alone (`imap_vectors`), and memory (`crash::hostile`).

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    time::Duration,
};

use jiff::{SignedDuration, Timestamp};
use serde_json::{Value, json};

use crate::{
    both,
    corpus::{id, octets, vectors},
    crm::{Crm, text},
    gateway::Gateway,
    letter::Letter,
    support::{
        PATIENCE, Person,
        imap_peer::{Asked, ImapPeer, Say},
        store::Engine,
        tls::Authority,
        wait_for,
    },
    world::{User, endpoint},
};

const BOB: &str = "bob@prospects.example";
/// What the whole process, the servers in it too, may come to need over all of this.
const GROWTH_BYTES_MAX: u64 = 192 * 1024 * 1024;
/// What a password with everything in it that needs a literal looks like.
const ODD_PASSWORD: &str = "pä\\\"";

/// What becomes of the account.
#[derive(Debug, Clone, Copy)]
enum Then {
    /// Its mail is read.
    GoesOn,
    /// The first message cannot be had, and is decided on by this rule; what lies behind it is read.
    Without(&'static str),
    /// It is in this state, over this; and goes on once its server does better, where somebody asks it to.
    Stops(&'static str, &'static str),
}

/// What a server says wrong, and what comes of it.
struct Case {
    /// The beginning of what it answers so.
    at: &'static str,
    how: How,
    then: Then,
}

enum How {
    /// Says it first where it is untagged, and instead of the answer where it is tagged.
    Says,
    Instead,
    /// Changes what would have been right, given what it says.
    Changes(fn(String, &str) -> String),
    /// Never ends the line.
    Endless,
    Hides,
}

fn case(name: &str) -> Option<Case> {
    use How::{Changes, Endless, Hides, Instead, Says};
    use Then::{GoesOn, Stops, Without};
    let (at, how, then) = match name {
        "capability-no-space" => ("GREETING", Instead, GoesOn),
        "leading-nul" | "own-greeting" => ("GREETING", Instead, GoesOn),
        "capability-dup-eq" => {
            ("CAPABILITY", Changes(|_, said| format!("{said}{{tag}} OK done\r\n")), GoesOn)
        }
        "compress-after" => {
            ("CAPABILITY", Changes(|right, _| right.replace(" IDLE", " IDLE COMPRESS=DEFLATE")), GoesOn)
        }
        "bye-instead-of-greeting" | "own-bye" => ("GREETING", Instead, Stops("throttled", "throttled")),
        "gmail-connections" | "dovecot-userip" | "own-too-many" => {
            ("LOGIN", Says, Stops("throttled", "throttled"))
        }
        "gmail-app-password" | "gmail-invalid-creds" | "own-refused-login" => {
            ("LOGIN", Says, Stops("reauth_required", "credentials"))
        }
        "login-literal-needed" => ("nothing", Says, GoesOn),
        "o365-not-connected" => ("LIST", Says, Stops("reauth_required", "not_enabled")),
        "o365-throttle" | "own-throttle" => ("LIST", Says, Stops("throttled", "throttled")),
        "bye-session-expired" | "own-bye-later" => ("LIST", Instead, Stops("error", "unreachable")),
        "line-endless" | "own-endless-line" => ("LIST", Endless, Stops("error", "misbehaving")),
        "list-nil-delim" | "list-nonselect-nonexistent" | "list-utf8-raw" => ("LIST", Says, GoesOn),
        "list-inbox-case" => ("LIST", Changes(|right, _| right.replace("INBOX", "Inbox")), GoesOn),
        "special-use-dup" => {
            ("LIST", Changes(|right, said| right.replace("* LIST (\\Sent) \"/\" Sent\r\n", said)), GoesOn)
        }
        "namespace-odd" | "lf-only" => ("ID", Says, GoesOn),
        "uidvalidity-0" => {
            ("EXAMINE", Changes(|right, _| right.replace("[UIDVALIDITY 7]", "[UIDVALIDITY 0]")), GoesOn)
        }
        "uidnext-missing" => ("EXAMINE", Changes(|right, _| without_line(&right, "UIDNEXT")), GoesOn),
        "readonly-select" => {
            ("EXAMINE", Changes(|right, said| right.replace("{tag} OK done\r\n", said)), GoesOn)
        }
        "flags-trailing-space" => ("EXAMINE", Says, GoesOn),
        "search-empty" => {
            ("UID SEARCH", Changes(|right, _| right.replace("SEARCH \r\n", "SEARCH\r\n")), GoesOn)
        }
        "esearch" => ("UID SEARCH", Changes(extended), GoesOn),
        "esearch-nouid" | "own-sequence-numbers" => ("UID SEARCH", Instead, Stops("error", "misbehaving")),
        "bs-empty-quotes" | "bs-nil-in-params" | "bs-related-nil" | "labels-nil" | "literal8"
        | "modseq-64" | "fetch-unasked" | "own-unasked" => ("UID FETCH", Says, GoesOn),
        // They are asked for one at a time then.
        "uid-descending" | "own-descending" => ("UID FETCH 1:3 (UID FLAGS", Instead, GoesOn),
        "exchange-missing-uid" | "exchange-substitute" | "own-excuse" | "body-nil" => {
            ("UID FETCH 1 (UID BODY.PEEK[]", Instead, Without("unreadable_at_provider"))
        }
        "yahoo-fetch-no" | "own-fetch-no" => {
            ("UID FETCH 1 (UID BODY.PEEK[]", Says, Without("unreadable_at_provider"))
        }
        "fetch-items-after-paren" | "own-broken-fetch" => {
            ("UID FETCH 1 (UID BODY.PEEK[]", Instead, Without("unreadable_at_provider"))
        }
        "continuation-bare" | "idle-continuation-late" => ("IDLE", Instead, GoesOn),
        "idle-29min" => ("IDLE", Hides, GoesOn),
        _ => return None,
    };
    Some(Case { at, how, then })
}

/// Ours, a few of each class, so that there is something to say without the corpus.
fn own() -> Vec<(String, Vec<u8>)> {
    let excuse =
        "Subject: Retrieval using the IMAP4 protocol failed for the following message: 1\r\n\r\nsorry\r\n";
    [
        ("own-greeting", "* OK [CAPABILITY IMAP4rev1 IDLE X-\u{1}] hello\r\n".to_owned()),
        ("own-bye", "* BYE Too many connections from here\r\n".to_owned()),
        ("own-too-many", "a1 NO [LIMIT] one too many\r\n".to_owned()),
        ("own-refused-login", "a1 NO [AUTHENTICATIONFAILED] who are you?\r\n".to_owned()),
        (
            "own-throttle",
            "a1 NO Request is throttled. Suggested Backoff Time: 120000 milliseconds\r\n".to_owned(),
        ),
        ("own-bye-later", "* BYE gone fishing\r\n".to_owned()),
        ("own-endless-line", String::new()),
        ("own-sequence-numbers", "* ESEARCH (TAG \"a1\") ALL 1:9\r\na1 OK done\r\n".to_owned()),
        (
            "own-unasked",
            "* 9 FETCH (UID 4000000000 FLAGS (\\Seen))\r\n* 7 EXPUNGE\r\n* VANISHED 1:9\r\n".to_owned(),
        ),
        (
            "own-excuse",
            format!("* 1 FETCH (UID 1 BODY[] {{{}}}\r\n{excuse})\r\na1 OK done\r\n", excuse.len()),
        ),
        ("own-fetch-no", "a1 NO [CANNOT] not today\r\n".to_owned()),
        ("own-broken-fetch", "* 1 FETCH (UID 1 BODY[] {2}\r\nab))) ((\r\na1 OK done\r\n".to_owned()),
        ("own-descending", "* 2 FETCH (UID 2)\r\n* 1 FETCH (UID 1)\r\na1 OK done\r\n".to_owned()),
    ]
    .into_iter()
    .map(|(name, said)| (name.to_owned(), said.into_bytes()))
    .collect()
}

fn without_line(answer: &str, word: &str) -> String {
    answer.split_inclusive('\n').filter(|line| !line.contains(word)).collect()
}

/// What was found, in the words of RFC 9051.
fn extended(right: String, _: &str) -> String {
    let found =
        right.lines().next().unwrap_or_default().trim_start_matches("* SEARCH").trim().replace(' ', ",");
    let all = if found.is_empty() { String::new() } else { format!(" ALL {found}") };
    format!("* ESEARCH (TAG \"{{tag}}\") UID{all}\r\n{{tag}} OK done\r\n")
}

/// What a vector says, its tag being that of the command; and whether it has one.
fn said(bytes: &[u8]) -> (String, bool) {
    let (mut out, mut tagged) = (String::new(), false);
    for line in String::from_utf8_lossy(bytes).split_inclusive('\n') {
        let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
        let is_tag = first.starts_with(['a', 'A'])
            && first.chars().skip(1).all(|c| c.is_ascii_digit())
            && ["OK", "NO", "BAD"].iter().any(|status| rest.starts_with(status));
        tagged |= is_tag;
        out.push_str(&if is_tag { format!("{{tag}} {rest}") } else { line.to_owned() });
    }
    (out, tagged)
}

/// Plays a vector.
fn play(name: &str, bytes: &[u8]) -> impl Fn(&Asked<'_>) -> Say + Send + Sync + 'static {
    let (name, (said, tagged)) = (name.to_owned(), said(bytes));
    move |asked| {
        let Case { at, how, .. } = case(&name).expect("it was found before");
        // STATUS says the same of a mailbox as EXAMINE does.
        if name == "uidvalidity-0" && asked.line.starts_with("STATUS") {
            return Say::Changed(Box::new(|right| right.replace("UIDVALIDITY 7", "UIDVALIDITY 0")));
        }
        if name == "uidnext-missing" && asked.line.starts_with("STATUS") {
            return Say::Changed(Box::new(|right| right.replace("UIDNEXT ", "X-NEXT ")));
        }
        if !asked.line.starts_with(at) {
            return Say::Honestly;
        }
        match how {
            How::Says if !tagged => Say::Before(said.clone().into_bytes()),
            How::Instead if !tagged && !["GREETING", "IDLE"].contains(&at) && !said.contains("BYE") => {
                Say::Instead(format!("{said}{{tag}} OK done\r\n").into_bytes())
            }
            How::Says | How::Instead => Say::Instead(said.clone().into_bytes()),
            How::Changes(change) => {
                let (said, tag) = (said.clone(), asked.tag.to_owned());
                Say::Changed(Box::new(move |right| {
                    let right = right.replace(&format!("{tag} OK"), "{tag} OK");
                    change(right, &said).replace("{tag}", &tag)
                }))
            }
            How::Endless => Say::Endless(b"* OK ".to_vec(), vec![b'A'; 64 * 1024], Duration::ZERO),
            // It idles, and tells of nothing.
            How::Hides => Say::Muted,
        }
    }
}

/// An account at such a server.
struct Patient {
    name: String,
    peer: ImapPeer,
    user: User,
    account: String,
    then: Then,
    /// What lay there before.
    history: Vec<String>,
}

struct Ward {
    crm: Crm,
    gateway: Gateway,
    healthy: Patient,
}

impl Ward {
    fn open(engine: Engine) -> Self {
        let gateway = Gateway::start(engine, &Authority::new(), |config| {
            // A server that says nothing is waited for, but not for minutes.
            config.sync.progress_timeout = Duration::from_secs(3);
        });
        let crm = gateway.crm("acme").settle_in();
        crm.post("/contacts", &json!({ "email": BOB }));
        let peer = gateway.runtime.block_on(ImapPeer::start(|_| Say::Honestly));
        let healthy = admit(&crm, ("healthy", peer), Then::GoesOn);
        let ward = Self { crm, gateway, healthy };
        ward.crm.await_account(&ward.healthy.account);
        ward
    }

    fn admit(&self, name: &str, bytes: &[u8]) -> Patient {
        let then = case(name).unwrap_or_else(|| panic!("{name} is not judged")).then;
        let peer = self.gateway.runtime.block_on(ImapPeer::start(play(name, bytes)));
        // Only of several can the order be wrong.
        let count = if name.ends_with("descending") { 3 } else { 0 };
        let letters = (0..count).map(|_| letter_to(&format!("{name}@acme.example")));
        let history = letters
            .map(|(id, raw)| {
                peer.deliver(&raw);
                id
            })
            .collect();
        Patient { history, ..admit(&self.crm, (name, peer), then) }
    }

    fn status(&self, patient: &Patient) -> Value {
        self.crm.get(&format!("/accounts/{}", patient.account))["status"].clone()
    }

    /// Bob writes to a user: the Message-ID.
    fn write_to(&self, patient: &Patient) -> String {
        let (id, raw) = letter_to(&patient.user.person.address);
        patient.peer.deliver(&raw);
        id
    }

    fn decisions(&self, id: &str) -> Vec<Value> {
        self.crm.list(&format!("/decisions?rfc822_message_id={id}"))
    }

    /// Waits, asking for a look now and then as an impatient user does.
    #[track_caller]
    fn await_with_looks(&self, what: &str, patient: &Patient, mut is_so: impl FnMut() -> bool) {
        let what = format!("{}: {what}", patient.name);
        wait_for(&what, PATIENCE, || {
            let done = is_so();
            if !done && self.status(patient)["state"] == "error" {
                self.crm.try_post(&format!("/accounts/{}/sync", patient.account), &json!({}));
            }
            done
        });
    }

    fn is_filed(&self, id: &str) -> bool {
        self.crm.events_of("message.received").iter().any(|event| event["data"]["rfc822_message_id"] == id)
    }

    #[track_caller]
    fn assert_read(&self, patient: &Patient) {
        let id = self.write_to(patient);
        self.await_with_looks("mail to be read", patient, || self.is_filed(&id));
    }

    fn judge(&self, patient: &Patient) {
        match patient.then {
            Then::GoesOn => {
                self.assert_read(patient);
                self.assert_read(patient);
                for id in &patient.history {
                    self.await_with_looks("history to be read", patient, || !self.decisions(id).is_empty());
                    assert_eq!(self.decisions(id)[0]["rule"], "contact_wrote", "{}", patient.name);
                }
                let state = self.status(patient)["state"].clone();
                assert_eq!(state, "active", "{}", patient.name);
            }
            Then::Without(rule) => self.assert_goes_on_without(patient, rule),
            Then::Stops(state, code) => self.assert_stops(patient, (state, code)),
        }
        assert_eq!(patient.peer.heard("STORE") + patient.peer.heard("UID STORE"), 0, "{}", patient.name);
        assert_eq!(patient.peer.heard("COMPRESS"), 0, "{}", patient.name);
    }

    fn assert_goes_on_without(&self, patient: &Patient, rule: &str) {
        let first = self.write_to(patient);
        let mut decisions = Vec::new();
        self.await_with_looks("the first to be decided on", patient, || {
            decisions = self.decisions(&first);
            !decisions.is_empty()
        });
        assert_eq!((decisions.len(), text(&decisions[0], "rule")), (1, rule), "{}", patient.name);
        self.assert_read(patient);
        assert!(!self.is_filed(&first), "{}", patient.name);
    }

    fn assert_stops(&self, patient: &Patient, (state, code): (&str, &str)) {
        // Some are only met where there is mail.
        let waiting = [self.write_to(patient), self.write_to(patient)];
        let mut status = Value::Null;
        wait_for(&format!("{} to be {state}", patient.name), PATIENCE, || {
            status = self.status(patient);
            status["state"] == state
        });
        for word in ["detail", "advice", "label", "color"] {
            assert!(
                status[word].as_str().is_some_and(|text| !text.is_empty()),
                "{}: {word} in {status}",
                patient.name
            );
        }
        let errors = self.crm.list(&format!("/accounts/{}/errors", patient.account));
        assert!(errors.iter().any(|error| error["code"] == code), "{}: {errors:?}", patient.name);
        let logins = patient.peer.heard("LOGIN");
        match state {
            "throttled" => {
                let until: Timestamp = text(&status, "next_attempt_at").parse().unwrap();
                assert!(
                    until > Timestamp::now() + SignedDuration::from_secs(20),
                    "{}: {status}",
                    patient.name
                );
                return;
            }
            "reauth_required" => {
                assert!(logins <= 2 && status["next_attempt_at"].is_null(), "{}: {status}", patient.name);
                patient.peer.play(|_| Say::Honestly);
                let Person { address, password } = &patient.user.person;
                let auth = json!({ "type": "password", "username": address, "password": password });
                self.crm.patch(&format!("/accounts/{}", patient.account), &json!({ "auth": auth }));
            }
            _ => {
                assert!(status["next_attempt_at"].is_string(), "{}: {status}", patient.name);
                patient.peer.play(|_| Say::Honestly);
            }
        }
        for id in waiting {
            // As history, where it came before the account was there.
            self.await_with_looks("what waited to be read", patient, || !self.decisions(&id).is_empty());
            assert_eq!(self.decisions(&id)[0]["rule"], "contact_wrote", "{}", patient.name);
        }
    }

    /// Nothing that nobody wrote is stored, nothing twice, and nobody's password anywhere.
    fn close(self) {
        self.assert_read(&self.healthy);
        for message in self.crm.messages() {
            assert_eq!(message["author"]["email"], BOB, "{message}");
        }
        let mut told: Vec<String> = self
            .crm
            .events_of("message.received")
            .iter()
            .map(|event| text(&event["data"], "rfc822_message_id").to_owned())
            .collect();
        let count = told.len();
        told.sort();
        told.dedup();
        assert_eq!(told.len(), count, "told twice");
        let everything = self.crm.everything();
        assert!(!everything.contains("pw-") && !everything.contains(ODD_PASSWORD));
        assert_eq!(self.gateway.audit(), Vec::<String>::new());
    }
}

/// Bob's letter to somebody: its Message-ID, and itself.
fn letter_to(address: &str) -> (String, String) {
    let letter = Letter::new(BOB, &[address]);
    let raw = letter.raw().replace('\n', "\r\n");
    (letter.id, raw)
}

fn admit(crm: &Crm, (name, peer): (&str, ImapPeer), then: Then) -> Patient {
    admit_at(crm, (name, peer), "none", then)
}

fn admit_at(crm: &Crm, (name, peer): (&str, ImapPeer), security: &str, then: Then) -> Patient {
    let address = format!("{name}@acme.example");
    let password = format!("pw-{name}");
    let user = User::add(crm, Person { address: address.clone(), password: password.clone() }, name);
    let (username, password) = match name {
        "login-literal-needed" => ("a\"b".to_owned(), ODD_PASSWORD.to_owned()),
        _ => (address.clone(), password),
    };
    let server = endpoint(peer.address, security);
    let account = json!({
        "user_id": user.id, "email": address, "imap": server, "smtp": server,
        "auth": { "type": "password", "username": username, "password": password },
    });
    let account = text(&crm.post("/accounts", &account), "id").to_owned();
    Patient { name: name.to_owned(), peer, user, account, then, history: Vec::new() }
}

/// The most memory that this process has needed so far, in bytes.
fn most_resident_bytes() -> u64 {
    let status = fs::read_to_string("/proc/self/status").unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.trim().trim_end_matches("kB").trim().parse::<u64>().unwrap() * 1024
}

fn treat(engine: Engine, cases: &[(String, Vec<u8>)]) {
    let ward = Ward::open(engine);
    let before = most_resident_bytes();
    let patients: Vec<Patient> = cases.iter().map(|(name, bytes)| ward.admit(name, bytes)).collect();
    ward.assert_read(&ward.healthy);
    // All that goes wrong is told, and not the first of it alone.
    let fares_badly = |patient: &&Patient| {
        let judged = panic::catch_unwind(AssertUnwindSafe(|| ward.judge(patient)));
        if judged.is_err() {
            println!("{}: {} {:?}", patient.name, ward.status(patient), patient.peer.said());
        }
        judged.is_err()
    };
    let badly: Vec<_> = patients.iter().filter(fares_badly).map(|patient| &patient.name).collect();
    assert!(badly.is_empty(), "{badly:?}");
    for (name, wanted) in
        [("special-use-dup", "STATUS \"Sent Items\""), ("login-literal-needed", "LOGIN \"a\\\"b\" {5}")]
    {
        if let Some(patient) = patients.iter().find(|patient| patient.name == name) {
            assert!(patient.peer.heard(wanted) > 0, "{:?}", patient.peer.said());
        }
    }
    // A mailbox without UIDVALIDITY is not read anew again and again.
    if let Some(patient) = patients.iter().find(|patient| patient.name == "uidvalidity-0") {
        assert!(patient.peer.heard("UID FETCH") < 12, "{:?}", patient.peer.said());
    }
    ward.close();
    let grown = most_resident_bytes() - before;
    assert!(grown < GROWTH_BYTES_MAX, "{} MiB more", grown / 1024 / 1024);
}

both! {
    fn what_servers_say_wrong_costs_an_account_no_more_than_it_must(engine) {
        treat(engine, &own());
    }

    fn every_vector_of_servers_leaves_an_account_well_or_says_why_not(engine) {
        let theirs = vectors("imap_server");
        let theirs: Vec<_> = theirs
            .iter()
            .map(|vector| (id(vector).trim_start_matches("imap_server/").to_owned(), octets(vector)))
            .collect();
        if !theirs.is_empty() {
            treat(engine, &theirs);
        }
    }

    fn no_password_is_said_where_tls_was_asked_for_and_cannot_be_had(engine) {
        let ward = Ward::open(engine);
        for (name, greeting, starttls) in [
            ("preauth", "* PREAUTH [CAPABILITY IMAP4rev1 STARTTLS] welcome\r\n", "{tag} OK go on\r\n"),
            ("none", "* OK [CAPABILITY IMAP4rev1] no TLS here\r\n", "{tag} BAD what?\r\n"),
            ("refused", "* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n", "{tag} NO not now\r\n"),
            (
                "injected",
                "* OK [CAPABILITY IMAP4rev1 STARTTLS] hi\r\n",
                "{tag} OK go on\r\n* CAPABILITY IMAP4rev1 AUTH=PLAIN\r\n* OK logged in already\r\n",
            ),
            ("referral", "* BYE [REFERRAL imap://evil.example/] there\r\n", "{tag} OK\r\n"),
        ] {
            let peer = ward.gateway.runtime.block_on(ImapPeer::start(move |asked| match asked.line {
                "GREETING" => Say::Instead(greeting.as_bytes().to_vec()),
                "STARTTLS" => Say::Instead(starttls.as_bytes().to_vec()),
                _ => Say::Honestly,
            }));
            let patient = admit_at(&ward.crm, (name, peer), "starttls", Then::Stops("error", "insecure"));
            wait_for(&format!("{name} to stop"), PATIENCE, || {
                ["error", "throttled"].iter().any(|state| ward.status(&patient)["state"] == *state)
            });
            let errors = ward.crm.list(&format!("/accounts/{}/errors", patient.account));
            let expected = if name == "referral" { "unreachable throttled" } else { "insecure" };
            assert!(expected.contains(text(&errors[0], "code")), "{name}: {errors:?}");
            let said = patient.peer.said();
            assert!(!said.iter().any(|line| line.starts_with("LOGIN") || line.starts_with("AUTH")), "{name}: {said:?}");
        }
        ward.close();
    }
}
