//! Requests as they are decoded here.
//!
//! A node that comes back names everything that it has: 60,000 pairs of text in a large mesh, and
//! all nodes come back together when a control plane is replaced. The pairs are looked at once, so
//! they stay where they are, in the bytes that came, instead of in a map of strings.

use bytes::{Buf as _, Bytes};
use mesh_api::proto::discovery::DeltaDiscoveryRequest;
use prost::{
    DecodeError, Message,
    encoding::{DecodeContext, decode_key, message},
};

/// Field number of `initial_resource_versions` in `DeltaDiscoveryRequest`.
const INITIAL_RESOURCE_VERSIONS: u32 = 5;

/// A request.
#[derive(Debug, Default)]
pub struct Request {
    /// All but `initial_resource_versions`, which is empty.
    pub message: DeltaDiscoveryRequest,
    /// `initial_resource_versions`: what the client has from an earlier stream.
    pub had: Vec<Had>,
}

/// A resource that a client has from an earlier stream: an entry of a map, as it is on the wire.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Had {
    #[prost(bytes = "bytes", tag = "1")]
    name: Bytes,
    #[prost(bytes = "bytes", tag = "2")]
    version: Bytes,
}

// === impl Request ===

impl Request {
    /// Decodes a request; what the client has shares the memory of `bytes`.
    pub fn decode(mut bytes: Bytes) -> Result<Self, DecodeError> {
        let mut request = Self::default();
        while bytes.has_remaining() {
            let (field, wire_type) = decode_key(&mut bytes)?;
            let context = DecodeContext::default();
            if field == INITIAL_RESOURCE_VERSIONS {
                let mut had = Had::default();
                message::merge(wire_type, &mut had, &mut bytes, context)?;
                request.had.push(had);
            } else {
                request.message.merge_field(field, wire_type, &mut bytes, context)?;
            }
        }
        Ok(request)
    }
}

// === impl Had ===

impl Had {
    /// Returns the resource's name; none if it is not text.
    pub fn name(&self) -> Option<&str> {
        std::str::from_utf8(&self.name).ok()
    }

    /// Returns the resource's version as it is on the wire.
    pub fn version(&self) -> &[u8] {
        &self.version
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use mesh_api::proto::discovery::{Node, Status};
    use proptest::prelude::*;

    use super::*;

    fn encoded(had: &BTreeMap<String, String>) -> (DeltaDiscoveryRequest, Bytes) {
        let request = DeltaDiscoveryRequest {
            node: Some(Node { id: "n".into(), ..Default::default() }),
            type_url: "t".into(),
            resource_names_subscribe: vec!["a".into(), "*".into()],
            resource_names_unsubscribe: vec!["b".into()],
            initial_resource_versions: had.clone(),
            response_nonce: "1".into(),
            error_detail: Some(Status { code: 3, ..Default::default() }),
        };
        let bytes = request.encode_to_vec().into();
        (request, bytes)
    }

    proptest! {
        #[test]
        fn it_says_the_same_as_a_map(had: BTreeMap<String, String>) {
            let (expected, bytes) = encoded(&had);
            let Request { message, had } = Request::decode(bytes).unwrap();
            let had = had.iter().map(|had| {
                let version = String::from_utf8(had.version().to_vec()).unwrap();
                (had.name().unwrap().to_owned(), version)
            });
            let initial_resource_versions = had.collect();
            prop_assert_eq!(DeltaDiscoveryRequest { initial_resource_versions, ..message }, expected);
        }

        #[test]
        fn bytes_that_are_no_request_are_an_error_for_both(bytes: Vec<u8>) {
            let expected = DeltaDiscoveryRequest::decode(&bytes[..]);
            let decoded = Request::decode(bytes.into());
            // Names that are not text are found where they are looked up.
            if decoded.is_err() {
                prop_assert!(expected.is_err());
            }
            if expected.is_ok() {
                prop_assert!(decoded.is_ok());
            }
        }
    }

    #[test]
    fn what_a_client_has_is_not_copied() {
        let had = BTreeMap::from([("a-name".to_owned(), "0123456789abcdef".to_owned())]);
        let (_, bytes) = encoded(&had);
        let memory = bytes.as_ptr_range();
        let request = Request::decode(bytes).unwrap();
        assert_eq!(request.had.len(), 1);
        for text in [&request.had[0].name, &request.had[0].version] {
            assert!(memory.contains(&text.as_ptr()));
        }
        assert!(request.message.initial_resource_versions.is_empty());
    }

    #[test]
    fn a_name_that_is_not_text_is_none() {
        let had = Had { name: Bytes::from_static(&[0xff]), version: Bytes::new() };
        assert_eq!(had.name(), None);
    }
}
