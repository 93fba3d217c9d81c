//! Virtual addresses of the hosts of service entries that declare none.
//!
//! An address follows from the host and from who else wants it, not from the order in which they
//! came: every replica, and the same one after a restart, allocates the same. Each host begins at an
//! address that its name hashes to and takes the first one that no host of higher rank has taken;
//! hosts are ranked by the age of their object.

use std::{
    collections::{BTreeSet, HashMap},
    hash::Hasher as _,
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    sync::Arc,
};

use twox_hash::XxHash64;

use crate::object::ObjectName;

/// First half of the IPv4 addresses: 240.240.0.0/16, which nobody routes.
const V4_PREFIX: u16 = 0xf0f0;
/// Network of the IPv6 addresses: `2001:2::/48`, reserved for benchmarks.
const V6_PREFIX: u128 = 0x2001_0002 << 96;
/// Number of addresses: those of a /16 without the first and the last.
const SLOTS: u16 = u16::MAX - 1;
/// Most hosts with an address; as long as every other address is free, one is found at once.
const MAX_HOSTS: usize = SLOTS as usize / 2;

/// A host that wants an address; a lesser one has precedence.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Applicant {
    /// Whether it has no address yet: those that have one keep it.
    pub(super) is_new: bool,
    /// When its object was created.
    pub(super) created: Option<Box<str>>,
    /// Its object.
    pub(super) object: ObjectName,
    /// The host.
    pub(super) host: Arc<str>,
    /// The address that it has.
    pub(super) current: Option<Slot>,
}

/// Position of an address among all, counted from 0.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub(super) struct Slot(u16);

/// Who has which address.
#[derive(Clone, Debug, Default)]
pub(super) struct VirtualAddresses {
    taken: HashMap<Slot, Applicant>,
    /// All that have an address, by precedence.
    held: HashMap<Applicant, Slot>,
    /// Those of `held`, by precedence.
    ranked: BTreeSet<Applicant>,
    /// Those that have another address than the one they began at.
    displaced: BTreeSet<Applicant>,
    /// Those beyond [`MAX_HOSTS`].
    waiting: BTreeSet<Applicant>,
}

// === impl Slot ===

impl Slot {
    /// Returns the slot of an IPv4 address, if it is one of those allocated here.
    pub(super) fn of(address: IpAddr) -> Option<Self> {
        let IpAddr::V4(v4) = address else { return None };
        let [first, second, high, low] = v4.octets();
        let number = u16::from_be_bytes([high, low]);
        let is_ours = u16::from_be_bytes([first, second]) == V4_PREFIX;
        (is_ours && (1..=SLOTS).contains(&number)).then(|| Self(number - 1))
    }

    /// Returns the addresses of the slot.
    pub(super) fn addresses(self) -> [IpAddr; 2] {
        let number = self.0 + 1;
        let v4 = (u32::from(V4_PREFIX) << u16::BITS) | u32::from(number);
        let v6 = V6_PREFIX | u128::from(number);
        [Ipv4Addr::from_bits(v4).into(), Ipv6Addr::from_bits(v6).into()]
    }

    fn next(self) -> Self {
        Self((self.0 + 1) % SLOTS)
    }
}

// === impl Applicant ===

impl Applicant {
    /// Returns where the search for an address begins.
    fn first(&self) -> Slot {
        self.current.unwrap_or_else(|| {
            let mut hasher = XxHash64::with_seed(0);
            for text in [&self.object.namespace, &self.object.name, &self.host] {
                hasher.write(text.as_bytes());
                hasher.write(b"/");
            }
            let slot = hasher.finish() % u64::from(SLOTS);
            Slot(u16::try_from(slot).unwrap_or_default())
        })
    }
}

// === impl VirtualAddresses ===

impl VirtualAddresses {
    /// Returns the slot of `applicant`.
    pub(super) fn get(&self, applicant: &Applicant) -> Option<Slot> {
        self.held.get(applicant).copied()
    }

    /// Allocates an address; returns the objects of other hosts whose address changed.
    pub(super) fn insert(&mut self, applicant: Applicant) -> BTreeSet<ObjectName> {
        let mut moved = BTreeSet::new();
        if self.held.contains_key(&applicant) {
            return moved;
        }
        let mut applicant = applicant;
        if self.held.len() >= MAX_HOSTS {
            let Some(last) = self.ranked.last().cloned().filter(|last| *last > applicant) else {
                self.waiting.insert(applicant);
                return moved;
            };
            self.release(&last);
            moved.insert(last.object.clone());
            self.waiting.insert(last);
        }
        let mut slot = applicant.first();
        loop {
            match self.taken.get(&slot) {
                None => break self.hold(applicant, slot),
                Some(holder) if *holder < applicant => slot = slot.next(),
                Some(holder) => {
                    let evicted = holder.clone();
                    self.release(&evicted);
                    self.hold(applicant, slot);
                    moved.insert(evicted.object.clone());
                    applicant = evicted;
                    slot = slot.next();
                }
            }
        }
        moved
    }

    /// Takes an address back; returns the objects of other hosts whose address changed.
    pub(super) fn remove(&mut self, applicant: &Applicant) -> BTreeSet<ObjectName> {
        let mut moved = BTreeSet::new();
        if self.waiting.remove(applicant) || !self.held.contains_key(applicant) {
            return moved;
        }
        self.release(applicant);
        // The address may have been in the way of any of these.
        let displaced = std::mem::take(&mut self.displaced);
        let before: Vec<_> = displaced
            .into_iter()
            .filter_map(|applicant| self.release(&applicant).map(|slot| (applicant, slot)))
            .collect();
        for (applicant, _) in &before {
            moved.extend(self.insert(applicant.clone()));
        }
        let changed = before.into_iter().filter(|(a, slot)| self.get(a) != Some(*slot));
        moved.extend(changed.map(|(applicant, _)| applicant.object));
        if let Some(next) = self.waiting.pop_first() {
            moved.insert(next.object.clone());
            moved.extend(self.insert(next));
        }
        moved
    }

    fn hold(&mut self, applicant: Applicant, slot: Slot) {
        if slot != applicant.first() {
            self.displaced.insert(applicant.clone());
        }
        self.taken.insert(slot, applicant.clone());
        self.ranked.insert(applicant.clone());
        self.held.insert(applicant, slot);
    }

    fn release(&mut self, applicant: &Applicant) -> Option<Slot> {
        let slot = self.held.remove(applicant)?;
        self.taken.remove(&slot);
        self.ranked.remove(applicant);
        self.displaced.remove(applicant);
        Some(slot)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn applicant(number: u16, current: Option<u16>) -> Applicant {
        Applicant {
            is_new: current.is_none(),
            created: None,
            object: ObjectName::new("shop", format!("entry-{number}")),
            host: "api.example.com".into(),
            current: current.map(Slot),
        }
    }

    #[test]
    fn a_slot_has_an_address_of_each_family() {
        assert_eq!(Slot(0).addresses().map(|a| a.to_string()), ["240.240.0.1", "2001:2::1"]);
        let last = Slot(SLOTS - 1).addresses();
        assert_eq!(last.map(|a| a.to_string()), ["240.240.255.254", "2001:2::fffe"]);
        assert_eq!(Slot::of(last[0]), Some(Slot(SLOTS - 1)));
        for other in ["240.240.0.0", "240.240.255.255", "240.241.0.1", "2001:2::1"] {
            assert_eq!(Slot::of(other.parse().unwrap()), None, "{other}");
        }
    }

    #[test]
    fn who_has_an_address_keeps_it_when_another_one_comes() {
        let mut addresses = VirtualAddresses::default();
        let new = applicant(1, None);
        let slot = new.first();
        addresses.insert(new.clone());
        let moved = addresses.insert(applicant(2, Some(slot.0)));
        assert_eq!(addresses.get(&applicant(2, Some(slot.0))), Some(slot));
        assert_eq!(addresses.get(&new), Some(slot.next()));
        assert!(moved.contains(&new.object));
        addresses.remove(&applicant(2, Some(slot.0)));
        assert_eq!(addresses.get(&new), Some(slot));
    }

    proptest! {
        /// Few slots are begun at, so that most applicants are in each other's way.
        #[test]
        fn the_outcome_does_not_depend_on_the_order(
            steps in prop::collection::vec((any::<bool>(), 0_u16..12), 0..60),
        ) {
            let mut addresses = VirtualAddresses::default();
            let mut present = BTreeSet::new();
            for (insert, number) in steps {
                let applicant = applicant(number, Some(number % 3));
                if insert {
                    present.insert(applicant.clone());
                    addresses.insert(applicant);
                } else {
                    present.remove(&applicant);
                    addresses.remove(&applicant);
                }
            }
            let mut fresh = VirtualAddresses::default();
            for applicant in present {
                fresh.insert(applicant);
            }
            prop_assert_eq!(addresses.held, fresh.held);
            prop_assert_eq!(addresses.displaced, fresh.displaced);
        }
    }
}
