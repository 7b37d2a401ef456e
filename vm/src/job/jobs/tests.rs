//! What is believed of a record, and which job is meant.

use std::collections::HashMap;

use super::*;
use crate::job::{Holder, Queued, Wanted};

/// A queue with a fixed answer.
struct Answer(Option<HashMap<JobId, Queued>>);

impl Queue for Answer {
    fn query(&self, _: &[JobId]) -> Option<HashMap<JobId, Queued>> {
        self.0.clone()
    }
}

/// A queue nobody may ask.
struct Unasked;

impl Queue for Unasked {
    fn query(&self, ids: &[JobId]) -> Option<HashMap<JobId, Queued>> {
        panic!("asked for {ids:?}");
    }
}

struct Home {
    folder: tempfile::TempDir,
    jobs: Jobs,
}

impl Home {
    fn new() -> Self {
        let folder = tempfile::tempdir().unwrap();
        let jobs = Jobs::open(folder.path()).unwrap();
        Self { folder, jobs }
    }

    fn put(&self, number: u32, backend: Backend, state: State, holder: Option<Holder>) -> JobId {
        let id = JobId::new(number).unwrap();
        let folder = self.jobs.folder(id);
        let _ = folder.create();
        let mut record = Record::new(id, &format!("n{number}"), backend, "doe", 1);
        record.state = state;
        record.launcher = holder;
        folder.write(&record).unwrap();
        id
    }

    fn alive(&self) -> Option<Holder> {
        Some(self.jobs.here().holder(std::process::id()).unwrap())
    }

    fn dead(&self) -> Option<Holder> {
        let mut holder = self.alive()?;
        holder.started += 1;
        Some(holder)
    }

    fn elsewhere(&self) -> Option<Holder> {
        let mut holder = self.alive()?;
        holder.boot_id = "another".into();
        holder.host = "n1".into();
        Some(holder)
    }

    fn state(&self, id: JobId, queue: &dyn Queue) -> (State, bool) {
        let job = self.jobs.get(id, queue).unwrap();
        (job.record.state, job.confirmed)
    }
}

fn answer(id: JobId, state: QueueState) -> Answer {
    let queued = Queued {
        state,
        deadline: Some(99),
    };
    Answer(Some([(id, queued)].into()))
}

#[test]
fn a_local_job_lives_as_long_as_its_launcher() {
    let home = Home::new();
    let cases = [
        (State::Queued, home.alive(), (State::Queued, true)),
        (State::Queued, home.dead(), (State::Failed, true)),
        (State::Ready, home.alive(), (State::Ready, true)),
        (State::Ready, home.dead(), (State::Failed, true)),
        (State::Stopping, home.dead(), (State::Ended, true)),
        (State::Ended, home.dead(), (State::Ended, true)),
        // Another machine's: only what was known last can be told.
        (State::Ready, home.elsewhere(), (State::Ready, false)),
    ];
    for (written, holder, expected) in cases {
        let id = home.put(1, Backend::Local, written, holder.clone());
        assert_eq!(home.state(id, &Unasked), expected, "{written} {holder:?}");
    }
}

#[test]
fn slurm_is_asked_about_jobs_that_cannot_be_seen() {
    let home = Home::new();
    let id = home.put(5, Backend::Slurm, State::Ready, home.alive());
    assert_eq!(home.state(id, &Unasked), (State::Ready, true));
    for holder in [home.elsewhere(), home.dead(), None] {
        home.put(5, Backend::Slurm, State::Ready, holder);
        for (queue, expected) in [
            (answer(id, QueueState::Running), (State::Ready, true)),
            (answer(id, QueueState::Waiting), (State::Queued, true)),
            (answer(id, QueueState::Ending), (State::Stopping, true)),
            (answer(id, QueueState::Over), (State::Failed, true)),
            (Answer(Some(HashMap::new())), (State::Failed, true)),
            // It does not answer: nobody knows better.
            (Answer(None), (State::Ready, false)),
        ] {
            assert_eq!(home.state(id, &queue), expected);
        }
    }
    // One that was cancelled before it started never failed.
    home.put(5, Backend::Slurm, State::Queued, None);
    let gone = Answer(Some(HashMap::new()));
    assert_eq!(home.state(id, &gone), (State::Ended, true));
    let waiting = home.jobs.get(id, &answer(id, QueueState::Waiting)).unwrap();
    assert_eq!(waiting.record.deadline, Some(99));
}

#[test]
fn a_job_that_slurm_may_start_again_is_asked_for() {
    let home = Home::new();
    let id = home.put(6, Backend::Slurm, State::Ended, home.dead());
    assert_eq!(home.state(id, &Unasked), (State::Ended, true));
    let put = |state| {
        let id = home.put(6, Backend::Slurm, state, home.dead());
        let folder = home.jobs.folder(id);
        let mut record = folder.read().unwrap();
        record.may_return = true;
        record.endpoint = Some("tcp://127.0.0.1:1".into());
        folder.write(&record).unwrap();
    };
    for (queue, expected) in [
        (answer(id, QueueState::Ending), (State::Ended, true)),
        (answer(id, QueueState::Waiting), (State::Queued, true)),
        (answer(id, QueueState::Running), (State::Starting, true)),
        (Answer(None), (State::Ended, false)),
    ] {
        put(State::Ended);
        let job = home.jobs.get(id, &queue).unwrap();
        assert_eq!((job.record.state, job.confirmed), expected);
        assert_eq!(job.record.endpoint.is_some(), expected.0 == State::Ended);
        home.jobs.record_end(&job).unwrap();
        assert!(home.jobs.folder(id).read().unwrap().may_return);
    }
    // Slurm has forgotten it: that is written down, and nobody asks again.
    let gone = Answer(Some(HashMap::new()));
    home.jobs
        .record_end(&home.jobs.get(id, &gone).unwrap())
        .unwrap();
    assert_eq!(home.state(id, &Unasked), (State::Ended, true));
}

#[test]
fn a_dead_job_is_settled_once() {
    let home = Home::new();
    let id = home.put(3, Backend::Local, State::Ready, home.dead());
    let job = home.jobs.get(id, &Unasked).unwrap();
    assert_eq!(job.folder.read().unwrap().state, State::Ready);
    home.jobs.record_end(&job).unwrap();
    let written = job.folder.read().unwrap();
    assert_eq!(written.state, State::Failed);
    assert!(written.error.unwrap().contains("killed"));
    let alive = home.put(4, Backend::Local, State::Ready, home.alive());
    let job = home.jobs.get(alive, &Unasked).unwrap();
    home.jobs.record_end(&job).unwrap();
    assert_eq!(job.folder.read().unwrap().state, State::Ready);
}

#[test]
fn local_numbers_are_never_given_twice() {
    let home = Home::new();
    let first = home.jobs.create_local().unwrap();
    assert_eq!(first.id().number(), 1);
    // What another program put there counts too.
    fs::create_dir(home.folder.path().join("job_5")).unwrap();
    fs::create_dir(home.folder.path().join("job_x")).unwrap();
    let next = home.jobs.create_local().unwrap();
    assert_eq!(next.id().number(), 6);
    next.remove().unwrap();
    assert_eq!(home.jobs.create_local().unwrap().id().number(), 7);
    let all: Vec<_> = std::thread::scope(|scope| {
        let threads: Vec<_> = (0..8)
            .map(|_| scope.spawn(|| home.jobs.create_local().unwrap().id()))
            .collect();
        threads.into_iter().map(|t| t.join().unwrap()).collect()
    });
    let different: std::collections::HashSet<_> = all.iter().collect();
    assert_eq!(different.len(), 8, "{all:?}");
}

#[test]
fn a_slurm_number_used_again_replaces_the_old_job() {
    let home = Home::new();
    let id = home.put(9, Backend::Slurm, State::Ended, None);
    let folder = home.jobs.create_slurm(id, false).unwrap();
    assert!(matches!(folder.read(), Err(Error::NoSuchJob(_))));
    home.put(9, Backend::Slurm, State::Ended, None);
    let kept = home.jobs.create_slurm(id, true).unwrap();
    assert_eq!(kept.read().unwrap().state, State::Ended);
    home.put(9, Backend::Slurm, State::Queued, None);
    assert_eq!(
        home.jobs
            .create_slurm(id, false)
            .unwrap()
            .read()
            .unwrap()
            .state,
        State::Queued
    );
    home.put(9, Backend::Local, State::Ready, home.alive());
    assert!(matches!(
        home.jobs.create_slurm(id, false),
        Err(Error::Taken(_))
    ));
    home.put(9, Backend::Local, State::Ready, home.dead());
    home.jobs.create_slurm(id, false).unwrap();
}

#[test]
fn the_job_that_is_meant() {
    let home = Home::new();
    let choose = |wanted: &Wanted, enclosing| {
        let chosen = home.jobs.choose(wanted, enclosing, &Unasked);
        chosen
            .map(|job| job.id().number())
            .map_err(|e| e.to_string())
    };
    let id = |number| JobId::new(number).unwrap();
    assert_eq!(
        choose(&Wanted::Unsaid, None).unwrap_err(),
        "you have no docker VM"
    );
    home.put(1, Backend::Local, State::Failed, None);
    home.put(2, Backend::Local, State::Ready, home.alive());
    assert_eq!(choose(&Wanted::Unsaid, None), Ok(2));
    // An allocation of something else.
    assert_eq!(choose(&Wanted::Unsaid, Some(id(77))), Ok(2));
    let over = choose(&Wanted::Unsaid, Some(id(1))).unwrap_err();
    assert_eq!(over, "job 1 has failed");
    home.put(3, Backend::Local, State::Queued, home.alive());
    let several = choose(&Wanted::Unsaid, None).unwrap_err();
    assert!(several.ends_with(": 2 (n2), 3 (n3)"), "{several}");
    assert_eq!(choose(&Wanted::Unsaid, Some(id(3))), Ok(3));
    assert_eq!(choose(&Wanted::Id(id(2)), Some(id(3))), Ok(2));
    assert_eq!(choose(&Wanted::Name("n2".into()), Some(id(3))), Ok(2));
    assert!(choose(&Wanted::Name("n1".into()), None).is_err());
    assert_eq!(
        choose(&Wanted::Id(id(8)), None).unwrap_err(),
        "there is no job 8"
    );
}
