//! A socket in front of a docker daemon that writes down requests, holds some up, and plays dead.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::docker::Docker;
use crate::scratch;

/// What happens to a request whose line contains a given text.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Fate {
    /// It waits until it is released.
    Wait,
    /// The daemon dies before it answers.
    Die,
}

#[derive(Debug, Default)]
struct State {
    requests: Vec<String>,
    rule: Option<(String, Fate)>,
    /// The rule waits for a request whose line contains this.
    begins_with: Option<String>,
    waiting: usize,
    /// What the daemon says waits.
    silent: bool,
    dead: bool,
    ended: bool,
    open: Vec<UnixStream>,
}

/// The socket. One request per connection is understood, as pcocc makes them.
#[derive(Debug)]
pub struct Proxy {
    state: Arc<(Mutex<State>, Condvar)>,
    path: PathBuf,
    _folder: tempfile::TempDir,
}

/// Longest wait for a request that a test expects.
const DEADLINE: Duration = Duration::from_secs(20);

impl Proxy {
    /// Puts a socket in front of the daemon of `docker`.
    pub fn before(docker: &Docker) -> Self {
        let folder = scratch();
        let path = folder.path().join("proxy.sock");
        let listener = UnixListener::bind(&path).expect("bind a socket");
        let daemon = PathBuf::from(docker.host().trim_start_matches("unix://"));
        let state = Arc::new((Mutex::new(State::default()), Condvar::new()));
        let shared = Arc::clone(&state);
        std::thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                if lock(&shared.0).ended {
                    return;
                }
                let (shared, daemon) = (Arc::clone(&shared), daemon.clone());
                std::thread::spawn(move || {
                    // Broken connections are what this is for.
                    let _ = serve(&shared, stream, &daemon);
                });
            }
        });
        Self {
            state,
            path,
            _folder: folder,
        }
    }

    /// The socket's address, as DOCKER_HOST wants it.
    pub fn host(&self) -> String {
        format!("unix://{}", self.path.display())
    }

    /// The request lines so far that contain `text`; they are forgotten.
    pub fn take_requests(&self, text: &str) -> Vec<String> {
        let requests = std::mem::take(&mut self.lock().requests);
        requests
            .into_iter()
            .filter(|line| line.contains(text))
            .collect()
    }

    /// Lets the next requests whose line contains `text` wait.
    pub fn hold(&self, text: &str) {
        self.lock().rule = Some((text.to_owned(), Fate::Wait));
    }

    /// Lets all that comes wait, and what the daemon has yet to say on connections that are open.
    pub fn hang(&self) {
        self.hold("/");
        self.lock().silent = true;
    }

    /// Waits until a request is held.
    #[track_caller]
    pub fn wait_until_held(&self) {
        let start = Instant::now();
        let mut state = self.lock();
        while state.waiting == 0 {
            assert!(start.elapsed() < DEADLINE, "no request to hold: {state:?}");
            let tick = Duration::from_millis(100);
            let waited = self.state.1.wait_timeout(state, tick);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
    }

    /// Lets held requests go on, and further ones through.
    pub fn release(&self) {
        let mut state = self.lock();
        state.rule = None;
        state.silent = false;
        drop(state);
        self.state.1.notify_all();
    }

    /// Lets the daemon die when a request whose line contains `text` comes.
    pub fn die_at(&self, text: &str) {
        self.lock().rule = Some((text.to_owned(), Fate::Die));
    }

    /// The same for requests after the first whose line contains `first`.
    pub fn die_at_after(&self, first: &str, text: &str) {
        self.lock().begins_with = Some(first.to_owned());
        self.die_at(text);
    }

    /// Breaks all connections and takes none any more.
    pub fn die(&self) {
        die(&mut self.lock());
        self.state.1.notify_all();
    }

    /// Undoes [`Proxy::die`] and [`Proxy::die_at`].
    pub fn revive(&self) {
        let mut state = self.lock();
        state.rule = None;
        state.begins_with = None;
        state.dead = false;
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state.0)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.lock().ended = true;
        self.die();
        // Wakes the listener.
        let _ = UnixStream::connect(&self.path);
    }
}

fn lock(state: &Mutex<State>) -> MutexGuard<'_, State> {
    state.lock().unwrap_or_else(PoisonError::into_inner)
}

fn die(state: &mut State) {
    state.dead = true;
    for stream in state.open.drain(..) {
        let _ = stream.shutdown(Shutdown::Both);
    }
}

fn serve(
    shared: &(Mutex<State>, Condvar),
    mut client: UnixStream,
    daemon: &Path,
) -> io::Result<()> {
    let mut head = vec![0; 4096];
    let n = client.read(&mut head)?;
    head.truncate(n);
    let line = head.split(|byte| *byte == b'\r').next().unwrap_or_default();
    let line = String::from_utf8_lossy(line).into_owned();
    let mut server;
    {
        let mut state = lock(&shared.0);
        if state.dead {
            return Ok(());
        }
        state.requests.push(line.clone());
        state.open.push(client.try_clone()?);
        state.begins_with.take_if(|first| line.contains(&**first));
        let fate = |state: &State| match &state.rule {
            _ if state.begins_with.is_some() => None,
            Some((text, fate)) if line.contains(text) => Some(*fate),
            _ => None,
        };
        if fate(&state) == Some(Fate::Die) {
            die(&mut state);
        }
        if fate(&state) == Some(Fate::Wait) {
            state.waiting += 1;
            shared.1.notify_all();
            let start = Instant::now();
            // A test that failed meanwhile releases nothing.
            while fate(&state) == Some(Fate::Wait) && !state.dead && start.elapsed() < DEADLINE {
                let waited = shared.1.wait_timeout(state, DEADLINE);
                state = waited.unwrap_or_else(PoisonError::into_inner).0;
            }
            state.waiting -= 1;
        }
        if state.dead {
            return Ok(());
        }
        server = UnixStream::connect(daemon)?;
        state.open.push(server.try_clone()?);
    }
    server.write_all(&head)?;
    let (mut up, mut down) = (client.try_clone()?, server.try_clone()?);
    let uploading = std::thread::spawn(move || {
        let sent = io::copy(&mut up, &mut down);
        let _ = down.shutdown(if sent.is_ok() {
            Shutdown::Write
        } else {
            Shutdown::Both
        });
    });
    let _ = answer(shared, &mut server, &mut client);
    let _ = client.shutdown(Shutdown::Both);
    let _ = server.shutdown(Shutdown::Both);
    let _ = uploading.join();
    Ok(())
}

/// Hands on what the daemon says, unless it is to be silent.
fn answer(
    shared: &(Mutex<State>, Condvar),
    server: &mut UnixStream,
    client: &mut UnixStream,
) -> io::Result<()> {
    let mut piece = vec![0; 64 << 10];
    loop {
        let n = server.read(&mut piece)?;
        if n == 0 {
            return Ok(());
        }
        let mut state = lock(&shared.0);
        let start = Instant::now();
        while state.silent && !state.dead && start.elapsed() < DEADLINE {
            let waited = shared.1.wait_timeout(state, DEADLINE);
            state = waited.unwrap_or_else(PoisonError::into_inner).0;
        }
        drop(state);
        client.write_all(&piece[..n])?;
    }
}
