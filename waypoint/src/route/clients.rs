//! Which clients a route is for.

use std::sync::Arc;

use crate::balance::Labels;

/// Clients with some labels, or all. Cheap to clone.
#[derive(Clone, Debug)]
pub(super) enum Clients {
    /// All, whatever their labels are.
    All,
    /// Those that have all of these.
    Labelled(Arc<Labels>),
}

// === impl Clients ===

impl Clients {
    /// Returns whether a client with these labels is one; none stands for labels that are not known.
    pub(super) fn include(&self, client: Option<&Labels>) -> bool {
        match self {
            Self::All => true,
            Self::Labelled(wanted) => client.is_some_and(|labels| {
                wanted.iter().all(|(name, value)| labels.get(name) == Some(value))
            }),
        }
    }

    /// Returns whether that depends on the labels of a client.
    pub(super) fn depend_on_labels(&self) -> bool {
        match self {
            Self::All => false,
            Self::Labelled(_) => true,
        }
    }
}

impl From<Labels> for Clients {
    fn from(labels: Labels) -> Self {
        if labels.is_empty() { Self::All } else { Self::Labelled(Arc::new(labels)) }
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
            let clients = Clients::from(labels(wanted));
            let found = clients.include(client.map(labels).as_ref());
            assert_eq!(found, expected, "{wanted:?} {client:?}");
        }
    }
}
