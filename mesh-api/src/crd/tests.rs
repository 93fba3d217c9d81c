use super::*;

fn policy(yaml: &str) -> Result<AuthorizationPolicy, String> {
    serde_saphyr::from_str(yaml).map_err(|error| error.to_string())
}

#[test]
fn a_misspelt_condition_is_refused() {
    let error = policy("rules: [{from: [{source: {principal: [a]}}]}]").unwrap_err();
    assert!(error.contains("principal"), "{error}");
}

#[test]
fn an_empty_rule_is_a_rule() {
    assert_eq!(policy("rules: [{}]").unwrap().rules, [AuthorizationRule::default()]);
    assert_eq!(policy("{}").unwrap().rules, []);
}

#[test]
fn ports_of_a_peer_authentication_are_read_as_numbers() {
    let yaml = "{mtls: {mode: STRICT}, portLevelMtls: {8080: {mode: DISABLE}}}";
    let read: PeerAuthentication = serde_saphyr::from_str(yaml).unwrap();
    assert_eq!(read.port_level_mtls.keys().copied().collect::<Vec<_>>(), [8080]);
}

#[test]
fn selectors_compare_labels_as_kubernetes_does() {
    let labels = [("a", "1"), ("b", "2")];
    let cases = [
        ("{}", true),
        ("{matchLabels: {a: '1'}}", true),
        ("{matchLabels: {a: '2'}}", false),
        ("{matchExpressions: [{key: a, operator: In, values: ['1', '3']}]}", true),
        ("{matchExpressions: [{key: c, operator: In, values: ['1']}]}", false),
        ("{matchExpressions: [{key: c, operator: NotIn, values: ['1']}]}", true),
        ("{matchExpressions: [{key: a, operator: NotIn, values: ['1']}]}", false),
        ("{matchExpressions: [{key: b, operator: Exists}]}", true),
        ("{matchExpressions: [{key: b, operator: DoesNotExist}]}", false),
        ("{matchLabels: {a: '1'}, matchExpressions: [{key: c, operator: Exists}]}", false),
    ];
    for (yaml, expected) in cases {
        let selector: LabelSelector = serde_saphyr::from_str(yaml).unwrap();
        let lookup = |key: &str| labels.iter().find(|(k, _)| *k == key).map(|(_, v)| *v);
        assert_eq!(selector.selects(lookup), expected, "{yaml}");
    }
}
