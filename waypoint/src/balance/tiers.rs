//! How traffic spills over from what is preferred to what is next.

/// Endpoints per usable one for which those that are left suffice: they take over what 2 of 7 leave.
const OVERPROVISIONING: u64 = 14_000;

/// All, in the unit that shares are counted in.
const WHOLE: u64 = 10_000;

/// How many of some endpoints there are, and how many can be used.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Census {
    pub(super) usable: usize,
    pub(super) total: usize,
}

/// Which tier traffic goes to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TierChoice {
    pub(super) tier: usize,
    /// Whether so few endpoints can be used that all are.
    pub(super) panic: bool,
}

// === impl Census ===

impl Census {
    /// Returns which part of their traffic the usable ones can take, of [`WHOLE`].
    pub(super) fn capacity(self) -> u64 {
        match self.total {
            0 => 0,
            total => (self.usable as u64 * OVERPROVISIONING / total as u64).min(WHOLE),
        }
    }

    fn is_in_panic(self, threshold: u32) -> bool {
        (self.usable as u64) * 100 < self.total as u64 * u64::from(threshold)
    }
}

/// Draws one of so many tiers, the preferred ones first. A tier takes all as long as its usable
/// endpoints suffice; of what they cannot take the next one gets its part, and so on. If all together
/// do not suffice, those with less than `threshold` percent usable endpoints use all, and if that
/// holds for all tiers, they share traffic by their size. `draw` returns a number below its argument.
pub(super) fn choose(
    tiers: usize,
    census: impl Fn(usize) -> Census,
    threshold: u32,
    draw: impl FnOnce(u64) -> u64,
) -> Option<TierChoice> {
    let together: u64 = (0..tiers).map(|tier| census(tier).capacity()).sum();
    let short = together < WHOLE;
    let in_panic = |tier| short && census(tier).is_in_panic(threshold);
    let has_endpoints = |tier: &usize| census(*tier).total > 0;
    if short && (0..tiers).filter(has_endpoints).all(in_panic) {
        let size = |tier| census(tier).total as u64;
        let tier = by_share(tiers, size, (0..tiers).map(size).sum(), draw)?;
        return Some(TierChoice { tier, panic: true });
    }
    let tier = by_share(tiers, |tier| census(tier).capacity(), together.min(WHOLE), draw)?;
    Some(TierChoice { tier, panic: in_panic(tier) })
}

/// Draws one of so many by shares, of which those count that come first until `all` are dealt out.
pub(super) fn by_share(
    count: usize,
    share: impl Fn(usize) -> u64,
    all: u64,
    draw: impl FnOnce(u64) -> u64,
) -> Option<usize> {
    if all == 0 {
        return None;
    }
    let mut place = draw(all);
    (0..count).find(|index| {
        let share = share(*index);
        let found = place < share;
        place = place.saturating_sub(share);
        found
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Usable and all endpoints of each tier, and its percentage of traffic.
    type Spill = (&'static [(usize, usize)], &'static [u64]);

    /// The same, and which are in panic.
    type Panic = (&'static [(usize, usize)], &'static [u64], &'static [usize]);

    /// Returns the percentages of tiers, by usable and all endpoints, and which of them are in panic.
    fn shares(tiers: &[(usize, usize)], threshold: u32) -> (Vec<u64>, Vec<usize>) {
        let census = |tier: usize| Census { usable: tiers[tier].0, total: tiers[tier].1 };
        let mut counts = vec![0_u64; tiers.len()];
        let mut panic = Vec::new();
        let steps = 10_000;
        for step in 0..steps {
            let choice = choose(tiers.len(), census, threshold, |all| all * step / steps);
            let Some(choice) = choice else { continue };
            counts[choice.tier] += 1;
            if choice.panic {
                panic.push(choice.tier);
            }
        }
        panic.dedup();
        (counts.into_iter().map(|count| (count * 100 + steps / 2) / steps).collect(), panic)
    }

    #[test]
    fn traffic_spills_over_as_much_as_a_tier_cannot_take() {
        let cases: [Spill; 10] = [
            (&[(10, 10), (10, 10)], &[100, 0]),
            // 1.4 times 72 percent suffice.
            (&[(72, 100), (100, 100)], &[100, 0]),
            (&[(71, 100), (100, 100)], &[99, 1]),
            (&[(50, 100), (100, 100)], &[70, 30]),
            (&[(25, 100), (25, 100), (100, 100)], &[35, 35, 30]),
            (&[(0, 10), (10, 10)], &[0, 100]),
            // Together they cannot take all: each as much of it as it could take.
            (&[(1, 4), (1, 4)], &[50, 50]),
            (&[(2, 4), (1, 7)], &[78, 22]),
            (&[(0, 10), (0, 10)], &[0, 0]),
            (&[], &[]),
        ];
        for (tiers, expected) in cases {
            assert_eq!(shares(tiers, 0), (expected.to_vec(), vec![]), "{tiers:?}");
        }
    }

    #[test]
    fn below_the_threshold_all_endpoints_are_used() {
        let cases: [Panic; 5] = [
            (&[(4, 10)], &[100], &[0]),
            (&[(5, 10)], &[100], &[]),
            // What others can take is no reason to panic.
            (&[(4, 10), (10, 10)], &[56, 44], &[]),
            // All are in panic: by size.
            (&[(1, 10), (1, 30)], &[25, 75], &[0, 1]),
            (&[(0, 10), (0, 30)], &[25, 75], &[0, 1]),
        ];
        for (tiers, expected, panic) in cases {
            assert_eq!(shares(tiers, 50), (expected.to_vec(), panic.to_vec()), "{tiers:?}");
        }
    }

    #[test]
    fn a_tier_alone_may_panic() {
        let (shares, panic) = shares(&[(5, 10), (1, 10)], 40);
        assert_eq!((shares, panic), (vec![83, 17], vec![1]));
    }
}
