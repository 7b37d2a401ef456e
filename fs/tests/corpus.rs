//! Replays the staged layouts of `fuzz/corpus/staged`: those that fuzzing kept, and those with a name, which
//! begins with what the folder has to be.

use std::fs;
use std::path::Path;

use pcocc_fs::testing::look;

#[test]
fn every_kept_input_is_taken_and_what_it_is_named() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/staged");
    let mut found = [("complete", 0), ("incomplete", 0), ("refused", 0)];
    for input in fs::read_dir(corpus).unwrap() {
        let path = input.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        let verdict = look(&fs::read(&path).unwrap());
        for (expected, count) in &mut found {
            if name.split('-').next() == Some(*expected) {
                assert_eq!(
                    verdict.split(':').next(),
                    Some(*expected),
                    "{name}: {verdict}"
                );
                *count += 1;
            }
        }
    }
    for (expected, count) in found {
        assert!(count > 3, "{count} seeds that are {expected}");
    }
}
