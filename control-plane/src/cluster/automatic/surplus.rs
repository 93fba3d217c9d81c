//! How long waypoints are kept that are needed no more: pure.

use std::{collections::BTreeMap, time::Duration};

use tokio::time::Instant;

use crate::object::ObjectName;

/// Waypoints that are needed no more, with when each may go.
#[derive(Debug)]
pub(super) struct Surplus {
    linger: Duration,
    until: BTreeMap<ObjectName, Instant>,
}

// === impl Surplus ===

impl Surplus {
    pub(super) fn new(linger: Duration) -> Self {
        Self { linger, until: BTreeMap::new() }
    }

    /// Takes those that are not needed now; returns those that have not been for long enough.
    pub(super) fn due(&mut self, unneeded: Vec<ObjectName>, now: Instant) -> Vec<ObjectName> {
        let before = std::mem::take(&mut self.until);
        let until = |name: &ObjectName| before.get(name).copied().unwrap_or(now + self.linger);
        let dated = unneeded.into_iter().map(|name| (until(&name), name));
        let (due, kept): (Vec<_>, Vec<_>) = dated.partition(|(until, _)| *until <= now);
        self.until = kept.into_iter().map(|(until, name)| (name, until)).collect();
        // Tried again later if it fails.
        let again = due.iter().map(|(until, name)| (name.clone(), *until));
        self.until.extend(again);
        due.into_iter().map(|(_, name)| name).collect()
    }

    /// Returns when the next one may go that has not been told of.
    pub(super) fn next(&self, now: Instant) -> Option<Instant> {
        self.until.values().copied().filter(|until| *until > now).min()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_waypoint_goes_when_it_has_not_been_needed_for_a_while() {
        let name = |name: &str| ObjectName::new("shop", name);
        let (start, second) = (Instant::now(), Duration::from_secs(1));
        let mut surplus = Surplus::new(10 * second);
        let mut due = |names: &[&str], seconds: u32| {
            let now = start + second * seconds;
            let due = surplus.due(names.iter().map(|n| name(n)).collect(), now);
            (due, surplus.next(now).map(|next| next - start))
        };
        assert_eq!(due(&["a"], 0), (vec![], Some(10 * second)));
        assert_eq!(due(&["a", "b"], 4), (vec![], Some(10 * second)));
        assert_eq!(due(&["a", "b"], 10), (vec![name("a")], Some(14 * second)));
        assert_eq!(due(&["a"], 11), (vec![name("a")], None), "it is still there");
        // Needed in between.
        assert_eq!(due(&[], 12), (vec![], None));
        assert_eq!(due(&["a", "b"], 15), (vec![], Some(25 * second)));
    }
}
