//! Small clients and servers that tests run in pods.

use std::path::Path;

const PROGRAMS_DIR: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/programs");

/// The distribution's interpreter: a version manager's wrapper costs 100 ms per start.
const DISTRIBUTION_PYTHON: &str = "/usr/bin/python3";

/// Returns the path of `tests/programs/NAME`.
pub fn program(name: &str) -> String {
    format!("{PROGRAMS_DIR}/{name}")
}

/// Writes no compiled files beside the sources, and no output late.
const PYTHON_OPTIONS: &str = "-Bu";

/// Returns the command that runs `tests/programs/NAME` in Python with `args`.
pub fn python<S: AsRef<str>>(name: &str, args: &[S]) -> Vec<String> {
    let interpreter =
        if Path::new(DISTRIBUTION_PYTHON).exists() { DISTRIBUTION_PYTHON } else { "python3" };
    [interpreter.to_owned(), PYTHON_OPTIONS.to_owned(), program(name)]
        .into_iter()
        .chain(args.iter().map(|arg| arg.as_ref().to_owned()))
        .collect()
}
