//! What `scripts/install` installs, with the real agent of docker VMs: it is static, and pcocc finds it.

use std::fs;
use std::process::Command;

use pcocc_tests::{Pcocc, binary, guest_folder, run, scratch, workspace};

#[test]
fn the_installed_agent_is_static_and_found_as_root() {
    let folder = scratch();
    let prefix = folder.path().join("prefix");
    let agent = guest_folder().join("pcocc-guest");
    let mut install = Command::new(workspace().join("scripts/install"));
    install
        .arg("--agent")
        .arg(&agent)
        .arg("--binary")
        .arg(binary());
    run(install.arg("--prefix").arg(&prefix)).ok();
    let installed = prefix.join("libexec/pcocc/pcocc-guest");
    assert_eq!(
        fs::read(&installed).expect("read the agent"),
        fs::read(&agent).expect("read the agent")
    );
    // A static program has no interpreter, and needs no library: it runs before there is any.
    let headers = run(Command::new("readelf")
        .args(["--program-headers", "--dynamic", "--wide"])
        .arg(&installed));
    assert!(!headers.ok().contains("INTERP"), "{headers}");
    assert!(!headers.ok().contains("(NEEDED)"), "{headers}");

    // The programs that build a guest are out of sight: it comes as far as asking for them, or not to the agent.
    let pcocc = Pcocc::new();
    let build = || {
        let mut command = pcocc.any(prefix.join("bin/pcocc"));
        command
            .args(["docker", "guest", "build"])
            .env("PATH", pcocc.home());
        run(&mut command)
    };
    let outcome = build();
    assert!(outcome.failed().contains("apt-get"), "{outcome}");
    fs::remove_file(&installed).expect("remove the agent");
    let outcome = build();
    assert!(
        outcome
            .failed()
            .contains("the guest's agent pcocc-guest is not in"),
        "{outcome}"
    );
}
