//! Tools that are told to end during a long transfer into a repository.

use std::fs::{self, File};
use std::io::Read;
use std::time::{Duration, Instant};

use pcocc_tests::{Pcocc, layout, leaks, wait_until};
use rustix::process::{Pid, Signal, kill_process};

use crate::hello::{Site, text};

/// How long a tool may go on.
const SOON: Duration = Duration::from_millis(1300);

/// An archive of one file of hexadecimal digits, which are slow to compress: to store it takes seconds.
fn large_layer() -> Vec<u8> {
    const MEGABYTES: usize = 200;
    let mut random = vec![0_u8; 1 << 19];
    let mut source = File::open("/dev/urandom").unwrap();
    source.read_exact(&mut random).unwrap();
    // Deflate looks back no further than 32 KB, so a megabyte again and again is no shorter.
    let digits: String = random.iter().map(|byte| format!("{byte:02x}")).collect();
    let digits = digits.repeat(MEGABYTES);
    let mut tar = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(digits.len() as u64);
    header.set_mode(0o644);
    tar.append_data(&mut header, "digits", digits.as_bytes())
        .unwrap();
    tar.into_inner().unwrap()
}

#[test]
fn a_signal_during_the_transfer_to_a_repository_stops_it() {
    let site = Site::new(Pcocc::new(), None);
    let large = pcocc_tests::scratch();
    let made = large.path().join("large");
    layout::write_layers(&made, &[large_layer()]);
    site.pcocc
        .run_any("chmod", &["-R", "a+rX", text(large.path())]);
    let states = || site.transfers("stopped");
    let signals = [Signal::TERM, Signal::INT, Signal::KILL];
    for (round, signal) in signals.into_iter().enumerate() {
        std::thread::scope(|scope| {
            let copying = scope.spawn(|| {
                // A job control shell leaves SIGINT alone for what it starts in the background.
                let line = "set -m; cp -r $from $to & echo $! > $home/pid; wait $!";
                let status = site.copy(line, text(&made), "repo/user", "stopped").status;
                (status, Instant::now())
            });
            wait_until("the transfer is under way", Duration::from_secs(60), || {
                let states = states();
                states.len() > round && states[round] == "running"
            });
            let pid = fs::read_to_string(site.pcocc.home().join("pid")).unwrap();
            let pid = Pid::from_raw(pid.trim().parse().unwrap()).unwrap();
            let told = Instant::now();
            kill_process(pid, signal).unwrap();
            let (status, ended) = copying.join().unwrap();
            assert!(!status.success());
            assert!(ended - told < SOON, "{:?}", ended - told);
        });
        wait_until("it is rolled back", SOON, || {
            states()[round] == "failed" && site.names("repo/user") == ["hello"]
        });
        let repository = site.pcocc.repository();
        assert_eq!(leaks::unfinished_in(&repository), Vec::<String>::new());
        assert!(!repository.join("meta/stopped@0").exists());
    }
    site.copy("cp -r $from $to", text(&made), "repo/user", "stopped")
        .ok();
    assert!(site.id_of("repo/user", "stopped").is_some());
    drop(fs::remove_dir_all(&made));
    site.end();
}
