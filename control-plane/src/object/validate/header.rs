//! Names and values of headers.

use mesh_api::{
    crd::{HeaderOperations, VirtualHeaders},
    l7::{FRAMING_HEADERS, PROPERTIES, PROPERTIES_WITH_ARGUMENT},
};

use super::{InvalidObject, Problem};

/// What names of headers look like.
pub(super) const FORM: &str = "letters, digits and '-', as in x-user";
const NOT_FRAMING: &str = "another header, as only proxies say where a message ends";
const TEMPLATE: &str = "%REQ(x-user)% and the like for what is known of a request, and %% for %";

/// Whose headers are changed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Whose {
    /// Those of requests, whose authority may be changed like a header.
    Request,
    /// Those of responses.
    Response,
}

/// Checks changes of headers of requests and responses.
pub(super) fn check(headers: Option<&VirtualHeaders>) -> Result<(), InvalidObject> {
    let Some(VirtualHeaders { request, response }) = headers else { return Ok(()) };
    operations(request, Whose::Request).map_err(|error| error.within("headers.request"))?;
    operations(response, Whose::Response).map_err(|error| error.within("headers.response"))
}

fn operations(operations: &HeaderOperations, whose: Whose) -> Result<(), InvalidObject> {
    for (field, texts) in [("set", &operations.set), ("add", &operations.add)] {
        for (name, value) in texts {
            may_write(name, whose).map_err(|problem| problem.at(field))?;
            let checked = is_value(value).and_then(|()| is_template(value));
            checked.map_err(|problem| problem.at(&format!("{field}.{name}")))?;
        }
    }
    operations
        .remove
        .iter()
        .try_for_each(|name| may_remove(name).map_err(|problem| problem.at("remove")))
}

/// Checks that a route may set or add a header.
pub(crate) fn may_write(name: &str, whose: Whose) -> Result<(), Problem> {
    if whose == Whose::Request && is_authority(name) {
        return Ok(());
    }
    may_remove(name)
}

/// Checks that a route may remove a header.
pub(crate) fn may_remove(name: &str) -> Result<(), Problem> {
    let refused = |form| Err(Problem::Form { value: name.escape_debug().to_string(), form });
    if !is_token(name) || is_authority(name) {
        return refused(FORM);
    }
    if FRAMING_HEADERS.iter().any(|framing| framing.eq_ignore_ascii_case(name)) {
        return refused(NOT_FRAMING);
    }
    Ok(())
}

/// Returns whether a text is the name of a header.
pub(super) fn is_token(name: &str) -> bool {
    let valid = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(valid)
}

/// Checks that a text can be the value of a header.
pub(crate) fn is_value(value: &str) -> Result<(), Problem> {
    if !value.chars().any(|c| c.is_ascii_control() && c != '\t') {
        return Ok(());
    }
    let value = value.escape_debug().to_string();
    Err(Problem::Form { value, form: "printable characters" })
}

/// Checks that a text names only properties that there are.
fn is_template(text: &str) -> Result<(), Problem> {
    let mut rest = text;
    while let Some((_, special)) = rest.split_once('%') {
        let after = special.strip_prefix('%').or_else(|| after_property(special));
        let Some(after) = after else {
            let value = text.escape_debug().to_string();
            return Err(Problem::Form { value, form: TEMPLATE });
        };
        rest = after;
    }
    Ok(())
}

/// Returns what follows a property and the percent sign that ends it; none if it is not known.
fn after_property(text: &str) -> Option<&str> {
    // An argument may hold percent signs of its own: `%START_TIME(%Y)%`.
    let (name, rest) = text.split_at(text.find(['(', ':', '%'])?);
    let (is_known, rest) = match rest.strip_prefix('(') {
        Some(inner) => (PROPERTIES_WITH_ARGUMENT.contains(&name), inner.split_once(')')?.1),
        None => (PROPERTIES.contains(&name), rest),
    };
    let (length, rest) = rest.split_once('%')?;
    let is_length = length.strip_prefix(':').is_some_and(|length| length.parse::<u32>().is_ok());
    (is_known && (length.is_empty() || is_length)).then_some(rest)
}

fn is_authority(name: &str) -> bool {
    name.eq_ignore_ascii_case("host") || name == ":authority"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_name_properties_that_there_are() {
        for (value, expected) in [
            ("", true),
            ("plain", true),
            ("100%%", true),
            ("%PROTOCOL%", true),
            ("a%REQ(x-user)%b%RESP(x)%", true),
            ("%REQ(x?y):20%", true),
            ("t=%START_TIME(%s.%3f)%", true),
            ("%START_TIME%", true),
            ("100%", false),
            ("50% and 50%", false),
            ("%REQ%", false),
            ("%REQ(x%", false),
            ("%PROTOCOL(x)%", false),
            ("%PROTOCOL:x%", false),
            ("%DYNAMIC_METADATA(a:b)%", false),
        ] {
            assert_eq!(is_template(value).is_ok(), expected, "{value}");
        }
    }

    #[test]
    fn what_frames_a_message_is_not_for_routes_to_change() {
        for (name, [request, response, removed]) in [
            ("x-user", [true; 3]),
            ("X-User", [true; 3]),
            ("host", [true, false, false]),
            ("Host", [true, false, false]),
            (":authority", [true, false, false]),
            (":path", [false; 3]),
            ("", [false; 3]),
            ("a b", [false; 3]),
            ("Connection", [false; 3]),
            ("content-length", [false; 3]),
            ("te", [false; 3]),
        ] {
            assert_eq!(may_write(name, Whose::Request).is_ok(), request, "{name}");
            assert_eq!(may_write(name, Whose::Response).is_ok(), response, "{name}");
            assert_eq!(may_remove(name).is_ok(), removed, "{name}");
        }
    }
}
