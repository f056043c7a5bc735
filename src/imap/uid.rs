//! Unique identifiers, their validity and modification sequences (RFC 9051 section 2.3.1, RFC 7162), and sets of UIDs.
//!
//! Not here: message sequence numbers. They shift under every EXPUNGE; nothing of ours is kept by them.

use std::{fmt, num::NonZeroU32};

/// A message's UID, valid only together with its mailbox's `UidValidity`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Uid(NonZeroU32);

impl Uid {
    pub const MIN: Self = Self(NonZeroU32::MIN);
    /// Written as `*` in a set: the last message, whatever its UID.
    pub const MAX: Self = Self(NonZeroU32::MAX);

    /// `None` for 0, which is no UID.
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }

    /// The UID after this one; `None` at the end of the numbers.
    #[must_use]
    pub fn next(self) -> Option<Self> {
        self.0.checked_add(1).map(Self)
    }
}

impl fmt::Display for Uid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// The UIDVALIDITY of a mailbox. A server that says 0 or more than 32 bits is read as saying nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct UidValidity(NonZeroU32);

impl UidValidity {
    #[must_use]
    pub fn new(number: u32) -> Option<Self> {
        NonZeroU32::new(number).map(Self)
    }

    #[must_use]
    pub fn get(self) -> u32 {
        self.0.get()
    }
}

impl fmt::Display for UidValidity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A modification sequence of CONDSTORE: 1 to 2^63 - 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ModSeq(u64);

impl ModSeq {
    /// `None` for 0 (which some servers send though RFC 7162 has none) and for more than 63 bits.
    #[must_use]
    pub fn new(number: u64) -> Option<Self> {
        (number > 0 && number <= i64::MAX.unsigned_abs()).then_some(Self(number))
    }

    #[must_use]
    pub fn get(self) -> u64 {
        self.0
    }
}

impl fmt::Display for ModSeq {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A set of UIDs as ascending, disjoint ranges: its size is that of the text it came from, not of what it claims.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct UidSet {
    ranges: Vec<(u32, u32)>,
}

impl UidSet {
    #[must_use]
    pub fn new() -> Self {
        Self::default()
    }

    /// From one UID to another, both included, in either order. To `Uid::MAX` it is written `n:*`.
    #[must_use]
    pub fn range(one: Uid, other: Uid) -> Self {
        Self { ranges: vec![(one.min(other).get(), one.max(other).get())] }
    }

    /// Every UID there can be: `1:*`.
    #[must_use]
    pub fn all() -> Self {
        Self::range(Uid::MIN, Uid::MAX)
    }

    /// Reads `1:3,5,7:*` as servers write it, unordered and overlapping included; `None` when it is something else.
    #[must_use]
    pub(super) fn parse(text: &[u8]) -> Option<Self> {
        let ranges = text.split(|byte| *byte == b',').filter(|part| !part.is_empty()).map(parse_range);
        Some(Self::from_ranges(ranges.collect::<Option<Vec<_>>>()?))
    }

    fn from_ranges(mut ranges: Vec<(u32, u32)>) -> Self {
        if !ranges.is_sorted() {
            ranges.sort_unstable();
        }
        let mut set = Self { ranges: Vec::with_capacity(ranges.len()) };
        for (first, last) in ranges {
            match set.ranges.last_mut() {
                Some((_, end)) if first <= end.saturating_add(1) => *end = last.max(*end),
                _ => set.ranges.push((first, last)),
            }
        }
        set.ranges.shrink_to_fit();
        set
    }

    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ranges.is_empty()
    }

    /// How many ranges it takes to say them: what the set costs.
    pub(super) fn range_count(&self) -> usize {
        self.ranges.len()
    }

    /// How many UIDs are in the set.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.ranges.iter().map(|(first, last)| u64::from(last - first) + 1).sum()
    }

    #[must_use]
    pub fn contains(&self, uid: Uid) -> bool {
        let uid = uid.get();
        let at = self.ranges.partition_point(|(_, last)| *last < uid);
        self.ranges.get(at).is_some_and(|(first, _)| *first <= uid)
    }

    /// The ranges, ascending, both ends included.
    pub fn ranges(&self) -> impl DoubleEndedIterator<Item = (Uid, Uid)> + '_ {
        self.ranges.iter().filter_map(|(first, last)| Some((Uid::new(*first)?, Uid::new(*last)?)))
    }

    /// Every UID, ascending. Of a set that came from a server take only as many as can exist.
    pub fn iter(&self) -> impl DoubleEndedIterator<Item = Uid> + '_ {
        self.ranges.iter().flat_map(|(first, last)| (*first..=*last).filter_map(Uid::new))
    }

    #[must_use]
    pub fn last(&self) -> Option<Uid> {
        self.ranges.last().and_then(|(_, last)| Uid::new(*last))
    }

    /// What is in `self` and not in `other`.
    #[must_use]
    pub fn difference(&self, other: &Self) -> Self {
        let mut left = Vec::new();
        let mut holes = other.ranges.iter().peekable();
        for &(mut first, last) in &self.ranges {
            while holes.next_if(|(_, end)| *end < first).is_some() {}
            let mut open = true;
            while let Some(&&(hole, end)) = holes.peek().filter(|(hole, _)| *hole <= last) {
                if hole > first {
                    left.push((first, hole - 1));
                }
                if end >= last {
                    open = false;
                    break;
                }
                first = end + 1;
                holes.next();
            }
            if open {
                left.push((first, last));
            }
        }
        Self { ranges: left }
    }

    /// What is in any of them.
    pub(super) fn union_of(sets: &[Self]) -> Self {
        match sets {
            [one] => one.clone(),
            sets => Self::from_ranges(sets.iter().flat_map(|set| &set.ranges).copied().collect()),
        }
    }

    /// The set in pieces whose text is at most about `bytes_max` long (RFC 7162 section 4 advises 8192 a line).
    pub(super) fn pieces(&self, bytes_max: usize) -> impl Iterator<Item = Self> + '_ {
        /// `4294967295:4294967295,`
        const RANGE_TEXT_MAX: usize = 22;
        self.ranges.chunks((bytes_max / RANGE_TEXT_MAX).max(1)).map(|ranges| Self { ranges: ranges.to_vec() })
    }
}

fn parse_range(part: &[u8]) -> Option<(u32, u32)> {
    let mut ends = part.splitn(2, |byte| *byte == b':').map(parse_end);
    let first = ends.next()??;
    let last = ends.next().unwrap_or(Some(first))?;
    Some((first.min(last), first.max(last)))
}

fn parse_end(text: &[u8]) -> Option<u32> {
    match text {
        b"*" => Some(u32::MAX),
        digits => std::str::from_utf8(digits).ok()?.parse().ok().filter(|number| *number > 0),
    }
}

impl FromIterator<Uid> for UidSet {
    fn from_iter<I: IntoIterator<Item = Uid>>(uids: I) -> Self {
        Self::from_ranges(uids.into_iter().map(|uid| (uid.get(), uid.get())).collect())
    }
}

impl From<Uid> for UidSet {
    fn from(uid: Uid) -> Self {
        Self::range(uid, uid)
    }
}

impl fmt::Display for UidSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, (first, last)) in self.ranges.iter().enumerate() {
            let comma = if index > 0 { "," } else { "" };
            match (*first, *last) {
                (first, u32::MAX) if first == u32::MAX => write!(f, "{comma}*")?,
                (first, u32::MAX) => write!(f, "{comma}{first}:*")?,
                (first, last) if first == last => write!(f, "{comma}{first}")?,
                (first, last) => write!(f, "{comma}{first}:{last}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[track_caller]
    fn check(text: &str, expect: Option<&str>) {
        let got = UidSet::parse(text.as_bytes()).map(|set| set.to_string());
        assert_eq!(got.as_deref(), expect, "{text}");
    }

    #[test]
    fn a_set_is_read_in_any_order_and_kept_in_one() {
        check("1:3,5", Some("1:3,5"));
        check("5,3:1,2:4", Some("1:5"));
        check("*:7", Some("7:*"));
        check("*", Some("*"));
        check("1:4294967295", Some("1:*"));
        check("", Some(""));
        check("0", None);
        check("1:x", None);
        check("4294967296", None);
    }

    #[test]
    fn a_set_knows_its_size_without_being_counted_out() {
        assert_eq!(UidSet::all().len(), u64::from(u32::MAX));
        assert!(UidSet::all().contains(Uid::MAX));
    }

    proptest! {
        #[test]
        fn a_difference_is_what_it_says(ours in prop::collection::vec(1_u32..60, 0..20), theirs in prop::collection::vec(1_u32..60, 0..20)) {
            let set = |numbers: &[u32]| numbers.iter().copied().filter_map(Uid::new).collect::<UidSet>();
            let (ours, theirs) = (set(&ours), set(&theirs));
            let expect: UidSet = ours.iter().filter(|uid| !theirs.contains(*uid)).collect();
            prop_assert_eq!(ours.difference(&theirs), expect);
        }

        #[test]
        fn pieces_make_up_the_set(numbers in prop::collection::vec(1_u32.., 0..200)) {
            let set: UidSet = numbers.iter().copied().filter_map(Uid::new).collect();
            let again: UidSet = set.pieces(50).flat_map(|piece| piece.iter().collect::<Vec<_>>()).collect();
            prop_assert_eq!(again, set);
        }
    }
}
