//! The file as written.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_path_to_error::{Path, Segment, Track};
use serde_saphyr::{
    Error, Location, Options, Spanned, UserMessageFormatter, budget, options,
    with_deserializer_from_str_with_options,
};

use super::{ConfigError, ConfigProblem, Position};
use crate::{
    policy::MtlsMode,
    proto::{
        security, workload,
        yaml::{list, mapping, optional_list},
    },
};

/// Most YAML nodes accepted: a node of a real configuration takes more than eight bytes.
const MAX_NODES: usize = super::MAX_CONFIG_BYTES / 8;

/// Most parser events accepted: a node has one or two.
const MAX_EVENTS: usize = 2 * MAX_NODES;

/// Field under which the parser nests a value that it pairs with its place in the text.
const VALUE_WITH_PLACE: &str = "value";

/// The top level of the file.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct File {
    #[serde(deserialize_with = "list")]
    pub(super) workloads: Vec<Spanned<workload::Workload>>,
    #[serde(deserialize_with = "list")]
    pub(super) services: Vec<Spanned<workload::Service>>,
    #[serde(deserialize_with = "list")]
    pub(super) policies: Vec<Spanned<security::Authorization>>,
    #[serde(deserialize_with = "list")]
    pub(super) peer_authentications: Vec<Spanned<PeerAuthentication>>,
}

/// A peer authentication, with a list of workloads in place of a label selector.
#[derive(Debug, Default, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PeerAuthentication {
    pub(super) name: String,
    pub(super) namespace: String,
    pub(super) mode: MtlsMode,
    #[serde(deserialize_with = "optional_list")]
    pub(super) workloads: Option<Vec<String>>,
    #[serde(deserialize_with = "mapping")]
    pub(super) port_level: BTreeMap<u16, MtlsMode>,
}

/// Parses the text.
pub(super) fn parse(text: &str) -> Result<File, ConfigError> {
    let mut track = Track::new();
    let parsed = with_deserializer_from_str_with_options(text, parser_options(), |deserializer| {
        Option::<File>::deserialize(serde_path_to_error::Deserializer::new(
            deserializer,
            &mut track,
        ))
    });
    parsed.map(Option::unwrap_or_default).map_err(|error| config_error(&error, &track.path()))
}

fn parser_options() -> Options {
    options! {
        budget: budget! { max_nodes: MAX_NODES, max_events: MAX_EVENTS, max_documents: 1 },
        strict_booleans: true,
        with_snippet: false,
    }
}

fn config_error(error: &Error, path: &Path) -> ConfigError {
    let position = error.location().and_then(position);
    let mut message = error.render_with_formatter(&UserMessageFormatter);
    if let Some(Position { line, column }) = position {
        let place = format!(" at line {line}, column {column}");
        message.truncate(message.strip_suffix(&place).map_or(message.len(), str::len));
    }
    ConfigError { position, path: path_text(path), problem: ConfigProblem::Yaml(message) }
}

/// Returns a place, if the parser knows it.
pub(super) fn position(location: Location) -> Option<Position> {
    (location.line() > 0).then(|| Position { line: location.line(), column: location.column() })
}

/// Returns the path without what the parser adds to it.
fn path_text(path: &Path) -> String {
    use std::fmt::Write as _;

    let mut text = String::new();
    for segment in path {
        let written = match segment {
            Segment::Seq { index } => write!(text, "[{index}]"),
            Segment::Map { key } if key == VALUE_WITH_PLACE => Ok(()),
            Segment::Map { key: name } | Segment::Enum { variant: name } => {
                let dot = if text.is_empty() { "" } else { "." };
                write!(text, "{dot}{name}")
            }
            Segment::Unknown => Ok(()),
        };
        debug_assert!(written.is_ok(), "writing to a string does not fail");
    }
    text
}
