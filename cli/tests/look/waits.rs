//! Waits that have no bytes to count: a spinner, the stage's name, and how long it has taken.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt as _;
use std::process::Command;

use pcocc_vm::job::State;

use crate::sandbox::Sandbox;
use crate::terminal::{Terminal, spins};

/// Looks at `command` while it is at `stage`, and ends it with Ctrl-C.
#[track_caller]
fn look_and_end(command: Command, stage: &str, columns: u16) {
    let mut terminal = Terminal::run(24, columns, command);
    terminal.until("spinner", |text| spins(text, stage));
    let text = terminal.text();
    assert_eq!(text.matches(stage).count(), 1, "{text}");
    terminal.keys.write_all(b"\x03").unwrap();
    assert_eq!(terminal.end(), Some(130), "{}", terminal.text());
    terminal.assert_clean();
    let text = terminal.text();
    assert!(!text.contains("^C") && !spins(&text, stage), "{text}");
    assert_eq!(text.matches(stage).count(), 1, "{text}");
    assert!(text.contains("pcocc: failed to "), "{text}");
}

#[test]
fn the_wait_for_a_vm_spins() {
    for (state, stage, columns) in [
        (State::Queued, "The job waits in the queue", 80),
        (State::Starting, "The VM is being prepared", 80),
        (State::Booting, "The VM boots", 80),
        // A row has to stay one row.
        (State::Starting, "The VM i...", 24),
    ] {
        let sandbox = Sandbox::new();
        sandbox.job("docker", state);
        look_and_end(sandbox.command(&["docker", "shell"]), stage, columns);
    }
}

#[test]
fn a_dumb_terminal_waits_with_lines() {
    let sandbox = Sandbox::new();
    sandbox.job("docker", State::Booting);
    let mut command = sandbox.command(&["docker", "shell"]);
    command.env("TERM", "dumb");
    let mut terminal = Terminal::run(24, 80, command);
    terminal.until("line", |text| {
        text.contains("The VM boots\n") || text.ends_with("The VM boots")
    });
    terminal.keys.write_all(b"\x03").unwrap();
    assert_eq!(terminal.end(), Some(130), "{}", terminal.text());
    assert!(!terminal.raw.contains(&0x1b), "{}", terminal.text());
}

#[test]
fn the_build_of_a_guest_image_spins_and_leaves_nothing() {
    let sandbox = Sandbox::new();
    // An apt whose mirror never answers.
    let folder = sandbox.home().join("bin");
    for program in ["apt-get", "apt-cache"] {
        sandbox.write(&format!("bin/{program}"), "#!/bin/sh\nexec sleep 600\n");
        let mode = fs::Permissions::from_mode(0o755);
        fs::set_permissions(folder.join(program), mode).unwrap();
    }
    let temporary = sandbox.home().join("tmp");
    fs::create_dir(&temporary).unwrap();
    let mut command = sandbox.command(&["docker", "guest", "build", "--agent", "/bin/busybox"]);
    command
        .env("PATH", format!("{}:/usr/bin:/bin", folder.display()))
        .env("TMPDIR", &temporary);
    look_and_end(command, "Fetching Debian packages", 80);
    assert_eq!(fs::read_dir(&temporary).unwrap().count(), 0);
}
