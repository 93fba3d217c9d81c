//! What the status of a route has to say of its parents: pure.

use mesh_api::crd::ParentReference;
use serde_json::{Value, json};

use super::amend::{observed, wanted};
use crate::{
    mesh::{Judgement, ParentJudgement},
    source::kubernetes::Stamp,
};

/// Who says it, as Istio names itself.
const CONTROLLER: &str = "istio.io/gateway-controller";

/// Returns what the status of a route says of its parents, with those that are judged as they are
/// judged, and without those that are not parents any more; nothing if it says so already. What
/// other controllers wrote stays as it is.
pub(super) fn amended_parents(
    stamp: &Stamp,
    judgements: &[ParentJudgement],
    now: &str,
) -> Option<Vec<Value>> {
    let own = stamp.parents.iter().filter(|parent| is_own(parent));
    let mut conditions = own.filter_map(|parent| parent["conditions"].as_array()).flatten();
    // Whoever judged a later generation knows better.
    if conditions.any(|condition| observed(condition) > stamp.generation.or(Some(i64::MAX))) {
        return None;
    }
    let mut left: Vec<_> = judgements.iter().map(|judgement| (judgement, true)).collect();
    let mut parents = Vec::with_capacity(stamp.parents.len() + judgements.len());
    for present in &stamp.parents {
        if !is_own(present) {
            parents.push(present.clone());
            continue;
        }
        let is_meant = |(judgement, is_left): &&mut (&ParentJudgement, bool)| {
            *is_left && reference(&judgement.parent) == present["parentRef"]
        };
        if let Some((judgement, is_left)) = left.iter_mut().find(is_meant) {
            parents.push(judged(stamp, judgement, Some(present), now));
            *is_left = false;
        }
    }
    let left = left.into_iter().filter(|(_, is_left)| *is_left);
    parents.extend(left.map(|(judgement, _)| judged(stamp, judgement, None, now)));
    (parents != stamp.parents).then_some(parents)
}

fn is_own(parent: &Value) -> bool {
    parent["controllerName"] == CONTROLLER
}

/// Returns what is said of a parent; `present` itself if that says the same.
fn judged(stamp: &Stamp, judgement: &ParentJudgement, present: Option<&Value>, now: &str) -> Value {
    let condition = |name: &str, judgement: &Judgement| {
        let conditions = present.and_then(|present| present["conditions"].as_array());
        let present = conditions.into_iter().flatten().find(|value| value["type"] == name);
        wanted(name, stamp, judgement, present, now)
    };
    json!({
        "controllerName": CONTROLLER,
        "parentRef": reference(&judgement.parent),
        "conditions": [
            condition("Accepted", &judgement.accepted),
            condition("ResolvedRefs", &judgement.resolved),
        ],
    })
}

/// Returns a reference as it is written.
fn reference(parent: &ParentReference) -> Value {
    let ParentReference { group, kind, namespace, name, section_name, port } = parent;
    let mut written = json!({ "group": group, "kind": kind, "name": name });
    if !namespace.is_empty() {
        written["namespace"] = namespace.as_str().into();
    }
    if !section_name.is_empty() {
        written["sectionName"] = section_name.as_str().into();
    }
    if let Some(port) = port {
        written["port"] = (*port).into();
    }
    written
}

#[cfg(test)]
mod tests {
    use super::*;

    const BEFORE: &str = "2026-01-01T00:00:00Z";
    const NOW: &str = "2026-01-02T00:00:00Z";

    fn parent(name: &str, port: Option<u32>) -> ParentReference {
        ParentReference {
            group: String::new(),
            kind: "Service".to_owned(),
            name: name.to_owned(),
            port,
            ..ParentReference::default()
        }
    }

    fn judgement(parent: ParentReference, holds: bool) -> ParentJudgement {
        let of = |reason: &'static str| Judgement { holds: true, reason, message: "fine".into() };
        let refused = Judgement { holds: false, reason: "BackendNotFound", message: "b".into() };
        let resolved = if holds { of("ResolvedRefs") } else { refused };
        ParentJudgement { parent, accepted: of("Accepted"), resolved }
    }

    fn stamp(generation: i64, parents: Vec<Value>) -> Stamp {
        Stamp { generation: Some(generation), parents, ..Stamp::default() }
    }

    /// What is written of an empty status.
    fn written(judgements: &[ParentJudgement], generation: i64, now: &str) -> Vec<Value> {
        amended_parents(&stamp(generation, vec![]), judgements, now).unwrap()
    }

    #[test]
    fn a_parent_is_written_as_the_api_has_it() {
        let parent = ParentReference {
            namespace: "shop".to_owned(),
            section_name: "http".to_owned(),
            ..parent("cart", Some(80))
        };
        let condition = |kind: &str, reason: &str| {
            json!({
                "type": kind, "status": "True", "reason": reason, "message": "fine",
                "lastTransitionTime": NOW, "observedGeneration": 3,
            })
        };
        let expected = json!([{
            "controllerName": "istio.io/gateway-controller",
            "parentRef": {
                "group": "", "kind": "Service", "namespace": "shop", "name": "cart",
                "sectionName": "http", "port": 80,
            },
            "conditions": [
                condition("Accepted", "Accepted"), condition("ResolvedRefs", "ResolvedRefs"),
            ],
        }]);
        assert_eq!(Value::from(written(&[judgement(parent, true)], 3, NOW)), expected);
    }

    #[test]
    fn parents_are_written_when_something_is_different_and_only_then() {
        let foreign =
            json!({ "controllerName": "example.com/other", "parentRef": { "name": "g" } });
        let (cart, port) = (parent("cart", None), parent("cart", Some(80)));
        let good = judgement(cart.clone(), true);
        let (bad, of_port) = (judgement(cart, false), judgement(port, true));
        let own = |judgement: &ParentJudgement, generation, time| {
            written(std::slice::from_ref(judgement), generation, time).remove(0)
        };
        let mut turned = own(&bad, 3, NOW);
        turned["conditions"][0]["lastTransitionTime"] = BEFORE.into();
        let cases = [
            ("same", vec![own(&good, 3, BEFORE)], vec![good.clone()], None),
            ("nothing", vec![foreign.clone()], vec![], None),
            (
                "others stay",
                vec![foreign.clone()],
                vec![good.clone()],
                Some(vec![foreign.clone(), own(&good, 3, NOW)]),
            ),
            (
                "one condition turns",
                vec![own(&good, 2, BEFORE), foreign.clone()],
                vec![bad],
                Some(vec![turned, foreign.clone()]),
            ),
            (
                "a parent comes",
                vec![own(&good, 3, BEFORE)],
                vec![of_port.clone(), good.clone()],
                Some(vec![own(&good, 3, BEFORE), own(&of_port, 3, NOW)]),
            ),
            (
                "a parent goes",
                vec![own(&of_port, 3, BEFORE), foreign.clone(), own(&good, 3, BEFORE)],
                vec![good.clone()],
                Some(vec![foreign, own(&good, 3, BEFORE)]),
            ),
            ("all go", vec![own(&good, 3, BEFORE)], vec![], Some(vec![])),
            ("a later generation", vec![own(&good, 4, BEFORE)], vec![of_port], None),
        ];
        for (name, present, judgements, expected) in cases {
            let found = amended_parents(&stamp(3, present), &judgements, NOW);
            assert_eq!(found, expected, "{name}");
            let Some(found) = found else { continue };
            let again = amended_parents(&stamp(3, found), &judgements, "later");
            assert_eq!(again, None, "{name}: what was written is what was wanted");
        }
    }
}
