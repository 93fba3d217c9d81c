//! Which of many are there, as all threads know it.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed};

/// A set of indices; all of them at first.
#[derive(Debug)]
pub(super) struct Presence {
    words: Box<[AtomicU64]>,
    size: usize,
    count: AtomicUsize,
}

// === impl Presence ===

impl Presence {
    pub(super) fn new(size: usize) -> Self {
        let word = |number: usize| match size - number * 64 {
            64.. => u64::MAX,
            rest => (1 << rest) - 1,
        };
        let words = (0..size.div_ceil(64)).map(|number| AtomicU64::new(word(number)));
        Self { words: words.collect(), size, count: AtomicUsize::new(size) }
    }

    pub(super) fn size(&self) -> usize {
        self.size
    }

    pub(super) fn count(&self) -> usize {
        self.count.load(Relaxed)
    }

    /// Takes `index` in or out; only a change costs anything.
    pub(super) fn set(&self, index: usize, is_in: bool) {
        let (word, bit) = (&self.words[index / 64], 1 << (index % 64));
        if (word.load(Relaxed) & bit != 0) == is_in {
            return;
        }
        if is_in {
            if word.fetch_or(bit, Relaxed) & bit == 0 {
                self.count.fetch_add(1, Relaxed);
            }
        } else if word.fetch_and(!bit, Relaxed) & bit != 0 {
            self.count.fetch_sub(1, Relaxed);
        }
    }

    /// Returns all that are in, from `start` to the end and then from the beginning: 64 absent ones
    /// are passed over at once.
    pub(super) fn from(&self, start: usize) -> impl Iterator<Item = usize> {
        let (first, below) = (start / 64, (1_u64 << (start % 64)) - 1);
        let words = self.words.len();
        (0..=words).flat_map(move |turn| {
            let number = (first + turn) % words;
            let word = self.words[number].load(Relaxed);
            let mut rest = match turn {
                0 => word & !below,
                _ if turn == words => word & below,
                _ => word,
            };
            std::iter::from_fn(move || {
                let bit = (rest != 0).then(|| rest.trailing_zeros() as usize)?;
                rest &= rest - 1;
                Some(number * 64 + bit)
            })
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn it_is_a_set(
            size in 1..300_usize,
            changes in vec((0..300_usize, any::<bool>()), 0..400),
            start in 0..300_usize,
        ) {
            let presence = Presence::new(size);
            let mut set: BTreeSet<_> = (0..size).collect();
            for (index, is_in) in changes {
                let index = index % size;
                presence.set(index, is_in);
                if is_in { set.insert(index); } else { set.remove(&index); }
            }
            prop_assert_eq!(presence.count(), set.len());
            let start = start % size;
            let found: Vec<_> = presence.from(start).collect();
            let expected: Vec<_> = set.range(start..).chain(set.range(..start)).copied().collect();
            prop_assert_eq!(found, expected);
        }
    }
}
