//! What the API speaks.

use std::{fmt, net::IpAddr, path::PathBuf, str::FromStr};

use mesh_api::identity::{Namespace, ServiceAccount};
use serde::{Deserialize, Serialize};

/// Longest name of a Kubernetes object, in bytes (RFC 1123 subdomain).
const MAX_NAME_BYTES: usize = 253;

/// Name of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PodName(String);

/// Why a string is not the name of a pod.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "invalid pod name \"{}\": use at most {MAX_NAME_BYTES} lower-case letters, digits, '-' and '.'",
    .0.escape_debug()
)]
pub struct InvalidPodName(String);

/// A pod of this node.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PodKey {
    /// Namespace of the pod.
    pub namespace: Namespace,
    /// Name of the pod.
    pub name: PodName,
}

/// Who wants something of a pod.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Origin {
    /// A person or a script, through the socket.
    #[default]
    Operator,
    /// The agent, by what the cluster or the control plane says.
    Agent,
}

/// A pod to enrol.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PodSpec {
    /// Unique id of the pod; `namespace/name` where absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Namespace of the pod.
    pub namespace: Namespace,
    /// Name of the pod.
    pub name: PodName,
    /// Service account that the pod runs as.
    pub service_account: ServiceAccount,
    /// Absolute path of the pod's network namespace, such as `/proc/123/ns/net`. Where absent, it is
    /// that of the pod's processes, which are found by `uid`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// Addresses that the namespace has to have: another one is not the pod's.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub addresses: Vec<IpAddr>,
}

/// What became of a pod.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct PodStatus {
    /// Namespace of the pod.
    pub namespace: Namespace,
    /// Name of the pod.
    pub name: PodName,
    /// Unique id of the pod, where one was given.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub uid: Option<String>,
    /// Who enrolled it.
    #[serde(default)]
    pub origin: Origin,
    /// Service account that the pod runs as; absent where its record cannot be read.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub service_account: Option<ServiceAccount>,
    /// Path of the pod's network namespace; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub netns: Option<PathBuf>,
    /// Addresses found in the network namespace, without loopback.
    pub addresses: Vec<IpAddr>,
    /// Where the pod stands.
    pub state: PodState,
    /// What is wrong, where something is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub problem: Option<String>,
    /// SPIFFE identity of the pod; likewise.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub identity: Option<String>,
    /// Connections open.
    pub connections: u64,
    /// Time that the enrolment took, in milliseconds.
    pub enrolled_in_ms: f64,
}

/// Where a pod stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum PodState {
    /// Known, but not in the mesh and not to be.
    Out,
    /// To be in the mesh, but not captured yet.
    Waiting,
    /// Captured; what it needs to connect is not there yet, so its connections wait or fail.
    Pending,
    /// Captured and able to connect.
    Ready,
    /// Released; connections of its own are still open.
    Draining,
}

/// What the processes of a node proxy log.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logging {
    /// A level, or target=level, or several of these with commas.
    pub level: String,
}

/// All that the agent needs to know of the pods.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Inventory {
    /// Counts changes, but those of the proxies' progress.
    pub version: u64,
    /// All pods, as they are listed.
    pub pods: Vec<PodStatus>,
    /// Pods that are to be in the mesh when the control plane says so.
    pub registered: Vec<PodSpec>,
}

/// What the agent says of a pod that is not captured.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Note {
    /// Namespace of the pod.
    pub namespace: Namespace,
    /// Name of the pod.
    pub name: PodName,
    /// Whether it waits to be captured, rather than being out.
    pub waiting: bool,
    /// Why, and what to do.
    pub reason: String,
}

/// Why a request was not carried out, and what to do.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}: {remedy}")]
pub struct ApiError {
    /// Whose fault it is.
    pub kind: ApiErrorKind,
    /// What happened.
    pub message: String,
    /// What to do.
    pub remedy: String,
}

/// Whose fault a failure is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ApiErrorKind {
    /// The request cannot be right.
    Invalid,
    /// The pod is not known, or not found.
    NotFound,
    /// The pod is enrolled already, with other data.
    Conflict,
    /// The proxy or the kernel failed.
    Internal,
}

/// Body of an answer to a failed request.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub(super) struct ErrorBody {
    pub(super) error: String,
    pub(super) remedy: String,
}

// === impl PodName ===

impl PodName {
    /// Returns the name as written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromStr for PodName {
    type Err = InvalidPodName;

    fn from_str(s: &str) -> Result<Self, InvalidPodName> {
        s.to_owned().try_into()
    }
}

impl TryFrom<String> for PodName {
    type Error = InvalidPodName;

    fn try_from(s: String) -> Result<Self, InvalidPodName> {
        let ends_well = |b: Option<&u8>| b.is_some_and(u8::is_ascii_alphanumeric);
        let bytes = s.as_bytes();
        let valid = bytes.len() <= MAX_NAME_BYTES
            && ends_well(bytes.first())
            && ends_well(bytes.last())
            && bytes.iter().all(|b| matches!(b, b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.'));
        if valid { Ok(Self(s)) } else { Err(InvalidPodName(s)) }
    }
}

impl From<PodName> for String {
    fn from(name: PodName) -> Self {
        name.0
    }
}

impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

// === impl PodKey ===

impl fmt::Display for PodKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

// === impl PodSpec ===

impl PodSpec {
    /// Returns the key of the pod.
    pub fn key(&self) -> PodKey {
        PodKey { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Returns the unique id of the pod.
    pub fn uid(&self) -> String {
        self.uid.clone().unwrap_or_else(|| self.key().to_string())
    }

    /// Checks what the types of the fields do not.
    pub(super) fn validate(&self) -> Result<(), ApiError> {
        match &self.netns {
            Some(path) if path.is_absolute() => Ok(()),
            Some(path) => {
                let message = format!("netns \"{}\" is not an absolute path", path.display());
                Err(ApiError::invalid(message, "give a path such as /proc/123/ns/net"))
            }
            None if self.uid.is_some() => Ok(()),
            None => Err(ApiError::invalid(
                "neither netns nor uid says where the pod is",
                "give the path of its network namespace, or the uid that Kubernetes gave it",
            )),
        }
    }
}

// === impl Note ===

impl Note {
    /// Returns the key of the pod.
    pub fn key(&self) -> PodKey {
        PodKey { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

// === impl PodStatus ===

impl PodStatus {
    /// Returns the key of the pod.
    pub fn key(&self) -> PodKey {
        PodKey { namespace: self.namespace.clone(), name: self.name.clone() }
    }

    /// Describes a pod that is not captured.
    pub fn not_captured(note: Note) -> Self {
        Self {
            namespace: note.namespace,
            name: note.name,
            uid: None,
            origin: Origin::default(),
            service_account: None,
            netns: None,
            addresses: Vec::new(),
            state: if note.waiting { PodState::Waiting } else { PodState::Out },
            problem: Some(note.reason),
            identity: None,
            connections: 0,
            enrolled_in_ms: 0.0,
        }
    }
}

// === impl PodState ===

impl PodState {
    /// Returns whether the pod's new connections are captured.
    pub fn is_captured(self) -> bool {
        match self {
            Self::Pending | Self::Ready => true,
            Self::Out | Self::Waiting | Self::Draining => false,
        }
    }
}

impl fmt::Display for PodState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Out => "out",
            Self::Waiting => "waiting",
            Self::Pending => "pending",
            Self::Ready => "ready",
            Self::Draining => "draining",
        })
    }
}

// === impl ApiError ===

impl ApiError {
    /// Creates an error of a request that cannot be right.
    pub fn invalid(message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self::new(ApiErrorKind::Invalid, message, remedy)
    }

    /// Creates an error.
    pub fn new(kind: ApiErrorKind, message: impl Into<String>, remedy: impl Into<String>) -> Self {
        Self { kind, message: message.into(), remedy: remedy.into() }
    }
}
