//! What is wrong with a resource, and where in it.

use std::fmt;

/// A resource that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {problem}")]
pub struct Invalid {
    /// Path of the field, such as `http.match.headers[2].value`.
    pub field: String,
    /// What is wrong with it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// It has to be there.
    #[error("is missing")]
    Missing,
    /// Its number stands for nothing known here.
    #[error("{0} is not known")]
    Unknown(i32),
    /// It is not a namespace.
    #[error("is not a namespace")]
    Namespace,
    /// It is not a port number.
    #[error("{0} is not a port")]
    Port(u32),
    /// It is not a status that may be answered here.
    #[error("{0} is not a status that can be answered here")]
    Status(u32),
    /// It is a share of more than everything.
    #[error("{0} is more than a million")]
    Share(u32),
    /// It is negative, or its nanoseconds are.
    #[error("is not a period of time")]
    Duration,
    /// It is not the name of a header.
    #[error("\"{0}\" is not the name of a header that can be changed")]
    HeaderName(String),
    /// It holds characters that headers must not.
    #[error("holds characters that a header must not")]
    HeaderValue,
    /// It is not a URI's scheme, authority or path.
    #[error("\"{0}\" cannot be part of a URI")]
    Uri(String),
    /// It is a regular expression that cannot be used.
    #[error("is not a regular expression: {0}")]
    Regex(String),
    /// It is longer than allowed.
    #[error("{length} exceeds the limit of {limit}")]
    TooLong {
        /// What it measures.
        length: usize,
        /// What it may.
        limit: usize,
    },
    /// It names a group that the regular expression does not have.
    #[error("names group {0}, which the pattern does not have")]
    Group(usize),
    /// It replaces what the match matched of the path, and the match says no such thing.
    #[error("replaces a prefix, and the path is matched by a regular expression")]
    NoPrefix,
    /// It names a property of requests that does not exist.
    #[error("\"{0}\" is not a property of a request")]
    Formatter(String),
    /// It is not a prefix of addresses.
    #[error("\"{0}\" is not a range of addresses")]
    Network(String),
    /// It is not a template of paths.
    #[error("\"{0}\" is not a template of paths")]
    Template(String),
    /// It is not the key of a condition.
    #[error("\"{0}\" is not the key of a condition")]
    ConditionKey(String),
    /// The sum of the shares is not a number that can be drawn from.
    #[error("the shares add up to too much")]
    Weights,
}

/// Names the field that a problem is in, from the innermost outwards.
pub(crate) trait At<T> {
    /// Puts the problem into a field.
    fn at(self, field: &'static str) -> Result<T, Invalid>;

    /// Puts the problem into an element of a field.
    fn at_index(self, field: &'static str, index: usize) -> Result<T, Invalid>;
}

// === impl Invalid ===

impl Invalid {
    fn within(self, parent: impl fmt::Display) -> Self {
        let field = match self.field.as_str() {
            "" => parent.to_string(),
            inner => format!("{parent}.{inner}"),
        };
        Self { field, problem: self.problem }
    }
}

impl From<Problem> for Invalid {
    fn from(problem: Problem) -> Self {
        Self { field: String::new(), problem }
    }
}

// === impl At ===

impl<T, E: Into<Invalid>> At<T> for Result<T, E> {
    fn at(self, field: &'static str) -> Result<T, Invalid> {
        self.map_err(|problem| problem.into().within(field))
    }

    fn at_index(self, field: &'static str, index: usize) -> Result<T, Invalid> {
        self.map_err(|problem| problem.into().within(format_args!("{field}[{index}]")))
    }
}

/// Compiles each element of a list.
pub(crate) fn each<A, B, E: Into<Invalid>>(
    list: impl IntoIterator<Item = A>,
    field: &'static str,
    mut compile: impl FnMut(A) -> Result<B, E>,
) -> Result<Box<[B]>, Invalid> {
    list.into_iter()
        .enumerate()
        .map(|(index, element)| compile(element).at_index(field, index))
        .collect()
}
