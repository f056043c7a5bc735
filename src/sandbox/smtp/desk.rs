//! Who may send what to whom, and what becomes of a message: the provider as an SMTP handler.
//!
//! Not here: carrying mail to other hosts (`relay`).

use std::{net::SocketAddr, sync::Arc};

use bytes::Bytes;
use secrecy::ExposeSecret;

use crate::{
    mail::{Address, Envelope, Recipient, ReversePath},
    sandbox::{
        allowance::{self, Over},
        behaviour::{SaveSent, Service},
        header,
        mailbox::SpecialUse,
        provider::{Place, Provider},
        state::{Arrival, SandboxError, World},
    },
    smtp::{AuthOutcome, Credentials, Handler, Reply, SessionInfo, received_field},
};

use super::{
    HOSTNAME,
    relay::{Relay, Shipment},
};

/// The handler of one connection.
pub(in crate::sandbox) struct Desk {
    provider: Provider,
    service: Service,
    relay: Relay,
    /// Among the sessions of its user that hand in mail.
    place: Option<Place>,
    /// Recipients of the transaction at hand.
    recipients: u32,
}

/// Where a recipient's mail goes.
#[derive(Debug, PartialEq, Eq)]
enum Destination {
    Local,
    Remote(SocketAddr),
    NoUser,
    NoRoute,
}

impl Desk {
    pub(in crate::sandbox) fn new(provider: &Provider, service: Service, relay: &Relay) -> Self {
        Self { provider: provider.clone(), service, relay: relay.clone(), place: None, recipients: 0 }
    }

    /// Whether the user of a submission may begin a transaction; or the provider's refusal.
    fn begin(&mut self, session: &SessionInfo) -> Result<(), Reply> {
        let Some(user) = session.authenticated.as_deref().and_then(|user| Address::parse(user).ok()) else {
            return Ok(());
        };
        self.recipients = 0;
        if self.service == Service::Submission && self.provider.throttled_for(&user).is_some() {
            return Err(allowance::throttled_smtp(self.provider.behaviour(Some(&user)).manner));
        }
        if self.service == Service::Submission && self.place.is_none() {
            self.place = self.provider.enter(&user, self.service);
            if self.place.is_none() {
                let manner = self.provider.behaviour(Some(&user)).manner;
                return Err(allowance::refusal(manner, Over::Submissions));
            }
        }
        Ok(())
    }

    /// Gives up the session's place among its user's.
    pub(in crate::sandbox) fn leave(&mut self) {
        self.place = None;
    }

    /// Counts a recipient of the transaction.
    fn count(&mut self, session: &SessionInfo) -> Result<(), Reply> {
        let user = session.authenticated.as_deref().and_then(|user| Address::parse(user).ok());
        let behaviour = self.provider.behaviour(user.as_ref());
        let most = behaviour.allowance.recipients_per_message.filter(|_| self.service == Service::Submission);
        if most.is_some_and(|most| self.recipients >= most) {
            return Err(allowance::refusal(behaviour.manner, Over::RecipientsPerMessage));
        }
        self.recipients = self.recipients.saturating_add(1);
        Ok(())
    }

    fn destination(&self, to: &Address) -> Destination {
        let submitted = self.service == Service::Submission;
        self.provider.with(|world| match world.routes.get(to.domain()) {
            Some(next_hop) if submitted => Destination::Remote(*next_hop),
            _ if world.user(to).is_ok() => Destination::Local,
            _ if world.is_local(to.domain()) => Destination::NoUser,
            _ => Destination::NoRoute,
        })
    }

    fn submit(&self, sender: &Address, mail: (&Envelope, u64), message: &[u8]) -> Result<(), SandboxError> {
        let (envelope, serial) = mail;
        let behaviour = self.provider.behaviour(Some(sender));
        let named = match behaviour.rewrite_message_id {
            true => rename(message, sender, serial),
            false => message.to_vec(),
        };
        let sent: Arc<[u8]> = named.as_slice().into();
        // The sender's own copy keeps Bcc; nobody else may see it.
        self.dispatch(envelope, header::without(&named, "Bcc"))?;
        match behaviour.save_sent {
            SaveSent::Never => {}
            SaveSent::AtOnce => file_sent(&self.provider, sender, sent)?,
            SaveSent::After(pause) => {
                let (provider, sender) = (self.provider.clone(), sender.clone());
                self.relay.later(pause, move || {
                    // A full mailbox loses the late copy, as it does at real providers.
                    let _ = file_sent(&provider, &sender, sent);
                });
            }
        }
        Ok(())
    }

    /// Delivers to our users, and hands the rest to the relay.
    fn dispatch(&self, envelope: &Envelope, message: Vec<u8>) -> Result<(), SandboxError> {
        let mut shipments: Vec<Shipment> = Vec::new();
        let mut local = Vec::new();
        for recipient in &envelope.recipients {
            match self.destination(&recipient.address) {
                Destination::Remote(next_hop) => match shipments
                    .iter_mut()
                    .find(|own| own.next_hop == next_hop)
                {
                    Some(shipment) => shipment.envelope.recipients.push(recipient.clone()),
                    None => shipments.push(Shipment::new(next_hop, envelope, recipient.clone(), &message)),
                },
                _ => local.push(&recipient.address),
            }
        }
        // Room first: what is accepted must not be lost for want of a place in the queue.
        let places = self.relay.reserve(shipments.len()).ok_or(SandboxError::Full)?;
        let delivered: Arc<[u8]> =
            header::with(&format!("Return-Path: {}\r\n", envelope.reverse_path), &message).into();
        self.provider.with(|world| {
            local
                .iter()
                .try_for_each(|to| world.append(to, "INBOX", Arrival::new(delivered.clone())).map(drop))
        })?;
        for (shipment, place) in shipments.into_iter().zip(places) {
            self.relay.ship(shipment, place);
        }
        Ok(())
    }
}

impl Handler for Desk {
    async fn mail(&mut self, session: &SessionInfo, from: &ReversePath, _: Option<u64>) -> Reply {
        let is_own = from.address().map(Address::key) == session.authenticated.as_deref();
        if self.service == Service::Mx || is_own || self.provider.behaviour(None).any_sender {
            return self.begin(session).err().unwrap_or_else(Reply::sender_ok);
        }
        Reply::new(553, [5, 7, 1], "Sender address rejected: not owned by user")
    }

    async fn rcpt(&mut self, session: &SessionInfo, to: &Recipient) -> Reply {
        match self.destination(&to.address) {
            Destination::Local | Destination::Remote(_) => {
                self.count(session).err().unwrap_or_else(Reply::recipient_ok)
            }
            Destination::NoUser => Reply::no_such_recipient(),
            Destination::NoRoute if self.service == Service::Mx => {
                Reply::new(550, [5, 7, 1], "Relaying denied")
            }
            Destination::NoRoute => Reply::new(550, [5, 1, 2], "No route to that domain"),
        }
    }

    async fn message(&mut self, session: &SessionInfo, envelope: Envelope, message: Bytes) -> Reply {
        let (now, serial) = (jiff::Timestamp::now(), self.provider.with(|world| world.next_serial()));
        let trace = received_field(session, envelope.smtputf8, HOSTNAME, &format!("sandbox-{serial}"), now);
        let traced = header::with(&trace, &message);
        let user = session.authenticated.as_deref().and_then(|user| Address::parse(user).ok());
        if let Some(user) = user.filter(|_| self.service == Service::Submission)
            && let Err(over) = self.provider.charge(&user, envelope.recipients.len())
        {
            return allowance::refusal(self.provider.behaviour(Some(&user)).manner, over);
        }
        let result = match envelope.reverse_path.address() {
            Some(sender) if self.service == Service::Submission => {
                self.submit(sender, (&envelope, serial), &traced)
            }
            _ => self.dispatch(&envelope, traced),
        };
        match result {
            Ok(()) => Reply::ok(format!("Ok: queued as sandbox-{serial}")),
            Err(SandboxError::TooLarge) => Reply::too_large(),
            Err(_) => Reply::no_room(),
        }
    }

    async fn authenticate(&mut self, _: &SessionInfo, credentials: Credentials) -> AuthOutcome {
        let user = self.provider.with(|world: &mut World| match &credentials {
            Credentials::Password { username, password } => world.log_in(username, password.expose_secret()),
            Credentials::Token { username, token } => world
                .log_in_with_token(
                    Service::Submission,
                    username.as_deref(),
                    token.expose_secret(),
                    jiff::Timestamp::now(),
                )
                .map(|(user, _)| user),
        });
        match user {
            Some(user) => AuthOutcome::Accepted { identity: user.key().to_owned() },
            None => AuthOutcome::Refused,
        }
    }
}

fn rename(message: &[u8], sender: &Address, serial: u64) -> Vec<u8> {
    let message_id = mail_parser::MessageParser::default().parse_headers(message);
    let old = message_id.as_ref().and_then(|parsed| parsed.message_id()).map(|id| format!("<{id}>"));
    let seconds = jiff::Timestamp::now().as_second();
    let new = format!("SBX{seconds:x}{serial:06x}@{}", sender.domain());
    match old {
        Some(old) => header::renamed(message, &old, &new),
        None => header::with(&format!("Message-ID: <{new}>\r\n"), message),
    }
}

fn file_sent(provider: &Provider, sender: &Address, raw: Arc<[u8]>) -> Result<(), SandboxError> {
    provider.with(|world| {
        let name = world.user(sender)?.special(SpecialUse::Sent).map(|mailbox| mailbox.name.clone());
        world.append(sender, &name.ok_or(SandboxError::NoMailbox)?, Arrival::new(raw).seen()).map(drop)
    })
}
