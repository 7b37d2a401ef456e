//! The picture of the README is true: a session typed into a shell on a terminal, and drawn from the screen, looks like
//! `docs/session.svg`. Digests, sizes and dates may differ, and the stages of a start.
//!
//! `PCOCC_UPDATE_DOCS=1` writes the picture anew.

use std::fs;
use std::io::Write as _;

use pcocc_tests::guide::all_lasting;
use pcocc_tests::{Pcocc, binary, picture, workspace};

use crate::home::{BOOT, assert_nothing_left, home};
use crate::look::is_stage;
use crate::terminal::Terminal;

/// Each command, and the prompt that follows.
const SESSION: [(&str, &str); 6] = [
    ("pcocc docker alloc -c 2", IN_VM),
    // On the standard error, some of docker's commands advise another builder.
    ("docker build --quiet --tag hello hello 2>/dev/null", IN_VM),
    ("docker run --rm hello", IN_VM),
    ("pcocc docker import hello hello", IN_VM),
    ("exit", HERE),
    ("pcocc run -s -I hello", HERE),
];
const HERE: &str = "$";
const IN_VM: &str = "(pcocc/1) $";

/// A green prompt, and bold commands.
const BASHRC: &str = r"PS1='\[\e[1;32m\]$\[\e[0;1m\] ' PS0='\e[0m'";

const DOCKERFILE: &str =
    "FROM scratch\nCOPY busybox /bin/\nCMD [\"busybox\", \"echo\", \"Hello from an image\"]\n";

#[test]
fn the_readmes_picture_is_true() {
    let pcocc = home(Pcocc::new(), "local", "");
    let folder = pcocc.home();
    let repositories = folder.join(".pcocc/repos.yaml");
    let with_cache = format!(
        "{}cache: {{path: {}/.pcocc/cache}}\n",
        fs::read_to_string(&repositories).unwrap(),
        folder.display()
    );
    fs::write(&repositories, with_cache).unwrap();
    fs::create_dir(folder.join("hello")).unwrap();
    fs::copy("/bin/busybox", folder.join("hello/busybox")).unwrap();
    fs::write(folder.join("hello/Dockerfile"), DOCKERFILE).unwrap();
    fs::write(folder.join(".bashrc"), BASHRC).unwrap();
    // A job of another home leaves the snapshot, which all sessions but the first find.
    home(Pcocc::new(), "local", "").run(&["docker", "alloc", "-E", "true"]);

    let program = binary();
    let path = format!(
        "{}:{}",
        program.parent().unwrap().display(),
        std::env::var("PATH").unwrap()
    );
    let mut shell = pcocc.any("bash");
    shell
        .args(["-c", "cd && exec bash -i"])
        .env("PATH", path)
        .env("SHELL", "/bin/bash")
        .env("DOCKER_BUILDKIT", "0")
        .env("DOCKER_CLI_HINTS", "false");
    let mut terminal = Terminal::run(40, 102, shell);
    terminal.patience = BOOT;
    let mut prompt = HERE;
    for (command, next) in SESSION {
        let before = prompt;
        terminal.until("prompt", |text| text.lines().last() == Some(before));
        terminal
            .keys
            .write_all(format!("{command}\r").as_bytes())
            .unwrap();
        let echo = format!("{prompt} {command}");
        terminal.until("echo", |text| text.contains(&echo));
        prompt = next;
    }
    terminal.until("end", |text| text.lines().last() == Some(prompt));
    let drawn = picture::svg(terminal.screen.screen());
    terminal.keys.write_all(b"exit\r").unwrap();
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    pcocc.verify();
    assert_nothing_left(&pcocc);

    let file = workspace().join("docs/session.svg");
    if std::env::var_os("PCOCC_UPDATE_DOCS").is_some() {
        fs::write(&file, &drawn).unwrap();
    }
    let shown = fs::read_to_string(&file).unwrap();
    assert_eq!(
        lasting(&drawn),
        lasting(&shown),
        "PCOCC_UPDATE_DOCS=1 writes {} anew",
        file.display()
    );
    let readme = fs::read_to_string(workspace().join("README.md")).unwrap();
    assert!(readme.contains("(docs/session.svg)"));
}

/// The runs of a picture, without what is different each time: also the stages of a start, and the width of bars.
fn lasting(svg: &str) -> Vec<(String, Vec<String>)> {
    picture::runs(svg)
        .into_iter()
        .filter(|(_, text)| !is_stage(text))
        .map(|(style, text)| match text.contains("[===") {
            true => (style, vec!["a bar".to_owned()]),
            false => (style, all_lasting([without_time(&text)].into_iter())),
        })
        .filter(|(_, text)| !text.is_empty())
        .collect()
}

/// A stage without the seconds it took.
fn without_time(text: &str) -> &str {
    match text.rsplit_once(" (") {
        Some((stage, time)) if time.ends_with("s)") => stage,
        _ => text,
    }
}
