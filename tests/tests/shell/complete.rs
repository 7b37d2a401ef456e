//! TAB, in real shells in a real terminal, and what the shells send.

use std::fs;
use std::path::Path;
use std::process::Command;

use pcocc_tests::{Docker, Pcocc, Slurm, Window, run};
use pcocc_vm::job::State;

use crate::prompt::{HOOKED, rc};
use pcocc_tests::jobs;

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

/// The same, and the program's folder in PATH: the command has to be called by its name.
fn with_path(shell: &str) -> String {
    let path = format!(
        "PATH={}:$PATH",
        pcocc_tests::binary().parent().unwrap().display()
    );
    let path = match shell {
        "fish" => path.replace("PATH=", "set PATH ").replace(":$", " $"),
        _ => path,
    };
    format!("{}\n{path}", own(shell))
}

#[test]
fn tab_completes_what_is_meant() {
    for shell in HOOKED {
        let rc = rc(shell, &with_path(shell), "");
        let write = |file: &str, text: &str| {
            fs::write(jobs::conf(&rc.home).join(file), text).unwrap();
        };
        write(
            "templates.yaml",
            "small: {memory: 1G}\nsmooth: {}\nlarge: {inherits: small}\n",
        );
        write(
            "containers.yaml",
            "modules: {nvidia: {env: [X=1]}, mpi: {env: [Y=1]}}\n",
        );
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
        terminal.complete("pcocc docker stop ", "pcocc docker stop 7");
        terminal.complete(
            "pcocc docker alloc -p sandy --template la",
            "pcocc docker alloc -p sandy --template large",
        );
        terminal.complete(
            "pcocc docker batch --template=smo",
            "pcocc docker batch --template=smooth",
        );
        terminal.complete("pcocc run -M nv", "pcocc run -M nvidia");
        terminal.complete(
            "pcocc docker alloc -c 4 --no-s",
            "pcocc docker alloc -c 4 --no-snapshot",
        );
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

/// A repository for the images of TAB, as docker has them, and the daemon itself: what is asked takes its time
/// on a busy machine, and is there at a later TAB.
#[test]
fn tab_completes_images_of_docker() {
    let docker = Docker::shared();
    let bare = docker.build(
        "bb",
        "FROM scratch\nCOPY x /x\n",
        &[("x", Path::new("/etc/hostname"))],
    );
    let tagged = docker.name("org/app:1.2");
    docker.run(&["tag", &bare, &tagged]);
    for shell in HOOKED {
        let rc = rc(shell, &with_path(shell), "");
        let mut command = rc.command;
        command.env("DOCKER_HOST", docker.host());
        let terminal = Window::start(&command);
        terminal.prompt();
        let start = format!("pcocc docker import {}", docker.name("b"));
        terminal.complete_at_last(&start, &format!("pcocc docker import {bare}"));
        let start = format!("pcocc docker import {}", docker.name("org/app:1"));
        terminal.complete(&start, &format!("pcocc docker import {tagged}"));
        let start = format!(
            "pcocc image import docker-daemon:{}",
            docker.name("org/app:")
        );
        terminal.complete(
            &start,
            &format!("pcocc image import docker-daemon:{tagged}"),
        );
        // Docker's own command is asked by its own completion.
    }
    docker.run(&["rmi", &tagged]);
}

/// A daemon, or whoever pushes to it, calls images as it likes: what would be code is not put on the command line.
#[test]
fn tab_offers_no_code_of_a_daemon() {
    let folder = pcocc_tests::scratch();
    let socket = folder.path().join("d.sock");
    let names = [
        "zz$(touch${IFS}PWNED):1",
        "zz`touch PWNED`:1",
        "zz;touch PWNED:1",
        "zzgood:1",
    ];
    hostile_daemon(&socket, &names);
    for shell in HOOKED {
        let rc = rc(shell, &with_path(shell), "");
        let mut command = rc.command;
        command.env("DOCKER_HOST", format!("unix://{}", socket.display()));
        let terminal = Window::start(&command);
        terminal.prompt();
        terminal.complete_at_last("pcocc docker import zz", "pcocc docker import zzgood:1");
        terminal.key("C-u");
        terminal.enter("pcocc docker import zz\t x");
        let made = |folder: &Path| folder.join("PWNED").exists();
        assert!(!made(rc.home.home()) && !made(terminal.folder()), "{shell}");
    }
}

/// Answers like a daemon with images of these names.
fn hostile_daemon(socket: &Path, names: &[&str]) {
    use std::io::{BufRead as _, BufReader, Write as _};
    let images: Vec<_> = names
        .iter()
        .enumerate()
        .map(|(number, name)| {
            serde_json::json!({
                "Id": format!("sha256:{number:064}"), "ParentId": "", "RepoTags": [name],
                "RepoDigests": [], "Created": 1, "Size": 1, "SharedSize": 0, "Labels": {},
                "Containers": 0,
            })
        })
        .collect();
    let images = serde_json::json!(images).to_string();
    let listener = std::os::unix::net::UnixListener::bind(socket).unwrap();
    std::thread::spawn(move || {
        for mut stream in listener.incoming().flatten() {
            let mut head = BufReader::new(stream.try_clone().unwrap()).lines();
            let asked = head.next().and_then(Result::ok).unwrap_or_default();
            let body = if asked.contains("/_ping") {
                "OK"
            } else {
                &images
            };
            // Whoever asked may be gone.
            let _ = write!(
                stream,
                "HTTP/1.1 200 OK\r\nApi-Version: 1.41\r\nContent-Type: application/json\r\n\
                 Connection: close\r\nContent-Length: {}\r\n\r\n{body}",
                body.len()
            );
        }
    });
}

/// Partitions from a real Slurm.
#[test]
fn tab_completes_partitions_as_root() {
    let slurm = Slurm::start_with(&["PartitionName=skylake Nodes=n1 State=UP"]);
    for shell in HOOKED {
        let rc = rc(shell, &with_path(shell), "");
        let mut command = rc.command;
        command.env("SLURM_CONF", slurm.configuration());
        let terminal = Window::start(&command);
        terminal.prompt();
        for (typed, expected) in [
            (
                "pcocc docker alloc -c 4 -p sk",
                "pcocc docker alloc -c 4 -p skylake",
            ),
            (
                "pcocc docker batch --partition=sa",
                "pcocc docker batch --partition=sandy",
            ),
            (
                "pcocc docker batch -p sandy,sk",
                "pcocc docker batch -p sandy,skylake",
            ),
            ("pcocc run -n 2 -p sa", "pcocc run -n 2 -p sandy"),
            ("pcocc run --partition=sk", "pcocc run --partition=skylake"),
        ] {
            terminal.complete_at_last(typed, expected);
        }
    }
}

/// Accounts and QOS of the user, from a real slurmdbd.
#[test]
fn tab_completes_accounts_and_qos_as_root() {
    let slurm = Slurm::start_with_accounting();
    for words in [
        "add account physics",
        "add qos overnight",
        "add user root account=physics qos=normal,overnight",
        // Of others.
        "add account phonetics",
        "add qos overseas",
    ] {
        let words: Vec<&str> = ["-i"].into_iter().chain(words.split(' ')).collect();
        slurm.run("sacctmgr", &words);
    }
    for shell in HOOKED {
        let rc = rc(shell, &with_path(shell), "");
        let mut command = rc.command;
        command.env("SLURM_CONF", slurm.configuration());
        let terminal = Window::start(&command);
        terminal.prompt();
        for (typed, expected) in [
            ("pcocc docker alloc -A ph", "pcocc docker alloc -A physics"),
            (
                "pcocc docker batch -c 4 --account=ph",
                "pcocc docker batch -c 4 --account=physics",
            ),
            (
                "pcocc docker alloc -q over",
                "pcocc docker alloc -q overnight",
            ),
            (
                "pcocc docker batch --qos=over",
                "pcocc docker batch --qos=overnight",
            ),
        ] {
            terminal.complete_at_last(typed, expected);
        }
    }
}

#[test]
fn names_of_files_are_quoted_by_the_shell() {
    for (shell, expected) in [
        ("bash", "pcocc image import some\\ archive.tar"),
        ("zsh", "pcocc image import some\\ archive.tar"),
        ("fish", "pcocc image import some\\ archive.tar"),
    ] {
        let rc = rc(shell, &with_path(shell), "");
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
        &["pcocc", "docker", "alloc", "-x", ""],
        &["pcocc", "docker", "batch", "--template", ""],
        &["pcocc", "run", "-M", ""],
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
pub fn accepted(program: &[&str], code: &str) {
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
