use fairlead_tunnel::testing::identities;
use mesh_api::{
    config::LocalConfig,
    workload::{Network, Workload},
};

use super::*;
use crate::proxy::fixtures;

/// Two workloads of which `a` has these policies.
fn mesh(workloads: &[&str], policies: &str) -> MeshState {
    let workload = |name: &&str| {
        let policies = if *name == "a" { policies } else { "" };
        let octet = name.as_bytes()[0];
        format!(
            "  - {{uid: {name}, name: {name}, namespace: shop, service_account: {name}, addresses: \
             [10.0.0.{octet}], authorization_policies: [{policies}]}}\n"
        )
    };
    let workloads: String = workloads.iter().map(workload).collect();
    let policies = "policies: [{name: deny, namespace: shop, scope: WORKLOAD_SELECTOR, \
                    action: DENY, rules: [{}]}]";
    let config = LocalConfig::parse(&format!("workloads:\n{workloads}{policies}")).unwrap();
    MeshState::new(config, Network::default())
}

fn inbound() -> Inbound {
    let destination = "10.0.0.97:80".parse().unwrap();
    Inbound { source: [10, 9, 9, 9].into(), identity: None, destination }
}

fn verdict(registration: &mut Registration) -> Option<CloseReason> {
    registration.closed.try_recv().ok()
}

#[tokio::test]
async fn open_connections_are_judged_by_the_policies_of_their_own_pod() {
    let (identities, _dir) = identities();
    let [a, b] = [("a", 1), ("b", 2)].map(|(name, id)| fixtures::pod(&identities, name, id));
    let table = Connections::new(fixtures::node());
    let mut into_a = table.register(table.count(&a), Some(inbound()));
    let mut into_b = table.register(table.count(&b), Some(inbound()));
    let mut out_of_a = table.register(table.count(&a), None);
    table.judge(&mesh(&["a", "b"], ""));
    assert_eq!(verdict(&mut into_a), None);
    table.judge(&mesh(&["a", "b"], "shop/deny"));
    let reason = verdict(&mut into_a).unwrap();
    assert!(matches!(reason, CloseReason::DeniedByPolicyChange { .. }), "{reason}");
    assert_eq!(verdict(&mut into_b), None);
    assert_eq!(verdict(&mut out_of_a), None);
}

#[tokio::test]
async fn a_workload_that_comes_back_is_judged_anew() {
    let (identities, _dir) = identities();
    let a = fixtures::pod(&identities, "a", 1);
    let table = Connections::new(fixtures::node());
    let mut into_a = table.register(table.count(&a), Some(inbound()));
    table.judge(&mesh(&["a"], ""));
    table.judge(&mesh(&["b"], ""));
    assert_eq!(verdict(&mut into_a), None, "it drains");
    table.judge(&mesh(&["a"], "shop/deny"));
    assert!(verdict(&mut into_a).is_some());
}

#[tokio::test]
async fn a_change_elsewhere_judges_nobody() {
    let (identities, _dir) = identities();
    let a = fixtures::pod(&identities, "a", 1);
    let table = Connections::new(fixtures::node());
    let registration = table.register(table.count(&a), Some(inbound()));
    let mut state = mesh(&["a"], "");
    table.judge(&state);
    let judged = || {
        let judged = table.judged.borrow();
        judged.values().next().and_then(|judged| judged.policies.clone()).unwrap()
    };
    let before = judged();
    let elsewhere = mesh(&["c"], "");
    state.insert_workload(Workload::clone(elsewhere.workload_at([10, 0, 0, 99].into()).unwrap()));
    table.judge(&state);
    assert!(Arc::ptr_eq(&before, &judged()));
    drop(registration);
    assert!(table.judged.borrow().is_empty());
}
