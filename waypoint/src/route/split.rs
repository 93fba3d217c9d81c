//! Which destination a request or a connection goes to.

use std::{num::NonZeroU16, sync::Arc};

use http::StatusCode;
use mesh_api::{proto::l7, workload::ServiceKey};

use super::{
    headers::{HeaderMutation, Whose},
    invalid::{At, Invalid, Problem, each},
    wire,
};

/// Destinations and their shares.
#[derive(Clone, Debug)]
pub struct Split {
    /// Those with a share, each with the sum of the shares up to and with its own.
    destinations: Box<[(u64, Destination)]>,
    total: u64,
}

/// A destination of requests.
#[derive(Clone, Debug)]
pub struct Destination {
    /// Service.
    pub service: ServiceKey,
    /// Port of the service; none for the one that the traffic was addressed to.
    pub port: Option<NonZeroU16>,
    /// Subset of the service; none for all of it.
    pub subset: Option<Arc<str>>,
    /// What is changed in the headers of requests, after what the route changes.
    pub request_headers: HeaderMutation,
    /// What is changed in the headers of responses, after what the route changes.
    pub response_headers: HeaderMutation,
    /// What requests for it are answered instead, if it cannot be meant.
    pub refusal: Option<StatusCode>,
}

// === impl Split ===

impl Split {
    /// Returns the destination for a random number; none if no destination has a share.
    pub fn choose(&self, random: u64) -> Option<&Destination> {
        let drawn = match &*self.destinations {
            [] => return None,
            [(_, only)] => return Some(only),
            _ => wire::scaled(random, self.total),
        };
        let at = self.destinations.partition_point(|(sum, _)| *sum <= drawn);
        self.destinations.get(at).map(|(_, destination)| destination)
    }

    /// Returns all destinations with a share.
    pub fn destinations(&self) -> impl Iterator<Item = &Destination> {
        self.destinations.iter().map(|(_, destination)| destination)
    }
}

impl TryFrom<Vec<l7::WeightedDestination>> for Split {
    type Error = Invalid;

    fn try_from(wire: Vec<l7::WeightedDestination>) -> Result<Self, Invalid> {
        let mut total: u64 = 0;
        let destinations = each(wire, "destinations", |wire| {
            total = total.checked_add(wire.weight.into()).ok_or(Problem::Weights)?;
            Ok::<_, Invalid>((wire.weight, total, Destination::try_from(wire)?))
        })?;
        let with_share = destinations.into_iter().filter(|(weight, ..)| *weight > 0);
        let destinations = with_share.map(|(_, sum, destination)| (sum, destination)).collect();
        Ok(Self { destinations, total })
    }
}

// === impl Destination ===

impl TryFrom<l7::WeightedDestination> for Destination {
    type Error = Invalid;

    fn try_from(wire: l7::WeightedDestination) -> Result<Self, Invalid> {
        let refusal = match wire.refusal {
            0 => None,
            status => Some(wire::final_status(status).at("refusal")?),
        };
        let request_headers = HeaderMutation::compile(wire.request_headers, Whose::Request);
        let response_headers = HeaderMutation::compile(wire.response_headers, Whose::Response);
        Ok(Self {
            service: wire::service(wire.service).at("service")?,
            port: wire::port(wire.port).at("port")?,
            subset: (!wire.subset.is_empty()).then(|| wire.subset.into()),
            request_headers: request_headers.at("request_headers")?,
            response_headers: response_headers.at("response_headers")?,
            refusal,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn split(weights: &[u32]) -> Split {
        let destination = |(index, weight): (usize, &u32)| l7::WeightedDestination {
            service: Some(l7::ServiceRef {
                namespace: "shop".into(),
                hostname: format!("s{index}"),
            }),
            weight: *weight,
            ..Default::default()
        };
        Split::try_from(weights.iter().enumerate().map(destination).collect::<Vec<_>>()).unwrap()
    }

    /// Weights, and how often each destination of a thousand draws is chosen.
    type Case = (&'static [u32], &'static [(&'static str, u64)]);

    #[test]
    fn destinations_get_their_shares() {
        const DRAWS: u64 = 1000;
        let table: [Case; 6] = [
            (&[], &[]),
            (&[0], &[]),
            (&[1], &[("s0", 1000)]),
            (&[50, 50], &[("s0", 500), ("s1", 500)]),
            (&[0, 1, 3, 0], &[("s1", 250), ("s2", 750)]),
            (&[1, 0], &[("s0", 1000)]),
        ];
        for (weights, expected) in table {
            let split = split(weights);
            let step = u64::MAX / DRAWS + 1;
            let mut counts = std::collections::BTreeMap::new();
            for draw in 0..DRAWS {
                if let Some(chosen) = split.choose(draw * step) {
                    *counts.entry(chosen.service.hostname.to_string()).or_insert(0) += 1;
                }
            }
            let counts: Vec<_> =
                counts.iter().map(|(name, count)| (name.as_str(), *count)).collect();
            assert_eq!(counts, expected, "{weights:?}");
            assert_eq!(split.choose(u64::MAX).is_some(), !expected.is_empty());
        }
    }

    #[test]
    fn a_destination_that_is_invalid_says_where() {
        let service = Some(l7::ServiceRef { namespace: "shop".into(), hostname: "s".into() });
        let valid = l7::WeightedDestination { service, weight: 1, ..Default::default() };
        for (wire, field) in [
            (l7::WeightedDestination { service: None, ..valid.clone() }, "destinations[1].service"),
            (l7::WeightedDestination { port: 70_000, ..valid.clone() }, "destinations[1].port"),
            (l7::WeightedDestination { refusal: 42, ..valid.clone() }, "destinations[1].refusal"),
        ] {
            let refused = Split::try_from(vec![valid.clone(), wire]);
            assert_eq!(refused.unwrap_err().field, field);
        }
    }
}
