//! Files that the documents name are there.

use std::fs;
use std::path::{Path, PathBuf};

/// Documents about the code as it is; decisions and the changelog are about the code as it was.
fn documents(top: &Path) -> Vec<PathBuf> {
    let docs = fs::read_dir(top.join("docs")).unwrap();
    let mut found: Vec<PathBuf> = docs.map(|entry| entry.unwrap().path()).collect();
    found.retain(|path| path.extension().is_some_and(|extension| extension == "md"));
    found.extend(["README.md", "CONTRIBUTING.md"].map(|name| top.join(name)));
    found
}

#[test]
fn files_of_the_workspace_are_there() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut missing = Vec::new();
    let mut tried = 0;
    for document in documents(&top) {
        let text = fs::read_to_string(&document).unwrap();
        let folder = document.parent().unwrap();
        let quoted = text
            .lines()
            .flat_map(|line| line.split('`').skip(1).step_by(2));
        let in_code = quoted.filter(|word| {
            let extension = Path::new(word).extension();
            extension.is_some_and(|extension| extension == "rs")
                && word.contains("/src/")
                && !word.contains(['*', '{', ' '])
        });
        let links = text
            .split("](")
            .skip(1)
            .filter_map(|rest| rest.split([')', '#']).next());
        let own =
            links.filter(|link| !link.is_empty() && !link.contains("://") && !link.contains('$'));
        let files = in_code
            .map(|file| top.join(file))
            .chain(own.map(|link| folder.join(link)));
        for file in files {
            tried += 1;
            if !file.exists() {
                missing.push(format!("{}: {}", document.display(), file.display()));
            }
        }
    }
    assert!(missing.is_empty(), "{missing:#?}");
    assert!(tried > 50, "{tried}");
}

/// Sources of the workspace, but for what is built.
fn sources(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap_or_default().to_string_lossy();
        if path.is_dir() && name != "target" && !name.starts_with('.') {
            sources(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
}

/// Names of the tests of a source.
fn tests_of(text: &str) -> impl Iterator<Item = &str> {
    text.split("#[test]\n").skip(1).filter_map(|rest| {
        let (_, name) = rest.split_once("fn ")?;
        name.split_once('(').map(|(name, _)| name)
    })
}

#[test]
fn every_promise_about_security_has_a_test() {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let mut found = Vec::new();
    sources(&top, &mut found);
    let texts: Vec<String> = found
        .iter()
        .map(|file| fs::read_to_string(file).unwrap())
        .collect();
    let tests: std::collections::BTreeSet<&str> =
        texts.iter().flat_map(|text| tests_of(text)).collect();
    assert!(tests.len() > 500, "{}", tests.len());
    let page = fs::read_to_string(top.join("docs/SECURITY.md")).unwrap();
    let (mut promises, mut wrong) = (0, Vec::new());
    let mut lines = page.lines();
    while let Some(header) = lines.next() {
        if header != "| promise | test |" {
            continue;
        }
        for row in lines
            .by_ref()
            .skip(1)
            .take_while(|row| row.starts_with('|'))
        {
            promises += 1;
            let (_, held) = row.trim_end_matches(" |").rsplit_once(" | ").unwrap();
            let mut names = held.split(", ").peekable();
            if names.peek().is_none() {
                wrong.push(format!("no test: {row}"));
            }
            for name in names {
                let quoted = name
                    .strip_prefix('`')
                    .and_then(|name| name.strip_suffix('`'));
                if !quoted.is_some_and(|name| tests.contains(name)) {
                    wrong.push(format!("no test {name}: {row}"));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
    assert!(promises > 15, "{promises}");
}
