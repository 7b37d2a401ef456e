//! Images built from Dockerfiles.

use std::fs;
use std::path::PathBuf;

use pcocc_layers::Digest;
use pcocc_tests::leaks;

use crate::site::Site;

/// Writes `./hello/Dockerfile` into the home.
fn dockerfile(site: &Site, text: &str) -> PathBuf {
    let folder = site.pcocc.home().join("hello");
    fs::create_dir_all(&folder).expect("make a folder");
    fs::write(folder.join("Dockerfile"), text).expect("write a Dockerfile");
    folder
}

/// The manual's session.
#[test]
fn docker_manual_build() {
    let site = Site::new();
    let watch = leaks::Watch::new(site.pcocc.home());
    let text = format!(
        "from {}\nENTRYPOINT []\nCMD [\"echo\", \"Hello Pcocc\"]\n",
        site.image
    );
    dockerfile(&site, &text);
    let hello = site.name("hello");
    let mut terminal = site.terminal(&["docker", "build", "./hello", &hello]);
    assert!(terminal.end().success(), "{}", terminal.shown());
    for words in [
        "Sending build context to Docker daemon",
        "Step 1/3 : from",
        "Successfully built",
        "Successfully tagged",
        "Built image: user:",
    ] {
        terminal.wait_for(words);
    }
    let shown = site
        .pcocc
        .run(&["image", "show", "--format", "json", &hello]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(
        shown["config"]["cmd"],
        serde_json::json!(["echo", "Hello Pcocc"])
    );
    let origin = &shown["origin"];
    assert_eq!(origin["made_by"], "pcocc docker build");
    assert_eq!(
        origin["dockerfile"],
        Digest::of(text.as_bytes()).to_string()
    );
    assert_eq!(origin["parent"]["name"], site.image.as_str());
    assert_eq!(origin["parent"]["id"], site.pcocc.image_id(&site.image));
    // The temporary name is gone.
    let names = site.docker.run(&["images", "--format", "{{.Repository}}"]);
    let random = |name: &str| name.len() == 32 && name.chars().all(|c| c.is_ascii_hexdigit());
    let tag = terminal.shown();
    let tag = tag
        .split("Successfully tagged ")
        .nth(1)
        .and_then(|rest| rest.split(':').next());
    assert!(tag.is_some_and(random), "{tag:?}");
    assert!(!names.lines().any(|name| Some(name) == tag), "{names}");
    // The same image ID as docker gives it.
    site.pcocc.run(&["-q", "docker", "export", &hello, &hello]);
    assert_eq!(
        site.docker.image_id(&hello),
        Some(site.pcocc.image_id(&hello))
    );
    let run = ["run", "--rm", "--network=none", &hello];
    assert_eq!(site.docker.run(&run), "Hello Pcocc");
    site.assert_nothing_left();
    watch.assert_clean();
}

#[test]
fn docker_options_are_handed_on() {
    let site = Site::new();
    let text = "ARG BASE=localhost:1/none\nFROM $BASE AS one\nARG WHAT\nENV what=$WHAT\n\
        FROM one AS two\nENV two=2\nFROM two\nENV three=3\n";
    let folder = dockerfile(&site, "FROM localhost:1/none\n");
    fs::write(folder.join("other"), text).expect("write a Dockerfile");
    let (new, base) = (site.name("new"), format!("BASE={}", site.image));
    site.pcocc.run(&[
        "docker",
        "build",
        "-f",
        "hello/other",
        "--build-arg",
        &base,
        "--build-arg",
        "WHAT=this",
        "--target",
        "two",
        "--no-cache",
        "hello",
        &new,
        "--",
        "--label",
        "x=y",
        "--network=none",
    ]);
    let shown = site.pcocc.run(&["image", "show", "--format", "json", &new]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    let env = shown["config"]["env"].to_string();
    assert!(
        env.contains("what=this") && env.contains("two=2") && !env.contains("three"),
        "{env}"
    );
    assert!(site.config(&new).contains("\"x\":\"y\""));
    assert_eq!(shown["origin"]["parent"]["name"], site.image.as_str());

    // From standard input, and with docker's command where containers.yaml says.
    let second = site.name("second");
    let bin = site.pcocc.home().join("bin");
    fs::create_dir(&bin).expect("make a folder");
    let docker =
        pcocc_tests::run(std::process::Command::new("sh").args(["-c", "command -v docker"]));
    std::os::unix::fs::symlink(docker.ok(), bin.join("docker")).expect("link docker");
    let yaml = format!("runtime: {{docker_path: {}}}\n", bin.display());
    fs::write(site.pcocc.home().join(".pcocc/containers.yaml"), yaml).expect("write");
    let mut command = site.pcocc.command(&["-q", "docker", "build", "-", &second]);
    command
        .env("PATH", "/nonexistent")
        .stdin(std::process::Stdio::piped());
    let mut child = command.spawn().expect("start pcocc");
    let mut stdin = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(
        &mut stdin,
        format!("FROM {}\nENV a=b\n", site.image).as_bytes(),
    )
    .expect("write");
    drop(stdin);
    assert!(child.wait().expect("wait for pcocc").success());
    assert!(site.config(&second).contains("\"a=b\""));
}

/// The manual's note: FROM works on an image that was exported; and --export-from does it by itself.
#[test]
fn docker_from_an_image_of_the_repository() {
    let site = Site::new();
    let (own, new) = (site.name("own"), site.name("new"));
    site.pcocc.run(&[
        "-q",
        "docker",
        "edit",
        "-E",
        "touch /newfile",
        &site.image,
        &own,
    ]);
    dockerfile(
        &site,
        &format!("FROM {own}\nUSER 0\nRUN [\"touch\", \"/second\"]\n"),
    );

    // Without docker's command nothing is looked for elsewhere, so that the warning can be tried.
    let mut command = site.pcocc.command(&["docker", "build", "hello", &new]);
    let outcome = pcocc_tests::run(command.env("PATH", "/nonexistent"));
    let said = outcome.failed();
    assert!(
        said.contains(&format!("{own} is in a repository, not in docker")),
        "{outcome}"
    );
    assert!(
        said.contains("--export-from") && said.contains("docker_path"),
        "{outcome}"
    );

    // On a terminal it is offered.
    let mut terminal = site.terminal(&["docker", "build", "hello", &new]);
    terminal.wait_for("Export it? [Y/n] ");
    terminal.keys("maybe\r");
    terminal.wait_for("Please answer y or n.");
    terminal.wait_for("[Y/n] ");
    terminal.keys("\x03");
    assert_eq!(terminal.end().code(), Some(130), "{}", terminal.shown());
    assert_eq!(site.docker.image_id(&own), None);
    let mut terminal = site.terminal(&["docker", "build", "hello", &new]);
    terminal.wait_for("Export it? [Y/n] ");
    terminal.keys("\r");
    assert!(terminal.end().success(), "{}", terminal.shown());
    assert_eq!(
        site.in_docker(&new, "ls /newfile /second"),
        "/newfile\n/second"
    );

    site.docker.run(&["rmi", "-f", &own]);
    let third = site.name("third");
    site.pcocc
        .run(&["docker", "build", "--export-from", "hello", &third]);
    assert_eq!(site.docker.image_id(&own), Some(site.pcocc.image_id(&own)));
    site.pcocc.verify();
}

#[test]
fn docker_builds_that_fail() {
    let site = Site::new();
    let new = site.name("new");
    let build = ["docker", "build", "hello", &new];
    let broken = |text: &str| {
        dockerfile(&site, text);
        site.pcocc.try_run(&build)
    };
    let outcome = broken("FRUM nothing\n");
    assert!(
        outcome.failed().contains("docker build failed"),
        "{outcome}"
    );
    let outcome = broken(&format!("FROM {}\nRUN exit 3\n", site.image));
    // Docker's own words and status.
    assert!(
        outcome.failed().contains("returned a non-zero code: 3"),
        "{outcome}"
    );
    assert_eq!(outcome.status.code(), Some(3), "{outcome}");
    let outcome = broken("FROM localhost:1/none\n");
    assert!(
        outcome.failed().contains("docker build failed"),
        "{outcome}"
    );
    let outcome = site
        .pcocc
        .try_run(&["docker", "build", "no-such-folder", &new]);
    assert!(
        outcome.failed().contains("docker build failed"),
        "{outcome}"
    );
    assert!(!site.has(&new));

    // A destination that is taken is known before anything is built.
    dockerfile(
        &site,
        &format!("FROM {}\nRUN [\"touch\", \"/x\"]\n", site.image),
    );
    let outcome = site
        .pcocc
        .try_run(&["docker", "build", "hello", &site.image]);
    assert!(outcome.failed().contains("already exists"), "{outcome}");
    assert_eq!(outcome.stdout, "");
    let outcome = site.pcocc.try_run(&["docker", "build", "hello", "a/b"]);
    assert!(outcome.failed().contains("a/b"), "{outcome}");
    site.assert_nothing_left();
}

#[test]
fn docker_build_is_interrupted() {
    let site = Site::new();
    let new = site.name("new");
    let text = format!("FROM {}\nRUN [\"/bin/sleep\", \"1000\"]\n", site.image);
    dockerfile(&site, &text);
    let mut terminal = site.terminal(&["docker", "build", "hello", &new]);
    terminal.wait_for("Running in");
    terminal.keys("\x03");
    assert_eq!(terminal.end().code(), Some(130), "{}", terminal.shown());
    let mut terminal = site.terminal(&["docker", "build", "hello", &new]);
    terminal.wait_for("Running in");
    // Not from the terminal: only pcocc has it.
    terminal.signal(rustix::process::Signal::TERM);
    assert_eq!(terminal.end().code(), Some(143), "{}", terminal.shown());
    assert!(!site.has(&new));
    site.assert_nothing_left();
}
