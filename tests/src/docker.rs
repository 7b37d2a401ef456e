//! Docker daemons: the one all tests share, and private ones that a test may hurt.
//!
//! `scripts/test` starts one daemon for the whole run and names it in `PCOCC_TEST_DOCKER_HOST`. Without
//! it, every test process starts its own through `scripts/private-dockerd`, which needs root and a second or
//! two. Images carry the label `pcocc.test=<name space>` and are removed by it.

use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use rustix::process::{Pid, Signal, kill_process};

use crate::children::{Guarded, Outcome, read_log, run};
use crate::{is_root, scratch, workspace};

/// The environment variable that names the daemon the tests share.
const SHARED_HOST: &str = "PCOCC_TEST_DOCKER_HOST";

/// A private daemon. It is stopped, and its mounts and folder removed, on drop.
#[derive(Debug)]
pub struct Dockerd {
    // Declared first: the daemon must be gone before its folder goes.
    guard: Guarded,
    host: String,
    pid: u32,
    log: PathBuf,
    _folder: tempfile::TempDir,
}

impl Dockerd {
    /// Starts a daemon. Needs root.
    pub fn start() -> Self {
        Self::start_with(&[])
    }

    /// Starts a daemon with more arguments, for example `--tlsverify`.
    pub fn start_with(arguments: &[&str]) -> Self {
        assert!(
            is_root(),
            "a test that starts a docker daemon needs root: put `as_root` into its name, or set \
             {SHARED_HOST} to a daemon that you may use"
        );
        let folder = scratch();
        let log = folder.path().join("start.log");
        let mut command = Command::new(workspace().join("scripts/private-dockerd"));
        command.arg("--folder").arg(folder.path().join("d"));
        for argument in arguments {
            command.args(["--dockerd", argument]);
        }
        command.arg("--hold");
        let (guard, stdout) = Guarded::spawn(command, &log);
        let mut lines = BufReader::new(stdout).lines().map_while(Result::ok);
        let mut value = |key: &str| {
            let line = lines.next().unwrap_or_default();
            line.strip_prefix(key)
                .map(str::to_owned)
                .unwrap_or_else(|| {
                    panic!(
                        "no docker daemon, {key} expected but '{line}' came:\n{}",
                        read_log(&log)
                    )
                })
        };
        let host = value("DOCKER_HOST=");
        let pid = value("DOCKERD_PID=").parse().expect("the daemon's pid");
        Self {
            guard,
            host,
            pid,
            log: folder.path().join("d/log"),
            _folder: folder,
        }
    }

    /// The daemon's address, as DOCKER_HOST wants it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The daemon's process id.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// The daemon's unix socket.
    pub fn socket(&self) -> &Path {
        Path::new(self.host.trim_start_matches("unix://"))
    }

    /// What the daemon wrote to its log so far.
    pub fn log(&self) -> String {
        read_log(&self.log)
    }

    /// Kills the daemon with SIGKILL, as if the machine had failed.
    pub fn kill(&self) {
        signal(self.pid, Signal::KILL);
    }

    /// Stops the daemon with SIGSTOP until the result is dropped: it takes connections and never answers.
    pub fn pause(&self) -> Paused {
        signal(self.pid, Signal::STOP);
        Paused(self.pid)
    }

    /// Says whether the fixture still holds the daemon.
    pub fn is_held(&mut self) -> bool {
        self.guard.is_running()
    }
}

/// A daemon that hangs; dropping this lets it go on.
#[derive(Debug)]
pub struct Paused(u32);

impl Drop for Paused {
    fn drop(&mut self) {
        signal(self.0, Signal::CONT);
    }
}

fn signal(pid: u32, signal: Signal) {
    if let Some(pid) = Pid::from_raw(pid as i32) {
        let _ = kill_process(pid, signal);
    }
}

/// A daemon to talk to, and a name space of this test in it.
///
/// The name space's images are removed on drop.
#[derive(Debug)]
pub struct Docker {
    host: String,
    space: String,
    daemon: Option<Arc<Dockerd>>,
}

impl Docker {
    /// Gives the daemon that all tests share, or starts one when there is none.
    pub fn shared() -> Self {
        match std::env::var(SHARED_HOST) {
            Ok(host) if !host.is_empty() => Self::at(host, None),
            _ => Self::of(Arc::new(Dockerd::start())),
        }
    }

    /// Gives a name space in a daemon of the test's own.
    pub fn of(daemon: Arc<Dockerd>) -> Self {
        Self::at(daemon.host().to_owned(), Some(daemon))
    }

    fn at(host: String, daemon: Option<Arc<Dockerd>>) -> Self {
        static NEXT: AtomicU32 = AtomicU32::new(0);
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        Self {
            host,
            space: format!("t{}-{number}", std::process::id()),
            daemon,
        }
    }

    /// The daemon's address, as DOCKER_HOST wants it.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// Gives `name` in this test's name space: `bb` becomes something like `t4711-0-bb`.
    pub fn name(&self, name: &str) -> String {
        format!("{}-{name}", self.space)
    }

    /// Builds a docker command line for this daemon, with an empty environment.
    pub fn command(&self) -> Command {
        let mut command = Command::new("docker");
        command
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default());
        // The classic builder is in every daemon, and the notice about it is of no use to a test.
        command
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CLI_HINTS", "false")
            .env("HOME", "/nonexistent");
        command.env("DOCKER_HOST", &self.host);
        command
    }

    /// Runs `docker` with `arguments`, whatever comes of it.
    #[track_caller]
    pub fn try_run(&self, arguments: &[&str]) -> Outcome {
        run(self.command().args(arguments))
    }

    /// Runs `docker` with `arguments` and gives its standard output; panics when it fails.
    #[track_caller]
    pub fn run(&self, arguments: &[&str]) -> String {
        self.try_run(arguments).ok().to_owned()
    }

    /// Gives an image's ID (`sha256:…`), or nothing when the daemon does not have it.
    pub fn image_id(&self, name: &str) -> Option<String> {
        let outcome = self.try_run(&["image", "inspect", "--format", "{{.Id}}", name]);
        outcome.status.success().then(|| outcome.ok().to_owned())
    }

    /// Builds an image from a Dockerfile and the files of `context`, named [`name`](Self::name)`(name)`.
    ///
    /// Gives that full name. The image carries the label it is removed by.
    #[track_caller]
    pub fn build(&self, name: &str, dockerfile: &str, context: &[(&str, &Path)]) -> String {
        let folder = scratch();
        fs::write(folder.path().join("Dockerfile"), dockerfile).expect("write the Dockerfile");
        for (inside, file) in context {
            let target = folder.path().join(inside);
            fs::create_dir_all(target.parent().unwrap_or(&target)).expect("make a folder");
            fs::copy(file, target).expect("copy a file into the build folder");
        }
        let full = self.name(name);
        let label = format!("pcocc.test={}", self.space);
        let context = folder.path().to_string_lossy();
        let build = |more: &[&str]| {
            let arguments = [
                "build",
                "-q",
                "--network=none",
                "--label",
                &label,
                "-t",
                &full,
            ];
            self.try_run(&[&arguments[..], more, &[&*context]].concat())
        };
        let mut built = build(&[]);
        // Docker may take a cached layer for good that another test's end is removing.
        let signs = ["failed to get digest", "No such image"];
        let is_cache_gone = |words: &str| signs.iter().any(|sign| words.contains(sign));
        if !built.status.success() && is_cache_gone(&built.stderr) {
            built = build(&["--no-cache"]);
        }
        built.ok();
        full
    }

    /// Builds a small real image and gives its full name: static busybox in four layers, with deleted
    /// and replaced files, hard and symbolic links, modes, an owner and odd names.
    #[track_caller]
    pub fn busybox_image(&self, name: &str) -> String {
        const DOCKERFILE: &str = r#"FROM scratch
COPY busybox /bin/busybox
RUN ["/bin/busybox", "--install", "-s", "/bin"]
RUN mkdir -p /etc /root /tmp /data/old/deep && chmod 1777 /tmp && chmod 700 /root \
 && echo root:x:0:0:root:/root:/bin/sh >/etc/passwd && echo one >/data/old/deep/one \
 && echo two >/data/two && ln /data/two /data/two.hard && ln -s ../two /data/old/link \
 && echo gone >/gone && mkfifo /data/fifo && chmod 4755 /bin/busybox
RUN rm -r /gone /data/old && mkdir /data/old && echo new >/data/old/new \
 && echo more >>/data/two && chown 1000:1001 /data/old/new && echo odd >"/data/a b	ä'\$"
ENV PATH=/bin GREETING="hello world"
WORKDIR /data
ENTRYPOINT ["/bin/sh", "-c"]
CMD ["echo $GREETING"]
"#;
        self.build(name, DOCKERFILE, &[("busybox", Path::new("/bin/busybox"))])
    }

    /// Builds an image `FROM` another one with `megabytes` of random bytes in a layer on top.
    #[track_caller]
    pub fn layer_on(&self, base: &str, name: &str, megabytes: u32) -> String {
        let dockerfile = format!(
            "FROM {base}\nRUN [\"/bin/busybox\", \"sh\", \"-c\", \
             \"dd if=/dev/urandom of=/random bs=1048576 count={megabytes}\"]\n"
        );
        self.build(name, &dockerfile, &[])
    }

    /// Removes this test's images from the daemon: by label, and by name for those without one.
    pub fn remove_images(&self) {
        let label = format!("label=pcocc.test={}", self.space);
        let mut ids: Vec<String> = lines(&self.try_run(&["images", "-aq", "--filter", &label]));
        let listed = self.try_run(&["images", "--format", "{{.Repository}}:{{.Tag}}"]);
        ids.extend(
            lines(&listed)
                .into_iter()
                .filter(|name| name.starts_with(&self.space)),
        );
        if !ids.is_empty() {
            let mut arguments = vec!["rmi", "-f"];
            arguments.extend(ids.iter().map(String::as_str));
            // Parents go with their children, and are then reported as missing.
            self.try_run(&arguments);
        }
    }
}

impl Drop for Docker {
    fn drop(&mut self) {
        // A private daemon that goes now takes its images along.
        if self
            .daemon
            .as_ref()
            .is_none_or(|daemon| Arc::strong_count(daemon) > 1)
        {
            self.remove_images();
        }
    }
}

fn lines(outcome: &Outcome) -> Vec<String> {
    outcome.stdout.lines().map(str::to_owned).collect()
}
