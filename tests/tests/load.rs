//! Many copies and many readers at once, on both sides of the mount, for as long as
//! `PCOCC_TEST_LOAD_SECONDS` says (10 unless told; `scripts/load` runs the full five minutes).
//!
//! No error, no lost image, and in the end nothing is held: no handle, inode, staged folder or commit.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use pcocc_tests::{Docker, Mount, Outcome, Pcocc, layout, leaks, run, wait_until};

const WRITERS: usize = 50;
const READERS: usize = 50;
/// Images that are there all the time, to be read.
const BASES: usize = 4;

struct Load {
    docker: Docker,
    pcocc: Pcocc,
    mount: Mount,
    /// Docker's names of the images that are read.
    bases: Vec<String>,
    copies: AtomicU32,
    walks: AtomicU32,
}

#[test]
fn docker_and_repository_copies_beside_readers() {
    let seconds = std::env::var("PCOCC_TEST_LOAD_SECONDS");
    let seconds = seconds.map_or(10, |text| text.parse().expect("a number of seconds"));
    let load = Load::new();
    let listed = load.listing();
    let until = Instant::now() + Duration::from_secs(seconds);
    std::thread::scope(|scope| {
        for number in 0..WRITERS {
            let load = &load;
            scope.spawn(move || load.write(number, until));
        }
        for number in 0..READERS {
            let load = &load;
            scope.spawn(move || load.read(number, until));
        }
    });
    println!("{:?} copies, {:?} walks", load.copies, load.walks);
    assert_eq!(load.listing(), listed);
    load.assert_nothing_held();
    load.end();
}

impl Load {
    fn new() -> Self {
        let docker = Docker::shared();
        let pcocc = Pcocc::new().with(&docker);
        let bases: Vec<String> = (0..BASES)
            .map(|number| {
                let base = docker.name(&format!("base{number}"));
                docker.busybox_image(&format!("base{number}"));
                pcocc.run(&["docker", "import", &base, &format!("base{number}")]);
                base
            })
            .collect();
        for number in 0..WRITERS {
            layout::write(&image(&pcocc, number), &[&content(number, 0)]);
        }
        let mount = Mount::with(&pcocc, "mnt", &["--allow-delete"]);
        Self {
            docker,
            pcocc,
            mount,
            bases,
            copies: AtomicU32::new(0),
            walks: AtomicU32::new(0),
        }
    }

    /// Copies a plain folder in, from there to the other side, out again, and removes all of it.
    fn write(&self, number: usize, until: Instant) {
        let source = image(&self.pcocc, number);
        let out = self.pcocc.home().join(format!("out{number}"));
        let in_docker = format!("docker/{}", self.docker.name(&format!("w{number}")));
        let in_repository = format!("repo/user/w{number}");
        let (first, second) = match number % 2 {
            0 => (&in_docker, &in_repository),
            _ => (&in_repository, &in_docker),
        };
        let mut round = 0;
        while Instant::now() < until {
            let first = self.mount.join(first);
            let second = self.mount.join(second);
            for (from, to) in [(&source, &first), (&first, &second), (&second, &out)] {
                self.tool("cp", &["-r", text(from), text(to)]);
                self.copies.fetch_add(1, Ordering::Relaxed);
            }
            assert_eq!(config(&out), config(&source), "{}", source.display());
            for folder in [&first, &second, &out, &source] {
                self.tool("rm", &["-r", text(folder)]);
            }
            round += 1;
            layout::write(&source, &[&content(number, round)]);
        }
    }

    /// Reads every file of a root file system.
    fn read(&self, number: usize, until: Instant) {
        let base = number % BASES;
        let folder = match number % 2 {
            0 => format!("rootfs/docker/{}", self.bases[base]),
            _ => format!("rootfs/repo/user/base{base}"),
        };
        let folder = self.mount.join(&folder);
        while Instant::now() < until {
            let line = "find \"$1\" -type f -exec cat {} + | wc -c";
            let bytes = self.tool("sh", &["-c", line, "sh", text(&folder)]);
            assert!(bytes.trim().parse::<u64>().unwrap() > 100_000, "{bytes}");
            self.walks.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn tool(&self, program: &str, arguments: &[&str]) -> String {
        let outcome: Outcome = run(self.pcocc.any(program).args(arguments));
        if !outcome.status.success() {
            println!("The mount said:\n{}", self.mount.log());
        }
        outcome.ok().to_owned()
    }

    fn listing(&self) -> String {
        let own = self.docker.name("");
        let docker = self.tool(
            "find",
            &[text(&self.mount.join("docker")), "-maxdepth", "3"],
        );
        let mut names: Vec<&str> = docker.lines().filter(|line| line.contains(&own)).collect();
        names.sort_unstable();
        let repository = self.tool("ls", &[text(&self.mount.join("repo/user"))]);
        names.join("\n") + &repository
    }

    /// The kernel forgets inodes when it has to; as root it can be told to.
    fn assert_nothing_held(&self) {
        let held = || {
            let status = fs::read(self.mount.join(".pcocc/status.json")).unwrap();
            let status: serde_json::Value = serde_json::from_slice(&status).unwrap();
            status["held"].clone()
        };
        let zero = |held: &serde_json::Value, names: &[&str]| names.iter().all(|n| held[*n] == 0);
        wait_until("nothing is being copied", Duration::from_secs(20), || {
            // This very file is open while it is read.
            let held = held();
            zero(&held, &["staged", "committing"]) && held["handles"].as_u64() <= Some(1)
        });
        if pcocc_tests::is_root() {
            wait_until("the kernel has forgotten", Duration::from_secs(20), || {
                fs::write("/proc/sys/vm/drop_caches", "2").unwrap();
                let held = held();
                // The file itself and its folder.
                held["inodes"].as_u64() <= Some(2) && zero(&held, &["rootfs"])
            });
        }
    }

    fn end(self) {
        let log = self.mount.log();
        self.mount.end();
        assert!(!log.contains("panicked"), "{log}");
        self.pcocc.verify();
        let unfinished = leaks::unfinished_in(&self.pcocc.repository());
        assert!(unfinished.is_empty(), "{unfinished:?}");
    }
}

/// Where a writer's own image is, outside the mount.
fn image(pcocc: &Pcocc, number: usize) -> PathBuf {
    pcocc.home().join(format!("image{number}"))
}

/// A layer's file that no other writer or round has.
fn content(number: usize, round: u32) -> Vec<u8> {
    format!("{number} {round} ").repeat(20_000).into_bytes()
}

/// The digest that is the image's ID.
fn config(layout: &Path) -> String {
    let line = "jq -r '.manifests[0].digest[7:]' \"$1/index.json\" | \
                xargs -I{} jq -r .config.digest \"$1/blobs/sha256/{}\"";
    let outcome = run(Command::new("sh").args(["-c", line, "sh"]).arg(layout));
    outcome.ok().to_owned()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}
