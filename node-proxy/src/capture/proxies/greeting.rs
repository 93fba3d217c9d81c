//! The first words with a proxy.

use std::{os::fd::OwnedFd, time::Duration};

use tokio::time::timeout;

use crate::link::{
    VERSION,
    channel::{Channel, ChannelError},
    listeners::{EndpointListeners, PodListeners},
    message::{PodId, ToCapture, ToProxy},
    understands,
};

/// Time that the first words may take: a proxy that is just starting reads its configuration first.
const GREETING_TIMEOUT: Duration = Duration::from_secs(20);

/// A proxy that has said who it is.
#[derive(Debug)]
pub struct Greeted {
    pub(in crate::capture) channel: Channel,
    pub(in crate::capture) draining: bool,
    /// Listening sockets of pods, from before this capture process was started.
    pub(in crate::capture) pods: Vec<(PodId, PodListeners)>,
    /// Listening sockets for operators, likewise.
    pub endpoints: Option<EndpointListeners>,
}

/// Why a proxy cannot be served.
#[derive(Debug, thiserror::Error)]
pub enum GreetingError {
    /// The link broke.
    #[error("the link to a proxy broke: {0}")]
    Channel(#[from] ChannelError),
    /// The proxy ended, or was linked anew.
    #[error("the proxy is gone")]
    Gone,
    /// The proxy says nothing.
    #[error("the proxy does not answer")]
    Timeout,
    /// The proxy is of a release that this one does not understand.
    #[error("the proxy speaks version {0} of the protocol; this release speaks {VERSION}")]
    Version(u16),
    /// A message came without its sockets.
    #[error("the proxy sent a message without its sockets; is the process out of descriptors?")]
    Sockets,
}

/// Exchanges the first words over a link.
pub async fn greet(socket: OwnedFd) -> Result<Greeted, GreetingError> {
    let channel = Channel::new(socket).map_err(ChannelError::from)?;
    timeout(GREETING_TIMEOUT, exchange(channel)).await.map_err(|_| GreetingError::Timeout)?
}

async fn exchange(channel: Channel) -> Result<Greeted, GreetingError> {
    channel.send(&ToProxy::Hello { version: VERSION }, &[]).await?;
    let (mut expected, draining) = loop {
        // What was meant for a predecessor is of no use any more; the proxy asks again.
        let Some(received) = channel.receive().await? else { return Err(GreetingError::Gone) };
        let ToCapture::Hello { version, holding, draining } = received.message else { continue };
        if !understands(version) {
            return Err(GreetingError::Version(version));
        }
        break (holding, draining);
    };
    let (mut pods, mut endpoints) = (Vec::new(), None);
    while expected > 0 {
        let Some(received) = channel.receive().await? else { return Err(GreetingError::Gone) };
        match received.message {
            ToCapture::Holding { pod } => {
                let listeners = PodListeners::from_descriptors(received.descriptors);
                pods.push((pod, listeners.ok_or(GreetingError::Sockets)?));
            }
            ToCapture::HoldingEndpoints => {
                let listeners = EndpointListeners::from_descriptors(received.descriptors);
                endpoints = Some(listeners.ok_or(GreetingError::Sockets)?);
            }
            ToCapture::Hello { .. }
            | ToCapture::Registered
            | ToCapture::Serving { .. }
            | ToCapture::Complete
            | ToCapture::Silent { .. }
            | ToCapture::Idle { .. }
            | ToCapture::Need { .. }
            | ToCapture::Pods { .. }
            | ToCapture::Unknown => continue,
        }
        expected -= 1;
    }
    Ok(Greeted { channel, draining, pods, endpoints })
}
