//! What the proxy does in the kernel: no way around it while it is there, no trace when it is not.

mod bypass;
mod counts;
mod full;
mod probes;
mod unload;
