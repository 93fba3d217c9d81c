//! What each peer has of something that all peers share, counted without a lock.
//!
//! Peers are addresses, and any number of them may come: there is no entry for each. A peer is counted
//! in one place of each row, which keys that nobody else knows choose, and is taken to have the least
//! of these counts. That is never less than it has; it is more if in every row others are counted in
//! its place, so that one peer that has all that it may have refuses another one with it of 65,536.

use std::{
    hash::{BuildHasher as _, RandomState},
    net::IpAddr,
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering::Relaxed},
    },
};

/// Rows of places. With one a full peer would be another one's misfortune far more often; a third
/// would cost every connection more.
const ROWS: usize = 2;

/// Places of a row: so many that honest peers, each with a little, do not fill one together.
const PLACES: usize = 256;

/// What each peer has.
#[derive(Debug)]
pub struct Shares {
    key: RandomState,
    rows: Box<[[AtomicUsize; PLACES]; ROWS]>,
}

/// One thing that a peer has, given back when dropped.
#[derive(Debug)]
pub struct Part {
    of: Arc<Shares>,
    places: [u8; ROWS],
}

// === impl Shares ===

impl Shares {
    /// Starts with nothing taken.
    pub fn new() -> Arc<Self> {
        let rows = Box::new([const { [const { AtomicUsize::new(0) }; PLACES] }; ROWS]);
        Arc::new(Self { key: RandomState::new(), rows })
    }

    /// Takes one more for `peer`.
    pub fn take(self: &Arc<Self>, peer: IpAddr) -> Part {
        let places = self.places(peer);
        self.counts(places).for_each(|count| {
            count.fetch_add(1, Relaxed);
        });
        Part { of: self.clone(), places }
    }

    fn places(&self, peer: IpAddr) -> [u8; ROWS] {
        let [first, second, ..] = self.key.hash_one(peer).to_ne_bytes();
        [first, second]
    }

    fn counts(&self, places: [u8; ROWS]) -> impl Iterator<Item = &AtomicUsize> {
        self.rows.iter().zip(places).filter_map(|(row, place)| row.get(usize::from(place)))
    }
}

// === impl Part ===

impl Part {
    /// Returns how many the peer has, this one among them.
    pub fn held(&self) -> usize {
        self.of.counts(self.places).map(|count| count.load(Relaxed)).min().unwrap_or_default()
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        self.of.counts(self.places).for_each(|count| {
            count.fetch_sub(1, Relaxed);
        });
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use proptest::prelude::*;

    use super::*;

    fn peer(number: u32) -> IpAddr {
        std::net::Ipv4Addr::from_bits(number).into()
    }

    proptest! {
        #[test]
        fn a_peer_never_seems_to_have_less_than_it_has(
            taken in prop::collection::vec((0_u32..300, any::<bool>()), 0..2_000),
        ) {
            let shares = Shares::new();
            let mut parts: HashMap<u32, Vec<Part>> = HashMap::new();
            for (number, give_back) in taken {
                let of_peer = parts.entry(number).or_default();
                if give_back {
                    of_peer.pop();
                } else {
                    of_peer.push(shares.take(peer(number)));
                }
            }
            for of_peer in parts.values() {
                for part in of_peer {
                    prop_assert!(part.held() >= of_peer.len());
                }
            }
            drop(parts);
            prop_assert_eq!(shares.take(peer(0)).held(), 1);
        }
    }

    #[test]
    fn one_that_has_much_leaves_the_others_their_room() {
        const MUCH: usize = 100_000;
        let shares = Shares::new();
        let parts: Vec<Part> = (0..MUCH).map(|_| shares.take(peer(0))).collect();
        assert_eq!(parts[0].held(), MUCH);
        let others = (1..=10_000).filter(|number| shares.take(peer(*number)).held() > 1);
        // A few might have both places in common with it; in ten thousand tries, five never do.
        assert!(others.count() < 5);
    }
}
