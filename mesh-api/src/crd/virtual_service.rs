//! `VirtualService` of `networking.istio.io`.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::quantity::{Decimal, Time};

/// How traffic to some hosts is routed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualService {
    /// The hosts; none if others delegate to it.
    pub hosts: Vec<String>,
    /// Gateways it applies to; `mesh`, which is all others, if empty.
    pub gateways: Vec<String>,
    /// HTTP traffic.
    pub http: Vec<VirtualRoute>,
    /// TLS traffic that is not terminated.
    pub tls: Vec<VirtualTlsRoute>,
    /// Other traffic.
    pub tcp: Vec<VirtualTcpRoute>,
    /// Namespaces that see it.
    pub export_to: Vec<String>,
}

/// What is done with some HTTP requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualRoute {
    /// Its name.
    pub name: String,
    /// Which requests: any of these; all if empty.
    #[serde(rename = "match")]
    pub matches: Vec<VirtualMatch>,
    /// Where they are forwarded to.
    pub route: Vec<HttpDestination>,
    /// Where clients are sent to.
    pub redirect: Option<VirtualRedirect>,
    /// What is answered.
    pub direct_response: Option<VirtualResponse>,
    /// Who decides.
    pub delegate: Option<Delegate>,
    /// What is written anew.
    pub rewrite: Option<VirtualRewrite>,
    /// Time for the whole request.
    pub timeout: Option<Time>,
    /// When and how it is tried again.
    pub retries: Option<VirtualRetries>,
    /// What goes wrong on purpose.
    pub fault: Option<VirtualFault>,
    /// Who gets a copy.
    pub mirror: Option<VirtualDestination>,
    /// Who gets copies.
    pub mirrors: Vec<VirtualMirror>,
    /// Older form of `mirror_percentage`.
    #[serde(alias = "mirror_percent")]
    pub mirror_percent: Option<u32>,
    /// Share of requests that are copied to `mirror`.
    pub mirror_percentage: Option<Percent>,
    /// Which scripts may ask.
    pub cors_policy: Option<VirtualCors>,
    /// What is done with headers.
    pub headers: Option<VirtualHeaders>,
}

/// Conditions that must hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualMatch {
    /// Its name.
    pub name: String,
    /// The path.
    pub uri: Option<Text>,
    /// The scheme.
    pub scheme: Option<Text>,
    /// The method.
    pub method: Option<Text>,
    /// The authority.
    pub authority: Option<Text>,
    /// Headers, by name.
    pub headers: BTreeMap<String, Text>,
    /// Headers that must not match, by name.
    pub without_headers: BTreeMap<String, Text>,
    /// Parameters of the query, by name.
    pub query_params: BTreeMap<String, Text>,
    /// Port of the service; 0 for any.
    pub port: u32,
    /// Labels of the proxy.
    pub source_labels: BTreeMap<String, String>,
    /// Namespace of the proxy.
    pub source_namespace: String,
    /// Gateways.
    pub gateways: Vec<String>,
    /// Whether letters of the path match in either case.
    pub ignore_uri_case: bool,
    /// Name of statistics.
    pub stat_prefix: String,
}

/// A condition on a text; without any field, that there is one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Text {
    /// It is this.
    pub exact: Option<String>,
    /// It begins with this.
    pub prefix: Option<String>,
    /// All of it matches this expression.
    pub regex: Option<String>,
}

/// A destination with its share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HttpDestination {
    /// The destination.
    pub destination: VirtualDestination,
    /// Its share, relative to the sum.
    pub weight: i64,
    /// What is done with headers.
    pub headers: Option<VirtualHeaders>,
}

/// Where traffic goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VirtualDestination {
    /// Host name of a service.
    pub host: String,
    /// Subset of its endpoints.
    pub subset: String,
    /// Port of the service.
    pub port: PortSelector,
}

/// A port.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PortSelector {
    /// Its number; 0 if none is named.
    pub number: u32,
}

/// What is done with headers of requests and responses.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VirtualHeaders {
    /// Of requests.
    pub request: HeaderOperations,
    /// Of responses.
    pub response: HeaderOperations,
}

/// What is done with headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct HeaderOperations {
    /// Overwritten.
    pub set: BTreeMap<String, String>,
    /// Added.
    pub add: BTreeMap<String, String>,
    /// Removed.
    pub remove: Vec<String>,
}

/// Where clients are sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualRedirect {
    /// The path.
    pub uri: Option<String>,
    /// What replaces the prefix that matched.
    pub prefix_rewrite: Option<String>,
    /// The authority.
    pub authority: String,
    /// The port.
    pub port: Option<u32>,
    /// Where the port comes from.
    pub derive_port: Option<PortDerivation>,
    /// The scheme.
    pub scheme: String,
    /// The status; 0 for 301.
    pub redirect_code: u32,
}

/// Where the port of a redirect comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PortDerivation {
    /// The scheme's own.
    FromProtocolDefault,
    /// That of the request.
    FromRequestPort,
}

/// What is answered.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VirtualResponse {
    /// The status.
    pub status: u32,
    /// The body.
    pub body: Option<VirtualBody>,
}

/// A body, in one of two forms.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VirtualBody {
    /// As text.
    pub string: Option<String>,
    /// In Base64.
    pub bytes: Option<String>,
}

/// Who decides instead.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Delegate {
    /// Name of a virtual service without hosts.
    pub name: String,
    /// Its namespace; the same if empty.
    pub namespace: String,
}

/// What is written anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualRewrite {
    /// The part of the path that matched.
    pub uri: String,
    /// The authority.
    pub authority: String,
    /// Parts of the path.
    pub uri_regex_rewrite: Option<VirtualRegexRewrite>,
}

/// Parts of a path that are written anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VirtualRegexRewrite {
    /// An expression.
    #[serde(rename = "match")]
    pub pattern: String,
    /// What replaces what it matches.
    pub rewrite: String,
}

/// When and how a request is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualRetries {
    /// How many times at most.
    pub attempts: i64,
    /// Time for each try.
    pub per_try_timeout: Option<Time>,
    /// When, as a list with commas.
    pub retry_on: String,
    /// Whether localities that were tried come last.
    pub retry_remote_localities: Option<bool>,
    /// Whether endpoints that were tried are avoided.
    pub retry_ignore_previous_hosts: Option<bool>,
    /// Least pause between tries.
    pub backoff: Option<Time>,
}

/// What goes wrong on purpose.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VirtualFault {
    /// It takes longer.
    pub delay: Option<VirtualDelay>,
    /// It fails.
    pub abort: Option<VirtualAbort>,
}

/// A delay.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualDelay {
    /// Older form of `percentage`.
    pub percent: Option<u32>,
    /// Share of requests.
    pub percentage: Option<Percent>,
    /// How long.
    pub fixed_delay: Option<Time>,
    /// Never implemented by anybody.
    pub exponential_delay: Option<Time>,
}

/// A failure.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualAbort {
    /// Share of requests.
    pub percentage: Option<Percent>,
    /// Status that is answered.
    pub http_status: Option<u32>,
    /// Status of gRPC that is answered, by name or number.
    pub grpc_status: Option<String>,
    /// Never implemented by anybody.
    pub http2_error: Option<String>,
}

/// A share in percent.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct Percent {
    /// The number.
    pub value: Decimal,
}

/// Who gets a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VirtualMirror {
    /// The destination.
    pub destination: VirtualDestination,
    /// Share of requests; all if absent.
    pub percentage: Option<Percent>,
}

/// Which scripts of browsers may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct VirtualCors {
    /// Older form of `allow_origins`.
    pub allow_origin: Vec<String>,
    /// From where they come.
    pub allow_origins: Vec<Text>,
    /// With which methods.
    pub allow_methods: Vec<String>,
    /// With which headers.
    pub allow_headers: Vec<String>,
    /// Which headers of the response they see.
    pub expose_headers: Vec<String>,
    /// How long the answer holds.
    pub max_age: Option<Time>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
    /// What becomes of preflights that do not match.
    pub unmatched_preflights: UnmatchedPreflights,
}

/// What becomes of preflights that do not match.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum UnmatchedPreflights {
    /// They are forwarded.
    #[default]
    Unspecified,
    /// They are forwarded.
    Forward,
    /// They are answered, without permission.
    Ignore,
}

/// What is done with some TLS connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VirtualTlsRoute {
    /// Which: any of these.
    #[serde(rename = "match")]
    pub matches: Vec<TlsMatch>,
    /// Where they are forwarded to.
    pub route: Vec<TcpDestination>,
}

/// Conditions that must hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsMatch {
    /// Server names that clients ask for.
    pub sni_hosts: Vec<String>,
    /// Addresses that clients connect to.
    pub destination_subnets: Vec<String>,
    /// Port of the service; 0 for any.
    pub port: u32,
    /// Labels of the proxy.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways.
    pub gateways: Vec<String>,
    /// Namespace of the proxy.
    pub source_namespace: String,
}

/// What is done with some connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct VirtualTcpRoute {
    /// Which: any of these; all if empty.
    #[serde(rename = "match")]
    pub matches: Vec<TcpMatch>,
    /// Where they are forwarded to.
    pub route: Vec<TcpDestination>,
}

/// Conditions that must hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase", deny_unknown_fields)]
pub struct TcpMatch {
    /// Addresses that clients connect to.
    pub destination_subnets: Vec<String>,
    /// Port of the service; 0 for any.
    pub port: u32,
    /// Addresses that clients connect from.
    pub source_subnet: String,
    /// Labels of the proxy.
    pub source_labels: BTreeMap<String, String>,
    /// Gateways.
    pub gateways: Vec<String>,
    /// Namespace of the proxy.
    pub source_namespace: String,
}

/// A destination with its share.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct TcpDestination {
    /// The destination.
    pub destination: VirtualDestination,
    /// Its share, relative to the sum.
    pub weight: i64,
}
