//! Faults that are injected on purpose.

use std::time::Duration;

use http::StatusCode;
use mesh_api::proto::l7::{self, abort};

use super::{
    invalid::{At, Invalid, Problem},
    wire::{self, Share},
};

/// Greatest status of gRPC.
const MAX_GRPC_STATUS: u32 = 16;

/// Faults of a route, and for what share of its requests.
#[derive(Clone, Debug)]
pub struct Fault {
    delay: Option<(Duration, Share)>,
    abort: Option<(Abort, Share)>,
}

/// How a request is aborted.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Abort {
    /// With a status of HTTP.
    Http(StatusCode),
    /// With a status of gRPC, and 200.
    Grpc(u8),
}

/// What is done to one request: first the delay, then the abort.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Injected {
    /// How long it waits.
    pub delay: Option<Duration>,
    /// How it ends.
    pub abort: Option<Abort>,
}

// === impl Fault ===

impl Fault {
    /// Decides what is done to a request, by a random number for each kind of fault.
    pub fn roll(&self, for_delay: u64, for_abort: u64) -> Injected {
        let delayed = self.delay.filter(|(_, share)| share.holds(for_delay));
        let aborted = self.abort.filter(|(_, share)| share.holds(for_abort));
        Injected { delay: delayed.map(|(delay, _)| delay), abort: aborted.map(|(abort, _)| abort) }
    }
}

impl TryFrom<l7::Fault> for Fault {
    type Error = Invalid;

    fn try_from(wire: l7::Fault) -> Result<Self, Invalid> {
        let delay = match wire.delay {
            None => None,
            Some(delay) => {
                let share = Share::compile(delay.per_million).at("per_million").at("delay")?;
                let period = wire::period(delay.duration).at("duration").at("delay")?;
                period.map(|period| (period, share))
            }
        };
        let abort = wire.abort.map(abort_of).transpose().at("abort")?;
        Ok(Self { delay, abort })
    }
}

fn abort_of(wire: l7::Abort) -> Result<(Abort, Share), Invalid> {
    let share = Share::compile(wire.per_million).at("per_million")?;
    let abort = match wire.with.ok_or(Problem::Missing).at("with")? {
        abort::With::HttpStatus(status) => {
            Abort::Http(wire::final_status(status).at("http_status")?)
        }
        abort::With::GrpcStatus(status) => {
            let known = u8::try_from(status).ok().filter(|_| status <= MAX_GRPC_STATUS);
            Abort::Grpc(known.ok_or(Problem::Status(status)).at("grpc_status")?)
        }
    };
    Ok((abort, share))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn fault(delay_share: u32, abort_share: u32) -> l7::Fault {
        l7::Fault {
            delay: Some(l7::Delay {
                duration: Some(prost_types::Duration { seconds: 2, nanos: 0 }),
                per_million: delay_share,
            }),
            abort: Some(l7::Abort {
                with: Some(abort::With::HttpStatus(500)),
                per_million: abort_share,
            }),
        }
    }

    #[test]
    fn delay_and_abort_are_rolled_apart() {
        let delay = Some(Duration::from_secs(2));
        let abort = Some(Abort::Http(StatusCode::INTERNAL_SERVER_ERROR));
        let half = u64::MAX / 2;
        for (shares, randoms, expected) in [
            ((0, 0), (0, 0), Injected::default()),
            ((1_000_000, 0), (u64::MAX, 0), Injected { delay, abort: None }),
            ((0, 1_000_000), (0, u64::MAX), Injected { delay: None, abort }),
            ((500_000, 500_000), (half, half + 1), Injected { delay, abort: None }),
            ((500_000, 500_000), (half + 1, half), Injected { delay: None, abort }),
            ((500_000, 500_000), (half, half), Injected { delay, abort }),
        ] {
            let compiled = Fault::try_from(fault(shares.0, shares.1)).unwrap();
            assert_eq!(compiled.roll(randoms.0, randoms.1), expected, "{shares:?} {randoms:?}");
        }
    }

    #[test]
    fn a_fault_that_is_invalid_says_where() {
        let abort =
            |with| l7::Fault { delay: None, abort: Some(l7::Abort { with, per_million: 1 }) };
        for (wire, field) in [
            (fault(1_000_001, 0), "delay.per_million"),
            (fault(0, 1_000_001), "abort.per_million"),
            (abort(None), "abort.with"),
            (abort(Some(abort::With::HttpStatus(99))), "abort.http_status"),
            (abort(Some(abort::With::GrpcStatus(17))), "abort.grpc_status"),
        ] {
            assert_eq!(Fault::try_from(wire).unwrap_err().field, field);
        }
    }
}
