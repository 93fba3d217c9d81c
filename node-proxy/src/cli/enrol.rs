//! Options about who decides which pods are in the mesh.

use std::path::{Path, PathBuf};

use clap::{Args, ValueEnum};
use http::Uri;
use mesh_api::{control_plane::ControlPlane, xds_client::Introduction};

use super::{Configuration, ProxyUser, RunArgs, Sources, user};
use crate::agent::kubernetes::ApiAccess;

/// Where Kubernetes mounts what a pod needs to talk to the API server.
const SERVICE_ACCOUNT_DIR: &str = "/var/run/secrets/kubernetes.io/serviceaccount";

/// Who decides which pods are in the mesh.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, ValueEnum)]
pub enum Enrol {
    /// Operators: `fairlead-node pod add` enrols, `pod remove` releases.
    #[default]
    Manual,
    /// The labels of pods and namespaces in the Kubernetes API: `istio.io/dataplane-mode`. Pods that
    /// operators enrol are enrolled beside.
    Kubernetes,
    /// The control plane: `fairlead-node pod add` says where a pod's network is, and it is enrolled
    /// while the control plane says that it takes part.
    ControlPlane,
}

/// How it is decided which pods are in the mesh.
#[derive(Debug, Args)]
#[command(next_help_heading = "Enrolment")]
pub struct EnrolArgs {
    /// Who decides which pods are in the mesh. Whatever the answer was last stays in force while
    /// nobody can be asked.
    #[arg(long, value_enum, env = "FAIRLEAD_ENROL", default_value = "manual")]
    pub enrol: Enrol,
    /// User and group, as numbers, that the agent becomes, the process that asks. It needs to read
    /// tokens and root certificates, and nothing else.
    #[arg(long, value_name = "UID[:GID]", default_value = "65533:65532", value_parser = user)]
    pub agent_user: ProxyUser,
    /// Address of the Kubernetes API server [default: that of the cluster that this runs in].
    #[arg(long, value_name = "URL")]
    pub kube_api: Option<Uri>,
    /// File with the token for it, read anew when it is renewed [default: that of this pod's service
    /// account].
    #[arg(long, value_name = "FILE")]
    pub kube_token: Option<PathBuf>,
    /// PEM file with the roots that its certificate chains to [default: as above].
    #[arg(long, value_name = "FILE")]
    pub kube_root_ca: Option<PathBuf>,
    /// Where the processes of the whole node are seen, by which pods are found. A container needs
    /// hostPID.
    #[arg(long, value_name = "DIR", default_value = "/proc")]
    pub proc_dir: PathBuf,
    /// Where the container runtime mounts the network namespaces of pods, if it does. Such a mount
    /// is there for as long as the pod, which a process may not be.
    #[arg(long, value_name = "DIR", default_value = "/run/netns")]
    pub netns_dir: PathBuf,
    /// Host of the API server, as Kubernetes tells its pods.
    #[arg(long, hide = true, env = "KUBERNETES_SERVICE_HOST")]
    pub kube_service_host: Option<String>,
    /// Its port.
    #[arg(long, hide = true, env = "KUBERNETES_SERVICE_PORT", default_value = "443")]
    pub kube_service_port: u16,
}

/// Whom the agent asks.
#[derive(Clone, Debug)]
pub enum Authority {
    /// The Kubernetes API server.
    Kubernetes(ApiAccess),
    /// The control plane, to which this proxy introduces itself.
    ControlPlane(Box<ControlPlane>, Box<Introduction>),
}

/// Why options do not fit each other.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EnrolError {
    /// There is no control plane to ask.
    #[error(
        "--enrol control-plane (or FAIRLEAD_ENROL) needs a control plane: give --xds-address URL \
         too"
    )]
    NoControlPlane,
    /// There is no API server to ask.
    #[error(
        "--enrol kubernetes (or FAIRLEAD_ENROL) needs an API server, and this does not run in a \
         cluster: give --kube-api URL"
    )]
    NoApiServer,
    /// The API server's certificate cannot be verified.
    #[error("--kube-api with https needs the roots of its certificate: give --kube-root-ca FILE")]
    NoRoots,
    /// An option has no effect, so something else is meant than what would be done.
    #[error("{0} has no effect without --enrol kubernetes: remove it, or give that too")]
    WithoutEffect(&'static str),
}

// === impl Authority ===

impl Authority {
    /// Returns whom the agent asks, if there is an agent.
    pub fn of(args: &RunArgs, sources: &Sources) -> Result<Option<Self>, EnrolError> {
        args.enrolment.refuse_without_effect()?;
        match args.enrolment.enrol {
            Enrol::Manual => Ok(None),
            Enrol::Kubernetes => Ok(Some(Self::Kubernetes(args.enrolment.api_access()?))),
            Enrol::ControlPlane => match &sources.configuration {
                Configuration::ControlPlane(control_plane, introduction) => {
                    Ok(Some(Self::ControlPlane(control_plane.clone(), introduction.clone())))
                }
                Configuration::File(_) => Err(EnrolError::NoControlPlane),
            },
        }
    }

    /// Returns the files that are read while the agent runs.
    pub fn files(&self) -> Vec<&Path> {
        match self {
            Self::Kubernetes(api) => {
                api.token.iter().chain(&api.roots).map(AsRef::as_ref).collect()
            }
            Self::ControlPlane(control_plane, _) => {
                vec![&control_plane.roots, &control_plane.token]
            }
        }
    }

    /// Changes the path of each of them.
    pub fn map_files<E>(
        &mut self,
        mut change: impl FnMut(&Path) -> Result<PathBuf, E>,
    ) -> Result<(), E> {
        let files: Vec<&mut PathBuf> = match self {
            Self::Kubernetes(api) => api.token.iter_mut().chain(&mut api.roots).collect(),
            Self::ControlPlane(control_plane, _) => {
                vec![&mut control_plane.roots, &mut control_plane.token]
            }
        };
        for file in files {
            *file = change(file)?;
        }
        Ok(())
    }
}

// === impl EnrolArgs ===

impl EnrolArgs {
    /// A server that is named gets no credentials but those that are named, too.
    fn api_access(&self) -> Result<ApiAccess, EnrolError> {
        if let Some(url) = &self.kube_api {
            let (token, roots) = (self.kube_token.clone(), self.kube_root_ca.clone());
            // The system's are out of the agent's sight.
            if url.scheme_str() == Some("https") && roots.is_none() {
                return Err(EnrolError::NoRoots);
            }
            return Ok(ApiAccess { url: url.clone(), token, roots });
        }
        let host = self.kube_service_host.as_ref().ok_or(EnrolError::NoApiServer)?;
        let host = if host.contains(':') { format!("[{host}]") } else { host.clone() };
        let url = format!("https://{host}:{}", self.kube_service_port);
        let own = |given: Option<&PathBuf>, name: &str| {
            Some(given.cloned().unwrap_or_else(|| Path::new(SERVICE_ACCOUNT_DIR).join(name)))
        };
        Ok(ApiAccess {
            url: url.parse().map_err(|_| EnrolError::NoApiServer)?,
            token: own(self.kube_token.as_ref(), "token"),
            roots: own(self.kube_root_ca.as_ref(), "ca.crt"),
        })
    }

    fn refuse_without_effect(&self) -> Result<(), EnrolError> {
        let given = [
            (self.kube_api.is_some(), "--kube-api"),
            (self.kube_token.is_some(), "--kube-token"),
            (self.kube_root_ca.is_some(), "--kube-root-ca"),
        ];
        let first = given.into_iter().find(|(is_given, _)| *is_given);
        match first {
            Some((_, option)) if self.enrol != Enrol::Kubernetes => {
                Err(EnrolError::WithoutEffect(option))
            }
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests;
