//! Runs the tasks of HTTP/2 connections on their own thread.

use std::rc::Rc;

use hyper::rt::Executor;
use tokio::{sync::Notify, task_local};

use super::worker::spawn;

task_local! {
    /// Ends the stream whose task this is.
    static STOP: Rc<Notify>;
}

/// Runs tasks on the thread that they come from.
#[derive(Clone, Copy, Debug)]
pub(super) struct LocalExecutor;

/// Runs the tasks of a server's streams on the thread that they come from. A task can be ended from
/// outside: then its stream is reset, whatever it waits for.
#[derive(Clone, Copy, Debug)]
pub(super) struct StreamExecutor;

/// Returns what ends the stream whose task this is, if it is one of several.
pub(super) fn stop_of_stream() -> Option<Rc<Notify>> {
    STOP.try_with(Rc::clone).ok()
}

impl<F: Future<Output = ()> + 'static> Executor<F> for LocalExecutor {
    fn execute(&self, task: F) {
        spawn(task);
    }
}

impl<F: Future<Output = ()> + 'static> Executor<F> for StreamExecutor {
    fn execute(&self, task: F) {
        let stop = Rc::<Notify>::default();
        let stopped = stop.clone();
        spawn(STOP.scope(stop, async move {
            tokio::select! {
                () = task => {}
                () = stopped.notified() => {}
            }
        }));
    }
}
