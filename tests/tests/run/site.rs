//! `containers.yaml`: what a site gives containers.

use std::time::Duration;

use pcocc_tests::{Terminal, wait_until};
use rustix::process::Signal;

use crate::busybox::{Busybox, refused, text};
use crate::life::processes;

/// Writes the user's file; what it names by `HOME` is in the home of the test.
fn configure(image: &Busybox, yaml: &str) {
    let yaml = yaml.replace("HOME", text(image.pcocc.home()));
    image.write(".pcocc/containers.yaml", &yaml);
}

#[test]
fn defaults_images_and_modules() {
    let image = Busybox::plain();
    image.write("site/file", "from the site");
    image.write("module/file", "from the module");
    configure(
        &image,
        "
containers:
    default:
        mounts:
            site: {source: 'HOME/site', destination: /site, options: [ro]}
            gone: {source: /nowhere/at/all}
        env: ['A=default', 'B=default']
    bb:
        inherits: base
        env: ['B=image']
    base:
        pathprefix: ['PATH=/base']
modules:
    more:
        mounts:
            more: {source: 'HOME/module', destination: /site}
        pathsuffix: ['PATH=/more']
runtime:
    image_mountpoints: ['/scratch/', '/etc/added']
",
    );
    let line = "cat /site/file; echo; echo $A $B $PATH; ls -d /scratch /etc/added";
    let found = image.try_run(&["-I", "bb", "sh", "-c", line]);
    assert_eq!(
        found.ok(),
        "from the site\ndefault image /base:/bin\n/etc/added\n/scratch"
    );
    assert!(
        found
            .stderr
            .contains("/nowhere/at/all is not mounted on /nowhere/at/all"),
        "{}",
        found.stderr
    );
    let found = image.shell(&["-M", "more"], line);
    assert_eq!(
        found,
        "from the module\ndefault image /base:/bin:/more\n/etc/added\n/scratch"
    );
    let found = image.shell(&["--no-defaults"], "ls /site 2>&1; echo $A$B");
    assert_eq!(found, "ls: /site: No such file or directory\nimage");
    image.end();
}

#[test]
fn generators_see_the_container_and_add_to_it() {
    let image = Busybox::plain();
    image.write("site/file", "generated");
    let generator = image.write(
        "generator",
        "#!/bin/sh\n\
         grep -q '\"args\":\\[\"sh\"' \"$2\" || exit 9\n\
         test -x \"$3/bin/busybox\" || exit 8\n\
         echo MOUNT HOME/site:/generated\n\
         echo MOUNT /not/here\n\
         echo ENV WORD=$1\n\
         echo PATHSUFFIX PATH=/g\n\
         echo MODULE other\n",
    );
    let script = std::fs::read_to_string(&generator).unwrap();
    image.write(
        "generator",
        &script.replace("HOME", text(image.pcocc.home())),
    );
    configure(
        &image,
        "
containers: {default: {generator: ['HOME/generator \"a word\"']}}
modules: {other: {env: ['OTHER=yes']}}
",
    );
    let found = image.shell(
        &[],
        "cat /generated/file; echo; echo $WORD $PATH $OTHER; ls -d /mnt 2>&1 || true",
    );
    assert_eq!(
        found,
        "generated\na word /bin:/g yes\nls: /mnt: No such file or directory"
    );
    image.end();
}

#[test]
fn what_cannot_be_is_refused_before_anything_runs() {
    let image = Busybox::plain();
    image.write("failing", "#!/bin/sh\necho why >&2\nexit 3\n");
    image.write("printing", "#!/bin/sh\necho ENV A=1\necho \"$1 $2\"\n");
    for (yaml, options, parts) in [
        (
            "containers: {default: {inherits: a}, a: {inherits: [b]}, b: {inherits: a}}",
            &[][..],
            &[
                "containers inherit from each other in a circle",
                "a → b → a",
            ][..],
        ),
        (
            "containers: {bb: {inherits: nobody}}",
            &[],
            &["\"bb\"", "\"nobody\""],
        ),
        (
            "modules: {m: {env: [A=1]}}",
            &["-M", "x,m"],
            &["no module \"x\"", "there are: m"],
        ),
        (
            "containers: {default: {mounts: {a: {destination: /a}}}}",
            &[],
            &["\"a\"", "no source"],
        ),
        (
            "containers: {default: {env: [NOT_SET_ANYWHERE]}}",
            &[],
            &["containers.yaml:1:30: environment variable \"NOT_SET_ANYWHERE\""],
        ),
        (
            "containers:\n  bb:\n    env: ['A=1',\n      're(()']\n",
            &[],
            &["HOME/.pcocc/containers.yaml:4:7: ", "regular expression"],
        ),
        (
            "modules: {m: {pathsuffix: ['=/x']}}",
            &["-M", "m"],
            &["containers.yaml:1:28: ", "has no name"],
        ),
        // What an option says is no line of a file, also where a file says the same of another image.
        (
            "containers: {other: {env: [NOWHERE]}}",
            &["-e", "NOWHERE"],
            &["bb: environment variable \"NOWHERE\" is not set"],
        ),
        (
            "containers: {default: {generator: ['HOME/printing ENV re(()']}}",
            &[],
            &[
                "containers.yaml:1:36: line 2 of what generator \"HOME/printing ENV re(()\" printed: ",
                "regular expression",
            ],
        ),
        (
            "containers: {default: {generator: ['HOME/printing MOUNT :/x']}}",
            &[],
            &[
                "containers.yaml:1:36: line 2 of what generator",
                "has no source",
            ],
        ),
        (
            "containers: {default: {generator: ['HOME/printing MODULE nope']}}",
            &[],
            &["containers.yaml:1:36: line 2 of what", "no module \"nope\""],
        ),
        (
            "containers: {default: {generator: ['HOME/failing x']}}",
            &[],
            &[
                "containers.yaml:1:36: generator \"HOME/failing x\"",
                "failed (exit status: 3)",
                "why",
            ],
        ),
        (
            "containers: {default: {generator: ['/no/such/program']}}",
            &[],
            &["/no/such/program", "No such file"],
        ),
        (
            "containers: {default: {mount: {}}}",
            &[],
            &["containers.yaml:1:", "mount"],
        ),
    ] {
        configure(&image, yaml);
        let arguments = [options, &["-I", "bb", "echo", "ran"]].concat();
        let outcome = image.try_run(&arguments);
        let (code, words) = refused(&outcome);
        assert_eq!(code, 125, "{words}");
        assert_eq!(outcome.stdout, "");
        for part in parts {
            let part = part.replace("HOME", text(image.pcocc.home()));
            assert!(words.contains(&part), "{part}: {words}");
        }
    }
    image.end();
}

/// By Ctrl-C at the terminal, by a signal to pcocc alone, and by SIGKILL: the generator ends with it.
#[test]
fn a_generator_that_is_interrupted_ends() {
    let image = Busybox::plain();
    let seconds = format!("7{}", std::process::id());
    // A generator is given two more arguments, which are not for sleep.
    image.write("slow", &format!("#!/bin/sh\nexec sleep {seconds}\n"));
    configure(
        &image,
        "containers: {default: {generator: ['HOME/slow']}}\n",
    );
    for (signal, code) in [
        (None, Some(130)),
        (Some(Signal::TERM), Some(143)),
        (Some(Signal::KILL), None),
    ] {
        let command = image.pcocc.command(&["run", "-s", "-I", "bb", "true"]);
        let mut terminal = Terminal::start(&command);
        wait_until("the generator runs", Duration::from_secs(20), || {
            !processes(&seconds).is_empty()
        });
        match signal {
            None => terminal.keys("\x03"),
            Some(signal) => terminal.signal(signal),
        }
        let status = terminal.end();
        if code.is_some() {
            assert_eq!(status.code(), code, "{}", terminal.shown());
            assert!(
                terminal.shown().contains("interrupted"),
                "{}",
                terminal.shown()
            );
        }
        wait_until("the generator ends", Duration::from_secs(20), || {
            processes(&seconds).is_empty()
        });
    }
    image.end();
}
