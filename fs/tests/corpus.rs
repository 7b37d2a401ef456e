//! The staged layouts of `fuzz/corpus/staged` that have a name: it begins with what the folder has to be.

use std::fs;
use std::path::Path;

use pcocc_fs::testing::look;

#[test]
fn every_named_layout_is_what_its_name_says() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/staged");
    let mut found = [("complete", 0), ("incomplete", 0), ("refused", 0)];
    for input in fs::read_dir(corpus).unwrap() {
        let path = input.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let expected = name.split('-').next().unwrap_or_default();
        let Some((_, count)) = found.iter_mut().find(|(kind, _)| *kind == expected) else {
            continue;
        };
        let verdict = look(&fs::read(&path).unwrap());
        assert_eq!(
            verdict.split(':').next(),
            Some(expected),
            "{name}: {verdict}"
        );
        *count += 1;
    }
    for (expected, count) in found {
        assert!(count > 3, "{count} seeds that are {expected}");
    }
}
