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
    let (mut expected, mut refused) = (BTreeSet::new(), Vec::new());
    for (name, target) in TARGETS {
        let folder = corpus.join(name);
        let inputs = children(&folder);
        assert!(!inputs.is_empty(), "no inputs for {name}");
        for input in inputs {
            let data = fs::read(&input).unwrap();
            if std::panic::catch_unwind(|| target(&data)).is_err() {
                refused.push(input);
            }
        }
        assert!(expected.insert(folder), "two targets are called {name}");
    }
    assert!(refused.is_empty(), "these break a property: {refused:?}");
    assert_eq!(children(&corpus), expected, "each corpus has its target");
}
