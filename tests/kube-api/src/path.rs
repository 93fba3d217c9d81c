//! Paths of the API.

use crate::resource::{self, Resource};

/// What a path leads to.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Target {
    /// All objects of a resource, in one namespace or in all.
    Collection(Place),
    /// One object.
    Object {
        place: Place,
        name: String,
        /// Whether only its status is meant.
        status: bool,
    },
    /// A token to be judged.
    TokenReview,
    /// Something that describes the API.
    Discovery,
}

/// A resource at a version, and a namespace of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Place {
    pub(crate) resource: &'static Resource,
    pub(crate) version: &'static str,
    pub(crate) namespace: Option<String>,
}

/// Returns where `path` leads, or nothing if it is not served.
pub(crate) fn parse(path: &str) -> Option<Target> {
    let parts: Vec<&str> = path.split('/').filter(|part| !part.is_empty()).collect();
    let (group, version, rest) = match *parts.as_slice() {
        ["api", version, ref rest @ ..] => ("", version, rest),
        ["apis", group, version, ref rest @ ..] => (group, version, rest),
        _ => return Some(Target::Discovery),
    };
    let (namespace, rest) = match *rest {
        [] => return Some(Target::Discovery),
        ["tokenreviews"] if group == "authentication.k8s.io" => return Some(Target::TokenReview),
        // A namespace, or what is in it.
        ["namespaces", namespace, _, ..] if rest.get(2) != Some(&"status") => {
            (Some(namespace.to_owned()), &rest[2..])
        }
        _ => (None, rest),
    };
    let (plural, rest) = rest.split_first()?;
    let (resource, version) = resource::find(group, version, plural)?;
    let place = Place { resource, version, namespace };
    match *rest {
        [] => Some(Target::Collection(place)),
        [name] => Some(Target::Object { place, name: name.to_owned(), status: false }),
        [name, "status"] => Some(Target::Object { place, name: name.to_owned(), status: true }),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_to_collections_objects_and_their_status() {
        let shown = |path: &str| match parse(path) {
            Some(Target::Collection(place)) => {
                format!("{}@{:?}", place.resource.plural, place.namespace)
            }
            Some(Target::Object { place, name, status }) => {
                format!("{}@{:?}/{name} status={status}", place.resource.plural, place.namespace)
            }
            Some(Target::TokenReview) => "token".to_owned(),
            Some(Target::Discovery) => "discovery".to_owned(),
            None => "nothing".to_owned(),
        };
        let cases = [
            ("/api/v1/pods", "pods@None"),
            ("/api/v1/namespaces", "namespaces@None"),
            ("/api/v1/namespaces/a", "namespaces@None/a status=false"),
            ("/api/v1/namespaces/a/status", "namespaces@None/a status=true"),
            ("/api/v1/namespaces/a/pods", "pods@Some(\"a\")"),
            ("/api/v1/namespaces/a/pods/b", "pods@Some(\"a\")/b status=false"),
            ("/api/v1/namespaces/a/pods/b/status", "pods@Some(\"a\")/b status=true"),
            ("/api/v1/namespaces/a/pods/b/log", "nothing"),
            ("/apis/security.istio.io/v1/authorizationpolicies", "authorizationpolicies@None"),
            ("/apis/security.istio.io/v2/authorizationpolicies", "nothing"),
            ("/apis/authentication.k8s.io/v1/tokenreviews", "token"),
            ("/apis", "discovery"),
            ("/apis/security.istio.io/v1", "discovery"),
            ("/api/v1", "discovery"),
            ("/version", "discovery"),
        ];
        for (path, expected) in cases {
            assert_eq!(shown(path), expected, "{path}");
        }
    }
}
