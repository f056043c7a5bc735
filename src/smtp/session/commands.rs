//! What each command does to a session: RFC 5321 section 4.1 and the extensions we offer.
//!
//! Not here: how a line is read (`command`) and when (`super`).

use super::{
    Asked, AuthOutcome, Credentials, DataReader, Envelope, Exchange, Incoming, ListenerKind, Mechanism,
    Phase, Progress, Question, Reply, Session, Step, Transaction,
};
use crate::smtp::command::{Command, Fault, MailFrom, RcptTo};

/// Recipients beyond the limit that are answered patiently before they count as errors.
const SURPLUS_RECIPIENTS_MAX: usize = 1_000;

impl Session {
    pub(super) fn obey(&mut self, command: Result<Command, Fault>) -> Option<Step> {
        let command = match command {
            Ok(command) => command,
            Err(fault) => {
                self.refuse(fault);
                return None;
            }
        };
        if furthers_no_mail(&command) {
            self.tally.idle_commands = self.tally.idle_commands.saturating_add(1);
            if self.tally.idle_commands >= self.settings.limits.idle_commands_max {
                self.close_with(&Reply::too_many("Too many commands without mail"));
                return None;
            }
        }
        match command {
            Command::Ehlo(name) => self.hello(name, true),
            Command::Helo(name) => self.hello(name, false),
            Command::Mail(mail) => return self.mail(mail),
            Command::Rcpt(rcpt) => return self.rcpt(rcpt),
            Command::Data => self.data(),
            Command::Auth(mechanism, initial) => return self.auth(&mechanism, initial.as_deref()),
            Command::StartTls => self.starttls(),
            Command::Rset => {
                self.abandon();
                self.say(&Reply::ok("Ok"));
            }
            Command::Noop => self.say(&Reply::ok("Ok")),
            Command::Help => self.say(&Reply::new(214, [2, 0, 0], "RFC 5321 describes what is spoken here")),
            // RFC 5321 section 7.3: who exists is nobody's business.
            Command::Vrfy => self.say(&Reply::new(252, [2, 0, 0], "Send some mail and see")),
            Command::Bdat => self.bdat(),
            Command::Quit => {
                self.abandon();
                self.close_with(&Reply::new(221, [2, 0, 0], "Bye"));
                self.phase = Phase::Closing { courteous: true };
            }
        }
        None
    }

    fn refuse(&mut self, fault: Fault) {
        let (code, enhanced, text) = match fault {
            Fault::Http => {
                // Cross-protocol requests carry SMTP in their bodies; nothing behind this line is read.
                self.close_with(&Reply::new(500, [5, 5, 1], "This is no web server"));
                return;
            }
            Fault::Unknown => (500, [5, 5, 1], "Command unknown"),
            Fault::Unimplemented => (502, [5, 5, 1], "Command not implemented"),
            Fault::Octets => (501, [5, 5, 2], "Octets that no command holds"),
            Fault::Syntax => (501, [5, 5, 4], "Syntax error in arguments"),
            Fault::ReversePath => (501, [5, 1, 7], "Bad sender address"),
            Fault::ForwardPath => (501, [5, 1, 3], "Bad recipient address"),
            Fault::UnknownParameter => (555, [5, 5, 4], "Parameter not recognised"),
            Fault::BadParameter => (501, [5, 5, 4], "Bad parameter"),
            Fault::Size => (552, [5, 3, 4], "Message exceeds the size limit"),
        };
        self.fault(Reply::new(code, enhanced, text));
    }

    fn hello(&mut self, name: String, extended: bool) {
        self.abandon();
        self.info.hello = Some(name);
        self.info.extended = extended;
        let mut reply = Reply::bare(250, self.settings.hostname.clone());
        if extended {
            for line in self.extensions() {
                reply = reply.and_line(&line);
            }
        }
        self.say(&reply);
    }

    fn extensions(&self) -> Vec<String> {
        let mut lines: Vec<String> =
            ["PIPELINING", "8BITMIME", "SMTPUTF8", "ENHANCEDSTATUSCODES", "DSN"].map(String::from).into();
        lines.push(format!("SIZE {}", self.settings.limits.message_bytes_max));
        if self.offers_starttls() {
            lines.push("STARTTLS".into());
        }
        if self.offers_auth() {
            let names: Vec<_> = self.settings.mechanisms.iter().map(|m| m.name()).collect();
            lines.push(format!("AUTH {}", names.join(" ")));
        }
        lines
    }

    fn offers_starttls(&self) -> bool {
        self.settings.tls && !self.info.tls && self.info.listener != ListenerKind::Submissions
    }

    fn offers_auth(&self) -> bool {
        self.info.tls
            && self.info.listener.is_submission()
            && self.info.authenticated.is_none()
            && !self.settings.mechanisms.is_empty()
    }

    fn mail(&mut self, mail: MailFrom) -> Option<Step> {
        if let Some(refusal) = self.refuse_mail(&mail) {
            self.fault(refusal);
            return None;
        }
        let from = mail.reverse_path.clone();
        let envelope = Envelope {
            reverse_path: mail.reverse_path,
            recipients: Vec::new(),
            ret: mail.ret,
            envelope_id: mail.envelope_id,
            smtputf8: mail.smtputf8,
            eight_bit: mail.eight_bit == Some(true),
        };
        let transaction = Transaction { envelope, surplus: 0 };
        self.phase = Phase::Asked(Asked::Mail(Box::new(transaction)));
        Some(Step::Ask(Question::Mail { from, declared_size: mail.size }))
    }

    fn refuse_mail(&self, mail: &MailFrom) -> Option<Reply> {
        let needs_utf8 = mail.beyond_ascii
            || mail.reverse_path.address().is_some_and(crate::mail::Address::needs_smtputf8);
        if self.info.hello.is_none() {
            Some(Reply::out_of_order("EHLO first"))
        } else if self.transaction.is_some() {
            Some(Reply::out_of_order("Sender already given"))
        } else if self.info.listener.is_submission() && !self.info.tls {
            Some(Reply::new(530, [5, 7, 0], "STARTTLS first"))
        } else if self.info.listener.is_submission() && self.info.authenticated.is_none() {
            Some(Reply::new(530, [5, 7, 0], "Authentication required"))
        } else if mail.size.is_some_and(|size| size > self.settings.limits.message_bytes_max) {
            Some(Reply::too_large())
        } else if needs_utf8 && !mail.smtputf8 {
            Some(Reply::new(553, [5, 6, 7], "This address needs SMTPUTF8"))
        } else {
            None
        }
    }

    fn rcpt(&mut self, rcpt: RcptTo) -> Option<Step> {
        let beyond_ascii = rcpt.beyond_ascii;
        let Some(transaction) = &mut self.transaction else {
            self.fault(Reply::out_of_order("MAIL first"));
            return None;
        };
        if transaction.envelope.recipients.len() >= self.settings.limits.recipients_max {
            transaction.surplus = transaction.surplus.saturating_add(1);
            let reply = Reply::new(452, [4, 5, 3], "Too many recipients");
            if transaction.surplus > SURPLUS_RECIPIENTS_MAX {
                self.fault(reply)
            } else {
                self.say(&reply)
            }
            return None;
        }
        let smtputf8 = transaction.envelope.smtputf8;
        let Some(recipient) = rcpt.recipient(&self.settings.hostname) else {
            self.refuse(Fault::ForwardPath);
            return None;
        };
        if (beyond_ascii || recipient.address.needs_smtputf8()) && !smtputf8 {
            self.fault(Reply::new(553, [5, 6, 7], "This address needs SMTPUTF8"));
            return None;
        }
        self.phase = Phase::Asked(Asked::Rcpt(recipient.clone()));
        Some(Step::Ask(Question::Rcpt(recipient)))
    }

    fn data(&mut self) {
        // RFC 2920 section 3.1: DATA ends a group. What follows in the same breath is a message someone hopes we read as
        // commands, or commands someone hopes we read as a message.
        if self.read < self.input.len() {
            self.abandon();
            self.close_with(&Reply::out_of_order("DATA must be the last command of a group"));
            return;
        }
        let Some(transaction) = &self.transaction else {
            self.fault(Reply::out_of_order("MAIL first"));
            return;
        };
        if transaction.envelope.recipients.is_empty() {
            self.fault(Reply::new(554, [5, 5, 1], "No valid recipients"));
            return;
        }
        let limits = &self.settings.limits;
        let is_submission = self.info.listener.is_submission();
        let spared = if is_submission { 0 } else { limits.reserved_of(limits.buffered_bytes_max) };
        let reservation = self.settings.budget.open(spared);
        let reader = DataReader::new(self.settings.limits.message_bytes_max);
        self.say(&Reply::bare(354, "End with CRLF.CRLF"));
        self.phase = Phase::Data(Box::new(Incoming {
            reader,
            reservation,
            received: 0,
            no_room: false,
            answered: false,
        }));
    }

    /// CHUNKING is not offered. A chunk in the same breath must not be read as commands, so that ends the session.
    fn bdat(&mut self) {
        self.abandon();
        let reply = Reply::new(502, [5, 5, 1], "CHUNKING is not offered");
        if self.read < self.input.len() { self.close_with(&reply) } else { self.fault(reply) }
    }

    fn starttls(&mut self) {
        if !self.offers_starttls() {
            self.fault(Reply::out_of_order("STARTTLS is not offered"));
        } else if self.read < self.input.len() {
            // Octets from before the handshake are anybody's (CVE-2011-0411 and its many children).
            self.abandon();
            self.close_with(&Reply::new(501, [5, 5, 4], "STARTTLS must be the last command of a group"));
        } else {
            self.say(&Reply::new(220, [2, 0, 0], "Go ahead"));
            self.input = Vec::new();
            self.read = 0;
            self.phase = Phase::Tls;
        }
    }

    fn auth(&mut self, mechanism: &str, initial: Option<&str>) -> Option<Step> {
        let mechanism =
            Mechanism::parse(mechanism).filter(|mechanism| self.settings.mechanisms.contains(mechanism));
        if let Some(refusal) = self.refuse_auth(mechanism) {
            self.fault(refusal);
            return None;
        }
        if self.tally.auth_failures >= self.settings.limits.auth_attempts_max {
            self.close_with(&Reply::too_many("Too many failed attempts"));
            return None;
        }
        let exchange = Exchange::new(mechanism?);
        let opening = exchange.opening();
        self.phase = Phase::Sasl(exchange);
        match initial {
            Some(response) => self.respond(response.as_bytes()),
            None => {
                self.say(&Reply::bare(334, opening));
                None
            }
        }
    }

    fn refuse_auth(&self, mechanism: Option<Mechanism>) -> Option<Reply> {
        if !self.info.tls {
            Some(Reply::new(538, [5, 7, 11], "Encryption required for authentication"))
        } else if !self.info.listener.is_submission() {
            Some(Reply::new(502, [5, 5, 1], "Authentication is not offered here"))
        } else if self.info.hello.is_none() || !self.info.extended {
            Some(Reply::out_of_order("EHLO first"))
        } else if self.info.authenticated.is_some() {
            Some(Reply::out_of_order("Already authenticated"))
        } else if self.transaction.is_some() {
            Some(Reply::out_of_order("Not within a mail transaction"))
        } else if mechanism.is_none() {
            Some(Reply::new(504, [5, 5, 4], "Mechanism not offered"))
        } else {
            None
        }
    }

    /// Takes one SASL response.
    pub(super) fn respond(&mut self, line: &[u8]) -> Option<Step> {
        let Phase::Sasl(mut exchange) = std::mem::replace(&mut self.phase, Phase::Command) else {
            self.fault(Reply::new(535, [5, 7, 8], "Authentication failed"));
            return None;
        };
        match exchange.respond(line) {
            Progress::Challenge(challenge) => {
                self.say(&Reply::bare(334, challenge));
                self.phase = Phase::Sasl(exchange);
            }
            Progress::Complete(credentials) => {
                return Some(self.ask_about(credentials, exchange.mechanism()));
            }
            Progress::Cancelled => self.fault(Reply::new(501, [5, 0, 0], "Authentication cancelled")),
            Progress::Malformed => {
                self.tally.auth_failures = self.tally.auth_failures.saturating_add(1);
                self.fault(Reply::new(501, [5, 5, 2], "Cannot decode the response"));
            }
        }
        None
    }

    fn ask_about(&mut self, credentials: Credentials, mechanism: Mechanism) -> Step {
        self.phase = Phase::Asked(Asked::Authenticate(mechanism));
        Step::Ask(Question::Authenticate(credentials))
    }

    /// The handler has judged the credentials.
    pub(super) fn judged(&mut self, mechanism: Mechanism, outcome: AuthOutcome) {
        match outcome {
            AuthOutcome::Accepted { identity } => {
                self.info.authenticated = Some(identity);
                self.say(&Reply::new(235, [2, 7, 0], "Authentication succeeded"));
            }
            AuthOutcome::Unavailable => {
                self.say(&Reply::new(454, [4, 7, 0], "Cannot authenticate at the moment"))
            }
            AuthOutcome::Refused => {
                self.tally.auth_failures = self.tally.auth_failures.saturating_add(1);
                if mechanism.explains_failure() {
                    // The client must say something before it hears 535.
                    self.say(&Reply::bare(334, mechanism.failure()));
                    self.phase = Phase::SaslFailed;
                } else {
                    self.fault(Reply::new(535, [5, 7, 8], "Authentication failed"));
                }
            }
        }
    }
}

/// Commands a peer can repeat for ever without bringing mail. RCPT and DATA are bounded by other limits.
fn furthers_no_mail(command: &Command) -> bool {
    use Command::{Ehlo, Helo, Help, Mail, Noop, Rset, Vrfy};
    matches!(command, Ehlo(_) | Helo(_) | Help | Mail(_) | Noop | Rset | Vrfy)
}
