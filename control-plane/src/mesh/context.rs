//! What a computation sees, and what it notes.

use std::sync::Arc;

use mesh_api::{
    crd::{
        DefaultTrafficPolicy, LocalitySettings, MeshConfig, NormalizationType, OutboundMode,
        TcpSettings, VirtualRetries,
    },
    proto::l7::PathNormalisation,
    workload::UnknownDestinations,
};

use super::{
    dependency::Dependencies,
    l7::LoweredRoutes,
    options::{Enrolment, Options},
    store::Store,
    warning::Warning,
};
use crate::{
    object::{Metadata, ObjectName, Plain},
    resource::Resource,
};

/// Trust domain that is left out on the wire.
const DEFAULT_TRUST_DOMAIN: &str = "cluster.local";

/// Settings that the mesh configuration overrides.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Settings {
    /// Namespace whose policies apply to the whole mesh.
    pub(super) root_namespace: Arc<str>,
    /// Trust domain of all identities; empty for the default one.
    pub(super) trust_domain: String,
    /// Namespaces that see services which do not say so themselves.
    pub(super) default_export: Vec<String>,
    /// Namespaces that see virtual services which do not say so themselves.
    pub(super) default_route_export: Vec<String>,
    /// Namespaces that see destination rules which do not say so themselves.
    pub(super) default_rule_export: Vec<String>,
    /// How requests are tried again that no route says it of; none for the usual way.
    pub(super) default_retries: Option<VirtualRetries>,
    /// How services are used where no destination rule says it.
    pub(super) default_policy: DefaultTrafficPolicy,
    /// How long a connection may take to be made and how it is probed, where no destination rule says
    /// it; none for the usual way.
    pub(super) default_connections: Option<TcpSettings>,
    /// How endpoints are chosen by where they are, where neither a destination rule nor the service
    /// says it; none for the usual way.
    pub(super) default_locality: Option<LocalitySettings>,
    /// How waypoints spell paths before they decide by them.
    pub(super) path_normalisation: PathNormalisation,
    /// What becomes of connections to addresses that the mesh does not know; none if nothing is said,
    /// which leaves it to each proxy.
    pub(super) unknown_destinations: Option<UnknownDestinations>,
}

/// What became of the waypoint of a service.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Binding {
    /// The service is bound to this one.
    Bound(ObjectName),
    /// It is not, or not as it asks for.
    Refused(Warning),
}

/// Who enforces a policy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Enforcer {
    /// A waypoint, and for what.
    pub(super) name: String,
    /// Whether what is for it has to pass it.
    pub(super) is_required: bool,
}

/// What a computation sees, and what it notes.
pub(super) struct Context<'a> {
    pub(super) store: &'a Store,
    pub(super) options: &'a Options,
    pub(super) settings: &'a Settings,
    /// What is worth telling about the object.
    pub(super) warnings: Vec<Warning>,
    /// What the result depends on.
    pub(super) depends_on: Dependencies,
    /// Waypoints that the service is bound to, whether they have an address or not; a canary last.
    pub(super) waypoints: Vec<ObjectName>,
    /// What comes out besides what the object is about.
    pub(super) further: Vec<Resource>,
    /// What became of the object's waypoint, if it is a service that names one.
    pub(super) binding: Option<Binding>,
    /// Who enforces the object, if it is a policy that is attached to something.
    pub(super) enforced_at: Vec<Enforcer>,
    /// Routes that came out last time, of which what is as it was is taken.
    pub(super) before: LoweredRoutes,
    /// Routes that come out besides.
    pub(super) lowered: LoweredRoutes,
    /// How many objects' routes among them are not as before.
    pub(super) newly_lowered: u64,
}

// === impl Settings ===

impl Settings {
    /// Returns the settings in force.
    pub(super) fn new(store: &Store, options: &Options) -> Self {
        let config = store
            .mesh_config(&config_name(options))
            .map(|config| config.spec.clone())
            .unwrap_or_default();
        let unknown_destinations = unknown_destinations(&config);
        let root = config.root_namespace.filter(|name| !name.is_empty());
        let trust_domain = config.trust_domain.filter(|name| name != DEFAULT_TRUST_DOMAIN);
        Self {
            root_namespace: root.map_or_else(|| options.system_namespace.clone(), Into::into),
            trust_domain: trust_domain.unwrap_or_default(),
            default_export: config.default_service_export_to,
            default_route_export: config.default_virtual_service_export_to,
            default_rule_export: config.default_destination_rule_export_to,
            default_retries: config.default_http_retry_policy,
            default_policy: config.default_traffic_policy,
            default_connections: Some(TcpSettings {
                connect_timeout: config.connect_timeout,
                tcp_keepalive: config.tcp_keepalive,
                ..TcpSettings::default()
            })
            .filter(|written| *written != TcpSettings::default()),
            default_locality: Some(config.locality_lb_setting).filter(|written| !is_usual(written)),
            path_normalisation: path_normalisation(config.path_normalization.normalization),
            unknown_destinations,
        }
    }
}

/// Returns the name of the config map that has the settings.
pub(super) fn config_name(options: &Options) -> ObjectName {
    ObjectName::new(options.system_namespace.clone(), "istio")
}

/// Returns whether the nearest endpoints are preferred, and nothing else is said.
fn is_usual(locality: &LocalitySettings) -> bool {
    let LocalitySettings { distribute, failover, failover_priority, enabled } = locality;
    let is_empty = distribute.is_empty() && failover.is_empty() && failover_priority.is_empty();
    is_empty && *enabled != Some(false)
}

fn path_normalisation(written: NormalizationType) -> PathNormalisation {
    match written {
        NormalizationType::Default | NormalizationType::Base => PathNormalisation::Base,
        NormalizationType::None => PathNormalisation::None,
        NormalizationType::MergeSlashes => PathNormalisation::MergeSlashes,
        NormalizationType::DecodeAndMergeSlashes => PathNormalisation::DecodeAndMergeSlashes,
    }
}

fn unknown_destinations(config: &MeshConfig) -> Option<UnknownDestinations> {
    let mode = config.outbound_traffic_policy.as_ref()?.mode?;
    Some(match mode {
        OutboundMode::RegistryOnly => UnknownDestinations::Refuse,
        OutboundMode::AllowAny | OutboundMode::AllowAnyDynamicDns => UnknownDestinations::Pass,
    })
}

// === impl Context ===

impl<'a> Context<'a> {
    pub(super) fn new(store: &'a Store, options: &'a Options, settings: &'a Settings) -> Self {
        Self {
            store,
            options,
            settings,
            warnings: Vec::new(),
            depends_on: Dependencies::default(),
            waypoints: Vec::new(),
            further: Vec::new(),
            binding: None,
            enforced_at: Vec::new(),
            before: LoweredRoutes::new(),
            lowered: LoweredRoutes::new(),
            newly_lowered: 0,
        }
    }

    pub(super) fn warn(&mut self, warning: Warning) {
        self.warnings.push(warning);
    }

    /// Notes that a service is bound to a waypoint; what was noted before stays.
    pub(super) fn bind(&mut self, waypoint: ObjectName) {
        self.binding.get_or_insert(Binding::Bound(waypoint));
    }

    /// Notes why a service is not bound as it asks for; the first reason stays.
    pub(super) fn refuse(&mut self, warning: Warning) {
        if !matches!(self.binding, Some(Binding::Refused(_))) {
            self.binding = Some(Binding::Refused(warning.clone()));
        }
        self.warn(warning);
    }

    /// Returns whether what no controller reports is taken for granted.
    pub(super) fn is_declared(&self) -> bool {
        match self.options.enrolment {
            Enrolment::Declared => true,
            Enrolment::Reported => false,
        }
    }

    /// Returns the namespace of an object, if it is known.
    pub(super) fn namespace_of(&self, metadata: &Metadata) -> Option<&'a Arc<Plain>> {
        self.store.namespace(metadata.namespace())
    }

    /// Returns a label of the namespace `name`.
    pub(super) fn namespace_label(&self, name: &Arc<str>, label: &str) -> Option<&'a str> {
        self.store.namespace(name).and_then(|namespace| namespace.metadata.label(label))
    }
}
