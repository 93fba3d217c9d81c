//! Options about the control plane, with the environment variables that Istio's node proxy has.

use std::{net::IpAddr, path::PathBuf};

use clap::Args;

use super::{Address, ControlPlane, InvalidAddress, server_name};

/// Roots of the control plane, where Istio's charts mount them.
const DEFAULT_ROOTS: &str = "/var/run/secrets/istio/root-cert.pem";

/// Token, where Istio's charts mount it.
const DEFAULT_TOKEN: &str = "/var/run/secrets/tokens/istio-token";

/// The control plane and who this proxy is to it.
#[derive(Debug, Args)]
#[command(next_help_heading = "Control plane")]
pub struct ControlPlaneArgs {
    /// Address of the control plane, which then says what the mesh is, such as
    /// istiod.istio-system.svc:15012. The connection is always encrypted.
    #[arg(long, env = "XDS_ADDRESS", value_name = "URL")]
    pub xds_address: Option<Address>,
    /// Address of the certificate service [default: that of --xds-address, unless certificates are
    /// issued by something else].
    #[arg(long, env = "CA_ADDRESS", value_name = "URL")]
    pub ca_address: Option<Address>,
    /// PEM file with the roots that the control plane's certificate chains to. It is read anew for
    /// each connection [default: /var/run/secrets/istio/root-cert.pem].
    #[arg(long, env = "XDS_ROOT_CA", value_name = "FILE")]
    pub xds_root_ca: Option<PathBuf>,
    /// The same for the certificate service [default: that of --xds-root-ca].
    #[arg(long, env = "CA_ROOT_CA", value_name = "FILE")]
    pub ca_root_ca: Option<PathBuf>,
    /// File with the token that says who this proxy is. It is read anew for each call [default:
    /// /var/run/secrets/tokens/istio-token].
    #[arg(long, env = "AUTH_TOKEN", value_name = "FILE")]
    pub auth_token: Option<PathBuf>,
    /// Name that the control plane's certificate has to carry, if it is not its host name.
    #[arg(long, env = "ALT_XDS_HOSTNAME", value_name = "NAME", value_parser = host_name)]
    pub alt_xds_hostname: Option<String>,
    /// The same for the certificate service.
    #[arg(long, env = "ALT_CA_HOSTNAME", value_name = "NAME", value_parser = host_name)]
    pub alt_ca_hostname: Option<String>,
    /// Cluster that this node is of.
    #[arg(long, env = "CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Name of this proxy's own pod [default: the node's name].
    #[arg(long, env = "POD_NAME")]
    pub pod_name: Option<String>,
    /// Namespace of this proxy's own pod.
    #[arg(long, env = "POD_NAMESPACE", default_value = "istio-system")]
    pub pod_namespace: String,
    /// Address of this proxy's own pod.
    #[arg(long, env = "INSTANCE_IP", value_name = "ADDRESS")]
    pub instance_ip: Option<IpAddr>,
}

// === impl ControlPlaneArgs ===

impl ControlPlaneArgs {
    /// Returns the discovery service, at `address`.
    pub fn xds(&self, address: &Address) -> ControlPlane {
        self.reach(address, self.xds_root_ca.as_ref(), self.alt_xds_hostname.as_deref())
    }

    /// Returns the certificate service, at `address`.
    pub fn ca(&self, address: &Address) -> ControlPlane {
        let roots = self.ca_root_ca.as_ref().or(self.xds_root_ca.as_ref());
        let name = self.alt_ca_hostname.as_deref().or(self.alt_xds_hostname.as_deref());
        self.reach(address, roots, name)
    }

    fn reach(
        &self,
        address: &Address,
        roots: Option<&PathBuf>,
        name: Option<&str>,
    ) -> ControlPlane {
        ControlPlane {
            address: address.clone(),
            // Names were checked when the options were read.
            server_name: name.and_then(|name| server_name(name).ok()),
            roots: roots.map_or_else(|| DEFAULT_ROOTS.into(), Clone::clone),
            token: self.auth_token.as_ref().map_or_else(|| DEFAULT_TOKEN.into(), Clone::clone),
            cluster_id: self.cluster_id.clone(),
        }
    }
}

fn host_name(text: &str) -> Result<String, InvalidAddress> {
    server_name(text).map(|_| text.to_owned())
}
