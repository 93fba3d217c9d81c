//! Policies from their wire form. What is not understood is an error, never left out: a condition
//! less would let more through.

use std::net::IpAddr;

use ipnet::IpNet;
use mesh_api::{
    identity::Namespace,
    proto::l7::{self, path_pattern, string_match, target},
    workload::PolicyKey,
};

use super::{
    Action, Clause, Policy, Rule, Target,
    attribute::{AddressAttribute, Attribute, Check, Values},
    set::GatewayKey,
};
use crate::route::{
    Invalid, Problem,
    invalid::{At, each},
    pattern::Pattern,
    text::TextMatch,
    wire,
};

// === impl Policy ===

impl TryFrom<l7::Authorization> for Policy {
    type Error = Invalid;

    fn try_from(wire: l7::Authorization) -> Result<Self, Invalid> {
        let key = key(&wire.namespace, wire.name)?;
        let action = match l7::Action::try_from(wire.action) {
            Ok(l7::Action::Allow) => Action::Allow,
            Ok(l7::Action::Deny) => Action::Deny,
            Ok(l7::Action::Custom) => Action::Custom,
            Ok(l7::Action::Audit) => Action::Audit,
            Err(unknown) => return Err(Problem::Unknown(unknown.0)).at("action"),
        };
        let targets = targets(wire.targets)?;
        let rules = each(wire.rules, "rules", Rule::try_from)?;
        Ok(Self { key, action, is_on_trial: wire.dry_run, targets, rules })
    }
}

impl Policy {
    /// Returns what stands for a policy that is not understood: everything that it is for is
    /// refused, and everything if even that is not understood.
    pub(super) fn refusing(wire: l7::Authorization) -> Result<Self, Invalid> {
        let key = key(&wire.namespace, wire.name)?;
        let targets = targets(wire.targets).unwrap_or_else(|_| [Target::All].into());
        let rules = [Rule::default()].into();
        Ok(Self { key, action: Action::Deny, is_on_trial: false, targets, rules })
    }
}

fn key(namespace: &str, name: String) -> Result<PolicyKey, Invalid> {
    let namespace = namespace.parse::<Namespace>().map_err(|_| Problem::Namespace);
    Ok(PolicyKey { namespace: namespace.at("namespace")?, name: name.into() })
}

fn targets(wire: Vec<l7::Target>) -> Result<Box<[Target]>, Invalid> {
    each(wire, "targets", |target| match target.kind.ok_or(Problem::Missing)? {
        target::Kind::Service(service) => {
            wire::service(Some(service)).map(Target::Service).at("service")
        }
        target::Kind::Gateway(gateway) => {
            let parsed = gateway.parse::<GatewayKey>().map_err(|()| Problem::Missing);
            parsed.map(Target::Gateway).at("gateway")
        }
        target::Kind::All(true) => Ok(Target::All),
        target::Kind::All(false) => Err(Problem::Missing).at("all"),
    })
}

// === impl Rule ===

impl TryFrom<l7::Rule> for Rule {
    type Error = Invalid;

    fn try_from(wire: l7::Rule) -> Result<Self, Invalid> {
        Ok(Self {
            from: each(wire.from, "from", source)?,
            to: each(wire.to, "to", operation)?,
            when: each(wire.when, "when", condition)?,
        })
    }
}

fn source(wire: l7::Source) -> Result<Clause, Invalid> {
    use AddressAttribute::{Remote, Source};
    use Attribute::{Namespace, Principal, RequestPrincipal, TrustDomain};
    some_of([
        texts(Principal, wire.principals, wire.not_principals).at("principals")?,
        texts(RequestPrincipal, wire.request_principals, wire.not_request_principals)
            .at("request_principals")?,
        texts(Namespace, wire.namespaces, wire.not_namespaces).at("namespaces")?,
        texts(TrustDomain, wire.trust_domains, wire.not_trust_domains).at("trust_domains")?,
        networks(Source, wire.ip_blocks, wire.not_ip_blocks).at("ip_blocks")?,
        networks(Remote, wire.remote_ip_blocks, wire.not_remote_ip_blocks)
            .at("remote_ip_blocks")?,
    ])
}

fn operation(wire: l7::Operation) -> Result<Clause, Invalid> {
    let paths = Values {
        any_of: each(wire.paths, "paths", path)?,
        none_of: each(wire.not_paths, "not_paths", path)?,
    };
    let ports = Values {
        any_of: each(wire.ports, "ports", port)?,
        none_of: each(wire.not_ports, "not_ports", port)?,
    };
    some_of([
        texts(Attribute::Host, wire.hosts, wire.not_hosts).at("hosts")?,
        texts(Attribute::Method, wire.methods, wire.not_methods).at("methods")?,
        (!paths.is_empty()).then_some(Check::Text { attribute: Attribute::Path, values: paths }),
        (!ports.is_empty()).then_some(Check::Port(ports)),
    ])
}

/// Returns the checks that there are. Without any, what was said is something that is not known
/// here, and must not be taken for nothing.
fn some_of<const N: usize>(checks: [Option<Check>; N]) -> Result<Clause, Invalid> {
    let clause: Clause = checks.into_iter().flatten().collect();
    if clause.is_empty() { Err(Problem::Missing.into()) } else { Ok(clause) }
}

fn texts(
    attribute: Attribute,
    any_of: Vec<l7::StringMatch>,
    none_of: Vec<l7::StringMatch>,
) -> Result<Option<Check>, Invalid> {
    let values = Values {
        any_of: each(any_of, "any_of", TextMatch::try_from)?,
        none_of: each(none_of, "none_of", TextMatch::try_from)?,
    };
    Ok((!values.is_empty()).then_some(Check::Text { attribute, values }))
}

fn networks(
    attribute: AddressAttribute,
    any_of: Vec<String>,
    none_of: Vec<String>,
) -> Result<Option<Check>, Invalid> {
    let values = Values {
        any_of: each(any_of, "any_of", network)?,
        none_of: each(none_of, "none_of", network)?,
    };
    Ok((!values.is_empty()).then_some(Check::Address { attribute, values }))
}

/// Returns a prefix of addresses, or a single one.
fn network(text: String) -> Result<IpNet, Problem> {
    let network = text.parse().or_else(|_| text.parse::<IpAddr>().map(IpNet::from));
    network.map_err(|_| Problem::Network(text))
}

fn port(wire: u32) -> Result<u16, Problem> {
    wire::port(wire)?.map(u16::from).ok_or(Problem::Port(wire))
}

fn path(wire: l7::PathPattern) -> Result<TextMatch, Invalid> {
    match wire.kind.ok_or(Problem::Missing)? {
        path_pattern::Kind::Value(value) => TextMatch::try_from(value).at("value"),
        path_pattern::Kind::Template(template) => {
            Pattern::whole(&expression(&template).at("template")?)
                .map(TextMatch::Regex)
                .at("template")
        }
    }
}

/// Returns the regular expression of a template, whose operators are path elements.
fn expression(template: &str) -> Result<String, Problem> {
    let invalid = || Problem::Template(template.to_owned());
    let elements = template.strip_prefix('/').ok_or_else(invalid)?;
    let mut expression = String::new();
    let mut ended = false;
    for element in elements.split('/') {
        expression.push('/');
        match element {
            // Nothing may vary after what is of any length.
            "{*}" | "{**}" if ended => return Err(invalid()),
            "{*}" => expression.push_str("[^/]+"),
            "{**}" => {
                expression.push_str(".*");
                ended = true;
            }
            literal if literal.contains(['*', '{', '}']) => return Err(invalid()),
            literal => expression.push_str(&regex_syntax::escape(literal)),
        }
    }
    Ok(expression)
}

fn condition(wire: l7::Condition) -> Result<Check, Invalid> {
    let l7::Condition { key, values, not_values } = wire;
    let check = match key.as_str() {
        "source.ip" => addresses(AddressAttribute::Source, values, not_values)?,
        "remote.ip" => addresses(AddressAttribute::Remote, values, not_values)?,
        "destination.ip" => addresses(AddressAttribute::Destination, values, not_values)?,
        "destination.port" => {
            let port = |text: String| {
                let port = text.parse().map_err(|_| Problem::ConditionKey(text));
                port.and_then(port_of_number)
            };
            let ports = Values {
                any_of: each(values, "values", |value| port(exact(value)?))?,
                none_of: each(not_values, "not_values", |value| port(exact(value)?))?,
            };
            (!ports.is_empty()).then_some(Check::Port(ports))
        }
        _ => {
            let attribute = text_attribute(&key).ok_or(Problem::ConditionKey(key)).at("key")?;
            texts(attribute, values, not_values)?
        }
    };
    check.ok_or(Problem::Missing).at("values")
}

fn port_of_number(number: u32) -> Result<u16, Problem> {
    port(number)
}

fn addresses(
    attribute: AddressAttribute,
    values: Vec<l7::StringMatch>,
    not_values: Vec<l7::StringMatch>,
) -> Result<Option<Check>, Invalid> {
    let any_of = each(values, "values", exact)?.into_vec();
    let none_of = each(not_values, "not_values", exact)?.into_vec();
    networks(attribute, any_of, none_of)
}

/// Returns the text of what can only be compared as a whole.
fn exact(wire: l7::StringMatch) -> Result<String, Problem> {
    match wire.kind {
        Some(string_match::Kind::Exact(text)) => Ok(text),
        Some(
            string_match::Kind::Prefix(_)
            | string_match::Kind::Suffix(_)
            | string_match::Kind::Regex(_)
            | string_match::Kind::Present(_),
        )
        | None => Err(Problem::Missing),
    }
}

fn text_attribute(key: &str) -> Option<Attribute> {
    Some(match key {
        "source.namespace" => Attribute::Namespace,
        "source.principal" => Attribute::Principal,
        "source.serviceAccount" => Attribute::ServiceAccount,
        "source.trustDomain" => Attribute::TrustDomain,
        "connection.sni" => Attribute::ServerName,
        "request.auth.principal" => Attribute::RequestPrincipal,
        "request.auth.audiences" => Attribute::Audiences,
        "request.auth.presenter" => Attribute::Presenter,
        key => match (bracketed(key, "request.headers"), bracketed(key, "request.auth.claims")) {
            (Some(names), _) => match names.as_slice() {
                [":authority"] => Attribute::Host,
                [":method"] => Attribute::Method,
                [name] if name.eq_ignore_ascii_case("host") => Attribute::Host,
                [name] => Attribute::Header(name.parse().ok()?),
                _ => return None,
            },
            (None, Some(names)) => Attribute::Claim(names.into_iter().map(Into::into).collect()),
            (None, None) => return None,
        },
    })
}

/// Returns what is in the brackets of `base[a][b]`.
fn bracketed<'a>(key: &'a str, base: &str) -> Option<Vec<&'a str>> {
    let inner = key.strip_prefix(base)?.strip_prefix('[')?.strip_suffix(']')?;
    let names: Vec<_> = inner.split("][").collect();
    let plain = |name: &&str| !name.is_empty() && !name.contains(['[', ']']);
    names.iter().all(plain).then_some(names)
}
