//! Where the mesh and its certificates come from, by the options.

use std::{
    path::{Path, PathBuf},
    time::Duration,
};

use fairlead_tunnel::identity::DEFAULT_SVID_TTL;
use mesh_api::{
    control_plane::{ControlPlane, ControlPlaneArgs},
    workload::{Network, NodeName},
    xds_client::{Introduction, Role},
};

use super::RunArgs;

/// Lifetime of certificates of the embedded CA, which costs nothing to ask.
const LOCAL_SVID_TTL: Duration = Duration::from_hours(1);

/// Where the mesh and its certificates come from.
#[derive(Clone, Debug)]
pub struct Sources {
    /// What says what the mesh is.
    pub configuration: Configuration,
    /// What issues certificates.
    pub certificates: Certificates,
    /// Lifetime of the certificates.
    pub svid_ttl: Duration,
}

/// What says what the mesh is.
#[derive(Clone, Debug)]
pub enum Configuration {
    /// A file.
    File(PathBuf),
    /// The control plane, to which this proxy introduces itself.
    ControlPlane(Box<ControlPlane>, Box<Introduction>),
}

/// What issues certificates.
#[derive(Clone, Debug)]
pub enum Certificates {
    /// The embedded CA, with its root in this directory.
    Local(PathBuf),
    /// The control plane.
    ControlPlane(Box<ControlPlane>),
}

/// Why options do not fit each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SourcesError {
    /// Nothing says what the mesh is.
    #[error(
        "nothing says what the mesh is: give --xds-address URL (or XDS_ADDRESS) for a control \
         plane, or --local-config FILE to do without one"
    )]
    NoConfiguration,
    /// Two things do.
    #[error(
        "both --local-config and --xds-address (or XDS_ADDRESS) say what the mesh is: remove one \
         of them"
    )]
    TwoConfigurations,
    /// Nothing issues certificates.
    #[error(
        "nothing issues certificates: give --ca-address URL (or CA_ADDRESS) for a control plane, \
         or --local-ca DIR to do without one"
    )]
    NoCertificates,
    /// Two things do.
    #[error(
        "both --local-ca and --ca-address (or CA_ADDRESS) issue certificates: remove one of them"
    )]
    TwoCertificates,
    /// An option has no effect, so something else is meant than what would be done.
    #[error("{option} (or {variable}) has no effect without {needs}: remove it, or give that too")]
    WithoutEffect {
        /// The option.
        option: &'static str,
        /// Its environment variable.
        variable: &'static str,
        /// The option that it goes with.
        needs: &'static str,
    },
}

// === impl Sources ===

impl Sources {
    /// Returns what `args` say.
    pub fn of(args: &RunArgs) -> Result<Self, SourcesError> {
        let remote = &args.control_plane;
        let configuration = match (&args.local_config, &remote.xds_address) {
            (Some(file), None) => Configuration::File(file.clone()),
            (None, Some(address)) => {
                let introduction = Box::new(introduction(args));
                Configuration::ControlPlane(Box::new(remote.xds(address)), introduction)
            }
            (None, None) => return Err(SourcesError::NoConfiguration),
            (Some(_), Some(_)) => return Err(SourcesError::TwoConfigurations),
        };
        let ca_address = remote.ca_address.as_ref();
        let certificates = match (&args.local_ca, ca_address, &remote.xds_address) {
            (Some(dir), None, _) => Certificates::Local(dir.clone()),
            (None, Some(address), _) | (None, None, Some(address)) => {
                Certificates::ControlPlane(Box::new(remote.ca(address)))
            }
            (None, None, None) => return Err(SourcesError::NoCertificates),
            (Some(_), Some(_), _) => return Err(SourcesError::TwoCertificates),
        };
        let by_default = match certificates {
            Certificates::Local(_) => LOCAL_SVID_TTL,
            Certificates::ControlPlane(_) => DEFAULT_SVID_TTL,
        };
        let svid_ttl = args.svid_ttl.unwrap_or(by_default);
        let sources = Self { configuration, certificates, svid_ttl };
        sources.refuse_without_effect(remote)?;
        Ok(sources)
    }

    /// Returns the files that are read while the proxy runs.
    pub fn files(&self) -> Vec<&Path> {
        let mut files: Vec<&Path> = match &self.configuration {
            Configuration::File(file) => vec![file],
            Configuration::ControlPlane(control_plane, _) => files_of(control_plane).to_vec(),
        };
        match &self.certificates {
            Certificates::Local(_) => {}
            Certificates::ControlPlane(control_plane) => files.extend(files_of(control_plane)),
        }
        files
    }

    /// Changes the path of each file that is read while the proxy runs.
    pub fn map_files<E>(
        &mut self,
        mut change: impl FnMut(&Path) -> Result<PathBuf, E>,
    ) -> Result<(), E> {
        let mut of_control_plane = |control_plane: &mut ControlPlane| {
            control_plane.roots = change(&control_plane.roots)?;
            control_plane.token = change(&control_plane.token)?;
            Ok(())
        };
        match &mut self.certificates {
            Certificates::Local(_) => {}
            Certificates::ControlPlane(control_plane) => of_control_plane(control_plane)?,
        }
        match &mut self.configuration {
            Configuration::File(file) => *file = change(file)?,
            Configuration::ControlPlane(control_plane, _) => of_control_plane(control_plane)?,
        }
        Ok(())
    }

    /// Returns whether anything comes from a control plane.
    pub fn has_control_plane(&self) -> bool {
        matches!(self.configuration, Configuration::ControlPlane(..))
            || matches!(self.certificates, Certificates::ControlPlane(_))
    }

    fn refuse_without_effect(&self, args: &ControlPlaneArgs) -> Result<(), SourcesError> {
        let xds = matches!(self.configuration, Configuration::ControlPlane(..));
        let ca = matches!(self.certificates, Certificates::ControlPlane(_));
        let either = xds || ca;
        for (is_given, option, variable, needs, has_effect) in [
            (args.xds_root_ca.is_some(), "--xds-root-ca", "XDS_ROOT_CA", "--xds-address", either),
            (
                args.alt_xds_hostname.is_some(),
                "--alt-xds-hostname",
                "ALT_XDS_HOSTNAME",
                "--xds-address",
                either,
            ),
            (args.ca_root_ca.is_some(), "--ca-root-ca", "CA_ROOT_CA", "--ca-address", ca),
            (
                args.alt_ca_hostname.is_some(),
                "--alt-ca-hostname",
                "ALT_CA_HOSTNAME",
                "--ca-address",
                ca,
            ),
            (args.auth_token.is_some(), "--auth-token", "AUTH_TOKEN", "--xds-address", either),
        ] {
            if is_given && !has_effect {
                return Err(SourcesError::WithoutEffect { option, variable, needs });
            }
        }
        Ok(())
    }
}

fn files_of(control_plane: &ControlPlane) -> [&Path; 2] {
    [&control_plane.roots, &control_plane.token]
}

fn introduction(args: &RunArgs) -> Introduction {
    let own = &args.control_plane;
    Introduction {
        role: Role::NodeProxy,
        node_name: NodeName(args.node_name.as_str().into()),
        pod_name: own.pod_name.clone().unwrap_or_else(|| args.node_name.clone()),
        pod_namespace: own.pod_namespace.clone(),
        address: own.instance_ip,
        cluster_id: own.cluster_id.clone(),
        network: Network(args.network.as_str().into()),
    }
}

#[cfg(test)]
mod tests;
