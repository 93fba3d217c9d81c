//! Which clients a route is for.

use std::sync::Arc;

use crate::balance::Labels;

/// Clients of a namespace, with some labels, or all. Cheap to clone.
#[derive(Clone, Debug, Default)]
pub(super) struct Clients {
    /// None for all.
    namespace: Option<Arc<str>>,
    /// None for all, whatever their labels are.
    labels: Option<Arc<Labels>>,
}

/// A client, as far as routes look at it.
#[derive(Clone, Copy, Debug, Default)]
pub struct Client<'a> {
    /// Its namespace.
    pub namespace: &'a str,
    /// Its labels; none if they are not known.
    pub labels: Option<&'a Labels>,
}

// === impl Clients ===

impl Clients {
    /// Returns those of a namespace that have all of these labels; empty ones do not count.
    pub(super) fn new(namespace: String, labels: Labels) -> Self {
        Self {
            namespace: (!namespace.is_empty()).then(|| namespace.into()),
            labels: (!labels.is_empty()).then(|| Arc::new(labels)),
        }
    }

    /// Returns whether a client is one. One whose labels are not known has none.
    pub(super) fn include(&self, client: Client<'_>) -> bool {
        let has_all = |wanted: &Labels| {
            let has = |(name, value)| client.labels.is_some_and(|own| own.get(name) == Some(value));
            wanted.iter().all(has)
        };
        self.namespace.as_deref().is_none_or(|wanted| wanted == client.namespace)
            && self.labels.as_deref().is_none_or(has_all)
    }

    /// Returns whether that depends on the labels of a client.
    pub(super) fn depend_on_labels(&self) -> bool {
        self.labels.is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(labels: &[(&str, &str)]) -> Labels {
        labels.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn clients_have_all_labels_that_are_wanted_and_those_without_known_labels_have_none() {
        let web = [("app", "web"), ("version", "v1")];
        for (wanted, client, expected) in [
            (&[][..], None, true),
            (&[], Some(&web[..]), true),
            (&[("app", "web")], Some(&web), true),
            (&web, Some(&web), true),
            (&web, Some(&web[..1]), false),
            (&[("app", "cart")], Some(&web), false),
            (&[("tier", "web")], Some(&web), false),
            (&[("app", "web")], Some(&[]), false),
            (&[("app", "web")], None, false),
        ] {
            let clients = Clients::new(String::new(), labels(wanted));
            let known = client.map(labels);
            let found = clients.include(Client { namespace: "shop", labels: known.as_ref() });
            assert_eq!(found, expected, "{wanted:?} {client:?}");
        }
    }

    #[test]
    fn clients_are_of_the_namespace_that_is_wanted_whatever_their_labels_are() {
        let web = labels(&[("app", "web")]);
        for (namespace, wanted, client, expected) in [
            ("", labels(&[]), "bank", true),
            ("shop", labels(&[]), "shop", true),
            ("shop", labels(&[]), "bank", false),
            ("shop", web.clone(), "shop", true),
            ("shop", web.clone(), "bank", false),
            ("shop", labels(&[("app", "cart")]), "shop", false),
        ] {
            let clients = Clients::new(namespace.to_owned(), wanted);
            let found = clients.include(Client { namespace: client, labels: Some(&web) });
            assert_eq!(found, expected, "{clients:?} {client}");
        }
    }
}
