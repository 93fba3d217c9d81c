//! The access log: one line for each connection, when it ends.

use std::{cell::Cell, net::SocketAddr, num::NonZeroU32, time::Duration};

use mesh_api::identity::{Identity, Namespace};
use tracing::Level;

use super::{
    metrics::{ConnectionLabels, End, Reporter},
    reason::{CloseReason, ResponseFlags},
};

/// Log target (scope) of the access log.
pub const TARGET: &str = "access";

/// What is said about a connection that ended.
#[derive(Clone, Copy, Debug)]
pub struct ConnectionRecord<'a> {
    /// The ends of the connection.
    pub labels: &'a ConnectionLabels,
    /// Address of the client.
    pub src_addr: SocketAddr,
    /// Address that the bytes went to; the HBONE port where they went through a tunnel.
    pub dst_addr: SocketAddr,
    /// Authority of the tunnel's CONNECT, where there was a tunnel.
    pub hbone_addr: Option<SocketAddr>,
    /// Bytes from the client to the server.
    pub request_bytes: u64,
    /// Bytes from the server to the client.
    pub response_bytes: u64,
    /// Time from accept to close.
    pub duration: Duration,
    /// Why it ended.
    pub reason: &'a CloseReason,
}

/// Which connections that end well have a line: of each side, one in so many. Those that fail all
/// have one.
#[derive(Debug)]
pub struct Sampling {
    one_in: NonZeroU32,
    /// Connections since the last one that was taken, by side.
    since: [Cell<u32>; 2],
}

// === impl Sampling ===

impl Sampling {
    /// Takes one in `one_in` connections, the first one among them.
    pub fn new(one_in: NonZeroU32) -> Self {
        Self { one_in, since: Default::default() }
    }

    /// Returns whether the next connection is taken.
    pub fn takes(&self, side: Reporter) -> bool {
        let since = &self.since[side as usize];
        let before = since.get();
        since.set((before + 1) % self.one_in);
        before == 0
    }
}

// === impl ConnectionRecord ===

/// Writes the line; nothing is formatted unless the level is enabled.
macro_rules! line {
    ($level:expr, $message:literal, $record:expr) => {{
        let record = $record;
        let (source, destination) = (&record.labels.source, &record.labels.destination);
        tracing::event!(
            target: TARGET,
            $level,
            src.addr = %record.src_addr,
            src.workload = name(source),
            src.namespace = namespace(source),
            src.identity = identity(source).as_deref(),
            src.cluster = cluster(source),
            dst.addr = %record.dst_addr,
            dst.hbone_addr = record.hbone_addr.map(tracing::field::display),
            dst.service = record.service(),
            dst.workload = name(destination),
            dst.namespace = namespace(destination),
            dst.identity = identity(destination).as_deref(),
            dst.cluster = cluster(destination),
            direction = record.labels.reporter.direction(),
            bytes_sent = record.bytes_sent(),
            bytes_recv = record.bytes_received(),
            duration = format!("{}ms", record.duration.as_millis()),
            reason = record.reason.as_str(),
            policy = record.reason.policy().map(ToString::to_string).as_deref(),
            error = record.error().as_deref(),
            $message
        );
    }};
}

impl ConnectionRecord<'_> {
    /// Writes the line: at info when all went well, at warn when a policy refused the connection,
    /// at error when it could not be made or kept.
    pub fn emit(&self) {
        match self.reason.response_flags() {
            ResponseFlags::None => line!(Level::INFO, "connection complete", self),
            ResponseFlags::Deny => line!(Level::WARN, "connection failed", self),
            ResponseFlags::Connect
            | ResponseFlags::TlsFailure
            | ResponseFlags::H2HandshakeFailure
            | ResponseFlags::NetworkPolicy
            | ResponseFlags::IdentityError
            | ResponseFlags::CertRevoked => line!(Level::ERROR, "connection failed", self),
        }
    }

    fn service(&self) -> Option<&str> {
        self.labels.service.as_ref().map(|service| service.key.hostname.as_ref())
    }

    /// Returns the bytes that left this node, or the pod, towards the other end.
    fn bytes_sent(&self) -> u64 {
        match self.labels.reporter {
            Reporter::Source => self.request_bytes,
            Reporter::Destination => self.response_bytes,
        }
    }

    fn bytes_received(&self) -> u64 {
        match self.labels.reporter {
            Reporter::Source => self.response_bytes,
            Reporter::Destination => self.request_bytes,
        }
    }

    fn error(&self) -> Option<String> {
        self.reason.is_failure().then(|| self.reason.to_string())
    }
}

fn name(end: &End) -> Option<&str> {
    // What a peer says of itself may leave it out.
    let name = end.workload.as_ref().map(|workload| workload.name.as_ref());
    name.filter(|name| !name.is_empty())
}

fn namespace(end: &End) -> Option<&str> {
    end.workload_namespace().map(Namespace::as_str)
}

fn identity(end: &End) -> Option<String> {
    end.identity.as_ref().map(Identity::to_string)
}

fn cluster(end: &End) -> Option<&str> {
    let workload = end.workload.as_ref()?;
    let known = !workload.cluster_id.is_empty();
    known.then_some(&workload.cluster_id)
}

#[cfg(test)]
mod tests {
    use fairlead_component::logging::{LogFormat, capture};

    use super::*;
    use crate::telemetry::{
        fixtures::{labels, policy_key},
        metrics::Reporter,
    };

    fn record<'a>(labels: &'a ConnectionLabels, reason: &'a CloseReason) -> ConnectionRecord<'a> {
        ConnectionRecord {
            labels,
            src_addr: "10.1.2.9:41822".parse().unwrap(),
            dst_addr: "10.1.7.4:15008".parse().unwrap(),
            hbone_addr: Some("10.1.7.4:6379".parse().unwrap()),
            request_bytes: 311,
            response_bytes: 20_480,
            duration: Duration::from_micros(18_900),
            reason,
        }
    }

    #[test]
    fn a_complete_connection_is_one_line_with_the_keys_in_order() {
        let labels = labels("cart");
        let lines = capture(LogFormat::Plain, "info", || {
            record(&labels, &CloseReason::Completed).emit();
        });
        let (_, rest) = lines.split_once('\t').unwrap();
        assert_eq!(
            rest,
            "info\taccess\tconnection complete\tsrc.addr=10.1.2.9:41822 src.workload=\"cart-0\" \
             src.namespace=\"shop\" src.identity=\"spiffe://cluster.local/ns/shop/sa/cart\" \
             src.cluster=\"Kubernetes\" dst.addr=10.1.7.4:15008 dst.hbone_addr=10.1.7.4:6379 \
             dst.service=\"cache.shop.svc.cluster.local\" dst.workload=\"cache-0\" \
             dst.namespace=\"shop\" dst.identity=\"spiffe://cluster.local/ns/shop/sa/cache\" \
             dst.cluster=\"Kubernetes\" direction=\"outbound\" bytes_sent=311 bytes_recv=20480 \
             duration=\"18ms\" reason=\"completed\"\n"
        );
    }

    #[test]
    fn a_refusal_names_the_policy_and_omits_what_is_not_known() {
        let labels = ConnectionLabels {
            reporter: Reporter::Destination,
            source: End::default(),
            destination: End::default(),
            service: None,
            outside: None,
        };
        let reason = CloseReason::DeniedByPolicy { policy: policy_key() };
        let record = ConnectionRecord { hbone_addr: None, ..record(&labels, &reason) };
        let lines = capture(LogFormat::Plain, "info", || record.emit());
        let (_, rest) = lines.split_once('\t').unwrap();
        assert_eq!(
            rest,
            "warn\taccess\tconnection failed\tsrc.addr=10.1.2.9:41822 dst.addr=10.1.7.4:15008 \
             direction=\"inbound\" bytes_sent=20480 bytes_recv=311 duration=\"18ms\" \
             reason=\"denied_by_policy\" policy=\"shop/deny-all\" error=\"denied by policy \
             shop/deny-all: change that policy if this source may connect\"\n"
        );
    }

    #[test]
    fn json_lines_carry_the_same_keys() {
        let labels = labels("cart");
        let lines = capture(LogFormat::Json, "info", || {
            record(&labels, &CloseReason::ConnectRefused).emit();
        });
        let line: serde_json::Value = serde_json::from_str(&lines).unwrap();
        for (key, value) in [
            ("level", serde_json::json!("error")),
            ("scope", serde_json::json!("access")),
            ("message", serde_json::json!("connection failed")),
            ("src.addr", serde_json::json!("10.1.2.9:41822")),
            ("src.workload", serde_json::json!("cart-0")),
            ("bytes_recv", serde_json::json!(20_480)),
            ("reason", serde_json::json!("connect_refused")),
        ] {
            assert_eq!(line[key], value, "{key}");
        }
        assert!(line.get("policy").is_none());
    }

    #[test]
    fn of_each_side_one_connection_in_so_many_is_taken() {
        let sampling = Sampling::new(NonZeroU32::new(3).unwrap());
        let sides = [Reporter::Source, Reporter::Destination];
        let taken: Vec<_> = (0..7).map(|_| sides.map(|side| sampling.takes(side))).collect();
        let expected = [true, false, false, true, false, false, true];
        assert_eq!(taken, expected.map(|taken| [taken; 2]));
        let all = Sampling::new(NonZeroU32::MIN);
        assert!((0..3).all(|_| all.takes(Reporter::Source)));
    }

    #[test]
    fn a_disabled_target_writes_nothing() {
        let labels = labels("cart");
        let lines = capture(LogFormat::Plain, "info,access=off", || {
            record(&labels, &CloseReason::Http2).emit();
        });
        assert_eq!(lines, "");
    }
}
