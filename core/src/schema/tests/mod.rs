//! The schemas, the tables in `docs/CONFIGURATION.md`, and the readers agree.

mod keys;

use super::*;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use keys::keys;

/// Writes what is generated instead of comparing it.
const UPDATE: &str = "PCOCC_UPDATE_DOCS";

fn docs() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../docs")
}

/// Fails, or writes `wanted` to `file` when that is asked for.
#[track_caller]
fn compare(file: &Path, found: &str, wanted: &str) {
    if std::env::var_os(UPDATE).is_some() {
        fs::create_dir_all(file.parent().unwrap()).unwrap();
        fs::write(file, wanted).unwrap();
    } else {
        assert_eq!(
            found,
            wanted,
            "{} is not what the code says: run `{UPDATE}=1 cargo test -p pcocc-core schema`",
            file.display()
        );
    }
}

#[test]
fn the_schemas_in_docs_are_those_of_the_code() {
    for name in FILES {
        let file = docs().join("schemas").join(format!("{name}.json"));
        let mut wanted = serde_json::to_string_pretty(&schema(name).unwrap()).unwrap();
        wanted.push('\n');
        compare(
            &file,
            &fs::read_to_string(&file).unwrap_or_default(),
            &wanted,
        );
    }
    assert_eq!(schema("other.yaml"), None);
}

#[test]
fn every_key_is_documented() {
    let file = docs().join("CONFIGURATION.md");
    let found = fs::read_to_string(&file).unwrap();
    let mut wanted = found.clone();
    for name in FILES {
        let mut table = String::from("| key | value | default | |\n|---|---|---|---|\n");
        for key in keys(&schema(name).unwrap()) {
            assert!(
                !key.description.is_empty(),
                "{name}: {} has no doc comment",
                key.path
            );
            let default = match (key.required, key.default) {
                (true, _) => "must be there".to_owned(),
                (false, Some(default)) => default,
                (false, None) => panic!("{name}: nothing says the default of {}", key.path),
            };
            let (path, kind, words) = (key.path, key.kind, key.description);
            table += &format!("| `{path}` | {kind} | {default} | {words} |\n");
        }
        let begin = format!("<!-- generated: keys of {name} -->\n");
        let (before, rest) = wanted
            .split_once(&begin)
            .unwrap_or_else(|| panic!("CONFIGURATION.md has no place for the keys of {name}"));
        let (_, after) = rest.split_once("<!-- end -->\n").unwrap();
        wanted = format!("{before}{begin}{table}<!-- end -->\n{after}");
    }
    compare(&file, &found, &wanted);
}

/// A config file that somebody adds needs a schema.
#[test]
fn every_config_file_has_a_schema() {
    fn sources(folder: &Path, texts: &mut Vec<String>) {
        for entry in fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                sources(&path, texts);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                texts.push(fs::read_to_string(path).unwrap());
            }
        }
    }
    let mut texts = Vec::new();
    sources(
        &Path::new(env!("CARGO_MANIFEST_DIR")).join("src"),
        &mut texts,
    );
    let declared: Vec<&str> = texts
        .iter()
        .flat_map(|text| text.lines())
        .filter_map(|line| {
            line.trim()
                .strip_suffix(".yaml\";")?
                .rsplit_once(": &str = \"")
        })
        .map(|(_, name)| name)
        .collect();
    assert_eq!(declared.len(), FILES.len(), "{declared:?}");
    for name in declared {
        assert!(
            FILES.contains(&format!("{name}.yaml").as_str()),
            "{name}.yaml has no schema"
        );
    }
}

/// Blocks of YAML in `docs/CONFIGURATION.md`, with the file that the line above each names.
fn examples() -> Vec<(String, String)> {
    let text = fs::read_to_string(docs().join("CONFIGURATION.md")).unwrap();
    let mut found = Vec::new();
    let mut rest = text.as_str();
    while let Some((before, after)) = rest.split_once("```yaml\n") {
        let (block, tail) = after.split_once("```\n").unwrap();
        let line = before.trim_end().lines().last().unwrap();
        let name = FILES
            .into_iter()
            .find(|name| line.contains(name))
            .unwrap_or_else(|| panic!("no config file is named above the example: {line}"));
        found.push((name.to_owned(), block.to_owned()));
        rest = tail;
    }
    found
}

/// Asks another implementation of JSON schemas what is wrong with each file; nothing is when it is valid.
fn judged(files: &[(String, String)]) -> Vec<String> {
    let pairs: Vec<(Value, Value)> = files
        .iter()
        .map(|(name, yaml)| (schema(name).unwrap(), serde_saphyr::from_str(yaml).unwrap()))
        .collect();
    let input = tempfile::NamedTempFile::new().unwrap();
    fs::write(input.path(), serde_json::to_string(&pairs).unwrap()).unwrap();
    let output = Command::new("python3")
        .args([
            "-c",
            "import json, sys, jsonschema\n\
             def judge(schema, value):\n  \
               jsonschema.Draft202012Validator.check_schema(schema)\n  \
               errors = jsonschema.Draft202012Validator(schema).iter_errors(value)\n  \
               return '; '.join(error.message for error in errors)\n\
             print(json.dumps([judge(*pair) for pair in json.load(open(sys.argv[1]))]))",
        ])
        .arg(input.path())
        .output()
        .expect("run python3");
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "is the Debian package python3-jsonschema there? {words}"
    );
    serde_json::from_slice(&output.stdout).unwrap()
}

/// Whether our own reader takes it.
fn readable(name: &str, yaml: &str) -> Result<(), String> {
    let file = Path::new(name);
    match name {
        repos::FILE => crate::yaml::parse::<repos::File>(yaml, file).map(drop),
        containers::FILE => crate::yaml::parse::<Option<containers::RuntimeFile>>(yaml, file)
            .and_then(|_| crate::yaml::parse::<Option<containers::SectionsFile>>(yaml, file))
            .map(drop),
        batch::FILE => crate::yaml::parse::<Option<batch::File>>(yaml, file).map(drop),
        templates::FILE => crate::yaml::parse::<Option<templates::File>>(yaml, file).map(drop),
        _ => panic!("{name} has no reader here"),
    }
    .map_err(|error| error.to_string())
}

#[test]
fn examples_are_valid_and_readable() {
    let examples = examples();
    for ((name, yaml), wrong) in examples.iter().zip(judged(&examples)) {
        readable(name, yaml).unwrap_or_else(|error| panic!("{error}\n{yaml}"));
        assert_eq!(wrong, "", "{name}:\n{yaml}");
    }
    for name in FILES {
        assert!(
            examples.iter().any(|(found, _)| found == name),
            "no example of {name}"
        );
    }
}

#[test]
fn schema_and_reader_refuse_the_same() {
    let wrong = [
        (repos::FILE, "cache: {path: /c}"),
        (repos::FILE, "repos: [{name: a}]"),
        (
            repos::FILE,
            "repos: [{name: a, path: /a, layer_compression: zstd}]",
        ),
        (repos::FILE, "repos: []\nrepo: []"),
        (containers::FILE, "runtime: {insecure_registries: one}"),
        (containers::FILE, "runtime: {docker_mounts: [{dest: /a}]}"),
        (containers::FILE, "containers: {default: {mount: {}}}"),
        (
            containers::FILE,
            "containers: {a: {mounts: {m: {src: /a}}}}",
        ),
        (containers::FILE, "containers: {a: {ns: [cgroup]}}"),
        (containers::FILE, "modules: {a: {env: X=1}}"),
        (containers::FILE, "modules: {a: {inherits: {b: c}}}"),
        (batch::FILE, "type: pbs"),
        (batch::FILE, "docker_resolve_address: maybe"),
        (templates::FILE, "a: {cpus: many}"),
        (templates::FILE, "a: {reach: far}"),
    ]
    .map(|(name, yaml)| (name.to_owned(), yaml.to_owned()));
    for ((name, yaml), verdict) in wrong.iter().zip(judged(&wrong)) {
        assert!(readable(name, yaml).is_err(), "{name}: {yaml}");
        assert_ne!(verdict, "", "{name}: {yaml}");
    }
}
