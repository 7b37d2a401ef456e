//! What makes no sense is said so, before anything runs, with docker's exit code 125 or usage's 2.

use crate::busybox::{Busybox, refused};

#[test]
fn messages_say_what_and_why() {
    let image = Busybox::plain();
    for (arguments, code, part) in [
        (&["-I", "nope", "true"][..], 125, "image nope"),
        (&["-I", "oci:/nowhere", "true"], 125, "/nowhere"),
        (&["-I", "bb"], 125, "names no command"),
        (
            &["--mount", "/no/where:/x", "-I", "bb", "true"],
            125,
            "cannot mount /no/where on /x: No such file",
        ),
        (&["--mount", "", "-I", "bb", "true"], 125, "has no source"),
        (
            &["--mount", "/tmp:/", "-I", "bb", "true"],
            125,
            "hide the whole image",
        ),
        (
            &["--mount", "/tmp:/bin/busybox", "-I", "bb", "true"],
            125,
            "/bin/busybox is not a folder in the image",
        ),
        (
            &["--mount", "/etc/passwd:/bin", "-I", "bb", "true"],
            125,
            "/bin is a folder in the image",
        ),
        (
            &[
                "--mount",
                "/usr:/u",
                "--mount",
                "/tmp:/u/no/such",
                "-I",
                "bb",
                "true",
            ],
            125,
            "make it there first",
        ),
        (
            &["-e", "NOT_SET_ANYWHERE", "-I", "bb", "true"],
            125,
            "NOT_SET_ANYWHERE=VALUE",
        ),
        (
            &["-e", "re(()", "-I", "bb", "true"],
            125,
            "regular expression",
        ),
        (
            &["--cwd", "/not/there", "-I", "bb", "true"],
            125,
            "working directory /not/there",
        ),
        (&["--cwd", "here", "-I", "bb", "true"], 125, "relative"),
        (&["--script", "/no/script", "-I", "bb"], 125, "/no/script"),
        (
            &["-M", "none", "-I", "bb", "true"],
            125,
            "no module \"none\"",
        ),
        (&["--entry-point", "'", "-I", "bb", "true"], 125, "quot"),
        (&["--pty", "-I", "bb", "true"], 2, "--pty needs a terminal"),
        (
            &["-n", "2", "-I", "bb", "true"],
            2,
            "-n says how Slurm starts it",
        ),
        (
            &["-p", "sandy", "-I", "bb", "true"],
            2,
            "-p says how Slurm starts it",
        ),
        (&[], 2, "nothing to run"),
        (&["-M", "x", "true"], 2, "-M is for images"),
        (&["--nope"], 2, "--nope"),
    ] {
        let outcome = image.try_run(arguments);
        let (found, words) = refused(&outcome);
        assert_eq!(found, code, "{arguments:?}: {words}");
        assert!(words.contains(part), "{arguments:?}: {words}");
        assert_eq!(outcome.stdout, "", "{arguments:?}");
    }
    image.end();
}

/// A container within a user namespace that allows no more of them.
#[test]
fn a_kernel_that_refuses_is_named_by_its_knob() {
    let image = Busybox::plain();
    let pcocc = image.pcocc.command(&["run", "-s", "-I", "bb", "true"]);
    let mut command = image.pcocc.any("unshare");
    command.args(["--user", "--map-root-user", "sh", "-c"]);
    command.arg("echo 0 >/proc/sys/user/max_user_namespaces && exec \"$@\"");
    command
        .arg("sh")
        .arg(pcocc.get_program())
        .args(pcocc.get_args());
    let (code, words) = refused(&pcocc_tests::run(&mut command));
    assert_eq!(code, 125, "{words}");
    assert!(
        words.contains("sysctl user.max_user_namespaces=10000"),
        "{words}"
    );
    image.end();
}
