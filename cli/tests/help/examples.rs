//! Every verb has an example in its help; where the manual has one, it is the manual's.

use std::fs;

use crate::sandbox::Sandbox;

/// The manual's commands, in its order, and the verb in whose help each stands.
const MANUAL: [(&str, &str); 15] = [
    ("docker alloc", "pcocc docker alloc -p sandy -c 16"),
    ("docker batch", "pcocc docker batch -p sandy -c 16"),
    ("docker shell", "pcocc docker shell -j 1756495"),
    ("docker env", "eval $(pcocc docker env -j 1756495)"),
    ("docker", "pcocc docker export cont-busybox bb"),
    ("docker import", "pcocc docker import bb newbb"),
    ("docker edit", "pcocc docker edit cont-centos new-centos"),
    ("run", "pcocc run -s --cwd / -I new-centos ls /newfile"),
    ("docker build", "pcocc docker build ./hello hello"),
    ("docker export", "pcocc docker export busybox bb"),
    ("docker export", "docker run -ti --rm bb"),
    ("docker", "pcocc docker alloc -p sandy -c 16"),
    ("docker", "pcocc docker import bb newbb"),
    ("docker", "pcocc docker build ./hello hello"),
    ("", "pcocc docker alloc -p sandy -c 16"),
];

/// The lines below "Example:" or "Examples:" of a verb's help.
fn examples(sandbox: &Sandbox, verb: &str) -> Vec<String> {
    let mut words: Vec<&str> = verb.split_whitespace().collect();
    words.push("--help");
    let text = sandbox.run(&words).ok();
    let mut lines = text
        .lines()
        .skip_while(|line| !["Example:", "Examples:"].contains(line));
    lines.next();
    lines
        .take_while(|line| line.starts_with("  "))
        .map(|line| line.trim().to_owned())
        .collect()
}

#[test]
fn every_verb_has_an_example() {
    let sandbox = Sandbox::new();
    let pages = sandbox.home().join("pages");
    sandbox.run(&["manpages", "pages"]).ok();
    // There is a manual page for every verb that is no secret, and its name is the verb's.
    let mut verbs: Vec<String> = fs::read_dir(pages)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .map(|name| {
            let verb = name.strip_prefix("pcocc").unwrap();
            verb.trim_end_matches(".1").replace('-', " ")
        })
        .collect();
    verbs.sort();
    assert!(verbs.len() > 40, "{verbs:?}");
    for verb in &verbs {
        let examples = examples(&sandbox, verb);
        let own = format!("pcocc{verb}");
        assert!(
            examples.iter().any(|line| line.contains(&own)),
            "{own}: {examples:?}"
        );
    }
}

#[test]
fn the_manuals_examples_are_in_the_help() {
    let sandbox = Sandbox::new();
    for (verb, wanted) in MANUAL {
        let examples = examples(&sandbox, verb);
        let found = examples.iter().any(|line| line.starts_with(wanted));
        assert!(found, "{verb}: {wanted}: {examples:?}");
    }
}
