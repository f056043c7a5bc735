//! The authorization endpoint (RFC 6749 section 3.1): what a client asks for, the page on which a user agrees to all of it or
//! some, and where he is sent back to.
//!
//! Not here: HTTP (`doors`).

use std::fmt::Write as _;

use jiff::Timestamp;
use url::Url;

use super::{
    authority::{Authority, Consent},
    token::Form,
};
use crate::mail::{Address, sanitise::escape};

/// Users on the page; more have to be named by `login_hint`.
const USERS_SHOWN_MAX: usize = 100;
/// Parameters that the page hands on.
const CARRIED: [&str; 8] = [
    "response_type",
    "client_id",
    "redirect_uri",
    "state",
    "nonce",
    "code_challenge",
    "code_challenge_method",
    "login_hint",
];

/// What becomes of a request.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Outcome {
    /// It is not to be trusted: the user is told and sent nowhere (RFC 6749 section 4.1.2.1).
    Refused(&'static str),
    /// The user goes there.
    Redirect(String),
    Page(String),
}

/// A request that can be put to a user.
struct Request {
    redirect_uri: Url,
    challenge: String,
}

impl Authority {
    /// The page, for these users.
    pub(super) fn ask<'a>(&self, form: &Form, users: impl Iterator<Item = &'a Address>) -> Outcome {
        match self.request(form) {
            Ok(_) => Outcome::Page(page(form, users)),
            Err(outcome) => outcome,
        }
    }

    /// What the user has decided. `is_user` tells whether there is such a one.
    pub(super) fn decide(
        &mut self,
        form: &Form,
        is_user: impl FnOnce(&Address) -> bool,
        now: Timestamp,
    ) -> Outcome {
        let Request { redirect_uri, challenge } = match self.request(form) {
            Ok(request) => request,
            Err(outcome) => return outcome,
        };
        if form.get("decision") != "allow" {
            return self.back(redirect_uri, form, &[("error", "access_denied")]);
        }
        let Some(user) = Address::parse(form.get("user")).ok().filter(|user| is_user(user)) else {
            return Outcome::Refused("There is no such user here.");
        };
        let consent = Consent {
            user,
            scopes: form.all("grant").map(str::to_owned).collect(),
            redirect_uri: form.get("redirect_uri").to_owned(),
            challenge,
            nonce: form.some("nonce").map(str::to_owned),
        };
        let code = self.code(consent, now);
        self.back(redirect_uri, form, &[("code", &code)])
    }

    fn request(&self, form: &Form) -> Result<Request, Outcome> {
        if form.get("client_id") != self.settings.client_id {
            return Err(Outcome::Refused("The client_id is unknown here."));
        }
        let redirect_uri = form.get("redirect_uri");
        let parsed = Url::parse(redirect_uri).ok().filter(|_| self.may_return_to(redirect_uri));
        let redirect_uri = parsed.ok_or(Outcome::Refused("The redirect_uri is not one of the client's."))?;
        let refused = |error| Err(self.back(redirect_uri.clone(), form, &[("error", error)]));
        if form.get("response_type") != "code" {
            return refused("unsupported_response_type");
        }
        // RFC 9700 section 2.1.1: without PKCE there is no code; and `plain` proves nothing.
        if form.get("code_challenge").is_empty() || form.get("code_challenge_method") != "S256" {
            return refused("invalid_request");
        }
        if form.get("scope").is_empty()
            && form.all("grant").next().is_none()
            && form.get("decision").is_empty()
        {
            return refused("invalid_scope");
        }
        Ok(Request { redirect_uri, challenge: form.get("code_challenge").to_owned() })
    }

    /// Back to the client with the state and, against mix-ups, who answers (RFC 9207).
    fn back(&self, mut to: Url, form: &Form, answer: &[(&str, &str)]) -> Outcome {
        let mut pairs = to.query_pairs_mut();
        pairs.extend_pairs(answer);
        if let Some(state) = form.some("state") {
            pairs.append_pair("state", state);
        }
        pairs.append_pair("iss", &self.issuer);
        drop(pairs);
        Outcome::Redirect(to.to_string())
    }
}

fn page<'a>(form: &Form, users: impl Iterator<Item = &'a Address>) -> String {
    let hint = form.get("login_hint").to_lowercase();
    let mut html = String::from(
        "<!doctype html><html lang=\"en\"><meta charset=\"utf-8\">\
         <meta name=\"viewport\" content=\"width=device-width,initial-scale=1\"><title>Sandbox provider</title><h1>Sign in at the sandbox provider</h1><form method=\"post\" action=\"/authorize\"><p><label>You are \
         <select name=\"user\">",
    );
    for user in users.take(USERS_SHOWN_MAX) {
        let chosen = if user.key() == hint { " selected" } else { "" };
        let user = escape(user.key());
        write!(html, "<option{chosen} value=\"{user}\">{user}</option>")
            .expect("writing to a String cannot fail");
    }
    html.push_str("</select></label></p><p>The application asks for:</p><ul>");
    for scope in form.get("scope").split_whitespace() {
        let scope = escape(scope);
        let line = format!(
            "<li><label><input type=\"checkbox\" name=\"grant\" value=\"{scope}\" checked> {scope}</label></li>"
        );
        html.push_str(&line);
    }
    html.push_str("</ul>");
    for name in CARRIED {
        if let Some(value) = form.some(name) {
            html.push_str(&format!("<input type=\"hidden\" name=\"{name}\" value=\"{}\">", escape(value)));
        }
    }
    html.push_str(
        "<button name=\"decision\" value=\"allow\">Allow</button> \
         <button name=\"decision\" value=\"deny\">Deny</button></form></html>",
    );
    html
}

#[cfg(test)]
mod tests {
    use super::*;

    const ASKED: &str = "response_type=code&client_id=mailweave&redirect_uri=http%3A%2F%2F127.0.0.1%3A1%2Fcb&state=s%22t&\
        scope=openid+https%3A%2F%2Fmail.google.com%2F&code_challenge=E9Melhoa2OwvFrEMTJguCHaoeK1t8URWbuGJSstw-cM&\
        code_challenge_method=S256";

    fn authority() -> Authority {
        let mut authority = Authority::default();
        authority.issuer = "http://127.0.0.1:2".to_owned();
        authority
    }

    fn form(more: &str) -> Form {
        Form::parse(format!("{ASKED}{more}").as_bytes())
    }

    fn now() -> Timestamp {
        Timestamp::from_second(1_800_000_000).unwrap()
    }

    #[test]
    fn a_request_that_could_send_a_user_anywhere_sends_him_nowhere() {
        for (from, to, expect) in [
            ("client_id=mailweave", "client_id=other", Outcome::Refused("The client_id is unknown here.")),
            (
                "127.0.0.1%3A1",
                "evil.example",
                Outcome::Refused("The redirect_uri is not one of the client's."),
            ),
            (
                "method=S256",
                "method=plain",
                Outcome::Redirect(
                    "http://127.0.0.1:1/cb?error=invalid_request&state=s%22t&iss=http%3A%2F%2F127.0.0.1%3A2".into(),
                ),
            ),
            (
                "response_type=code",
                "response_type=token",
                Outcome::Redirect(
                    "http://127.0.0.1:1/cb?error=unsupported_response_type&state=s%22t&iss=http%3A%2F%2F127.0.0.1%3A2"
                        .into(),
                ),
            ),
        ] {
            let form = Form::parse(ASKED.replace(from, to).as_bytes());
            assert_eq!(authority().ask(&form, std::iter::empty()), expect);
        }
    }

    #[test]
    fn the_page_says_what_is_asked_for_and_cannot_be_broken_out_of() {
        let ann = Address::parse("ann@example.test").unwrap();
        let form = form("&login_hint=Ann@example.test&nonce=%22%3E%3Cscript%3E");
        let Outcome::Page(page) = authority().ask(&form, [&ann].into_iter()) else { panic!("no page") };
        assert!(page.contains("<option selected value=\"ann@example.test\">"), "{page}");
        assert!(page.contains("value=\"https://mail.google.com/\" checked"), "{page}");
        assert!(page.contains("&quot;&gt;&lt;script&gt;") && !page.contains("<script>"), "{page}");
    }

    #[test]
    fn a_user_may_agree_to_less_or_to_nothing() {
        let mut authority = authority();
        let outcome = authority.decide(&form("&decision=deny"), |_| true, now());
        let denied = "http://127.0.0.1:1/cb?error=access_denied&state=s%22t&iss=http%3A%2F%2F127.0.0.1%3A2";
        assert_eq!(outcome, Outcome::Redirect(denied.to_owned()));
        let outcome =
            authority.decide(&form("&decision=allow&user=ann@example.test&grant=openid"), |_| true, now());
        let Outcome::Redirect(to) = outcome else { panic!("{outcome:?}") };
        let to = Url::parse(&to).unwrap();
        let code = to.query_pairs().find(|(name, _)| name == "code").unwrap().1.into_owned();
        let redirect = "http://127.0.0.1:1/cb";
        // The verifier of RFC 7636 appendix B.
        let verifier = "dBjftJeZ4CVP-mB92K27uhbUJU1p1r_wW1gFWFOEjXk";
        assert!(authority.redeem((&code, redirect), "another", now()).is_err());
        let issued = authority.redeem((&code, redirect), verifier, now()).unwrap();
        assert_eq!(issued.scopes, ["openid"]);
        assert!(authority.access(&issued.access_token, now()).is_some());
        assert!(authority.redeem((&code, redirect), verifier, now()).is_err(), "a code is good once");
        assert!(
            authority.access(&issued.access_token, now()).is_none(),
            "and twice means that it was stolen"
        );
    }
}
