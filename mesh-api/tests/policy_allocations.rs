//! A decision allocates nothing, whatever decides it.
#![forbid(unsafe_code)]

use anyhow::Context as _;
use mesh_api::{
    config::LocalConfig,
    identity::Identity,
    policy::{DenyReason, Flow, PolicyIndex, Verdict, WorkloadPolicies},
};

const EXAMPLE: &str = include_str!("../examples/local-config.yaml");

#[test]
fn a_decision_does_not_allocate() -> anyhow::Result<()> {
    let config = LocalConfig::parse(EXAMPLE)?;
    let index = PolicyIndex::new(config.policies);
    let orders = WorkloadPolicies::compile(&config.workloads[1], &index);
    let cart = &config.workloads[0].identity;
    let stranger: Identity = "spiffe://elsewhere/ns/shop/sa/cart".parse()?;
    let allowed = decide(&orders, "10.1.1.10", Some(cart))?;
    assert!(matches!(allowed, Verdict::Allow(Some(_))), "{allowed:?}");
    let refused = decide(&orders, "10.1.1.10", Some(&stranger))?;
    assert!(matches!(refused, Verdict::Deny(DenyReason::NotAllowed(_))), "{refused:?}");
    for (source, identity) in [("192.168.2.1", Some(cart)), ("::ffff:10.1.1.10", None)] {
        let denied = decide(&orders, source, identity)?;
        assert!(matches!(denied, Verdict::Deny(DenyReason::Policy(_))), "{denied:?}");
    }
    Ok(())
}

/// Decides, and fails if that allocated.
fn decide(
    policies: &WorkloadPolicies,
    source: &str,
    identity: Option<&Identity>,
) -> anyhow::Result<Verdict> {
    let flow = Flow { source: source.parse()?, identity, destination: "10.1.2.10:8080".parse()? };
    let mut verdict = None;
    let counted = allocation_counter::measure(|| {
        verdict = Some(policies.decide(&flow));
        std::hint::black_box(policies.dry_run(&flow));
    });
    assert_eq!(counted.count_total, 0, "{flow:?}");
    verdict.context("a verdict")
}
