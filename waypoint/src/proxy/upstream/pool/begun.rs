//! Connections that are being made, whether somebody still waits for them or not.
//!
//! A request may be given up before it has its connection. Broken off with it, the connection would be a
//! stream that the endpoint's node sees opened and reset: after some of them it ends the tunnel, and with
//! it what others are being answered. So it is made nevertheless, and is for the next request.

use std::{cell::RefCell, collections::HashMap};

use tokio::sync::oneshot::{Receiver, error::TryRecvError};

use super::{Connection, Key, UpstreamError};

/// A connection that is being made.
pub(super) type Making = Receiver<Result<Connection, UpstreamError>>;

/// Connections that are being made, or have been, and that nobody waits for.
#[derive(Debug, Default)]
pub(super) struct Begun(RefCell<HashMap<Key, Vec<Making>>>);

/// Somebody who waits for a connection.
struct Waiting<'a> {
    begun: &'a Begun,
    key: &'a Key,
    /// None once it is made.
    making: Option<Making>,
}

// === impl Begun ===

impl Begun {
    /// Waits for a connection, which is left to others if that is given up.
    pub(super) async fn wait(
        &self,
        key: &Key,
        making: Making,
    ) -> Result<Connection, UpstreamError> {
        let mut waiting = Waiting { begun: self, key, making: Some(making) };
        let made = match &mut waiting.making {
            Some(making) => making.await.ok(),
            None => None,
        };
        waiting.making = None;
        // Without a result the task has panicked, or the thread is about to end.
        made.unwrap_or_else(|| Err(UpstreamError::Connect("the attempt was lost".to_owned())))
    }

    /// Takes a connection that nobody waits for.
    pub(super) fn take(&self, key: &Key) -> Option<Making> {
        let mut left = self.0.borrow_mut();
        let making = left.get_mut(key)?.pop();
        if left.get(key).is_some_and(Vec::is_empty) {
            left.remove(key);
        }
        making
    }

    /// Takes those connections that are made.
    pub(super) fn made(&self, key: &Key) -> Vec<Connection> {
        let mut left = self.0.borrow_mut();
        // Most often there are none at all.
        if left.is_empty() {
            return Vec::new();
        }
        let made = left.get_mut(key).map(take_made).unwrap_or_default();
        if left.get(key).is_some_and(Vec::is_empty) {
            left.remove(key);
        }
        made
    }

    /// Takes those connections that are made, whatever they belong to.
    pub(super) fn all_made(&self) -> Vec<(Key, Connection)> {
        let mut made = Vec::new();
        self.0.borrow_mut().retain(|key, left| {
            made.extend(take_made(left).into_iter().map(|connection| (key.clone(), connection)));
            !left.is_empty()
        });
        made
    }
}

/// Takes what is made; what has failed is forgotten.
fn take_made(left: &mut Vec<Making>) -> Vec<Connection> {
    let mut made = Vec::new();
    left.retain_mut(|making| match making.try_recv() {
        Ok(result) => {
            made.extend(result);
            false
        }
        Err(TryRecvError::Closed) => false,
        Err(TryRecvError::Empty) => true,
    });
    made
}

// === impl Waiting ===

impl Drop for Waiting<'_> {
    fn drop(&mut self) {
        if let Some(making) = self.making.take() {
            self.begun.0.borrow_mut().entry(self.key.clone()).or_default().push(making);
        }
    }
}
