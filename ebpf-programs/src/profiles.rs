//! Types and constants of what profiles count.

/// Most different stacks of one profile; each takes a kilobyte. Further ones are counted as lost.
pub const MAX_STACKS: u32 = 16_384;

/// Most allocations that are followed until they are freed. Further ones count as freed at once.
pub const MAX_LIVE: u32 = 262_144;

/// Most threads that are inside the allocator at once; a proxy has one for each processor, and some.
pub const MAX_ALLOCATING: u32 = 4096;

/// Where a processor was found at work: ids of stacks, or [`NO_STACK`].
#[repr(C)]
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct CpuStack {
    /// The stack of the program.
    pub user: u32,
    /// The stack of the kernel, if the processor was there.
    pub kernel: u32,
}

/// What one stack has allocated since the profile began, and how much of that was freed.
#[repr(C)]
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct HeapCounts {
    /// Allocations.
    pub allocations: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Allocations that were freed.
    pub freed: u64,
    /// Their bytes.
    pub freed_bytes: u64,
}

/// Stands for a stack that there is not: ids are below [`MAX_STACKS`].
pub const NO_STACK: u32 = u32::MAX;
