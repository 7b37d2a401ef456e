//! A node whose disk fills up under a VM that runs: the VM stands still, says so, and goes on.

use std::time::{Duration, Instant};

use pcocc_tests::{TestVm, fill, in_own_namespace, scratch, small_disk, vm_spec};
use pcocc_vm::machine::MachineEvent;

use crate::ends::in_guest;

/// Waits until the machine says something with `part` in it.
#[track_caller]
fn wait_for_note(vm: &mut TestVm, part: &str) {
    let begun = Instant::now();
    loop {
        let exit = vm.machine.wait(Duration::from_millis(50)).expect("wait");
        assert_eq!(exit, None, "it has ended");
        let said = vm.machine.events();
        if said
            .iter()
            .any(|event| matches!(event, MachineEvent::Note(text) if text.contains(part)))
        {
            return;
        }
        assert!(said.is_empty(), "{said:?}");
        assert!(
            begun.elapsed() < Duration::from_secs(120),
            "it does not say that {part}"
        );
    }
}

#[test]
fn a_vm_waits_for_room_on_the_nodes_disk_as_root() {
    if !in_own_namespace("disk::a_vm_waits_for_room_on_the_nodes_disk_as_root") {
        return;
    }
    let folder = scratch();
    let disk = folder.path().join("disk");
    small_disk(&disk, "800m");
    let mut vm = TestVm::start(vm_spec(&disk));
    let filler = fill(&disk, 10 << 20);
    in_guest(
        &vm,
        "trap '' HUP; setsid sh -c 'dd if=/dev/vda of=/data/big bs=1M count=60 conv=fsync && md5sum </data/big >/data/sum' \
         </dev/null >/dev/null 2>&1 &",
    );
    wait_for_note(&mut vm, "is full: the VM stands still");
    std::fs::remove_file(filler).expect("make room");
    wait_for_note(&mut vm, "the VM goes on");
    // Nothing of what was written is lost.
    let said = in_guest(
        &vm,
        "until [ -s /data/sum ]; do sleep 1; done; echo 3 >/proc/sys/vm/drop_caches
         md5sum </data/big | cmp - /data/sum && echo same; dmesg | grep -c 'I/O error'",
    );
    assert!(
        said.contains("same") && said.trim_end().ends_with('0'),
        "{said}"
    );
    vm.run(&["version"]);
}
