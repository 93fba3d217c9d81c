//! Digests, by which tokens are looked up: the time that takes says nothing about a token, and a
//! dump of the process's memory holds none.

use aws_lc_rs::digest::{SHA256, SHA256_OUTPUT_LEN, digest};

/// What tells tokens from each other.
pub(super) type Digest = [u8; SHA256_OUTPUT_LEN];

pub(super) fn digest_of(token: &str) -> Digest {
    let mut result = [0; SHA256_OUTPUT_LEN];
    result.copy_from_slice(digest(&SHA256, token.as_bytes()).as_ref());
    result
}
