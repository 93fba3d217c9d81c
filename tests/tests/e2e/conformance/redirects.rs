//! Where clients are sent to.

use super::{Case, Test, get, http_route};

/// A rule for paths with a prefix: what the redirect says.
type Rule = (&'static str, &'static str);

/// Returns all tests.
pub(super) fn tests() -> [Test; 7] {
    [host_and_status(), status(303), status(307), status(308), path(), port(), scheme()]
}

fn test(name: &'static str, rules: &[Rule], cases: Vec<Case>) -> Test {
    let rule = |(prefix, fields): &Rule| {
        let filter = format!("{{type: RequestRedirect, requestRedirect: {{{fields}}}}}");
        format!("{{matches: [{{path: {{value: {prefix}}}}}], filters: [{filter}]}}")
    };
    let rules: Vec<_> = rules.iter().map(rule).collect();
    let rules: Vec<_> = rules.iter().map(String::as_str).collect();
    Test { name, manifests: http_route("redirect", "echo:80", &rules), cases }
}

fn host_and_status() -> Test {
    test(
        "MeshHTTPRouteRedirectHostAndStatus",
        &[
            ("/hostname-redirect", "hostname: example.org"),
            ("/host-and-status", "hostname: example.org, statusCode: 301"),
        ],
        vec![
            get("echo/hostname-redirect").redirected(302, "http://example.org/hostname-redirect"),
            get("echo/host-and-status").redirected(301, "http://example.org/host-and-status"),
        ],
    )
}

fn status(status: u16) -> Test {
    let (name, fields) = match status {
        303 => ("MeshHTTPRoute303Redirect", "hostname: example.org, statusCode: 303"),
        307 => ("MeshHTTPRoute307Redirect", "hostname: example.org, statusCode: 307"),
        _ => ("MeshHTTPRoute308Redirect", "hostname: example.org, statusCode: 308"),
    };
    let location = "http://example.org/hostname-redirect";
    let case = get("echo/hostname-redirect").redirected(status, location);
    test(name, &[("/hostname-redirect", fields)], vec![case])
}

fn path() -> Test {
    const PREFIX: &str =
        "path: {type: ReplacePrefixMatch, replacePrefixMatch: /replacement-prefix}";
    const HOST: &str = "hostname: example.org, path: {type: ReplacePrefixMatch, \
                        replacePrefixMatch: /replacement-prefix}";
    const STATUS: &str = "statusCode: 301, path: {type: ReplacePrefixMatch, replacePrefixMatch: \
                          /replacement-prefix}";
    const FULL: &str = "path: {type: ReplaceFullPath, replaceFullPath: /full-path-replacement}";
    const FULL_HOST: &str = "hostname: example.org, path: {type: ReplaceFullPath, \
                             replaceFullPath: /replacement-full}";
    const FULL_STATUS: &str =
        "statusCode: 301, path: {type: ReplaceFullPath, replaceFullPath: /replacement-full}";
    test(
        "MeshHTTPRouteRedirectPath",
        &[
            ("/original-prefix", PREFIX),
            ("/full", FULL),
            ("/path-and-host", HOST),
            ("/path-and-status", STATUS),
            ("/full-path-and-host", FULL_HOST),
            ("/full-path-and-status", FULL_STATUS),
        ],
        vec![
            get("echo/original-prefix/lemon")
                .redirected(302, "http://echo/replacement-prefix/lemon"),
            get("echo/full/path/original").redirected(302, "http://echo/full-path-replacement"),
            get("echo/path-and-host").redirected(302, "http://example.org/replacement-prefix"),
            get("echo/path-and-status").redirected(301, "http://echo/replacement-prefix"),
            get("echo/full-path-and-host").redirected(302, "http://example.org/replacement-full"),
            get("echo/full-path-and-status").redirected(301, "http://echo/replacement-full"),
        ],
    )
}

fn port() -> Test {
    test(
        "MeshHTTPRouteRedirectPort",
        &[
            ("/port", "port: 8083"),
            ("/port-and-host", "hostname: example.org, port: 8083"),
            ("/port-and-status", "port: 8083, statusCode: 301"),
            ("/port-and-host-and-status", "port: 8083, hostname: example.org, statusCode: 302"),
        ],
        vec![
            get("echo/port").redirected(302, "http://echo:8083/port"),
            get("echo/port-and-host").redirected(302, "http://example.org:8083/port-and-host"),
            get("echo/port-and-status").redirected(301, "http://echo:8083/port-and-status"),
            get("echo/port-and-host-and-status")
                .redirected(302, "http://example.org:8083/port-and-host-and-status"),
        ],
    )
}

fn scheme() -> Test {
    test(
        "MeshHTTPRouteSchemeRedirect",
        &[
            ("/scheme", "scheme: https"),
            ("/scheme-and-host", "scheme: https, hostname: example.org"),
            ("/scheme-and-status", "scheme: https, statusCode: 301"),
            (
                "/scheme-and-host-and-status",
                "scheme: https, hostname: example.org, statusCode: 302",
            ),
        ],
        vec![
            get("echo/scheme").redirected(302, "https://echo/scheme"),
            get("echo/scheme-and-host").redirected(302, "https://example.org/scheme-and-host"),
            get("echo/scheme-and-status").redirected(301, "https://echo/scheme-and-status"),
            get("echo/scheme-and-host-and-status")
                .redirected(302, "https://example.org/scheme-and-host-and-status"),
        ],
    )
}
