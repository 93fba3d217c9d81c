//! Endpoints that are as good as each other.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Instant,
};

use super::{
    dice::Dice,
    endpoint::{Host, Tried},
    policy::{Algorithm, OutlierDetection, Warmup},
    presence::Presence,
    table::Table,
    tiers::Census,
    weights::Weights,
};

/// Draws that may hit an endpoint which cannot be used: while few are such, chance keeps the shares.
const MAX_DRAWS: usize = 8;

/// Endpoints that are as good as each other; never none.
#[derive(Debug)]
pub(super) struct Group {
    /// Share of traffic among the groups of a tier.
    pub(super) weight: u32,
    hosts: Box<[Arc<Host>]>,
    order: Order,
    /// Those that are not ejected, as far as anybody has noticed.
    usable: Presence,
}

/// How one of a group is chosen.
#[derive(Debug)]
enum Order {
    LeastRequest(Weights),
    RoundRobin { weights: Weights, turn: AtomicU64 },
    Random(Weights),
    Hash(Table),
}

/// What is looked for.
pub(super) struct Search<'a> {
    /// Endpoints to pass over.
    pub(super) tried: &'a [Tried],
    /// Whether ejected endpoints are as good as others.
    pub(super) panic: bool,
    pub(super) hash: u64,
    pub(super) warmup: Option<&'a Warmup>,
    pub(super) now: Instant,
}

// === impl Group ===

impl Group {
    /// Makes a group of endpoints, of which there are some; where turns are taken, `turn` is next.
    pub(super) fn new(
        weight: u32,
        hosts: Box<[Arc<Host>]>,
        algorithm: &Algorithm,
        turn: u64,
    ) -> Self {
        let weights = || {
            let weights = hosts.iter().map(|host| host.endpoint.weight());
            Weights::new(&weights.collect::<Vec<_>>())
        };
        let order = match algorithm {
            Algorithm::LeastRequest => Order::LeastRequest(weights()),
            Algorithm::RoundRobin => {
                Order::RoundRobin { weights: weights(), turn: AtomicU64::new(turn) }
            }
            // Clients that did not address an endpoint get any.
            Algorithm::Random | Algorithm::Passthrough => Order::Random(weights()),
            Algorithm::Hash(hash) => {
                let named =
                    hosts.iter().map(|host| (host.endpoint.address, host.endpoint.weight()));
                Order::Hash(Table::new(hash.table, &named.collect::<Vec<_>>()))
            }
        };
        let group = Self { weight, usable: Presence::new(hosts.len()), hosts, order };
        group.notice();
        group
    }

    /// Returns the turn that is next.
    pub(super) fn turn(&self) -> u64 {
        match &self.order {
            Order::RoundRobin { turn, .. } => turn.load(Relaxed),
            Order::LeastRequest(_) | Order::Random(_) | Order::Hash(_) => 0,
        }
    }

    pub(super) fn hosts(&self) -> &[Arc<Host>] {
        &self.hosts
    }

    pub(super) fn census(&self) -> Census {
        Census { usable: self.usable.count(), total: self.usable.size() }
    }

    /// Looks at all endpoints, and has those used whose time is over.
    pub(super) fn tick(&self, policy: &OutlierDetection, now: Instant) {
        for host in &self.hosts {
            host.standing.tick(policy, now);
        }
        self.notice();
    }

    fn notice(&self) {
        for index in 0..self.hosts.len() {
            self.is_usable(index);
        }
    }

    /// Returns whether an endpoint is not ejected, and keeps that in mind.
    fn is_usable(&self, index: usize) -> bool {
        let usable = !self.hosts[index].standing.is_ejected();
        self.usable.set(index, usable);
        usable
    }

    /// Picks an endpoint, if there is one that is looked for.
    pub(super) fn pick(&self, search: &Search<'_>, dice: &mut Dice) -> Option<&Arc<Host>> {
        let index = match &self.order {
            Order::LeastRequest(weights) => self.least_busy(weights, search, dice),
            Order::RoundRobin { weights, turn } => {
                let draw = |_: &mut Dice| weights.turn(turn.fetch_add(1, Relaxed));
                self.seek(search, dice, draw)
            }
            Order::Random(weights) => {
                self.seek(search, dice, |dice| weights.at(dice.below(weights.places())))
            }
            Order::Hash(table) => {
                let mut owner = table.of(search.hash);
                self.seek(search, dice, |_| owner())
            }
        };
        index.map(|index| &self.hosts[index])
    }

    /// Takes the one of two with fewer active requests for its weight; in doubt the first, so that
    /// idle endpoints are used by their weights.
    fn least_busy(&self, weights: &Weights, search: &Search<'_>, dice: &mut Dice) -> Option<usize> {
        let draw = |dice: &mut Dice| weights.at(dice.below(weights.places()));
        let first = self.seek(search, dice, draw)?;
        let other = |dice: &mut Dice| {
            let drawn = draw(dice);
            if drawn == first { (drawn + 1) % self.hosts.len() } else { drawn }
        };
        let second = self.seek(search, dice, other)?;
        let [first_load, second_load] = [first, second].map(|index| {
            let host = &self.hosts[index];
            (u64::from(host.standing.active.load(Relaxed)), u64::from(host.endpoint.weight()))
        });
        let is_busier = first_load.0 * second_load.1 > second_load.0 * first_load.1;
        Some(if is_busier { second } else { first })
    }

    /// Draws until there is one that is looked for, and then looks at those that chance has missed.
    fn seek(
        &self,
        search: &Search<'_>,
        dice: &mut Dice,
        mut draw: impl FnMut(&mut Dice) -> usize,
    ) -> Option<usize> {
        if !search.panic && self.usable.count() == 0 {
            return None;
        }
        let mut new = None;
        for _ in 0..MAX_DRAWS {
            let index = draw(dice);
            if !self.is_wanted(index, search) {
                continue;
            }
            if self.gets_share(index, search, dice) {
                return Some(index);
            }
            new = Some(index);
        }
        new.or_else(|| self.look(search, dice.index(self.hosts.len())))
    }

    /// Looks for one that is wanted from `start` on. Only an ejection that is noticed here makes it
    /// take another step, and each of them does so once.
    fn look(&self, search: &Search<'_>, start: usize) -> Option<usize> {
        let is_wanted = |index: &usize| self.is_wanted(*index, search);
        if search.panic {
            let count = self.hosts.len();
            let others = search.tried.len() + 1;
            return (0..others.min(count)).map(|step| (start + step) % count).find(is_wanted);
        }
        self.usable.from(start).find(is_wanted)
    }

    fn is_wanted(&self, index: usize, search: &Search<'_>) -> bool {
        (search.panic || self.is_usable(index))
            && !search.tried.iter().any(|tried| tried.is(&self.hosts[index]))
    }

    /// Returns whether a draw counts: an endpoint that is new gets less than its share.
    fn gets_share(&self, index: usize, search: &Search<'_>, dice: &mut Dice) -> bool {
        let Some(warmup) = search.warmup else { return true };
        let age = self.hosts[index].standing.age(search.now);
        age >= warmup.duration || dice.is_within(warmup.factor(age))
    }
}
