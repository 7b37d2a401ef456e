//! What a shell is offered is a word that the argument can be.

use std::fs;
use std::time::{Duration, Instant};

use pcocc_vm::job::State;
use serde_json::json;

use crate::daemon;
use crate::sandbox::Sandbox;

const SHELLS: [&str; 3] = ["bash", "zsh", "fish"];

/// Names that would be code, options, other folders or several words on the command line.
const HOSTILE: [&str; 14] = [
    "zz$(touch${IFS}PWNED)",
    "$(touch${IFS}PWNED)",
    "a;id",
    "-rf",
    "--insecure",
    "x`id`",
    "sp ace",
    "e\u{1b}]0;P\u{7}",
    "../../etc",
    "a/../../b",
    "b\nc",
    "~root",
    "{a,b}",
    "exe\u{202e}gnp",
];

/// The words that `shell` is offered for the last of `words`.
fn offered(sandbox: &Sandbox, shell: &str, socket: &str, words: &[&str]) -> Vec<String> {
    let mut command = sandbox.command(&["--", "pcocc"]);
    let answer = command
        .args(words)
        .env("COMPLETE", shell)
        .env("DOCKER_HOST", socket)
        .output()
        .unwrap();
    let answer = String::from_utf8(answer.stdout).unwrap();
    let words = answer
        .lines()
        .map(|line| line.split('\t').next().unwrap().to_owned());
    words.collect()
}

#[test]
fn images_of_a_daemon_are_offered_if_they_are_references() {
    let sandbox = Sandbox::new();
    let socket = sandbox.home().join("d.sock");
    daemon::start(&socket, |path| {
        let names = HOSTILE.iter().map(|name| format!("{name}:1"));
        let names = names.chain(["good:1", "ghcr.io/org/app:2", "bb:latest"].map(String::from));
        let images: Vec<_> = names
            .enumerate()
            .map(|(number, name)| {
                json!({
                    "Id": format!("sha256:{number:064}"), "ParentId": "", "RepoTags": [name],
                    "RepoDigests": [], "Created": 1, "Size": 1, "SharedSize": 0,
                    "Labels": {"a\u{1b}[2J": "b\u{1b}[2J"}, "Containers": 0,
                })
            })
            .collect();
        path.starts_with("/images/json")
            .then(|| (200, json!(images).to_string()))
    });
    let socket = format!("unix://{}", socket.display());
    for shell in SHELLS {
        for (typed, expected) in [
            (
                &["docker", "import", ""][..],
                &["bb", "ghcr.io/org/app:2", "good:1"][..],
            ),
            (&["docker", "import", "zz"], &[]),
            (&["docker", "import", "$"], &[]),
            (
                &["image", "import", "docker-daemon:g"],
                &["docker-daemon:ghcr.io/org/app:2", "docker-daemon:good:1"],
            ),
            (&["image", "import", "docker-daemon:zz"], &[]),
        ] {
            // The answer of a slow daemon is there at a later TAB.
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let found = offered(&sandbox, shell, &socket, typed);
                if found == expected {
                    break;
                }
                assert!(found.is_empty(), "{shell} {typed:?}: {found:?}");
                assert!(Instant::now() < deadline, "{shell} {typed:?}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

#[test]
fn images_of_a_repository_are_offered_if_they_have_names() {
    let sandbox = Sandbox::new();
    sandbox.write(
        ".pcocc/repos.yaml",
        "repos: [{name: r, path: '%{homedir}/r'}]\n",
    );
    sandbox.write("r/.config", "version: 2\n");
    for name in HOSTILE
        .iter()
        .filter(|name| !name.contains('/'))
        .chain(&["good"])
    {
        sandbox.write(&format!("r/meta/{name}@0"), "");
    }
    for shell in SHELLS {
        let found = |words: &[&str]| offered(&sandbox, shell, &sandbox.socket(), words);
        assert_eq!(found(&["image", "show", ""]), ["good", "r:"], "{shell}");
        // Behind the repository's name these are no options.
        let all = ["r:--insecure", "r:-rf", "r:good"];
        assert_eq!(found(&["image", "show", "r:"]), all, "{shell}");
        assert_eq!(found(&["image", "show", "zz$"]), [] as [&str; 0], "{shell}");
        assert_eq!(
            found(&["image", "show", "zz$(touch${IFS}PWNED)@"]),
            [] as [&str; 0]
        );
    }
}

#[test]
fn names_of_a_configuration_are_offered_if_they_are_plain_words() {
    let sandbox = Sandbox::new();
    let named = |value: &str| {
        let names = HOSTILE.iter().chain(&["good"]);
        let entries: serde_json::Map<_, _> = names
            .map(|name| ((*name).to_owned(), serde_json::from_str(value).unwrap()))
            .collect();
        serde_json::Value::Object(entries).to_string()
    };
    sandbox.write(".pcocc/templates.yaml", named("{}"));
    sandbox.write(
        ".pcocc/containers.yaml",
        format!("modules: {}\n", named(r#"{"env": ["X=1"]}"#)),
    );
    for shell in SHELLS {
        let found = |words: &[&str]| offered(&sandbox, shell, &sandbox.socket(), words);
        for words in [
            &["docker", "alloc", "--template", ""][..],
            &["docker", "alloc", "--template", "g"],
            &["run", "-M", ""],
        ] {
            assert_eq!(found(words), ["good"], "{shell} {words:?}");
        }
    }
}

/// Slurm's own answers, from a program of that name.
#[test]
fn partitions_are_offered_if_they_are_plain_words() {
    use std::os::unix::fs::PermissionsExt as _;
    let sandbox = Sandbox::new();
    // A name with a line break in it would be two names of the answer.
    let names = HOSTILE.iter().filter(|name| !name.contains('\n'));
    let words: String = names.map(|name| format!("{name}\n")).collect();
    sandbox.write("partitions", words + "sandy\n");
    sandbox.write("bin/sinfo", "#!/bin/sh\nexec cat ~/partitions\n");
    let program = sandbox.home().join("bin/sinfo");
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755)).unwrap();
    for shell in SHELLS {
        for (typed, expected) in [
            (&["docker", "alloc", "-p", ""][..], "sandy"),
            (&["docker", "alloc", "--partition="], "--partition=sandy"),
            (&["docker", "batch", "-p"], "-psandy"),
            (&["docker", "batch", "-p", "sandy,s"], "sandy,sandy"),
            (&["run", "--partition", ""], "sandy"),
        ] {
            let deadline = Instant::now() + Duration::from_secs(30);
            loop {
                let mut command = sandbox.command(&["--", "pcocc"]);
                let path = format!("{}:/usr/bin:/bin", program.parent().unwrap().display());
                command.args(typed).env("COMPLETE", shell).env("PATH", path);
                let answer = String::from_utf8(command.output().unwrap().stdout).unwrap();
                let found: Vec<_> = answer
                    .lines()
                    .filter_map(|line| line.split('\t').next())
                    .collect();
                if found == [expected] {
                    break;
                }
                assert!(found.is_empty(), "{shell} {typed:?}: {found:?}");
                assert!(Instant::now() < deadline, "{shell} {typed:?}");
                std::thread::sleep(Duration::from_millis(100));
            }
        }
    }
}

#[test]
fn what_a_candidate_is_has_no_escapes() {
    let sandbox = Sandbox::new();
    let job = sandbox.job("x\u{1b}]0;P\u{7}\u{202e}", State::Ready);
    for shell in SHELLS {
        let mut command = sandbox.command(&["--", "pcocc", "docker", "env", "-j", ""]);
        let answer = command.env("COMPLETE", shell).output().unwrap();
        let answer = String::from_utf8(answer.stdout).unwrap();
        assert!(
            answer.starts_with(&job.id().to_string()),
            "{shell}: {answer:?}"
        );
        let hidden = |c: char| c == '\u{1b}' || c == '\u{7}' || c == '\u{202e}';
        assert!(!answer.contains(hidden), "{shell}: {answer:?}");
    }
}
