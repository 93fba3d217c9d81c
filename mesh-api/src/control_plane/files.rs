//! Small files that others replace.

use std::path::Path;

use tokio::{fs::File, io::AsyncReadExt as _};

use super::ConnectError;

/// Longest token file: tokens have one or two thousand bytes, and servers take no larger headers.
pub(super) const MAX_TOKEN_BYTES: u64 = 16 << 10;

/// Longest file with roots: each takes one or two thousand bytes.
pub(super) const MAX_ROOTS_BYTES: u64 = 1 << 20;

/// Returns the content of a file of at most `limit` bytes.
pub(super) async fn read(path: &Path, limit: u64) -> Result<Vec<u8>, ConnectError> {
    let failed = |source| ConnectError::Read { path: path.to_owned(), source };
    let file = File::open(path).await.map_err(failed)?;
    let mut content = Vec::new();
    file.take(limit + 1).read_to_end(&mut content).await.map_err(failed)?;
    if content.len() as u64 > limit {
        return Err(ConnectError::TooLarge { path: path.to_owned(), limit });
    }
    Ok(content)
}
