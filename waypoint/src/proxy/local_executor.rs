//! Runs the tasks of HTTP/2 connections on their own thread.

use hyper::rt::Executor;

use super::worker::spawn;

/// Runs tasks on the thread that they come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalExecutor;

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        spawn(task);
    }
}
