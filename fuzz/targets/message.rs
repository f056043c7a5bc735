//! A message to what is read of it. Holds: reading ends, names of files are safe, text has no NUL, every attachment can be had,
//! and what is forwarded has an author only by name.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweave::mail::{Message, forward, sanitise};

fuzz_target!(|data: &[u8]| {
    let message = Message::parse(data);
    assert!(!message.defects.contains(&mailweave::mail::Defect::Unreadable), "a reader panicked");
    for attachment in &message.attachments {
        let name = attachment.filename.as_deref().unwrap_or("x");
        assert!(
            !name.contains(['/', '\\', '\0', '\u{202e}']) && !name.is_empty() && name.len() <= 255,
            "{name:?}"
        );
        let content = Message::attachment_bytes(data, attachment.index).expect("its content");
        assert_eq!(content.len() as u64, attachment.size);
    }
    let text = message.readable_text().unwrap_or_default();
    assert!(!message.text.as_deref().unwrap_or_default().contains('\0'));
    if let Some(html) = &message.html {
        let _ = sanitise::sanitise(html);
    }
    let omitted: Vec<usize> = (0..message.attachments.len()).collect();
    assert!(Message::without_attachments(data, &omitted).len() <= data.len());
    if let Some(found) = forward::read(&message, data) {
        assert!(found.attached || text.len() >= found.comment.len());
        let _ = found.new_text();
    }
});
