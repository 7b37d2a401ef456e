//! TAB, in real shells in a real terminal, and what the shells send.

use std::fs;
use std::process::Command;

use pcocc_tests::{Pcocc, Window, run};
use pcocc_vm::job::State;

use crate::jobs;
use crate::prompt::{HOOKED, rc};

/// Puts images into a home's repository, as far as completion sees them.
fn images(home: &Pcocc, names: &[&str]) {
    let meta = home.repository().join("meta");
    fs::create_dir_all(&meta).unwrap();
    fs::write(home.repository().join(".config"), "version: 2\n").unwrap();
    for name in names {
        fs::write(meta.join(name), "").unwrap();
    }
}

/// What each shell needs for completion to be there at all.
fn own(shell: &str) -> &'static str {
    match shell {
        "zsh" => "autoload -Uz compinit && compinit -u -d ~/.zcompdump",
        _ => "",
    }
}

#[test]
fn tab_completes_what_is_meant() {
    for shell in HOOKED {
        // The command has to be called by its name.
        let path = format!(
            "PATH={}:$PATH",
            pcocc_tests::binary().parent().unwrap().display()
        );
        let path = if shell == "fish" {
            path.replace("PATH=", "set PATH ").replace(":$", " $")
        } else {
            path
        };
        let rc = rc(shell, &format!("{}\n{path}", own(shell)), "");
        images(&rc.home, &["centos-gcc@0", "centos-gcc@12", "debian@0"]);
        jobs::write(&jobs::conf(&rc.home), 6, State::Ended, None);
        fs::write(rc.home.home().join("some archive.tar"), "").unwrap();
        fs::create_dir(rc.home.home().join("folder")).unwrap();
        let terminal = Window::start(&rc.command);
        terminal.prompt();
        terminal.complete("pcocc dock", "pcocc docker");
        terminal.complete("pcocc docker exp", "pcocc docker export");
        terminal.complete("pcocc docker env --uns", "pcocc docker env --unset");
        terminal.complete(
            "pcocc docker env --shell f",
            "pcocc docker env --shell fish",
        );
        terminal.complete("pcocc docker env -j ", "pcocc docker env -j 7");
        terminal.complete("pcocc image show cen", "pcocc image show centos-gcc");
        terminal.complete("pcocc image show user:deb", "pcocc image show user:debian");
        terminal.complete(
            "pcocc image show user:centos-gcc@1",
            "pcocc image show user:centos-gcc@12",
        );
        terminal.complete("pcocc image list --repo=us", "pcocc image list --repo=user");
        terminal.complete(
            "pcocc image copy debian us",
            "pcocc image copy debian user:",
        );
        terminal.complete("pcocc docker mount fol", "pcocc docker mount folder/");
        terminal.complete(
            "pcocc image import oci:fol",
            "pcocc image import oci:folder/",
        );
        terminal.complete("pcocc-use ", "pcocc-use 7");
        // In the middle of a line, what follows the cursor stays.
        terminal.key("C-u");
        terminal.text("pcocc image show deb after");
        for _ in 0..6 {
            terminal.key("Left");
        }
        terminal.key("Tab");
        terminal.wait("the word before the cursor is completed", |screen| {
            screen
                .lines()
                .last()
                .is_some_and(|line| line.contains("show debian") && line.contains("after"))
        });
    }
}

#[test]
fn names_of_files_are_quoted_by_the_shell() {
    for (shell, expected) in [
        ("bash", "pcocc image import some\\ archive.tar"),
        ("zsh", "pcocc image import some\\ archive.tar"),
        ("fish", "pcocc image import some\\ archive.tar"),
    ] {
        let path = format!(
            "PATH={}:$PATH",
            pcocc_tests::binary().parent().unwrap().display()
        );
        let path = if shell == "fish" {
            path.replace("PATH=", "set PATH ").replace(":$", " $")
        } else {
            path
        };
        let rc = rc(shell, &format!("{}\n{path}", own(shell)), "");
        fs::write(rc.home.home().join("some archive.tar"), "").unwrap();
        let terminal = Window::start(&rc.command);
        terminal.prompt();
        terminal.complete("pcocc image import some", expected);
    }
}

#[test]
fn completion_of_the_other_command_stays_whole() {
    for shell in HOOKED {
        let file = |home: &Pcocc| home.home().join("theirs");
        let load = match shell {
            "bash" => ". /usr/share/bash-completion/bash_completion; . ~/theirs",
            "zsh" => "autoload -Uz compinit && compinit -u -d ~/.zcompdump; source ~/theirs",
            _ => "source ~/theirs",
        };
        let rc = rc(shell, load, "");
        let script = run(Command::new("docker").args(["completion", shell]))
            .ok()
            .to_owned();
        fs::write(file(&rc.home), script).unwrap();
        let terminal = Window::start(&rc.command);
        terminal.prompt();
        terminal.enter("pcocc-use 7");
        terminal.complete("docker versi", "docker version");
        terminal.complete("docker run --privi", "docker run --privileged");
    }
}

/// What a shell gets for `words`; nothing may ever be on standard error.
fn asked(home: &Pcocc, shell: &str, words: &[&str]) -> String {
    let mut command = home.command(&["--"]);
    let outcome = run(command.env("COMPLETE", shell).args(words));
    assert_eq!(outcome.stderr, "", "{outcome}");
    outcome.stdout
}

#[test]
fn nothing_is_said_on_failure() {
    let home = jobs::home();
    fs::write(jobs::conf(&home).join("repos.yaml"), "]: broken").unwrap();
    fs::write(jobs::conf(&home).join("job_7/job.json"), "broken").unwrap();
    for words in [
        &["pcocc", "image", "show", ""] as &[&str],
        &["pcocc", "docker", "import", ""],
        &["pcocc", "docker", "env", "-j", ""],
        &["pcocc", "no", "such", "thing", ""],
        &["pcocc", "--no-such", ""],
        &["pcocc", "docker", "alloc", "-p", ""],
    ] {
        for shell in HOOKED {
            asked(&home, shell, words);
        }
    }
    let outcome = run(home
        .command(&["--", "pcocc", ""])
        .env("COMPLETE", "cmd.exe"));
    assert_eq!(
        (outcome.stdout, outcome.stderr),
        (String::new(), String::new())
    );
}

#[test]
fn the_schedulers_options_are_completed_from_the_scheduler() {
    let home = jobs::home();
    // Slurm itself is in another test; here it is slow, or counts how often it is asked.
    let bin = home.home().join("bin");
    fs::create_dir(&bin).unwrap();
    let sinfo = bin.join("sinfo");
    fs::write(
        &sinfo,
        "#!/bin/sh\necho asked >>~/asked\nprintf 'sandy\\nskylake\\n'\n",
    )
    .unwrap();
    run(Command::new("chmod").arg("+x").arg(&sinfo)).ok();
    let path = format!("{}:/usr/bin:/bin", bin.display());
    let home = home.with_variable("PATH", &path);
    let words = ["pcocc", "docker", "alloc", "-c", "16", "-p", "s"];
    // The first answer may take longer than a TAB waits on a busy machine.
    pcocc_tests::wait_until(
        "the partitions are known",
        std::time::Duration::from_secs(10),
        || asked(&home, "bash", &words) == "sandy\nskylake\n",
    );
    assert_eq!(
        asked(
            &home,
            "bash",
            &["pcocc", "docker", "batch", "--partition=sk"]
        ),
        "--partition=skylake\n"
    );
    let times = fs::read_to_string(home.home().join("asked"))
        .unwrap()
        .lines()
        .count();
    assert!(times <= 2, "asked {times} times");
}

/// Fails if a program has anything to say about `code`.
fn accepted(program: &[&str], code: &str) {
    let folder = tempfile::tempdir().unwrap();
    let file = folder.path().join("code");
    fs::write(&file, code).unwrap();
    let mut command = Command::new(program[0]);
    let outcome = run(command.args(&program[1..]).arg(&file));
    assert_eq!(outcome.ok(), "", "{outcome}");
    assert_eq!(outcome.stderr, "", "{outcome}");
}

#[test]
fn all_code_is_clean_with_every_option() {
    let home = jobs::home();
    for shell in HOOKED {
        let registration = run(home.command(&[]).env("COMPLETE", shell))
            .ok()
            .to_owned()
            + "\n";
        let hook = home.run(&["hook", shell]) + "\n";
        let bare = home.run(&["hook", shell, "--no-completions"]) + "\n";
        assert!(hook.ends_with(&registration), "{shell}");
        assert!(hook.starts_with(&bare), "{shell}");
        for code in [&registration, &hook, &bare] {
            match shell {
                "bash" => {
                    accepted(&["shellcheck", "-s", "bash", "-o", "all"], code);
                    accepted(&["shfmt", "-d", "-i", "4", "-ln", "bash"], code);
                    accepted(&["bash", "-n"], code);
                    accepted(&["bash", "--norc", "-eu"], code);
                    accepted(&["bash", "--norc", "--posix", "-eu"], code);
                }
                "zsh" => {
                    accepted(&["zsh", "-n"], code);
                    accepted(&["zsh", "-feu"], code);
                }
                _ => {
                    accepted(&["fish", "-n"], code);
                    accepted(&["fish", "--no-config"], code);
                }
            }
        }
    }
}

#[test]
fn installed_stubs_complete_without_the_hook_and_go_again() {
    let pcocc = pcocc_tests::binary();
    let bin = pcocc.parent().unwrap().display().to_string();
    for shell in HOOKED {
        let home = jobs::home();
        let (rc, text) = match shell {
            "bash" => (
                ".bashrc",
                format!("PS1='> '\nPATH={bin}:$PATH\n. /usr/share/bash-completion/bash_completion"),
            ),
            "zsh" => (
                ".zshrc",
                format!(
                    "PROMPT='> '\nPATH={bin}:$PATH\nautoload -Uz compinit && compinit -u -d ~/.zcompdump"
                ),
            ),
            _ => (
                ".config/fish/config.fish",
                format!(
                    "set -g fish_greeting\nfunction fish_prompt; printf '> '; end\nset PATH {bin} $PATH\n"
                ),
            ),
        };
        let rc = home.home().join(rc);
        fs::create_dir_all(rc.parent().unwrap()).unwrap();
        fs::write(&rc, &text).unwrap();
        let said = home.run(&["completions", "install", "--shell", shell]);
        assert!(said.contains("Wrote /"), "{said}");
        // A second time changes nothing more.
        let before = fs::read(&rc).unwrap();
        home.run(&["completions", "install"]);
        assert_eq!(fs::read(&rc).unwrap(), before, "{shell}");
        let window = Window::start(&home.any(shell));
        window.prompt();
        window.complete("pcocc docker exp", "pcocc docker export");
        window.complete("pcocc docker env -j ", "pcocc docker env -j 7");
        drop(window);
        let said = home.run(&["completions", "uninstall"]);
        assert!(said.contains("Removed /"), "{said}");
        let left = fs::read_to_string(&rc).unwrap();
        assert_eq!(left.trim_end(), text.trim_end(), "{shell}");
        assert_eq!(home.run(&["completions", "uninstall"]), "Nothing to do.");
    }
    // What somebody else wrote stays.
    let home = jobs::home();
    let foreign = home.home().join(".config/fish/completions/pcocc.fish");
    fs::create_dir_all(foreign.parent().unwrap()).unwrap();
    fs::write(&foreign, "# mine\n").unwrap();
    home.try_run(&["completions", "install", "--shell", "fish"])
        .failed();
    home.run(&["completions", "uninstall"]);
    assert_eq!(fs::read_to_string(&foreign).unwrap(), "# mine\n");
}
