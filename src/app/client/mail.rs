//! The requests about messages, and about those that are kept aside.
//!
//! Not here: sending them.

use reqwest::Method;

use super::Call;
use crate::cli::{Attachment, MessageVerb, QuarantineVerb, Update};

pub(super) fn messages(verb: MessageVerb) -> Call {
    match verb {
        MessageVerb::Get(one) => Call::one("messages", one),
        MessageVerb::Raw(one) => Call::one("messages", one).then("raw"),
        MessageVerb::Attachment(Attachment { id, attachment }) => {
            Call::within(&["messages", &id, "attachments", &attachment])
        }
        MessageVerb::Send(create) => Call::within(&["messages"]).post(create),
        MessageVerb::Disown(one) => Call::one("messages", one).then("disown").method(Method::POST),
    }
}

pub(super) fn quarantine(verb: QuarantineVerb) -> Call {
    match verb {
        QuarantineVerb::List(list) => Call::within(&["quarantine"]).list(list),
        QuarantineVerb::Show(one) => Call::one("quarantine", one),
        QuarantineVerb::Raw(one) => Call::one("quarantine", one).then("raw"),
        QuarantineVerb::Release(Update { id, body }) => {
            Call::within(&["quarantine", &id, "release"]).post(body).body_if_given()
        }
        QuarantineVerb::Reject(one) => Call::one("quarantine", one).then("reject").method(Method::POST),
    }
}
