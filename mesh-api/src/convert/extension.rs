//! Extensions: messages for which a resource has no field. Who does not know one passes it over.

use prost::Message;
use prost_types::Any;

use super::{InvalidField, Problem};
use crate::proto::workload::Extension;

/// Returns an extension: its name is for people, its type tells proxies what it is.
pub(super) fn of(name: &str, type_url: &str, content: &impl Message) -> Extension {
    let config = Any { type_url: type_url.to_owned(), value: content.encode_to_vec() };
    Extension { name: name.to_owned(), config: Some(config) }
}

/// Returns the content of the first extension of a type, and the path of the field that has it.
pub(super) fn content<M: Message + Default>(
    extensions: &[Extension],
    type_url: &str,
) -> Result<Option<(M, String)>, InvalidField> {
    let configs = extensions.iter().map(|extension| extension.config.as_ref());
    let found = configs
        .enumerate()
        .find_map(|(i, config)| config.filter(|c| c.type_url == type_url).map(|c| (i, c)));
    let Some((i, Any { value, .. })) = found else { return Ok(None) };
    let field = format!("extensions[{i}].config");
    let content = M::decode(&**value).map_err(|_| Problem::Malformed.at(&field))?;
    Ok(Some((content, field)))
}
