//! What docs/ARCHITECTURE.md says of the shape of the code: arrows among crates, and no circle among the files
//! of a crate.

mod sources;

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The crates of ours that a crate may name in its dependencies.
const ARROWS: [(&str, &[&str]); 10] = [
    ("core", &[]),
    ("layers", &["core"]),
    ("image", &["core", "layers"]),
    ("remote", &["core", "image", "layers"]),
    ("fs", &["core", "image", "layers"]),
    ("run", &["core", "fs", "image"]),
    ("guest", &[]),
    ("vm", &["core", "guest"]),
    ("completions", &["core", "image", "vm"]),
    ("shellenv", &[]),
];

/// Crates that build without a network client. Completions name `vm`, which speaks TLS to its guests by tokio.
const OFFLINE: [(&str, &[&str]); 3] = [
    ("pcocc-fs", &["bollard", "hyper", "reqwest", "tokio"]),
    ("pcocc-run", &["bollard", "hyper", "reqwest", "tokio"]),
    ("pcocc-completions", &["bollard", "hyper", "reqwest"]),
];

/// Files that may stand in a circle, and why.
const CIRCLES: [(&str, &str); 1] = [("vm/src/job/error.rs", "an error names the job it is about")];

/// Lines of the longest file, and of the one in the middle, at most.
const LONGEST: usize = 600;
const MEDIAN: usize = 160;

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .parent()
        .unwrap()
        .to_owned()
}

fn cargo(line: &str) -> String {
    let mut command = Command::new(env!("CARGO"));
    let words = line.split(' ');
    let output = command.args(words).current_dir(root()).output().unwrap();
    assert!(
        output.status.success(),
        "{line}: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).unwrap()
}

/// Our packages, as cargo describes them.
fn packages() -> Vec<Value> {
    let metadata = cargo("metadata --locked --no-deps --format-version 1");
    list(&serde_json::from_str(&metadata).unwrap(), "packages").to_vec()
}

fn list<'v>(value: &'v Value, key: &str) -> &'v [Value] {
    value[key].as_array().map_or(&[], Vec::as_slice)
}

fn text<'v>(value: &'v Value, key: &str) -> &'v str {
    value[key].as_str().unwrap_or_default()
}

#[test]
fn crates_depend_on_those_below_them() {
    let allowed = BTreeMap::from(ARROWS);
    for package in &packages() {
        let name = text(package, "name").trim_start_matches("pcocc-");
        // The command and the end-to-end tests name whatever they like.
        if ["pcocc", "tests"].contains(&name) {
            continue;
        }
        let allowed = allowed.get(name).expect(name);
        for dependency in list(package, "dependencies") {
            if let Some(below) = text(dependency, "name").strip_prefix("pcocc-")
                && dependency["kind"].is_null()
            {
                assert!(allowed.contains(&below), "{name} depends on {below}");
            }
        }
    }
}

#[test]
fn what_needs_no_network_has_no_network_client() {
    for (package, network) in OFFLINE {
        let tree = cargo(&format!(
            "tree --locked -p {package} -e normal --prefix none"
        ));
        let names = tree.lines().filter_map(|line| line.split(' ').next());
        let found: Vec<&str> = names.filter(|name| network.contains(name)).collect();
        assert_eq!(found, [""; 0], "{package} compiles these");
    }
}

/// The product files of each library and program, each with those that it names.
fn graphs() -> Vec<BTreeMap<PathBuf, Vec<PathBuf>>> {
    let mut packages = packages();
    packages.retain(|package| text(package, "name") != "pcocc-tests");
    let targets = packages.iter().flat_map(|package| list(package, "targets"));
    targets
        .filter(|target| ["lib", "bin"].iter().any(|kind| target["kind"][0] == *kind))
        .map(|target| sources::graph(Path::new(text(target, "src_path"))))
        .collect()
}

#[test]
fn no_files_of_a_crate_stand_in_a_circle() {
    let excepted = CIRCLES.map(|(file, _)| root().join(file));
    let mut found = Vec::new();
    for mut graph in graphs() {
        graph.retain(|file, _| !excepted.contains(file));
        found.extend(sources::circular(&graph));
    }
    assert!(found.is_empty(), "{found:?}");
}

#[test]
fn lib_and_mod_files_only_declare() {
    const ITEMS: [&str; 6] = ["fn", "impl", "struct", "enum", "trait", "macro_rules!"];
    let files = graphs().into_iter().flat_map(BTreeMap::into_keys);
    let declaring = files.filter(|file| file.ends_with("lib.rs") || file.ends_with("mod.rs"));
    for file in declaring {
        let text = std::fs::read_to_string(&file).unwrap();
        let code = text
            .lines()
            .filter(|line| !line.starts_with(['/', ' ', '#']));
        for line in code {
            let first = line.split(' ').take(3).find(|word| ITEMS.contains(word));
            assert_eq!(first, None, "{}: {line}", file.display());
        }
    }
}

#[test]
fn files_are_short() {
    let files = graphs().into_iter().flat_map(BTreeMap::into_keys);
    let length = |file: &PathBuf| std::fs::read_to_string(file).unwrap().lines().count();
    let mut lengths: Vec<_> = files.map(|file| (length(&file), file)).collect();
    lengths.sort();
    let (longest, file) = &lengths[lengths.len() - 1];
    assert!(
        *longest <= LONGEST,
        "{} has {longest} lines",
        file.display()
    );
    let (median, _) = lengths[lengths.len() / 2];
    assert!(
        median <= MEDIAN,
        "half of the files have {median} lines or more"
    );
}
