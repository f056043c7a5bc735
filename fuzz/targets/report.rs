//! Delivery reports. Holds: recipients are addresses, each once, and bounded.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweave::mail::DeliveryReport;

fuzz_target!(|data: &[u8]| {
    let Some(report) = DeliveryReport::read(data) else { return };
    assert!(report.recipients.len() <= 1000);
    let mut seen: Vec<&str> = report.recipients.iter().map(|one| one.address.key()).collect();
    let count = seen.len();
    seen.sort_unstable();
    seen.dedup();
    assert_eq!(seen.len(), count, "a recipient twice");
});
