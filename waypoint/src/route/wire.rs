//! Values that many messages hold, checked.

use std::{num::NonZeroU16, time::Duration};

use http::StatusCode;
use mesh_api::{identity::Namespace, proto::l7, workload::ServiceKey};

use super::invalid::{At, Invalid, Problem};

/// A million: shares of requests are counted in millionths.
const MILLION: u32 = 1_000_000;

/// A share of requests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Share {
    per_million: u32,
}

// === impl Share ===

impl Share {
    pub(crate) fn compile(per_million: u32) -> Result<Self, Problem> {
        if per_million > MILLION {
            return Err(Problem::Share(per_million));
        }
        Ok(Self { per_million })
    }

    /// Returns whether a request with this random number belongs to the share.
    pub fn holds(self, random: u64) -> bool {
        scaled(random, u64::from(MILLION)) < u64::from(self.per_million)
    }
}

/// Maps a random number of 64 bits to one below a bound, each as likely as the others.
pub(crate) fn scaled(random: u64, bound: u64) -> u64 {
    let product = u128::from(random) * u128::from(bound);
    u64::try_from(product >> u64::BITS).unwrap_or_default()
}

/// Returns the key of a service.
pub(crate) fn service(wire: Option<l7::ServiceRef>) -> Result<ServiceKey, Invalid> {
    let l7::ServiceRef { namespace, hostname } = wire.ok_or(Problem::Missing)?;
    let namespace =
        namespace.parse::<Namespace>().map_err(|_| Problem::Namespace).at("namespace")?;
    if hostname.is_empty() {
        return Err(Problem::Missing).at("hostname");
    }
    Ok(ServiceKey { namespace, hostname: hostname.into() })
}

/// Returns a port; none for zero.
pub(crate) fn port(wire: u32) -> Result<Option<NonZeroU16>, Problem> {
    u16::try_from(wire).map(NonZeroU16::new).map_err(|_| Problem::Port(wire))
}

/// Returns a period; none for an absent one and for zero, which limits nothing.
pub(crate) fn period(wire: Option<prost_types::Duration>) -> Result<Option<Duration>, Problem> {
    let Some(wire) = wire else { return Ok(None) };
    let period = Duration::try_from(wire).map_err(|_| Problem::Duration)?;
    Ok((!period.is_zero()).then_some(period))
}

/// Returns a final status.
pub(crate) fn final_status(wire: u32) -> Result<StatusCode, Problem> {
    status(wire, 200..=599)
}

/// Returns a status of a redirect.
pub(crate) fn redirect_status(wire: u32) -> Result<StatusCode, Problem> {
    status(wire, 300..=399)
}

fn status(wire: u32, allowed: std::ops::RangeInclusive<u16>) -> Result<StatusCode, Problem> {
    let code = u16::try_from(wire).ok().filter(|code| allowed.contains(code));
    let status = code.and_then(|code| StatusCode::from_u16(code).ok());
    status.ok_or(Problem::Status(wire))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_share_holds_as_many_of_all_numbers_as_it_says() {
        for (per_million, random, expected) in [
            (0, 0, false),
            (1, 0, true),
            (1, u64::MAX / 1_000_000 + 1, false),
            (500_000, u64::MAX / 2, true),
            (500_000, u64::MAX / 2 + 1, false),
            (1_000_000, u64::MAX, true),
        ] {
            let share = Share::compile(per_million).unwrap();
            assert_eq!(share.holds(random), expected, "{per_million} of {random}");
        }
        assert_eq!(Share::compile(1_000_001), Err(Problem::Share(1_000_001)));
    }

    #[test]
    fn a_period_of_zero_limits_nothing_and_a_negative_one_is_refused() {
        let wire = |seconds, nanos| Some(prost_types::Duration { seconds, nanos });
        for (wire, expected) in [
            (None, Ok(None)),
            (wire(0, 0), Ok(None)),
            (wire(1, 500_000_000), Ok(Some(Duration::from_millis(1500)))),
            (wire(-1, 0), Err(Problem::Duration)),
        ] {
            assert_eq!(period(wire), expected);
        }
    }
}
