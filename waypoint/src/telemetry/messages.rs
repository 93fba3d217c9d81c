//! Messages in a body of gRPC. Pure.

/// Bytes before each message: whether it is compressed, and its length.
const PREFIX_BYTES: u8 = 5;

/// Counts messages as a body comes, in whatever pieces.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Messages {
    count: u64,
    /// Bytes of the prefix that have come.
    prefix: u8,
    /// The length, as far as it has come.
    length: u32,
    /// Bytes of the message that have not.
    left: usize,
}

// === impl Messages ===

impl Messages {
    /// Notes the next piece of the body.
    pub fn advance(&mut self, mut data: &[u8]) {
        loop {
            let skipped = self.left.min(data.len());
            self.left -= skipped;
            data = &data[skipped..];
            let Some((byte, rest)) = data.split_first() else { return };
            data = rest;
            self.prefix += 1;
            if self.prefix > 1 {
                self.length = self.length << 8 | u32::from(*byte);
            }
            if self.prefix == PREFIX_BYTES {
                let left = usize::try_from(self.length).unwrap_or(usize::MAX);
                *self = Self { count: self.count + 1, left, ..Self::default() };
            }
        }
    }

    /// Returns how many messages have begun.
    pub fn count(self) -> u64 {
        self.count
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(length: u32) -> Vec<u8> {
        let mut bytes = vec![1];
        bytes.extend(length.to_be_bytes());
        bytes.extend(vec![0xff; length as usize]);
        bytes
    }

    #[test]
    fn messages_are_counted_in_whatever_pieces_they_come() {
        let bodies = [vec![], vec![0], vec![3], vec![0, 0, 7], vec![1, 300, 0, 70_000, 2]];
        for lengths in bodies {
            let body: Vec<u8> = lengths.iter().flat_map(|length| message(*length)).collect();
            for piece in [1, 2, 4, 5, 6, 1_000, 100_000] {
                let mut messages = Messages::default();
                body.chunks(piece).for_each(|piece| messages.advance(piece));
                assert_eq!(messages.count(), lengths.len() as u64, "{lengths:?} by {piece}");
            }
        }
    }

    #[test]
    fn a_message_counts_once_its_prefix_is_there() {
        let mut messages = Messages::default();
        messages.advance(&message(8)[..4]);
        assert_eq!(messages.count(), 0);
        messages.advance(&message(8)[4..5]);
        assert_eq!(messages.count(), 1);
        messages.advance(&[0, 0, 0, 0, u8::MAX, u8::MAX, u8::MAX, u8::MAX]);
        assert_eq!(messages.count(), 1);
    }
}
