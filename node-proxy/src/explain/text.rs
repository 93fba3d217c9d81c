//! The answer for people.

use std::fmt::{self, Display, Formatter};

use super::{
    Attempt, Decision, Destination, DestinationKind, Endpoint, Endpoints, Explanation, Means,
    Outcome,
};

/// Writes a line: what it is about, and what there is to say.
fn line(f: &mut Formatter<'_>, about: &str, text: impl Display) -> fmt::Result {
    writeln!(f, "{about:<12} {text}")
}

// === impl Explanation ===

impl Display for Explanation {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { namespace, pod, to, capture, problem, decision } = self;
        match decision {
            Some(Decision { identity, .. }) => {
                line(f, "from", format_args!("{namespace}/{pod}, {capture} as {identity}"))?;
            }
            None => line(f, "from", format_args!("{namespace}/{pod}, {capture}"))?,
        }
        line(f, "to", to)?;
        if let Some(problem) = problem {
            line(f, "problem", problem)?;
        }
        match decision {
            Some(decision) => decision.fmt(f),
            None if capture.is_captured() => {
                line(f, "result", "no proxy answers: the connection waits for one")
            }
            None => line(f, "result", "not captured: the connection passes as it is"),
        }
    }
}

// === impl Decision ===

impl Display for Decision {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        if let Some(destination) = &self.destination {
            line(f, "destination", destination)?;
        }
        if let Some(waypoint) = &self.waypoint {
            line(f, "waypoint", waypoint)?;
        }
        if let Some(endpoints) = &self.endpoints {
            endpoints.fmt(f)?;
        }
        for (number, attempt) in (1..).zip(&self.attempts) {
            line(f, &format!("attempt {number}"), attempt)?;
            line(f, "  check", format_args!("by {}: {}", attempt.checked_by, attempt.check))?;
        }
        line(f, "result", &self.result)
    }
}

// === impl Destination ===

impl Display for Destination {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let kind = match self.kind {
            DestinationKind::Service => "service",
            DestinationKind::Workload => "workload",
            DestinationKind::Node => "a node, which is outside the mesh",
            DestinationKind::Itself => "the pod itself",
            DestinationKind::Unknown => "an address that the mesh does not know",
        };
        f.write_str(kind)?;
        self.name.iter().try_for_each(|name| write!(f, " {name}"))
    }
}

// === impl Endpoints ===

impl Display for Endpoints {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { service, usable, listed, left_out } = self;
        line(f, "endpoints", format_args!("{usable} of {service} can be chosen"))?;
        for endpoint in listed {
            line(f, "", endpoint)?;
        }
        if *usable > listed.len() {
            line(f, "", format_args!("and {} more", usable - listed.len()))?;
        }
        for left_out in left_out {
            line(f, "", format_args!("not {}: {}", left_out.count, left_out.because))?;
        }
        Ok(())
    }
}

// === impl Endpoint ===

impl Display for Endpoint {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { workload, node, rank, capacity, set_aside } = self;
        write!(f, "{workload} on {node}, rank {rank}, capacity {capacity}")?;
        if *set_aside { f.write_str(", set aside since it keeps failing") } else { Ok(()) }
    }
}

// === impl Attempt ===

impl Display for Attempt {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let Self { address, peer, workload, transport, gateway, expected, .. } = self;
        write!(f, "{address}")?;
        if let Some(workload) = workload {
            write!(f, " {workload}")?;
        }
        match transport {
            Means::Plaintext => f.write_str(", plaintext")?,
            Means::Hbone => write!(f, " through a tunnel to {peer}")?,
            Means::Waypoint => write!(f, " through a tunnel to its waypoint at {peer}")?,
            Means::Gateway => {
                let gateway = gateway.join(" or ");
                write!(f, " through the gateway of its network at {peer} as {gateway}, behind it")?;
            }
            Means::WithinNode => f.write_str(" within this node")?,
        }
        if expected.is_empty() { Ok(()) } else { write!(f, " as {}", expected.join(" or ")) }
    }
}

// === impl Outcome ===

impl Display for Outcome {
    fn fmt(&self, f: &mut Formatter<'_>) -> fmt::Result {
        let verdict = if self.passes { "passes" } else { "refused" };
        f.write_str(verdict)?;
        self.reason.iter().try_for_each(|reason| write!(f, " ({reason})"))?;
        write!(f, ": {}", self.because)
    }
}
