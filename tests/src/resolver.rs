//! Names as pods of a cluster look them up.

use std::{fs, net::IpAddr};

use anyhow::Result;

use crate::{host::Host as _, pod::Pod};

/// Takes its own file in place of the machine's, which nobody else sees.
const SCRIPT: &str = "mount --bind \"$0\" /etc/resolv.conf && exec \"$@\"";

/// Returns the command that runs `command` in `pod` with the resolver configuration of its namespace:
/// names are completed as in a cluster, and asked of `server`.
pub fn resolving<S: AsRef<str>>(
    pod: &Pod,
    server: IpAddr,
    command: impl IntoIterator<Item = S>,
) -> Result<Vec<String>> {
    let file = pod.lab_dir().join(format!("{}-{server}-resolv.conf", pod.netns().name()));
    // Programs that read it never find it half written.
    if !file.exists() {
        let namespace = pod.namespace();
        let search = format!("{namespace}.svc.cluster.local svc.cluster.local cluster.local");
        fs::write(&file, format!("nameserver {server}\nsearch {search}\noptions ndots:5\n"))?;
    }
    let file = file.to_string_lossy();
    let prefix = ["unshare", "--mount", "sh", "-c", SCRIPT, &file].map(str::to_owned);
    Ok(prefix.into_iter().chain(command.into_iter().map(|word| word.as_ref().to_owned())).collect())
}
