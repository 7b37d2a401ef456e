//! The prompt's tag, pcocc-use and pcocc-leave, as a user sees them.

use std::fs;
use std::process::Command;
use std::time::Duration;

use pcocc_tests::{Pcocc, Window, binary, run, wait_until};
use pcocc_vm::job::State;

use pcocc_tests::jobs;

/// A shell with rc files of the user's own that end in the hook.
pub struct Rc {
    pub home: Pcocc,
    pub command: Command,
}

/// Makes a home for `shell` with job 7, and a command for that shell as an interactive one; `own` is what the user's
/// rc file does before the hook, and `after` what it does behind it.
pub fn rc(shell: &str, own: &str, after: &str) -> Rc {
    let home = jobs::home();
    let pcocc = binary().display().to_string();
    let (file, text) = match shell {
        "bash" => (
            ".bashrc",
            format!("PS1='[$?] > '\n{own}\neval \"$({pcocc} hook bash)\"\n{after}\n"),
        ),
        "zsh" => (
            ".zshrc",
            format!("PROMPT='[%?] > '\n{own}\neval \"$({pcocc} hook zsh)\"\n{after}\n"),
        ),
        "fish" => (
            ".config/fish/config.fish",
            format!(
                "set -g fish_greeting\nfunction fish_prompt\n  printf '[%s] > ' \"$status\"\nend\n{own}\n\
                 {pcocc} hook fish | source\n{after}\n"
            ),
        ),
        other => panic!("no rc file of {other} is known"),
    };
    let file = home.home().join(file);
    fs::create_dir_all(file.parent().unwrap()).unwrap();
    fs::write(file, text).unwrap();
    let command = home.any(shell);
    Rc { home, command }
}

/// The shells that have a hook.
pub const HOOKED: [&str; 3] = ["bash", "zsh", "fish"];

#[test]
fn tag_comes_changes_and_goes() {
    for shell in HOOKED {
        let rc = rc(shell, "", "");
        let conf = jobs::conf(&rc.home);
        let terminal = Window::start(&rc.command);
        assert_eq!(terminal.prompt(), "[0] >", "{shell}");
        let prompt = |line: &str| terminal.enter(line).1;
        assert_eq!(prompt("pcocc-use 7"), "(pcocc/7) [0] >", "{shell}");
        assert_eq!(prompt("false"), "(pcocc/7) [1] >", "{shell}");
        assert_eq!(
            terminal.enter("echo $PCOCC_PROMPT").0.trim(),
            "(pcocc/7)",
            "{shell}"
        );
        assert_eq!(
            terminal.enter("env | grep ^DOCKER_HOST").0,
            "DOCKER_HOST=tcp://127.0.0.7:2376"
        );
        jobs::write(&conf, 7, State::Ready, Some(9 * 60 + 50));
        assert_eq!(prompt("false"), "(pcocc/7 9m) [1] >", "{shell}");
        jobs::write(&conf, 7, State::Ready, Some(50));
        assert!(prompt("true").contains("s) [0]"), "{shell}");
        // The hook once more changes nothing.
        let again = match shell {
            "fish" => format!("{} hook fish | source", binary().display()),
            _ => format!("eval \"$({} hook {shell})\"", binary().display()),
        };
        jobs::write(&conf, 7, State::Ready, Some(3600));
        assert_eq!(prompt(&again), "(pcocc/7) [0] >", "{shell}");
        // The job ends: said once, and docker is not changed under anybody's hands.
        jobs::write(&conf, 7, State::Ended, None);
        let (said, prompt) = terminal.enter("false");
        assert_eq!(
            said, "pcocc: job 7 has ended, and its docker daemon with it; leave with pcocc-leave",
            "{shell}"
        );
        assert_eq!(prompt, "(pcocc/7 ended) [1] >", "{shell}");
        let (said, prompt) = terminal.enter("true");
        assert_eq!((&*said, &*prompt), ("", "(pcocc/7 ended) [0] >"), "{shell}");
        fs::remove_dir_all(conf.join("job_7")).unwrap();
        assert_eq!(terminal.enter("true").1, "(pcocc/7 ended) [0] >", "{shell}");
        assert_eq!(terminal.enter("pcocc-leave").1, "[0] >", "{shell}");
        let left = terminal
            .enter("env | grep -e DOCKER_TLS -e PCOCC_JOBID -e PCOCC_PROMPT")
            .0;
        assert_eq!(left, "", "{shell}");
        // A job that is not there is said so, and nothing is set.
        let (said, prompt) = terminal.enter("pcocc-use 99");
        assert!(
            said.contains("there is no job 99") && prompt.starts_with('['),
            "{shell}: {said}"
        );
    }
}

#[test]
fn who_builds_a_prompt_gets_the_tag_only() {
    for shell in HOOKED {
        let export = if shell == "fish" {
            "set -gx PCOCC_DISABLE_PROMPT 1"
        } else {
            "export PCOCC_DISABLE_PROMPT=1"
        };
        let rc = rc(shell, export, "");
        let terminal = Window::start(&rc.command);
        terminal.prompt();
        assert_eq!(terminal.enter("pcocc-use").1, "[0] >", "{shell}");
        assert_eq!(
            terminal.enter("echo \"$PCOCC_PROMPT|\"").0,
            "(pcocc/7) |",
            "{shell}"
        );
        // It is there at once, not only after the next prompt.
        let line = "pcocc-leave; pcocc-use 7; echo \"$PCOCC_PROMPT|\"; pcocc-leave";
        assert_eq!(terminal.enter(line).0, "(pcocc/7) |", "{shell}");
    }
}

/// Whether the bash that is tested, the one that PATH finds first, runs all elements of PROMPT_COMMAND: 5.1 and later do.
fn bash_has_lists() -> bool {
    let test = "((BASH_VERSINFO[0] * 100 + BASH_VERSINFO[1] >= 501))";
    run(Command::new("bash").args(["-c", test]))
        .status
        .success()
}

#[test]
fn bash_keeps_what_others_do_before_the_prompt() {
    for (own, after, expected) in [
        ("PROMPT_COMMAND='seen=$?;'", "", "(pcocc/7) [3] >"),
        (
            "PROMPT_COMMAND='seen=$? # a comment'",
            "",
            "(pcocc/7) [3] >",
        ),
        ("PROMPT_COMMAND=('seen=$?' true)", "", "(pcocc/7) [3] >"),
        ("declare -a PROMPT_COMMAND=()", "", "(pcocc/7) [3] >"),
        // A prompt that is made anew each time, before the hook or after it.
        (
            "p() { PS1=\"<$?> > \"; }; PROMPT_COMMAND=p",
            "",
            "(pcocc/7) <3> >",
        ),
        (
            "",
            "p() { PS1=\"<$?> > \"; }; PROMPT_COMMAND+=$'\\n'p",
            "(pcocc/7) <3> >",
        ),
        (
            "PROMPT_COMMAND=(true)",
            "p() { PS1=\"<new> > \"; }; PROMPT_COMMAND+=(p)",
            "(pcocc/7) <new> >",
        ),
        // As starship does it: takes the others in, and evaluates them itself.
        (
            "",
            "theirs=$PROMPT_COMMAND; p() { local s=$?; eval \"$theirs\"; PS1=\"<$s> > \"; }; PROMPT_COMMAND=p",
            "(pcocc/7) <3> >",
        ),
        // As virtualenv does it.
        ("", "PS1=\"(venv) $PS1\"", "(pcocc/7) (venv) [3] >"),
        ("shopt -u promptvars; PS1='- > '", "", "(pcocc/7) - >"),
        ("set -u", "", "(pcocc/7) [3] >"),
        ("set -x 2>/dev/null; set +x", "", "(pcocc/7) [3] >"),
        ("readonly PROMPT_COMMAND=", "", "[3] >"),
    ] {
        if after.contains("PROMPT_COMMAND+=(") && !bash_has_lists() {
            // There the second element never runs, whoever put it there.
            continue;
        }
        let rc = rc("bash", own, after);
        let terminal = Window::start(&rc.command);
        terminal.prompt();
        terminal.enter("pcocc-use 7");
        // A second prompt settles who is last.
        terminal.enter("true");
        let (said, prompt) = terminal.enter("(exit 3)");
        assert_eq!((&*said, &*prompt), ("", expected), "{own:?} {after:?}");
        let (said, _) = terminal.enter("(exit 4) | (exit 5)");
        assert_eq!(said, "");
        terminal.text("echo \"status $? ${PIPESTATUS[*]}\"");
        terminal.key("Enter");
        // Expanded one after the other: the first is that of the pipeline, and so is the second.
        terminal.wait("status and pipe status are shown", |screen| {
            screen.contains("\nstatus 5 4 5\n")
        });
        if own.contains("seen") {
            terminal.enter("(exit 6)");
            terminal.text("echo \"seen $seen\"");
            terminal.key("Enter");
            terminal.wait("others saw the status", |screen| {
                screen.contains("\nseen 6\n")
            });
        }
        assert_eq!(
            terminal
                .enter("pcocc-leave; unset PROMPT_COMMAND; PS1='gone > '")
                .1,
            "gone >"
        );
    }
}

#[test]
fn bash_with_errexit_survives_its_prompts() {
    let rc = rc("bash", "", "set -e");
    let terminal = Window::start(&rc.command);
    terminal.prompt();
    assert_eq!(terminal.enter("pcocc-use 7").1, "(pcocc/7) [0] >");
    assert_eq!(terminal.enter("! true").1, "(pcocc/7) [1] >");
    assert_eq!(terminal.enter("! true").1, "(pcocc/7) [1] >");
    jobs::write(&jobs::conf(&rc.home), 7, State::Ended, None);
    assert_eq!(terminal.enter("! true").1, "(pcocc/7 ended) [1] >");
    assert_eq!(terminal.enter("set -u").1, "(pcocc/7 ended) [0] >");
    assert_eq!(terminal.enter("pcocc-leave").1, "[0] >");
}

#[test]
fn zsh_with_errexit_and_nounset_survives_its_prompts() {
    let rc = rc("zsh", "", "setopt err_exit no_unset");
    let terminal = Window::start(&rc.command);
    terminal.prompt();
    assert_eq!(terminal.enter("pcocc-use 7").1, "(pcocc/7) [0] >");
    assert_eq!(terminal.enter("! true").1, "(pcocc/7) [1] >");
    jobs::write(&jobs::conf(&rc.home), 7, State::Ended, None);
    assert_eq!(terminal.enter("! true").1, "(pcocc/7 ended) [1] >");
    assert_eq!(terminal.enter("pcocc-leave").1, "[0] >");
}

#[test]
fn zsh_keeps_status_options_and_other_hooks() {
    for (own, after, expected) in [
        ("setopt nounset", "", "(pcocc/7) [3] >"),
        ("setopt ksh_arrays sh_word_split", "", "(pcocc/7) [3] >"),
        (
            "p() { PROMPT=\"<$?> > \" }; precmd_functions=(p)",
            "",
            "(pcocc/7) <3> >",
        ),
        (
            "",
            "p() { PROMPT=\"<$?> > \" }; precmd_functions+=(p)",
            "(pcocc/7) <3> >",
        ),
        (
            "setopt prompt_subst; PROMPT='$(echo sub) > '",
            "",
            "(pcocc/7) sub >",
        ),
        ("precmd() { seen=$? }", "", "(pcocc/7) [3] >"),
    ] {
        let rc = rc("zsh", own, after);
        let terminal = Window::start(&rc.command);
        terminal.prompt();
        terminal.enter("pcocc-use 7");
        terminal.enter("true");
        let (said, prompt) = terminal.enter("(exit 3)");
        assert_eq!((&*said, &*prompt), ("", expected), "{own:?} {after:?}");
        terminal.enter("(exit 4) | (exit 5)");
        terminal.text("echo \"status $? $pipestatus\"");
        terminal.key("Enter");
        let pipe = if own.contains("ksh_arrays") {
            "\nstatus 5 4\n"
        } else {
            "\nstatus 5 4 5\n"
        };
        terminal.wait("status and pipe status are shown", |screen| {
            screen.contains(pipe)
        });
    }
}

#[test]
fn fish_shows_prompts_of_others_whole() {
    for (own, after, expected) in [
        (
            "function fish_prompt; printf '[%s] first\\n> ' \"$pipestatus\"; end",
            "",
            "(pcocc/7) [4 5] first",
        ),
        // As virtualenv does it, before and after the hook.
        (
            "functions -c fish_prompt old; function fish_prompt; set -l s $pipestatus; printf '(venv) '; old; end",
            "",
            "(pcocc/7) (venv) [0] >",
        ),
        (
            "",
            "function fish_prompt; printf '<%s> > ' \"$status\"; end",
            "(pcocc/7) <5> >",
        ),
    ] {
        let rc = rc("fish", own, after);
        let terminal = Window::start(&rc.command);
        terminal.prompt();
        terminal.enter("pcocc-use 7");
        let (said, prompt) = terminal.enter("sh -c 'exit 4' | sh -c 'exit 5'");
        let shown = if said.is_empty() { prompt } else { said };
        assert_eq!(shown, expected, "{own:?} {after:?}");
    }
    // Wrapped once more by another and unwrapped again.
    let rc = rc("fish", "", "");
    let terminal = Window::start(&rc.command);
    terminal.prompt();
    terminal.enter("pcocc-use 7");
    terminal
        .enter("functions -c fish_prompt old; function fish_prompt; printf '(venv) '; old; end");
    assert_eq!(terminal.enter("true").1, "(pcocc/7) (venv) [0] >");
    terminal.enter("functions -e fish_prompt; functions -c old fish_prompt; functions -e old");
    assert_eq!(terminal.enter("true").1, "(pcocc/7) [0] >");
}

#[test]
fn hook_works_inside_screen_and_without_any_path() {
    for shell in HOOKED {
        let path = if shell == "fish" {
            "set -gx PATH /nowhere"
        } else {
            "PATH=/nowhere"
        };
        let rc = rc(shell, "", path);
        jobs::write(&jobs::conf(&rc.home), 7, State::Ready, Some(9 * 60 + 50));
        let mut screen = rc.home.any("screen");
        let sockets = rc.home.home().join("screen");
        run(Command::new("mkdir").args(["-m", "700"]).arg(&sockets)).ok();
        let program = format!("/usr/bin/{shell}");
        screen
            .env("SCREENDIR", &sockets)
            .env("SHELL", &program)
            .args(["-c", "/dev/null", &program]);
        let terminal = Window::start(&screen);
        terminal.prompt();
        let (said, prompt) = terminal.enter("pcocc-use 7");
        assert_eq!((&*said, &*prompt), ("", "(pcocc/7 9m) [0] >"), "{shell}");
        assert_eq!(terminal.enter("pcocc-leave").1, "[0] >", "{shell}");
        // Screen stays behind when its terminal goes.
        terminal.text("exit");
        terminal.key("Enter");
        wait_until("screen is gone", Duration::from_secs(20), || {
            terminal.is_over()
        });
    }
}

#[test]
fn scripts_get_the_functions_and_no_prompt() {
    let home = jobs::home();
    for (shell, code) in [
        (
            "bash",
            "eval \"$(@ hook bash)\"; pcocc-use 7; echo $DOCKER_HOST; pcocc-leave; echo ${DOCKER_TLS_VERIFY-none} ${PROMPT_COMMAND-none}",
        ),
        (
            "zsh",
            "eval \"$(@ hook zsh)\"; pcocc-use 7; echo $DOCKER_HOST; pcocc-leave; echo ${DOCKER_TLS_VERIFY-none} ${precmd_functions-none}",
        ),
        (
            "fish",
            "@ hook fish | source; pcocc-use 7; echo $DOCKER_HOST; pcocc-leave; echo none \"none$DOCKER_TLS_VERIFY\"",
        ),
    ] {
        let code = code.replace('@', &binary().display().to_string());
        let said = home.run_any(shell, &["-c", &code]);
        assert_eq!(said, "tcp://127.0.0.7:2376\nnone none", "{shell}");
    }
}
