//! An image to copy around, and lines of shell in a mount.

use std::path::Path;
use std::process::Command;

use pcocc_tests::{Docker, Mount, Outcome, Pcocc, layout, leaks, run};

/// A repository with the image `hello`, and the same image as the folder `plain` in the home.
pub fn with_image(pcocc: Pcocc) -> (Pcocc, String) {
    let scratch = pcocc_tests::scratch();
    let made = scratch.path().join("made");
    // Its own image for every test: a daemon that tests share knows none of its layers.
    // Nothing compresses it, and no socket swallows it.
    let mut state = 0xcafe_f00d_u32;
    let content: Vec<u8> = std::iter::repeat_with(|| {
        state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (state >> 24) as u8
    })
    .take(1_000_000)
    .chain(made.display().to_string().into_bytes())
    .collect();
    layout::write(&made, &[&content, b"small"]);
    run(Command::new("chmod")
        .args(["-R", "a+rX"])
        .arg(scratch.path()))
    .ok();
    let plain = pcocc.home().join("plain");
    pcocc.run_any("cp", &["-r", text(&made), text(&plain)]);
    pcocc.run(&["image", "import", "-t", "oci", text(&plain), "hello"]);
    let id = pcocc.image_id("hello");
    (pcocc, id)
}

pub fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// Runs a line of shell in the mount point.
pub fn shell(pcocc: &Pcocc, mount: &Mount, line: &str) -> Outcome {
    let script = format!("set -eu -o pipefail; cd \"$1\"; home=$2; {line}");
    let mut bash = pcocc.any("bash");
    bash.env("python", include_str!("copy.py"));
    bash.args(["-c", &script, "bash"]).arg(mount.path());
    run(bash.arg(pcocc.home()))
}

/// A mount with the image `hello` in repository `user`, and the folder `plain` of the same in the home.
pub struct Site {
    pub pcocc: Pcocc,
    pub mount: Mount,
    pub docker: Option<Docker>,
    /// ID of the image.
    pub id: String,
}

impl Site {
    pub fn new(pcocc: Pcocc, docker: Option<Docker>) -> Self {
        let pcocc = match &docker {
            Some(docker) => pcocc.with(docker),
            None => pcocc,
        };
        Self::with(pcocc, docker, &[])
    }

    /// Mounts with options; commands talk to the daemon they were made for.
    pub fn with(pcocc: Pcocc, docker: Option<Docker>, options: &[&str]) -> Self {
        let (pcocc, id) = with_image(pcocc);
        let mount = Mount::with(&pcocc, "mnt", options);
        Self {
            pcocc,
            mount,
            docker,
            id,
        }
    }

    /// On the daemon that tests share, where `rm -r` may delete.
    pub fn that_deletes() -> Self {
        let docker = Docker::shared();
        let pcocc = Pcocc::new().with(&docker);
        Self::with(pcocc, Some(docker), &["--allow-delete"])
    }

    /// A name that no other test uses, where that matters.
    pub fn name(&self, name: &str) -> String {
        match &self.docker {
            Some(docker) => docker.name(name),
            None => name.to_owned(),
        }
    }

    /// Runs a line of shell in the mount point.
    pub fn shell(&self, line: &str) -> Outcome {
        shell(&self.pcocc, &self.mount, line)
    }

    /// Runs a line of shell that copies `$from` to `$to`: `$name` in the folder `to` of the mount.
    pub fn copy(&self, line: &str, from: &str, to: &str, image: &str) -> Outcome {
        self.shell(&format!(
            "from={from} name={image} to=$PWD/{to}/{image}; {line}"
        ))
    }

    /// The ID of an image as its store has it, for the stores `repo/user` and `docker`.
    pub fn id_of(&self, store: &str, image: &str) -> Option<String> {
        match (&self.docker, store) {
            (Some(docker), "docker") => docker.image_id(image),
            _ => {
                let meta = format!("meta/{image}@0");
                let there = self.pcocc.repository().join(meta).exists();
                there.then(|| self.pcocc.image_id(image))
            }
        }
    }

    /// The names in a folder of the mount.
    pub fn names(&self, folder: &str) -> Vec<String> {
        let listed = self.shell(&format!("ls -A {folder}"));
        listed.ok().lines().map(str::to_owned).collect()
    }

    /// What became of the copies to a name, oldest first.
    pub fn transfers(&self, image: &str) -> Vec<String> {
        let latest = format!("{image}:latest");
        let mut states = self.transfers_of(image, "copy");
        states.extend(self.transfers_of(&latest, "copy"));
        states
    }

    /// What became of the transfers of one kind.
    pub fn transfers_of(&self, image: &str, action: &str) -> Vec<String> {
        let status = self.shell("cat .pcocc/status.json");
        let status: serde_json::Value = serde_json::from_str(status.ok()).unwrap();
        let transfers = status["transfers"].as_array().unwrap().iter();
        let mine = transfers.filter(|t| t["image"] == image && t["action"] == action);
        mine.map(|t| t["state"].as_str().unwrap().to_owned())
            .collect()
    }

    /// Unmounts; the repository has to be whole, and nothing unfinished left.
    pub fn end(self) {
        self.mount.end();
        self.pcocc.verify();
        let left = leaks::unfinished_in(&self.pcocc.repository());
        assert_eq!(left, Vec::<String>::new());
    }
}
