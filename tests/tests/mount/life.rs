//! How a mount begins and ends.

use std::fs;
use std::process::Command;
use std::time::{Duration, Instant};

use pcocc_tests::{Mount, Pcocc, run};

use crate::common::{shell, text, with_image};

#[test]
fn a_stale_mount_is_replaced_and_a_busy_one_ends() {
    let (pcocc, _) = with_image(Pcocc::new());
    let mount = Mount::new(&pcocc);
    let status = fs::read_to_string(mount.join(".pcocc/status.json")).unwrap();
    let status: serde_json::Value = serde_json::from_str(&status).unwrap();
    let process = status["pid"].to_string();
    run(Command::new("kill").args(["-9", &process])).ok();
    let until = Instant::now() + Duration::from_secs(10);
    while fs::read_dir(mount.path()).is_ok() {
        assert!(Instant::now() < until, "still answers after SIGKILL");
        std::thread::sleep(Duration::from_millis(10));
    }
    let second = pcocc.run(&["docker", "mount", text(mount.path())]);
    assert!(second.contains("Mounted"), "{second}");
    assert_eq!(
        shell(&pcocc, &mount, "ls repo/user").ok().trim_end(),
        "hello"
    );
    pcocc
        .try_run(&["docker", "mount", text(mount.path())])
        .failed();
    // Someone sits in it.
    let mut sitter = pcocc
        .any("sleep")
        .arg("60")
        .current_dir(mount.join("repo/user"))
        .spawn()
        .unwrap();
    pcocc.run(&["docker", "umount", text(mount.path())]);
    assert_eq!(fs::read_dir(mount.path()).unwrap().count(), 0);
    sitter.kill().unwrap();
    sitter.wait().unwrap();
    pcocc
        .try_run(&["docker", "umount", text(mount.path())])
        .failed();
}
