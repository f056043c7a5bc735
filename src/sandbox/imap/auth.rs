//! Capabilities and authentication: LOGIN, PLAIN, and bearer tokens by XOAUTH2 and OAUTHBEARER.
//!
//! Not here: who may log in (`state`).

use base64::{Engine, prelude::BASE64_STANDARD};
use imap_codec::{AuthenticateDataCodec, decode::Decoder};
use imap_types::auth::{AuthMechanism, AuthenticateData};

use jiff::Timestamp;

use super::session::{Answer, LOGIN_FAILURES_MAX, Security, Session};
use super::view::Expunges;
use crate::{
    mail::Address,
    sandbox::behaviour::{Manner, Service},
};

/// An exchange that waits for the client's line.
pub(super) struct Sasl {
    tag: String,
    stage: Stage,
}

enum Stage {
    Plain,
    Bearer,
    /// The error has been sent; the client owes an empty line before the tagged NO (RFC 7628 section 3.2.3).
    BearerRefused,
}

impl Session {
    /// The capabilities of this moment.
    pub(super) fn capabilities(&self) -> String {
        let has = self.extensions;
        let mut words = vec!["IMAP4rev1", "SASL-IR", "ID", "ENABLE"];
        if has.literal_plus {
            words.push("LITERAL+");
        }
        if self.user.is_none() {
            match self.security {
                Security::StartTls => words.extend(["STARTTLS", "LOGINDISABLED"]),
                Security::None | Security::Tls => {
                    words.extend(["AUTH=PLAIN", "AUTH=XOAUTH2", "AUTH=OAUTHBEARER"])
                }
            }
            return words.join(" ");
        }
        words.extend(["UNSELECT", "NAMESPACE", "CHILDREN"]);
        let optional = [
            (has.idle, "IDLE"),
            (has.uidplus, "UIDPLUS"),
            (has.r#move, "MOVE"),
            (has.special_use, "SPECIAL-USE"),
            (has.condstore, "CONDSTORE"),
            (has.condstore && has.qresync, "QRESYNC"),
            (self.manner == Manner::Google, "X-GM-EXT-1"),
        ];
        words.extend(optional.into_iter().filter(|(offered, _)| *offered).map(|(_, word)| word));
        words.join(" ")
    }

    pub(super) fn log_in(&mut self, name: &[u8], password: &[u8]) -> Answer {
        if let Some(refusal) = self.may_not_log_in() {
            return refusal;
        }
        let (name, password) = (String::from_utf8_lossy(name), String::from_utf8_lossy(password));
        let user = self.provider.with(|world| world.log_in(&name, &password));
        self.log_in_as(user.map(|user| (user, None)))
    }

    pub(super) fn authenticate(
        &mut self,
        tag: &str,
        mechanism: &AuthMechanism<'_>,
        initial: Option<&[u8]>,
    ) -> Answer {
        if let Some(refusal) = self.may_not_log_in() {
            return refusal;
        }
        let stage = match mechanism {
            AuthMechanism::Plain => Stage::Plain,
            AuthMechanism::XOAuth2 | AuthMechanism::OAuthBearer => Stage::Bearer,
            _ => return Answer::no("that mechanism is not offered"),
        };
        let sasl = Sasl { tag: tag.to_owned(), stage };
        match initial {
            Some(response) => self.sasl_response(sasl, response),
            None => {
                self.output.extend_from_slice(b"+ \r\n");
                self.expect_sasl(sasl);
                Answer::Pending
            }
        }
    }

    /// The client's line of an exchange.
    pub(super) fn sasl_line(&mut self, sasl: Sasl, line: &[u8]) {
        let tag = sasl.tag.clone();
        let answer = match AuthenticateDataCodec::default().decode(line) {
            Ok(([], AuthenticateData::Continue(response))) => self.sasl_response(sasl, response.declassify()),
            Ok(([], AuthenticateData::Cancel)) => Answer::bad("cancelled"),
            _ => Answer::bad("that is no base64"),
        };
        self.finish(&tag, Expunges::Tell, answer);
    }

    fn sasl_response(&mut self, sasl: Sasl, response: &[u8]) -> Answer {
        let text = String::from_utf8_lossy(response).into_owned();
        match sasl.stage {
            Stage::Plain => {
                // RFC 4616: authorization identity, authentication identity, password.
                let mut parts = text.splitn(3, '\0').skip(1);
                let (name, password) = (parts.next().unwrap_or_default(), parts.next().unwrap_or_default());
                let user = self.provider.with(|world| world.log_in(name, password));
                self.log_in_as(user.map(|user| (user, None)))
            }
            Stage::Bearer => {
                let (name, token) = bearer(&text);
                let user = self
                    .provider
                    .with(|world| world.log_in_with_token(Service::Imap, name, token, Timestamp::now()));
                if user.is_some() {
                    return self.log_in_as(user);
                }
                let error = BASE64_STANDARD.encode(r#"{"status":"401","schemes":"bearer","scope":"mail"}"#);
                self.output.extend_from_slice(format!("+ {error}\r\n").as_bytes());
                self.expect_sasl(Sasl { stage: Stage::BearerRefused, ..sasl });
                Answer::Pending
            }
            Stage::BearerRefused => self.log_in_as(None),
        }
    }

    fn may_not_log_in(&self) -> Option<Answer> {
        if self.user.is_some() {
            return Some(Answer::bad("you are logged in already"));
        }
        (self.security == Security::StartTls)
            .then(|| Answer::no("[PRIVACYREQUIRED] passwords are taken only after STARTTLS"))
    }

    fn log_in_as(&mut self, user: Option<(Address, Option<Timestamp>)>) -> Answer {
        let Some((user, expires_at)) = user else {
            self.login_failures += 1;
            if self.login_failures >= LOGIN_FAILURES_MAX {
                self.bye("too many failed logins");
            }
            return Answer::no(match self.manner {
                Manner::Plain => "[AUTHENTICATIONFAILED] invalid credentials",
                Manner::Google => "[AUTHENTICATIONFAILED] Invalid credentials (Failure)",
                Manner::Microsoft => "AUTHENTICATE failed.",
            });
        };
        if let Err(words) = self.enter(user, expires_at) {
            if self.manner == Manner::Microsoft {
                self.bye(&words);
            }
            return Answer::No(words);
        }
        Answer::Ok(format!("[CAPABILITY {}] logged in", self.capabilities()))
    }
}

/// User and token of an XOAUTH2 or OAUTHBEARER response: `user=`, or `a=` of the GS2 header, and `auth=Bearer `.
fn bearer(text: &str) -> (Option<&str>, &str) {
    let mut fields = text.split(['\x01', ',']).map(str::trim);
    let name =
        fields.clone().find_map(|field| field.strip_prefix("user=").or_else(|| field.strip_prefix("a=")));
    let token = fields.find_map(|field| field.strip_prefix("auth=")).unwrap_or_default();
    let (scheme, token) = token.split_once(' ').unwrap_or_default();
    (name.filter(|name| !name.is_empty()), if scheme.eq_ignore_ascii_case("bearer") { token } else { "" })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_bearer_forms_are_read() {
        assert_eq!(bearer("user=a@b.example\x01auth=Bearer t0k\x01\x01"), (Some("a@b.example"), "t0k"));
        assert_eq!(
            bearer("n,a=a@b.example,\x01host=x\x01auth=bearer t0k\x01\x01"),
            (Some("a@b.example"), "t0k")
        );
        assert_eq!(bearer("n,,\x01auth=Basic t0k\x01\x01"), (None, ""));
    }
}
