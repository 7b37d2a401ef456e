//! Runs through Slurm: a real cluster of two nodes, both this machine.

use pcocc_tests::{Slurm, Terminal, run};

use crate::busybox::{Busybox, refused};

#[test]
fn tasks_on_nodes_as_root() {
    let cluster = Slurm::start_with(&["PartitionName=debug Nodes=n2 State=UP"]);
    let image = Busybox::plain();
    let command = |arguments: &[&str]| {
        let mut command = image.pcocc.command(&["run"]);
        command.env("SLURM_CONF", cluster.configuration());
        command.args(arguments);
        command
    };
    let task = |arguments: &[&str]| run(&mut command(arguments));
    let line = ["-e", "re(SLURM_.*)", "--cwd", "/", "-I", "bb", "sh", "-c"];
    let two = task(
        &[
            &["-n", "2", "-N", "2"][..],
            &line,
            &["echo $SLURM_PROCID of $SLURM_NTASKS"],
        ]
        .concat(),
    );
    let mut words: Vec<_> = two.ok().lines().collect();
    words.sort_unstable();
    assert_eq!(words, ["0 of 2", "1 of 2"]);
    let one = task(
        &[
            &["-c", "1", "-w", "n2"][..],
            &line,
            &["echo $SLURM_STEP_NODELIST $SLURM_CPUS_PER_TASK; exit 5"],
        ]
        .concat(),
    );
    assert_eq!(one.status.code(), Some(5), "{}", one.stderr);
    assert_eq!(one.stdout.trim(), "n2 1");
    let elsewhere = task(
        &[
            &["-p", "debug", "-c", "2"][..],
            &line,
            &["echo $SLURM_JOB_PARTITION $SLURM_JOB_NODELIST $SLURM_CPUS_PER_TASK"],
        ]
        .concat(),
    );
    assert_eq!(elsewhere.ok(), "debug n2 2");
    // The terminal is Slurm's, and the command's.
    let there = "test -t 0 -a -t 1 && stty size && read line && echo read $line";
    let arguments = ["--pty", "--cwd", "/", "-I", "bb", "sh", "-c", there];
    let mut terminal = Terminal::start(&command(&arguments));
    terminal.wait_for("24 80");
    terminal.keys("a line\r");
    terminal.wait_for("read a line");
    assert!(terminal.end().success(), "{}", terminal.shown());
    // What is wrong shows before the queue, or in Slurm's words.
    let nowhere = task(&["-p", "nowhere", "-I", "bb", "true"]);
    assert!(nowhere.failed().contains("partition"), "{nowhere}");
    let (code, words) = refused(&task(&["-n", "2", "-I", "nope", "true"]));
    assert_eq!(code, 125);
    assert!(words.contains("image nope"), "{words}");
    let (code, words) = refused(&task(&["-N", "3", "-n", "2", "-I", "bb", "true"]));
    assert_eq!(code, 2);
    assert!(words.contains("raise -n"), "{words}");
    cluster.wait_until_empty();
    image.end();
}

#[test]
fn without_slurm_the_message_says_what_to_do() {
    let image = Busybox::plain();
    let mut command = image.pcocc.command(&["run", "-I", "bb", "true"]);
    command.env("PATH", "/nowhere");
    // The program itself is found by its path; for another user it is started by a helper that is not.
    if pcocc_tests::is_root() || std::path::Path::new(command.get_program()).is_absolute() {
        let (code, words) = refused(&run(&mut command));
        assert_eq!(code, 127, "{words}");
        assert!(words.contains("add -s to run on this machine"), "{words}");
    }
    image.end();
}
