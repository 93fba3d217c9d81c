//! Secrets, as far as they are for TLS with endpoints.

use std::fmt;

use bytes::Bytes;
use serde_json::{Map, Value};

use super::{InvalidObject, Metadata, Problem, validate::traffic::base64};

/// Types of secrets that are for something else; a cluster may have many of them.
pub(crate) const UNUSED_TYPES: [&str; 2] =
    ["helm.sh/release.v1", "kubernetes.io/service-account-token"];

/// Largest value, in bytes, as Kubernetes limits a secret.
const MAX_VALUE_BYTES: usize = 1024 * 1024;

/// Keys of a certificate and of its private key, those that win first.
const PAIRS: [[&str; 2]; 2] = [["cert", "key"], ["tls.crt", "tls.key"]];
/// Keys of roots, the one that wins first.
const ROOTS: [&str; 2] = ["cacert", "ca.crt"];
/// Keys of lists of revoked certificates, the one that wins first.
const REVOCATION_LISTS: [&str; 2] = ["crl", "ca.crl"];

/// A secret. What it holds under other keys is not kept, and nothing of it is shown.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Secret {
    /// Its metadata.
    pub metadata: Metadata,
    /// A certificate with its chain, and the private key.
    pub pair: Option<(Bytes, Bytes)>,
    /// Roots.
    pub roots: Option<Bytes>,
    /// Lists of revoked certificates.
    pub revocation_list: Option<Bytes>,
}

/// Values of a secret as they are written.
struct Values<'a> {
    /// In Base64.
    data: Option<&'a Map<String, Value>>,
    /// As they are; these win.
    plain: Option<&'a Map<String, Value>>,
}

// === impl Secret ===

impl Secret {
    /// Reads a secret. Errors tell of no value.
    pub(super) fn read(metadata: Metadata, value: &Value) -> Result<Self, InvalidObject> {
        let values = Values { data: map(value, "data")?, plain: map(value, "stringData")? };
        let [generic, typed] = PAIRS.map(|keys| values.pair(keys));
        let pair = generic?.or(typed?);
        let (roots, revocation_list) = (values.first(ROOTS)?, values.first(REVOCATION_LISTS)?);
        Ok(Self { metadata, pair, roots, revocation_list })
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Secret").field("metadata", &self.metadata).finish_non_exhaustive()
    }
}

// === impl Values ===

impl Values<'_> {
    /// Returns the values of two keys, if both have one.
    fn pair(&self, keys: [&str; 2]) -> Result<Option<(Bytes, Bytes)>, InvalidObject> {
        let [first, second] = keys.map(|key| self.get(key));
        Ok(first?.zip(second?))
    }

    /// Returns the value of the first of these keys that has one.
    fn first(&self, keys: [&str; 2]) -> Result<Option<Bytes>, InvalidObject> {
        let [first, second] = keys.map(|key| self.get(key));
        Ok(first?.or(second?))
    }

    /// Returns the value of a key; an empty one is none.
    fn get(&self, key: &str) -> Result<Option<Bytes>, InvalidObject> {
        let plain = text(self.plain, "stringData", key)?.map(Bytes::copy_from_slice);
        let value = match (plain, text(self.data, "data", key)?) {
            (Some(plain), _) => plain,
            (None, Some(encoded)) => decoded(encoded)
                .ok_or_else(|| shape("is not Base64: encode it, or use stringData", "data", key))?,
            (None, None) => return Ok(None),
        };
        if value.len() > MAX_VALUE_BYTES {
            let problem = format!("has {} bytes: use at most {MAX_VALUE_BYTES}", value.len());
            return Err(shape(&problem, "data", key));
        }
        Ok((!value.is_empty()).then_some(value))
    }
}

/// Returns a mapping of the object, if it is there. No message of a parser may quote it.
fn map<'a>(value: &'a Value, field: &str) -> Result<Option<&'a Map<String, Value>>, InvalidObject> {
    let Some(value) = value.get(field).filter(|value| !value.is_null()) else { return Ok(None) };
    let problem = || Problem::Shape("is not a mapping: write KEY: VALUE".into()).at(field);
    value.as_object().map(Some).ok_or_else(problem)
}

fn text<'a>(
    values: Option<&'a Map<String, Value>>,
    field: &str,
    key: &str,
) -> Result<Option<&'a [u8]>, InvalidObject> {
    let value = values.and_then(|values| values.get(key)).filter(|value| !value.is_null());
    let text = value.map(|value| value.as_str().ok_or_else(|| shape("is not text", field, key)));
    Ok(text.transpose()?.map(str::as_bytes))
}

fn decoded(encoded: &[u8]) -> Option<Bytes> {
    // In YAML it may be written in lines.
    let encoded: Vec<u8> = encoded.iter().copied().filter(|b| !b.is_ascii_whitespace()).collect();
    base64(std::str::from_utf8(&encoded).ok()?).map(Bytes::from)
}

fn shape(problem: &str, field: &str, key: &str) -> InvalidObject {
    Problem::Shape(problem.to_owned()).at(&format!("{field}.{key}"))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn secret(data: &Value, plain: &Value) -> Result<Secret, InvalidObject> {
        let written = json!({ "data": data, "stringData": plain });
        Secret::read(Metadata::default(), &written)
    }

    #[test]
    fn keys_are_those_of_istio_and_the_generic_ones_win() {
        let bytes = |text: &str| Some(Bytes::copy_from_slice(text.as_bytes()));
        let pair = |certificate, key| bytes(certificate).zip(bytes(key));
        for (data, plain, expected) in [
            (json!({ "tls.crt": "Yw==", "tls.key": "aw==" }), json!({}), pair("c", "k")),
            (json!({}), json!({ "cert": "c", "key": "k" }), pair("c", "k")),
            (
                json!({ "tls.crt": "Yw==", "tls.key": "aw==" }),
                json!({ "cert": "d", "key": "l" }),
                pair("d", "l"),
            ),
            (
                json!({ "tls.crt": "Yw==", "tls.key": "aw==" }),
                json!({ "cert": "d" }),
                pair("c", "k"),
            ),
            (json!({ "tls.crt": "Yw==\n", "tls.key": "a w==" }), json!(null), pair("c", "k")),
            (
                json!({ "tls.crt": "Yw==" }),
                json!({ "tls.crt": "d", "tls.key": "k" }),
                pair("d", "k"),
            ),
            (json!({ "tls.crt": "Yw==", "tls.key": "" }), json!({}), None),
            (json!({ "tls.crt": "Yw==", "key": "aw==" }), json!({}), None),
            (json!({ "other": 7 }), json!({}), None),
        ] {
            let read = secret(&data, &plain).unwrap();
            assert_eq!(read.pair, expected, "{data} {plain}");
        }
        let plain = json!({ "ca.crt": "r", "crl": "l" });
        let read = secret(&json!({}), &plain).unwrap();
        assert_eq!((read.roots, read.revocation_list), (bytes("r"), bytes("l")));
        let plain = json!({ "ca.crt": "r", "cacert": "g", "ca.crl": "l" });
        let read = secret(&json!({}), &plain).unwrap();
        assert_eq!((read.roots, read.revocation_list), (bytes("g"), bytes("l")));
    }

    #[test]
    fn neither_errors_nor_debugging_show_a_value() {
        for (data, plain, expected) in [
            (
                json!({ "tls.key": "hush!" }),
                json!({}),
                "data.tls.key: is not Base64: encode it, or use stringData",
            ),
            (json!("hush"), json!({}), "data: is not a mapping: write KEY: VALUE"),
            (json!({}), json!({ "key": 4711 }), "stringData.key: is not text"),
            (
                json!({}),
                json!({ "key": "x".repeat(MAX_VALUE_BYTES + 1) }),
                "data.key: has 1048577 bytes: use at most 1048576",
            ),
        ] {
            assert_eq!(secret(&data, &plain).unwrap_err().to_string(), expected);
        }
        let read = secret(&json!({}), &json!({ "cert": "hush", "key": "hush" })).unwrap();
        assert!(!format!("{read:?}").contains("hush"));
    }
}
