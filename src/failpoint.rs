//! Named places at which a test ends the process, as a power cut would: `MAILWEAVE_FAILPOINT=PLACE[/OF][:COUNT]` ends it when
//! the place is reached for the `COUNT`th time.
//!
//! In builds with debug assertions alone: a release has nothing of it. Not here: which places there are, each of which stands
//! where one durable step is done and the next is not; `tests/crash/places.rs` lists them.

#[cfg(debug_assertions)]
pub(crate) use armed::reach;

/// Nothing, in a release.
#[cfg(not(debug_assertions))]
pub(crate) const fn reach(_place: &str, _of: &str) {}

#[cfg(debug_assertions)]
mod armed {
    use std::sync::{
        LazyLock,
        atomic::{AtomicU32, Ordering},
    };

    struct Armed {
        place: String,
        of: String,
        left: AtomicU32,
    }

    static ARMED: LazyLock<Option<Armed>> =
        LazyLock::new(|| std::env::var("MAILWEAVE_FAILPOINT").ok().map(|text| Armed::read(&text)));

    impl Armed {
        fn read(text: &str) -> Self {
            let (name, count) = text.split_once(':').unwrap_or((text, "1"));
            let (place, of) = name.split_once('/').unwrap_or((name, ""));
            let left = AtomicU32::new(count.parse().unwrap_or(1));
            Self { place: place.to_owned(), of: of.to_owned(), left }
        }
    }

    /// A place has been reached, in the work on such a thing: the process ends here if it was told to.
    pub(crate) fn reach(place: &str, of: &str) {
        let Some(armed) = ARMED.as_ref().filter(|armed| armed.place == place && armed.of == of) else {
            return;
        };
        if armed.left.fetch_sub(1, Ordering::Relaxed) == 1 {
            std::process::abort();
        }
    }
}
