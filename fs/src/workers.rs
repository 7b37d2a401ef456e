//! Threads for requests that wait: exports, commits, listings of a far daemon.
//!
//! There are as many threads as waiting requests, up to a limit; a thread without work ends after a while. The
//! event loops of the mount never wait for a worker.

use std::collections::VecDeque;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};

/// Most threads; further requests wait in line.
const MOST: usize = 128;

/// How long a thread waits for work.
const IDLE: Duration = Duration::from_secs(10);

type Job = Box<dyn FnOnce() + Send>;

#[derive(Default)]
struct State {
    jobs: VecDeque<Job>,
    idle: usize,
    threads: usize,
}

/// A set of threads that grows and shrinks. Clones share it.
#[derive(Clone, Default)]
pub(crate) struct Workers(Arc<(Mutex<State>, Condvar)>);

impl std::fmt::Debug for Workers {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let state = self.0.0.lock();
        f.debug_struct("Workers")
            .field("threads", &state.threads)
            .field("waiting", &state.jobs.len())
            .finish()
    }
}

impl Workers {
    /// Runs `job` on a thread of its own.
    pub(crate) fn run(&self, job: impl FnOnce() + Send + 'static) {
        let (state, wake) = &*self.0;
        let mut state = state.lock();
        state.jobs.push_back(Box::new(job));
        if state.idle >= state.jobs.len() {
            wake.notify_one();
            return;
        }
        if state.threads >= MOST {
            return;
        }
        let workers = self.clone();
        let spawned = thread::Builder::new()
            .name("pcocc-fs-worker".into())
            .spawn(move || workers.work());
        match spawned {
            Ok(_) => state.threads += 1,
            // Another thread will do the job, unless there is none.
            Err(error) => {
                tracing::warn!(%error, "cannot start a worker");
                if state.threads == 0
                    && let Some(job) = state.jobs.pop_back()
                {
                    drop(state);
                    job();
                }
            }
        }
    }

    fn work(&self) {
        let (mutex, wake) = &*self.0;
        let mut state = mutex.lock();
        loop {
            if let Some(job) = state.jobs.pop_front() {
                drop(state);
                // A job that panics drops its reply; fuser then answers with an error.
                if std::panic::catch_unwind(std::panic::AssertUnwindSafe(job)).is_err() {
                    tracing::error!("a request failed in an unforeseen way");
                }
                state = mutex.lock();
                continue;
            }
            state.idle += 1;
            let timeout = wake.wait_for(&mut state, IDLE);
            state.idle -= 1;
            if timeout.timed_out() && state.jobs.is_empty() {
                state.threads -= 1;
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::mpsc;

    #[test]
    fn waiting_jobs_do_not_hold_up_others() {
        let workers = Workers::default();
        let (release, held) = mpsc::channel::<()>();
        let held = Arc::new(Mutex::new(held));
        for _ in 0..20 {
            let held = Arc::clone(&held);
            workers.run(move || {
                let _ = held.lock().recv();
            });
        }
        let (done, finished) = mpsc::channel();
        workers.run(|| panic!("in a job"));
        workers.run(move || done.send(()).unwrap());
        finished.recv_timeout(Duration::from_secs(10)).unwrap();
        drop(release);
    }
}
