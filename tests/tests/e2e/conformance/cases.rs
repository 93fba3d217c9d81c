//! A request, and what has to become of it.

use super::{
    Sender,
    scene::{Answer, url},
};

/// A request, and what has to become of it.
#[derive(Clone, Debug, Default)]
pub(super) struct Case {
    pub(super) sender: Sender,
    url: String,
    headers: Vec<(&'static str, &'static str)>,
    options: Vec<&'static str>,
    status: u16,
    backend: Option<&'static str>,
    /// Path that arrives.
    path: Option<&'static str>,
    arrives: Vec<(&'static str, &'static str)>,
    does_not_arrive: Vec<&'static str>,
    answered: Vec<(&'static str, &'static str)>,
    not_answered: Vec<&'static str>,
}

/// Returns a request to a service, such as `echo/v2`, which has to be answered with 200.
pub(super) fn get(target: &str) -> Case {
    let (service, path) = target.split_at(target.find('/').unwrap_or(target.len()));
    Case { url: url(service, path), status: 200, ..Case::default() }
}

// === impl Case ===

impl Case {
    /// Has a client of another namespace send it.
    pub(super) fn sent_by_consumer(self) -> Self {
        Self { sender: Sender::Consumer, ..self }
    }

    /// Sends a header.
    pub(super) fn header(mut self, name: &'static str, value: &'static str) -> Self {
        self.headers.push((name, value));
        self
    }

    /// Gives curl further options.
    pub(super) fn with(mut self, options: &[&'static str]) -> Self {
        self.options.extend(options);
        self
    }

    /// Wants a status.
    pub(super) fn status(self, status: u16) -> Self {
        Self { status, ..self }
    }

    /// Wants a version to answer.
    pub(super) fn at(self, backend: &'static str) -> Self {
        Self { backend: Some(backend), ..self }
    }

    /// Wants a path to arrive.
    pub(super) fn path(self, path: &'static str) -> Self {
        Self { path: Some(path), ..self }
    }

    /// Wants a header to arrive; several of one name as one, with commas.
    pub(super) fn arrives(mut self, name: &'static str, value: &'static str) -> Self {
        self.arrives.push((name, value));
        self
    }

    /// Wants a header not to arrive.
    pub(super) fn does_not_arrive(mut self, name: &'static str) -> Self {
        self.does_not_arrive.push(name);
        self
    }

    /// Wants a header in the answer.
    pub(super) fn answered(mut self, name: &'static str, value: &'static str) -> Self {
        self.answered.push((name, value));
        self
    }

    /// Wants no such header in the answer.
    pub(super) fn not_answered(mut self, name: &'static str) -> Self {
        self.not_answered.push(name);
        self
    }

    /// Wants to be sent elsewhere.
    pub(super) fn redirected(self, status: u16, location: &'static str) -> Self {
        self.status(status).answered("location", location)
    }

    /// Returns the options of curl that send the request.
    pub(super) fn options(&self) -> Vec<String> {
        let headers = self.headers.iter();
        let headers =
            headers.flat_map(|(name, value)| ["-H".to_owned(), format!("{name}: {value}")]);
        let options = self.options.iter().map(|&option| option.to_owned());
        headers.chain(options).chain([self.url.clone()]).collect()
    }

    /// Returns whether an answer is as it has to be.
    pub(super) fn is_met_by(&self, answer: &Answer) -> bool {
        let arrived = answer.arrived.as_ref();
        let header = |name: &str| arrived.and_then(|arrived| arrived.headers.get(name));
        let answered = |name: &str| answer.headers.get(name);
        answer.status == self.status
            && self.backend.is_none_or(|backend| answer.pod() == Some(backend))
            && self.path.is_none_or(|path| arrived.is_some_and(|arrived| arrived.path == path))
            && self.arrives.iter().all(|(name, value)| header(name).is_some_and(|v| v == value))
            && self.does_not_arrive.iter().all(|name| arrived.is_some() && header(name).is_none())
            && self.answered.iter().all(|(name, value)| answered(name).is_some_and(|v| v == value))
            && self.not_answered.iter().all(|name| answered(name).is_none())
    }
}
