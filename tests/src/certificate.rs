//! Certificates as a stranger is shown them.

use std::{net::SocketAddr, path::Path};

use anyhow::{Context as _, Result};

use crate::host::Host;

/// Verifies the chain of the server `$1` against the roots in the file `$2`.
const SHOW: &str = "openssl s_client -connect \"$1\" -CAfile \"$2\" -verify_return_error \
                    -tls1_3 -alpn h2 </dev/null | openssl x509 -noout -ext subjectAltName";

/// Returns the SPIFFE identity in the certificate that `server` shows to an unknown client, after
/// its chain was verified against the roots in a file.
pub fn shown_identity(from: &impl Host, server: SocketAddr, roots: &Path) -> Result<String> {
    let script = ["sh", "-c", SHOW, "sh", &server.to_string(), &roots.to_string_lossy()];
    let output = from.run(script)?.checked()?;
    let uri = output.stdout.lines().find_map(|line| line.trim().strip_prefix("URI:"));
    let identity = uri.with_context(|| format!("certificate of {server}: {}", output.stdout))?;
    Ok(identity.to_owned())
}
