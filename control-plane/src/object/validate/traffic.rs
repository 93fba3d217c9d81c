//! What virtual services and destination rules have alike.

use std::{collections::HashSet, ops::RangeInclusive, time::Duration};

use mesh_api::crd::Time;

use super::{InvalidObject, Problem};

/// Longest expression, in characters, as the API limits it.
const MAX_EXPRESSION: usize = 1024;

/// Shortest time, as the API limits it.
const MIN_TIME: Duration = Duration::from_millis(1);

/// Statuses of gRPC, in the order of their numbers.
const GRPC_STATUSES: [&str; 17] = [
    "OK",
    "CANCELLED",
    "UNKNOWN",
    "INVALID_ARGUMENT",
    "DEADLINE_EXCEEDED",
    "NOT_FOUND",
    "ALREADY_EXISTS",
    "PERMISSION_DENIED",
    "RESOURCE_EXHAUSTED",
    "FAILED_PRECONDITION",
    "ABORTED",
    "OUT_OF_RANGE",
    "UNIMPLEMENTED",
    "INTERNAL",
    "UNAVAILABLE",
    "DATA_LOSS",
    "UNAUTHENTICATED",
];

/// Checks the namespaces that see an object.
pub(super) fn export_to(namespaces: &[String]) -> Result<(), InvalidObject> {
    let mut seen = HashSet::new();
    for (i, namespace) in namespaces.iter().enumerate() {
        let field = format!("exportTo[{i}]");
        if !seen.insert(namespace) {
            return Err(Problem::Duplicate(namespace.clone()).at(&field));
        }
        if matches!(namespace.as_str(), "*" | "~") && namespaces.len() > 1 {
            return Err(Problem::Conflict("other namespaces").at(&field));
        }
    }
    Ok(())
}

/// Checks a time, for which 0 has a meaning.
pub(super) fn times(field: &str, given: Option<Time>) -> Result<(), InvalidObject> {
    match given {
        Some(Time(Duration::ZERO)) | None => Ok(()),
        Some(given) => time(field, given),
    }
}

/// Checks a time.
pub(super) fn time(field: &str, Time(given): Time) -> Result<(), InvalidObject> {
    if given >= MIN_TIME {
        return Ok(());
    }
    Err(Problem::Form { value: format!("{given:?}"), form: "1ms or longer" }.at(field))
}

/// Checks a status.
pub(super) fn status(
    field: &str,
    code: u32,
    valid: RangeInclusive<u32>,
) -> Result<(), InvalidObject> {
    if valid.contains(&code) {
        return Ok(());
    }
    let form = match valid.start() {
        300 => "a status from 300 to 399",
        _ => "a status from 200 to 599",
    };
    Err(Problem::Form { value: code.to_string(), form }.at(field))
}

/// Checks the shares of destinations.
pub(super) fn weights(
    field: &str,
    weights: impl Iterator<Item = i64>,
) -> Result<(), InvalidObject> {
    let (mut count, mut sum) = (0, 0_u64);
    for (i, weight) in weights.enumerate() {
        let Ok(weight) = u32::try_from(weight) else {
            let value = weight.to_string();
            let path = format!("{field}[{i}].weight");
            return Err(Problem::Form { value, form: "0 or a greater number" }.at(&path));
        };
        sum += u64::from(weight);
        count += 1;
    }
    if count > 1 && sum == 0 {
        let missing = "give at least one destination a weight greater than 0";
        return Err(Problem::Missing(missing).at(&format!("{field}[0].weight")));
    }
    Ok(())
}

/// Checks an expression.
pub(super) fn expression(field: &str, text: &str) -> Result<(), InvalidObject> {
    if text.is_empty() {
        return Err(Problem::Missing("write an expression").at(field));
    }
    if is_expression(text) {
        return Ok(());
    }
    let form = "an expression of RE2 with at most 1024 characters";
    Err(Problem::Form { value: text.escape_debug().to_string(), form }.at(field))
}

/// Returns whether a text is an expression that waypoints take.
pub(crate) fn is_expression(text: &str) -> bool {
    text.chars().count() <= MAX_EXPRESSION && regex_syntax::parse(text).is_ok()
}

/// Returns the number of a status of gRPC.
pub(crate) fn grpc_status(text: &str) -> Option<u32> {
    let number = || text.parse().ok().filter(|number| *number < GRPC_STATUSES.len());
    let position = GRPC_STATUSES.iter().position(|name| *name == text).or_else(number)?;
    u32::try_from(position).ok()
}

/// Decodes Base64, in which JSON holds bytes.
pub(crate) fn base64(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len() / 4 * 3);
    let (mut bits, mut held) = (0_u32, 0);
    for symbol in text.trim_end_matches('=').bytes() {
        let value = match symbol {
            b'A'..=b'Z' => symbol - b'A',
            b'a'..=b'z' => symbol - b'a' + 26,
            b'0'..=b'9' => symbol - b'0' + 52,
            b'+' | b'-' => 62,
            b'/' | b'_' => 63,
            _ => return None,
        };
        bits = bits << 6 | u32::from(value);
        held += 6;
        if held >= 8 {
            held -= 8;
            bytes.push(u8::try_from(bits >> held & 0xff).ok()?);
        }
    }
    Some(bytes)
}
