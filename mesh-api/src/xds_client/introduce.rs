//! How a proxy introduces itself to the control plane: as one of Istio's.

use std::net::{IpAddr, Ipv4Addr};

use prost_types::{ListValue, Struct, Value, value::Kind};

use crate::{
    proto::discovery::Node,
    workload::{Network, NodeName},
};

/// Address of a proxy that does not know its own.
const NO_ADDRESS: IpAddr = IpAddr::V4(Ipv4Addr::new(1, 1, 1, 1));

/// What a proxy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// The pods of a node.
    NodeProxy,
    /// Services that ask for it.
    Waypoint,
}

/// Who a proxy is.
#[derive(Clone, Debug)]
pub struct Introduction {
    /// What it is for.
    pub role: Role,
    /// Node that it runs on.
    pub node_name: NodeName,
    /// Name of its own pod.
    pub pod_name: String,
    /// Namespace of its own pod.
    pub pod_namespace: String,
    /// Address of its own pod.
    pub address: Option<IpAddr>,
    /// Cluster that it is of.
    pub cluster_id: String,
    /// Network that its addresses belong to.
    pub network: Network,
}

/// Returns what the first requests of a stream say of a proxy.
pub fn introduce(introduction: &Introduction) -> Node {
    let Introduction { role, node_name, pod_name, pod_namespace, address, cluster_id, network } =
        introduction;
    let address = address.unwrap_or(NO_ADDRESS).to_string();
    let role = match role {
        Role::NodeProxy => "ztunnel",
        Role::Waypoint => "waypoint",
    };
    let id =
        format!("{role}~{address}~{pod_name}.{pod_namespace}~{pod_namespace}.svc.cluster.local");
    let addresses = ListValue { values: vec![text(&address)] };
    let fields = [
        ("NAME", text(pod_name)),
        ("NAMESPACE", text(pod_namespace)),
        ("INSTANCE_IPS", Value { kind: Some(Kind::ListValue(addresses)) }),
        ("NODE_NAME", text(&node_name.0)),
        ("CLUSTER_ID", text(cluster_id)),
        ("NETWORK", text(&network.0)),
    ];
    let fields = fields.into_iter().map(|(key, value)| (key.to_owned(), value)).collect();
    Node { id, cluster: String::new(), metadata: Some(Struct { fields }) }
}

fn text(value: &str) -> Value {
    Value { kind: Some(Kind::StringValue(value.to_owned())) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_node_id_has_the_four_parts_that_control_planes_expect() {
        let mut introduction = Introduction {
            role: Role::NodeProxy,
            node_name: NodeName("n1".into()),
            pod_name: "node-x".into(),
            pod_namespace: "istio-system".into(),
            address: "10.0.0.5".parse().ok(),
            cluster_id: "Kubernetes".into(),
            network: Network::default(),
        };
        let node = introduce(&introduction);
        assert_eq!(node.id, "ztunnel~10.0.0.5~node-x.istio-system~istio-system.svc.cluster.local");
        let fields = node.metadata.unwrap().fields;
        assert_eq!(fields["NODE_NAME"], text("n1"));
        assert_eq!(fields["CLUSTER_ID"], text("Kubernetes"));
        introduction.address = None;
        introduction.role = Role::Waypoint;
        assert!(introduce(&introduction).id.starts_with("waypoint~1.1.1.1~"));
    }
}
