//! What is done on a connection to an endpoint before anything of the application.

use std::{net::SocketAddr, sync::Arc};

use fairlead_tunnel::proxy_header;
use tokio::io::AsyncWriteExt as _;

use super::{Io, UpstreamError, Version, origin::Originator};
use crate::mesh::{OriginTls, Preamble, ProxyVersion};

/// What is done on a connection to an endpoint before anything of the application. Connections that
/// began otherwise are not the same: it is part of what they are reused by.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(in crate::proxy) struct Opening {
    proxy_header: Option<(ProxyVersion, SocketAddr, SocketAddr)>,
    tls: Option<(Arc<OriginTls>, Arc<str>)>,
}

// === impl Opening ===

impl Opening {
    /// Returns what is to be done for a connection from `client` to `destination`, which is for the
    /// host of this name; none if nothing is.
    pub(in crate::proxy) fn of(
        preamble: &Preamble,
        client: SocketAddr,
        destination: SocketAddr,
        host: &str,
    ) -> Option<Arc<Self>> {
        let proxy_header = preamble.proxy_header.map(|version| (version, client, destination));
        let tls = preamble.tls.clone().map(|tls| {
            let name = tls.server_name.clone().unwrap_or_else(|| host.to_ascii_lowercase().into());
            (tls, name)
        });
        let is_any = proxy_header.is_some() || tls.is_some();
        is_any.then(|| Arc::new(Self { proxy_header, tls }))
    }

    /// Does it.
    pub(super) async fn perform(
        &self,
        mut io: Box<dyn Io>,
        originator: &Originator,
        version: Version,
    ) -> Result<Box<dyn Io>, UpstreamError> {
        if let Some((version, client, destination)) = self.proxy_header {
            let header = match version {
                ProxyVersion::V1 => proxy_header::encode_text(client, destination),
                // Whom the client proved to be goes without saying: identities are the mesh's own.
                ProxyVersion::V2 => proxy_header::encode(client, destination, None),
            };
            io.write_all(&header).await?;
        }
        match &self.tls {
            Some((tls, name)) => {
                let begun = originator.begin(tls, name, version, io).await;
                Ok(Box::new(begun.map_err(|error| UpstreamError::Tls(error.to_string()))?))
            }
            None => Ok(io),
        }
    }
}
