//! Kills at random moments: what was being made is there whole or not at all, and the next try succeeds.
//!
//! `scripts/kill-loop N` runs more of them: `PCOCC_TEST_KILLS` is their number. Failures name the seed;
//! `PCOCC_TEST_SEED` repeats its sequence, though not its timing.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use pcocc_layers::Digest;
use pcocc_layers::squashfs::{BlockCache, FileType, Squashfs};
use pcocc_tests::{Docker, Mount, Pcocc, leaks, wait_until};
use rustix::process::{Pid, Signal, kill_process};
use serde_json::Value;

/// Tests that share the kills.
const TESTS: u64 = 7;

/// How long a command may take to end after a signal.
const PATIENCE: Duration = Duration::from_secs(20);

#[test]
fn imports_from_docker_are_killed_at_random_moments() {
    let job = Job::new();
    job.repeat(|number| {
        let name = format!("import-{number}");
        Step {
            command: job.pcocc.command(&["docker", "import", &job.image, &name]),
            made: Made::InRepository(name),
        }
    });
}

/// A squashfs that begins with another one is as right after a kill as one from nothing.
#[test]
fn imports_on_a_base_are_killed_at_random_moments() {
    let docker = Docker::shared();
    let below = docker.busybox_image("below");
    let base = docker.layer_on(&below, "base", 48);
    let mut job = Job::of(docker, |docker| docker.layer_on(&base, "image", 8));
    job.pcocc.run(&["docker", "import", &base, "base"]);
    let (cache, kept) = (job.pcocc.cache(), job.pcocc.home().join("kept"));
    job.pcocc.run_any(
        "cp",
        &[
            "-a",
            &cache.display().to_string(),
            &kept.display().to_string(),
        ],
    );
    job.pcocc.run(&["docker", "import", &job.image, "whole"]);
    let sound = cached_squashfs(&cache);
    // The same from nothing, in a cache of its own.
    fs::remove_dir_all(&cache).expect("empty the cache");
    job.pcocc.run(&["docker", "import", &job.image, "again"]);
    // Docker's archive has the layers in another order.
    let top: BTreeSet<_> = cached_squashfs(&cache)
        .difference(&cached_squashfs(&kept))
        .cloned()
        .collect();
    assert!(
        top.len() == 1 && top.is_subset(&sound),
        "not as from nothing: {top:?}, {sound:?}"
    );
    job.base = Some(Base { kept, sound });
    for name in ["whole", "again"] {
        job.forget(&Made::InRepository(name.to_owned()));
    }
    job.repeat(|number| {
        let name = format!("on-base-{number}");
        Step {
            command: job.pcocc.command(&["docker", "import", &job.image, &name]),
            made: Made::InRepository(name),
        }
    });
}

/// Digests of what the squashfs files in a cache hold, wherever their blocks lie.
fn cached_squashfs(cache: &Path) -> BTreeSet<String> {
    let folders = children(cache);
    let is_entries = |path: &&PathBuf| path.file_name().is_some_and(|name| name.len() == 2);
    let files = folders.iter().filter(is_entries);
    let digest = |file: PathBuf| Digest::of(&content_of(&file)).to_string();
    files
        .flat_map(|folder| children(folder))
        .map(digest)
        .collect()
}

/// Names, attributes and content of a squashfs file.
fn content_of(file: &Path) -> Vec<u8> {
    let opened = Arc::new(File::open(file).expect("open a squashfs file"));
    let squashfs = Squashfs::open(opened, BlockCache::new(8 << 20));
    let squashfs = squashfs.unwrap_or_else(|error| panic!("{}: {error}", file.display()));
    let (mut all, mut pending) = (Vec::new(), vec![(squashfs.root(), Vec::new())]);
    while let Some((inode, path)) = pending.pop() {
        let found = squashfs.attributes(inode).expect("look at a file");
        all.extend(&path);
        all.extend(format!("{found:?} {:?}", squashfs.xattrs(inode)).bytes());
        match found.file_type {
            FileType::Directory => {
                for entry in squashfs.read_dir(inode).expect("list a folder") {
                    pending.push((entry.inode, [&path, &b"/"[..], &*entry.name].concat()));
                }
            }
            FileType::Symlink => all.extend(squashfs.read_link(inode).expect("read a link")),
            FileType::Regular => {
                let mut content = vec![0; found.size as usize];
                squashfs
                    .read_at(inode, 0, &mut content)
                    .expect("read a file");
                all.extend(content);
            }
            _ => {}
        }
    }
    all
}

#[test]
fn exports_to_docker_are_killed_at_random_moments() {
    let job = Job::new();
    job.pcocc.run(&["docker", "import", &job.image, "source"]);
    job.forget_in_docker(&job.image);
    job.repeat(|number| {
        let name = job.docker.name(&format!("export-{number}"));
        Step {
            command: job.pcocc.command(&["docker", "export", "source", &name]),
            made: Made::InDocker(name),
        }
    });
}

#[test]
fn copies_from_docker_are_killed_at_random_moments() {
    let job = Job::new();
    let mount = Mount::new(&job.pcocc);
    job.repeat(|number| {
        let name = format!("copy-{number}");
        let from = mount.join(&format!("docker/{}", job.image));
        Step {
            command: job.cp(&from, &mount.join(&format!("repo/user/{name}"))),
            made: Made::InRepository(name),
        }
    });
    assert_nothing_staged(&mount);
    mount.end();
}

#[test]
fn copies_of_docker_images_into_a_repository_are_killed_at_random_moments() {
    let job = Job::new();
    let mount = Mount::new(&job.pcocc);
    // From a folder outside the mount, so that the bytes are written and not only named.
    let folder = job.plain(&mount.join(&format!("docker/{}", job.image)));
    job.repeat(|number| {
        let name = format!("copy-{number}");
        Step {
            command: job.cp(&folder, &mount.join(&format!("repo/user/{name}"))),
            made: Made::InRepository(name),
        }
    });
    assert_nothing_staged(&mount);
    mount.end();
}

#[test]
fn copies_to_docker_are_killed_at_random_moments() {
    let job = Job::new();
    job.pcocc.run(&["docker", "import", &job.image, "source"]);
    job.forget_in_docker(&job.image);
    let mount = Mount::new(&job.pcocc);
    let folder = job.plain(&mount.join("repo/user/source"));
    job.repeat(|number| {
        let name = job.docker.name(&format!("copy-{number}"));
        Step {
            command: job.cp(&folder, &mount.join(&format!("docker/{name}"))),
            made: Made::InDocker(name),
        }
    });
    assert_nothing_staged(&mount);
    mount.end();
}

#[test]
fn mounts_are_killed_while_they_fill_the_spool_at_random_moments() {
    let docker = Docker::shared();
    let base = docker.busybox_image("base");
    let image = docker.layer_on(&base, "image", 24);
    let id = docker.image_id(&image).expect("the image just built");
    let pcocc = Pcocc::new().with(&docker).with_own_temporary();
    let user = rustix::process::geteuid().as_raw();
    let spool = pcocc.home().join(format!("tmp/pcocc-{user}/spool"));
    let out = pcocc.home().join("out");
    let copy = |mount: &Mount| {
        let mut command = pcocc.any("cp");
        command
            .arg("-r")
            .arg(mount.join(&format!("docker/{image}")));
        command.arg(&out).stdin(Stdio::null()).stderr(Stdio::null());
        command
    };
    // What the mount serves is whole, and nothing unfinished is left in the spool.
    let serves_all = |mount: &Mount, what: &str| {
        let half = unfinished_in_spool(&spool);
        assert!(half.is_empty(), "not collected after {what}: {half:?}");
        assert!(copy(mount).status().expect("run cp").success(), "{what}");
        assert_whole(&out, &id, what);
        fs::remove_dir_all(&out).expect("remove the copy");
        let busybox = fs::read(mount.join(&format!("rootfs/docker/{image}/bin/busybox")));
        assert!(busybox.ok() == fs::read("/bin/busybox").ok(), "{what}");
    };

    let mount = Mount::new(&pcocc);
    let start = Instant::now();
    serves_all(&mount, "nothing at all");
    let whole = start.elapsed();
    mount.end();

    let (kills, seed, mut random) = sequence();
    let mut half_entries = 0;
    for number in 1..=kills {
        fs::remove_dir_all(&spool).expect("empty the spool");
        let mount = Mount::new(&pcocc);
        // Some come after the export, when the image has just got its name.
        let delay = whole.mul_f64((random.next() % 1000) as f64 / 600.0);
        let what = format!("kill {number} (seed {seed}, after {delay:?} of {whole:?})");
        let mut reader = copy(&mount).spawn().expect("run cp");
        if number == 1 {
            // One kill is sure to meet an image in the making.
            wait_until("the export begins", PATIENCE, || {
                !unfinished_in_spool(&spool).is_empty()
            });
        } else {
            std::thread::sleep(delay);
        }
        mount.kill();
        wait_until(&format!("cp ends after {what}"), PATIENCE, || {
            matches!(reader.try_wait(), Ok(Some(_)))
        });
        if reader.wait().expect("wait for cp").success() {
            assert_whole(&out, &id, &what);
        }
        let _ = fs::remove_dir_all(&out);
        half_entries += usize::from(!unfinished_in_spool(&spool).is_empty());
        assert!(
            number > 1 || half_entries == 1,
            "no half entry after {what}"
        );
        for entry in entries_of_spool(&spool) {
            assert_whole(&entry, &id, &what);
        }
        let mount = Mount::new(&pcocc);
        serves_all(&mount, &what);
        mount.end();
    }
    println!("{kills} kills: {half_entries} left half an image (seed {seed})");
}

/// Waits until the mount has dropped what the tools that were killed had copied.
#[track_caller]
fn assert_nothing_staged(mount: &Mount) {
    wait_until("nothing is being copied", PATIENCE, || {
        let held = &mount.status()["held"];
        held["staged"] == 0 && held["committing"] == 0
    });
}

/// Folders and locks in the spool that belong to images in the making.
fn unfinished_in_spool(spool: &Path) -> Vec<PathBuf> {
    let mut names = children(spool);
    names.retain(|path| {
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        name.starts_with("tmp-") || name.ends_with(".export")
    });
    names
}

/// Images in the spool under their IDs.
fn entries_of_spool(spool: &Path) -> Vec<PathBuf> {
    let mut names = children(spool);
    names.retain(|path| path.file_name().is_some_and(|name| name.len() == 64));
    names
}

fn children(folder: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).collect()
}

/// Checks that an OCI layout has all blobs of the image `id`, and that each is what its name says.
#[track_caller]
fn assert_whole(layout: &Path, id: &str, what: &str) {
    let blob = |digest: &str| {
        let hex = digest.strip_prefix("sha256:").expect("a digest");
        let content = fs::read(layout.join("blobs/sha256").join(hex))
            .unwrap_or_else(|error| panic!("{digest} after {what}: {error}"));
        assert_eq!(Digest::of(&content).to_string(), digest, "after {what}");
        content
    };
    let parse = |json: &[u8]| serde_json::from_slice::<Value>(json).expect("JSON");
    let digest = |value: &Value| value["digest"].as_str().expect("a digest").to_owned();
    let index = fs::read(layout.join("index.json")).expect("read index.json");
    let manifest = parse(&blob(&digest(&parse(&index)["manifests"][0])));
    assert_eq!(digest(&manifest["config"]), id, "after {what}");
    blob(id);
    let layers = manifest["layers"].as_array().expect("a list of layers");
    assert!(!layers.is_empty());
    for layer in layers {
        blob(&digest(layer));
    }
}

/// An environment, and an image that takes a moment to move.
struct Job {
    pcocc: Pcocc,
    docker: Docker,
    image: String,
    id: String,
    watch: leaks::Watch,
    base: Option<Base>,
}

/// A cache with the squashfs file of an image below, which is put back after each transfer.
struct Base {
    /// A copy of the cache.
    kept: PathBuf,
    /// What the squashfs files hold that may ever be in the cache.
    sound: BTreeSet<String>,
}

/// One transfer to kill.
struct Step {
    command: Command,
    made: Made,
}

/// What a transfer makes.
enum Made {
    InRepository(String),
    InDocker(String),
}

impl Job {
    fn new() -> Self {
        Self::of(Docker::shared(), |docker| {
            let base = docker.busybox_image("base");
            docker.layer_on(&base, "image", 24)
        })
    }

    fn of(docker: Docker, image: impl FnOnce(&Docker) -> String) -> Self {
        let image = image(&docker);
        let id = docker
            .image_id(&image)
            .expect("the image that was just built");
        let pcocc = Pcocc::new().with(&docker);
        // Makes the repository, so that it can be verified from the first kill on.
        pcocc.run(&["image", "list"]);
        let watch = leaks::Watch::new(pcocc.home());
        Self {
            pcocc,
            docker,
            image,
            id,
            watch,
            base: None,
        }
    }

    fn cp(&self, from: &Path, to: &Path) -> Command {
        let mut command = self.pcocc.any("cp");
        // -T: after a kill the folder may be there in part, and the next try is to fill it.
        command.arg("-rT").args([from, to]);
        command
    }

    /// Copies an image to a folder outside the mount.
    fn plain(&self, image: &Path) -> PathBuf {
        let folder = self.pcocc.home().join("plain");
        pcocc_tests::run(&mut self.cp(image, &folder)).ok();
        folder
    }

    /// Takes this test's layers out of the daemon, so that they have to be sent again.
    fn forget_in_docker(&self, image: &str) {
        self.docker.run(&["rmi", "-f", image]);
    }

    /// Runs `step` once to its end to know how long it takes, then kills as many as asked for.
    fn repeat(&self, step: impl Fn(u64) -> Step) {
        let (kills, seed, mut random) = sequence();
        let (mut cut_short, mut finished) = (0, 0);

        let start = Instant::now();
        self.finish(step(0));
        let mut whole = start.elapsed();

        for number in 1..=kills {
            let signal = if random.next().is_multiple_of(2) {
                Signal::INT
            } else {
                Signal::KILL
            };
            let delay = whole.mul_f64((random.next() % 1000) as f64 / 950.0);
            let what =
                format!("kill {number} (seed {seed}, {signal:?} after {delay:?} of {whole:?})");
            let mut next = step(number);
            let mut child = next
                .command
                .stdin(Stdio::null())
                .stdout(Stdio::null())
                .stderr(Stdio::null())
                .spawn()
                .expect("start the transfer");
            let start = Instant::now();
            let mut ended = false;
            while !ended && start.elapsed() < delay {
                std::thread::sleep(Duration::from_millis(1));
                ended = matches!(child.try_wait(), Ok(Some(_)));
            }
            if ended {
                // The first one took longer than they do now.
                whole = whole.min(start.elapsed());
            } else {
                let _ = kill_process(Pid::from_child(&child), signal);
            }
            wait_until(&format!("the transfer ends after {what}"), PATIENCE, || {
                matches!(child.try_wait(), Ok(Some(_)))
            });
            let status = child.wait().expect("wait for the transfer");

            self.pcocc.verify();
            if let Some(base) = &self.base {
                let cached = cached_squashfs(&self.pcocc.cache());
                assert!(
                    cached.is_subset(&base.sound),
                    "a squashfs is wrong after {what}"
                );
            }
            match self.look(&next.made) {
                Some(id) => {
                    assert_eq!(id, self.id, "half an image is visible after {what}");
                    finished += 1;
                }
                None => {
                    assert!(!status.success(), "success, but no image, after {what}");
                    cut_short += 1;
                    self.finish(step(number));
                }
            }
            self.forget(&next.made);
        }
        println!("{kills} kills: {cut_short} cut short, {finished} came too late (seed {seed})");
        self.finish(step(kills + 1));
        // Without a grace time: what was killed a moment ago counts as abandoned.
        self.pcocc
            .run(&["image", "repo", "gc", "user", "--grace", "0"]);
        self.pcocc.verify();
        let unfinished = leaks::unfinished_in(&self.pcocc.repository());
        assert!(
            unfinished.is_empty(),
            "gc left what no live process owns: {unfinished:?}"
        );
        let mounts = leaks::mounts_below(self.pcocc.home());
        let left: Vec<_> = self
            .watch
            .find()
            .into_iter()
            .filter(|line| !ours(line, &mounts))
            .collect();
        assert!(
            left.is_empty(),
            "left behind after {kills} kills (seed {seed}): {left:?}"
        );
    }

    /// Runs a transfer to its end: it must succeed.
    fn finish(&self, mut step: Step) {
        let outcome = pcocc_tests::run(&mut step.command);
        outcome.ok();
        assert_eq!(self.look(&step.made).as_ref(), Some(&self.id), "{outcome}");
        self.forget(&step.made);
    }

    /// Gives the ID of what was made, if anything is visible.
    fn look(&self, made: &Made) -> Option<String> {
        match made {
            Made::InDocker(name) => self.docker.image_id(name),
            Made::InRepository(name) => self.meta(name).exists().then(|| self.pcocc.image_id(name)),
        }
    }

    fn forget(&self, made: &Made) {
        match made {
            Made::InDocker(name) => {
                self.docker.try_run(&["rmi", "-f", name]);
            }
            Made::InRepository(name) => {
                if self.meta(name).exists() {
                    self.pcocc.run(&["image", "delete", name]);
                }
                if let Some(base) = &self.base {
                    let _ = fs::remove_dir_all(self.pcocc.cache());
                    let paths =
                        [&base.kept, &self.pcocc.cache()].map(|path| path.display().to_string());
                    self.pcocc.run_any("cp", &["-a", &paths[0], &paths[1]]);
                    return;
                }
                // Without their data the next import has all its work to do again.
                let _ = fs::remove_dir_all(self.pcocc.repository().join("data"));
                fs::create_dir_all(self.pcocc.repository().join("data")).expect("make data/");
                let _ = fs::remove_dir_all(self.pcocc.cache());
            }
        }
    }

    fn meta(&self, name: &str) -> PathBuf {
        self.pcocc
            .repository()
            .join("meta")
            .join(format!("{name}@0"))
    }
}

/// Says whether a line of the leak detector is about the mount that this test itself still holds.
fn ours(line: &str, mounts: &[String]) -> bool {
    mounts.len() == 1 && (line.starts_with("mount ") || line.contains("docker mount"))
}

fn number_from(variable: &str) -> Option<u64> {
    std::env::var(variable).ok()?.parse().ok()
}

/// How many kills are this test's, and where their random moments come from.
fn sequence() -> (u64, u64, Random) {
    let kills = number_from("PCOCC_TEST_KILLS")
        .unwrap_or(20)
        .div_ceil(TESTS);
    let clock = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .map_or(1, |now| now.as_nanos());
    let seed = number_from("PCOCC_TEST_SEED").unwrap_or(clock as u64) | 1;
    (kills, seed, Random(seed))
}

/// Marsaglia's xorshift64: enough to spread moments.
struct Random(u64);

impl Random {
    fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 >> 3
    }
}
