//! A route of HTTP requests, compiled.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use mesh_api::proto::l7::{self, http_route};

use super::{
    cors::Cors,
    fault::Fault,
    forward::Forward,
    head::RequestHead,
    headers::{HeaderMutation, Whose},
    invalid::{At, Invalid, Problem},
    matching::HttpMatch,
    path::Bucket,
    redirect::Redirect,
    split::Destination,
    template::Facts,
    wire,
};

/// Largest body of a direct response, in bytes; what Istio allows.
pub const MAX_DIRECT_RESPONSE_BYTES: usize = 1024 * 1024;

/// What is done with the requests that match.
#[derive(Clone, Debug)]
pub struct HttpRoute {
    /// What access logs call it.
    pub name: Arc<str>,
    /// Where they go, or what they are answered.
    pub action: Action,
    /// What is done to them on purpose.
    pub fault: Option<Fault>,
    /// Which other origins may ask.
    pub cors: Option<Box<Cors>>,
    matches: HttpMatch,
    response_headers: HeaderMutation,
}

/// What becomes of a request.
#[derive(Clone, Debug)]
pub enum Action {
    /// It goes on.
    Forward(Box<Forward>),
    /// Its client is told to go elsewhere.
    Redirect(Box<Redirect>),
    /// It is answered here.
    Respond(DirectResponse),
}

/// An answer of a route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DirectResponse {
    /// Status.
    pub status: StatusCode,
    /// Body; a plain text where it is not empty.
    pub body: Bytes,
}

// === impl HttpRoute ===

impl HttpRoute {
    pub(crate) fn compile(wire: l7::HttpRoute, name: Arc<str>) -> Result<Self, Invalid> {
        let matches = wire.r#match.map(HttpMatch::try_from).transpose().at("match")?;
        let matches = matches.unwrap_or_default();
        let request_headers = HeaderMutation::compile(wire.request_headers, Whose::Request);
        let request_headers = request_headers.at("request_headers")?;
        let response_headers = HeaderMutation::compile(wire.response_headers, Whose::Response);
        let action = match wire.action.ok_or(Problem::Missing).at("action")? {
            http_route::Action::Forward(forward) => {
                let forward = Forward::compile(forward, &matches.path, request_headers);
                Action::Forward(Box::new(forward.at("forward")?))
            }
            http_route::Action::Redirect(redirect) => {
                let redirect = Redirect::compile(redirect, &matches.path).at("redirect")?;
                Action::Redirect(Box::new(redirect))
            }
            http_route::Action::DirectResponse(response) => {
                Action::Respond(DirectResponse::try_from(response).at("direct_response")?)
            }
        };
        Ok(Self {
            name,
            action,
            fault: wire.fault.map(Fault::try_from).transpose().at("fault")?,
            cors: wire.cors.map(Cors::try_from).transpose().at("cors")?.map(Box::new),
            matches,
            response_headers: response_headers.at("response_headers")?,
        })
    }

    /// Returns whether a request matches.
    pub fn matches(&self, request: &RequestHead<'_>) -> bool {
        self.matches.matches(request)
    }

    /// Returns where the route belongs in an index of paths.
    pub(crate) fn bucket(&self) -> Bucket<'_> {
        self.matches.path.bucket()
    }

    /// Makes of a response what the client gets: headers as the route says, then as the destination
    /// that answered says. `request` is what the client asked.
    pub fn finish(
        &self,
        response: &mut http::response::Parts,
        destination: Option<&Destination>,
        request: RequestHead<'_>,
        facts: &Facts<'_>,
    ) {
        self.response_headers.apply_to_response(response, request, facts);
        if let Some(destination) = destination {
            destination.response_headers.apply_to_response(response, request, facts);
        }
    }
}

// === impl DirectResponse ===

impl TryFrom<l7::DirectResponse> for DirectResponse {
    type Error = Invalid;

    fn try_from(wire: l7::DirectResponse) -> Result<Self, Invalid> {
        let length = wire.body.len();
        if length > MAX_DIRECT_RESPONSE_BYTES {
            let limit = MAX_DIRECT_RESPONSE_BYTES;
            return Err(Problem::TooLong { length, limit }).at("body");
        }
        Ok(Self { status: wire::final_status(wire.status).at("status")?, body: wire.body })
    }
}
