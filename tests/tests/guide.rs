//! `docs/GUIDE.md` is true: its commands, run in their order by an ordinary user, print what it shows.

use std::fs;

use pcocc_tests::{Docker, Pcocc, leaks, run, workspace};

/// A command of the guide, and what it prints.
struct Step {
    command: String,
    shown: Vec<String>,
}

/// The commands in the blocks that are marked `console`: `$ ` begins one, `> ` goes on with it.
fn steps(guide: &str) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    let mut inside = false;
    for line in guide.lines() {
        if line.starts_with("```") {
            inside = line == "```console";
        } else if !inside {
        } else if let Some(command) = line.strip_prefix("$ ") {
            steps.push(Step {
                command: command.to_owned(),
                shown: Vec::new(),
            });
        } else {
            let step = steps
                .last_mut()
                .unwrap_or_else(|| panic!("a block begins with {line:?}"));
            match line.strip_prefix("> ").filter(|_| step.shown.is_empty()) {
                Some(more) => step.command += &format!("\n{more}"),
                None => step.shown.push(line.to_owned()),
            }
        }
    }
    steps
}

/// A line without what is different each time: digests, IDs, dates, sizes, and the width of columns. `None` for what
/// is only said where things take long.
fn lasting(line: &str) -> Option<String> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let is_hex = |word: &str| word.bytes().all(|byte| byte.is_ascii_hexdigit());
    match words.as_slice() {
        ["Copying", "blob" | "config", ..] => return None,
        // docker's command on a builder that every daemon has.
        ["DEPRECATED:" | "BuildKit" | "environment-variable.", ..] => return None,
        [.., last] if last.starts_with('(') && last.ends_with("s)") => return None,
        _ => {}
    }
    let words = words.iter().map(|word| {
        let digest = word.split_once("sha256:").map(|(before, _)| before);
        if let Some(before) = digest {
            let end = if word.ends_with(':') { ":" } else { "" };
            format!("{before}sha256:…{end}")
        } else if word.len() == 12 && is_hex(word) {
            "…".to_owned()
        } else if word.starts_with(|first: char| first.is_ascii_digit()) {
            "7".to_owned()
        } else {
            (*word).to_owned()
        }
    });
    Some(words.collect::<Vec<_>>().join(" "))
}

fn all_lasting<'t>(lines: impl Iterator<Item = &'t str>) -> Vec<String> {
    let mut lines: Vec<String> = lines
        .filter_map(lasting)
        .filter(|line| !line.is_empty())
        .collect();
    // Layers come in the order of their digests.
    let is_layer = |line: &str| line.starts_with("Copied blob");
    for layers in lines.chunk_by_mut(|one, next| is_layer(one) && is_layer(next)) {
        layers.sort();
    }
    lines
}

/// Takes away what a guide that broke off leaves: its mount, and its images in a daemon that others use as well.
struct Traces<'t>(&'t Pcocc, &'t Docker);

impl Drop for Traces<'_> {
    fn drop(&mut self) {
        let point = self.0.home().join("img");
        self.0
            .try_run(&["docker", "umount", &point.to_string_lossy()]);
        self.1
            .try_run(&["rmi", "-f", "hello", "hello-back", "hello-evening"]);
    }
}

#[test]
fn the_guide_is_true_with_docker() {
    let docker = Docker::shared();
    let pcocc = Pcocc::as_ordinary_user().with(&docker);
    let watch = leaks::Watch::new(pcocc.home());
    let traces = Traces(&pcocc, &docker);
    let path = format!(
        "{}/bin:{}",
        pcocc.home().display(),
        std::env::var("PATH").expect("PATH")
    );
    let guide = fs::read_to_string(workspace().join("docs/GUIDE.md")).expect("read the guide");
    let steps = steps(&guide);
    assert!(steps.len() > 10, "the guide has {} commands", steps.len());
    for step in steps {
        let mut bash = pcocc.any("bash");
        bash.args(["-c", &format!("exec 2>&1\n{}", step.command)])
            .env("PATH", &path)
            // What builds is in every docker, and says the same in all of them.
            .env("DOCKER_BUILDKIT", "0")
            .env("DOCKER_CLI_HINTS", "false");
        let outcome = run(&mut bash);
        let home = pcocc.home().to_string_lossy();
        let printed = outcome.stdout.replace(&*home, "~");
        assert_eq!(
            all_lasting(printed.lines()),
            all_lasting(step.shown.iter().map(String::as_str)),
            "$ {}\n{printed}",
            step.command
        );
    }
    pcocc.verify();
    drop(traces);
    watch.assert_clean();
}
