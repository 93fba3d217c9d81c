//! Regular expressions of tenants: linear in time, bounded in size.

use regex::bytes::{Regex, RegexBuilder};
use regex_syntax::{
    ParserBuilder,
    hir::{Hir, literal},
};

use super::invalid::Problem;

/// Longest pattern, in characters; what Istio allows in a route.
pub const MAX_PATTERN_CHARS: usize = 1024;

/// Size of a compiled pattern, in bytes: room for a few thousand states, so that counted repetitions
/// of everyday patterns fit and nested ones do not.
const MAX_COMPILED_BYTES: usize = 256 * 1024;

/// Size of the states that are made while a pattern is matched, in bytes, for each thread; beyond it
/// the slower matcher that needs none takes over.
const MAX_CACHE_BYTES: usize = 256 * 1024;

/// A regular expression that matches a whole value.
#[derive(Clone, Debug)]
pub(crate) struct Pattern {
    regex: Regex,
    prefix: Box<str>,
}

// === impl Pattern ===

impl Pattern {
    /// Compiles a pattern that has to match all of a value.
    pub(crate) fn whole(pattern: &str) -> Result<Self, Problem> {
        // Alone first: what is not an expression by itself must not become one between anchors.
        let prefix = required_prefix(&parse(pattern)?);
        Ok(Self { regex: compile(&format!(r"\A(?:{pattern})\z"), pattern)?, prefix })
    }

    /// Returns whether all of the value is matched.
    pub(crate) fn is_match(&self, value: &[u8]) -> bool {
        self.regex.is_match(value)
    }

    /// Returns what every value that matches begins with.
    pub(crate) fn prefix(&self) -> &str {
        &self.prefix
    }
}

/// Compiles a pattern that may match anywhere.
pub(crate) fn anywhere(pattern: &str) -> Result<Regex, Problem> {
    parse(pattern)?;
    compile(pattern, pattern)
}

fn parse(pattern: &str) -> Result<Hir, Problem> {
    let length = pattern.chars().count();
    if length > MAX_PATTERN_CHARS {
        return Err(Problem::TooLong { length, limit: MAX_PATTERN_CHARS });
    }
    let parsed = ParserBuilder::new().utf8(false).build().parse(pattern);
    parsed.map_err(|error| Problem::Regex(one_line(&error)))
}

/// Compiles with the ASCII classes of RE2, or, where the pattern has classes of other characters,
/// with those.
fn compile(anchored: &str, pattern: &str) -> Result<Regex, Problem> {
    let build = |unicode| {
        RegexBuilder::new(anchored)
            .unicode(unicode)
            .size_limit(MAX_COMPILED_BYTES)
            .dfa_size_limit(MAX_CACHE_BYTES)
            .build()
    };
    let compiled =
        if pattern.is_ascii() { build(false).or_else(|_| build(true)) } else { build(true) };
    compiled.map_err(|error| Problem::Regex(one_line(&error)))
}

fn required_prefix(pattern: &Hir) -> Box<str> {
    let mut extractor = literal::Extractor::new();
    extractor.kind(literal::ExtractKind::Prefix);
    let prefixes = extractor.extract(pattern);
    let common = prefixes.longest_common_prefix().unwrap_or_default();
    str::from_utf8(common).unwrap_or_default().into()
}

/// Returns the gist of an error that draws the pattern over several lines.
fn one_line(error: &impl ToString) -> String {
    let text = error.to_string();
    let gist = text.lines().last().unwrap_or_default();
    gist.trim_start_matches("error: ").to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pattern_matches_all_of_a_value() {
        for (pattern, value, expected) in [
            ("a|ab", "ab", true),
            ("a|ab", "abc", false),
            ("^a$", "a", true),
            (r"/v\d+/.*", "/v12/x", true),
            (r"/v\d+/.*", "/v/x", false),
            (r"\d", "٣", false),
            ("[äö]", "ö", true),
            (".", "ö", false),
            ("(?i)abc", "aBC", true),
            ("a.b", "a\nb", false),
        ] {
            let compiled = Pattern::whole(pattern).unwrap();
            assert_eq!(compiled.is_match(value.as_bytes()), expected, "{pattern} on {value}");
        }
    }

    #[test]
    fn what_every_match_begins_with_is_known() {
        for (pattern, prefix) in [
            ("/api/v1/.*", "/api/v1/"),
            ("/api/(a|b)", "/api/"),
            ("/a|/b", "/"),
            ("/ab?", "/a"),
            ("/ab*c", "/a"),
            ("(?i)/x", "/"),
            (".*", ""),
            ("(?i)abc", ""),
            ("^/api/.+", "/api/"),
        ] {
            assert_eq!(Pattern::whole(pattern).unwrap().prefix(), prefix, "{pattern}");
        }
    }

    #[test]
    fn patterns_that_cost_too_much_or_are_none_are_refused() {
        let long = "a".repeat(MAX_PATTERN_CHARS + 1);
        for pattern in ["(", "a)|(?:b", r"(\w{1,100}){1,100}", "((a{100}){100}){100}", &long] {
            assert!(Pattern::whole(pattern).is_err(), "{pattern}");
        }
        assert!(Pattern::whole(&"a".repeat(MAX_PATTERN_CHARS)).is_ok());
    }

    #[test]
    fn a_pattern_that_makes_others_backtrack_takes_linear_time() {
        let pattern = Pattern::whole("(a+)+b|(a|aa)+c").unwrap();
        // Exponential matchers do not come back from this.
        assert!(!pattern.is_match("a".repeat(100_000).as_bytes()));
    }
}
