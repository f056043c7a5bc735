//! Command lines of the client. Typed values cannot hold a line end; texts that came from elsewhere are checked once more.
//!
//! Not here: message data (`transparency`).

use std::fmt::Write;

use super::Capabilities;
use crate::{
    mail::{Envelope, Notify, Recipient, Return},
    smtp::command::{is_original_recipient, is_xtext},
};

/// What the message needs on top of plain SMTP.
#[derive(Debug, Clone, Copy)]
pub(super) struct Needs {
    pub(super) size: usize,
    pub(super) eight_bit: bool,
    pub(super) smtputf8: bool,
}

/// The name for EHLO; one that would not fit a line becomes the literal that RFC 5321 section 4.1.4 allows instead.
pub(super) fn hello_name(name: &str) -> String {
    let sound = !name.is_empty() && name.len() <= 255 && name.bytes().all(|b| b.is_ascii_graphic());
    if sound { name.to_owned() } else { "[127.0.0.1]".to_owned() }
}

/// One command line of parts that hold no control characters; any that do are dropped, line and all.
pub(super) fn line(parts: &[&str]) -> Vec<u8> {
    let text: String = parts.concat().chars().filter(|c| !c.is_control()).collect();
    format!("{text}\r\n").into_bytes()
}

/// `MAIL FROM` with the parameters the server understands.
pub(super) fn mail(envelope: &Envelope, needs: Needs, offer: &Capabilities) -> Vec<u8> {
    let mut text = format!("MAIL FROM:{}", envelope.reverse_path);
    if offer.size {
        write!(text, " SIZE={}", needs.size).expect("writing to a String cannot fail");
    }
    if needs.eight_bit {
        text.push_str(" BODY=8BITMIME");
    }
    if needs.smtputf8 {
        text.push_str(" SMTPUTF8");
    }
    if offer.dsn {
        match envelope.ret {
            Some(Return::Full) => text.push_str(" RET=FULL"),
            Some(Return::Headers) => text.push_str(" RET=HDRS"),
            None => {}
        }
        if let Some(id) = envelope.envelope_id.as_deref().filter(|id| is_xtext(id)) {
            text.push_str(" ENVID=");
            text.push_str(id);
        }
    }
    line(&[&text])
}

/// `RCPT TO` with the parameters the server understands.
pub(super) fn rcpt(recipient: &Recipient, offer: &Capabilities) -> Vec<u8> {
    let mut text = format!("RCPT TO:<{}>", recipient.address);
    if offer.dsn {
        if let Some(list) = notify(recipient.notify) {
            text.push_str(" NOTIFY=");
            text.push_str(&list);
        }
        if let Some(original) =
            recipient.original.as_deref().filter(|original| is_original_recipient(original))
        {
            text.push_str(" ORCPT=");
            text.push_str(original);
        }
    }
    line(&[&text])
}

fn notify(notify: Notify) -> Option<String> {
    match notify {
        Notify::Default => None,
        Notify::Never => Some("NEVER".into()),
        Notify::On { success, failure, delay } => {
            let words = [(success, "SUCCESS"), (failure, "FAILURE"), (delay, "DELAY")];
            let words: Vec<_> = words.into_iter().filter(|(on, _)| *on).map(|(_, word)| word).collect();
            (!words.is_empty()).then(|| words.join(","))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::mail::{Address, ReversePath};

    fn envelope() -> Envelope {
        let from = ReversePath::Address(Address::parse("\"a b\"@c.example").unwrap());
        Envelope { ret: Some(Return::Headers), envelope_id: Some("id+2B1".into()), ..Envelope::new(from) }
    }

    #[test]
    fn parameters_are_sent_only_where_they_are_understood() {
        let needs = Needs { size: 7, eight_bit: true, smtputf8: false };
        let offer = Capabilities { size: true, dsn: true, eight_bit_mime: true, ..Capabilities::default() };
        assert_eq!(
            mail(&envelope(), needs, &offer),
            b"MAIL FROM:<\"a b\"@c.example> SIZE=7 BODY=8BITMIME RET=HDRS ENVID=id+2B1\r\n"
        );
        let plain = Needs { eight_bit: false, ..needs };
        assert_eq!(mail(&envelope(), plain, &Capabilities::default()), b"MAIL FROM:<\"a b\"@c.example>\r\n");
        let mut recipient = Recipient::new(Address::parse("x@y.example").unwrap());
        recipient.notify = Notify::On { success: true, failure: false, delay: true };
        recipient.original = Some("rfc822;x@y.example".into());
        assert_eq!(
            rcpt(&recipient, &offer),
            b"RCPT TO:<x@y.example> NOTIFY=SUCCESS,DELAY ORCPT=rfc822;x@y.example\r\n"
        );
        assert_eq!(rcpt(&recipient, &Capabilities::default()), b"RCPT TO:<x@y.example>\r\n");
    }

    #[test]
    fn nothing_smuggles_a_second_command_into_a_line() {
        let mut envelope = envelope();
        envelope.envelope_id = Some("x\r\nRCPT TO:<evil@x.example>".into());
        let offer = Capabilities { dsn: true, ..Capabilities::default() };
        let needs = Needs { size: 0, eight_bit: false, smtputf8: false };
        assert_eq!(mail(&envelope, needs, &offer), b"MAIL FROM:<\"a b\"@c.example> RET=HDRS\r\n");
        assert_eq!(hello_name("a\r\nMAIL"), "[127.0.0.1]");
        assert_eq!(line(&["a\r\nb"]), b"ab\r\n");
    }
}
