//! `pcocc doctor` where the main job can run, and what it asks of a Slurm cluster.

use std::collections::BTreeMap;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pcocc_tests::{Docker, Outcome, Pcocc, Slurm, in_own_namespace, run, scratch, small_disk};

/// State, what was found and the fix, by check.
fn findings(outcome: &Outcome) -> BTreeMap<String, [String; 3]> {
    let rows: Vec<BTreeMap<String, serde_json::Value>> =
        serde_json::from_str(&outcome.stdout).unwrap_or_else(|error| panic!("{error}: {outcome}"));
    let of = |row: &BTreeMap<String, serde_json::Value>, key: &str| {
        row[key].as_str().unwrap_or_default().to_owned()
    };
    rows.iter()
        .map(|row| {
            let words = ["state", "found", "fix"].map(|key| of(row, key));
            (of(row, "check"), words)
        })
        .collect()
}

#[test]
fn where_a_docker_daemon_answers_all_is_well() {
    let docker = Docker::shared();
    let pcocc = Pcocc::as_ordinary_user().with(&docker);
    let outcome = pcocc.try_run(&["doctor", "--format", "json"]);
    let found = findings(&outcome);
    assert!(outcome.status.success(), "{outcome}");
    for check in [
        "configuration",
        "repository",
        "cache",
        "temporary files",
        "fuse",
        "user namespaces",
        "docker daemon",
        "docker command",
        "clock",
    ] {
        assert_eq!(found[check][0], "ok", "{check}: {:?}", found[check]);
    }
    assert!(
        found["docker daemon"][1].contains(docker.host()),
        "{outcome}"
    );
    // Two lines can be warnings only because there is a daemon.
    assert_eq!(found["guest image"][2], "pcocc docker guest build");
    let lines = pcocc.run(&["doctor"]);
    assert_eq!(lines.lines().count(), found.len());
    assert!(!lines.contains("FAILED"), "{lines}");
}

#[test]
fn a_node_is_asked_whether_it_sees_the_home_as_root() {
    let cluster = Slurm::start();
    let pcocc = Pcocc::new();
    let conf = pcocc.home().join(".pcocc");
    let ask = |conf: &std::path::Path| {
        let mut command = pcocc.command(&["doctor", "--on-node", "--format", "json"]);
        command
            .env("SLURM_CONF", cluster.configuration())
            .env("PCOCC_USER_CONF_DIR", conf)
            .env("HOME", conf);
        findings(&run(&mut command))
    };
    std::fs::create_dir(&conf).expect("make the configuration folder");
    let found = ask(&conf);
    assert_eq!(found["slurm"][0], "ok", "{:?}", found["slurm"]);
    let [state, words, _] = &found["home on nodes"];
    assert_eq!(state, "ok", "{words}");
    assert_eq!(
        *words,
        format!("{} can be written on a node", conf.display())
    );
    // A folder that is not there, and cannot be made.
    let found = ask(std::path::Path::new("/proc/no-home"));
    let [state, words, fix] = &found["home on nodes"];
    assert_eq!(state, "warning", "{words}");
    assert!(words.starts_with("/proc/no-home on a node: "), "{words}");
    assert!(fix.contains("file system that nodes share"), "{fix}");
    cluster.wait_until_empty();
}

/// Mounts an empty btrfs on `folder`, of whose `megabytes` all but `quota` are not for this user.
#[track_caller]
fn limited_disk(folder: &Path, megabytes: u32, quota: u32) {
    let disk = folder.with_extension("disk");
    let limit = format!(
        "truncate -s {megabytes}M '{disk}' && mkfs.btrfs -q '{disk}' && mkdir '{folder}' && \
         mount -o loop '{disk}' '{folder}' && chmod 1777 '{folder}' && \
         btrfs quota enable '{folder}' && btrfs qgroup limit {quota}M '{folder}'",
        disk = disk.display(),
        folder = folder.display(),
    );
    run(Command::new("sh").args(["-c", &limit])).ok();
}

/// A disk with room on it, of which a quota lets nobody have much; and a small disk.
#[test]
fn quota_and_space_are_looked_at_as_root() {
    if !in_own_namespace("quota_and_space_are_looked_at_as_root") {
        return;
    }
    let pcocc = Pcocc::as_ordinary_user();
    let disks = scratch();
    let (limited, small) = (disks.path().join("limited"), disks.path().join("small"));
    limited_disk(&limited, 700, 100);
    small_disk(&small, "100m");
    for (disk, wrong, verdict) in [
        (&limited, "your quota leaves less than 256.00 MB", "failed"),
        (&small, " MB free", "failed"),
    ] {
        pcocc.configure_repositories(&format!(
            "repos:\n  - {{name: user, path: {0}/images}}\ncache: {{path: {0}}}\n",
            disk.display()
        ));
        let mut command = pcocc.command(&["doctor", "--format", "json"]);
        let outcome = run(command.env("TMPDIR", disk));
        assert_eq!(outcome.status.code(), Some(1), "{outcome}");
        let found = findings(&outcome);
        for (check, verdict, fix) in [
            ("repository", verdict, "pcocc image repo gc"),
            // One can do without.
            ("cache", "warning", "pcocc image cache gc"),
            ("temporary files", verdict, "TMPDIR"),
        ] {
            let [state, words, mend] = &found[check];
            assert_eq!(state, verdict, "{check}: {words}");
            let place = disk.display().to_string();
            assert!(
                words.contains(&place) && words.contains(wrong),
                "{check}: {words}"
            );
            assert!(mend.contains(fix), "{check}: {mend}");
        }
    }
    // With the quota out of the way all is well; nothing was left on the disk.
    run(Command::new("btrfs")
        .args(["qgroup", "limit", "none"])
        .arg(&limited))
    .ok();
    pcocc.configure_repositories(&format!(
        "repos:\n  - {{name: user, path: {}/images}}\n",
        limited.display()
    ));
    let found = findings(&pcocc.try_run(&["doctor", "--format", "json"]));
    assert_eq!(found["repository"][0], "ok", "{}", found["repository"][1]);
    let blocks = run(Command::new("du").arg("-sm").arg(&limited))
        .ok()
        .to_owned();
    assert!(
        blocks.starts_with("0\t") || blocks.starts_with("1\t"),
        "{blocks}"
    );
}

/// A boot sector that writes K to port 0xe9 and halts: whether a processor runs code is seen by nothing less.
const BOOT: [u8; 6] = [0xb0, b'K', 0xe6, 0xe9, 0xfa, 0xf4];

/// Whether this machine's KVM runs a boot sector.
fn kvm_boots(folder: &Path) -> bool {
    let disk = folder.join("boot");
    let mut sector = BOOT.to_vec();
    sector.resize(510, 0);
    sector.extend([0x55, 0xaa]);
    fs::write(&disk, sector).expect("write a boot sector");
    let written = folder.join("written");
    let mut machine = Command::new("qemu-system-x86_64")
        .args([
            "-accel",
            "kvm",
            "-machine",
            "pc",
            // As docker VMs are started.
            "-cpu",
            "host",
            "-display",
            "none",
            "-serial",
            "none",
            "-nodefaults",
        ])
        .args(["-drive", &format!("file={},format=raw", disk.display())])
        .args(["-debugcon", &format!("file:{}", written.display())])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("run QEMU");
    let begun = Instant::now();
    let boots = loop {
        if fs::read(&written).is_ok_and(|bytes| bytes.contains(&b'K')) {
            break true;
        }
        let ended = machine.try_wait().expect("wait for QEMU").is_some();
        if ended || begun.elapsed() > Duration::from_secs(10) {
            break false;
        }
        std::thread::sleep(Duration::from_millis(20));
    };
    // It may have ended by itself.
    let _ = machine.kill();
    let _ = machine.wait();
    boots
}

/// KVM is usable, and not only there: what is found agrees with a machine that boots on it, or does not.
#[test]
fn kvm_is_tried_as_root() {
    if !in_own_namespace("kvm_is_tried_as_root") {
        return;
    }
    let pcocc = Pcocc::new();
    let user = Pcocc::as_ordinary_user();
    let folder = scratch();
    let kvm = |pcocc: &Pcocc| {
        let mut found = findings(&pcocc.try_run(&["doctor", "--format", "json"]));
        found.remove("kvm").expect("a line about KVM")
    };
    let [state, words, _] = kvm(&pcocc);
    if Path::new("/dev/kvm").exists() {
        let works = kvm_boots(folder.path());
        assert_eq!(state == "ok", works, "{words}");
        let expected = if works {
            "firmware runs on it"
        } else {
            "nothing runs on it"
        };
        assert!(words.contains(expected), "{words}");
    } else {
        assert_eq!(state, "warning", "{words}");
        assert!(words.starts_with("/dev/kvm: No such file"), "{words}");
    }
    // A /dev with a device that opens and is no KVM; with one that is closed; and with none.
    let device = folder.path().join("kvm");
    run(Command::new("mknod").arg(&device).args(["c", "1", "3"])).ok();
    small_disk(&folder.path().join("dev"), "1m");
    let dev = folder.path().join("dev");
    for name in ["null", "zero", "urandom", "random", "fuse", "tty", "ptmx"] {
        let path = dev.join(name);
        fs::write(&path, "").expect("make a mount point");
        run(Command::new("mount")
            .arg("--bind")
            .arg(format!("/dev/{name}"))
            .arg(path))
        .ok();
    }
    run(Command::new("mount").arg("--bind").arg(&dev).arg("/dev")).ok();
    let [state, words, fix] = kvm(&pcocc);
    assert_eq!(state, "warning", "{words}");
    assert!(words.starts_with("/dev/kvm: No such file"), "{words}");
    assert!(fix.contains("firmware"), "{fix}");
    fs::write("/dev/kvm", "").expect("make a mount point");
    run(Command::new("mount")
        .arg("--bind")
        .arg(&device)
        .arg("/dev/kvm"))
    .ok();
    let [state, words, fix] = kvm(&pcocc);
    assert_eq!(state, "warning", "{words}");
    assert!(
        words.starts_with("/dev/kvm opens, but nothing runs on it ("),
        "{words}"
    );
    assert!(fix.contains("nested virtualization"), "{fix}");
    fs::set_permissions("/dev/kvm", fs::Permissions::from_mode(0o600)).expect("close the device");
    let [state, words, fix] = kvm(&user);
    assert_eq!(state, "warning", "{words}");
    assert!(words.starts_with("/dev/kvm: Permission denied"), "{words}");
    assert!(fix.contains("group kvm"), "{fix}");
}

/// What is on the wrong side of an hour: a process whose clock is ahead of the kernel that writes its files.
#[test]
fn a_clock_that_is_wrong_is_found() {
    let pcocc = Pcocc::new();
    let library = pcocc.home().join("ahead.so");
    let source = pcocc.home().join("ahead.c");
    fs::write(
        &source,
        "#define _GNU_SOURCE\n#include <time.h>\n#include <unistd.h>\n#include <sys/syscall.h>\n\
         int clock_gettime(clockid_t clock, struct timespec *now) {\n\
         int result = syscall(SYS_clock_gettime, clock, now);\n\
         if (clock == CLOCK_REALTIME) now->tv_sec += 3600;\n\
         return result;\n}\n",
    )
    .expect("write a source file");
    run(Command::new("cc")
        .args(["-shared", "-fPIC", "-o"])
        .arg(&library)
        .arg(&source))
    .ok();
    let mut command = pcocc.command(&["doctor", "--format", "json"]);
    let found = findings(&run(command.env("LD_PRELOAD", &library)));
    let [state, words, fix] = &found["clock"];
    assert_eq!(state, "warning", "{words}");
    assert!(
        words.starts_with("3600 s away from that of the file server"),
        "{words}"
    );
    assert!(fix.contains("NTP"), "{fix}");
    let found = findings(&pcocc.try_run(&["doctor", "--format", "json"]));
    assert_eq!(found["clock"][0], "ok");
}

/// A FUSE device that is closed, and none.
#[test]
fn fuse_that_is_closed_is_found_as_root() {
    if !in_own_namespace("fuse_that_is_closed_is_found_as_root") {
        return;
    }
    let pcocc = Pcocc::as_ordinary_user();
    let folder = scratch();
    let device = folder.path().join("fuse");
    run(Command::new("mknod")
        .arg("--mode=600")
        .arg(&device)
        .args(["c", "10", "229"]))
    .ok();
    run(Command::new("mount")
        .arg("--bind")
        .arg(&device)
        .arg("/dev/fuse"))
    .ok();
    let outcome = pcocc.try_run(&["doctor", "--format", "json"]);
    let [state, words, fix] = &findings(&outcome)["fuse"];
    assert_eq!(state, "failed", "{words}");
    assert!(words.starts_with("/dev/fuse: Permission denied"), "{words}");
    assert!(fix.contains("chmod 666 /dev/fuse"), "{fix}");
    assert_eq!(outcome.status.code(), Some(1), "{outcome}");
}

/// A kernel that allows no more user namespaces.
#[test]
fn user_namespaces_that_are_used_up_are_found() {
    // The files of whom it says to be in there are its own only as an ordinary user.
    let pcocc = Pcocc::as_ordinary_user();
    let mut command = pcocc.any("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c"]);
    command.arg("echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"");
    command.arg("sh").arg(pcocc.home().join("bin/pcocc"));
    command.args(["doctor", "--format", "json"]);
    let found = findings(&run(&mut command));
    let [state, words, fix] = &found["user namespaces"];
    assert_eq!(state, "warning", "{words}");
    assert!(words.contains("pcocc run cannot work"), "{words}");
    assert!(fix.contains("user.max_user_namespaces"), "{fix}");
}
