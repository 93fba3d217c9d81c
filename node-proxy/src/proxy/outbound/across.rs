//! The way to another network: a tunnel to its gateway, and one inside it to whom the gateway gives
//! the connection. The gateway learns which service is meant, and reads nothing.

use std::sync::Arc;

use fairlead_tunnel::hbone::headers::{Authority, connect_request, from_network};
use mesh_api::{identity::Identity, workload::Service};

use super::{Captured, Onward, retry::is_worth_another_endpoint};
use crate::{
    proxy::{
        upstream::{self, Peer, Unopened},
        worker::Worker,
    },
    state::{Hop, Standing},
    telemetry::reason::CloseReason,
};

// === impl Captured ===

impl Captured {
    /// Opens both tunnels. The inner one is this connection's alone: the next may be for another pod.
    pub(super) async fn open_across(
        &self,
        hop: &Hop,
        expected: &Arc<[Identity]>,
        gateway: Option<&Standing>,
        service: &Service,
    ) -> Result<Onward, Unopened> {
        let hostname = &*service.key.hostname;
        let request = || {
            let authority = Authority::Name(hostname, hop.address.port());
            connect_request(authority, self.client, &self.source, Some(hostname))
                .map_err(|_| CloseReason::BadRequest)
        };
        let address = hop.peer_address();
        let peer = Peer { pod: self.pod.id, address, expected: expected.clone() };
        let Worker { tunnels, node, .. } = &*self.worker;
        let outer =
            upstream::open(tunnels, &self.pod, &peer, &node.metrics, request()?, None).await;
        match &outer {
            Ok(_) => gateway.into_iter().for_each(Standing::succeeded),
            Err(Unopened { reason, .. }) if is_fault_of_gateway(reason) => {
                self.note_failure(gateway, hop, reason);
            }
            Err(_) => {}
        }
        let mut request = request()?;
        from_network(request.headers_mut(), node.state().network());
        // Sessions are known by the service: who answers for it may be another pod each time.
        let peer = (hop.address.ip(), &*service.subject_alt_names);
        let inner = upstream::open_inside(outer?, &self.pod, peer, &node.metrics, request).await?;
        Ok(Onward::Across(Box::new(inner)))
    }
}

/// Whether a failure to get through a gateway says something about it, and not about what it was
/// asked for.
fn is_fault_of_gateway(reason: &CloseReason) -> bool {
    is_worth_another_endpoint(reason) && !matches!(reason, CloseReason::RefusedByPeer { .. })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_gateway_answers_for_its_own_failures_only() {
        for (reason, expected) in [
            (CloseReason::ConnectRefused, true),
            (CloseReason::ConnectTimeout { port: 15008 }, true),
            (CloseReason::PeerIdentityMismatch, true),
            (CloseReason::TunnelLost, true),
            // It has nobody to give it to.
            (CloseReason::RefusedByPeer { status: 503, denial: None }, false),
            (CloseReason::RefusedByPeer { status: 401, denial: None }, false),
            (CloseReason::NoCertificate, false),
        ] {
            assert_eq!(is_fault_of_gateway(&reason), expected, "{reason}");
        }
    }
}
