//! The routes of single objects, kept while what they are made of is as it was: a service may have
//! thousands of them, of which one object at a time changes.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use mesh_api::proto::l7::{Route, route::Traffic};

use super::{Bound, Scope, encode, gateway_api, note_unspoken, targets};
use crate::{
    mesh::{context::Context, dependency::Dependencies, outcome::reuse, warning::Warning},
    object::{Object, ObjectKey, ObjectName},
    resource::Resource,
};

/// Routes by the host name of a service and the object that declares them.
pub(in crate::mesh) type LoweredRoutes = BTreeMap<(String, ObjectKey), Lowered>;

/// The routes of an object for a service.
#[derive(Debug)]
pub(in crate::mesh) struct Lowered {
    origin: Origin,
    summary: Summary,
    depends_on: Dependencies,
    warnings: Vec<Warning>,
    resources: Box<[Arc<Resource>]>,
}

/// All that routes are made of.
#[derive(Debug, PartialEq)]
struct Origin {
    object: Object,
    scope: Arc<Scope>,
    waypoints: Arc<[ObjectName]>,
    /// State of everything else, but for other routes.
    surroundings: u64,
}

/// What is to be known of routes together.
#[derive(Debug, Default)]
pub(super) struct Summary {
    /// Namespaces and host names of the services that they name.
    pub(super) targets: BTreeSet<(String, String)>,
    /// Whether one is for requests of all clients.
    pub(super) has_one_for_all: bool,
    /// Whether one looks at the labels of clients.
    pub(super) looks_at_labels: bool,
}

/// Has the routes of an object for a service among what comes out, and adds them to `summary`.
pub(super) fn lower(
    context: &mut Context<'_>,
    bound: &Bound<'_>,
    name: &ObjectKey,
    summary: &mut Summary,
) {
    let Some(object) = context.store.get(name) else { return };
    let origin = Origin {
        object: object.clone(),
        scope: Arc::clone(&bound.scope),
        waypoints: Arc::clone(bound.waypoints),
        surroundings: context.store.surroundings(),
    };
    let place = (bound.scope.service.hostname.clone(), name.clone());
    let lowered = match context.before.remove(&place) {
        Some(before) if before.origin == origin => before,
        before => {
            context.newly_lowered += 1;
            Lowered::new(context, bound, origin, before.as_ref())
        }
    };
    context.depends_on.add(&lowered.depends_on);
    context.warnings.extend(lowered.warnings.iter().cloned());
    summary.add(&lowered.summary);
    context.lowered.insert(place, lowered);
}

/// Returns the resources of all routes.
pub(in crate::mesh) fn resources(lowered: &LoweredRoutes) -> impl Iterator<Item = &Arc<Resource>> {
    lowered.values().flat_map(|lowered| &lowered.resources)
}

// === impl Lowered ===

impl Lowered {
    fn new(
        context: &Context<'_>,
        bound: &Bound<'_>,
        origin: Origin,
        before: Option<&Self>,
    ) -> Self {
        let mut own = Context::new(context.store, context.options, context.settings);
        let routes = gateway_api::routes(&mut own, bound.key, &origin.scope, &origin.object);
        note_unspoken(&mut own, bound.service, &routes);
        let summary = Summary::of(&routes);
        let resources = encode(&origin.scope, &origin.waypoints, routes).map(Arc::new).collect();
        let before = before.map_or(&[][..], |before| &before.resources);
        let resources = reuse(before, resources);
        let Context { depends_on, warnings, .. } = own;
        Self { origin, summary, depends_on, warnings, resources }
    }
}

// === impl Summary ===

impl Summary {
    pub(super) fn of(routes: &[Route]) -> Self {
        let is_for_all = |route: &Route| {
            route.client_namespace.is_empty()
                && route.client_labels.is_empty()
                && route.source_namespace.is_empty()
                && matches!(route.traffic, Some(Traffic::Http(_)))
        };
        let targets = routes.iter().flat_map(targets);
        Self {
            targets: targets.map(|t| (t.namespace.clone(), t.hostname.clone())).collect(),
            has_one_for_all: routes.iter().any(is_for_all),
            looks_at_labels: routes.iter().any(|route| !route.client_labels.is_empty()),
        }
    }

    pub(super) fn add(&mut self, other: &Self) {
        self.targets.extend(other.targets.iter().cloned());
        self.has_one_for_all |= other.has_one_for_all;
        self.looks_at_labels |= other.looks_at_labels;
    }
}
