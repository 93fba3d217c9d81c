//! What the control plane says of connections that leave the mesh: an extension of each workload that
//! may open them, whose content is the message of the mesh configuration itself. Proxies that do not
//! know it pass it over, as they do all extensions.

use super::{InvalidField, Problem, extension};
use crate::{
    proto::{
        mesh_config::mesh_config::{OutboundTrafficPolicy, outbound_traffic_policy::Mode},
        workload::Extension,
    },
    workload::UnknownDestinations,
};

/// Name of the extension, for people; its type tells proxies what it is.
const NAME: &str = "outbound_traffic_policy";

/// Type of the extension's content.
const TYPE_URL: &str = "type.googleapis.com/istio.mesh.v1alpha1.MeshConfig.OutboundTrafficPolicy";

/// Returns the extension that tells the proxy of a workload what becomes of such connections.
pub fn extension(unknown: UnknownDestinations) -> Extension {
    let mode = match unknown {
        UnknownDestinations::Pass => Mode::AllowAny,
        UnknownDestinations::Refuse => Mode::RegistryOnly,
    };
    extension::of(NAME, TYPE_URL, &OutboundTrafficPolicy { mode: mode.into() })
}

/// Returns what the extensions of a workload say of such connections, if anything.
pub(super) fn unknown_destinations(
    extensions: &[Extension],
) -> Result<Option<UnknownDestinations>, InvalidField> {
    let found = extension::content::<OutboundTrafficPolicy>(extensions, TYPE_URL)?;
    let Some((policy, field)) = found else { return Ok(None) };
    let mode = Mode::try_from(policy.mode).map_err(|_| {
        let known = [Mode::RegistryOnly, Mode::AllowAny, Mode::AllowAnyDynamicDns];
        let names = known.map(|mode| mode.as_str_name()).join(", ");
        Problem::UnknownValue { number: policy.mode, names }.at(&field)
    })?;
    Ok(Some(match mode {
        Mode::RegistryOnly => UnknownDestinations::Refuse,
        Mode::AllowAny | Mode::AllowAnyDynamicDns => UnknownDestinations::Pass,
    }))
}

#[cfg(test)]
mod tests {
    use prost_types::Any;

    use super::*;

    fn written(type_url: &str, value: &[u8]) -> Extension {
        let config = Some(Any { type_url: type_url.to_owned(), value: value.to_vec() });
        Extension { name: String::new(), config }
    }

    #[test]
    fn what_is_written_is_read_behind_extensions_of_others() {
        for unknown in [UnknownDestinations::Pass, UnknownDestinations::Refuse] {
            let empty = Extension { name: "empty".to_owned(), config: None };
            let extensions =
                [empty, written("type.googleapis.com/x.Y", b"\xff"), extension(unknown)];
            assert_eq!(unknown_destinations(&extensions), Ok(Some(unknown)));
            assert_eq!(unknown_destinations(&extensions[..2]), Ok(None));
        }
    }

    #[test]
    fn the_content_is_that_of_the_mesh_configuration() {
        use UnknownDestinations::{Pass, Refuse};
        for (value, expected) in [
            (&b""[..], Ok(Some(Refuse))),
            (b"\x08\x01", Ok(Some(Pass))),
            (b"\x08\x03", Ok(Some(Pass))),
            (
                b"\x08\x09",
                Err("extensions[0].config: 9 is not a known value: use one of REGISTRY_ONLY, \
                     ALLOW_ANY, ALLOW_ANY_DYNAMIC_DNS"),
            ),
            (
                b"\x08",
                Err("extensions[0].config: is malformed: send the message that its type names"),
            ),
        ] {
            let found = unknown_destinations(&[written(TYPE_URL, value)]);
            assert_eq!(
                found.map_err(|e| e.to_string()),
                expected.map_err(str::to_owned),
                "{value:?}"
            );
        }
    }
}
