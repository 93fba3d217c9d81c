//! The resources that describe a mesh: workloads, services and L4 policies.

use prost::Message as _;

use super::{Interest, Subscription};
use crate::{
    convert::InvalidField,
    policy::Policy,
    proto::{
        security::Authorization,
        workload::{self as proto, Address, address::Type},
    },
    workload::{Service, Workload},
};

/// Type of workloads and services.
pub const ADDRESS_TYPE: &str = "type.googleapis.com/istio.workload.Address";

/// Type of L4 policies.
pub const AUTHORIZATION_TYPE: &str = "type.googleapis.com/istio.security.Authorization";

/// Type of what only waypoints are told.
pub const L7_TYPE: &str = "type.googleapis.com/fairlead.l7.Resource";

/// Type of what secrets have for TLS with endpoints: told by name only, and only to the waypoints of the
/// secret's namespace that need it.
pub const CREDENTIAL_TYPE: &str = "type.googleapis.com/fairlead.l7.Credential";

/// Alias of what every waypoint has to be told. What is for one waypoint has the `namespace/name` of
/// its gateway for an alias, in which there is no star.
pub const EVERY_WAYPOINT: &str = "*/*";

/// A resource that describes a part of a mesh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MeshResource {
    /// A workload; its name is its uid.
    Workload(Box<Workload>),
    /// A service; its name is its key.
    Service(Box<Service>),
    /// A policy; its name is its key.
    Policy(Box<Policy>),
}

/// Returns the subscriptions that together describe the mesh.
///
/// Policies come first: a workload is not told to admit what a policy that arrives a moment later
/// denies.
pub fn mesh_subscriptions() -> [Subscription<MeshResource>; 2] {
    [
        Subscription {
            type_url: AUTHORIZATION_TYPE,
            interest: Interest::Everything,
            read: read_policy,
        },
        Subscription { type_url: ADDRESS_TYPE, interest: Interest::Everything, read: read_address },
    ]
}

fn read_address(name: &str, content: &[u8]) -> Result<MeshResource, String> {
    let address = Address::decode(content).map_err(|error| error.to_string())?;
    match address.r#type {
        Some(Type::Workload(wire)) => read_workload(name, wire),
        Some(Type::Service(wire)) => read_service(name, wire),
        None => Err("is neither a workload nor a service".to_owned()),
    }
}

fn read_workload(name: &str, wire: proto::Workload) -> Result<MeshResource, String> {
    let workload: Workload = wire.try_into().map_err(|error: InvalidField| error.to_string())?;
    named(name, &workload.uid.0)?;
    Ok(MeshResource::Workload(Box::new(workload)))
}

fn read_service(name: &str, wire: proto::Service) -> Result<MeshResource, String> {
    let service: Service = wire.try_into().map_err(|error: InvalidField| error.to_string())?;
    named(name, &service.key.to_string())?;
    Ok(MeshResource::Service(Box::new(service)))
}

fn read_policy(name: &str, content: &[u8]) -> Result<MeshResource, String> {
    let wire = Authorization::decode(content).map_err(|error| error.to_string())?;
    let policy: Policy = wire.try_into().map_err(|error: InvalidField| error.to_string())?;
    named(name, &policy.key.to_string())?;
    Ok(MeshResource::Policy(Box::new(policy)))
}

/// Refuses a resource under a name that its removal would not find it by.
fn named(name: &str, key: &str) -> Result<(), String> {
    if name == key {
        return Ok(());
    }
    Err(format!("describes {}: its name has to be the same", key.escape_debug()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn encoded(r#type: Type) -> Vec<u8> {
        Address { r#type: Some(r#type) }.encode_to_vec()
    }

    fn workload(uid: &str) -> proto::Workload {
        proto::Workload {
            uid: uid.into(),
            namespace: "shop".into(),
            addresses: vec![vec![10, 0, 0, 7].into()],
            ..proto::Workload::default()
        }
    }

    #[test]
    fn resources_are_read_by_their_type_and_checked() {
        let service = || proto::Service {
            namespace: "shop".into(),
            hostname: "web".into(),
            ..proto::Service::default()
        };
        let read = |name, content: Type| read_address(name, &encoded(content));
        assert!(matches!(read("u", Type::Workload(workload("u"))), Ok(MeshResource::Workload(_))));
        assert!(matches!(read("shop/web", Type::Service(service())), Ok(MeshResource::Service(_))));
        let gateway = Some(proto::GatewayAddress::default());
        let nowhere = proto::Workload { network_gateway: gateway, ..workload("u") };
        for (name, content, expected) in [
            ("v", Type::Workload(workload("u")), "describes u: its name has to be the same"),
            ("web", Type::Service(service()), "describes shop/web: its name has to be the same"),
            ("u", Type::Workload(nowhere), "network_gateway: is empty: set it"),
        ] {
            assert_eq!(read(name, content).unwrap_err(), expected);
        }
        assert_eq!(read_address("u", &[]).unwrap_err(), "is neither a workload nor a service");
        assert!(read_address("u", &[0xff]).is_err());
    }

    #[test]
    fn a_policy_is_read_under_its_own_name_only() {
        let wire = Authorization {
            name: "p".into(),
            namespace: "shop".into(),
            ..Authorization::default()
        };
        let content = wire.encode_to_vec();
        assert!(matches!(read_policy("shop/p", &content), Ok(MeshResource::Policy(_))));
        assert!(read_policy("shop/q", &content).is_err());
    }
}
