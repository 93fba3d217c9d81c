//! How the processes without privilege give it up.

use std::path::{Path, PathBuf};

use anyhow::{Context as _, Result, bail};

use fairlead_node::{
    cli::ProxyUser,
    sandbox::{RESOLVER_FILES, Sandbox, ensure_readable},
};

/// Gives up every privilege: from here on this process reads what strangers send. It goes on reading
/// `files` and what may `come_later`, and looks up names if it has to.
pub(super) fn confine(
    user: ProxyUser,
    files: &[&Path],
    come_later: Option<&Path>,
    looks_up_names: bool,
) -> Result<()> {
    let ProxyUser { user, group } = user;
    let there = come_later.filter(|file| file.exists());
    for file in files.iter().copied().chain(there) {
        ensure_readable(file, user, group)?;
    }
    let all = files.iter().copied().chain(come_later);
    let readable = all.filter_map(Path::parent).map(Path::to_owned).collect();
    let names = if looks_up_names { &RESOLVER_FILES[..] } else { &[] };
    let files = names.iter().map(PathBuf::from).collect();
    Ok(Sandbox { user, group, readable, files }.enter()?)
}

/// Returns the path of a file without links in its directory. The file itself may be a link that
/// changes, as in a config map.
pub(super) fn resolved(file: &Path) -> Result<PathBuf> {
    let absolute = std::path::absolute(file)?;
    let (Some(dir), Some(name)) = (absolute.parent(), absolute.file_name()) else {
        bail!("{} is no file", file.display());
    };
    let dir = dir.canonicalize().with_context(|| format!("cannot read {}", file.display()))?;
    Ok(dir.join(name))
}
