//! Kernel interfaces that no library wraps. The only module of the crate with unsafe code.

pub mod datagram;
pub mod descriptors;
pub mod memory;
pub mod mount;
pub mod netns;
pub mod pipe;
pub mod socket;
