//! The order in which routes are tried, as bytes that are compared.

use crate::object::Metadata;

/// Bytes that sort as their parts do, one after another.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Order(Vec<u8>);

// === impl Order ===

impl Order {
    /// Appends a number; less comes first.
    pub(super) fn number(mut self, number: usize) -> Self {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.0.extend(number.to_be_bytes());
        self
    }

    /// Appends a number; more comes first.
    pub(super) fn descending(self, number: usize) -> Self {
        let number = u32::try_from(number).unwrap_or(u32::MAX);
        self.number(usize::try_from(u32::MAX - number).unwrap_or(usize::MAX))
    }

    /// Appends what is decided by; true comes first.
    pub(super) fn first(mut self, holds: bool) -> Self {
        self.0.push(u8::from(!holds));
        self
    }

    /// Appends the age and name of an object; the oldest comes first.
    pub(super) fn object(mut self, metadata: &Metadata) -> Self {
        let created = metadata.created.as_deref().unwrap_or_default();
        for text in [created, metadata.namespace(), &metadata.name.name] {
            self.0.extend(text.bytes());
            // Less than every byte of a name, so that one comes before those that continue it.
            self.0.push(0);
        }
        self
    }

    /// Returns the bytes.
    pub(super) fn into_bytes(self) -> bytes::Bytes {
        self.0.into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::ObjectName;

    #[test]
    fn orders_sort_as_their_parts_do() {
        let named = |created: Option<&str>, name: &str| Metadata {
            name: ObjectName::new("shop", name),
            created: created.map(Into::into),
            ..Metadata::default()
        };
        let order = Order::default;
        let ascending = [
            order().first(true).number(7),
            order().first(false).descending(300).object(&named(Some("2025"), "z")).number(9),
            order().first(false).descending(300).object(&named(Some("2026"), "a")).number(1),
            order().first(false).descending(300).object(&named(Some("2026"), "a")).number(256),
            order().first(false).descending(300).object(&named(Some("2026"), "a-b")),
            order().first(false).descending(2).object(&named(None, "a")),
        ];
        let bytes = ascending.map(Order::into_bytes);
        assert!(bytes.is_sorted(), "{bytes:?}");
    }
}
