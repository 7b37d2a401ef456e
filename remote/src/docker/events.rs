//! Notices changes of a daemon's images by a subscription to its events. Not every builder announces its
//! images, so the list is read as well, at most every two seconds.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, mpsc};
use std::time::{Duration, Instant};

use hyper::body::Body;
use parking_lot::{Mutex, MutexGuard};
use tokio::runtime::Runtime;
use tokio::task::JoinHandle;

use super::link::{Link, get};
use pcocc_image::Result;
use pcocc_image::store::Entry;

// {"type":["image"]}
const IMAGE_EVENTS: &str = "/events?filters=%7B%22type%22%3A%5B%22image%22%5D%7D";

/// Longest time that an unannounced change goes unnoticed.
const LOOK_EVERY: Duration = Duration::from_secs(2);

/// How long the first listing waits for the subscription: an earlier list would have to be read again.
const SUBSCRIBING: Duration = Duration::from_millis(500);

/// A running subscription.
pub(super) struct Watch {
    counter: Arc<AtomicU64>,
    looked: Mutex<Option<Look>>,
    /// The receiver disconnects when the subscription has begun or failed.
    begun: Mutex<mpsc::Receiver<()>>,
    task: JoinHandle<()>,
}

/// The result of the last listing.
struct Look {
    at: Instant,
    hash: u64,
    /// The list and the value of the counter before the listing, until the list is taken.
    found: Option<(u64, Vec<Entry>)>,
}

impl Drop for Watch {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Watch {
    pub(super) fn start(runtime: &Runtime, link: Arc<Link>) -> Self {
        let counter = Arc::new(AtomicU64::new(1));
        let (begins, begun) = mpsc::channel();
        let task = runtime.spawn(subscribe(link, Arc::clone(&counter), begins));
        Self {
            counter,
            looked: Mutex::new(None),
            begun: Mutex::new(begun),
            task,
        }
    }

    pub(super) fn changed(&self) {
        self.counter.fetch_add(1, Ordering::AcqRel);
    }

    /// The counter of changes; `list` fetches the list if the last one is too old.
    pub(super) fn version(&self, list: impl FnOnce() -> Result<Vec<Entry>>) -> Result<u64> {
        let mut looked = lock(&self.looked);
        if looked.is_none() {
            let _ = lock(&self.begun).recv_timeout(SUBSCRIBING);
        }
        let due = |look: &Look| look.at.elapsed() >= LOOK_EVERY;
        if looked.as_ref().is_none_or(due) {
            let at = Instant::now();
            let mut counter = self.counter.load(Ordering::Acquire);
            let entries = list()?;
            let mut hasher = DefaultHasher::new();
            for entry in &entries {
                (&entry.name, entry.id, entry.size).hash(&mut hasher);
            }
            let hash = hasher.finish();
            if looked.as_ref().is_none_or(|before| before.hash != hash)
                && self.counter.fetch_add(1, Ordering::AcqRel) == counter
            {
                counter += 1;
            }
            *looked = Some(Look {
                at,
                hash,
                found: Some((counter, entries)),
            });
        }
        Ok(self.counter.load(Ordering::Acquire))
    }
}

impl Watch {
    /// The list of the last listing, unless it is outdated; given out once.
    pub(super) fn take(&self) -> Option<Vec<Entry>> {
        let mut looked = lock(&self.looked);
        let (counter, entries) = looked.as_mut()?.found.take()?;
        (counter == self.counter.load(Ordering::Acquire)).then_some(entries)
    }
}

/// A panic elsewhere leaves the state complete.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock()
}

async fn subscribe(link: Arc<Link>, counter: Arc<AtomicU64>, begins: mpsc::Sender<()>) {
    let mut begins = Some(begins);
    loop {
        match get(IMAGE_EVENTS) {
            Ok(request) => {
                if let Err(error) = follow(&link, request, &counter, &mut begins).await {
                    tracing::debug!(%error, "lost the docker daemon's events");
                }
            }
            Err(error) => tracing::debug!(%error, "cannot subscribe to the docker daemon's events"),
        }
        drop(begins.take());
        // Changes before the subscription were missed.
        counter.fetch_add(1, Ordering::AcqRel);
        tokio::time::sleep(LOOK_EVERY).await;
    }
}

async fn follow(
    link: &Link,
    request: bollard::BollardRequest,
    counter: &AtomicU64,
    begins: &mut Option<mpsc::Sender<()>>,
) -> Result<(), Box<dyn std::error::Error + Send + Sync>> {
    let mut body = Box::pin(link.send(request).await?.into_body());
    counter.fetch_add(1, Ordering::AcqRel);
    drop(begins.take());
    // Any event means that the list must be read again; its content does not matter.
    while let Some(frame) = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await {
        frame?;
        counter.fetch_add(1, Ordering::AcqRel);
    }
    Ok(())
}
