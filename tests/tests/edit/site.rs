//! An image to edit, and a look at what an edit leaves in docker.

use std::path::{Path, PathBuf};
use std::process::Command;

use pcocc_tests::{Docker, Pcocc, Terminal, run, wait_until};
use serde_json::Value;

/// A daemon and a repository that both can have the image.
pub struct Site {
    pub pcocc: Pcocc,
    pub docker: Docker,
    /// The image's name in docker and in repository `user`; no other test has it.
    pub image: String,
}

/// Requests while an edit is saved, and what has to be changed for them to be made: a file by itself is
/// fetched by itself, but only a commit can tell of links.
pub const STAGES: [(&str, &str); 4] = [
    ("/changes", "touch /newfile"),
    ("/archive?path=/newfile", "touch /newfile"),
    ("/commit", "touch /newfile; ln /newfile /linked"),
    ("/get", "touch /newfile; ln /newfile /linked"),
];

impl Site {
    /// The image is the busybox image of the fixtures, with all of a config that an edit must not touch.
    pub fn new() -> Self {
        let docker = Docker::shared();
        let pcocc = Pcocc::new().with(&docker);
        Self::with(pcocc, docker)
    }

    pub fn with(pcocc: Pcocc, docker: Docker) -> Self {
        let base = docker.busybox_image("base");
        let dockerfile = format!(
            "FROM {base}\nRUN [\"mkdir\", \"/volume\"]\nVOLUME /volume\nEXPOSE 80/tcp\nUSER 1000:1001\n\
             STOPSIGNAL SIGINT\nHEALTHCHECK --interval=7s CMD [\"true\"]\n\
             LABEL odd=\"<&> \\\\ \\\"quoted\\\"\"\nENTRYPOINT [\"/bin/echo\"]\nCMD [\"a  b\"]\n"
        );
        let image = docker.build("image", &dockerfile, &[]);
        let site = Self {
            pcocc,
            docker,
            image,
        };
        site.import(&site.image);
        site
    }

    /// Takes an image out of docker into repository `user`, under the same name.
    pub fn import(&self, name: &str) {
        self.pcocc.run(&["-q", "docker", "import", name, name]);
    }

    /// Gives `name` in this test's name space.
    pub fn name(&self, name: &str) -> String {
        self.docker.name(name)
    }

    /// Starts `pcocc` on a terminal.
    pub fn terminal(&self, arguments: &[&str]) -> Terminal {
        Terminal::start(&self.pcocc.command(arguments))
    }

    /// Opens the shell of an edit of the image, and waits for its prompt.
    pub fn edit(&self, dest: &str) -> Terminal {
        let mut terminal = self.terminal(&["docker", "edit", &self.image, dest]);
        terminal.wait_for("# Hit CTRL + D to save your modifications #");
        terminal.wait_for("# ");
        terminal
    }

    /// The image's config, as text.
    pub fn config(&self, name: &str) -> String {
        let id = self.pcocc.image_id(name);
        let hex = id.strip_prefix("sha256:").expect("a digest");
        let path = self.pcocc.repository().join("data").join(&hex[..2]);
        std::fs::read_to_string(path.join(hex)).expect("read the config")
    }

    /// Whether repository `user` has the image.
    pub fn has(&self, name: &str) -> bool {
        self.pcocc
            .repository()
            .join(format!("meta/{name}@0"))
            .exists()
    }

    /// What a shell command in a container of an image of the repository writes.
    pub fn in_docker(&self, image: &str, script: &str) -> String {
        let name = self.name("check");
        self.pcocc.run(&["-q", "docker", "export", image, &name]);
        let arguments = [
            "run",
            "--rm",
            "--network=none",
            "--user=0",
            "--entrypoint=/bin/sh",
        ];
        let said = self
            .docker
            .run(&[&arguments[..], &[&name, "-c", script]].concat());
        self.docker.run(&["rmi", "-f", &name]);
        said
    }

    /// Names of the containers of edits of the image.
    pub fn containers(&self) -> Vec<String> {
        let filter = format!("label=pcocc.edit.source=user:{}", self.image);
        let listed = self
            .docker
            .run(&["ps", "-a", "--filter", &filter, "--format", "{{.Names}}"]);
        listed.lines().map(str::to_owned).collect()
    }

    /// Images that edits of the image made in docker.
    pub fn images(&self) -> Vec<String> {
        let filter = format!("label=pcocc.edit.source=user:{}", self.image);
        let listed = self
            .docker
            .run(&["images", "-a", "-q", "--filter", &filter]);
        listed.lines().map(str::to_owned).collect()
    }

    /// Fails when an edit left something, in docker or in temporary folders.
    #[track_caller]
    pub fn assert_nothing_left(&self) {
        assert_eq!(self.containers(), Vec::<String>::new());
        assert_eq!(self.images(), Vec::<String>::new());
        let temporary = std::fs::read_dir(self.pcocc.home().join("tmp")).expect("read tmp");
        // A mount's own folder stays as long as the spool in it may be of use.
        let spool = format!("pcocc-{}", rustix::process::geteuid().as_raw());
        let left: Vec<PathBuf> = temporary
            .flatten()
            .filter(|entry| entry.file_name().to_string_lossy() != spool)
            .map(|entry| entry.path())
            .collect();
        assert_eq!(left, Vec::<PathBuf>::new());
    }

    /// Removes a container that was kept, and the image below it.
    pub fn drop_kept(&self) {
        for container in self.containers() {
            self.docker.run(&["rm", "-f", &container]);
        }
        for image in self.images() {
            self.docker.try_run(&["rmi", "-f", &image]);
        }
    }

    /// Waits until a container of an edit runs, and gives its name.
    pub fn running(&self) -> String {
        let mut name = String::new();
        wait_until(
            "the container runs",
            std::time::Duration::from_secs(30),
            || {
                let filter = format!("label=pcocc.edit.source=user:{}", self.image);
                name = self
                    .docker
                    .run(&["ps", "--filter", &filter, "--format", "{{.Names}}"]);
                !name.is_empty()
            },
        );
        name
    }
}

/// The part of an image config that says how the image runs, as it is written.
pub fn run_config(config: &str) -> &str {
    let start = config.find("\"config\":{").expect("a config");
    let mut depth = 0;
    let mut in_text = false;
    let mut escaped = false;
    for (at, c) in config[start..].char_indices() {
        match c {
            _ if escaped => escaped = false,
            '\\' => escaped = in_text,
            '"' => in_text = !in_text,
            '{' if !in_text => depth += 1,
            '}' if !in_text => {
                depth -= 1;
                if depth == 0 {
                    return &config[start..=start + at];
                }
            }
            _ => {}
        }
    }
    panic!("no end in {config}")
}

/// How many entries an image's history has.
pub fn history(config: &str) -> usize {
    let config: Value = serde_json::from_str(config).expect("JSON");
    config["history"].as_array().map_or(0, Vec::len)
}

/// Copies a program and the libraries it is linked with, for a build's context: where they go and where
/// they are.
pub fn program(path: &str) -> Vec<(String, PathBuf)> {
    let listed = run(Command::new("ldd").arg(path)).ok().to_owned();
    let libraries = listed
        .split_whitespace()
        .filter(|word| word.starts_with('/'))
        .map(str::to_owned);
    libraries
        .chain([path.to_owned()])
        .map(|file| {
            let real = Path::new(&file).canonicalize().expect("a file");
            (file.trim_start_matches('/').to_owned(), real)
        })
        .collect()
}
