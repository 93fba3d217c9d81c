//! The endpoints of services, and what is prepared from them.
//!
//! Endpoints are kept by where they run: places are ranked, of which there are few. What the clients
//! of a place may choose from is a [`Menu`], made when the first asks and kept until the service or
//! an endpoint of it changes: a node has few clients of few places, and they use few services.

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{Arc, LazyLock},
};

use arc_swap::ArcSwap;
use mesh_api::workload::{Network, Service, Workload};

use super::{
    menu::{Access, Choice, Menu, Purpose, Way},
    proximity::{Preference, is_same_place, value},
    snapshot::ServiceEntry,
    standing::{Moment, Standing},
};

/// Menus that are kept of a service: for all its ports and, as far as it prefers some endpoints, for
/// the places of its clients, of which a node has one or two. The oldest makes room.
const MAX_MENUS: usize = 64;

/// A workload that belongs to a service.
#[derive(Clone, Debug)]
pub(super) struct Endpoint {
    pub(super) workload: Arc<Workload>,
    pub(super) ports: Arc<BTreeMap<u16, u16>>,
    pub(super) standing: Arc<Standing>,
}

/// Endpoints of a service that run in the same place; never empty.
#[derive(Clone, Debug)]
pub(super) struct Place(Arc<Vec<Endpoint>>);

/// The endpoints of a service. A copy shares what a change of it does not touch.
#[derive(Clone, Debug, Default)]
pub(super) struct Endpoints(Arc<Members>);

/// The endpoints of a service, and what was prepared from them.
#[derive(Debug, Default)]
pub(super) struct Members {
    places: Vec<Place>,
    menus: ArcSwap<Vec<Kept>>,
}

/// A menu and for whom it is.
#[derive(Clone, Debug)]
struct Kept {
    port: u16,
    purpose: Purpose,
    /// What the service's preference knows of the clients.
    place: Box<[Arc<str>]>,
    menu: Arc<Menu>,
}

/// A way to an endpoint of a service.
#[derive(Clone, Debug)]
pub(super) struct Candidate {
    /// The endpoint.
    pub(super) choice: Choice,
    /// Where it takes the connection.
    pub(super) way: Way,
}

/// What a service without endpoints has.
static NOBODY: LazyLock<Members> = LazyLock::new(Members::default);

// === impl Endpoint ===

impl Endpoint {
    pub(super) fn new(
        workload: Arc<Workload>,
        ports: BTreeMap<u16, u16>,
        standing: Arc<Standing>,
    ) -> Self {
        Self { workload, ports: Arc::new(ports), standing }
    }
}

// === impl Place ===

impl Place {
    pub(super) fn endpoints(&self) -> &[Endpoint] {
        &self.0
    }

    pub(super) fn rank(&self, preference: Preference<'_>, client: &Workload) -> Option<usize> {
        self.0.first().map(|first| preference.rank(client, &first.workload))
    }

    fn holds(&self, workload: &Workload) -> bool {
        self.0.first().is_some_and(|first| is_same_place(&first.workload, workload))
    }
}

// === impl Endpoints ===

impl Endpoints {
    pub(super) fn members(&self) -> &Members {
        &self.0
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.places.is_empty()
    }

    pub(super) fn insert(&mut self, endpoint: Endpoint) {
        let places = self.places_mut();
        match places.iter_mut().find(|place| place.holds(&endpoint.workload)) {
            Some(place) => Arc::make_mut(&mut place.0).push(endpoint),
            None => places.push(Place(Arc::new(vec![endpoint]))),
        }
    }

    /// Removes an endpoint; returns how it has been doing.
    pub(super) fn remove(&mut self, workload: &Arc<Workload>) -> Option<Arc<Standing>> {
        let places = self.places_mut();
        let index = places.iter().position(|place| place.holds(workload))?;
        let endpoints = Arc::make_mut(&mut places[index].0);
        let is_it = |endpoint: &Endpoint| Arc::ptr_eq(&endpoint.workload, workload);
        let removed = endpoints.iter().position(is_it).map(|at| endpoints.remove(at));
        if endpoints.is_empty() {
            places.remove(index);
        }
        removed.map(|endpoint| endpoint.standing)
    }

    fn places_mut(&mut self) -> &mut Vec<Place> {
        let members = Arc::make_mut(&mut self.0);
        members.menus = ArcSwap::default();
        &mut members.places
    }
}

impl From<Endpoint> for Endpoints {
    fn from(endpoint: Endpoint) -> Self {
        let mut endpoints = Self::default();
        endpoints.insert(endpoint);
        endpoints
    }
}

// === impl Members ===

impl Clone for Members {
    /// What was prepared is left behind: a copy is made to be changed.
    fn clone(&self) -> Self {
        Self { places: self.places.clone(), menus: ArcSwap::default() }
    }
}

impl Members {
    pub(super) fn none() -> &'static Self {
        &NOBODY
    }

    /// Returns the workloads, healthy or not.
    pub(super) fn workloads(&self) -> impl Iterator<Item = &Arc<Workload>> {
        self.places.iter().flat_map(Place::endpoints).map(|endpoint| &endpoint.workload)
    }

    fn menu(
        &self,
        service: &Arc<Service>,
        client: &Workload,
        network: &Network,
        port: u16,
        purpose: Purpose,
    ) -> Arc<Menu> {
        let scopes = Preference::new(&service.balancing).scopes();
        let fits = |kept: &&Kept| {
            kept.port == port
                && kept.purpose == purpose
                && kept.menu.is_of(service)
                && scopes.iter().map(|scope| value(*scope, client)).eq(&kept.place)
        };
        if let Some(kept) = self.menus.load().iter().find(fits) {
            return kept.menu.clone();
        }
        let menu = Arc::new(Menu::new(service, &self.places, client, network, port, purpose));
        // A port that nobody serves is asked for by mistake, and any number may be.
        if !menu.tiers().is_empty() {
            let place = scopes.iter().map(|scope| value(*scope, client).clone()).collect();
            let new = Kept { port, purpose, place, menu: menu.clone() };
            // Two threads may prepare the same; both are right.
            self.menus.rcu(|before| {
                let current = before.iter().filter(|kept| kept.menu.is_of(service));
                let skip = current.clone().count().saturating_sub(MAX_MENUS - 1);
                current.skip(skip).chain([&new]).cloned().collect::<Vec<_>>()
            });
        }
        menu
    }
}

// === impl ServiceEntry ===

impl ServiceEntry<'_> {
    /// Chooses the endpoints to try for a connection of `client` to `target`, best first.
    pub(super) fn candidates(
        self,
        client: &Workload,
        target: SocketAddr,
        purpose: Purpose,
        now: Moment,
        pick: impl Fn(u64) -> u64,
    ) -> Vec<Candidate> {
        let menu = self.menu(client, target.port(), purpose);
        let candidate = |choice: &Choice| {
            Some(Candidate { choice: choice.clone(), way: menu.way(choice, target.ip())? })
        };
        let is_reachable = |choice: &Choice| match choice.access {
            Access::Port(_) | Access::Name(_) => true,
            Access::Gateway => self.state.is_reachable(&choice.workload, client),
        };
        menu.choose(now, pick, is_reachable).into_iter().filter_map(candidate).collect()
    }

    /// Returns what `client` may choose from.
    pub(super) fn menu(self, client: &Workload, port: u16, purpose: Purpose) -> Arc<Menu> {
        self.members.menu(self.service, client, self.state.network(), port, purpose)
    }
}
