//! The same images by `pcocc run` and by `docker run`.
//!
//! They differ where they mean to: pcocc runs everything as the user who calls it, with that user's home and
//! name; there is no HOSTNAME; and files that docker and pcocc put in the image's place are not compared.

use std::path::Path;

use pcocc_tests::{Docker, Pcocc, leaks, run};

/// Tells what it was given: arguments, environment, directory. Its exit code is 40 and the number of arguments.
const PROBE: &str = "#!/bin/sh
printf 'argument <%s>\\n' \"$0\" \"$@\"
env | grep -v -e '^HOSTNAME=' -e '^HOME=' -e '^PWD=' -e '^OLDPWD=' -e '^SHLVL=' -e '^_=' | sort
pwd
exit $((40 + $#))
";

/// What follows `FROM`, and the arguments behind the image's name.
const IMAGES: [(&str, &[&str]); 20] = [
    ("CMD [\"/probe\"]", &[]),
    ("CMD [\"/probe\", \"a\", \"b c\"]", &[]),
    ("CMD [\"/probe\", \"a\"]", &["/probe", "other"]),
    ("CMD /probe shell form", &[]),
    ("ENTRYPOINT [\"/probe\"]", &[]),
    ("ENTRYPOINT [\"/probe\"]", &["x", "-s", "--pty"]),
    ("ENTRYPOINT [\"/probe\", \"first\"]\nCMD [\"second\"]", &[]),
    (
        "ENTRYPOINT [\"/probe\", \"first\"]\nCMD [\"second\"]",
        &["third"],
    ),
    ("ENTRYPOINT /probe \"$@\"", &["x"]),
    (
        "ENTRYPOINT [\"probe\"]\nENV PATH=/somewhere:/opt/bin:/bin",
        &["from path"],
    ),
    (
        "ENV A=1 B=\"two words\" C=\\$A\nENTRYPOINT [\"/probe\"]",
        &[],
    ),
    ("ENV EMPTY=\nENTRYPOINT [\"/probe\"]", &[]),
    ("ENV LINES=\"one=1;two=2\"\nENTRYPOINT [\"/probe\"]", &["="]),
    ("WORKDIR /data\nENTRYPOINT [\"/probe\"]", &[]),
    (
        "WORKDIR /data\nWORKDIR below/it\nENTRYPOINT [\"/probe\"]",
        &[],
    ),
    ("WORKDIR /data\nENTRYPOINT [\"./relative\"]", &["y"]),
    ("USER 1234\nENTRYPOINT [\"/probe\"]", &[]),
    (
        "USER 1234:99\nWORKDIR /data\nENV USER=somebody\nCMD [\"/probe\"]",
        &[],
    ),
    (
        "VOLUME /data\nEXPOSE 80\nLABEL a=b\nENTRYPOINT [\"/no-hash\"]",
        &["z"],
    ),
    (
        "STOPSIGNAL 9\nHEALTHCHECK CMD true\nENTRYPOINT [\"/bin/sh\", \"-c\"]\nCMD [\"/probe $0\"]",
        &[],
    ),
];

#[test]
fn the_same_twenty_images_with_docker() {
    let docker = Docker::shared();
    compare(&docker, Pcocc::new().with(&docker));
}

fn compare(docker: &Docker, pcocc: Pcocc) {
    let watch = leaks::Watch::new(pcocc.home());
    let scratch = pcocc_tests::scratch();
    let probe = scratch.path().join("probe");
    std::fs::write(&probe, PROBE).unwrap();
    let bare = scratch.path().join("bare");
    std::fs::write(&bare, PROBE.trim_start_matches("#!/bin/sh\n")).unwrap();
    let base = docker.build(
        "base",
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         COPY probe /probe\nCOPY probe /opt/bin/probe\nCOPY probe /data/relative\nCOPY bare /no-hash\n\
         RUN chmod 755 /probe /opt/bin/probe /data/relative /no-hash && chmod 700 /data && mkdir -p /etc \
         && echo x >/etc/x && ln -s ../etc /data/link && mkfifo /data/fifo && chmod 1777 /opt\n",
        &[("busybox", Path::new("/bin/busybox")), ("probe", &probe), ("bare", &bare)],
    );
    // Daemon and processor wait for each other much of the time.
    let next = std::sync::atomic::AtomicUsize::new(0);
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                loop {
                    let number = next.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
                    let Some((lines, arguments)) = IMAGES.get(number) else {
                        return;
                    };
                    one(docker, &pcocc, &base, number, lines, arguments);
                }
            });
        }
    });
    same_files(docker, &pcocc, &base);
    failures_have_the_same_codes(docker, &pcocc);
    watch.assert_clean();
}

/// Builds, imports and runs one image on both sides.
fn one(docker: &Docker, pcocc: &Pcocc, base: &str, number: usize, lines: &str, arguments: &[&str]) {
    let name = format!("i{number}");
    let image = docker.build(&name, &format!("FROM {base}\n{lines}\n"), &[]);
    // No further step between the import and the run.
    pcocc.run(&["docker", "import", &image, &name]);
    let theirs = docker.try_run(&[&["run", "--rm", "--network=none", &image], arguments].concat());
    let ours = pcocc.try_run(&[&["run", "-s", "--cwd", "-", "-I", &name], arguments].concat());
    // docker knows no scripts without "#!"; shells, and pcocc 0.7, do.
    if lines.contains("no-hash") {
        assert_ne!(theirs.status.code(), Some(41));
        assert_eq!(ours.status.code(), Some(41), "{}", ours.stderr);
        return;
    }
    let (code, text) = (theirs.status.code(), &theirs.stdout);
    assert!(text.contains("argument <"), "{lines}: {}", theirs.stderr);
    assert_eq!(ours.stdout, *text, "{lines} {arguments:?}: {}", ours.stderr);
    assert_eq!(ours.status.code(), code, "{lines} {arguments:?}");
}

/// Every file is the same in kind, permissions and size, and no other is there.
fn same_files(docker: &Docker, pcocc: &Pcocc, base: &str) {
    let line = "find / -xdev | sort | while read -r f; do stat -c '%n %f %s' \"$f\"; done";
    let placed = |path: &str| {
        let own = [
            "/",
            "/.dockerenv",
            "/dev",
            "/proc",
            "/sys",
            "/tmp",
            "/etc",
            "/root",
        ];
        own.contains(&path)
            || [
                "/etc/hostname",
                "/etc/hosts",
                "/etc/mtab",
                "/etc/resolv.conf",
                "/etc/passwd",
                "/etc/group",
            ]
            .contains(&path)
            || path.starts_with("/dev/")
    };
    let files = |text: &str| -> Vec<String> {
        let lines = text
            .lines()
            .filter(|line| !placed(line.split(' ').next().unwrap_or_default()));
        // How large a folder is is nobody's business.
        lines
            .map(|line| match line.split(' ').nth(1) {
                Some(mode) if mode.starts_with('4') => line.rsplit_once(' ').unwrap().0.to_owned(),
                _ => line.to_owned(),
            })
            .collect()
    };
    pcocc.run(&["docker", "import", base, "base"]);
    let theirs = docker.run(&["run", "--rm", "--network=none", base, "/bin/sh", "-c", line]);
    let mut command = pcocc.command(&[
        "run",
        "-s",
        "--cwd",
        "/",
        "--no-user",
        "-I",
        "base",
        "/bin/sh",
        "-c",
        line,
    ]);
    let ours = run(&mut command).ok().to_owned();
    let (theirs, ours) = (files(&theirs), files(&ours));
    assert!(theirs.len() > 200, "{}", theirs.len());
    assert_eq!(ours, theirs);
}

fn failures_have_the_same_codes(docker: &Docker, pcocc: &Pcocc) {
    let image = docker.name("i0");
    for arguments in [
        &["/nope"][..],
        &["nope"],
        &["/data/fifo"],
        &["/etc/x"],
        &["/data"],
    ] {
        let theirs =
            docker.try_run(&[&["run", "--rm", "--network=none", &image], arguments].concat());
        let ours = pcocc.try_run(&[&["run", "-s", "--cwd", "/", "-I", "i0"], arguments].concat());
        assert_eq!(
            ours.status.code(),
            theirs.status.code(),
            "{arguments:?}: {} {}",
            ours.stderr,
            theirs.stderr
        );
    }
}
