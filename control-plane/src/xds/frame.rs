//! Responses on the wire, put together from parts that are encoded once for all clients.
//!
//! A resource is written with its content last, so that everything before it (`head`) depends on
//! the resource and the type only and the content is the resource's own bytes.

use std::sync::Arc;

use bytes::{BufMut as _, Bytes, BytesMut};
use mesh_api::xds_client::INCOMPLETE;
use prost::encoding::{WireType, encode_key, encode_varint, string};

use super::{resource_type::ResourceType, store::Entry, subscription::News};
use crate::resource::{Kind, Resource};

/// Field numbers of `DeltaDiscoveryResponse`.
mod response {
    pub(super) const SYSTEM_VERSION_INFO: u32 = 1;
    pub(super) const RESOURCES: u32 = 2;
    pub(super) const TYPE_URL: u32 = 4;
    pub(super) const NONCE: u32 = 5;
    pub(super) const REMOVED_RESOURCES: u32 = 6;
}

/// Field numbers of `Resource`.
mod resource {
    pub(super) const VERSION: u32 = 1;
    pub(super) const RESOURCE: u32 = 2;
    pub(super) const NAME: u32 = 3;
    pub(super) const ALIASES: u32 = 4;
}

/// Field numbers of `google.protobuf.Any`.
mod any {
    pub(super) const TYPE_URL: u32 = 1;
    pub(super) const VALUE: u32 = 2;
}

/// Field numbers of `Address`.
mod address {
    pub(super) const WORKLOAD: u32 = 1;
    pub(super) const SERVICE: u32 = 2;
}

/// Bytes before a gRPC message: a flag for compression, and the length.
const MESSAGE_PREFIX_BYTES: usize = 5;

/// A response that is on its way.
#[derive(Debug)]
pub(super) struct Response {
    /// Type of the entries; none if there can be none.
    resource_type: Option<ResourceType>,
    length: usize,
    /// Prefix, scalar fields and removed names; written first.
    start: Bytes,
    entries: std::vec::IntoIter<Arc<Entry>>,
    /// What does not fit into a part any more.
    rest: Bytes,
}

/// Returns what is before the content of `resource` in a response.
pub(super) fn head(resource_type: ResourceType, resource: &Resource) -> Bytes {
    let wrapper = match (resource_type, resource.kind) {
        (ResourceType::Address, Kind::Workload) => Some(address::WORKLOAD),
        (ResourceType::Address, Kind::Service) => Some(address::SERVICE),
        (
            ResourceType::Authorization
            | ResourceType::Address
            | ResourceType::Workload
            | ResourceType::Service
            | ResourceType::Credential
            | ResourceType::L7,
            _,
        ) => None,
    };
    let body = resource.body.len();
    let mut inner = Vec::new();
    if let Some(field) = wrapper {
        length_delimited(field, body, &mut inner);
    }
    let mut content = Vec::new();
    string::encode(any::TYPE_URL, &resource_type.url().to_owned(), &mut content);
    length_delimited(any::VALUE, inner.len() + body, &mut content);
    content.extend(inner);
    let mut fields = Vec::new();
    string::encode(resource::VERSION, &resource.version.to_string(), &mut fields);
    string::encode(resource::NAME, &resource.name.to_string(), &mut fields);
    for alias in &resource.aliases {
        string::encode(resource::ALIASES, &alias.to_string(), &mut fields);
    }
    length_delimited(resource::RESOURCE, content.len() + body, &mut fields);
    fields.extend(content);
    let mut head = Vec::new();
    length_delimited(response::RESOURCES, fields.len() + body, &mut head);
    head.extend(fields);
    head.into()
}

/// Returns how many bytes a removed name takes in a response.
pub(super) fn removed_len(name: &str) -> usize {
    string::encoded_len(response::REMOVED_RESOURCES, &name.to_owned())
}

fn length_delimited(field: u32, length: usize, out: &mut Vec<u8>) {
    encode_key(field, WireType::LengthDelimited, out);
    encode_varint(length as u64, out);
}

// === impl Response ===

impl Response {
    /// Puts a response together; nothing of the entries is copied.
    pub(super) fn new(resource_type: ResourceType, news: News) -> Self {
        let News { nonce, entries, removed, incomplete } = news;
        let mut fields = Vec::new();
        if incomplete {
            string::encode(response::SYSTEM_VERSION_INFO, &INCOMPLETE.to_owned(), &mut fields);
        }
        answer(resource_type.url(), &nonce, removed, &mut fields);
        let entries_len = entries.iter().map(|entry| entry.wire_len(resource_type)).sum();
        Self { resource_type: Some(resource_type), ..Self::with(&fields, entries, entries_len) }
    }

    /// Returns the answer to who asks for a type that does not exist here: none of `names` exists.
    pub(super) fn nothing(type_url: &str, nonce: &str, names: Vec<Box<str>>) -> Self {
        let mut fields = Vec::new();
        answer(type_url, nonce, names, &mut fields);
        Self::with(&fields, Vec::new(), 0)
    }

    fn with(fields: &[u8], entries: Vec<Arc<Entry>>, entries_len: usize) -> Self {
        let length = fields.len() + entries_len;
        let mut start = BytesMut::with_capacity(MESSAGE_PREFIX_BYTES + fields.len());
        start.put_u8(0);
        // Responses are bounded far below the four gigabytes that the prefix can say.
        start.put_u32(u32::try_from(length).unwrap_or(u32::MAX));
        start.put_slice(fields);
        Self {
            resource_type: None,
            length: MESSAGE_PREFIX_BYTES + length,
            start: start.freeze(),
            entries: entries.into_iter(),
            rest: Bytes::new(),
        }
    }

    /// Returns the size of the whole response, in bytes.
    pub(super) fn len(&self) -> usize {
        self.length
    }

    /// Returns the next part, of at most `limit` bytes or one resource; none at the end.
    pub(super) fn next_part(&mut self, limit: usize) -> Option<Bytes> {
        if !self.start.is_empty() {
            return Some(std::mem::take(&mut self.start));
        }
        if !self.rest.is_empty() {
            return Some(std::mem::take(&mut self.rest));
        }
        let mut part = BytesMut::new();
        while part.len() < limit {
            let Some((resource_type, entry)) = self.next_entry() else { break };
            let (head, body) = (entry.head(resource_type), entry.body());
            if part.is_empty() && body.len() >= limit {
                // Large ones are worth a part of their own, which shares the bytes.
                self.rest = body.clone();
                return Some(head.clone());
            }
            if part.is_empty() {
                part.reserve(limit);
            }
            part.put_slice(head);
            part.put_slice(body);
        }
        (!part.is_empty()).then(|| part.freeze())
    }

    fn next_entry(&mut self) -> Option<(ResourceType, Arc<Entry>)> {
        Some((self.resource_type?, self.entries.next()?))
    }
}

/// Writes what every response has, and the names that it removes.
fn answer(type_url: &str, nonce: &str, removed: Vec<Box<str>>, fields: &mut Vec<u8>) {
    string::encode(response::TYPE_URL, &type_url.to_owned(), fields);
    string::encode(response::NONCE, &nonce.to_owned(), fields);
    for name in removed {
        string::encode(response::REMOVED_RESOURCES, &name.into(), fields);
    }
}

#[cfg(test)]
mod tests {
    use mesh_api::proto::{
        discovery::DeltaDiscoveryResponse,
        l7::{WorkloadLabels, resource::Kind as L7},
        security::Authorization,
        workload::{Address, Service, Workload, address::Type},
    };
    use prost::Message as _;

    use super::*;

    fn decode(mut response: Response, limit: usize) -> DeltaDiscoveryResponse {
        let mut bytes = Vec::new();
        while let Some(part) = response.next_part(limit) {
            bytes.extend_from_slice(&part);
        }
        let (prefix, message) = bytes.split_at(MESSAGE_PREFIX_BYTES);
        assert_eq!(prefix[0], 0);
        assert_eq!(prefix[1..], u32::try_from(message.len()).unwrap().to_be_bytes());
        DeltaDiscoveryResponse::decode(message).unwrap()
    }

    fn workload() -> Workload {
        Workload { uid: "c//Pod/shop/cart".into(), name: "cart".repeat(40), ..Default::default() }
    }

    fn service() -> Service {
        Service { namespace: "shop".into(), hostname: "cart.shop".into(), ..Default::default() }
    }

    #[test]
    fn a_response_in_parts_of_any_size_decodes_to_its_fields() {
        let workload_resource = Resource::workload(&workload(), Box::new(["n/10.0.0.1".into()]));
        let version = workload_resource.version.to_string();
        let entries = || {
            [workload_resource.clone(), Resource::service(&service(), Box::default())]
                .map(|resource| Arc::new(Entry::new(Arc::new(resource))))
        };
        for limit in [1, 10, 200, 100_000] {
            let news = News {
                nonce: "7".into(),
                entries: entries().to_vec(),
                removed: vec!["gone".into()],
                incomplete: true,
            };
            let decoded = decode(Response::new(ResourceType::Address, news), limit);
            assert_eq!(decoded.type_url, ResourceType::Address.url());
            assert_eq!(decoded.nonce, "7");
            assert_eq!(decoded.system_version_info, INCOMPLETE);
            assert_eq!(decoded.removed_resources, ["gone"]);
            let [first, second] = decoded.resources.try_into().unwrap();
            assert_eq!(first.name, "c//Pod/shop/cart");
            assert_eq!(first.version, version);
            assert_eq!(first.aliases, ["n/10.0.0.1"]);
            let first = first.resource.unwrap();
            assert_eq!(first.type_url, ResourceType::Address.url());
            let first = Address::decode(first.value.as_slice()).unwrap();
            assert_eq!(first.r#type, Some(Type::Workload(workload())));
            assert_eq!(second.name, "shop/cart.shop");
            let second = Address::decode(second.resource.unwrap().value.as_slice()).unwrap();
            assert_eq!(second.r#type, Some(Type::Service(service())));
        }
    }

    fn labels() -> L7 {
        L7::Labels(WorkloadLabels { uid: "a".into(), ..Default::default() })
    }

    #[test]
    fn the_other_types_carry_the_content_as_it_is() {
        let policy = Authorization { name: "p".into(), ..Default::default() };
        let types = [
            (ResourceType::Workload, Resource::workload(&workload(), Box::default())),
            (ResourceType::Service, Resource::service(&service(), Box::default())),
            (ResourceType::Authorization, Resource::authorization(&policy)),
            (ResourceType::L7, Resource::l7("labels/a".into(), labels(), Box::default())),
        ];
        for (resource_type, resource) in types {
            let body = resource.body.clone();
            let entry = Arc::new(Entry::new(Arc::new(resource)));
            let news = News { entries: vec![entry], ..News::default() };
            let decoded = decode(Response::new(resource_type, news), 100);
            assert_eq!(decoded.system_version_info, "");
            let any = decoded.resources.into_iter().next().unwrap().resource.unwrap();
            assert_eq!(any.type_url, resource_type.url());
            assert_eq!(any.value, body);
        }
    }
}
