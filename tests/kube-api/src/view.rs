//! How objects are shown to a client.

use serde_json::Value;

use crate::{
    object::{self, Object},
    path::Place,
};

/// What a client wants to see of an object.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum View {
    Whole,
    Metadata,
}

// === impl View ===

impl View {
    pub(crate) fn asked_for(accept: &str) -> Self {
        if accept.contains("as=PartialObjectMetadata") { Self::Metadata } else { Self::Whole }
    }

    /// Returns the object as the client sees it at the version that it asked for.
    pub(crate) fn of(self, place: &Place, object: &Object) -> Value {
        if self == Self::Metadata {
            return object::partial(object);
        }
        let mut object = object.clone();
        let api_version = place.resource.api_version(place.version);
        object.insert("apiVersion".to_owned(), api_version.into());
        object.insert("kind".to_owned(), place.resource.kind.into());
        Value::Object(object)
    }

    pub(crate) fn of_list(self, mut list: Value) -> Value {
        if self == Self::Metadata {
            list["kind"] = "PartialObjectMetadataList".into();
            list["apiVersion"] = "meta.k8s.io/v1".into();
        }
        list
    }
}
