//! What must hold for any input from outside: one function for each kind of input.
//!
//! Each takes any bytes and panics where something does not hold. `fuzz_targets/` makes them targets
//! of libFuzzer; what it found, and what was written by hand, is in `corpus/` and replayed by the
//! test below.
#![forbid(unsafe_code)]

mod connect_head;
mod dns_message;
mod http1_requests;
mod local_config;
mod proxy_header;
mod request_path;
mod spiffe_id;
mod tunnel;
mod waypoint_rules;

use std::{env, fs, io};

pub use self::{
    connect_head::connect_head, dns_message::dns_message, http1_requests::http1_requests,
    local_config::local_config, proxy_header::proxy_header, request_path::request_path,
    spiffe_id::spiffe_id, tunnel::tunnel, waypoint_rules::waypoint_rules,
};

/// Gives `target` the content of each file that the arguments name.
pub fn replay_arguments(target: fn(&[u8])) -> io::Result<()> {
    for path in env::args_os().skip(1) {
        target(&fs::read(path)?);
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// Bytes that the corpora may have in all: they are part of every clone.
    const MAX_CORPUS_BYTES: usize = 200 << 10;

    #[test]
    fn everything_holds_for_the_corpora() {
        let corpora = Path::new(env!("CARGO_MANIFEST_DIR")).join("corpus");
        let mut bytes = 0;
        for (name, target) in [
            ("connect_head", connect_head as fn(&[u8])),
            ("dns_message", dns_message),
            ("http1_requests", http1_requests),
            ("local_config", local_config),
            ("proxy_header", proxy_header),
            ("request_path", request_path),
            ("spiffe_id", spiffe_id),
            ("tunnel", tunnel),
            ("waypoint_rules", waypoint_rules),
        ] {
            let mut paths: Vec<_> = fs::read_dir(corpora.join(name))
                .unwrap_or_else(|error| panic!("the corpus of {name}: {error}"))
                .map(|entry| entry.unwrap().path())
                .collect();
            assert!(!paths.is_empty(), "the corpus of {name} is empty");
            paths.sort();
            for path in paths {
                // Shown if it fails.
                println!("{}", path.display());
                let data = fs::read(path).unwrap();
                bytes += data.len();
                target(&data);
            }
        }
        assert!(bytes <= MAX_CORPUS_BYTES, "the corpora have {bytes} bytes");
    }
}
