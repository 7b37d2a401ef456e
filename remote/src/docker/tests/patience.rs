//! How long daemons are waited for, and what is said meanwhile.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use super::super::client::Daemon;
use super::archive::Sample;
use super::fake::Fake;
use super::faults::load;
use pcocc_core::cancel::Cancel;
use pcocc_core::progress::{Event, Progress, Reporter};
use pcocc_image::Error;
use pcocc_image::transfer::Context;

/// Longer than a daemon is waited for that nobody knows to live.
const LONG: Duration = Duration::from_secs(12);

/// A daemon that leaves everything unanswered for a while.
fn busy(time: Duration) -> Fake {
    let begun = Instant::now();
    Fake::start(Sample::new().inspected, move |_, _| {
        std::thread::sleep(time.saturating_sub(begun.elapsed()));
        false
    })
}

#[test]
fn a_busy_daemon_is_waited_for_while_its_machine_lives() {
    let fake = busy(LONG);
    let lives = Daemon::open_while(fake.endpoint(), Some(Arc::new(|| true))).unwrap();
    lives.ping().unwrap();
    // A request is no different from the first contact.
    let fake = busy(LONG);
    let lives = Daemon::open_while(fake.endpoint(), Some(Arc::new(|| true))).unwrap();
    lives.info().unwrap();
}

#[test]
fn a_silent_daemon_is_given_up_when_its_machine_ends() {
    let alive = Arc::new(AtomicBool::new(true));
    let told = Arc::clone(&alive);
    let fake = busy(Duration::from_secs(600));
    let daemon = Daemon::open_while(
        fake.endpoint(),
        Some(Arc::new(move || told.load(Ordering::SeqCst))),
    );
    std::thread::spawn(move || {
        std::thread::sleep(LONG);
        alive.store(false, Ordering::SeqCst);
    });
    let begun = Instant::now();
    let error = daemon.unwrap().ping().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(begun.elapsed() > LONG, "{:?}", begun.elapsed());
    // One that refuses connections is not waited for.
    let fake = busy(LONG);
    fake.vanish();
    let daemon = Daemon::open_while(fake.endpoint(), Some(Arc::new(|| true))).unwrap();
    let begun = Instant::now();
    let error = daemon.ping().unwrap_err();
    assert!(matches!(error, Error::Unreachable { .. }), "{error}");
    assert!(begun.elapsed() < Duration::from_secs(5));
}

#[test]
fn a_load_says_that_docker_unpacks() {
    #[derive(Default)]
    struct Stages(Mutex<Vec<String>>);
    impl Progress for Stages {
        fn event(&self, event: Event) {
            if let Event::Stage(text) = event {
                self.0.lock().unwrap().push(text);
            }
        }
    }
    let stages = Arc::new(Stages::default());
    let context = Context {
        progress: Reporter::new(Arc::clone(&stages) as Arc<dyn Progress>),
        cancel: Cancel::new(),
    };
    load(&context, |_| false).unwrap();
    assert_eq!(*stages.0.lock().unwrap(), ["Docker unpacks the layers"]);
}
