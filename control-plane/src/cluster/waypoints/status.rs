//! What the status of a gateway has to say: pure.

use serde_json::{Value, json};

use super::gateway::{Gateway, Listener, PORT, Refusal};
use crate::{cluster::status::amended, mesh::Judgement, source::kubernetes::Stamp};

/// Annotation of a gateway that says which type of address its status has; both if it does not.
const ADDRESS_TYPE: &str = "networking.istio.io/address-type";

/// Condition that the gateway can be as it says.
const ACCEPTED: &str = "Accepted";
/// Condition that it is there.
const PROGRAMMED: &str = "Programmed";
/// Condition that all that it refers to is there.
const RESOLVED: &str = "ResolvedRefs";
/// Condition that two listeners exclude each other.
const CONFLICTED: &str = "Conflicted";

/// What there is of a waypoint.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Standing {
    /// Host name of its service.
    pub(super) host: String,
    /// Addresses of its service; none if there is no service.
    pub(super) addresses: Option<Vec<String>>,
    /// Whether a pod is ready.
    pub(super) is_ready: bool,
    /// Why nothing can be made as it says.
    pub(super) refusal: Option<Refusal>,
    /// Why something cannot be made.
    pub(super) problem: Option<String>,
}

/// Returns the status of a gateway as it has to be; none if it is so already. What others wrote
/// stays.
pub(super) fn amended_status(gateway: &Gateway, standing: &Standing, now: &str) -> Option<Value> {
    let accepted = accepted(gateway, standing);
    let addresses = if accepted.holds { reached(gateway, standing) } else { None };
    let programmed = programmed(&accepted, standing, addresses.is_some());
    let mut status = gateway.status.clone();
    if !status.is_object() {
        status = json!({});
    }
    let wanted = [(ACCEPTED, &accepted), (PROGRAMMED, &programmed)];
    status["conditions"] = conditions(gateway, &gateway.status["conditions"], &wanted, now);
    let listeners = gateway.spec.listeners.iter().enumerate();
    let listeners = listeners.map(|(i, l)| listener(gateway, l, l.refusal(i), &programmed, now));
    status["listeners"] = listeners.collect();
    if let Some(addresses) = addresses {
        status["addresses"] = addresses.into();
    }
    (status != gateway.status).then_some(status)
}

fn accepted(gateway: &Gateway, standing: &Standing) -> Judgement {
    if let Some(Refusal { reason, message }) = &standing.refusal {
        return Judgement { holds: false, reason, message: message.clone() };
    }
    let mut listeners = gateway.spec.listeners.iter().enumerate();
    let refused = listeners.find_map(|(i, listener)| listener.refusal(i));
    let (reason, message) = match refused {
        Some(refusal) => ("ListenersNotValid", refusal.message),
        None => ("Accepted", "a waypoint is made for it".to_owned()),
    };
    Judgement { holds: true, reason, message }
}

fn programmed(accepted: &Judgement, standing: &Standing, is_reached: bool) -> Judgement {
    let (reason, message) = match &standing.problem {
        _ if !accepted.holds => ("Invalid", accepted.message.clone()),
        Some(problem) => ("Invalid", problem.clone()),
        None if !is_reached => {
            ("AddressNotAssigned", "no pod of the waypoint is ready yet".to_owned())
        }
        None => {
            let message = format!("the waypoint is reached at {}:{PORT}", standing.host);
            return Judgement { holds: true, reason: PROGRAMMED, message };
        }
    };
    Judgement { holds: false, reason, message }
}

/// Returns where a waypoint is reached, if it is. It is so from its first ready pod on: traffic to
/// one that has lost its pods is refused, and not let past it.
fn reached(gateway: &Gateway, standing: &Standing) -> Option<Vec<Value>> {
    let address = |kind: &str, value: &str| json!({ "type": kind, "value": value });
    let mut addresses = vec![address("Hostname", &standing.host)];
    addresses.extend(standing.addresses.as_ref()?.iter().map(|ip| address("IPAddress", ip)));
    if let Some(wanted) = gateway.annotations.get(ADDRESS_TYPE) {
        addresses.retain(|address| address["type"] == **wanted);
    }
    let present = gateway.status["addresses"].as_array();
    let was_ready =
        present.is_some_and(|present| addresses.iter().any(|address| present.contains(address)));
    (standing.is_ready || was_ready).then_some(addresses)
}

fn listener(
    gateway: &Gateway,
    listener: &Listener,
    refusal: Option<Refusal>,
    gateway_programmed: &Judgement,
    now: &str,
) -> Value {
    let judged =
        |holds, reason, message: &str| Judgement { holds, reason, message: message.into() };
    let (accepted, programmed) = match refusal {
        None if gateway_programmed.holds => {
            (judged(true, "Accepted", ""), judged(true, PROGRAMMED, ""))
        }
        None => {
            (judged(true, "Accepted", ""), judged(false, "Pending", &gateway_programmed.message))
        }
        Some(Refusal { reason, message }) => {
            (judged(false, reason, &message), judged(false, "Invalid", &message))
        }
    };
    let resolved = judged(true, RESOLVED, "");
    let conflicted = judged(false, "NoConflicts", "");
    let all = gateway.status["listeners"].as_array();
    let mut named = all.into_iter().flatten().filter(|present| present["name"] == *listener.name);
    let present = named.next().map_or(&Value::Null, |present| &present["conditions"]);
    let wanted = [
        (ACCEPTED, &accepted),
        (CONFLICTED, &conflicted),
        (PROGRAMMED, &programmed),
        (RESOLVED, &resolved),
    ];
    json!({
        "name": listener.name,
        // Routes are attached to services.
        "attachedRoutes": 0,
        "supportedKinds": [],
        "conditions": conditions(gateway, present, &wanted, now),
    })
}

/// Returns conditions with these in place of those that there are of their types.
fn conditions(
    gateway: &Gateway,
    present: &Value,
    wanted: &[(&str, &Judgement)],
    now: &str,
) -> Value {
    let mut stamp = Stamp {
        version: gateway.version.clone(),
        generation: gateway.generation,
        conditions: present.as_array().cloned().unwrap_or_default(),
        parents: Vec::new(),
    };
    for (condition, judgement) in wanted {
        if let Some(conditions) = amended(condition, &stamp, Some(judgement), now) {
            stamp.conditions = conditions;
        }
    }
    stamp.conditions.into()
}

#[cfg(test)]
mod tests;
