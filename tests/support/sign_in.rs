//! A provider's sign-in server: tokens that are renewed with strict rotation, and the introspection that Dovecot asks
//! (RFC 6749, RFC 7662). It fails when it is told to.
//!
//! Not here: pages that a user signs in at.

use std::{
    collections::{HashMap, HashSet},
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use sha2::{Digest as _, Sha256};
use url::Url;

use base64::{Engine as _, engine::general_purpose::URL_SAFE_NO_PAD};
use mailweave::{
    account::oauth::{OAuthClient, Providers, Registered, Registration, TOKEN_TIMEOUT},
    config::OauthProvider,
    core::provider::{Authorization, TokenMechanism},
    flow::{Gateway, login::SignIn},
    net,
};

/// What the operator calls the provider.
pub const PROVIDER: &str = "provider";
pub const CLIENT: &str = "mailweave";
/// What the provider calls itself.
pub const ISSUER: &str = "https://provider.example";

/// What the token endpoint does wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Fault {
    #[default]
    None,
    /// Answers with this status, and says of the grant what it does not know; also to who gives one back.
    Status(u16),
    /// Takes the request and says nothing.
    Silence,
    /// Does what it is asked at once, and says so after this long.
    Linger(Duration),
    /// Lives in 1970, and says that its tokens last for no time at all.
    Clock,
}

/// What was allowed for a code.
struct Consent {
    user: String,
    scopes: String,
    challenge: String,
    redirect: String,
}

#[derive(Default)]
struct Desk {
    /// Codes that nobody has redeemed.
    codes: HashMap<String, Consent>,
    serial: u64,
    /// Whose they are, and of which consent.
    access: HashMap<String, (String, u64, Instant)>,
    /// How long access tokens last; an hour unless told.
    lasts: Option<Duration>,
    refresh: HashMap<String, (String, u64)>,
    /// Refresh tokens that have been used: whoever shows one again is a thief, or not alone.
    used: HashMap<String, u64>,
    revoked: HashSet<u64>,
    renewals: u64,
    refused: u64,
    asked: u64,
    given_back: u64,
    not_taken_back: u64,
    turned_away: u64,
    /// Says of no token that it is good.
    is_out_of_order: bool,
    /// How many had an address before the one who has it.
    former: HashMap<String, u64>,
    fault: Fault,
}

/// A running server. It ends with the test's process.
#[derive(Clone)]
pub struct SignInServer {
    pub address: SocketAddr,
    desk: Arc<Mutex<Desk>>,
}

impl SignInServer {
    pub fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let server = Self { address: listener.local_addr().unwrap(), desk: Arc::default() };
        let own = server.clone();
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let own = own.clone();
                // A client that hangs up is nobody's concern.
                std::thread::spawn(move || own.serve(stream).ok());
            }
        });
        server
    }

    pub fn url(&self, path: &str) -> String {
        format!("http://{}/{path}", self.address)
    }

    /// A user signs in: the refresh token that he comes back with.
    pub fn consent(&self, user: &str) -> String {
        let mut desk = self.desk();
        desk.serial += 1;
        let consent = desk.serial;
        desk.refresh(user, consent)
    }

    /// A user, sent here by a gateway, allows what he is asked for: the state and the code that he goes back with. `as_who` is the
    /// address he signs in with.
    pub fn allow(&self, asked: &Url, as_who: &str, scopes: &str) -> (String, String) {
        let asked: HashMap<String, String> = asked.query_pairs().into_owned().collect();
        assert_eq!((asked["response_type"].as_str(), asked["client_id"].as_str()), ("code", CLIENT));
        assert_eq!(asked["code_challenge_method"], "S256");
        let mut desk = self.desk();
        desk.serial += 1;
        let code = format!("code-{}", desk.serial);
        let consent = Consent {
            user: as_who.to_owned(),
            scopes: scopes.to_owned(),
            challenge: asked["code_challenge"].clone(),
            redirect: asked["redirect_uri"].clone(),
        };
        desk.codes.insert(code.clone(), consent);
        (asked["state"].clone(), code)
    }

    /// Gives an address to somebody else: who signs in with it from now on is another person.
    pub fn hand_on(&self, user: &str) {
        *self.desk().former.entry(user.to_owned()).or_default() += 1;
    }

    /// Refresh tokens of a user that are good.
    pub fn good(&self, user: &str) -> usize {
        let desk = self.desk();
        desk.refresh
            .values()
            .filter(|(whose, consent)| whose == user && !desk.revoked.contains(consent))
            .count()
    }

    /// Has mail servers turn away good tokens as well, or no longer.
    pub fn set_out_of_order(&self, is_out_of_order: bool) {
        self.desk().is_out_of_order = is_out_of_order;
    }

    /// How long access tokens last from now on.
    pub fn tokens_last(&self, lasts: Duration) {
        self.desk().lasts = Some(lasts);
    }

    /// Logins with tokens that were over.
    pub fn turned_away(&self) -> u64 {
        self.desk().turned_away
    }

    /// Ends the access tokens of a user; what renews them stays good.
    pub fn expire(&self, user: &str) {
        self.desk().access.retain(|_, (whose, ..)| whose != user);
    }

    /// The user, or his admin, withdraws what he has granted.
    pub fn revoke(&self, user: &str) {
        let mut desk = self.desk();
        let consents: Vec<u64> =
            desk.refresh.values().filter(|(whose, _)| whose == user).map(|(_, consent)| *consent).collect();
        desk.revoked.extend(consents);
        desk.access.retain(|_, (whose, ..)| whose != user);
    }

    pub fn fail(&self, fault: Fault) {
        self.desk().fault = fault;
    }

    /// Access tokens given out.
    pub fn renewals(&self) -> u64 {
        self.desk().renewals
    }

    /// Refresh tokens that were not taken.
    pub fn refused(&self) -> u64 {
        self.desk().refused
    }

    /// Requests to the token endpoint, whatever became of them.
    pub fn asked(&self) -> u64 {
        self.desk().asked
    }

    /// Grants that were given back, with the token that was good at that moment.
    pub fn given_back(&self) -> u64 {
        self.desk().given_back
    }

    /// Requests to take one back that failed.
    pub fn not_taken_back(&self) -> u64 {
        self.desk().not_taken_back
    }

    /// Whether it would be let in.
    pub fn is_good(&self, access_token: &str) -> bool {
        self.desk().access.contains_key(access_token)
    }

    /// The operator's registration, for the configuration of a gateway.
    pub fn registration(&self) -> OauthProvider {
        let text = format!(
            "[oauth.{PROVIDER}]\nclient_id = \"{CLIENT}\"\nclient_secret = \"hush\"\nscopes = [\"mail\", \"profile\"]\n\
             needed = [\"mail\"]\nissuer = \"{ISSUER}\"\n\
             authorize_url = \"{}\"\ntoken_url = \"{}\"\nrevoke_url = \"{}\"\n",
            self.url("authorize"),
            self.url("token"),
            self.url("revoke")
        );
        let read = mailweave::config::Config::read(Some((std::path::Path::new("oauth.toml"), &text)), []);
        read.unwrap().config.oauth.0.remove(PROVIDER).unwrap()
    }

    /// A node of the same installation, that knows this provider and nothing of what other nodes have in hand.
    pub fn node(&self, gateway: &Gateway) -> Gateway {
        let dialer = gateway.dialer.net().clone();
        let tls = net::client_config(None).unwrap();
        let web = net::Web::new(net::Resolve::vetted(dialer), &tls, TOKEN_TIMEOUT).unwrap();
        let authorization = Authorization {
            issuer: None,
            says_issuer: false,
            authorize_url: self.url("authorize"),
            token_url: self.url("token"),
            revoke_url: None,
            scopes: vec!["mail".to_owned()],
            needed: Vec::new(),
            mechanism: TokenMechanism::XOAuth2,
            parameters: std::collections::BTreeMap::new(),
        };
        let registration = Registration { client_id: CLIENT.into(), client_secret: Some("hush".into()) };
        let redirect = "http://127.0.0.1/oauth/callback".parse().unwrap();
        let client = OAuthClient::new(authorization, registration, redirect, web).unwrap();
        let registered = Registered { client, imap: None, smtp: None, domains: None };
        let providers = Providers::new([(PROVIDER.to_owned(), registered)].into());
        Gateway { sign_in: SignIn::new(providers), ..gateway.clone() }
    }

    fn desk(&self) -> MutexGuard<'_, Desk> {
        self.desk.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn serve(&self, stream: TcpStream) -> std::io::Result<()> {
        let mut reader = BufReader::new(stream.try_clone()?);
        let mut line = String::new();
        reader.read_line(&mut line)?;
        let path = line.split_whitespace().nth(1).unwrap_or_default().to_owned();
        let mut length = 0;
        loop {
            let mut field = String::new();
            reader.read_line(&mut field)?;
            let field = field.trim().to_ascii_lowercase();
            if field.is_empty() {
                break;
            }
            if let Some(value) = field.strip_prefix("content-length:") {
                length = value.trim().parse().unwrap_or(0);
            }
        }
        let mut body = vec![0; length];
        reader.read_exact(&mut body)?;
        let form: HashMap<String, String> = url::form_urlencoded::parse(&body).into_owned().collect();
        let (status, answer) = match path.as_str() {
            "/token" => {
                let fault = self.fault();
                if fault == Fault::Silence {
                    // Until the client hangs up.
                    return reader.read_to_end(&mut Vec::new()).map(drop);
                }
                self.desk().token(&form, fault)
            }
            "/revoke" => self.desk().withdraw(&form),
            "/introspect" => (200, self.desk().introspect(&form)),
            _ => (404, "{}".to_owned()),
        };
        // Nobody is to wait for the desk meanwhile.
        let fault = self.desk().fault;
        if let ("/token", Fault::Linger(pause)) = (path.as_str(), fault) {
            std::thread::sleep(pause);
        }
        let date = if fault == Fault::Clock { "date: Thu, 01 Jan 1970 00:00:00 GMT\r\n" } else { "" };
        let mut stream = stream;
        write!(
            stream,
            "HTTP/1.1 {status} X\r\ncontent-type: application/json\r\n{date}connection: close\r\ncontent-length: {}\r\n\r\n{answer}",
            answer.len()
        )
    }

    fn fault(&self) -> Fault {
        let mut desk = self.desk();
        desk.asked += 1;
        desk.fault
    }
}

impl Desk {
    fn refresh(&mut self, user: &str, consent: u64) -> String {
        self.serial += 1;
        let token = format!("refresh-{}", self.serial);
        self.refresh.insert(token.clone(), (user.to_owned(), consent));
        token
    }

    fn token(&mut self, form: &HashMap<String, String>, fault: Fault) -> (u16, String) {
        if let Fault::Status(status) = fault {
            return (status, r#"{"error":"invalid_grant"}"#.to_owned());
        }
        let asked = |name: &str| form.get(name).map(String::as_str).unwrap_or_default();
        let mut more = String::new();
        let (user, consent) = match asked("grant_type") {
            "authorization_code" => match self.codes.remove(asked("code")).filter(|of| of.is_met_by(form)) {
                Some(allowed) => {
                    self.serial += 1;
                    let former = self.former.get(&allowed.user).copied().unwrap_or_default();
                    let identity = identity(&allowed.user, former);
                    more = format!(r#","scope":"{}","id_token":"{identity}""#, allowed.scopes);
                    (allowed.user, self.serial)
                }
                None => return (400, r#"{"error":"invalid_grant"}"#.to_owned()),
            },
            "urn:ietf:params:oauth:grant-type:jwt-bearer" => (subject(asked("assertion")), 0),
            _ => match self.redeem(asked("refresh_token")) {
                Some(found) => found,
                None => {
                    self.refused += 1;
                    return (400, r#"{"error":"invalid_grant"}"#.to_owned());
                }
            },
        };
        self.renewals += 1;
        self.serial += 1;
        let access = format!("access-{}", self.serial);
        let lasts = self.lasts.unwrap_or(Duration::from_secs(3600));
        self.access.insert(access.clone(), (user.clone(), consent, Instant::now() + lasts));
        let lasts = if fault == Fault::Clock { 0 } else { lasts.as_secs() };
        let refresh = match consent {
            0 => String::new(),
            consent => format!(r#","refresh_token":"{}""#, self.refresh(&user, consent)),
        };
        (
            200,
            format!(
                r#"{{"access_token":"{access}","token_type":"Bearer","expires_in":{lasts}{refresh}{more}}}"#
            ),
        )
    }

    /// A token is good once. What is shown a second time ends all that came of the same consent.
    fn redeem(&mut self, token: &str) -> Option<(String, u64)> {
        if let Some(consent) = self.used.get(token).copied() {
            self.revoked.insert(consent);
            self.access.retain(|_, (_, of, _)| *of != consent);
        }
        let (user, consent) = self.refresh.remove(token)?;
        self.used.insert(token.to_owned(), consent);
        (!self.revoked.contains(&consent)).then_some((user, consent))
    }

    /// RFC 7009.
    fn withdraw(&mut self, form: &HashMap<String, String>) -> (u16, String) {
        if let Fault::Status(status) = self.fault {
            self.not_taken_back += 1;
            return (status, String::new());
        }
        let found = form.get("token").and_then(|token| self.refresh.remove(token));
        self.given_back += u64::from(found.is_some());
        (200, String::new())
    }

    fn introspect(&mut self, form: &HashMap<String, String>) -> String {
        match form.get("token").and_then(|token| self.access.get(token)) {
            Some((user, _, until)) if Instant::now() < *until && !self.is_out_of_order => {
                format!(r#"{{"active":true,"username":"{user}","scope":"mail"}}"#)
            }
            _ => {
                self.turned_away += 1;
                r#"{"active":false}"#.to_owned()
            }
        }
    }
}

impl Consent {
    /// RFC 7636 section 4.6, RFC 6749 section 4.1.3.
    fn is_met_by(&self, form: &HashMap<String, String>) -> bool {
        let challenge = |verifier: &String| URL_SAFE_NO_PAD.encode(Sha256::digest(verifier.as_bytes()));
        form.get("code_verifier").map(challenge).as_deref() == Some(self.challenge.as_str())
            && form.get("redirect_uri") == Some(&self.redirect)
    }
}

/// Who signed in, without a signature: nobody looks at it where it comes from the provider itself.
fn identity(user: &str, former: u64) -> String {
    let claims = format!(r#"{{"iss":"{ISSUER}","sub":"{user}-{former}","email":"{user}"}}"#);
    format!("e30.{}.", URL_SAFE_NO_PAD.encode(claims))
}

/// In whose name an assertion asks.
fn subject(assertion: &str) -> String {
    let claims = URL_SAFE_NO_PAD.decode(assertion.split('.').nth(1).unwrap()).unwrap();
    let claims: serde_json::Value = serde_json::from_slice(&claims).unwrap();
    claims["sub"].as_str().unwrap().to_owned()
}
