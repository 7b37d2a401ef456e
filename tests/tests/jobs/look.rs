//! What a terminal shows while `alloc` waits for its VM, read back through a terminal emulator: each stage by its name with a
//! spinner and its time, and after Ctrl-C a clean line and a cursor.

use std::io::Write as _;

use pcocc_tests::Pcocc;

use crate::home::{BOOT, assert_nothing_left, home, record};
use crate::terminal::{Terminal, spins};

/// Every stage of a start.
const STAGES: [&str; 8] = [
    "Waiting for docker VM to start ...",
    "Trying this node's KVM",
    "Booting the guest",
    "Starting the docker daemon",
    "Saving a snapshot for the next start",
    "Resuming the snapshot",
    "Configuring the guest",
    "The docker daemon is ready",
];

/// Whether a line is one of a start's stages.
pub fn is_stage(line: &str) -> bool {
    STAGES.iter().any(|stage| line.starts_with(stage))
}

#[test]
fn a_start_that_is_interrupted() {
    let pcocc = home(Pcocc::new(), "local", "");
    let (wide, narrow) = ("Booting the guest", "Booting ...");
    for (job, (columns, variable, stage)) in (1..).zip([
        (80, ("COLUMNS", "80"), wide),
        // A row has to stay one row.
        (24, ("NO_COLOR", "1"), narrow),
        (80, ("TERM", "dumb"), wide),
    ]) {
        let mut command = pcocc.command(&["docker", "alloc", "--no-snapshot"]);
        command.env(variable.0, variable.1);
        let mut terminal = Terminal::run(24, columns, command);
        terminal.patience = BOOT;
        let dumb = variable == ("TERM", "dumb");
        // The boot may be over within its first second; one of the stages that follow takes longer.
        terminal.until("stage", |text| {
            text.contains(stage) && (dumb || text.lines().any(|line| spins(line, "")))
        });
        let text = terminal.text();
        assert_eq!(text.matches(stage).count(), 1, "{text}");
        assert!(text.starts_with("Starting the docker VM"), "{text}");
        let spinning = text.lines().filter(|line| spins(line, "")).count();
        assert_eq!(spinning, usize::from(!dumb), "{text}");
        terminal.keys.write_all(b"\x03").unwrap();
        assert_eq!(terminal.end(), Some(130), "{}", terminal.text());
        terminal.assert_clean();
        let text = terminal.text();
        assert!(!text.lines().any(|line| spins(line, "")), "{text}");
        assert_eq!(text.matches(stage).count(), 1, "{text}");
        assert!(text.contains("pcocc: failed to start"), "{text}");
        assert!(!text.contains("^C"), "{text}");
        let raw = String::from_utf8_lossy(&terminal.raw).into_owned();
        assert_eq!(raw.contains('\x1b'), !dumb, "{raw:?}");
        // Colors are what ends with an m.
        assert!(
            !raw.contains("\x1b[3") && !raw.contains("\x1b[1m"),
            "{raw:?}"
        );
        assert_nothing_left(&pcocc);
        assert_eq!(record(&pcocc, job)["state"], "ended");
    }
}

#[test]
fn a_shell_and_what_is_above_its_prompt() {
    let pcocc = home(Pcocc::new(), "local", "");
    let mut command = pcocc.command(&["docker", "alloc"]);
    command.env("SHELL", "/bin/bash");
    let mut terminal = Terminal::run(40, 80, command);
    terminal.patience = BOOT;
    terminal.until("prompt", |text| text.contains("(pcocc/1) "));
    let text = terminal.text();
    let lines: Vec<&str> = text.lines().collect();
    let [first, stages @ .., starting, prompt] = lines.as_slice() else {
        panic!("{text}");
    };
    assert_eq!(*first, "Starting the docker VM ...", "{text}");
    assert_eq!(*starting, "Starting the docker shell ...", "{text}");
    assert!(prompt.starts_with("(pcocc/1) "), "{text}");
    // Each stage has become an ordinary line, with its time if that was worth the wait.
    assert!(stages.iter().all(|line| is_stage(line)), "{text}");
    assert!(!stages.iter().any(|line| spins(line, "")), "{text}");
    assert!(!terminal.screen.screen().hide_cursor());
    terminal.keys.write_all(b"exit 5\r").unwrap();
    assert_eq!(terminal.end(), Some(5), "{}", terminal.text());
    terminal.assert_clean();
    assert_nothing_left(&pcocc);
}
