//! A snapshot whose memory is not what was saved, which nothing but resuming it can tell.

use std::fs::{self, File};
use std::os::unix::fs::FileExt as _;

use pcocc_tests::{TestVm, scratch};
use pcocc_vm::machine::Stage;

use crate::ends::with_own_snapshots;

#[test]
fn memory_that_was_damaged_costs_a_boot_and_no_more() {
    let folder = scratch();
    let spec = with_own_snapshots(folder.path());
    let snapshots = fs::read_dir(spec.plan.cache.join("snapshots")).expect("snapshots");
    for entry in snapshots.flatten().filter(|entry| entry.path().is_dir()) {
        // With the kernel gone, and the times and sizes as they were.
        let ram = File::options()
            .write(true)
            .open(entry.path().join("ram"))
            .expect("its memory");
        let written = ram
            .metadata()
            .and_then(|meta| meta.modified())
            .expect("a time");
        let garbage = vec![0xcc; 1 << 20];
        for at in 0..256 {
            ram.write_all_at(&garbage, at << 20).expect("damage it");
        }
        ram.set_modified(written).expect("set the time");
    }
    let vm = TestVm::start(spec);
    let words: Vec<String> = vm
        .stages
        .iter()
        .map(|(_, stage)| stage.to_string())
        .collect();
    let told = |word: &String| word.contains("does not work") && word.contains("it is made anew");
    assert!(words.iter().any(told), "{words:?}");
    assert!(
        words.contains(&Stage::SavingSnapshot.to_string()),
        "{words:?}"
    );
    vm.client().ping().expect("it works all the same");
}
