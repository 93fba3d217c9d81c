//! What is spoken on a port.

use mesh_api::proto::workload::AppProtocol;

use crate::object::ServicePort;

/// Ports on which the server speaks first, or which are known not to carry HTTP.
const TCP_PORTS: [u16; 4] = [25, 53, 3306, 27017];

/// Returns the protocol of a service's port: as declared, as its name begins, or as is usual there.
pub(super) fn of_port(port: &ServicePort) -> AppProtocol {
    let written = match port.app_protocol.as_deref() {
        Some("kubernetes.io/h2c") => "http2",
        Some("kubernetes.io/ws") => "http",
        Some("kubernetes.io/wss") => "https",
        Some(name) => name,
        None => &port.name,
    };
    let prefix = written.split('-').next().unwrap_or_default();
    let named = of_name(prefix);
    let usual = named == AppProtocol::Unknown && TCP_PORTS.contains(&port.port);
    if usual { AppProtocol::Tcp } else { named }
}

/// Returns the protocol of a name; unknown is what has to be found out.
///
/// Of databases the server may speak first, so that nobody could find it out.
pub(super) fn of_name(name: &str) -> AppProtocol {
    match name.to_ascii_lowercase().as_str() {
        "http" | "http_proxy" => AppProtocol::Http11,
        "http2" => AppProtocol::Http2,
        "grpc" | "grpc-web" => AppProtocol::Grpc,
        "https" | "tls" => AppProtocol::Tls,
        "tcp" | "mongo" | "mysql" | "redis" => AppProtocol::Tcp,
        _ => AppProtocol::Unknown,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::TargetPort;

    #[test]
    fn a_port_speaks_what_is_declared_or_what_its_name_begins_with_or_what_is_usual_there() {
        use AppProtocol::{Grpc, Http2, Http11, Tcp, Tls, Unknown};

        for (declared, name, number, expected) in [
            (None, "http", 80, Http11),
            (None, "HTTP-web", 80, Http11),
            (None, "http_proxy", 80, Http11),
            (None, "http2-web", 80, Http2),
            (None, "grpc-web", 80, Grpc),
            (None, "https", 80, Tls),
            (None, "tls-a-b", 80, Tls),
            (None, "mysql", 80, Tcp),
            (None, "redis-main", 80, Tcp),
            (None, "mongo", 80, Tcp),
            (None, "", 80, Unknown),
            (None, "httpx", 80, Unknown),
            (None, "", 3306, Tcp),
            (None, "db", 3306, Tcp),
            (None, "http", 3306, Http11),
            (Some("kubernetes.io/h2c"), "http", 80, Http2),
            (Some("kubernetes.io/ws"), "tcp", 80, Http11),
            (Some("kubernetes.io/wss"), "http", 80, Tls),
            (Some("grpc-web"), "tcp", 80, Grpc),
            (Some("MySQL"), "http", 80, Tcp),
            (Some("http-web"), "tcp", 80, Http11),
            (Some("example.com/own"), "http", 80, Unknown),
            (Some("example.com/own"), "http", 3306, Tcp),
        ] {
            let port = ServicePort {
                name: name.into(),
                port: number,
                target: TargetPort::Number(number),
                app_protocol: declared.map(Into::into),
            };
            assert_eq!(of_port(&port), expected, "{declared:?} {name} {number}");
        }
    }
}
