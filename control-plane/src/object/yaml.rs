//! YAML as values to [`read`](super::read()); JSON is YAML, too.

use serde_json::Value;
use serde_saphyr::{Error, Options, UserMessageFormatter, budget, options};

/// Deepest nesting of a document; objects of Kubernetes are far from it.
const MAX_DEPTH: usize = 64;
/// Fewest bytes that a node of a document takes, with what separates it from others: a longer text
/// may have more nodes.
const BYTES_PER_NODE: usize = 2;
/// Nodes that a text of any length may have.
const MIN_NODES: usize = 1024;

/// Returns the documents of a text that are not empty.
pub(crate) fn documents(text: &str) -> Vec<Result<Value, String>> {
    let mut reader = text.as_bytes();
    let options = parser_options(text.len());
    let values = serde_saphyr::read_with_options::<_, Value>(&mut reader, options);
    values.map(|value| value.map_err(|error| message(&error))).collect()
}

fn parser_options(bytes: usize) -> Options {
    let nodes = (bytes / BYTES_PER_NODE).max(MIN_NODES);
    options! {
        budget: budget! {
            max_nodes: nodes,
            max_events: 2 * nodes,
            max_total_scalar_bytes: bytes.max(MIN_NODES),
            max_documents: nodes,
            max_depth: MAX_DEPTH,
        },
        // As in YAML 1.2: `no` is a name, not a truth value.
        strict_booleans: true,
        with_snippet: false,
    }
}

fn message(error: &Error) -> String {
    error.render_with_formatter(&UserMessageFormatter)
}
