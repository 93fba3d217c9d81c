//! What is spoken on a port.

use mesh_api::proto::workload::AppProtocol;

use crate::object::ServicePort;

/// Ports on which the server speaks first, or which are known not to carry HTTP.
const TCP_PORTS: [u16; 4] = [25, 53, 3306, 27017];

/// Returns the protocol of a service's port: as declared, as its name begins, or as is usual there.
pub(super) fn of_port(port: &ServicePort) -> AppProtocol {
    if let Some(declared) = &port.app_protocol {
        return match &**declared {
            "kubernetes.io/h2c" => AppProtocol::Http2,
            "kubernetes.io/ws" => AppProtocol::Http11,
            "kubernetes.io/wss" => AppProtocol::Tls,
            name => of_name(name),
        };
    }
    let prefix = port.name.split('-').next().unwrap_or_default();
    let named = of_name(prefix);
    let usual = named == AppProtocol::Unknown && TCP_PORTS.contains(&port.port);
    if usual { AppProtocol::Tcp } else { named }
}

/// Returns the protocol of a name.
pub(super) fn of_name(name: &str) -> AppProtocol {
    match name.to_ascii_lowercase().as_str() {
        "http" => AppProtocol::Http11,
        "http2" => AppProtocol::Http2,
        "grpc" => AppProtocol::Grpc,
        "https" | "tls" => AppProtocol::Tls,
        "tcp" => AppProtocol::Tcp,
        _ => AppProtocol::Unknown,
    }
}
