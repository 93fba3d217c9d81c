//! Options of `profile`.

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use super::DEFAULT_RUN_DIR;
use crate::profile::{self, Kind};

/// Options of `profile`.
#[derive(Debug, Args)]
pub struct ProfileArgs {
    /// What is wanted.
    #[arg(value_enum)]
    pub kind: ProfileKind,
    /// Time that is looked at, from 1 to 60 s.
    #[arg(long, value_name = "SECONDS", default_value = "10")]
    pub seconds: profile::Window,
    /// File for the whole profile. Without it only the functions that count most are printed.
    #[arg(long, short, value_name = "FILE")]
    pub output: Option<PathBuf>,
    /// Form of the file.
    #[arg(long, value_enum, default_value_t = ProfileFormat::Pprof, requires = "output")]
    pub format: ProfileFormat,
    /// Directory of the control socket.
    #[arg(long, value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    pub run_dir: PathBuf,
}

/// What a profile is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfileKind {
    /// Where processors are at work for the proxy, looked at 99 times a second. Costs nearly nothing.
    Cpu,
    /// What allocates memory, and what of it is not freed at the end. What was allocated before is
    /// not seen. Slows the proxy down meanwhile: each allocation takes some microseconds more.
    Heap,
}

/// Form of a profile's file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum ProfileFormat {
    /// For `go tool pprof`, speedscope and others.
    Pprof,
    /// One stack a line, for flame graphs: of the heap, what is in use.
    Folded,
}

// === impl ProfileKind ===

impl From<ProfileKind> for Kind {
    fn from(kind: ProfileKind) -> Self {
        match kind {
            ProfileKind::Cpu => Self::Cpu,
            ProfileKind::Heap => Self::Heap,
        }
    }
}
