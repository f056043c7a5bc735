//! APPEND with APPENDUID (RFC 4315).
//!
//! Not here: the literal's way in (`input`), and several messages in one command (MULTIAPPEND).

use imap_types::{
    datetime::DateTime, extensions::binary::LiteralOrLiteral8, flag::Flag, mailbox::Mailbox as MailboxName,
};
use jiff::Timestamp;

use crate::sandbox::state::{Arrival, SandboxError};

use super::{
    mailboxes::refuse,
    session::{Answer, Session},
    wire,
};

impl Session {
    pub(super) fn append(
        &mut self,
        mailbox: &MailboxName<'_>,
        flags: &[Flag<'_>],
        message: (Option<DateTime>, LiteralOrLiteral8<'_>),
    ) -> Answer {
        let (date, message) = message;
        let Some(name) = wire::mailbox_name(mailbox) else { return Answer::bad("that is no mailbox name") };
        let LiteralOrLiteral8::Literal(literal) = message else {
            return Answer::bad("BINARY is not offered");
        };
        let Some(user) = self.user.clone() else { return Answer::bad("log in first") };
        let raw: &[u8] = literal.as_ref();
        let mut mail = Arrival::new(raw);
        mail.flags = flags.iter().map(ToString::to_string).collect();
        if let Some(date) = date.and_then(|date| Timestamp::from_second(date.as_ref().timestamp()).ok()) {
            mail.internal_date = date;
        }
        let appended = self.provider.with(|world| {
            let uid = world.append(&user, &name, mail)?;
            world.mailbox(&user, &name).map(|mailbox| (mailbox.uid_validity, uid))
        });
        match appended {
            Ok((uid_validity, uid)) if self.extensions.uidplus => {
                Answer::Ok(format!("[APPENDUID {uid_validity} {uid}] appended"))
            }
            Ok(_) => Answer::ok("appended"),
            Err(SandboxError::NoMailbox) => Answer::no("[TRYCREATE] no such mailbox"),
            Err(error) => refuse(error),
        }
    }
}
