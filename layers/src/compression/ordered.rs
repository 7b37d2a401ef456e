//! Worker threads that take jobs in order and return results in the same order.
//!
//! The owner pushes jobs while there is room, and pops the oldest result otherwise, both on its own thread.
//! Threads start when jobs pile up, so that a small layer needs one thread. They end with the owner.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::thread::{Builder, JoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

/// Makes the function that a worker runs for every job, with the worker's own state in it.
type MakeWork<I, O> = Arc<dyn Fn() -> Box<dyn FnMut(I) -> O> + Send + Sync>;

/// A pool of workers and the jobs under way, oldest first.
pub(crate) struct Ordered<I, O> {
    make: MakeWork<I, O>,
    threads: usize,
    jobs: Option<Sender<(I, Sender<O>)>>,
    queue: Receiver<(I, Sender<O>)>,
    pending: VecDeque<Receiver<O>>,
    workers: Vec<JoinHandle<()>>,
}

impl<I: Send + 'static, O: Send + 'static> Ordered<I, O> {
    /// A pool of at most `threads` threads.
    pub(crate) fn new<F>(threads: usize, make: impl Fn() -> F + Send + Sync + 'static) -> Self
    where
        F: FnMut(I) -> O + 'static,
    {
        let (jobs, queue) = unbounded();
        Self {
            make: Arc::new(move || Box::new(make())),
            threads: threads.max(1),
            jobs: Some(jobs),
            queue,
            pending: VecDeque::new(),
            workers: Vec::new(),
        }
    }

    /// Whether the pool is full: a result must be popped before the next push.
    pub(crate) fn is_full(&self) -> bool {
        self.pending.len() >= self.threads + 2
    }

    /// Hands a job to the workers.
    pub(crate) fn push(&mut self, job: I) -> io::Result<()> {
        if self.workers.len() < self.threads && self.workers.len() <= self.pending.len() {
            self.start()?;
        }
        let (done, result) = bounded(1);
        self.pending.push_back(result);
        match &self.jobs {
            Some(jobs) => jobs.send((job, done)).map_err(|_| died()),
            None => Err(died()),
        }
    }

    /// Waits for the oldest job's result; `None` when nothing is under way.
    pub(crate) fn pop(&mut self) -> Option<io::Result<O>> {
        let oldest = self.pending.pop_front()?;
        Some(oldest.recv().map_err(|_| died()))
    }

    fn start(&mut self) -> io::Result<()> {
        let (make, queue) = (Arc::clone(&self.make), self.queue.clone());
        let work = move || {
            let mut work = make();
            for (job, done) in queue {
                // An owner that has given up does not wait for the result.
                let _ = done.send(work(job));
            }
        };
        match Builder::new().name("layer".to_owned()).spawn(work) {
            Ok(worker) => self.workers.push(worker),
            // Threads are rationed: the running ones do the work.
            Err(error) if !self.workers.is_empty() => {
                tracing::debug!(%error, "cannot start another thread");
                self.threads = self.workers.len();
            }
            Err(error) => return Err(error),
        }
        Ok(())
    }
}

impl<I, O> Drop for Ordered<I, O> {
    fn drop(&mut self) {
        self.jobs = None;
        // Waiting jobs are dropped.
        while self.queue.try_recv().is_ok() {}
        for worker in self.workers.drain(..) {
            if worker.join().is_err() {
                tracing::debug!("a layer thread panicked");
            }
        }
    }
}

fn died() -> io::Error {
    io::Error::other("a layer thread ended early")
}
