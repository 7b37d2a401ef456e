//! Replays what fuzzing kept (`fuzz/corpus/TARGET/`): each input once broke something, or reaches
//! code that the others do not.

use std::fs;
use std::path::Path;

use pcocc_image::testing::parsers::TARGETS;

#[test]
fn every_kept_input_is_taken() {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus");
    for (name, target) in TARGETS {
        let inputs = fs::read_dir(corpus.join(name)).unwrap();
        let mut count = 0;
        for input in inputs {
            target(&fs::read(input.unwrap().path()).unwrap());
            count += 1;
        }
        assert!(count > 0, "no inputs for {name}");
    }
}
