//! What a change of a resource does to the snapshot. Pure.

use std::{net::IpAddr, sync::Arc};

use mesh_api::{
    convert::{InvalidField, policy_key, service_key},
    identity::Namespace,
    proto::{
        l7::{self, resource::Kind},
        workload::{Address, address::Type},
    },
    workload::{Service, ServiceKey, Workload, WorkloadUid},
    xds_client::{
        ADDRESS_TYPE, CREDENTIAL_TYPE, Change, EVERY_WAYPOINT, Interest, L7_TYPE, Subscription,
    },
};
use prost::Message as _;

use super::{
    credential::Credential,
    service::ServiceView,
    snapshot::{Extent, Snapshot, named},
};
use crate::{
    balance::{self, Labels},
    policy::GatewayKey,
    route::{Normalisation, Route},
};

/// Name of the resource that holds for all requests.
const SETTINGS: &str = "settings";

/// A resource that a waypoint is told of.
#[derive(Clone, Debug)]
pub enum MeshResource {
    /// A workload.
    Workload(Box<Workload>),
    /// A service.
    Service(Box<Service>),
    /// A route of a service.
    Route(Box<Route>),
    /// How a service is used.
    Destination(ServiceKey, Arc<l7::Destination>),
    /// A policy.
    Policy(Box<l7::Authorization>),
    /// Labels of a workload.
    Labels(WorkloadUid, Arc<Labels>),
    /// What a secret of a namespace has.
    Credential(Namespace, Arc<Credential>),
    /// What holds for all requests.
    Settings(Normalisation),
}

/// Returns the subscriptions that together describe the mesh to the waypoint of a gateway.
///
/// Services come first: after a time without the control plane, one that has left this waypoint is known
/// before its routes go. What these need of secrets comes before them. What is for other waypoints is not
/// asked for.
pub fn subscriptions(gateway: &GatewayKey) -> [Subscription<MeshResource>; 3] {
    let secrets = Interest::Names(vec![gateway.to_string()]);
    let own = Interest::Names(vec![gateway.to_string(), EVERY_WAYPOINT.to_owned()]);
    [
        Subscription { type_url: ADDRESS_TYPE, interest: Interest::Everything, read: read_address },
        Subscription { type_url: CREDENTIAL_TYPE, interest: secrets, read: read_credential },
        Subscription { type_url: L7_TYPE, interest: own, read: read_l7 },
    ]
}

fn read_address(_: &str, content: &[u8]) -> Result<MeshResource, String> {
    let address = Address::decode(content).map_err(|error| error.to_string())?;
    let invalid = |error: InvalidField| error.to_string();
    match address.r#type {
        Some(Type::Workload(wire)) => {
            Ok(MeshResource::Workload(Box::new(wire.try_into().map_err(invalid)?)))
        }
        Some(Type::Service(wire)) => {
            Ok(MeshResource::Service(Box::new(wire.try_into().map_err(invalid)?)))
        }
        None => Err("is neither a workload nor a service".to_owned()),
    }
}

fn read_l7(_: &str, content: &[u8]) -> Result<MeshResource, String> {
    let resource = l7::Resource::decode(content).map_err(|error| error.to_string())?;
    match resource.kind {
        Some(Kind::Route(wire)) => {
            let route = Route::try_from(wire).map_err(|error| error.to_string())?;
            Ok(MeshResource::Route(Box::new(route)))
        }
        Some(Kind::Destination(wire)) => {
            for variant in &wire.variants {
                balance::Policy::try_from(variant).map_err(|error| error.to_string())?;
            }
            Ok(MeshResource::Destination(key_of(wire.service.as_ref())?, Arc::new(wire)))
        }
        Some(Kind::Authorization(wire)) => Ok(MeshResource::Policy(Box::new(wire))),
        Some(Kind::Labels(wire)) => {
            Ok(MeshResource::Labels(WorkloadUid(wire.uid.into()), Arc::new(wire.labels)))
        }
        Some(Kind::Settings(wire)) => {
            let how = l7::PathNormalisation::try_from(wire.path_normalisation);
            let how = how.map_err(|unknown| format!("path_normalisation: {unknown}"))?;
            Ok(MeshResource::Settings(how.into()))
        }
        None => Err("is of a kind that this version does not know".to_owned()),
    }
}

fn read_credential(name: &str, content: &[u8]) -> Result<MeshResource, String> {
    let wire = l7::Credential::decode(content).map_err(|error| error.to_string())?;
    let namespace = wire.namespace.parse::<Namespace>().map_err(|error| error.to_string())?;
    let credential = Credential::from(wire);
    if Credential::secret_of(name) != Some(&*credential.name()) {
        return Err("has the name of another secret".to_owned());
    }
    Ok(MeshResource::Credential(namespace, Arc::new(credential)))
}

fn key_of(service: Option<&l7::ServiceRef>) -> Result<ServiceKey, String> {
    let service = service.ok_or("names no service")?;
    let namespace = service.namespace.parse::<Namespace>().map_err(|error| error.to_string())?;
    Ok(ServiceKey { namespace, hostname: service.hostname.as_str().into() })
}

// === impl Snapshot ===

impl Snapshot {
    /// Applies a change of a resource of the type `type_url`. [`Snapshot::settle`] completes it.
    pub fn apply(&mut self, type_url: &str, change: Change<MeshResource>) {
        match change {
            Change::Updated(_, MeshResource::Workload(workload)) => self.put_workload(*workload),
            Change::Updated(_, MeshResource::Service(service)) => self.put_service(*service),
            Change::Updated(name, MeshResource::Route(route)) => {
                self.remove_route(&name);
                self.put_route(name, *route);
            }
            Change::Updated(_, MeshResource::Destination(service, destination)) => {
                if destination.consumer_namespace == self.own.workload.identity.namespace.as_str() {
                    self.destinations.insert_mut(service.clone(), destination);
                    self.touch(service, Extent::Whole);
                }
            }
            Change::Updated(name, MeshResource::Policy(policy)) => {
                self.policies_changed = true;
                if let Err(error) = self.policies.insert(*policy) {
                    tracing::error!(resource = %name, %error, "a policy is not understood: all that it is for is refused");
                }
            }
            Change::Updated(_, MeshResource::Labels(uid, labels)) => {
                self.labels.insert_mut(uid.clone(), labels);
                self.touch_services_of(&uid);
            }
            Change::Updated(_, MeshResource::Credential(namespace, credential)) => {
                if namespace == self.own.workload.identity.namespace {
                    let name: Arc<str> = credential.short_name().into();
                    self.released.remove(&name);
                    self.credentials.insert_mut(name.clone(), credential);
                    let users: Vec<_> = self.users_of(&name).cloned().collect();
                    for service in users {
                        self.touch(service, Extent::Whole);
                    }
                }
            }
            Change::Updated(_, MeshResource::Settings(normalisation)) => {
                self.normalisation = normalisation;
            }
            Change::Removed(name) if type_url == L7_TYPE => self.remove_l7(&name),
            Change::Removed(name) if type_url == CREDENTIAL_TYPE => self.release_credential(&name),
            Change::Removed(name) => {
                let uid = WorkloadUid(name);
                if !self.remove_workload(&uid)
                    && let Ok(key) = service_key(&uid.0)
                {
                    self.remove_service(&key);
                }
            }
        }
    }

    /// Puts together what changes have concerned.
    pub fn settle(&mut self) {
        self.forget_released();
        if std::mem::take(&mut self.policies_changed) {
            self.direct_policies = self.policies.of(&self.gateway, None);
            let views = self.views.iter().map(|(key, view)| {
                let policies = self.policies.of(&self.gateway, Some(key));
                (key.clone(), Arc::new(view.with_policies(policies)))
            });
            self.views = views.collect();
        }
        for (key, extent) in std::mem::take(&mut self.dirty) {
            let view = match (self.services.get(&key), self.views.get(&key), extent) {
                (Some(_), Some(view), Extent::Routes) => view.with_routes(self.routes.get(&key)),
                (Some(service), previous, _) => ServiceView::new(self, service, previous),
                (None, previous, _) => {
                    end_binding(previous);
                    self.views.remove_mut(&key);
                    continue;
                }
            };
            if view.binding().is_none() {
                end_binding(self.views.get(&key));
            }
            self.views.insert_mut(key, Arc::new(view));
        }
    }

    fn put_workload(&mut self, workload: Workload) {
        self.remove_workload(&workload.uid);
        let workload = Arc::new(workload);
        for address in &workload.addresses {
            self.by_address.insert_mut(*address, workload.clone());
        }
        if let Some(name) = named(&workload) {
            let uids = self.named.get(name).cloned().unwrap_or_default();
            self.named.insert_mut(name.clone(), uids.insert(workload.uid.clone()));
        }
        for key in workload.services.keys() {
            let endpoints = self.endpoints.get(key).cloned().unwrap_or_default();
            self.endpoints.insert_mut(key.clone(), endpoints.insert(workload.uid.clone()));
            self.touch(key.clone(), Extent::Whole);
        }
        if workload.name == self.own.workload.name
            && workload.identity == self.own.workload.identity
        {
            self.own.workload = workload.clone();
        }
        self.workloads.insert_mut(workload.uid.clone(), workload);
    }

    fn remove_workload(&mut self, uid: &WorkloadUid) -> bool {
        let Some(workload) = self.workloads.get(uid).cloned() else { return false };
        self.workloads.remove_mut(uid);
        for address in &workload.addresses {
            // Another one may have it by now.
            if self.by_address.get(address).is_some_and(|holder| holder.uid == *uid) {
                self.by_address.remove_mut(address);
            }
        }
        self.forget_name(&workload);
        for key in workload.services.keys() {
            if let Some(endpoints) = self.endpoints.get(key) {
                let rest = endpoints.remove(uid);
                if rest.is_empty() {
                    self.endpoints.remove_mut(key);
                } else {
                    self.endpoints.insert_mut(key.clone(), rest);
                }
            }
            self.touch(key.clone(), Extent::Whole);
        }
        true
    }

    fn forget_name(&mut self, workload: &Workload) {
        let Some(name) = named(workload) else { return };
        let rest = self.named.get(name).map(|uids| uids.remove(&workload.uid)).unwrap_or_default();
        if rest.is_empty() {
            self.named.remove_mut(name);
            self.found.remove_mut(name);
        } else {
            self.named.insert_mut(name.clone(), rest);
        }
    }

    /// Notes the addresses that a host name stands for. [`Snapshot::settle`] completes it.
    pub fn found(&mut self, name: Arc<str>, addresses: Arc<[IpAddr]>) {
        let Some(uids) = self.named.get(&name).cloned() else { return };
        self.found.insert_mut(name, addresses);
        for uid in &uids {
            self.touch_services_of(uid);
        }
    }

    fn touch_services_of(&mut self, uid: &WorkloadUid) {
        if let Some(workload) = self.workloads.get(uid) {
            for key in workload.clone().services.keys() {
                self.touch(key.clone(), Extent::Whole);
            }
        }
    }

    fn put_service(&mut self, service: Service) {
        self.remove_service(&service.key);
        let key = service.key.clone();
        for address in &service.addresses {
            if let Some(address) = single(address.address) {
                self.by_vip.insert_mut(address, key.clone());
            }
        }
        self.by_hostname.insert_mut(key.hostname.to_ascii_lowercase().into(), key.clone());
        self.services.insert_mut(key.clone(), Arc::new(service));
        self.touch(key, Extent::Whole);
    }

    fn remove_service(&mut self, key: &ServiceKey) {
        let Some(service) = self.services.get(key).cloned() else { return };
        self.services.remove_mut(key);
        for address in &service.addresses {
            if let Some(address) = single(address.address)
                && self.by_vip.get(&address) == Some(key)
            {
                self.by_vip.remove_mut(&address);
            }
        }
        let hostname = key.hostname.to_ascii_lowercase();
        if self.by_hostname.get(&*hostname) == Some(key) {
            self.by_hostname.remove_mut(&*hostname);
        }
        self.touch(key.clone(), Extent::Whole);
    }

    fn put_route(&mut self, name: Arc<str>, route: Route) {
        let (service, id) = (route.service.clone(), route.id.clone());
        let mut routes = self.routes.get(&service).cloned().unwrap_or_default();
        Arc::make_mut(&mut routes).insert(route);
        self.routes.insert_mut(service.clone(), routes);
        self.touch(service.clone(), Extent::Routes);
        self.route_names.insert_mut(name, (service, id));
    }

    fn remove_route(&mut self, name: &str) {
        let Some((service, id)) = self.route_names.get(name).cloned() else { return };
        self.route_names.remove_mut(name);
        if let Some(mut routes) = self.routes.get(&service).cloned() {
            Arc::make_mut(&mut routes).remove(&id);
            if routes.is_empty() {
                self.routes.remove_mut(&service);
            } else {
                self.routes.insert_mut(service.clone(), routes);
            }
        }
        self.touch(service, Extent::Routes);
    }

    /// Takes note that nothing names a secret any more. Destinations that have not been told so go on
    /// with it: they would fail otherwise where a rule begins to name another one.
    fn release_credential(&mut self, name: &str) {
        let own = self.own.workload.identity.namespace.clone();
        let secret = Credential::secret_of(name).and_then(|secret| secret.split_once('/'));
        if let Some((namespace, name)) = secret
            && namespace == own.as_str()
        {
            self.released.insert(name.into());
        }
    }

    /// Forgets what was released and is not used.
    fn forget_released(&mut self) {
        let released = std::mem::take(&mut self.released);
        for name in released {
            if self.users_of(&name).next().is_none() {
                self.credentials.remove_mut(&*name);
            } else {
                self.released.insert(name);
            }
        }
    }

    /// Returns the services that are reached with a secret.
    fn users_of(&self, secret: &str) -> impl Iterator<Item = &ServiceKey> {
        let names = move |variant: &l7::Variant| {
            variant.tls.as_ref().is_some_and(|tls| tls.credential_name == secret)
        };
        let users = self.destinations.iter();
        users.filter(move |(_, used)| used.variants.iter().any(names)).map(|(service, _)| service)
    }

    /// Has a service put together anew.
    fn touch(&mut self, service: ServiceKey, extent: Extent) {
        let known = self.dirty.entry(service).or_insert(extent);
        *known = extent.max(*known);
    }

    fn remove_l7(&mut self, name: &str) {
        if name == SETTINGS {
            self.normalisation = Normalisation::default();
            return;
        }
        match name.split_once('/') {
            Some(("route", _)) => self.remove_route(name),
            Some(("destination", rest)) => {
                let Some((consumer, key)) = rest.split_once('/') else { return };
                if consumer == self.own.workload.identity.namespace.as_str()
                    && let Ok(key) = service_key(key)
                {
                    self.destinations.remove_mut(&key);
                    self.touch(key, Extent::Whole);
                }
            }
            Some(("authorization", key)) => {
                if let Ok(key) = policy_key(key) {
                    self.policies.remove(&key);
                    self.policies_changed = true;
                }
            }
            Some(("labels", uid)) => {
                let uid = WorkloadUid(uid.into());
                self.labels.remove_mut(&uid);
                self.touch_services_of(&uid);
            }
            // Nothing was accepted under such a name.
            Some(_) | None => {}
        }
    }
}

/// Has the connections to a service end that it took while it was bound to this waypoint.
fn end_binding(view: Option<&Arc<ServiceView>>) {
    if let Some(binding) = view.and_then(|view| view.binding()) {
        binding.end();
    }
}

/// Returns the one address of a network that has just one.
fn single(network: ipnet::IpNet) -> Option<std::net::IpAddr> {
    (network.prefix_len() == network.max_prefix_len()).then(|| network.addr())
}
