//! Calls of gRPC: which route is for them, and what it changes.

use anyhow::{Context as _, Result, bail};
use fairlead_lab::{GrpcClient, Report, wait_for};

use super::{
    route_of,
    scene::{FELT, Scene},
};

/// The method that most calls are of.
pub(super) const ECHO: &str = "/conformance.Echo/Echo";

/// A call, and what has to arrive where.
struct Call {
    path: &'static str,
    metadata: Vec<(&'static str, &'static str)>,
    server: &'static str,
    arrives: Vec<(&'static str, &'static str)>,
    does_not_arrive: Vec<&'static str>,
}

// === impl Call ===

impl Call {
    fn to(path: &'static str, server: &'static str) -> Self {
        let (metadata, arrives, does_not_arrive) = (Vec::new(), Vec::new(), Vec::new());
        Self { path, metadata, server, arrives, does_not_arrive }
    }

    fn with(mut self, name: &'static str, value: &'static str) -> Self {
        self.metadata.push((name, value));
        self
    }

    fn arrives(mut self, name: &'static str, value: &'static str) -> Self {
        self.arrives.push((name, value));
        self
    }

    fn does_not_arrive(mut self, name: &'static str) -> Self {
        self.does_not_arrive.push(name);
        self
    }

    fn check(&self, client: &mut GrpcClient) -> Result<()> {
        let report = client.call(self.path, &self.metadata)?.context(self.path)?;
        let Report { server, path, metadata, .. } = &report;
        let has = |name: &&str| metadata.contains_key(*name);
        let arrived =
            |(name, value): &(&str, &str)| metadata.get(*name).is_some_and(|v| v == value);
        let is_right = server == self.server
            && path == self.path
            && self.arrives.iter().all(arrived)
            && !self.does_not_arrive.iter().any(has);
        if !is_right {
            bail!("{}: not as it has to be: {report:?}", self.path);
        }
        Ok(())
    }
}

fn rule(matched: &str, filter: &str, backend: &str) -> String {
    format!(
        "{{matches: [{{{matched}}}], filters: [{{type: RequestHeaderModifier, requestHeaderModifier: \
         {{{filter}}}}}], backendRefs: [{{name: {backend}, port: 7070}}]}}"
    )
}

#[test]
fn calls_are_routed_and_changed_as_the_gateway_api_wants_it() -> Result<()> {
    let mut scene = Scene::new("gcalls")?;
    for (name, rules, calls) in [header_modifier(), methods()] {
        let rules: Vec<_> = rules.iter().map(String::as_str).collect();
        scene
            .apply(&route_of("GRPCRoute", ["shop", "calls"], "echo:7070", &rules))
            .with_context(|| name)?;
        let mut client = scene.call_echo()?;
        for call in calls {
            call.check(&mut client).with_context(|| format!("{name}\n{}", scene.log()))?;
        }
    }
    // What no rule is for is answered as gRPC has it.
    let mut client = scene.call_echo()?;
    let status = client.call("/conformance.Other/Echo", &[])?.unwrap_err();
    assert_eq!(status.code(), tonic::Code::Unimplemented, "{status:?}");
    scene.apply("")?;
    wait_for("the call goes on without routes", FELT, || {
        Ok(client.call("/conformance.Other/Echo", &[])?.ok())
    })
    .map(drop)
}

type Part = (&'static str, Vec<String>, Vec<Call>);

fn header_modifier() -> Part {
    let case = |value: &str| format!("headers: [{{name: x-test-case, value: {value}}}]");
    let rules = vec![
        rule(&case("set"), "set: [{name: X-Header-Set, value: set-overwrites-values}]", "echo-v1"),
        rule(&case("add"), "add: [{name: X-Header-Add, value: add-appends-values}]", "echo-v1"),
        rule(&case("remove"), "remove: [X-Header-Remove]", "echo-v1"),
        rule(
            &case("multi"),
            "set: [{name: X-Header-Set-1, value: header-set-1}, {name: X-Header-Set-2, value: \
             header-set-2}], add: [{name: X-Header-Add-1, value: header-add-1}, {name: \
             X-Header-Add-2, value: header-add-2}], remove: [X-Header-Remove-1, X-Header-Remove-2]",
            "echo-v2",
        ),
    ];
    let calls = vec![
        Call::to(ECHO, "echo-v1")
            .with("x-test-case", "set")
            .with("some-other-header", "this-header-should-be-set")
            .with("x-header-set", "this-value-should-be-overwritten")
            .arrives("some-other-header", "this-header-should-be-set")
            .arrives("x-header-set", "set-overwrites-values"),
        Call::to(ECHO, "echo-v1")
            .with("x-test-case", "add")
            .with("x-header-add", "this-value-should-be-appended")
            .arrives("x-header-add", "this-value-should-be-appended,add-appends-values"),
        Call::to(ECHO, "echo-v1")
            .with("x-test-case", "remove")
            .with("x-header-remove", "this-should-be-removed")
            .does_not_arrive("x-header-remove"),
        Call::to(ECHO, "echo-v2")
            .with("x-test-case", "multi")
            .with("x-header-set-2", "set-header-2")
            .with("x-header-add-2", "add-header-2")
            .with("x-header-remove-2", "should-be-removed-2")
            .arrives("x-header-set-1", "header-set-1")
            .arrives("x-header-set-2", "header-set-2")
            .arrives("x-header-add-1", "header-add-1")
            .arrives("x-header-add-2", "add-header-2,header-add-2")
            .does_not_arrive("x-header-remove-1")
            .does_not_arrive("x-header-remove-2"),
    ];
    ("MeshGRPCRouteRequestHeaderModifier", rules, calls)
}

/// Of the tests of gateways: methods exactly and by expression, and headers.
fn methods() -> Part {
    let to = |matched: &str, backend: &str| {
        format!("{{matches: [{{{matched}}}], backendRefs: [{{name: {backend}, port: 7070}}]}}")
    };
    let rules = vec![
        to("method: {service: conformance.Echo, method: Echo}", "echo-v1"),
        to("method: {service: conformance.Echo, method: EchoTwo}", "echo-v2"),
        to("method: {service: conformance.Echo}, headers: [{name: color, value: red}]", "echo-v2"),
        to("method: {service: conformance.Echo}", "echo-v1"),
        to("method: {type: RegularExpression, service: 'any\\..+', method: 'Two|2'}", "echo-v2"),
    ];
    let calls = vec![
        Call::to(ECHO, "echo-v1").with("color", "red"),
        Call::to("/conformance.Echo/EchoTwo", "echo-v2"),
        Call::to("/conformance.Echo/Other", "echo-v1").with("color", "blue"),
        Call::to("/conformance.Echo/Other", "echo-v2").with("color", "red"),
        Call::to("/any.service.Echo/Two", "echo-v2"),
        Call::to("/any.Echo/2", "echo-v2"),
    ];
    ("GRPCExactMethodMatching and GRPCRouteHeaderMatching", rules, calls)
}
