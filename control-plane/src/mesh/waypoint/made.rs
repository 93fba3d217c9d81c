//! What the parts of a waypoint are called.
//!
//! Whoever deploys a waypoint and whoever looks for one or for its identity has to agree.

/// Annotation of a gateway with the name of its deployment and of its service, if that is not its own.
pub(crate) const NAME_OVERRIDE: &str = "gateway.istio.io/name-override";

/// Annotation of a gateway with the service account of its pods, if that has not its own name.
pub(crate) const SERVICE_ACCOUNT: &str = "gateway.istio.io/service-account";

/// Returns the name of the deployment and of the service of the gateway `name`.
pub(crate) fn service_name<'a>(
    name: &'a str,
    annotation: impl Fn(&str) -> Option<&'a str>,
) -> &'a str {
    given(annotation(NAME_OVERRIDE)).unwrap_or(name)
}

/// Returns the name of the service account that the waypoint of the gateway `name` runs as.
pub(crate) fn account_name<'a>(
    name: &'a str,
    annotation: impl Fn(&str) -> Option<&'a str>,
) -> &'a str {
    given(annotation(SERVICE_ACCOUNT)).unwrap_or(name)
}

fn given(name: Option<&str>) -> Option<&str> {
    name.filter(|name| !name.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn annotations_that_say_something_give_a_waypoint_other_names() {
        // Annotations for both names, and the names.
        let cases = [
            ([None, None], ["w", "w"]),
            ([Some("other"), None], ["other", "w"]),
            ([None, Some("keeper")], ["w", "keeper"]),
            ([Some("other"), Some("keeper")], ["other", "keeper"]),
            ([Some(""), Some("")], ["w", "w"]),
        ];
        for ([service, account], expected) in cases {
            let annotation = |name: &str| match name {
                NAME_OVERRIDE => service,
                SERVICE_ACCOUNT => account,
                _ => None,
            };
            let found = [service_name("w", annotation), account_name("w", annotation)];
            assert_eq!(found, expected, "{service:?}, {account:?}");
        }
    }
}
