//! What the conditions of an object have to be: pure.

use serde_json::{Value, json};

use crate::{
    mesh::{Condition, Judgement},
    source::kubernetes::Stamp,
};

/// Returns the conditions of an object with the one of type `condition` as it is judged, or without
/// it if it is not; nothing if they are so already. What others wrote stays as it is.
pub(crate) fn amended(
    condition: &str,
    stamp: &Stamp,
    judgement: Option<&Judgement>,
    now: &str,
) -> Option<Vec<Value>> {
    let is_own = |value: &&Value| value["type"] == condition;
    let mut own = stamp.conditions.iter().filter(is_own);
    let (present, doubled) = (own.next(), own.next().is_some());
    // Whoever judged a later generation knows better.
    if present.and_then(observed) > stamp.generation.or(Some(i64::MAX)) {
        return None;
    }
    let wanted = judgement.map(|judgement| wanted(condition, stamp, judgement, present, now));
    if wanted.as_ref() == present && !doubled {
        return None;
    }
    let mut wanted = wanted;
    let mut conditions = Vec::with_capacity(stamp.conditions.len() + 1);
    for value in &stamp.conditions {
        if is_own(&value) {
            // In the place of the first one.
            conditions.extend(wanted.take());
        } else {
            conditions.push(value.clone());
        }
    }
    conditions.extend(wanted);
    Some(conditions)
}

/// Does so for several conditions, of which the object is judged by one at most.
pub(super) fn amended_all(
    conditions: &[Condition],
    stamp: &Stamp,
    judged: Option<&(Condition, Judgement)>,
    now: &str,
) -> Option<Vec<Value>> {
    let mut amended_stamp: Option<Stamp> = None;
    for condition in conditions {
        let judgement = judged.filter(|(judged, _)| judged == condition).map(|(_, it)| it);
        let present = amended_stamp.as_ref().unwrap_or(stamp);
        if let Some(conditions) = amended(condition.name(), present, judgement, now) {
            amended_stamp = Some(Stamp { conditions, ..stamp.clone() });
        }
    }
    amended_stamp.map(|stamp| stamp.conditions)
}

/// Returns a condition; `present` itself if that says the same.
pub(super) fn wanted(
    condition: &str,
    stamp: &Stamp,
    judgement: &Judgement,
    present: Option<&Value>,
    now: &str,
) -> Value {
    let status = if judgement.holds { "True" } else { "False" };
    let since = present
        .filter(|present| present["status"] == status)
        .and_then(|present| present["lastTransitionTime"].as_str())
        .unwrap_or(now);
    let mut wanted = json!({
        "type": condition,
        "status": status,
        "reason": judgement.reason,
        "message": judgement.message,
        "lastTransitionTime": since,
    });
    if let Some(generation) = stamp.generation {
        wanted["observedGeneration"] = generation.into();
    }
    present.filter(|present| says_the_same(present, &wanted)).cloned().unwrap_or(wanted)
}

fn says_the_same(present: &Value, wanted: &Value) -> bool {
    let fields = ["status", "reason", "message", "lastTransitionTime"];
    fields.iter().all(|field| present[field] == wanted[field])
        && observed(present) == observed(wanted)
}

/// Returns the generation that a condition is about. Istio writes it as a text.
pub(super) fn observed(condition: &Value) -> Option<i64> {
    let generation = &condition["observedGeneration"];
    generation.as_i64().or_else(|| generation.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ObjectKind;

    const TYPE: &str = "ZtunnelAccepted";
    const BEFORE: &str = "2026-01-01T00:00:00Z";
    const NOW: &str = "2026-01-02T00:00:00Z";

    fn accepted() -> Judgement {
        let message = "attached to ztunnel".to_owned();
        Judgement { holds: true, reason: "Accepted", message }
    }

    fn refused() -> Judgement {
        Judgement { holds: false, reason: "UnsupportedValue", message: "AUDIT".to_owned() }
    }

    fn condition(judgement: &Judgement, generation: impl Into<Value>, since: &str) -> Value {
        let status = if judgement.holds { "True" } else { "False" };
        json!({
            "type": TYPE, "status": status, "reason": judgement.reason,
            "message": judgement.message, "lastTransitionTime": since,
            "observedGeneration": generation.into(),
        })
    }

    fn stamp(generation: Option<i64>, conditions: &[Value]) -> Stamp {
        Stamp {
            version: "7".into(),
            generation,
            conditions: conditions.to_vec(),
            ..Stamp::default()
        }
    }

    #[test]
    fn a_condition_is_written_when_it_is_different_and_only_then() {
        let other = json!({ "type": "WaypointAccepted", "status": "False", "odd": [1] });
        let (yes, no) = (accepted(), refused());
        let of = |judgement, generation: i64, since| condition(judgement, generation, since);
        let text = condition(&yes, "3", BEFORE);
        let cases = [
            ("new", vec![], Some(&yes), Some(vec![of(&yes, 3, NOW)])),
            ("same", vec![of(&yes, 3, BEFORE)], Some(&yes), None),
            ("same as Istio writes it", vec![text], Some(&yes), None),
            (
                "another generation: nothing else is different",
                vec![of(&yes, 2, BEFORE)],
                Some(&yes),
                Some(vec![of(&yes, 3, BEFORE)]),
            ),
            (
                "another status: since now",
                vec![other.clone(), of(&yes, 2, BEFORE)],
                Some(&no),
                Some(vec![other.clone(), of(&no, 3, NOW)]),
            ),
            ("a later generation", vec![of(&yes, 4, BEFORE)], Some(&no), None),
            (
                "others stay",
                vec![other.clone()],
                Some(&yes),
                Some(vec![other.clone(), of(&yes, 3, NOW)]),
            ),
            ("removed", vec![of(&yes, 3, BEFORE), other.clone()], None, Some(vec![other.clone()])),
            ("nothing to remove", vec![other], None, None),
            (
                "doubled",
                vec![of(&yes, 3, BEFORE), of(&no, 2, BEFORE)],
                Some(&yes),
                Some(vec![of(&yes, 3, BEFORE)]),
            ),
        ];
        for (name, conditions, judgement, expected) in cases {
            let found = amended(TYPE, &stamp(Some(3), &conditions), judgement, NOW);
            assert_eq!(found, expected, "{name}");
            let Some(conditions) = found else { continue };
            let again = amended(TYPE, &stamp(Some(3), &conditions), judgement, "later");
            assert_eq!(again, None, "{name}: what was written is what was wanted");
        }
    }

    #[test]
    fn objects_that_have_no_generation_have_conditions_without_one() {
        let written = amended(TYPE, &stamp(None, &[]), Some(&accepted()), NOW).unwrap();
        assert_eq!(written[0].get("observedGeneration"), None);
        assert_eq!(amended(TYPE, &stamp(None, &written), Some(&accepted()), NOW), None);
    }

    #[test]
    fn a_condition_that_another_one_of_the_object_took_the_place_of_goes() {
        let both = Condition::all_of(ObjectKind::AuthorizationPolicy);
        let foreign = json!({ "type": "Foreign" });
        let present = stamp(Some(3), &[foreign.clone(), condition(&accepted(), 3, BEFORE)]);
        let judged = (Condition::WaypointAccepted, accepted());
        let written = amended_all(both, &present, Some(&judged), NOW).unwrap();
        let types: Vec<_> = written.iter().map(|condition| &condition["type"]).collect();
        assert_eq!(types, ["Foreign", "WaypointAccepted"]);
        let present = stamp(Some(3), &written);
        assert_eq!(amended_all(both, &present, Some(&judged), "later"), None);
        assert_eq!(amended_all(both, &present, None, NOW), Some(vec![foreign]));
    }
}
