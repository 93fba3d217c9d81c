//! Parts of addresses that routes put in place of those of requests.

use http::uri::{Authority, PathAndQuery};

use super::{InvalidObject, Problem};

/// Checks a path, or what a path begins with; empty stands for none.
pub(crate) fn path(field: &str, text: &str) -> Result<(), InvalidObject> {
    let whole = format!("/{}", text.trim_start_matches('/')).parse::<PathAndQuery>();
    if whole.is_ok() && !text.contains('#') {
        return Ok(());
    }
    let form = "a path such as /v1/items, with %20 and the like for special characters";
    Err(Problem::Form { value: text.escape_debug().to_string(), form }.at(field))
}

/// Checks a host, or a host and a port; empty stands for none.
pub(crate) fn authority(field: &str, text: &str) -> Result<(), InvalidObject> {
    if text.is_empty() || text.parse::<Authority>().is_ok() {
        return Ok(());
    }
    let form = "a host such as reviews.example.com, or reviews.example.com:8080";
    Err(Problem::Form { value: text.escape_debug().to_string(), form }.at(field))
}

/// Checks what replaces what an expression matches.
pub(super) fn substitution(field: &str, pattern: &str, text: &str) -> Result<(), InvalidObject> {
    let groups = regex_syntax::parse(pattern)
        .map_or(0, |pattern| pattern.properties().explicit_captures_len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        let is_valid = character != '\\'
            || characters.next().is_some_and(|next| {
                let group = next.to_digit(10).and_then(|group| usize::try_from(group).ok());
                next == '\\' || group.is_some_and(|group| group <= groups)
            });
        if !is_valid {
            let form = "\\1 to \\9 for groups that the expression has, and \\\\ for a backslash";
            return Err(Problem::Form { value: text.escape_debug().to_string(), form }.at(field));
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_of_addresses_are_as_clients_may_ask_for_them() {
        for (text, expected) in [
            ("/", true),
            ("/a/b?c=d", true),
            ("a", true),
            ("", true),
            ("/a%20b", true),
            ("/a b", false),
            ("/a#b", false),
            ("/a\n", false),
        ] {
            assert_eq!(path("uri", text).is_ok(), expected, "{text}");
        }
        for (text, expected) in [
            ("", true),
            ("a.b", true),
            ("a.b:80", true),
            ("[::1]:80", true),
            ("a b", false),
            ("a/b", false),
        ] {
            assert_eq!(authority("authority", text).is_ok(), expected, "{text}");
        }
    }

    #[test]
    fn groups_that_are_put_in_are_there() {
        for (pattern, text, expected) in [
            ("/a/(.*)", r"/\1", true),
            ("/a/(.*)", r"/\0", true),
            ("/a/(.*)", "/b", true),
            ("/a/(.*)/(?:x)", r"\2", false),
            ("/a", r"\1", false),
            ("/a", r"\\", true),
            ("/a", r"\", false),
            ("/a", r"\x", false),
        ] {
            let found = substitution("rewrite", pattern, text).is_ok();
            assert_eq!(found, expected, "{pattern} {text}");
        }
    }
}
