//! Maps hashes to endpoints such that few are mapped elsewhere when endpoints come and go.

use std::{fmt::Display, io::Write};

use twox_hash::XxHash64;

use super::policy::HashTable;

/// Points on a ring that weights alone lead to: 768 KiB. Weights that differ by more are levelled.
const MAX_DERIVED_RING: u64 = 1 << 16;

/// Which endpoint a hash is mapped to, by index.
#[derive(Debug)]
pub(super) enum Table {
    /// That of the first point from the hash on.
    Ring { points: Box<[u64]>, owners: Box<[u32]> },
    /// That of the entry which the hash leads to.
    Maglev(Box<[u32]>),
}

/// Returns the hash of what requests for the same endpoint have in common.
pub fn hash(key: &[u8]) -> u64 {
    XxHash64::oneshot(0, key)
}

// === impl Table ===

impl Table {
    /// Makes a table of endpoints, of which there are some, by their names and weights.
    pub(super) fn new(kind: HashTable, endpoints: &[(impl Display, u32)]) -> Self {
        match kind {
            HashTable::Ring { minimum } => Self::ring(minimum, endpoints),
            HashTable::Maglev { size } => Self::maglev(size, endpoints),
        }
    }

    /// Points are made of a name and a number, and as many as the weight says: at least one, and so
    /// many that all together are enough.
    fn ring(minimum: u32, endpoints: &[(impl Display, u32)]) -> Self {
        let total: u64 = endpoints.iter().map(|(_, weight)| u64::from(*weight)).sum();
        let least = endpoints.iter().map(|(_, weight)| u64::from(*weight)).min().unwrap_or(1);
        // Points for the endpoint of the least weight.
        let base = (u64::from(minimum) * least).div_ceil(total.max(1)).max(1);
        let largest = MAX_DERIVED_RING.max(u64::from(minimum) * 2).max(endpoints.len() as u64);
        let scale = |weight: u32| {
            let exact = (u128::from(weight) * u128::from(base)).div_ceil(u128::from(least.max(1)));
            let bound =
                (u128::from(weight) * u128::from(largest)).div_ceil(u128::from(total.max(1)));
            exact.min(bound)
        };
        let mut ring = Vec::new();
        let mut name = Vec::new();
        for (index, (endpoint, weight)) in (0_u32..).zip(endpoints) {
            for number in 0..scale(*weight) {
                name.clear();
                // Writing to memory does not fail.
                let _ = write!(name, "{endpoint}_{number}");
                ring.push((hash(&name), index));
            }
        }
        ring.sort_unstable();
        let (points, owners): (Vec<_>, Vec<_>) = ring.into_iter().unzip();
        Self::Ring { points: points.into(), owners: owners.into() }
    }

    /// Each endpoint claims entries in an order of its own, and the heaviest one at each turn.
    fn maglev(size: u32, endpoints: &[(impl Display, u32)]) -> Self {
        const FREE: u32 = u32::MAX;
        let size = u64::from(size);
        let mut claims: Vec<_> = endpoints.iter().map(|(name, _)| Claim::new(name, size)).collect();
        let heaviest = endpoints.iter().map(|(_, weight)| u64::from(*weight)).max().unwrap_or(1);
        let mut table = vec![FREE; usize::try_from(size).unwrap_or_default()];
        let mut free = table.len();
        while free > 0 {
            for ((index, claim), (_, weight)) in (0_u32..).zip(&mut claims).zip(endpoints) {
                claim.credit += u64::from(*weight);
                if claim.credit < heaviest || free == 0 {
                    continue;
                }
                claim.credit -= heaviest;
                // The step and the size have no divisor in common, so it comes by every entry.
                while table[claim.entry()] != FREE {
                    claim.advance(size);
                }
                table[claim.entry()] = index;
                free -= 1;
            }
        }
        Self::Maglev(table.into())
    }

    /// Returns the endpoint of `hash`, and then those that take its place one after the other.
    pub(super) fn of(&self, hash: u64) -> impl FnMut() -> usize + '_ {
        let start = match self {
            Self::Ring { points, .. } => points.partition_point(|point| *point < hash) as u64,
            Self::Maglev(_) => hash,
        };
        let mut next = start;
        move || {
            let place = next;
            let owner = match self {
                Self::Ring { owners, .. } => {
                    next = next.wrapping_add(1);
                    owners[index(place, owners.len())]
                }
                Self::Maglev(table) => {
                    next = self::hash(&place.to_le_bytes());
                    table[index(place, table.len())]
                }
            };
            owner as usize
        }
    }
}

/// What an endpoint claims entries by.
struct Claim {
    next: u64,
    step: u64,
    /// Weight that it has not claimed anything for.
    credit: u64,
}

// === impl Claim ===

impl Claim {
    fn new(name: &impl Display, size: u64) -> Self {
        let name = name.to_string();
        let step = XxHash64::oneshot(1, name.as_bytes()) % (size - 1) + 1;
        Self { next: hash(name.as_bytes()) % size, step, credit: 0 }
    }

    fn entry(&self) -> usize {
        usize::try_from(self.next).unwrap_or_default()
    }

    fn advance(&mut self, size: u64) {
        self.next = (self.next + self.step) % size;
    }
}

fn index(place: u64, len: usize) -> usize {
    usize::try_from(place % len as u64).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    const KINDS: [HashTable; 2] =
        [HashTable::Ring { minimum: 8192 }, HashTable::Maglev { size: 65_537 }];

    fn named(weights: impl IntoIterator<Item = u32>) -> Vec<(String, u32)> {
        let name = |number| format!("10.0.0.{number}:80");
        weights.into_iter().enumerate().map(|(number, weight)| (name(number), weight)).collect()
    }

    fn owners(table: &Table, keys: u64) -> Vec<usize> {
        (0..keys).map(|key| table.of(hash(&key.to_le_bytes()))()).collect()
    }

    #[test]
    fn the_hash_is_that_of_xxhash64() {
        assert_eq!(hash(b""), 0xef46_db37_51d8_e999);
        assert_eq!(hash(b"abc"), 0x44bc_2cf5_ad77_0999);
    }

    #[test]
    fn endpoints_get_keys_by_weight() {
        for kind in KINDS {
            let weights = [1, 2, 3, 4];
            let mut counts = [0_u32; 4];
            for owner in owners(&Table::new(kind, &named(weights)), 20_000) {
                counts[owner] += 1;
            }
            for (count, weight) in counts.into_iter().zip(weights) {
                let share = f64::from(count) / 20_000.0;
                let expected = f64::from(weight) / 10.0;
                assert!((share - expected).abs() < 0.03, "{kind:?}: {weight} got {share}");
            }
        }
    }

    #[test]
    fn only_the_keys_of_an_endpoint_that_goes_move() {
        let all = named([1; 20]);
        for kind in KINDS {
            let rest: Vec<_> = all.iter().filter(|(name, _)| *name != all[7].0).cloned().collect();
            let before = owners(&Table::new(kind, &all), 20_000);
            let after = owners(&Table::new(kind, &rest), 20_000);
            let moved = before
                .iter()
                .zip(&after)
                .filter(|(before, after)| **before != 7 && all[**before].0 != rest[**after].0);
            let moved = f64::from(u32::try_from(moved.count()).unwrap()) / 20_000.0;
            // How many points or entries an endpoint has depends on how many endpoints there are.
            assert!(moved < 0.07, "{kind:?}: {moved} of all keys moved");
        }
    }

    #[test]
    fn keys_of_a_spared_endpoint_go_to_different_ones() {
        for kind in KINDS {
            let table = Table::new(kind, &named([1; 5]));
            let mut heirs = [0_u32; 5];
            for key in 0..2000_u64 {
                let mut owners = table.of(hash(&key.to_le_bytes()));
                if owners() == 2 {
                    heirs[(0..64).map(|_| owners()).find(|owner| *owner != 2).unwrap()] += 1;
                }
            }
            for (index, heirs) in heirs.into_iter().enumerate() {
                assert_eq!(heirs > 40, index != 2, "{kind:?}: {index} got {heirs}");
            }
        }
    }

    #[test]
    fn weights_that_differ_by_much_make_no_giant() {
        let Table::Ring { points, .. } =
            Table::new(HashTable::Ring { minimum: 1024 }, &named([1, u32::MAX]))
        else {
            panic!("a ring was asked for");
        };
        assert!(points.len() as u64 <= MAX_DERIVED_RING + 2);
    }

    #[test]
    fn a_table_smaller_than_the_endpoints_is_filled() {
        let table = Table::new(HashTable::Maglev { size: 3 }, &named([1; 10]));
        assert!(owners(&table, 100).into_iter().all(|owner| owner < 10));
    }
}
