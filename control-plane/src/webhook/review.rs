//! Reviews of objects, as bytes in and out: pure.

use serde::Deserialize;
use serde_json::{Value, json, value::RawValue};

use crate::{
    mesh::{Event, Mesh, Options},
    object::{self, Object, Read},
};

/// Most warnings of an object: people read a few, and API servers cut off many.
const MAX_WARNINGS: usize = 16;

/// Longest warning, in characters; an API server cuts off longer ones.
const MAX_WARNING_CHARS: usize = 250;

/// Stands for what an API server appends to `generateName` after the review.
const GENERATED_SUFFIX: &str = "00000";

/// Reviews objects by themselves, as if there were no others.
#[derive(Debug)]
pub(super) struct Reviewer {
    options: Options,
}

/// What came of a review.
#[derive(Debug)]
pub(super) struct Verdict {
    /// What the object is called, for the log.
    pub(super) object: String,
    /// Why it is refused, if it is.
    pub(super) refusal: Option<String>,
    uid: String,
    warnings: Vec<String>,
}

/// A request that is no review.
#[derive(Debug, thiserror::Error)]
pub(super) enum InvalidReview {
    /// It has another form.
    #[error("not an AdmissionReview: {0}")]
    Form(#[from] serde_json::Error),
    /// It is of another version.
    #[error("only AdmissionReview of admission.k8s.io/v1 is understood")]
    Version,
}

// Objects are kept as text, so that one that cannot be read is refused and not the whole review.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Review<'a> {
    api_version: String,
    kind: String,
    #[serde(borrow)]
    request: Asked<'a>,
}

#[derive(Deserialize)]
struct Asked<'a> {
    uid: String,
    #[serde(default)]
    namespace: String,
    #[serde(default)]
    name: String,
    #[serde(borrow, default)]
    object: Option<&'a RawValue>,
}

// === impl Reviewer ===

impl Reviewer {
    pub(super) fn new(options: Options) -> Self {
        Self { options }
    }

    pub(super) fn review(&self, body: &[u8]) -> Result<Verdict, InvalidReview> {
        let review: Review<'_> = serde_json::from_slice(body)?;
        if review.api_version != "admission.k8s.io/v1" || review.kind != "AdmissionReview" {
            return Err(InvalidReview::Version);
        }
        let Asked { uid, namespace, name, object } = review.request;
        let (warnings, refusal) = match object.map(|object| self.judge(object.get(), &namespace)) {
            // What is deleted has none.
            None => (Vec::new(), None),
            Some(Ok(warnings)) => (warnings, None),
            Some(Err(refusal)) => (Vec::new(), Some(refusal)),
        };
        Ok(Verdict { object: format!("{namespace}/{name}"), refusal, uid, warnings })
    }

    /// Returns what to warn of, or why the object is refused.
    fn judge(&self, object: &str, namespace: &str) -> Result<Vec<String>, String> {
        let mut value: Value =
            serde_json::from_str(object).map_err(|error| format!("it cannot be read: {error}"))?;
        complete(&mut value, namespace);
        match object::read(value) {
            Ok(Read::Object(object)) => Ok(self.warnings(object)),
            Ok(Read::Other(_) | Read::List(_)) => Ok(Vec::new()),
            Err(error) => Err(error.to_string()),
        }
    }

    fn warnings(&self, object: Object) -> Vec<String> {
        let mut mesh = Mesh::new(self.options.clone());
        mesh.apply(vec![Event::Applied(object)]);
        let warnings = mesh.warnings().into_values().flatten();
        warnings
            .filter(|warning| !warning.depends_on_others())
            .take(MAX_WARNINGS)
            .map(|warning| warning.to_string().chars().take(MAX_WARNING_CHARS).collect())
            .collect()
    }
}

/// Adds what an API server adds after the review.
fn complete(object: &mut Value, namespace: &str) {
    let Some(metadata) = object.get_mut("metadata").and_then(Value::as_object_mut) else { return };
    let has = |field: &str| metadata.get(field).is_some_and(|value| value != "");
    let prefix = metadata.get("generateName").and_then(Value::as_str);
    let name = prefix.filter(|_| !has("name")).map(|prefix| format!("{prefix}{GENERATED_SUFFIX}"));
    let namespace = (!has("namespace") && !namespace.is_empty()).then_some(namespace);
    if let Some(name) = name {
        metadata.insert("name".to_owned(), name.into());
    }
    if let Some(namespace) = namespace {
        metadata.insert("namespace".to_owned(), namespace.into());
    }
}

// === impl Verdict ===

impl Verdict {
    /// Returns the answer.
    pub(super) fn response(&self) -> String {
        let mut response = json!({ "uid": self.uid, "allowed": self.refusal.is_none() });
        if let Some(message) = &self.refusal {
            response["status"] = json!({ "code": 422, "reason": "Invalid", "message": message });
        }
        if !self.warnings.is_empty() {
            response["warnings"] = json!(self.warnings);
        }
        let review = json!({
            "apiVersion": "admission.k8s.io/v1",
            "kind": "AdmissionReview",
            "response": response,
        });
        review.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn policy(spec: &str) -> String {
        format!(
            r#"{{"apiVersion": "security.istio.io/v1", "kind": "AuthorizationPolicy",
            "metadata": {{"name": "p", "namespace": "shop"}}, "spec": {spec}}}"#
        )
    }

    fn review(object: &str) -> Value {
        let body = format!(
            r#"{{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "request":
            {{"uid": "7", "operation": "CREATE", "namespace": "shop", "name": "p",
            "object": {object}, "oldObject": null}}}}"#
        );
        let verdict = Reviewer::new(Options::default()).review(body.as_bytes()).unwrap();
        serde_json::from_str(&verdict.response()).unwrap()
    }

    fn refusal(object: &str) -> String {
        let response = &review(object)["response"];
        assert_eq!(response["allowed"], false, "{response}");
        assert_eq!(response["uid"], "7");
        response["status"]["message"].as_str().unwrap().to_owned()
    }

    #[test]
    fn a_good_object_passes_and_what_is_none_of_ours() {
        for object in [
            policy(r#"{"rules": [{}]}"#),
            policy(r#"{"rules": [{}]}"#).replace(r#""name": "p""#, r#""generateName": "p-""#),
            r#"{"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "x"}}"#.to_owned(),
            "null".to_owned(),
        ] {
            assert_eq!(review(&object)["response"], json!({ "uid": "7", "allowed": true }));
        }
    }

    #[test]
    fn what_is_wrong_is_said_with_its_field() {
        let invalid = policy(r#"{"action": "MAYBE"}"#);
        assert!(refusal(&invalid).starts_with("spec.action: "), "{}", refusal(&invalid));
        let source = r#"{"rules": [{"from": [{"source": {"ipBlocks": ["10.0.0.0/99"]}}]}]}"#;
        let message = refusal(&policy(source));
        assert!(message.starts_with("spec.rules[0].from[0].source.ipBlocks[0]: "), "{message}");
    }

    #[test]
    fn what_does_not_do_what_it_seems_to_is_warned_of() {
        let at_waypoint = policy(r#"{"rules": [{"to": [{"operation": {"methods": ["GET"]}}]}]}"#);
        let response = &review(&at_waypoint)["response"];
        assert_eq!(response["allowed"], true);
        let warning = response["warnings"][0].as_str().unwrap();
        assert!(warning.contains("methods") && warning.contains("waypoint"), "{warning}");
        // That nothing else is there yet says nothing about the object.
        let selects = policy(r#"{"selector": {"matchLabels": {"app": "a"}}, "rules": [{}]}"#);
        assert_eq!(review(&selects)["response"]["warnings"], Value::Null);
    }

    #[test]
    fn a_hostile_object_is_refused_and_answered() {
        let deep = policy(&format!("{}1{}", "[".repeat(100_000), "]".repeat(100_000)));
        assert!(refusal(&deep).contains("recursion limit"), "{}", refusal(&deep));
        let blocks = vec![r#""10.0.0.0/8""#; 90_000].join(",");
        let large = policy(&format!(
            r#"{{"rules": [{{"from": [{{"source": {{"ipBlocks": [{blocks}]}}}}]}}]}}"#
        ));
        assert!(large.len() > 1 << 20);
        assert!(refusal(&large).contains("90000 entries"), "{}", refusal(&large));
        for odd in ["[]", "1", r#""x""#, r#"{"metadata": 1, "kind": "Service"}"#] {
            refusal(odd);
        }
    }

    #[test]
    fn what_is_no_review_is_said_to_be_none() {
        let reviewer = Reviewer::new(Options::default());
        for body in [
            "",
            "{}",
            "[1]",
            r#"{"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview"}"#,
            r#"{"apiVersion": "admission.k8s.io/v1beta1", "kind": "AdmissionReview", "request": {"uid": "1"}}"#,
        ] {
            assert!(reviewer.review(body.as_bytes()).is_err(), "{body}");
        }
    }
}
