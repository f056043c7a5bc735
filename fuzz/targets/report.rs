//! Delivery reports. Holds: recipients are addresses, each once for each that the mail was sent to, and bounded.

#![no_main]

use std::collections::HashSet;

use libfuzzer_sys::fuzz_target;
use mailweave::mail::DeliveryReport;

fuzz_target!(|data: &[u8]| {
    let Some(report) = DeliveryReport::read(data) else { return };
    assert!(report.recipients.len() <= 1000);
    let seen: HashSet<_> = report.recipients.iter().map(|one| (&one.address, &one.original)).collect();
    assert_eq!(seen.len(), report.recipients.len(), "a recipient twice");
});
