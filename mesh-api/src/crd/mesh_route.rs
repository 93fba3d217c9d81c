//! Routes of `gateway.networking.k8s.io`, as far as they are for a mesh.

use serde::Deserialize;

use super::quantity::Time;

/// How HTTP requests to some parents are routed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRoute {
    /// What it applies to.
    pub parent_refs: Vec<ParentReference>,
    /// Host names, which are for gateways only.
    pub hostnames: Vec<String>,
    /// Its rules.
    pub rules: Vec<HttpRule>,
}

/// How gRPC calls to some parents are routed.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GrpcRoute {
    /// What it applies to.
    pub parent_refs: Vec<ParentReference>,
    /// Host names, which are for gateways only.
    pub hostnames: Vec<String>,
    /// Its rules.
    pub rules: Vec<GrpcRule>,
}

/// How connections to some parents are routed: `TCPRoute`, and `TLSRoute`, whose host names are for
/// gateways only.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StreamRoute {
    /// What it applies to.
    pub parent_refs: Vec<ParentReference>,
    /// Its rules.
    pub rules: Vec<StreamRule>,
}

/// Where some connections are forwarded to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct StreamRule {
    /// Its name.
    pub name: String,
    /// Where they are forwarded to.
    pub backend_refs: Vec<BackendReference>,
}

/// What a route applies to.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ParentReference {
    /// API group.
    pub group: String,
    /// Kind.
    pub kind: String,
    /// Namespace; the route's own if empty.
    pub namespace: String,
    /// Name.
    pub name: String,
    /// Name of a part, such as a listener.
    pub section_name: String,
    /// Port; all if absent.
    pub port: Option<u32>,
}

/// What is done with some requests.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRule {
    /// Its name.
    pub name: String,
    /// Which requests: any of these; all if empty.
    pub matches: Vec<HttpRouteMatch>,
    /// What is done with them first.
    pub filters: Vec<RouteFilter>,
    /// Where they are forwarded to.
    pub backend_refs: Vec<BackendReference>,
    /// How long it may take.
    pub timeouts: Option<RouteTimeouts>,
    /// When and how it is tried again.
    pub retry: Option<RouteRetry>,
}

/// What is done with some calls.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct GrpcRule {
    /// Its name.
    pub name: String,
    /// Which calls: any of these; all if empty.
    pub matches: Vec<GrpcRouteMatch>,
    /// What is done with them first.
    pub filters: Vec<RouteFilter>,
    /// Where they are forwarded to.
    pub backend_refs: Vec<BackendReference>,
}

/// Conditions that must hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct HttpRouteMatch {
    /// The path.
    pub path: Option<RoutePath>,
    /// Headers.
    pub headers: Vec<RouteValue>,
    /// Parameters of the query.
    pub query_params: Vec<RouteValue>,
    /// The method.
    pub method: Option<String>,
}

/// Conditions that must hold together.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrpcRouteMatch {
    /// The service and method that are called.
    pub method: Option<GrpcMethod>,
    /// Headers.
    pub headers: Vec<RouteValue>,
}

/// A condition on the path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RoutePath {
    /// How it is compared.
    #[serde(rename = "type")]
    pub kind: RoutePathKind,
    /// With what; `/` if absent.
    pub value: Option<String>,
}

/// How a path is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum RoutePathKind {
    /// It is the same.
    Exact,
    /// It begins with the same elements.
    #[default]
    PathPrefix,
    /// All of it matches an expression.
    RegularExpression,
}

/// A condition on a header or a parameter.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteValue {
    /// How it is compared.
    #[serde(rename = "type")]
    pub kind: RouteValueKind,
    /// Its name.
    pub name: String,
    /// With what it is compared.
    pub value: String,
}

/// How a value is compared.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum RouteValueKind {
    /// It is the same.
    #[default]
    Exact,
    /// All of it matches an expression.
    RegularExpression,
}

/// A condition on what is called.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct GrpcMethod {
    /// How it is compared.
    #[serde(rename = "type")]
    pub kind: RouteValueKind,
    /// The service; any if absent.
    pub service: Option<String>,
    /// The method; any if absent.
    pub method: Option<String>,
}

/// Something that is done with a request or its response.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteFilter {
    /// What, as the name of one of the fields.
    #[serde(rename = "type")]
    pub kind: String,
    /// Headers of the request.
    pub request_header_modifier: Option<HeaderFilter>,
    /// Headers of the response.
    pub response_header_modifier: Option<HeaderFilter>,
    /// Where clients are sent to.
    pub request_redirect: Option<RouteRedirect>,
    /// What is written anew.
    #[serde(rename = "urlRewrite")]
    pub url_rewrite: Option<RouteRewrite>,
    /// Who gets a copy.
    pub request_mirror: Option<RouteMirror>,
    /// Which scripts may ask.
    pub cors: Option<RouteCors>,
}

/// What is done with headers.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct HeaderFilter {
    /// Overwritten.
    pub set: Vec<RouteHeader>,
    /// Added.
    pub add: Vec<RouteHeader>,
    /// Removed.
    pub remove: Vec<String>,
}

/// A header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteHeader {
    /// Its name.
    pub name: String,
    /// Its value.
    pub value: String,
}

/// Where clients are sent to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteRedirect {
    /// The scheme.
    pub scheme: Option<String>,
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
    /// The port.
    pub port: Option<u32>,
    /// The status; 302 if absent.
    pub status_code: Option<u32>,
}

/// What is written anew.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteRewrite {
    /// The host.
    pub hostname: Option<String>,
    /// The path.
    pub path: Option<PathModifier>,
}

/// What replaces a path.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct PathModifier {
    /// What, as the name of one of the fields.
    #[serde(rename = "type")]
    pub kind: String,
    /// All of it.
    pub replace_full_path: Option<String>,
    /// The prefix that matched.
    pub replace_prefix_match: Option<String>,
}

/// Who gets a copy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteMirror {
    /// Where it goes.
    pub backend_ref: BackendReference,
    /// Share of requests.
    pub percent: Option<u32>,
    /// Share of requests.
    pub fraction: Option<Fraction>,
}

/// A share.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Fraction {
    /// Number of parts.
    pub numerator: u32,
    /// Parts of the whole; 100 if absent.
    pub denominator: Option<u32>,
}

/// Which scripts of browsers may ask.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteCors {
    /// From where they come.
    pub allow_origins: Vec<String>,
    /// Whether credentials may be sent.
    pub allow_credentials: Option<bool>,
    /// With which methods.
    pub allow_methods: Vec<String>,
    /// With which headers.
    pub allow_headers: Vec<String>,
    /// Which headers of the response they see.
    pub expose_headers: Vec<String>,
    /// How long the answer holds, in seconds; 5 if absent.
    pub max_age: Option<u32>,
}

/// Where requests are forwarded to.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct BackendReference {
    /// API group; the core one if absent.
    pub group: Option<String>,
    /// Kind; `Service` if absent.
    pub kind: Option<String>,
    /// Name.
    pub name: String,
    /// Namespace; the route's own if absent.
    pub namespace: Option<String>,
    /// Port of the service.
    pub port: Option<u32>,
    /// Share, relative to the sum; 1 if absent.
    pub weight: Option<u32>,
    /// What is done with requests that are forwarded there.
    pub filters: Vec<RouteFilter>,
}

/// How long it may take.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct RouteTimeouts {
    /// The whole request.
    pub request: Option<Time>,
    /// One try.
    pub backend_request: Option<Time>,
}

/// When and how a request is tried again.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct RouteRetry {
    /// Statuses that are tried again.
    pub codes: Vec<u32>,
    /// How many times at most.
    pub attempts: Option<u32>,
    /// Least pause between tries.
    pub backoff: Option<Time>,
}

// === impl ParentReference ===

impl Default for ParentReference {
    fn default() -> Self {
        Self {
            group: "gateway.networking.k8s.io".to_owned(),
            kind: "Gateway".to_owned(),
            namespace: String::new(),
            name: String::new(),
            section_name: String::new(),
            port: None,
        }
    }
}
