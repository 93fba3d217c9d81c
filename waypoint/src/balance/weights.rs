//! Items of different weights.

/// Ratio of the golden section, in 64 bits: steps of that width spread as evenly as any.
const GOLDEN: u64 = 0x9e37_79b9_7f4a_7c15;

/// Weights of items, such that one is found by chance or by turns. Never of none.
#[derive(Clone, Debug)]
pub(super) enum Weights {
    /// All weigh the same.
    Equal { items: u64 },
    /// They do not.
    Unequal {
        /// Of each item and those before it.
        sums: Box<[u64]>,
        /// Of all, without a common divisor.
        total: u64,
        /// Distance between turns; it has no divisor in common with the total, so that every place
        /// has its turn once in as many turns as there are places.
        step: u64,
    },
}

// === impl Weights ===

impl Weights {
    /// Returns weights without what they have in common. None of them is 0.
    pub(super) fn new(weights: &[u32]) -> Self {
        let weights = weights.iter().copied().map(u64::from);
        let divisor = weights.clone().fold(0, greatest_common_divisor).max(1);
        let mut total = 0;
        let sums = weights.map(|weight| {
            total += weight / divisor;
            total
        });
        let sums: Box<[_]> = sums.collect();
        let items = sums.len() as u64;
        if total == items {
            return Self::Equal { items };
        }
        let golden = (u128::from(total) * u128::from(GOLDEN)) >> 64;
        let golden = u64::try_from(golden).unwrap_or_default() + 1;
        let step = (golden..=total).find(|step| greatest_common_divisor(*step, total) == 1);
        Self::Unequal { sums, total, step: step.unwrap_or(1) }
    }

    /// Returns the number of places, of which each item has as many as it weighs.
    pub(super) fn places(&self) -> u64 {
        match self {
            Self::Equal { items } => *items,
            Self::Unequal { total, .. } => *total,
        }
    }

    /// Returns whose this place is.
    pub(super) fn at(&self, place: u64) -> usize {
        match self {
            Self::Equal { .. } => usize::try_from(place).unwrap_or_default(),
            Self::Unequal { sums, .. } => sums.partition_point(|sum| *sum <= place),
        }
    }

    /// Returns whose turn this is: everybody's as often as they weigh in any [`Self::places`] turns
    /// after each other, and well spread.
    pub(super) fn turn(&self, turn: u64) -> usize {
        match self {
            Self::Equal { items } => self.at(turn % items),
            Self::Unequal { total, step, .. } => {
                let place = u128::from(turn % total) * u128::from(*step) % u128::from(*total);
                self.at(u64::try_from(place).unwrap_or_default())
            }
        }
    }
}

fn greatest_common_divisor(mut one: u64, mut other: u64) -> u64 {
    while other != 0 {
        (one, other) = (other, one % other);
    }
    one
}

#[cfg(test)]
mod tests {
    use proptest::{collection::vec, prelude::*};

    use super::*;

    proptest! {
        #[test]
        fn everybody_has_as_many_turns_as_they_weigh(
            weights in vec(1..50_u32, 1..20),
            start in 0..1_000_000_u64,
        ) {
            let prepared = Weights::new(&weights);
            let mut turns = vec![0_u64; weights.len()];
            for turn in 0..prepared.places() {
                turns[prepared.turn(start + turn)] += 1;
            }
            let total: u64 = weights.iter().copied().map(u64::from).sum();
            for (turns, weight) in turns.iter().zip(&weights) {
                prop_assert_eq!(turns * total, u64::from(*weight) * prepared.places());
            }
        }

        #[test]
        fn turns_are_spread(heavy in 2..100_u32) {
            let prepared = Weights::new(&[heavy, 1]);
            let places = prepared.places();
            let light: Vec<_> = (0..2 * places).filter(|turn| prepared.turn(*turn) == 1).collect();
            prop_assert_eq!(light.len(), 2);
            prop_assert_eq!(light[1] - light[0], places);
        }
    }

    #[test]
    fn the_heaviest_weights_do_no_harm() {
        let weights = Weights::new(&[u32::MAX, 1, u32::MAX - 1]);
        assert_eq!(weights.at(weights.places() - 1), 2);
        assert!((0..100).all(|turn| weights.turn(u64::MAX - turn) < 3));
    }

    #[test]
    fn turns_of_unequal_weights_are_not_in_runs() {
        let weights = Weights::new(&[2, 1]);
        let turns: Vec<_> = (0..6).map(|turn| weights.turn(turn)).collect();
        assert_eq!(turns, [0, 1, 0, 0, 1, 0]);
    }
}
