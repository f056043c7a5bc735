//! The handle by which tests, the demo and every session reach the provider's one world.
//!
//! Not here: listening (`running`) and protocols (`imap`, `smtp`).

use std::{
    net::SocketAddr,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use jiff::Timestamp;
use tokio::sync::watch;

use crate::mail::{Address, canonical_domain};

use super::{
    allowance::Over,
    behaviour::{Act, Behaviour, Command, Farewell, Service, Trigger},
    ledger::{Extent, Fetched, Said},
    mailbox::{FlagChange, SpecialUse, StoredMail},
    oauth::{Issued, OAuthSettings, Rotation},
    state::{Arrival, Limits, SandboxError, World},
};

type Result<T> = std::result::Result<T, SandboxError>;

/// A session's place among those of its user, until it is dropped.
pub(super) struct Place {
    provider: Provider,
    user: Address,
    service: Service,
}

impl Drop for Place {
    fn drop(&mut self) {
        self.provider.with(|world| world.leave(&self.user, self.service));
    }
}

/// A mail provider in memory. Clones share it.
#[derive(Clone)]
pub struct Provider {
    shared: Arc<Shared>,
}

struct Shared {
    /// Held for short sections only, never over an await.
    world: Mutex<World>,
    /// Counts changes; whoever waits looks again.
    changes: watch::Sender<u64>,
}

impl Provider {
    /// A provider for these domains, without users and without listeners (`Running::start` adds those).
    #[must_use]
    pub fn new(domains: &[&str], behaviour: Behaviour, limits: Limits) -> Self {
        let domains = domains.iter().filter_map(|domain| canonical_domain(domain)).collect();
        let world = Mutex::new(World::new(domains, behaviour, limits));
        Self { shared: Arc::new(Shared { world, changes: watch::Sender::new(0) }) }
    }

    /// Adds a user with INBOX and the special mailboxes; his domain becomes the provider's if it is not yet.
    ///
    /// # Errors
    /// `Exists`, or `Full` at the limit.
    pub fn add_user(&self, address: &Address, password: &str) -> Result<()> {
        self.with(|world| {
            world.add_user(address, password)?;
            if !world.is_local(address.domain()) {
                world.domains.push(address.domain().to_owned());
            }
            Ok(())
        })
    }

    /// # Errors
    /// `NoUser`.
    pub fn set_password(&self, user: &Address, password: &str) -> Result<()> {
        self.with(|world| world.user_mut(user).map(|user| user.password = password.into()))
    }

    /// Makes an OAuth2 access token good for XOAUTH2 and OAUTHBEARER; `None` revokes it.
    ///
    /// # Errors
    /// `NoUser`.
    pub fn set_token(&self, user: &Address, token: Option<&str>) -> Result<()> {
        self.with(|world| world.user_mut(user).map(|user| user.token = token.map(Into::into)))
    }

    /// Grants these scopes without asking anybody, as if the user had been through the consent page.
    ///
    /// # Errors
    /// `NoUser`.
    pub fn grant(&self, user: &Address, scopes: &[&str]) -> Result<Issued> {
        self.with(|world| {
            world.user_mut(user)?;
            Ok(world.authority.grant(user, scopes, Timestamp::now()))
        })
    }

    /// Withdraws all that a user has granted, and ends his sessions.
    ///
    /// # Errors
    /// `NoUser`.
    pub fn revoke(&self, user: &Address) -> Result<()> {
        self.with(|world| world.authority.revoke_user(user));
        self.kick(user)
    }

    /// Answers whatever the user wants as the provider does when it throttles, until then.
    ///
    /// # Errors
    /// `NoUser`.
    pub fn throttle(&self, user: &Address, until: Timestamp) -> Result<()> {
        self.with(|world| world.user_mut(user).map(|user| user.throttled_until = until))
    }

    /// How much longer a user is throttled.
    pub(super) fn throttled_for(&self, user: &Address) -> Option<Duration> {
        let until = self.with(|world| world.user(user).ok().map(|user| user.throttled_until))?;
        Duration::try_from(until.duration_since(Timestamp::now())).ok().filter(|left| !left.is_zero())
    }

    /// Counts commands that match from now on; `heard` tells how many there were.
    pub(super) fn watch(&self, trigger: Trigger) -> usize {
        self.with(|world| {
            world.watches.push((trigger, 0));
            world.watches.len() - 1
        })
    }

    pub(super) fn heard(&self, watch: usize) -> u32 {
        self.with(|world| world.watches.get(watch).map_or(0, |(_, heard)| *heard))
    }

    /// Changes a message's labels, as the user's other client would; those unknown are made.
    ///
    /// # Errors
    /// `NoUser`, `NoMailbox`, `NoMessage`; `NoMessage` too where there are no labels.
    pub fn label(&self, user: &Address, at: (&str, u32), change: (FlagChange, &[String])) -> Result<()> {
        self.with(|world| world.relabel(user, at, change))
    }

    /// Moves a message to another mailbox.
    ///
    /// # Errors
    /// `NoUser`, `NoMailbox`, `NoMessage`, `Full`.
    pub fn relocate(&self, user: &Address, (mailbox, uid): (&str, u32), to: &str) -> Result<()> {
        self.with(|world| {
            let mail = world.mailbox(user, mailbox)?.find(uid).ok_or(SandboxError::NoMessage)?.clone();
            world.append(user, to, Arrival::copy_of(&mail))?;
            // Gone already where the other mailbox is Trash.
            match world.expunge(user, mailbox, uid) {
                Err(SandboxError::NoMessage) => Ok(()),
                other => other,
            }
        })
    }

    /// Lets the access tokens of a user run out; what he has granted stays.
    pub fn expire_tokens(&self, user: &Address) {
        self.with(|world| world.authority.expire_user(user));
    }

    /// How many grants of a user are good.
    #[must_use]
    pub fn live_grants(&self, user: &Address) -> usize {
        self.with(|world| world.authority.live_grants(user))
    }

    /// Changes how the authorization server behaves from now on.
    pub fn set_oauth(&self, settings: OAuthSettings) {
        self.with(|world| world.authority.settings = settings);
    }

    /// The same of these rules alone.
    pub(super) fn change_oauth(&self, rotation: Option<Rotation>, lifetime: Option<Duration>) {
        self.with(|world| {
            let settings = &mut world.authority.settings;
            settings.rotation = rotation.unwrap_or(settings.rotation);
            settings.lifetime = lifetime.unwrap_or(settings.lifetime);
        });
    }

    /// A place for a session that has logged in; `None` when the user has as many as he may.
    pub(super) fn enter(&self, user: &Address, service: Service) -> Option<Place> {
        let entered = self.with(|world| world.enter(user, service));
        entered.then(|| Place { provider: self.clone(), user: user.clone(), service })
    }

    /// The most IMAP or submission sessions of a user that there were at one time, with those that were turned away.
    #[must_use]
    pub fn most_sessions(&self, user: &Address, service: Service) -> u32 {
        self.with(|world| world.user_mut(user).map(|user| *user.most_sessions(service)).unwrap_or_default())
    }

    /// Counts octets that a FETCH gives out. False when that is too much for the user.
    pub(super) fn has_room_to_read(&self, user: &Address, octets: usize) -> bool {
        self.with(|world| {
            // Nobody is told of a change where nothing is counted.
            let counts = |user: &super::state::User| user.behaviour.allowance.download.is_some();
            if !world.user(user).is_ok_and(counts) {
                return true;
            }
            let Ok(user) = world.user_mut(user) else { return true };
            let (allowance, now) = (user.behaviour.allowance, Timestamp::now());
            user.spent.read(&allowance, u64::try_from(octets).unwrap_or(u64::MAX), now);
            !user.spent.has_read_too_much(&allowance, now)
        })
    }

    pub(super) fn has_read_too_much(&self, user: &Address) -> bool {
        !self.has_room_to_read(user, 0)
    }

    /// Charges a submission to the user's allowance, or says of what it would be too much.
    pub(super) fn charge(&self, user: &Address, recipients: usize) -> std::result::Result<(), Over> {
        self.with(|world| {
            let Ok(user) = world.user_mut(user) else { return Ok(()) };
            let recipients = u64::try_from(recipients).unwrap_or(u64::MAX);
            let allowance = user.behaviour.allowance;
            user.spent.send(&allowance, recipients, Timestamp::now())
        })
    }

    /// Changes the behaviour of one account.
    ///
    /// # Errors
    /// `NoUser`.
    pub fn set_behaviour(&self, user: &Address, behaviour: Behaviour) -> Result<()> {
        self.with(|world| world.user_mut(user).map(|user| user.behaviour = behaviour))
    }

    /// The behaviour of an account, or of the provider for someone unknown.
    #[must_use]
    pub fn behaviour(&self, user: Option<&Address>) -> Behaviour {
        self.with(|world| {
            user.and_then(|user| world.user(user).ok()).map_or(world.behaviour, |user| user.behaviour)
        })
    }

    /// Delivers a message from outside to the user's INBOX and returns its UID.
    ///
    /// # Errors
    /// `NoUser`, `TooLarge`, or `Full` at a limit.
    pub fn deliver(&self, user: &Address, raw: &[u8]) -> Result<u32> {
        self.with(|world| world.append(user, "INBOX", Arrival::new(raw)))
    }

    /// Puts a message into any mailbox, as another client of the user's would. Returns its UID.
    ///
    /// # Errors
    /// `NoUser`, `NoMailbox`, `TooLarge`, or `Full` at a limit.
    pub fn append(&self, user: &Address, mailbox: &str, raw: &[u8], flags: &[&str]) -> Result<u32> {
        self.append_at(Timestamp::now(), (user, mailbox), raw, flags)
    }

    /// The same with an internal date.
    ///
    /// # Errors
    /// As `append`.
    pub fn append_at(&self, at: Timestamp, to: (&Address, &str), raw: &[u8], flags: &[&str]) -> Result<u32> {
        let flags = flags.iter().map(|flag| (*flag).to_owned()).collect();
        self.with(|world| world.append(to.0, to.1, Arrival { flags, internal_date: at, ..Arrival::new(raw) }))
    }

    /// Creates a mailbox; the name is modified UTF-7, as it goes over the wire.
    ///
    /// # Errors
    /// `NoUser`, `Exists`, or `Full` at the limit.
    pub fn create(&self, user: &Address, mailbox: &str) -> Result<()> {
        self.with(|world| world.add_mailbox(user, mailbox))
    }

    /// Removes a mailbox with its messages.
    ///
    /// # Errors
    /// `NoUser`, `NoMailbox`, `Permanent` for INBOX.
    pub fn remove(&self, user: &Address, mailbox: &str) -> Result<()> {
        self.with(|world| world.remove_mailbox(user, mailbox))
    }

    /// Changes flags, as another client of the user's would.
    ///
    /// # Errors
    /// `NoUser`, `NoMailbox`, `NoMessage`.
    pub fn flag(&self, user: &Address, mailbox: &str, uid: u32, change: (FlagChange, &[&str])) -> Result<()> {
        let flags: Vec<String> = change.1.iter().map(|flag| (*flag).to_owned()).collect();
        self.with(|world| {
            world.mailbox(user, mailbox)?.find(uid).ok_or(SandboxError::NoMessage)?;
            world.flag(user, (mailbox, uid), (change.0, &flags)).map(drop)
        })
    }

    /// Takes a message out for good.
    ///
    /// # Errors
    /// `NoUser`, `NoMailbox`, `NoMessage`.
    pub fn expunge(&self, user: &Address, mailbox: &str, uid: u32) -> Result<()> {
        self.with(|world| world.expunge(user, mailbox, uid))
    }

    /// Gives a mailbox a new UIDVALIDITY and its messages new UIDs, as after a restored backup. Returns the new value.
    ///
    /// # Errors
    /// `NoUser`, `NoMailbox`.
    pub fn bump_uid_validity(&self, user: &Address, mailbox: &str) -> Result<u32> {
        self.with(|world| world.bump_uid_validity(user, mailbox))
    }

    /// Gives a mailbox this UIDVALIDITY and leaves its messages their UIDs: other providers number from one as well, so that
    /// two mailboxes may have the same.
    ///
    /// # Errors
    /// `NoUser`, `NoMailbox`.
    pub fn set_uid_validity(&self, user: &Address, mailbox: &str, uid_validity: u32) -> Result<()> {
        self.with(|world| world.mailbox_mut(user, mailbox).map(|mailbox| mailbox.uid_validity = uid_validity))
    }

    /// Ends the user's IMAP sessions with `* BYE`.
    ///
    /// # Errors
    /// `NoUser`.
    pub fn kick(&self, user: &Address) -> Result<()> {
        self.end_sessions(user, Farewell::Bye)
    }

    /// Ends the user's IMAP sessions in this way.
    ///
    /// # Errors
    /// `NoUser`.
    pub fn end_sessions(&self, user: &Address, farewell: Farewell) -> Result<()> {
        self.with(|world| {
            let user = world.user_mut(user)?;
            user.kicks += 1;
            user.farewell = farewell;
            Ok(())
        })
    }

    /// What lies in a mailbox, in order of UIDs; empty when there is none of that name.
    #[must_use]
    pub fn messages(&self, user: &Address, mailbox: &str) -> Vec<StoredMail> {
        self.with(|world| {
            world.mailbox(user, mailbox).map(|mailbox| mailbox.mails.clone()).unwrap_or_default()
        })
    }

    /// What lies in a user's INBOX: what a contact at another domain got.
    #[must_use]
    pub fn inbox(&self, user: &Address) -> Vec<StoredMail> {
        self.messages(user, "INBOX")
    }

    /// UIDVALIDITY and UIDNEXT of a mailbox.
    ///
    /// # Errors
    /// `NoUser`, `NoMailbox`.
    pub fn uids(&self, user: &Address, mailbox: &str) -> Result<(u32, u32)> {
        self.with(|world| {
            world.mailbox(user, mailbox).map(|mailbox| (mailbox.uid_validity, mailbox.uid_next))
        })
    }

    /// The name of the user's mailbox for that use, whatever language it is in.
    #[must_use]
    pub fn special(&self, user: &Address, special_use: SpecialUse) -> Option<String> {
        self.with(|world| world.user(user).ok()?.special(special_use).map(|mailbox| mailbox.name.clone()))
    }

    /// Mail submitted for that domain is relayed by SMTP to this address from now on, first of all before the
    /// provider's own domains: how BCC copies reach a gateway under test.
    pub fn route(&self, domain: &str, to: SocketAddr) {
        if let Some(domain) = canonical_domain(domain) {
            self.with(|world| world.routes.insert(domain, to));
        }
    }

    /// Arms a fault. Up to 256 at a time; the oldest gives way.
    pub fn arm(&self, trigger: Trigger, act: Act) {
        self.with(|world| world.faults.arm(trigger, act));
    }

    /// Disarms all faults.
    pub fn disarm(&self) {
        self.with(|world| world.faults.clear());
    }

    /// Every command that sessions sent, oldest first, as far as the ledger reaches back.
    #[must_use]
    pub fn said(&self) -> Vec<Said> {
        self.with(|world| world.ledger.said().cloned().collect())
    }

    /// Every message that FETCH read header or content of, oldest first.
    #[must_use]
    pub fn fetched(&self) -> Vec<Fetched> {
        self.with(|world| world.ledger.fetched().cloned().collect())
    }

    /// The UIDs of a mailbox whose content was fetched, ascending, each once.
    #[must_use]
    pub fn contents_fetched(&self, user: &Address, mailbox: &str) -> Vec<u32> {
        let content = |fetched: &&Fetched| fetched.extent == Extent::Content && fetched.user == *user;
        let mut uids: Vec<u32> = self.with(|world| {
            let of_mailbox =
                world.ledger.fetched().filter(content).filter(|fetched| fetched.mailbox == mailbox);
            of_mailbox.map(|fetched| fetched.uid).collect()
        });
        uids.sort_unstable();
        uids.dedup();
        uids
    }

    /// Empties the ledger.
    pub fn clear_ledger(&self) {
        self.with(|world| world.ledger.clear());
    }

    /// Tells of every change to mail, users and the ledger. The number means nothing, only that it moved.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.shared.changes.subscribe()
    }

    /// Returns as soon as the predicate holds: at once if it does already. Cancellation-safe; put a deadline around it.
    pub async fn wait(&self, mut predicate: impl FnMut(&Self) -> bool) {
        let mut changes = self.changes();
        while !predicate(self) {
            // The sender lives in `self`, so it cannot be gone.
            if changes.changed().await.is_err() {
                return;
            }
        }
    }

    /// Looks at the world, or changes it and tells those who wait.
    pub(super) fn with<T>(&self, look: impl FnOnce(&mut World) -> T) -> T {
        let mut world = self.shared.world.lock().unwrap_or_else(PoisonError::into_inner);
        let seen = look(&mut world);
        let changed = world.take_dirty();
        drop(world);
        if changed {
            self.shared.changes.send_modify(|count| *count = count.wrapping_add(1));
        }
        seen
    }

    /// Writes a command down and asks what fault strikes it. `said.verb` and `said.line` are what faults look at.
    pub(super) fn hear(&self, said: Said) -> Option<Act> {
        self.with(|world| {
            let command = Command {
                service: said.service,
                verb: &said.verb,
                line: &said.line,
                user: said.user.as_ref(),
            };
            let act = world.faults.strike(command);
            for (_, heard) in world.watches.iter_mut().filter(|(trigger, _)| trigger.matches(command)) {
                *heard = heard.saturating_add(1);
            }
            world.ledger.say(said);
            world.touch();
            act
        })
    }

    /// Asks what fault strikes at a moment that is no command of its own.
    pub(super) fn strike(&self, command: Command<'_>) -> Option<Act> {
        self.with(|world| world.faults.strike(command))
    }
}
