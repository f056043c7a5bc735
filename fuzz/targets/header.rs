//! A header block, its addresses, ids and date. Holds: what was read is read the same when it is written again.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweave::mail::{Address, HeaderBlock, HeaderSummary, MessageId, Party, address_list};

fuzz_target!(|data: &[u8]| {
    let block = HeaderBlock::scan(data);
    assert!(block.end_offset() <= block.body_offset() && block.body_offset() <= data.len());
    let summary = HeaderSummary::read(data);
    let people = summary.from.iter().chain(summary.recipients()).chain(&summary.reply_to);
    for Party { address, name } in people {
        assert_eq!(Address::parse(&address.to_string()).as_ref(), Ok(address));
        assert!(name.as_deref().is_none_or(|name| !name.is_empty()));
    }
    for id in summary.ancestors().chain(&summary.message_id) {
        assert_eq!(MessageId::parse(&format!("<{id}>")).as_ref(), Some(id));
    }
    let (parties, written) = (address_list::parse(data), address_list::written(data));
    assert!(parties.len() <= written.len());
});
