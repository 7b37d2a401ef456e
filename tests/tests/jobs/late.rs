//! A VM that does not become ready: the wait ends, with what the console said last.

use std::fs;

use pcocc_tests::{Pcocc, wait_until};
use rustix::process::Signal;

use crate::home::{
    BOOT, Stop, assert_nothing_left, end, find, home, said, signal, stale_folders, start,
};

#[test]
fn a_vm_that_stands_still_is_given_up_with_its_last_words() {
    let pcocc = home(Pcocc::new(), "local", "");
    let _stop = Stop(&pcocc);
    let words = [
        "docker",
        "alloc",
        "--no-snapshot",
        "-T",
        "100",
        "-E",
        "true",
    ];
    let mut command = start(&pcocc, "alloc", &words);
    let console = || fs::read_to_string(pcocc.home().join(".pcocc/job_1/console.log"));
    wait_until("the guest has said something", BOOT, || {
        console().is_ok_and(|text| text.contains("resize2fs"))
            || command.try_wait().unwrap().is_some()
    });
    let qemu = find(&pcocc, "qemu-system").unwrap_or_else(|| panic!("{}", said(&pcocc, "alloc")));
    signal(qemu, Signal::STOP);
    let status = end(&mut command, "alloc");
    let shown = said(&pcocc, "alloc");
    assert_eq!(status.code(), Some(124), "{shown}");
    assert!(shown.contains("not ready within 100 seconds"), "{shown}");
    let (_, lines) = shown
        .split_once("Last lines of the VM's console:\n")
        .expect(&shown);
    let text = console().unwrap();
    let last = text.lines().rfind(|line| !line.trim().is_empty()).unwrap();
    // The beginning of it: the rest may be control characters.
    let last: String = last
        .chars()
        .filter(char::is_ascii_graphic)
        .take(30)
        .collect();
    let lines: String = lines.chars().filter(char::is_ascii_graphic).collect();
    assert!(lines.contains(&last), "{last} in {lines}");
    // One that is stopped does not stay, either.
    assert_nothing_left(&pcocc);
    assert_eq!(stale_folders(&pcocc), Vec::<std::path::PathBuf>::new());
}
