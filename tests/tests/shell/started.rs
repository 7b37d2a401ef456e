//! Shells that pcocc starts: the user's own, with their own rc files and the tag.

use std::fs;
use std::path::Path;
use std::process::Command;

use pcocc_shellenv::spawn::Spawn;
use pcocc_shellenv::{DockerEnvironment, Variables};
use pcocc_tests::{Pcocc, Window, binary};
use pcocc_vm::job::State;

use crate::jobs;

/// A shell of `home`, as pcocc starts it for job 7 when it is run with `variables` besides.
fn started(home: &Pcocc, shell: &str, variables: &[(&str, &Path)]) -> Command {
    let mut base = home.any("true");
    base.envs(variables.iter().copied());
    base.env_remove("DOCKER_HOST");
    let current: Variables = base
        .get_envs()
        .filter_map(|(name, value)| Some((name.to_owned(), value?.to_owned())))
        .collect();
    let conf = jobs::conf(home);
    let environment = DockerEnvironment {
        job: "7".to_owned(),
        host: "tcp://127.0.0.7:2376".to_owned(),
        cert_path: conf.join("job_7/vmcerts/client"),
        docker_path: None,
    };
    let spawn = Spawn {
        shell: Path::new(shell),
        environment: &environment,
        variables: &current,
        pcocc: &binary(),
        folder: &conf.join("job_7/my shell's"),
    };
    let mut command = spawn.interactive().expect("files for the shell");
    // Here the child does not inherit what pcocc would have, so it gets it by hand.
    let given: Vec<_> = command
        .get_envs()
        .map(|(name, _)| name.to_owned())
        .collect();
    for (name, value) in current {
        if !given.contains(&name) {
            command.env(name, value);
        }
    }
    command.current_dir(home.home());
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
            let home = jobs::home();
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
            jobs::write(&jobs::conf(&home), 7, State::Ended, None);
            let (said, prompt) = terminal.enter("true");
            assert!(said.ends_with("leave with exit"), "{shell}: {said}");
            assert_eq!(prompt, "(pcocc/7 ended) [0] >", "{shell}");
            terminal.text("exit");
            terminal.key("Enter");
            pcocc_tests::wait_until(
                "the shell has ended",
                std::time::Duration::from_secs(20),
                || terminal.is_over(),
            );
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
        let home = jobs::home();
        let mut command = started(&home, shell, &[]);
        command.env("PS1", "$ ");
        let terminal = Window::start(&command);
        terminal.wait("there is a tag", |screen| screen.contains("(pcocc/7) "));
    }
}

#[test]
fn zsh_finds_its_files_where_the_user_keeps_them() {
    let home = jobs::home();
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
    let home = jobs::home();
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
    let home = jobs::home();
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
        let home = jobs::home();
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
