//! Work that several requests wait for, done once ("single flight").
//!
//! The work has a thread of its own. A request whose tool is being ended leaves at once, however long the work
//! takes. A moment after the last request has left, the work is cancelled. The moment is for requests that the
//! kernel holds back: of several lookups of one name it sends only the first. Locks: the running flight, then
//! its state.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use parking_lot::{Condvar, Mutex};
use pcocc_core::cancel::Cancel;

use crate::errno::{Errno, Result};
use crate::process;

/// Interval at which a request checks whether its tool is being ended.
const LOOK: Duration = Duration::from_millis(100);

/// How long work continues without a waiting request.
const LINGER: Duration = Duration::from_millis(300);

#[derive(Debug)]
struct State<T> {
    waiting: usize,
    result: Option<Result<T>>,
}

#[derive(Debug)]
struct Flight<T> {
    state: Mutex<State<T>>,
    ended: Condvar,
    cancel: Cancel,
}

/// Work that runs at most once at a time; all who wait share the result.
#[derive(Debug)]
pub(super) struct SingleFlight<T>(Arc<Current<T>>);

type Current<T> = Mutex<Option<Arc<Flight<T>>>>;

impl<T> Default for SingleFlight<T> {
    fn default() -> Self {
        Self(Arc::default())
    }
}

impl<T: Clone + Send + 'static> SingleFlight<T> {
    /// Waits for the running work, or starts `work` if there is none. Fails with `INTR` when the process that
    /// this thread serves is being ended, or when `stop` is raised.
    pub(super) fn wait(
        &self,
        stop: &Cancel,
        work: impl FnOnce(&Cancel) -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let flight = self.enter(work);
        let mut caller = None;
        let mut state = flight.state.lock();
        let result = loop {
            if let Some(result) = &state.result {
                break result.clone();
            }
            if stop.is_cancelled() {
                break Err(Errno::INTR);
            }
            if flight.ended.wait_for(&mut state, LOOK).timed_out() {
                drop(state);
                let caller = caller.get_or_insert_with(process::served);
                let interrupted = caller.is_some_and(|process| process.is_interrupted());
                state = flight.state.lock();
                if interrupted && state.result.is_none() {
                    break Err(Errno::INTR);
                }
            }
        };
        drop(state);
        self.leave(flight, stop);
        result
    }

    fn enter(&self, work: impl FnOnce(&Cancel) -> Result<T> + Send + 'static) -> Arc<Flight<T>> {
        let mut current = self.0.lock();
        if let Some(flight) = &*current {
            let mut state = flight.state.lock();
            // A result that came while nobody waited is outdated.
            if state.waiting > 0 || state.result.is_none() {
                state.waiting += 1;
                return Arc::clone(flight);
            }
        }
        let flight = Arc::new(Flight {
            state: Mutex::new(State {
                waiting: 1,
                result: None,
            }),
            ended: Condvar::new(),
            cancel: Cancel::new(),
        });
        *current = Some(Arc::clone(&flight));
        let flying = Arc::clone(&flight);
        let spawned = thread::Builder::new()
            .name("pcocc-fs-flight".into())
            .spawn(move || {
                let result = catch_unwind(AssertUnwindSafe(|| work(&flying.cancel)));
                flying.end(result.unwrap_or_else(|_| {
                    tracing::error!("work for several requests failed in an unforeseen way");
                    Err(Errno::IO)
                }));
            });
        if let Err(error) = spawned {
            tracing::warn!(%error, "cannot start a thread");
            flight.end(Err(Errno::AGAIN));
        }
        flight
    }

    fn leave(&self, flight: Arc<Flight<T>>, stop: &Cancel) {
        {
            let mut current = self.0.lock();
            let mut state = flight.state.lock();
            state.waiting -= 1;
            if state.waiting > 0 {
                return;
            }
            if state.result.is_some() || stop.is_cancelled() {
                drop(state);
                flight.give_up(&mut current);
                return;
            }
        }
        let (leaving, current) = (Arc::clone(&flight), Arc::clone(&self.0));
        let spawned = thread::Builder::new().spawn(move || {
            thread::sleep(LINGER);
            leaving.give_up(&mut current.lock());
        });
        if let Err(error) = spawned {
            tracing::debug!(%error, "work nobody waits for is given up at once");
            flight.give_up(&mut self.0.lock());
        }
    }
}

impl<T> Flight<T> {
    fn end(&self, result: Result<T>) {
        self.state.lock().result = Some(result);
        self.ended.notify_all();
    }

    /// Cancels the work unless a request waits for it.
    fn give_up(self: &Arc<Self>, current: &mut Option<Arc<Self>>) {
        if self.state.lock().waiting > 0 {
            return;
        }
        self.cancel.cancel();
        if current.as_ref().is_some_and(|c| Arc::ptr_eq(c, self)) {
            *current = None;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::sync::mpsc;
    use std::time::Instant;

    #[test]
    fn all_who_wait_share_one_run() {
        let (flights, runs) = (SingleFlight::default(), Arc::new(AtomicUsize::new(0)));
        thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| {
                    let runs = Arc::clone(&runs);
                    let result = flights.wait(&Cancel::new(), move |_| {
                        thread::sleep(Duration::from_millis(200));
                        Ok(runs.fetch_add(1, Ordering::Relaxed))
                    });
                    assert_eq!(result, Ok(0));
                });
            }
        });
        let next = flights.wait(&Cancel::new(), |_| Err(Errno::NOENT));
        assert_eq!(next, Err(Errno::NOENT));
        let next = flights.wait(&Cancel::new(), |_| panic!("in the work"));
        assert_eq!(next, Err(Errno::IO));
    }

    #[test]
    fn the_last_to_leave_cancels() {
        let flights = Arc::new(SingleFlight::<()>::default());
        let (ended, cancelled) = mpsc::channel();
        let stops = [Cancel::new(), Cancel::new()];
        let waiting = stops.clone().map(|stop| {
            let (flights, ended) = (Arc::clone(&flights), ended.clone());
            thread::spawn(move || {
                flights.wait(&stop, move |cancel| {
                    while !cancel.is_cancelled() {
                        thread::sleep(Duration::from_millis(5));
                    }
                    ended.send(()).unwrap();
                    Err(Errno::INTR)
                })
            })
        });
        thread::sleep(Duration::from_millis(50));
        let [first, second] = waiting;
        stops[0].cancel();
        assert_eq!(first.join().unwrap(), Err(Errno::INTR));
        assert!(cancelled.recv_timeout(Duration::from_millis(200)).is_err());
        stops[1].cancel();
        assert_eq!(second.join().unwrap(), Err(Errno::INTR));
        cancelled.recv_timeout(Duration::from_secs(5)).unwrap();
        // Later requests do not wait for cancelled work.
        assert_eq!(flights.wait(&Cancel::new(), |_| Ok(())), Ok(()));
    }

    #[test]
    fn who_comes_a_moment_later_finds_the_work_under_way() {
        let flights = SingleFlight::default();
        // A zombie counts as ended.
        let mut child = Command::new("true").spawn().unwrap();
        let runs = Arc::new(AtomicUsize::new(0));
        let work = || {
            let runs = Arc::clone(&runs);
            move |_: &Cancel| {
                thread::sleep(Duration::from_millis(400));
                Ok(runs.fetch_add(1, Ordering::Relaxed))
            }
        };
        let first = process::serving(child.id(), || flights.wait(&Cancel::new(), work()));
        assert_eq!(first, Err(Errno::INTR));
        assert_eq!(flights.wait(&Cancel::new(), work()), Ok(0));
        // A result that came while nobody waited is not used.
        let first = process::serving(child.id(), || flights.wait(&Cancel::new(), work()));
        assert_eq!(first, Err(Errno::INTR));
        thread::sleep(Duration::from_millis(500));
        assert_eq!(flights.wait(&Cancel::new(), work()), Ok(2));
        child.wait().unwrap();
    }

    #[test]
    fn a_request_ends_with_its_process() {
        // A zombie counts as ended, and cannot take an answer any more.
        let mut child = Command::new("true").spawn().unwrap();
        let start = Instant::now();
        let result = process::serving(child.id(), || {
            SingleFlight::<()>::default().wait(&Cancel::new(), |cancel| {
                while !cancel.is_cancelled() {
                    thread::sleep(Duration::from_millis(5));
                }
                Ok(())
            })
        });
        assert_eq!(result, Err(Errno::INTR));
        assert!(start.elapsed() < Duration::from_secs(1));
        child.wait().unwrap();
    }
}
