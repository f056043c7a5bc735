//! Logging in: passwords, SASL, STARTTLS.
//!
//! Not here: what is open to whoever is in.

use super::{GREETING, LOGIN, World, check_in, drain, provider};
use crate::sandbox::{
    behaviour::Behaviour,
    imap::session::{Security, Session},
};

#[test]
fn nothing_is_shown_before_login_and_guessing_ends() {
    check_in(
        World::default(),
        &format!(
            "{GREETING}
            C: 1 SELECT INBOX
            S: 1 BAD log in first
            C: 2 LOGIN ann@example.test wrong
            S: 2 NO [AUTHENTICATIONFAILED] invalid credentials
            C: 3 LOGIN {{3}}
            S: + go on
            C: bob {{5}}
            S: + go on
            C: wrong
            S: 3 NO [AUTHENTICATIONFAILED] invalid credentials
            C: 4 AUTHENTICATE PLAIN AGFubgB3cm9uZw==
            S: * BYE too many failed logins
            S: 4 NO [AUTHENTICATIONFAILED] invalid credentials
            S: (closed)"
        ),
    );
}

#[test]
fn sasl_works_with_and_without_initial_response() {
    let done =
        LOGIN.lines().find(|line| line.contains("S:")).unwrap_or_default().replace("S: l OK", "S: a OK");
    for exchange in [
        "C: a AUTHENTICATE PLAIN AGFubkBleGFtcGxlLnRlc3QAc2VjcmV0",
        "C: a AUTHENTICATE PLAIN\nS: +\u{20}\nC: AGFubkBleGFtcGxlLnRlc3QAc2VjcmV0",
    ] {
        check_in(World::default(), &format!("{GREETING}\n{exchange}\n{done}"));
    }
}

#[test]
fn a_bad_token_is_explained_before_the_refusal() {
    check_in(
        World::default(),
        &format!(
            "{GREETING}
            C: a AUTHENTICATE XOAUTH2 dXNlcj1hbm5AZXhhbXBsZS50ZXN0AWF1dGg9QmVhcmVyIHQwawEB
            S: + eyJzdGF0dXMiOiI0MDEiLCJzY2hlbWVzIjoiYmVhcmVyIiwic2NvcGUiOiJtYWlsIn0=
            C:
            S: a NO [AUTHENTICATIONFAILED] invalid credentials
            ! token t0k
            C: b NOOP
            S: b OK done
            C: c AUTHENTICATE XOAUTH2 dXNlcj1hbm5AZXhhbXBsZS50ZXN0AWF1dGg9QmVhcmVyIHQwawEB
            {}",
            LOGIN.lines().find(|line| line.contains("S:")).unwrap_or_default().replace("S: l OK", "S: c OK")
        ),
    );
}

#[test]
fn starttls_forgets_what_was_sent_in_clear() {
    let world = World { security: Security::StartTls, ..World::default() };
    check_in(
        world,
        "S: * OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE LITERAL+ STARTTLS LOGINDISABLED] Mailweave sandbox ready
        C: 1 LOGIN ann@example.test secret
        S: 1 NO [PRIVACYREQUIRED] passwords are taken only after STARTTLS
        C: 2 STARTTLS
        S: 2 OK begin TLS
        S: (starttls)
        C: 3 LOGIN ann@example.test secret
        S: 3 OK [CAPABILITY IMAP4rev1 SASL-IR ID ENABLE LITERAL+ UNSELECT NAMESPACE CHILDREN IDLE UIDPLUS MOVE SPECIAL-USE CONDSTORE QRESYNC] logged in",
    );
    let provider = provider(Behaviour::default());
    let mut session = Session::new(&provider, Security::StartTls);
    let mut said = Vec::new();
    session.receive(b"1 STARTTLS\r\n2 NOOP\r\n");
    drain(&mut session, &mut said);
    assert!(!String::from_utf8_lossy(&said).contains("2 OK"));
}
