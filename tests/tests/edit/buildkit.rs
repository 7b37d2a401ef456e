//! Builds with BuildKit, contexts that are no folder, and builds that are killed.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::TcpListener;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use pcocc_tests::{Docker, Pcocc, Proxy, Terminal, run};
use rustix::process::Signal;

use crate::site::Site;

/// Makes the docker command that can build with BuildKit the one that pcocc uses, as a user would.
fn use_buildkit(site: &Site) {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let can = |folder: &PathBuf| {
        let docker = folder.join("docker");
        let said = |arguments: &[&str]| run(Command::new(&docker).args(arguments));
        if !docker.exists() {
            return false;
        }
        // Up to 20.10 it is in the command itself, later in a plugin.
        let version = said(&["--version"]);
        let old = version.stdout.split_whitespace().nth(2);
        let old = old.and_then(|version| version.split('.').next()?.parse::<u32>().ok());
        old.is_some_and(|major| major < 23) || said(&["buildx", "version"]).status.success()
    };
    let folder = std::env::split_paths(&path).find(can);
    let folder = folder.expect(
        "no docker command in PATH can build with BuildKit: run scripts/install-dependencies test",
    );
    let yaml = format!("runtime: {{docker_path: {}}}\n", folder.display());
    fs::write(site.pcocc.home().join(".pcocc/containers.yaml"), yaml).expect("write");
}

/// The build of the arguments, with BuildKit or the classic builder.
fn build(site: &Site, buildkit: bool, arguments: &[&str]) -> Command {
    let mut command = site.pcocc.command(&["-q", "docker", "build"]);
    command.args(arguments);
    command.env("DOCKER_BUILDKIT", if buildkit { "1" } else { "0" });
    command
}

fn write(site: &Site, name: &str, text: &str) {
    let path = site.pcocc.home().join(name);
    fs::create_dir_all(path.parent().expect("a folder")).expect("make a folder");
    fs::write(path, text).expect("write a file");
}

fn platform() -> &'static str {
    match std::env::consts::ARCH {
        "aarch64" => "linux/arm64",
        _ => "linux/amd64",
    }
}

/// What the classic builder cannot: secrets and ssh agents for single steps.
#[test]
fn docker_secrets_agents_and_platforms_are_handed_on() {
    let site = Site::new();
    use_buildkit(&site);
    let new = site.name("new");
    write(&site, "word", "a word for the build alone\n");
    let _agent = UnixListener::bind(site.pcocc.home().join("agent")).expect("make a socket");
    let text = format!(
        "FROM {}\nUSER 0:0\nENTRYPOINT []\nHEALTHCHECK NONE\n\
         RUN --mount=type=secret,id=word [\"/bin/sh\", \"-c\", \"wc -c </run/secrets/word >/length\"]\n\
         RUN --mount=type=ssh [\"/bin/sh\", \"-c\", \"test -S $SSH_AUTH_SOCK && echo agent >/agent\"]\n\
         CMD [\"cat\", \"/length\", \"/agent\"]\n",
        site.image
    );
    write(&site, "hello/Dockerfile", &text);
    let mut command = build(
        &site,
        true,
        &[
            "--secret",
            "id=word,src=word",
            "--ssh",
            "default=agent",
            "--platform",
            platform(),
            "hello",
            &new,
            "--",
            "--network=none",
            "--label",
            "x=y",
        ],
    );
    run(&mut command).ok();
    let made = ["run", "-s", "--cwd", "/", "-I", &new];
    assert_eq!(site.pcocc.run(&made), "27\nagent");
    let secret = site.pcocc.try_run(
        &[
            &made[..],
            &[
                "sh",
                "-c",
                "test ! -s /run/secrets/word && test -z \"$SSH_AUTH_SOCK\"",
            ],
        ]
        .concat(),
    );
    secret.ok();
    assert!(site.config(&new).contains("\"x\":\"y\""));
    // The same image in docker as here, and here what docker made of it.
    site.pcocc.run(&["-q", "docker", "export", &new, &new]);
    assert_eq!(site.docker.image_id(&new), Some(site.pcocc.image_id(&new)));
    let shown = site.pcocc.run(&["image", "show", "--format", "json", &new]);
    let shown: serde_json::Value = serde_json::from_str(&shown).expect("JSON");
    assert_eq!(shown["origin"]["made_by"], "pcocc docker build");
    assert_eq!(shown["origin"]["parent"]["name"], site.image.as_str());

    // What is wrong is told in BuildKit's words, too.
    write(
        &site,
        "hello/Dockerfile",
        &format!("FROM {}\nRUN exit 3\n", site.image),
    );
    let broken = run(&mut build(&site, true, &["hello", "broken"]));
    assert!(broken.failed().contains("docker build failed"), "{broken}");
    assert!(!site.has("broken"));
    site.assert_nothing_left();
}

/// Serves `text` as a Dockerfile to whoever asks, and gives its URL.
fn serve(text: String) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").expect("listen");
    let address = listener.local_addr().expect("an address");
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.expect("a connection");
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).is_ok_and(|n| n == 1) {
                asked.push(byte[0]);
            }
            let body = if asked.starts_with(b"HEAD") {
                ""
            } else {
                &text
            };
            let answer = format!(
                "HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\nContent-Length: {}\r\n\
                 Connection: close\r\n\r\n{body}",
                text.len()
            );
            // Who asked may have seen enough.
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    format!("http://{address}/Dockerfile")
}

#[test]
fn docker_contexts_without_a_folder() {
    let site = Site::new();
    use_buildkit(&site);
    let url = serve(format!("FROM {}\nENV from=url\n", site.image));
    for buildkit in [false, true] {
        let new = site.name(&format!("url-{buildkit}"));
        run(&mut build(&site, buildkit, &[&url, &new])).ok();
        assert!(site.config(&new).contains("\"from=url\""));

        let new = site.name(&format!("stdin-{buildkit}"));
        let mut command = build(&site, buildkit, &["-", &new]);
        let mut child = command.stdin(Stdio::piped()).spawn().expect("start pcocc");
        let text = format!("FROM {}\nENV from=stdin\n", site.image);
        let mut stdin = child.stdin.take().expect("a pipe");
        stdin
            .write_all(text.as_bytes())
            .expect("write a Dockerfile");
        drop(stdin);
        assert!(child.wait().expect("wait for pcocc").success());
        assert!(site.config(&new).contains("\"from=stdin\""));
    }
    site.assert_nothing_left();
}

/// Names in docker as builds give them, for a while.
fn random_names(docker: &Docker) -> Vec<String> {
    let listed = docker.run(&["images", "--format", "{{.Repository}}"]);
    let random = |name: &&str| name.len() == 32 && name.chars().all(|c| c.is_ascii_hexdigit());
    listed.lines().filter(random).map(str::to_owned).collect()
}

/// What SIGKILL leaves is cleared away by the next build, in docker and in TMPDIR.
#[test]
fn docker_build_that_is_killed() {
    let docker = Docker::shared();
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), docker);
    let new = site.name("new");
    let text = format!("FROM {}\nENV only=here\n", site.image);
    write(&site, "hello/Dockerfile", &text);
    write(
        &site,
        "slow/Dockerfile",
        &format!("FROM {}\nRUN [\"/bin/sleep\", \"1000\"]\n", site.image),
    );

    // When the image is built, and not yet taken out.
    proxy.hold("/get");
    let mut terminal = site.terminal(&["docker", "build", "hello", &new]);
    proxy.wait_until_held();
    terminal.signal(Signal::KILL);
    terminal.end();
    proxy.release();
    let tag = &tag_of(&terminal);
    assert!(random_names(&site.docker).contains(tag));

    // Ctrl-C at the same place leaves nothing, and takes away what was left.
    proxy.hold("/get");
    let mut terminal = site.terminal(&["docker", "build", "hello", &new]);
    proxy.wait_until_held();
    assert!(!random_names(&site.docker).contains(tag));
    terminal.keys("\x03");
    assert_eq!(terminal.end().code(), Some(130), "{}", terminal.shown());
    proxy.release();
    assert!(!random_names(&site.docker).contains(&tag_of(&terminal)));
    assert!(!site.has(&new));

    // While docker builds: what it runs ends with the terminal.
    let mut terminal = site.terminal(&["docker", "build", "slow", &new]);
    terminal.wait_for("Running in");
    assert_eq!(build_folders(site.pcocc.home()).len(), 1);
    terminal.signal(Signal::KILL);
    terminal.end();

    site.pcocc.run(&["-q", "docker", "build", "hello", &new]);
    assert_eq!(build_folders(site.pcocc.home()), Vec::<PathBuf>::new());
    assert!(site.config(&new).contains("\"only=here\""));
    site.assert_nothing_left();
}

/// The name that docker says it gave the image.
fn tag_of(terminal: &Terminal) -> String {
    let shown = terminal.shown();
    let tag = shown.split("Successfully tagged ").nth(1);
    let tag = tag.and_then(|rest| rest.split(':').next());
    tag.expect("a tag").to_owned()
}

fn build_folders(home: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(home.join("tmp")).expect("read tmp").flatten();
    let paths = entries.map(|entry| entry.path());
    paths
        .filter(|path| path.to_string_lossy().contains("pcocc-build."))
        .collect()
}
