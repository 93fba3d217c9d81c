//! Why an object is refused.

use std::fmt;

/// What is wrong with an object, and where.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InvalidObject {
    /// Path of the field, such as `spec.rules[0].from[0].source.ipBlocks[1]`.
    pub field: String,
    /// What is wrong with it, and what to do about it.
    pub problem: Problem,
}

/// What is wrong with a field.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The value is of another type, or the field does not exist.
    #[error("{0}")]
    Shape(String),
    /// A required field is absent or empty.
    #[error("is missing: {0}")]
    Missing(&'static str),
    /// The name is not one that Kubernetes accepts.
    #[error("\"{0}\" is not a name: use lower-case letters, digits, '-' and '.'")]
    Name(String),
    /// The value is not an IP address.
    #[error("\"{0}\" is not an IP address: use one such as 10.0.0.1 or fd00::1")]
    Address(String),
    /// The value is neither an IP address nor a range of them.
    #[error("\"{0}\" is not an IP address or range: use one such as 10.0.0.1 or 10.0.0.0/8")]
    Range(String),
    /// The value is not a TCP port.
    #[error("\"{0}\" is not a port: use 1 to 65535")]
    Port(String),
    /// The value is not one of those that exist.
    #[error("\"{value}\" is not known: use one of {known}")]
    Unknown {
        /// The value.
        value: String,
        /// Those that exist.
        known: &'static str,
    },
    /// The value has the wrong form.
    #[error("\"{value}\" is not valid: use {form}")]
    Form {
        /// The value.
        value: String,
        /// The right form.
        form: &'static str,
    },
    /// Two fields contradict each other.
    #[error("does not go together with {0}: remove one of them")]
    Conflict(&'static str),
    /// The field needs another one.
    #[error("needs {0}: add it, or remove this field")]
    Needs(&'static str),
    /// An earlier element has the same value.
    #[error("\"{0}\" is listed twice: remove one of the entries")]
    Duplicate(String),
    /// A list is too long.
    #[error("has {count} entries: use at most {max}")]
    TooMany {
        /// Its length.
        count: usize,
        /// The greatest length accepted.
        max: usize,
    },
}

// === impl InvalidObject ===

impl InvalidObject {
    /// Returns the error with its path seen from the object that holds `field`.
    #[must_use]
    pub fn within(mut self, field: &str) -> Self {
        let dot = if self.field.is_empty() || self.field.starts_with('[') { "" } else { "." };
        self.field.insert_str(0, dot);
        self.field.insert_str(0, field);
        self
    }
}

impl fmt::Display for InvalidObject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { field, problem } = self;
        write!(f, "{field}: {problem}")
    }
}

impl std::error::Error for InvalidObject {}

// === impl Problem ===

impl Problem {
    /// Returns the problem as an error about `field`.
    pub fn at(self, field: &str) -> InvalidObject {
        InvalidObject { field: field.to_owned(), problem: self }
    }
}

/// Checks each element of the list in `field`.
pub(super) fn each<T>(
    field: &str,
    elements: &[T],
    check: impl Fn(&T) -> Result<(), InvalidObject>,
) -> Result<(), InvalidObject> {
    for (i, element) in elements.iter().enumerate() {
        check(element).map_err(|error| error.within(&format!("{field}[{i}]")))?;
    }
    Ok(())
}
