//! What a caller writes behind the `?` of a list. Holds: it is read, or a parameter is named that is wrong; rows are bounded; a
//! cursor that is taken is one that we would have written; nothing that goes on to the store has a line end or a NUL.

#![no_main]

use libfuzzer_sys::fuzz_target;
use mailweave::http::fuzzed::read_query;

fuzz_target!(|data: &[u8]| {
    // The server's own parser lets nothing else get here.
    let query: String =
        data.iter().filter(|octet| octet.is_ascii_graphic()).map(|octet| char::from(*octet)).collect();
    match read_query(&query) {
        Ok(read) => {
            assert!((2..=201).contains(&read.rows));
            if let Some(cursor) = read.cursor {
                assert!(query.contains(&cursor) || query.contains('%'), "{cursor} is another way to say it");
            }
            assert!(read.texts.iter().all(|text| !text.contains(['\r', '\n', '\0'])), "{:?}", read.texts);
        }
        Err(wrong) => assert!(wrong.is_some(), "nobody can tell what is wrong with {query:?}"),
    }
});
