//! The form of profiles that `go tool pprof`, speedscope and others read: `profile.proto` of
//! github.com/google/pprof, compressed.

use std::{
    collections::HashMap,
    io::{self, Read, Write as _},
};

use flate2::{Compression, read::GzDecoder, write::GzEncoder};
use prost::Message;

use super::mappings::Mapping;

/// Largest profile that is read, in bytes: what the bounds of one allow, with room.
const MAX_PROFILE_BYTES: u64 = 64 * 1024 * 1024;

/// A profile.
#[derive(Clone, PartialEq, Message)]
pub struct Profile {
    /// What the values of a sample are.
    #[prost(message, repeated, tag = "1")]
    pub sample_type: Vec<ValueType>,
    /// What was seen, by stack.
    #[prost(message, repeated, tag = "2")]
    pub sample: Vec<Sample>,
    /// What was in memory.
    #[prost(message, repeated, tag = "3")]
    pub mapping: Vec<MappedFile>,
    /// Addresses.
    #[prost(message, repeated, tag = "4")]
    pub location: Vec<Location>,
    /// Functions.
    #[prost(message, repeated, tag = "5")]
    pub function: Vec<Function>,
    /// Every text; the first is empty.
    #[prost(string, repeated, tag = "6")]
    pub string_table: Vec<String>,
    /// When it began, in nanoseconds since 1970.
    #[prost(int64, tag = "9")]
    pub time_nanos: i64,
    /// How long it took, in nanoseconds.
    #[prost(int64, tag = "10")]
    pub duration_nanos: i64,
    /// What `period` counts.
    #[prost(message, optional, tag = "11")]
    pub period_type: Option<ValueType>,
    /// How much lies between two samples.
    #[prost(int64, tag = "12")]
    pub period: i64,
    /// Remarks, as places in the table of texts.
    #[prost(int64, repeated, tag = "13")]
    pub comment: Vec<i64>,
    /// The kind of value to show first, likewise.
    #[prost(int64, tag = "14")]
    pub default_sample_type: i64,
}

/// What a value is.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct ValueType {
    /// Its name, as a place in the table of texts.
    #[prost(int64, tag = "1")]
    pub r#type: i64,
    /// Its unit, likewise.
    #[prost(int64, tag = "2")]
    pub unit: i64,
}

/// What was seen at a stack.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Sample {
    /// The stack, innermost first.
    #[prost(uint64, repeated, tag = "1")]
    pub location_id: Vec<u64>,
    /// One value for each type.
    #[prost(int64, repeated, tag = "2")]
    pub value: Vec<i64>,
}

/// A file in memory.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct MappedFile {
    /// Not zero.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Where it begins in memory.
    #[prost(uint64, tag = "2")]
    pub memory_start: u64,
    /// Where it ends.
    #[prost(uint64, tag = "3")]
    pub memory_limit: u64,
    /// Where in the file it begins.
    #[prost(uint64, tag = "4")]
    pub file_offset: u64,
    /// Its name, as a place in the table of texts.
    #[prost(int64, tag = "5")]
    pub filename: i64,
    /// Whether locations have functions.
    #[prost(bool, tag = "7")]
    pub has_functions: bool,
}

/// An address.
#[derive(Clone, PartialEq, Eq, Message)]
pub struct Location {
    /// Not zero.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// What it is in; zero if unknown.
    #[prost(uint64, tag = "2")]
    pub mapping_id: u64,
    /// The address.
    #[prost(uint64, tag = "3")]
    pub address: u64,
    /// The function, if it is known.
    #[prost(message, repeated, tag = "4")]
    pub line: Vec<Line>,
}

/// A function at an address.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Line {
    /// Its id.
    #[prost(uint64, tag = "1")]
    pub function_id: u64,
}

/// A function.
#[derive(Clone, Copy, PartialEq, Eq, Message)]
pub struct Function {
    /// Not zero.
    #[prost(uint64, tag = "1")]
    pub id: u64,
    /// Its name, as a place in the table of texts.
    #[prost(int64, tag = "2")]
    pub name: i64,
    /// Its name as the linker knows it, likewise.
    #[prost(int64, tag = "3")]
    pub system_name: i64,
}

/// A place in a stack, with what is known of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame<'a> {
    /// Its address.
    pub address: u64,
    /// What it is in.
    pub mapping: Option<&'a Mapping>,
    /// Name of the function.
    pub function: Option<&'a str>,
}

/// Puts a profile together.
#[derive(Debug)]
pub struct Builder {
    profile: Profile,
    texts: HashMap<String, i64>,
    functions: HashMap<String, u64>,
    mappings: HashMap<u64, u64>,
    locations: HashMap<u64, u64>,
}

/// Why bytes are no profile.
#[derive(Debug, thiserror::Error)]
pub enum NoProfile {
    /// They cannot be expanded.
    #[error("it is not compressed as profiles are: {0}")]
    Compression(#[from] io::Error),
    /// They have another form.
    #[error("it has not the form of a profile: {0}")]
    Form(#[from] prost::DecodeError),
}

// === impl Profile ===

impl Profile {
    /// Returns the profile as files have it.
    pub fn compressed(&self) -> io::Result<Vec<u8>> {
        let mut encoder = GzEncoder::new(Vec::new(), Compression::default());
        encoder.write_all(&self.encode_to_vec())?;
        encoder.finish()
    }

    /// Reads a profile.
    pub fn read(compressed: &[u8]) -> Result<Self, NoProfile> {
        let mut bytes = Vec::new();
        GzDecoder::new(compressed).take(MAX_PROFILE_BYTES).read_to_end(&mut bytes)?;
        Ok(Self::decode(&*bytes)?)
    }

    /// Returns a text by its place.
    pub fn text(&self, place: i64) -> &str {
        let text = usize::try_from(place).ok().and_then(|place| self.string_table.get(place));
        text.map_or("", String::as_str)
    }
}

// === impl Builder ===

impl Builder {
    /// Starts a profile whose samples have these values, by name and unit; the last is shown first.
    pub fn new(types: &[(&str, &str)]) -> Self {
        let mut builder = Self {
            profile: Profile::default(),
            texts: HashMap::new(),
            functions: HashMap::new(),
            mappings: HashMap::new(),
            locations: HashMap::new(),
        };
        builder.text("");
        for (name, unit) in types {
            let value_type = builder.value_type(name, unit);
            builder.profile.sample_type.push(value_type);
            builder.profile.default_sample_type = value_type.r#type;
        }
        builder
    }

    /// Says how much of something lies between two samples.
    pub fn period(&mut self, (name, unit): (&str, &str), period: i64) {
        self.profile.period_type = Some(self.value_type(name, unit));
        self.profile.period = period;
    }

    /// Adds a remark.
    pub fn remark(&mut self, remark: &str) {
        let remark = self.text(remark);
        self.profile.comment.push(remark);
    }

    /// Adds what was seen at a stack, innermost place first.
    pub fn sample<'a>(&mut self, stack: impl IntoIterator<Item = Frame<'a>>, value: Vec<i64>) {
        let location_id = stack.into_iter().map(|frame| self.location(&frame)).collect();
        self.profile.sample.push(Sample { location_id, value });
    }

    /// Returns the profile.
    pub fn finish(self) -> Profile {
        self.profile
    }

    fn location(&mut self, frame: &Frame<'_>) -> u64 {
        if let Some(id) = self.locations.get(&frame.address) {
            return *id;
        }
        let mapping_id = frame.mapping.map_or(0, |mapping| self.mapping(mapping));
        let function = frame.function.map(|name| Line { function_id: self.function(name) });
        let id = next_id(&self.profile.location);
        self.locations.insert(frame.address, id);
        let line = function.into_iter().collect();
        self.profile.location.push(Location { id, mapping_id, address: frame.address, line });
        id
    }

    fn mapping(&mut self, mapping: &Mapping) -> u64 {
        if let Some(id) = self.mappings.get(&mapping.addresses.start) {
            return *id;
        }
        let id = next_id(&self.profile.mapping);
        self.mappings.insert(mapping.addresses.start, id);
        let filename = self.text(&mapping.name);
        self.profile.mapping.push(MappedFile {
            id,
            memory_start: mapping.addresses.start,
            memory_limit: mapping.addresses.end,
            file_offset: mapping.offset,
            filename,
            has_functions: true,
        });
        id
    }

    fn function(&mut self, name: &str) -> u64 {
        if let Some(id) = self.functions.get(name) {
            return *id;
        }
        let id = next_id(&self.profile.function);
        self.functions.insert(name.to_owned(), id);
        let text = self.text(name);
        self.profile.function.push(Function { id, name: text, system_name: text });
        id
    }

    fn value_type(&mut self, name: &str, unit: &str) -> ValueType {
        ValueType { r#type: self.text(name), unit: self.text(unit) }
    }

    fn text(&mut self, text: &str) -> i64 {
        if let Some(place) = self.texts.get(text) {
            return *place;
        }
        let place = i64::try_from(self.profile.string_table.len()).unwrap_or(i64::MAX);
        self.profile.string_table.push(text.to_owned());
        self.texts.insert(text.to_owned(), place);
        place
    }
}

/// Ids begin at one.
fn next_id<T>(list: &[T]) -> u64 {
    u64::try_from(list.len()).unwrap_or(u64::MAX).saturating_add(1)
}
