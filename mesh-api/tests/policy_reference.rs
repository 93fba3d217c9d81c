//! Compares the compiled policy evaluator with a naive one over the wire types, on random policies
//! and flows from small alphabets, in which matches are likely.
#![forbid(unsafe_code)]
#![expect(
    clippy::unwrap_used,
    reason = "the values are valid by construction; a panic fails the test"
)]

#[path = "policy_reference/generate.rs"]
mod generate;
#[path = "policy_reference/reference.rs"]
mod reference;

use std::cell::RefCell;

use mesh_api::{
    policy::{DenyReason, DryRunAllow, Flow, Policy, PolicyIndex, Verdict, WorkloadPolicies},
    proto,
    workload::{PolicyKey, Workload},
};
use proptest::{
    prelude::*,
    test_runner::{TestCaseResult, TestError, TestRunner},
};

use self::{
    generate::{Case, Connection},
    reference::{DryRunOutcome, Outcome},
};

/// Random policy sets; `PROPTEST_CASES` raises it.
const POLICY_SETS: u32 = 4_096;

/// Flows decided with each policy set; together more than 100,000 pairs.
const FLOWS_PER_SET: usize = 32;

/// How often each kind of decision was made.
#[derive(Debug, Default)]
struct Tally {
    default_allow: usize,
    allow: usize,
    deny: usize,
    not_allowed: usize,
    unknown: usize,
}

// === impl Tally ===

impl Tally {
    fn add(&mut self, verdict: &Verdict) {
        let count = match verdict {
            Verdict::Allow(None) => &mut self.default_allow,
            Verdict::Allow(Some(_)) => &mut self.allow,
            Verdict::Deny(DenyReason::Policy(_)) => &mut self.deny,
            Verdict::Deny(DenyReason::NotAllowed(_)) => &mut self.not_allowed,
            Verdict::Deny(DenyReason::UnknownPolicy(_)) => &mut self.unknown,
        };
        *count += 1;
    }

    fn counts(&self) -> [usize; 5] {
        [self.default_allow, self.allow, self.deny, self.not_allowed, self.unknown]
    }
}

#[test]
fn the_compiled_evaluator_decides_as_the_naive_one() {
    let tally = RefCell::new(Tally::default());
    run(generate::case(FLOWS_PER_SET), |case| {
        let policies = compile(&case);
        for connection in &case.connections {
            let flow = connection.flow();
            let verdict = policies.decide(&flow);
            tally.borrow_mut().add(&verdict);
            prop_assert!(
                agrees(&verdict, &reference::decide(&case, connection)),
                "{verdict:?} for {connection:?}"
            );
            prop_assert!(dry_run_agrees(&policies, &flow, &case, connection), "{connection:?}");
        }
        Ok(())
    });
    let tally = tally.into_inner();
    let total: usize = tally.counts().iter().sum();
    assert!(total >= 100_000, "{tally:?}");
    assert!(tally.counts().iter().all(|count| *count > total / 50), "too rare: {tally:?}");
}

#[test]
fn no_policy_from_the_wire_panics_and_what_is_valid_decides_as_the_naive_one() {
    run(generate::arbitrary_policies(), |policies| {
        for wire in &policies {
            let Ok(policy) = Policy::try_from(wire.clone()) else { continue };
            let case = Case {
                policies: vec![wire.clone()],
                keys: vec![policy.key.to_string()],
                connections: generate::fixed_connections(),
            };
            let compiled = compile(&case);
            for connection in &case.connections {
                let verdict = compiled.decide(&connection.flow());
                prop_assert!(agrees(&verdict, &reference::decide(&case, connection)));
            }
        }
        Ok(())
    });
}

/// Runs `test` on random values and panics with the smallest value that fails.
fn run<S: Strategy>(strategy: S, test: impl Fn(S::Value) -> TestCaseResult) {
    let default = ProptestConfig::default();
    let cases = default.cases.max(POLICY_SETS);
    let mut runner =
        TestRunner::new(ProptestConfig { cases, failure_persistence: None, ..default });
    match runner.run(&strategy, test) {
        Ok(()) => {}
        Err(TestError::Fail(reason, value)) => panic!("{reason}\n{value:#?}"),
        Err(TestError::Abort(reason)) => panic!("{reason}"),
    }
}

fn compile(case: &Case) -> WorkloadPolicies {
    let policies = case.policies.iter().map(|wire| Policy::try_from(wire.clone()).unwrap());
    let workload = proto::workload::Workload {
        uid: "w".into(),
        namespace: generate::WORKLOAD_NAMESPACE.into(),
        addresses: vec![vec![10, 0, 0, 1].into()],
        authorization_policies: case.keys.clone(),
        ..proto::workload::Workload::default()
    };
    WorkloadPolicies::compile(&Workload::try_from(workload).unwrap(), &PolicyIndex::new(policies))
}

fn agrees(verdict: &Verdict, expected: &Outcome) -> bool {
    match (verdict, expected) {
        (Verdict::Allow(None), Outcome::AllowedByDefault) => true,
        (Verdict::Allow(Some(key)), Outcome::AllowedBy(keys))
        | (Verdict::Deny(DenyReason::Policy(key)), Outcome::DeniedBy(keys))
        | (Verdict::Deny(DenyReason::NotAllowed(key)), Outcome::NotAllowed(keys))
        | (Verdict::Deny(DenyReason::UnknownPolicy(key)), Outcome::Unknown(keys)) => {
            keys.contains(&key.to_string())
        }
        (Verdict::Allow(_) | Verdict::Deny(_), _) => false,
    }
}

fn dry_run_agrees(
    policies: &WorkloadPolicies,
    flow: &Flow<'_>,
    case: &Case,
    connection: &Connection,
) -> bool {
    let report = policies.dry_run(flow);
    let expected: DryRunOutcome = reference::dry_run(case, connection);
    let named = |key: &PolicyKey, keys: &[String]| keys.contains(&key.to_string());
    let deny = match &report.denied_by {
        Some(key) => named(key, &expected.denying),
        None => expected.denying.is_empty(),
    };
    let allow = match &report.allow {
        DryRunAllow::NoEffect => expected.allowing.is_empty() && !expected.would_deny,
        DryRunAllow::Matched(key) => named(key, &expected.allowing),
        DryRunAllow::WouldDeny => expected.would_deny,
    };
    deny && allow
}
