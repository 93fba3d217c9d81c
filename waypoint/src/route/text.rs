//! How the values of a request are compared.

use mesh_api::proto::l7::{self, string_match::Kind};

use super::{
    invalid::{At, Invalid, Problem},
    pattern::Pattern,
};

/// How a text is compared.
#[derive(Clone, Debug)]
pub(crate) enum TextMatch {
    /// Equal.
    Exact(Box<str>),
    /// Begins with.
    Prefix(Box<str>),
    /// Ends with.
    Suffix(Box<str>),
    /// Is matched as a whole.
    Regex(Pattern),
    /// Is there.
    Present,
}

// === impl TextMatch ===

impl TextMatch {
    /// Returns whether a value that is there matches.
    pub(crate) fn matches(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => value == text.as_bytes(),
            Self::Prefix(text) => value.starts_with(text.as_bytes()),
            Self::Suffix(text) => value.ends_with(text.as_bytes()),
            Self::Regex(pattern) => pattern.is_match(value),
            Self::Present => true,
        }
    }

    /// Returns whether a value that is there matches, its letters in either case; for all but
    /// regular expressions, which say so themselves.
    pub(crate) fn matches_in_either_case(&self, value: &[u8]) -> bool {
        match self {
            Self::Exact(text) => value.eq_ignore_ascii_case(text.as_bytes()),
            Self::Prefix(text) => starts_with_in_either_case(value, text.as_bytes()),
            Self::Suffix(text) => value
                .len()
                .checked_sub(text.len())
                .is_some_and(|start| value[start..].eq_ignore_ascii_case(text.as_bytes())),
            Self::Regex(_) | Self::Present => self.matches(value),
        }
    }
}

impl TryFrom<l7::StringMatch> for TextMatch {
    type Error = Invalid;

    fn try_from(wire: l7::StringMatch) -> Result<Self, Invalid> {
        match wire.kind.ok_or(Problem::Missing)? {
            Kind::Exact(text) => Ok(Self::Exact(text.into())),
            Kind::Prefix(text) => Ok(Self::Prefix(text.into())),
            Kind::Suffix(text) => Ok(Self::Suffix(text.into())),
            Kind::Regex(pattern) => Pattern::whole(&pattern).map(Self::Regex).at("regex"),
            Kind::Present(true) => Ok(Self::Present),
            Kind::Present(false) => Err(Problem::Missing).at("present"),
        }
    }
}

/// Returns whether a value begins with a prefix, letters in either case.
pub(crate) fn starts_with_in_either_case(value: &[u8], prefix: &[u8]) -> bool {
    value.get(..prefix.len()).is_some_and(|start| start.eq_ignore_ascii_case(prefix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn texts_are_compared_as_they_say() {
        let table = [
            (Kind::Exact("a".into()), "a", true, true),
            (Kind::Exact("a".into()), "A", false, true),
            (Kind::Exact("a".into()), "ab", false, false),
            (Kind::Prefix("Ab".into()), "Abc", true, true),
            (Kind::Prefix("Ab".into()), "aBc", false, true),
            (Kind::Prefix("Ab".into()), "A", false, false),
            (Kind::Suffix("bC".into()), "abC", true, true),
            (Kind::Suffix("bC".into()), "aBc", false, true),
            (Kind::Suffix("bC".into()), "C", false, false),
            (Kind::Regex("a+".into()), "aa", true, true),
            (Kind::Regex("a+".into()), "AA", false, false),
            (Kind::Present(true), "", true, true),
        ];
        for (kind, value, matches, in_either_case) in table {
            let text = TextMatch::try_from(l7::StringMatch { kind: Some(kind.clone()) }).unwrap();
            assert_eq!(text.matches(value.as_bytes()), matches, "{kind:?} on {value}");
            let found = text.matches_in_either_case(value.as_bytes());
            assert_eq!(found, in_either_case, "{kind:?} on {value}, in either case");
        }
    }

    #[test]
    fn a_comparison_that_says_nothing_is_refused() {
        for kind in [None, Some(Kind::Present(false)), Some(Kind::Regex("(".into()))] {
            assert!(TextMatch::try_from(l7::StringMatch { kind }).is_err());
        }
    }
}
