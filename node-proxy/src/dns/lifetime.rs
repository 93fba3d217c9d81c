//! How long an answer may be kept, read from its records as they are on the wire.

use std::{ops::Range, time::Duration};

use super::raw::{HEADER, NO_SUCH_NAME, RESULT, TYPE_AND_CLASS, is_question};

/// First byte of the flags: the answer is cut.
const TRUNCATED: u8 = 0x02;

/// Bytes of type, class, time to live and length in front of a record's data.
const RECORD_HEAD: usize = 10;

/// Types of records that say more than their name: the start of a zone, whose last four bytes limit
/// how long nothing is known for (RFC 2308, section 4), and EDNS, which has no time to live.
const SOA: u16 = 6;
const OPT: u16 = 41;

/// Shortest data of a start of a zone: two names and five numbers.
const MIN_SOA: usize = 22;

/// How long an answer may be kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Lifetime {
    seconds: u32,
    /// Where the times to live of its records are.
    times: Vec<usize>,
}

/// What a record has in front of its data.
struct Record {
    kind: u16,
    time: Range<usize>,
    data: Range<usize>,
}

/// Returns how long `answer` may be kept; none if it must not, or makes no sense.
pub(super) fn lifetime(answer: &[u8]) -> Option<Lifetime> {
    let header = answer.first_chunk::<HEADER>()?;
    let result = header[3] & RESULT;
    if is_question(answer) || header[2] & TRUNCATED != 0 || ![0, NO_SUCH_NAME].contains(&result) {
        return None;
    }
    let count = |at| usize::from(u16::from_be_bytes([header[at], header[at + 1]]));
    let (questions, answers, authorities, others) = (count(4), count(6), count(8), count(10));
    let mut at = HEADER;
    for _ in 0..questions {
        at = skip_name(answer, at)? + TYPE_AND_CLASS;
    }
    let (mut seconds, mut times, mut zone) = (u32::MAX, Vec::new(), false);
    for number in 0..answers + authorities + others {
        let record = read_record(answer, at)?;
        at = record.data.end;
        let time = number_at(answer, record.time.clone())?;
        if record.kind == OPT {
            // Its first byte is the rest of the result.
            if time.to_be_bytes()[0] != 0 {
                return None;
            }
            continue;
        }
        // A time beyond 31 bits is none (RFC 2181, section 8).
        seconds = seconds.min(i32::try_from(time).map_or(0, i32::unsigned_abs));
        times.push(record.time.start);
        let in_authority = (answers..answers + authorities).contains(&number);
        if in_authority && record.kind == SOA && record.data.len() >= MIN_SOA {
            zone = true;
            seconds = seconds.min(number_at(answer, record.data.end - 4..record.data.end)?);
        }
    }
    let says_something = result == 0 && answers > 0;
    (seconds > 0 && (says_something || zone)).then_some(Lifetime { seconds, times })
}

// === impl Lifetime ===

impl Lifetime {
    /// Returns it as a time.
    pub(super) fn time(&self) -> Duration {
        Duration::from_secs(self.seconds.into())
    }

    /// Makes the answer one that has been kept for `age`.
    pub(super) fn shorten(&self, answer: &mut [u8], age: Duration) {
        let age = u32::try_from(age.as_secs()).unwrap_or(u32::MAX);
        for time in &self.times {
            if let Some(bytes) = answer.get_mut(*time..).and_then(|bytes| bytes.first_chunk_mut()) {
                *bytes = u32::from_be_bytes(*bytes).saturating_sub(age).to_be_bytes();
            }
        }
    }
}

fn read_record(message: &[u8], at: usize) -> Option<Record> {
    let head = skip_name(message, at)?;
    let fields = message.get(head..)?.first_chunk::<RECORD_HEAD>()?;
    let data = head + RECORD_HEAD;
    let end = data + usize::from(u16::from_be_bytes([fields[8], fields[9]]));
    let kind = u16::from_be_bytes([fields[0], fields[1]]);
    (end <= message.len()).then_some(Record { kind, time: head + 4..head + 8, data: data..end })
}

/// Returns where a name ends.
fn skip_name(message: &[u8], mut at: usize) -> Option<usize> {
    loop {
        match *message.get(at)? {
            0 => return Some(at + 1),
            length @ 1..=63 => at += 1 + usize::from(length),
            // The rest is elsewhere; a name ends with such a pointer.
            192.. => return Some(at + 2),
            64..192 => return None,
        }
    }
}

fn number_at(message: &[u8], place: Range<usize>) -> Option<u32> {
    message.get(place)?.first_chunk().map(|bytes| u32::from_be_bytes(*bytes))
}
