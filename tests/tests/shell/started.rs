//! Shells that pcocc starts: the user's own, with their own rc files and the tag. `alloc` starts them in the same way.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use pcocc_tests::{Pcocc, Window, binary, run, wait_until};
use pcocc_vm::job::State;

use pcocc_tests::jobs;

/// A configuration folder that has to be quoted.
fn conf(home: &Pcocc) -> PathBuf {
    home.home().join("it's $mine")
}

/// A home with job 7 ready in it.
fn home() -> Pcocc {
    let home = Pcocc::new();
    jobs::write(&conf(&home), 7, State::Ready, None);
    home
}

/// `pcocc docker shell` of job 7 for a user whose shell is `shell`, run with `variables` besides.
fn started(home: &Pcocc, shell: &str, variables: &[(&str, &Path)]) -> Command {
    let mut command = home.command(&["-q", "docker", "shell", "-j", "7"]);
    command.env_remove("DOCKER_HOST").env("SHELL", shell);
    command.env("PCOCC_USER_CONF_DIR", conf(home));
    command.envs(variables.iter().copied());
    command
}

fn write(home: &Pcocc, file: &str, text: &str) {
    let file = home.home().join(file);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
}

const SHELLS: [(&str, &str, &str); 3] = [
    (
        "/bin/bash",
        ".bashrc",
        "PS1='[$?] > '\nalias hello='echo own alias'\nHISTFILE=~/history\n",
    ),
    (
        "/bin/zsh",
        ".zshrc",
        "PROMPT='[%?] > '\nalias hello='echo own alias'\nHISTFILE=~/history SAVEHIST=9 HISTSIZE=9\n",
    ),
    (
        "/usr/bin/fish",
        ".config/fish/config.fish",
        "set -g fish_greeting\nfunction fish_prompt\n  printf '[%s] > ' $status\nend\nalias hello='echo own alias'\n",
    ),
];

#[test]
fn own_rc_files_history_and_the_tag() {
    for (shell, file, text) in SHELLS {
        let name = Path::new(shell).file_name().unwrap().to_str().unwrap();
        let hook = match name {
            "fish" => format!("{} hook fish | source\n", binary().display()),
            _ => format!("eval \"$({} hook {name})\"\n", binary().display()),
        };
        for hook in ["", &hook] {
            let home = home();
            write(&home, file, &format!("{text}{hook}"));
            let terminal = Window::start(&started(&home, shell, &[]));
            assert_eq!(terminal.prompt(), "(pcocc/7) [0] >", "{shell} {hook}");
            assert_eq!(terminal.enter("hello").0, "own alias", "{shell}");
            assert_eq!(
                terminal.enter("env | grep ^DOCKER_HOST").0,
                "DOCKER_HOST=tcp://127.0.0.7:2376"
            );
            assert_eq!(
                terminal.enter("env | grep -e ZDOTDIR -e PCOCC_ZDOTDIR").0,
                "",
                "{shell}"
            );
            assert_eq!(terminal.enter("false").1, "(pcocc/7) [1] >", "{shell}");
            jobs::write(&conf(&home), 7, State::Ended, None);
            // What waits with the shell notices as well, and says so whenever it does.
            terminal.key("Enter");
            terminal.wait("the end is told and shown", |screen| {
                screen.contains("leave with exit") && screen.contains("\n(pcocc/7 ended) [1] >")
            });
            terminal.text("exit");
            terminal.key("Enter");
            wait_until("the shell has ended", Duration::from_secs(20), || {
                terminal.is_over()
            });
            let history = match name {
                "fish" => home.home().join(".local/share/fish/fish_history"),
                _ => home.home().join("history"),
            };
            let history = fs::read_to_string(&history)
                .unwrap_or_else(|error| panic!("{}: {error}", history.display()));
            assert!(history.contains("hello"), "{shell}: {history}");
        }
    }
}

#[test]
fn a_home_without_rc_files_is_no_problem() {
    for (shell, _, _) in SHELLS {
        let home = home();
        let mut command = started(&home, shell, &[]);
        command.env("PS1", "$ ");
        let terminal = Window::start(&command);
        terminal.wait("there is a tag", |screen| screen.contains("(pcocc/7) "));
    }
}

#[test]
fn zsh_finds_its_files_where_the_user_keeps_them() {
    let home = home();
    let folder = home.home().join("zsh files");
    write(&home, "zsh files/.zshenv", "from_env=yes\n");
    write(
        &home,
        "zsh files/.zshrc",
        "PROMPT='$from_env > '; setopt prompt_subst\n",
    );
    let terminal = Window::start(&started(&home, "/bin/zsh", &[("ZDOTDIR", &folder)]));
    assert_eq!(terminal.prompt(), "(pcocc/7) yes >");
    let expected = format!("ZDOTDIR={}", folder.display());
    assert_eq!(terminal.enter("env | grep ZDOTDIR").0, expected);

    // A .zshenv in the home may say where the others are.
    let home = self::home();
    write(&home, ".zshenv", "export ZDOTDIR=~/elsewhere\n");
    write(&home, "elsewhere/.zshrc", "PROMPT='elsewhere > '\n");
    let terminal = Window::start(&started(&home, "/bin/zsh", &[]));
    assert_eq!(terminal.prompt(), "(pcocc/7) elsewhere >");
    assert_eq!(
        terminal.enter("echo $ZDOTDIR").0,
        home.home().join("elsewhere").display().to_string()
    );
}

#[test]
fn posix_shells_read_their_own_file_and_show_the_tag() {
    let home = home();
    write(&home, "my env", "PS1='own > '\n");
    let file = home.home().join("my env");
    let terminal = Window::start(&started(&home, "/bin/dash", &[("ENV", &file)]));
    assert_eq!(terminal.prompt(), "(pcocc/7) own >");
    assert_eq!(
        terminal.enter("env | grep -c -e '^ENV=' -e PCOCC_ENV").0,
        "1"
    );
    let leave = format!("eval \"$({} docker env --unset)\"", binary().display());
    assert_eq!(terminal.enter(&leave).1, "own >");
    // As manuals of shells have it.
    let terminal = Window::start(&started(
        &home,
        "/bin/dash",
        &[("ENV", Path::new("$HOME/my env"))],
    ));
    assert_eq!(terminal.prompt(), "(pcocc/7) own >");
}

/// tcsh has no hook; a line of the user's own shows the tag.
#[test]
fn tcsh_shows_the_tag_with_the_line_of_the_documentation() {
    let page = fs::read_to_string(pcocc_tests::workspace().join("docs/SHELL.md")).unwrap();
    let line = page
        .lines()
        .find(|line| line.contains("$?PCOCC_JOBID"))
        .expect("the line for tcsh");
    let home = home();
    write(&home, ".tcshrc", &format!("set prompt = '> '\n{line}\n"));
    let terminal = Window::start(&started(&home, "/bin/tcsh", &[]));
    assert_eq!(terminal.prompt(), "(pcocc/7) >");
}

#[test]
fn scripts_are_split_into_words_and_their_exit_code_is_ours() {
    let home = home();
    let script = |script: &str| {
        let mut command = started(&home, "/no/such/shell", &[]);
        run(command.args(["-E", script]))
    };
    let code = r#"sh -c 'printf "%s\n" "$0" "$1" "$DOCKER_HOST"; exit 42' 'a  $b' "c d""#;
    let outcome = script(code);
    assert_eq!(outcome.status.code(), Some(42), "{outcome}");
    assert_eq!(outcome.stdout, "a  $b\nc d\ntcp://127.0.0.7:2376\n");
    assert_eq!(outcome.stderr, "");
    assert_eq!(script("sh -c 'kill -9 $$'").status.code(), Some(137));
    for (words, code, part) in [
        ("/no/such/program", 127, "/no/such/program"),
        ("/etc/passwd", 126, "/etc/passwd"),
        ("echo 'a", 2, "quote"),
        (" ", 2, "names no program"),
    ] {
        let outcome = script(words);
        assert_eq!(outcome.status.code(), Some(code), "{outcome}");
        assert!(outcome.stderr.contains(part), "{outcome}");
    }
}

#[test]
fn exit_code_and_standard_input_are_the_shells() {
    for shell in [
        "/bin/bash",
        "/bin/zsh",
        "/usr/bin/fish",
        "/bin/dash",
        "/bin/tcsh",
    ] {
        let home = home();
        let mut command = started(&home, shell, &[]);
        let file = home.home().join("input");
        fs::write(&file, "echo on $DOCKER_HOST\nexit 42\n").unwrap();
        let output = command
            .stdin(fs::File::open(&file).unwrap())
            .output()
            .unwrap();
        assert_eq!(output.status.code(), Some(42), "{shell}");
        let said = String::from_utf8_lossy(&output.stdout);
        assert_eq!(said, "on tcp://127.0.0.7:2376\n", "{shell}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{shell}");
    }
}
