//! Kernel interfaces that no library wraps: the only unsafe code of Fairlead outside its BPF programs.
#![expect(unsafe_code, reason = "system calls that no library wraps")]

pub mod datagram;
pub mod descriptors;
pub mod memory;
pub mod mount;
pub mod netns;
pub mod pipe;
pub mod socket;
