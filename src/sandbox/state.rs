//! The provider's world: users with their mailboxes, routes to other domains, faults and the ledger, within limits.
//!
//! Not here: locking and telling others of changes (`provider`), and protocols.

use std::{
    collections::{BTreeMap, HashMap},
    net::SocketAddr,
    sync::Arc,
};

use jiff::Timestamp;
use secrecy::{ExposeSecret, SecretString};

use crate::mail::Address;

use super::{
    allowance::Spent,
    behaviour::{Behaviour, Farewell, Faults, Manner, Service, Trigger},
    labels,
    ledger::Ledger,
    mailbox::{FlagChange, GoogleIds, Mailbox, SpecialUse, StoredMail},
    oauth::Authority,
};

/// What bounds the provider's memory: it keeps everything there.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    pub users_max: usize,
    pub mailboxes_per_user_max: usize,
    /// Messages in all mailboxes together.
    pub messages_max: usize,
    /// Octets of all messages together; a copy counts again though it shares the memory.
    pub bytes_max: usize,
    /// Octets of one message.
    pub message_bytes_max: usize,
    /// Connections at one time, over all doors.
    pub connections_max: usize,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            users_max: 1_000,
            mailboxes_per_user_max: 200,
            messages_max: 200_000,
            bytes_max: 512 * 1024 * 1024,
            message_bytes_max: 64 * 1024 * 1024,
            connections_max: 1_000,
        }
    }
}

/// Why the provider would not do something.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum SandboxError {
    #[error("no such user")]
    NoUser,
    #[error("no such mailbox")]
    NoMailbox,
    #[error("no such message")]
    NoMessage,
    #[error("that user or mailbox exists already")]
    Exists,
    #[error("the provider is full")]
    Full,
    #[error("the message is too large")]
    TooLarge,
    #[error("that mailbox cannot be removed or renamed")]
    Permanent,
}

/// One user. Contacts are users too, at the provider's other domains.
pub(super) struct User {
    pub(super) address: Address,
    pub(super) password: SecretString,
    /// An OAuth2 access token that is good now.
    pub(super) token: Option<SecretString>,
    pub(super) behaviour: Behaviour,
    pub(super) mailboxes: Vec<Mailbox>,
    /// Sessions that began under a lower number are to end, in this way.
    pub(super) kicks: u64,
    pub(super) farewell: Farewell,
    pub(super) spent: Spent,
    /// Until then the provider wants to be left alone.
    pub(super) throttled_until: Timestamp,
    /// IMAP and submission sessions that are logged in.
    sessions: [u32; 2],
    /// The most of them that there were, or would have been, at one time.
    most_sessions: [u32; 2],
    /// The conversation of each Message-ID, where there are labels.
    pub(super) threads: HashMap<String, u64>,
}

impl User {
    fn new(address: &Address, password: &str, behaviour: Behaviour, mailboxes: Vec<Mailbox>) -> Self {
        Self {
            address: address.clone(),
            password: password.into(),
            token: None,
            behaviour,
            mailboxes,
            kicks: 0,
            farewell: Farewell::Bye,
            spent: Spent::default(),
            throttled_until: Timestamp::MIN,
            sessions: [0; 2],
            most_sessions: [0; 2],
            threads: HashMap::new(),
        }
    }

    /// The count of sessions, and how many there may be.
    fn sessions_of(&mut self, service: Service) -> (&mut u32, Option<u32>) {
        let [imap, submission] = &mut self.sessions;
        let allowance = &self.behaviour.allowance;
        match service {
            Service::Imap => (imap, allowance.connections),
            _ => (submission, allowance.submissions),
        }
    }

    /// The most sessions that wanted to be at one time, those that were turned away among them.
    pub(super) fn most_sessions(&mut self, service: Service) -> &mut u32 {
        let [imap, submission] = &mut self.most_sessions;
        if service == Service::Imap { imap } else { submission }
    }

    pub(super) fn mailbox(&self, name: &str) -> Option<&Mailbox> {
        self.mailboxes.iter().find(|mailbox| same_name(&mailbox.name, name))
    }

    pub(super) fn mailbox_mut(&mut self, name: &str) -> Option<&mut Mailbox> {
        self.mailboxes.iter_mut().find(|mailbox| same_name(&mailbox.name, name))
    }

    pub(super) fn special(&self, special_use: SpecialUse) -> Option<&Mailbox> {
        self.mailboxes.iter().find(|mailbox| mailbox.special_use == Some(special_use))
    }
}

/// INBOX is the one name without letter case (RFC 9051 section 5.1).
pub(super) fn same_name(one: &str, other: &str) -> bool {
    one == other || (one.eq_ignore_ascii_case("INBOX") && other.eq_ignore_ascii_case("INBOX"))
}

/// A message on its way into a mailbox.
#[derive(Debug, Clone)]
pub(super) struct Arrival {
    pub(super) raw: Arc<[u8]>,
    pub(super) flags: Vec<String>,
    pub(super) internal_date: Timestamp,
    /// Of a message that the user has already.
    pub(super) google: Option<GoogleIds>,
}

impl Arrival {
    pub(super) fn new(raw: impl Into<Arc<[u8]>>) -> Self {
        Self { raw: raw.into(), flags: Vec::new(), internal_date: Timestamp::now(), google: None }
    }

    /// The same message once more.
    pub(super) fn copy_of(mail: &StoredMail) -> Self {
        let (raw, flags) = (Arc::clone(&mail.raw), mail.flags.clone());
        Self { raw, flags, internal_date: mail.internal_date, google: mail.google }
    }

    pub(super) fn seen(mut self) -> Self {
        self.flags.push("\\Seen".to_owned());
        self
    }
}

/// Everything there is.
pub(super) struct World {
    pub(super) limits: Limits,
    /// The behaviour new users get, and what sessions see before they authenticate.
    pub(super) behaviour: Behaviour,
    users: BTreeMap<String, User>,
    /// Domains of the provider's own, in canonical form.
    pub(super) domains: Vec<String>,
    pub(super) routes: BTreeMap<String, SocketAddr>,
    pub(super) faults: Faults,
    pub(super) ledger: Ledger,
    pub(super) authority: Authority,
    /// Commands that somebody waits for, with how many have been heard.
    pub(super) watches: Vec<(Trigger, u32)>,
    messages: usize,
    bytes: usize,
    uid_validity_last: u32,
    sessions_last: u64,
    serials_last: u64,
    /// Something changed that waiting sessions or tests may care for.
    dirty: bool,
}

impl World {
    pub(super) fn new(domains: Vec<String>, behaviour: Behaviour, limits: Limits) -> Self {
        Self {
            limits,
            behaviour,
            users: BTreeMap::new(),
            domains,
            routes: BTreeMap::new(),
            faults: Faults::default(),
            ledger: Ledger::default(),
            authority: Authority::default(),
            watches: Vec::new(),
            messages: 0,
            bytes: 0,
            uid_validity_last: 1_700_000_000,
            sessions_last: 0,
            serials_last: 0,
            dirty: false,
        }
    }

    pub(super) fn touch(&mut self) {
        self.dirty = true;
    }

    pub(super) fn take_dirty(&mut self) -> bool {
        std::mem::take(&mut self.dirty)
    }

    pub(super) fn next_session(&mut self) -> u64 {
        self.sessions_last += 1;
        self.sessions_last
    }

    /// A number for names that must not repeat: queue ids, Message-IDs.
    pub(super) fn next_serial(&mut self) -> u64 {
        self.serials_last += 1;
        self.serials_last
    }

    pub(super) fn is_local(&self, domain: &str) -> bool {
        self.domains.iter().any(|own| own == domain)
    }

    pub(super) fn user(&self, address: &Address) -> Result<&User, SandboxError> {
        self.users.get(address.key()).ok_or(SandboxError::NoUser)
    }

    /// Marks the world as changed: whoever asks for a user this way is about to.
    pub(super) fn user_mut(&mut self, address: &Address) -> Result<&mut User, SandboxError> {
        self.dirty = true;
        self.users.get_mut(address.key()).ok_or(SandboxError::NoUser)
    }

    pub(super) fn mailbox(&self, address: &Address, name: &str) -> Result<&Mailbox, SandboxError> {
        self.user(address)?.mailbox(name).ok_or(SandboxError::NoMailbox)
    }

    pub(super) fn mailbox_mut(
        &mut self,
        address: &Address,
        name: &str,
    ) -> Result<&mut Mailbox, SandboxError> {
        self.user_mut(address)?.mailbox_mut(name).ok_or(SandboxError::NoMailbox)
    }

    pub(super) fn add_user(&mut self, address: &Address, password: &str) -> Result<(), SandboxError> {
        if self.users.len() >= self.limits.users_max {
            return Err(SandboxError::Full);
        }
        if self.users.contains_key(address.key()) {
            return Err(SandboxError::Exists);
        }
        let behaviour = self.behaviour;
        let names = behaviour.mailbox_names;
        let special: Vec<(String, SpecialUse)> = match behaviour.manner {
            Manner::Google => labels::mailboxes(names).collect(),
            _ => {
                SpecialUse::USUAL.map(|special_use| (special_use.name(names).to_owned(), special_use)).into()
            }
        };
        let mut mailboxes = vec![Mailbox::new("INBOX", None, self.next_uid_validity())];
        for (name, special_use) in special {
            mailboxes.push(Mailbox::new(&name, Some(special_use), self.next_uid_validity()));
        }
        let user = User::new(address, password, behaviour, mailboxes);
        self.users.insert(address.key().to_owned(), user);
        self.dirty = true;
        Ok(())
    }

    /// The user of that name and password. A name may be the address or, as many providers allow, its local part.
    pub(super) fn log_in(&self, name: &str, password: &str) -> Option<Address> {
        self.named(name)
            .filter(|user| user.password.expose_secret() == password)
            .map(|user| user.address.clone())
    }

    /// The user whose OAuth2 token this is, with the end of a token that has one; the name may be left out (RFC 7628).
    pub(super) fn log_in_with_token(
        &self,
        service: Service,
        name: Option<&str>,
        token: &str,
        now: Timestamp,
    ) -> Option<(Address, Option<Timestamp>)> {
        if let Some(access) = self.authority.access(token, now) {
            let is_named = name.is_none_or(|name| access.user.key() == name.trim().to_lowercase());
            let is_known = self.users.contains_key(access.user.key());
            let lets_in = is_named && is_known && access.opens(service);
            return lets_in.then(|| (access.user.clone(), Some(access.expires_at)));
        }
        let named = |user: &&User| name.is_none_or(|name| user.address.key() == name.trim().to_lowercase());
        let mut users = self.users.values().filter(named);
        let holds = |user: &&User| user.token.as_ref().is_some_and(|own| own.expose_secret() == token);
        users.find(holds).map(|user| (user.address.clone(), None))
    }

    /// Every user, in order of addresses.
    pub(super) fn users(&self) -> impl Iterator<Item = &User> {
        self.users.values()
    }

    /// Counts a session that has logged in. False when there would be too many of them.
    pub(super) fn enter(&mut self, address: &Address, service: Service) -> bool {
        let Ok(user) = self.user_mut(address) else { return true };
        let (count, most) = user.sessions_of(service);
        let fits = most.is_none_or(|most| *count < most);
        let wanted = count.saturating_add(1);
        *count += u32::from(fits);
        let most = user.most_sessions(service);
        *most = wanted.max(*most);
        fits
    }

    /// A counted session is over.
    pub(super) fn leave(&mut self, address: &Address, service: Service) {
        if let Ok(user) = self.user_mut(address) {
            let (count, _) = user.sessions_of(service);
            *count = count.saturating_sub(1);
        }
    }

    fn named(&self, name: &str) -> Option<&User> {
        let name = name.trim().to_lowercase();
        if name.contains('@') {
            return self.users.get(&name);
        }
        let mut users = self.users.values().filter(|user| user.address.local().eq_ignore_ascii_case(&name));
        users.next().filter(|_| users.next().is_none())
    }

    pub(super) fn add_mailbox(&mut self, address: &Address, name: &str) -> Result<(), SandboxError> {
        let most = self.limits.mailboxes_per_user_max;
        let uid_validity = self.next_uid_validity();
        let user = self.user_mut(address)?;
        if user.mailbox(name).is_some() {
            return Err(SandboxError::Exists);
        }
        if user.mailboxes.len() >= most {
            return Err(SandboxError::Full);
        }
        user.mailboxes.push(Mailbox::new(name, None, uid_validity));
        Ok(())
    }

    pub(super) fn remove_mailbox(&mut self, address: &Address, name: &str) -> Result<(), SandboxError> {
        let user = self.user_mut(address)?;
        let at =
            user.mailboxes.iter().position(|mailbox| mailbox.name == name).ok_or(SandboxError::NoMailbox)?;
        if at == 0 {
            return Err(SandboxError::Permanent);
        }
        let gone = user.mailboxes.remove(at);
        self.forget(&gone.mails);
        Ok(())
    }

    /// Renames a mailbox. INBOX stays, which RFC 9051 would empty instead: nobody needs that of a sandbox.
    pub(super) fn rename_mailbox(
        &mut self,
        address: &Address,
        from: &str,
        to: &str,
    ) -> Result<(), SandboxError> {
        let user = self.user_mut(address)?;
        if user.mailbox(to).is_some() {
            return Err(SandboxError::Exists);
        }
        let mailbox = user.mailbox_mut(from).ok_or(SandboxError::NoMailbox)?;
        if mailbox.name == "INBOX" {
            return Err(SandboxError::Permanent);
        }
        to.clone_into(&mut mailbox.name);
        Ok(())
    }

    /// Puts a message into a mailbox and returns its UID.
    pub(super) fn append(
        &mut self,
        address: &Address,
        name: &str,
        mail: Arrival,
    ) -> Result<u32, SandboxError> {
        match self.user(address)?.behaviour.manner {
            Manner::Google => self.append_labelled(address, name, mail),
            _ => self.append_plain(address, name, mail),
        }
    }

    /// The same at a provider without labels.
    pub(super) fn append_plain(
        &mut self,
        address: &Address,
        name: &str,
        mail: Arrival,
    ) -> Result<u32, SandboxError> {
        let bytes = mail.raw.len();
        if bytes > self.limits.message_bytes_max {
            return Err(SandboxError::TooLarge);
        }
        let full = self.messages >= self.limits.messages_max || self.bytes + bytes > self.limits.bytes_max;
        let mailbox = self.mailbox_mut(address, name)?;
        if full {
            return Err(SandboxError::Full);
        }
        let uid = mailbox.add(mail.raw, &mail.flags, mail.internal_date).ok_or(SandboxError::Full)?;
        if let Some(ids) = mail.google {
            mailbox.identify_last(ids);
        }
        self.messages += 1;
        self.bytes += bytes;
        Ok(uid)
    }

    /// Changes a message's flags; whether that changed anything.
    pub(super) fn flag(
        &mut self,
        address: &Address,
        (name, uid): (&str, u32),
        (change, flags): (FlagChange, &[String]),
    ) -> Result<bool, SandboxError> {
        let changed = self.mailbox_mut(address, name)?.store(uid, change, flags);
        if changed {
            self.spread_flags(address, name, uid)?;
        }
        Ok(changed)
    }

    /// Takes a message out: for good, or of this label.
    pub(super) fn expunge(&mut self, address: &Address, name: &str, uid: u32) -> Result<(), SandboxError> {
        match self.user(address)?.behaviour.manner {
            Manner::Google => self.expunge_labelled(address, name, uid),
            _ => self.expunge_plain(address, name, uid),
        }
    }

    /// Takes a message out of a mailbox.
    pub(super) fn expunge_plain(
        &mut self,
        address: &Address,
        name: &str,
        uid: u32,
    ) -> Result<(), SandboxError> {
        let gone = self.mailbox_mut(address, name)?.expunge(uid).ok_or(SandboxError::NoMessage)?;
        self.forget(std::slice::from_ref(&gone));
        Ok(())
    }

    pub(super) fn bump_uid_validity(&mut self, address: &Address, name: &str) -> Result<u32, SandboxError> {
        let next = self.next_uid_validity();
        self.mailbox_mut(address, name)?.renumber(next);
        Ok(next)
    }

    fn forget(&mut self, gone: &[StoredMail]) {
        self.messages = self.messages.saturating_sub(gone.len());
        self.bytes = self.bytes.saturating_sub(gone.iter().map(|mail| mail.raw.len()).sum());
    }

    /// No two mailboxes of the provider share one, so that a deleted and recreated mailbox shows.
    fn next_uid_validity(&mut self) -> u32 {
        self.uid_validity_last += 1;
        self.uid_validity_last
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ann() -> Address {
        Address::parse("Ann@example.test").unwrap()
    }

    fn world(limits: Limits) -> World {
        let mut world = World::new(vec!["example.test".to_owned()], Behaviour::default(), limits);
        world.add_user(&ann(), "secret").unwrap();
        world
    }

    #[test]
    fn a_user_logs_in_by_address_or_local_part_in_any_letter_case() {
        let mut world = world(Limits::default());
        assert_eq!(world.log_in("ann@EXAMPLE.test", "secret"), Some(ann()));
        assert_eq!(world.log_in("ANN", "secret"), Some(ann()));
        assert_eq!(world.log_in("ann", "Secret"), None);
        assert_eq!(world.add_user(&ann(), "x"), Err(SandboxError::Exists));
        world.add_user(&Address::parse("ann@other.test").unwrap(), "secret").unwrap();
        assert_eq!(world.log_in("ann", "secret"), None, "two could be meant");
    }

    #[test]
    fn the_provider_never_holds_more_than_its_limits() {
        let limits = Limits { messages_max: 2, bytes_max: 10, message_bytes_max: 6, ..Limits::default() };
        let mut world = world(limits);
        let append = |world: &mut World, raw: &[u8]| world.append(&ann(), "inbox", Arrival::new(raw));
        assert_eq!(append(&mut world, b"1234567"), Err(SandboxError::TooLarge));
        assert_eq!(append(&mut world, b"123456"), Ok(1));
        assert_eq!(append(&mut world, b"12345"), Err(SandboxError::Full));
        assert_eq!(append(&mut world, b"1234"), Ok(2));
        assert_eq!(append(&mut world, b""), Err(SandboxError::Full));
        world.expunge(&ann(), "INBOX", 1).unwrap();
        assert_eq!(append(&mut world, b"123456"), Ok(3));
    }

    #[test]
    fn a_recreated_mailbox_has_another_uid_validity() {
        let mut world = world(Limits::default());
        world.add_mailbox(&ann(), "Deals").unwrap();
        let before = world.mailbox(&ann(), "Deals").unwrap().uid_validity;
        world.remove_mailbox(&ann(), "Deals").unwrap();
        world.add_mailbox(&ann(), "Deals").unwrap();
        assert_ne!(world.mailbox(&ann(), "Deals").unwrap().uid_validity, before);
        assert_eq!(world.remove_mailbox(&ann(), "INBOX"), Err(SandboxError::Permanent));
    }
}
