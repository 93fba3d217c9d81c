//! What the log says of discovery, the same for every consumer.

use super::{Rejection, StreamEnd};

/// Refused resources of one update that are logged, each in a line; the rest is counted.
const MAX_LOGGED_REJECTIONS: usize = 10;

/// Tells the log of the streams, once a loss: attempts come faster than anyone reads.
#[derive(Debug, Default)]
pub struct StreamLog {
    connected: bool,
}

// === impl StreamLog ===

impl StreamLog {
    /// Says that the control plane takes requests.
    pub fn connected(&mut self) {
        self.connected = true;
        tracing::info!("connected to the control plane");
    }

    /// Says why a stream ended: a loss is a warning, a vain attempt is not.
    pub fn disconnected(&mut self, end: &StreamEnd) {
        if std::mem::take(&mut self.connected) {
            tracing::warn!(reason = %end, "lost the control plane; what is known stays in force");
        } else {
            tracing::info!(reason = %end, "cannot reach the control plane");
        }
    }

    /// Names refused resources, and why each is of no use.
    pub fn refused(&self, rejections: &[Rejection]) {
        for Rejection { name, reason } in rejections.iter().take(MAX_LOGGED_REJECTIONS) {
            tracing::warn!(resource = %name, %reason, "refused a resource; others are not affected");
        }
        if let Some(more) = rejections.len().checked_sub(MAX_LOGGED_REJECTIONS).filter(|n| *n > 0) {
            tracing::warn!(more, "refused further resources");
        }
    }
}
