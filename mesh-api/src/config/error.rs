//! Errors of the configuration file.

use std::fmt;

use super::MAX_CONFIG_BYTES;
use crate::{convert::Problem, identity::Namespace};

/// Why a configuration is refused: where, which field, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConfigError {
    /// Place in the text: of the field, or of the entry that holds it.
    pub position: Option<Position>,
    /// Path of the field, such as `workloads[2].addresses[0]`; empty for the whole file.
    pub path: String,
    /// What is wrong.
    pub problem: ConfigProblem,
}

/// A place in a text.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Position {
    /// Line, from 1.
    pub line: u64,
    /// Column in characters, from 1.
    pub column: u64,
}

/// What is wrong with a configuration.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ConfigProblem {
    /// The text is longer than [`MAX_CONFIG_BYTES`].
    #[error("{0} bytes exceed the limit of {MAX_CONFIG_BYTES}: split the mesh or remove entries")]
    TooLarge(usize),
    /// The text is not YAML of the expected form.
    #[error("{0}")]
    Yaml(String),
    /// A field has an invalid value.
    #[error(transparent)]
    Field(#[from] Problem),
    /// Two entries have a key or address that must be unique.
    #[error("{value} is used by {first} already: change one of them")]
    Duplicate {
        /// The key or address.
        value: String,
        /// Path of the entry that has it.
        first: String,
    },
    /// The policy has the name of one that peer authentications are lowered to.
    #[error("{0} is the name of a policy made from peer_authentications: choose another")]
    ReservedPolicy(String),
    /// An entry refers to one that does not exist.
    #[error("{value} does not exist: add it under {list}, or correct it")]
    Unknown {
        /// The key of the missing entry.
        value: String,
        /// The list that would hold it.
        list: &'static str,
    },
    /// A peer authentication lists no workload.
    #[error("is empty: list workloads, or remove it to select the whole namespace")]
    NoWorkloads,
    /// A peer authentication lists a workload of another namespace.
    #[error("{workload} is not in namespace {namespace}: list workloads of that namespace only")]
    ForeignWorkload {
        /// The workload.
        workload: String,
        /// Namespace of the peer authentication.
        namespace: Namespace,
    },
    /// A peer authentication has modes for ports but selects no workloads.
    #[error("needs workloads: list them under workloads, ports differ between workloads")]
    PortsWithoutWorkloads,
}

// === impl ConfigError ===

impl ConfigError {
    /// Returns an error about the whole file.
    pub(super) fn whole(problem: ConfigProblem) -> Self {
        Self { position: None, path: String::new(), problem }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { position, path, problem } = self;
        if let Some(Position { line, column }) = position {
            write!(f, "line {line}, column {column}: ")?;
        }
        if !path.is_empty() {
            write!(f, "{path}: ")?;
        }
        write!(f, "{problem}")
    }
}

impl std::error::Error for ConfigError {}
