//! Replays what fuzzing kept (`fuzz/corpus/TARGET/`): each input once broke something, or reaches code that the
//! others do not.

#[path = "../../fuzz/targets/mod.rs"]
mod targets;

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use targets::TARGETS;

fn children(folder: &Path) -> BTreeSet<PathBuf> {
    let children = fs::read_dir(folder).unwrap();
    children.map(|child| child.unwrap().path()).collect()
}

#[test]
fn every_kept_input_is_taken() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    let mut expected = BTreeSet::new();
    for (name, target) in TARGETS {
        let folder = corpus.join(name);
        let inputs = children(&folder);
        assert!(!inputs.is_empty(), "no inputs for {name}");
        for input in inputs {
            let data = fs::read(&input).unwrap();
            let taken = std::panic::catch_unwind(|| target(&data));
            assert!(taken.is_ok(), "{}", input.display());
        }
        assert!(expected.insert(folder), "two targets are called {name}");
    }
    assert_eq!(children(&corpus), expected, "each corpus has its target");
}
