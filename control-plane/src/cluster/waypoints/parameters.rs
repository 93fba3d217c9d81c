//! Config maps by which what is made for gateways is made differently: pure.

use std::{collections::BTreeMap, fmt};

use k8s_openapi::api::core::v1::ConfigMap;
use serde_json::Value;

use super::{
    gateway::{Gateway, Refusal},
    manifest::{Part, Settings},
    merge::{InvalidOverlay, merge},
};
use crate::{
    cluster::followed::Followed,
    mesh::WAYPOINT_CLASS,
    object::{ObjectName, yaml},
};

/// Label of a config map of the root namespace that is for all gateways of a class.
const DEFAULTS_FOR_CLASS: &str = "gateway.istio.io/defaults-for-class";

/// A config map, as far as waypoints may be made by it.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Parameters {
    /// Whether it is for all gateways of the class.
    is_default: bool,
    overlays: Result<Overlays, InvalidParameters>,
}

/// What a config map changes of each part.
type Overlays = BTreeMap<Part, Value>;

/// Why nothing can be made by a config map.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum InvalidParameters {
    /// A key names no part.
    #[error("key {0}: nothing is read from it: use {keys}", keys = Keys)]
    UnknownKey(String),
    /// What a key holds is no YAML.
    #[error("key {}: write YAML: {problem}", .part.key())]
    Yaml {
        /// Whose key it is.
        part: Part,
        /// What is wrong with it.
        problem: String,
    },
    /// What a key holds is not part of an object.
    #[error("key {}: write fields of one {}", .0.key(), .0.kind())]
    NotFields(Part),
    /// It cannot be merged.
    #[error("key {}: {problem}", .part.key())]
    Merge {
        /// Whose key it is.
        part: Part,
        /// What is wrong with it.
        problem: InvalidOverlay,
    },
    /// It would be of another gateway, or be found nowhere.
    #[error(
        "key {}: leave out {field}, which is as the gateway says: annotations give its service and \
         its service account another name", .part.key()
    )]
    Fixed {
        /// Whose key it is.
        part: Part,
        /// The field.
        field: String,
    },
}

/// The keys of all parts.
struct Keys;

/// The config maps by which the parts of a gateway are made; those of the class come first.
#[derive(Debug)]
pub(super) struct Layers<'a>(Vec<(Source, &'a Overlays)>);

/// Where overlays are from.
#[derive(Clone, Debug)]
enum Source {
    Class(ObjectName),
    Gateway(ObjectName),
}

// === impl Parameters ===

impl Parameters {
    /// Reads a config map.
    pub(super) fn read(map: ConfigMap) -> Self {
        let labels = map.metadata.labels.unwrap_or_default();
        let class = labels.get(DEFAULTS_FOR_CLASS);
        Self {
            is_default: class.is_some_and(|class| class == WAYPOINT_CLASS),
            overlays: overlays(map.data.unwrap_or_default()),
        }
    }
}

/// Returns the config map for all gateways of the class; the first by name, if there are several.
pub(super) fn defaults(
    maps: &Followed<ObjectName, Parameters>,
    root_namespace: &str,
) -> Option<ObjectName> {
    let mut of_root = maps.names().filter(|name| *name.namespace == *root_namespace);
    of_root.find(|name| maps.get(name).is_some_and(|map| map.is_default)).cloned()
}

fn overlays(data: BTreeMap<String, String>) -> Result<Overlays, InvalidParameters> {
    let overlay = |(key, text): (String, String)| {
        let part = Part::ALL.into_iter().find(|part| part.key() == key);
        let part = part.ok_or(InvalidParameters::UnknownKey(key))?;
        let mut documents = yaml::documents(&text).into_iter();
        let value = match (documents.next(), documents.next()) {
            (None, _) => Value::Object(serde_json::Map::new()),
            (Some(Ok(value @ Value::Object(_))), None) => value,
            (Some(Err(problem)), _) | (_, Some(Err(problem))) => {
                return Err(InvalidParameters::Yaml { part, problem });
            }
            (Some(Ok(_)), _) => return Err(InvalidParameters::NotFields(part)),
        };
        Ok((part, value))
    };
    data.into_iter().map(overlay).collect()
}

// === impl Layers ===

impl<'a> Layers<'a> {
    /// Returns those of a gateway, beside the config map for all gateways of its class.
    pub(super) fn of(
        gateway: &Gateway,
        maps: &'a Followed<ObjectName, Parameters>,
        defaults: Option<&ObjectName>,
    ) -> Result<Self, Refusal> {
        let of_class = defaults.cloned().map(Source::Class);
        let own = gateway.parameters().map(Source::Gateway);
        let layer = |source: Source| {
            let (Source::Class(name) | Source::Gateway(name)) = &source;
            let Some(map) = maps.get(name) else {
                return Err(source.refusal("make it: there is none"));
            };
            match &map.overlays {
                Ok(overlays) => Ok((source, overlays)),
                Err(problem) => Err(source.refusal(problem)),
            }
        };
        of_class.into_iter().chain(own).map(layer).collect::<Result<_, _>>().map(Self)
    }

    /// Returns a part of the waypoint of a gateway; none if nobody wants it.
    pub(super) fn made(
        &self,
        part: Part,
        gateway: &Gateway,
        settings: &Settings,
    ) -> Result<Option<Value>, Refusal> {
        let own = || self.0.iter().filter_map(|(source, all)| Some((source, all.get(&part)?)));
        if part.is_optional() && own().next().is_none() {
            return Ok(None);
        }
        let plain = part.of(gateway, settings);
        let mut object = plain.clone();
        for (source, overlay) in own() {
            merge(&mut object, overlay)
                .map_err(|problem| source.refusal(InvalidParameters::Merge { part, problem }))?;
            let fixed = part.fixed().find(|field| object.pointer(field) != plain.pointer(field));
            if let Some(field) = fixed {
                let field = field.trim_start_matches('/').replace('/', ".").replace("~1", "/");
                return Err(source.refusal(InvalidParameters::Fixed { part, field }));
            }
        }
        Ok(Some(object))
    }
}

// === impl Source ===

impl Source {
    fn refusal(&self, problem: impl fmt::Display) -> Refusal {
        let message = match self {
            Self::Class(map) => format!("ConfigMap {map} for all gateways of the class: {problem}"),
            Self::Gateway(map) => {
                format!("spec.infrastructure.parametersRef: ConfigMap {map}: {problem}")
            }
        };
        Refusal::new(Refusal::INVALID_PARAMETERS, message)
    }
}

// === impl Keys ===

impl fmt::Display for Keys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&Part::ALL.map(Part::key).join(", "))
    }
}

#[cfg(test)]
mod tests;
