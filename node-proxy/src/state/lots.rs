//! Drawing one of many by weight in a time that does not depend on how many there are.

/// The weights of items, ready to be drawn from (Walker's alias method).
#[derive(Clone, Debug)]
pub(super) enum Lots {
    /// All weigh the same.
    Equal { items: u64 },
    /// There is a column for each item, as high as all weights together, which it shares with at
    /// most one other.
    Weighted { height: u64, columns: Box<[Column]> },
}

/// A column of [`Lots::Weighted`].
#[derive(Clone, Copy, Debug)]
pub(super) struct Column {
    /// Up to here it is its own item's.
    own: u64,
    /// Whose the rest is.
    other: usize,
}

// === impl Lots ===

impl Lots {
    /// Prepares items of these weights, of which none is 0.
    pub(super) fn new(weights: &[u32]) -> Self {
        match weights {
            [first, rest @ ..] if rest.iter().any(|weight| weight != first) => {
                Self::weighted(weights)
            }
            _ => Self::Equal { items: weights.len() as u64 },
        }
    }

    fn weighted(weights: &[u32]) -> Self {
        let height = weights.iter().map(|weight| u64::from(*weight)).sum();
        // What each item has to place, in columns of that height: as many columns as items.
        let mut left: Vec<u128> =
            weights.iter().map(|weight| u128::from(*weight) * weights.len() as u128).collect();
        let fits = |amount: u128| amount < u128::from(height);
        let (mut low, mut high): (Vec<_>, Vec<_>) = (0..left.len()).partition(|i| fits(left[*i]));
        let mut columns: Box<[Column]> =
            (0..left.len()).map(|i| Column { own: height, other: i }).collect();
        while let (Some(lower), Some(higher)) = (low.pop(), high.pop()) {
            // Less than the height, which is a u64.
            let own = u64::try_from(left[lower]).unwrap_or(height);
            columns[lower] = Column { own, other: higher };
            left[higher] -= u128::from(height - own);
            if fits(left[higher]) { low.push(higher) } else { high.push(higher) }
        }
        Self::Weighted { height, columns }
    }

    /// Returns the index of the item that is drawn; there must be one. `pick` returns a number below
    /// its argument.
    pub(super) fn draw(&self, pick: impl Fn(u64) -> u64) -> usize {
        let index = |below: u64| usize::try_from(pick(below)).unwrap_or_default();
        match self {
            Self::Equal { items } => index(*items),
            Self::Weighted { height, columns } => {
                let drawn = index(columns.len() as u64);
                let Column { own, other } = columns[drawn];
                if pick(*height) < own { drawn } else { other }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::cell::Cell;

    use proptest::{collection::vec, prelude::*};

    use super::*;

    /// Returns how often each item is drawn if everything that can be picked is picked once.
    fn shares(weights: &[u32]) -> Vec<u64> {
        let lots = Lots::new(weights);
        let height = match &lots {
            Lots::Equal { .. } => 1,
            Lots::Weighted { height, .. } => *height,
        };
        let mut shares = vec![0; weights.len()];
        for column in 0..weights.len() as u64 {
            for level in 0..height {
                let picks = [column, level];
                let turn = Cell::new(0);
                shares[lots.draw(|_| picks[turn.replace(turn.get() + 1)])] += 1;
            }
        }
        shares
    }

    #[test]
    fn what_weighs_the_same_is_drawn_as_often() {
        assert_eq!(shares(&[7]), [1]);
        assert_eq!(shares(&[3, 3, 3]), [1, 1, 1]);
    }

    #[test]
    fn the_heaviest_weights_do_no_harm() {
        let heavy = [u32::MAX, 1, u32::MAX];
        let lots = Lots::new(&heavy);
        for pick in [0, 1, 2] {
            assert!(lots.draw(|below| pick.min(below - 1)) < heavy.len());
        }
    }

    proptest! {
        #[test]
        fn everything_is_drawn_as_often_as_it_weighs(weights in vec(1..9_u32, 1..9)) {
            let shares = shares(&weights);
            let total: u64 = shares.iter().sum();
            let weight: u64 = weights.iter().map(|weight| u64::from(*weight)).sum();
            for (share, of) in shares.iter().zip(&weights) {
                prop_assert_eq!(share * weight, u64::from(*of) * total, "{:?}", weights);
            }
        }
    }
}
