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
