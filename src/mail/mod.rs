//! The vocabulary of Internet mail as values that cannot be wrong: RFC 5321, 5322, 2045, 3464 and 9051.
//!
//! Pure: no I/O, no clock, no randomness, nothing of CRMs. Reading mail never fails, it yields a message and its defects.

mod address;
pub mod address_list;
pub mod authenticity;
mod automatic;
pub mod compose;
mod content_identity;
pub mod content_type;
pub mod date;
pub mod encoded_word;
mod envelope;
pub mod filename;
pub mod forward;
pub mod header;
mod header_text;
pub mod loop_mark;
mod message;
mod message_id;
mod part;
mod public_domain;
mod quoted_header;
mod readable;
pub mod reply;
mod report;
mod report_compose;
mod report_text;
mod rewritten;
pub mod sanitise;
pub mod subject;
mod summary;
pub mod surgery;
mod transfer;

pub use address::{Address, AddressError, Party, canonical_domain};
pub use automatic::Automatic;
pub use compose::{Draft, DraftAttachment, ensure_date_and_message_id, reply_references};
pub use content_identity::ContentIdentity;
pub use envelope::{Envelope, Notify, Recipient, Return, ReversePath};
pub use header::HeaderBlock;
pub use header_text::{HeaderName, HeaderText, HeaderTextError};
pub use message::{Attachment, Defect, Kind, Message, RawMessage};
pub use message_id::MessageId;
pub use public_domain::is_shared_by_many;
pub use quoted_header::Mention;
pub use report::{Action, DeliveryReport, EnhancedStatus, EnhancedStatusError, ReportRecipient};
pub use report_compose::{NewReport, ReportedRecipient, compose_report};
pub use summary::HeaderSummary;
