//! Machines resumed from one snapshot, at the same time, are not the same machine.

use std::collections::BTreeSet;
use std::path::Path;
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use pcocc_tests::{TestVm, run, scratch, share, vm_spec};

#[test]
fn four_clones_share_memory_and_nothing_else() {
    let folder = scratch();
    // The first makes the snapshot, if there is none.
    let tools = folder.path().join("tools");
    copy_program("ssh-keygen", &tools);
    let spec = || {
        let mut spec = vm_spec(folder.path());
        spec.plan.shares = vec![share(&tools, true)];
        spec
    };
    let mut vms = vec![TestVm::start(spec())];
    std::thread::scope(|scope| {
        let starts: Vec<_> = (0..3)
            .map(|_| scope.spawn(|| TestVm::start(spec())))
            .collect();
        vms.extend(starts.into_iter().map(|start| start.join().expect("a VM")));
    });
    let mut seen: [BTreeSet<String>; 6] = Default::default();
    for vm in &vms {
        let memory = private_memory(vm.machine.processes()[0]);
        assert!(memory < 350 << 20, "an idle VM takes {} MiB", memory >> 20);
        let info = vm.run(&["info", "--format", "{{.ID}} {{.Name}} {{.SystemTime}}"]);
        let mut words = info.split(' ');
        let mut next = || words.next().expect("a word").to_owned();
        seen[0].insert(next());
        seen[1].insert(next());
        let guest = crate::ends::in_guest(
            vm,
            &format!(
                "cat /etc/machine-id; head -c 16 /dev/urandom | md5sum; cat /proc/sys/kernel/random/boot_id
                mkdir /tmp/k && cp -r {0}/. /tmp/k && mount -o bind /dev /tmp/k/dev && cd /tmp/k &&
                busybox chroot . {1} -q -t ed25519 -N '' -f /key && cut -d ' ' -f 2 key.pub; date +%s",
                tools.display(),
                "/usr/bin/ssh-keygen"
            ),
        );
        let mut lines = guest.lines().map(str::trim);
        let mut line = || lines.next().expect("a line").to_owned();
        seen[2].insert(line());
        seen[3].insert(line());
        seen[4].insert(line());
        seen[5].insert(line());
        let clock: u64 = line().parse().expect("seconds");
        let now = SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .expect("a clock")
            .as_secs();
        assert!(
            now.abs_diff(clock) < 10,
            "the guest's clock is {clock}, ours {now}"
        );
    }
    let counts = seen.each_ref().map(BTreeSet::len);
    assert_eq!(
        counts, [4; 6],
        "engine ids, names, machine ids, random, boots, keys: {seen:?}"
    );
    // What one writes the others do not see.
    vms[0].load_busybox();
    assert_eq!(vms[1].run(&["images", "-q"]), "");
}

/// Copies a program of this machine's with the libraries it needs, to be run below `folder` as `/`.
fn copy_program(name: &str, folder: &Path) {
    let script = "mkdir -p $2/etc $2/dev; echo root:x:0:0::/root:/bin/sh >$2/etc/passwd; program=$(command -v $1)
        cp --parents -L $program $(ldd $program | grep -o '/[^ ]*') $2";
    let mut shell = Command::new("bash");
    shell.args(["-euc", script, "copy", name]).arg(folder);
    run(&mut shell).ok();
}

/// Memory that only this process has, in bytes.
fn private_memory(pid: u32) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{pid}/smaps_rollup")).expect("its memory");
    let kilobytes: u64 = text
        .lines()
        .filter(|line| line.starts_with("Private_"))
        .filter_map(|line| line.split_whitespace().nth(1)?.parse::<u64>().ok())
        .sum();
    kilobytes << 10
}
