//! Takes profiles of a proxy process from outside.
//!
//! The BPF programs for it are an object of their own, which is loaded while a profile is taken: a
//! kernel that does not accept them goes on capturing, and what is not asked for costs nothing.
//! Nothing is asked of the process that is profiled, and of its memory only addresses are read.

mod memory;

use std::{
    collections::{BTreeSet, HashMap},
    num::NonZeroU32,
    path::Path,
    time::{Instant, SystemTime},
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, MapData, PerCpuArray, PerCpuHashMap, StackTraceMap, stack_trace::StackTrace},
    programs::{
        PerfEvent, UProbe,
        perf_event::{PerfEventConfig, PerfEventLink, PerfEventScope, SamplePolicy, SoftwareEvent},
        uprobe::{UProbeAttachLocation, UProbeLink, UProbeScope},
    },
    util::online_cpus,
};
use fairlead_ebpf::profiles::{CpuStack, HeapCounts, NO_STACK};

use self::memory::Memory;
pub(super) use self::memory::MemoryError;
use super::programs::{ProgramsError, map_error, program, program_error, take_map};
use crate::profile::{
    Kind,
    mappings::find,
    pprof::{Builder, Frame, Profile},
};

const OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/profile.o"));

/// Samples of each processor in a second. Not a round number: what a program does at round times
/// would be seen always or never.
const FREQUENCY: u32 = 99;

/// Nanoseconds between two samples.
const PERIOD: i64 = 1_000_000_000 / FREQUENCY as i64;

/// Functions of the allocator, each with the program that sees its calls. The one that frees comes
/// first, so that no address is believed in use that is not.
const ALLOCATOR: [(&str, &str); 6] = [
    (FREE, "fairlead_free"),
    ("malloc", "fairlead_malloc"),
    ("calloc", "fairlead_calloc"),
    ("realloc", "fairlead_realloc"),
    ("aligned_alloc", "fairlead_aligned_alloc"),
    ("posix_memalign", "fairlead_posix_memalign"),
];

/// The function that frees, and allocates nothing.
const FREE: &str = "free";

/// Sees the returns of functions that allocate.
const ALLOCATED: &str = "fairlead_allocated";

const SAMPLE: &str = "fairlead_cpu";

/// What is said of every profile of the heap.
const HEAP_REMARK: &str = "in use: what was allocated while the profile was taken and not freed \
                           again; not what was there before";

/// Why no profile was taken.
#[derive(Debug, thiserror::Error)]
pub(super) enum ProfileError {
    /// The kernel refuses.
    #[error(transparent)]
    Programs(#[from] ProgramsError),
    /// The process cannot be looked at.
    #[error(transparent)]
    Memory(#[from] MemoryError),
    /// The profile cannot be written.
    #[error("the profile cannot be compressed: {0}")]
    Compression(std::io::Error),
}

/// A profile that is being taken; when it is dropped, nothing of it is left in the kernel.
pub(super) struct Session {
    kind: Kind,
    object: Ebpf,
    /// In the order in which they were attached.
    links: Vec<Attached>,
    memory: Memory,
    began: SystemTime,
    since: Instant,
}

/// Keeps a program attached.
#[expect(dead_code, reason = "held for what their drop does")]
enum Attached {
    Timer(PerfEventLink),
    Call(UProbeLink),
}

/// What was counted at a stack, innermost address first.
struct Counted {
    stack: Vec<u64>,
    values: Vec<i64>,
}

/// The stacks that were seen.
struct Stacks(StackTraceMap<MapData>);

// === impl Session ===

impl Session {
    /// Begins to count for a process, by its id in the initial PID namespace.
    ///
    /// Reads files and waits for the kernel, as does [`Self::finish`]: not for a thread that others
    /// wait for.
    pub(super) fn begin(kind: Kind, process: u32) -> Result<Self, ProfileError> {
        let memory = Memory::of(process)?;
        let mut loader = EbpfLoader::new();
        // The programs need no types of the kernel.
        loader.btf(None);
        let mut object =
            loader.load(OBJECT).map_err(|cause| ProgramsError::Load(Box::new(cause)))?;
        let links = match kind {
            Kind::Cpu => attach_timers(&mut object, process)?,
            Kind::Heap => attach_calls(&mut object, process, &memory)?,
        };
        let (began, since) = (SystemTime::now(), Instant::now());
        Ok(Self { kind, object, links, memory, began, since })
    }

    /// Stops counting and returns the profile, as files have it.
    pub(super) fn finish(self) -> Result<Vec<u8>, ProfileError> {
        let Self { kind, mut object, mut links, memory, began, since } = self;
        let took = since.elapsed();
        // What frees is the last to go: see above.
        while links.pop().is_some() {}
        let stacks = Stacks(take_map(&mut object, "STACKS")?);
        let (mut builder, counted) = match kind {
            Kind::Cpu => {
                let mut builder = Builder::new(&[("samples", "count"), ("cpu", "nanoseconds")]);
                builder.period(("cpu", "nanoseconds"), PERIOD);
                (builder, cpu_counts(&mut object, &stacks)?)
            }
            Kind::Heap => {
                let mut builder = Builder::new(&[
                    ("alloc_objects", "count"),
                    ("alloc_space", "bytes"),
                    ("inuse_objects", "count"),
                    ("inuse_space", "bytes"),
                ]);
                builder.period(("space", "bytes"), 1);
                builder.remark(HEAP_REMARK);
                (builder, heap_counts(&mut object, &stacks)?)
            }
        };
        let lost = lost(&mut object)?;
        if lost > 0 {
            builder.remark(&format!("{lost} more were seen, and not counted for want of room"));
        }
        // Kernel memory that is not needed any more.
        drop((object, stacks));
        let mut profile = assemble(builder, counted, &memory);
        profile.time_nanos =
            nanoseconds(began.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default());
        profile.duration_nanos = nanoseconds(took);
        profile.compressed().map_err(ProfileError::Compression)
    }
}

/// Looks at every processor, and counts where the process is found.
fn attach_timers(object: &mut Ebpf, process: u32) -> Result<Vec<Attached>, ProgramsError> {
    let mut target: Array<_, u32> = take_map(object, "TARGET")?;
    target.set(0, process, 0).map_err(map_error("TARGET"))?;
    let fail = program_error(SAMPLE);
    let sample: &mut PerfEvent = program(object, SAMPLE)?;
    sample.load().map_err(fail)?;
    let processors = online_cpus()
        .map_err(|(_, cause)| ProgramsError::Io { what: "counting the processors", cause })?;
    let clock = PerfEventConfig::Software(SoftwareEvent::CpuClock);
    let attach = |cpu| {
        let scope = PerfEventScope::AllProcessesOneCpu { cpu };
        let policy = SamplePolicy::Frequency(FREQUENCY.into());
        let id = sample.attach(clock, scope, policy, false).map_err(fail)?;
        Ok(Attached::Timer(sample.take_link(id).map_err(fail)?))
    };
    processors.into_iter().map(attach).collect()
}

/// Follows the calls of the process to the allocator.
fn attach_calls(
    object: &mut Ebpf,
    process: u32,
    memory: &Memory,
) -> Result<Vec<Attached>, ProfileError> {
    let (file, places) = memory.allocator(&ALLOCATOR.map(|(function, _)| function))?;
    let scope =
        NonZeroU32::new(process).map_or(UProbeScope::CallingProcess, UProbeScope::OneProcess);
    let mut links = Vec::new();
    let mut attach = |name: &'static str, functions: &[&str]| {
        let fail = program_error(name);
        let probe: &mut UProbe = program(object, name)?;
        probe.load().map_err(fail)?;
        for place in functions.iter().filter_map(|function| places.get(function)) {
            let place = UProbeAttachLocation::AbsoluteOffset(*place);
            let id = probe.attach(place, Path::new(&file), scope).map_err(fail)?;
            links.push(Attached::Call(probe.take_link(id).map_err(fail)?));
        }
        Ok::<_, ProgramsError>(())
    };
    // A return whose call was not seen is passed over, but not the other way round.
    let allocating = ALLOCATOR.map(|(function, _)| function);
    let allocating: Vec<_> = allocating.into_iter().filter(|function| *function != FREE).collect();
    attach(ALLOCATED, &allocating)?;
    for (function, name) in ALLOCATOR {
        attach(name, &[function])?;
    }
    Ok(links)
}

fn cpu_counts(object: &mut Ebpf, stacks: &Stacks) -> Result<Vec<Counted>, ProgramsError> {
    const NAME: &str = "SAMPLES";
    let samples: PerCpuHashMap<_, CpuStack, u64> = take_map(object, NAME)?;
    let counted = samples.iter().map(|entry| {
        let (CpuStack { user, kernel }, counts) = entry.map_err(map_error(NAME))?;
        let mut stack = callers(&stacks.addresses(kernel)?, 1);
        stack.extend(callers(&stacks.addresses(user)?, 1));
        let samples = clamped(counts.iter().sum());
        Ok(Counted { stack, values: vec![samples, samples.saturating_mul(PERIOD)] })
    });
    counted.collect()
}

fn heap_counts(object: &mut Ebpf, stacks: &Stacks) -> Result<Vec<Counted>, ProgramsError> {
    const NAME: &str = "HEAP";
    let heap: PerCpuHashMap<_, u32, HeapCounts> = take_map(object, NAME)?;
    let counted = heap.iter().map(|entry| {
        let (stack, counts) = entry.map_err(map_error(NAME))?;
        let values = heap_values(&counts);
        // What was seen is the return to the innermost function, so that is a caller, too.
        Ok(Counted { stack: callers(&stacks.addresses(stack)?, 0), values })
    });
    counted.collect()
}

/// Returns the sums of all processors: what was allocated, and what of it is in use.
fn heap_values(counts: &[HeapCounts]) -> Vec<i64> {
    let sum = |field: fn(&HeapCounts) -> u64| clamped(counts.iter().map(field).sum());
    let (objects, bytes) = (sum(|c| c.allocations), sum(|c| c.bytes));
    let (freed, freed_bytes) = (sum(|c| c.freed), sum(|c| c.freed_bytes));
    vec![objects, bytes, (objects - freed).max(0), (bytes - freed_bytes).max(0)]
}

fn lost(object: &mut Ebpf) -> Result<u64, ProgramsError> {
    const NAME: &str = "LOST";
    let lost: PerCpuArray<_, u64> = take_map(object, NAME)?;
    Ok(lost.get(&0, 0).map_err(map_error(NAME))?.iter().sum())
}

/// Names what was counted.
fn assemble(mut builder: Builder, counted: Vec<Counted>, memory: &Memory) -> Profile {
    let addresses: BTreeSet<u64> = counted.iter().flat_map(|c| c.stack.iter().copied()).collect();
    let names: HashMap<u64, String> = memory.names(&addresses);
    for Counted { stack, values } in counted {
        let frames = stack.iter().map(|address| Frame {
            address: *address,
            mapping: find(memory.mappings(), *address),
            function: names.get(address).map(String::as_str),
        });
        builder.sample(frames, values);
    }
    builder.finish()
}

/// Turns return addresses into those of the calls before them. The first `exact` are none: there the
/// processor was.
fn callers(addresses: &[u64], exact: usize) -> Vec<u64> {
    let call = |(depth, address): (usize, &u64)| {
        if depth < exact { *address } else { address.saturating_sub(1) }
    };
    addresses.iter().enumerate().map(call).collect()
}

fn clamped(count: u64) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

fn nanoseconds(time: std::time::Duration) -> i64 {
    i64::try_from(time.as_nanos()).unwrap_or(i64::MAX)
}

// === impl Stacks ===

impl Stacks {
    /// Returns the addresses of a stack, innermost first; none where there is no stack.
    fn addresses(&self, id: u32) -> Result<Vec<u64>, ProgramsError> {
        if id == NO_STACK {
            return Ok(Vec::new());
        }
        let stack: StackTrace = self.0.get(&id, 0).map_err(map_error("STACKS"))?;
        Ok(stack.frames().iter().map(|frame| frame.ip).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_return_address_stands_for_the_call_before_it() {
        for (addresses, exact, expected) in [
            (&[10, 20, 30][..], 1, &[10, 19, 29][..]),
            (&[10, 20], 0, &[9, 19]),
            (&[0], 0, &[0]),
            (&[], 1, &[]),
        ] {
            assert_eq!(callers(addresses, exact), expected);
        }
    }

    #[test]
    fn what_is_in_use_is_what_was_allocated_and_not_freed_on_whatever_processor() {
        let counts = |allocations, bytes, freed, freed_bytes| HeapCounts {
            allocations,
            bytes,
            freed,
            freed_bytes,
        };
        for (one, rest, expected) in [
            (counts(2, 200, 0, 0), counts(0, 0, 1, 50), [2, 200, 1, 150]),
            (counts(1, 10, 1, 10), counts(0, 0, 0, 0), [1, 10, 0, 0]),
            // A count that came in between was lost.
            (counts(1, 10, 2, 20), counts(0, 0, 0, 0), [1, 10, 0, 0]),
        ] {
            assert_eq!(heap_values(&[one, HeapCounts::default(), rest]), expected);
        }
    }
}
