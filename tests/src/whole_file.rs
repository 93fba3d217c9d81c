//! Files that appear whole.

use std::{fs::Permissions, io::Write as _, os::unix::fs::PermissionsExt as _, path::Path};

use anyhow::{Context as _, Result};
use tempfile::NamedTempFile;

/// Makes `text` the content of `path`; a reader sees the old file or the new one, whole.
pub(crate) fn write(path: &Path, text: &str) -> Result<()> {
    let dir = path.parent().context("no directory")?;
    let mut file = NamedTempFile::new_in(dir)?;
    file.write_all(text.as_bytes())?;
    // A temporary file is its owner's only; the proxy is another user.
    file.as_file().set_permissions(Permissions::from_mode(0o644))?;
    file.persist(path)?;
    Ok(())
}
