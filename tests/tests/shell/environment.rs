//! `pcocc docker env`, read by every shell it is for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::ffi::OsStringExt as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use pcocc_tests::{Outcome, Pcocc, binary, run, wait_until};
use pcocc_vm::job::State;
use pcocc_vm::lifeline;

use crate::complete::accepted;
use pcocc_tests::jobs;

/// A shell, and how it reads what `@` prints, as the manual or the help says.
const SHELLS: &[(&[&str], &str)] = &[
    (&["dash", "-c"], "eval $(@)"),
    (&["bash", "-c"], "eval $(@)"),
    (&["bash", "-euc"], "eval \"$(@)\""),
    (&["zsh", "-fc"], "eval $(@)"),
    (&["fish", "--no-config", "-c"], "@ | source"),
    (&["tcsh", "-fc"], "eval `@`"),
];

type Environment = BTreeMap<Vec<u8>, Vec<u8>>;

/// Runs a script in a shell; `@ARGUMENTS;` in it stands for reading what `pcocc docker env ARGUMENTS` prints, and
/// `?NAME;` for writing the environment into a file. Gives the environments by name.
fn environments(
    command: &mut Command,
    shell: (&[&str], &str),
    script: &str,
) -> BTreeMap<String, Environment> {
    let folder = tempfile::tempdir().unwrap();
    let mut code = String::new();
    for step in script.split_terminator(';').map(str::trim) {
        code += &match (step.strip_prefix('@'), step.strip_prefix('?')) {
            (Some(arguments), _) => {
                let call = format!("{} docker env {arguments}", binary().display());
                shell.1.replace('@', &call)
            }
            (_, Some(name)) => format!("/usr/bin/env -0 > {}", folder.path().join(name).display()),
            _ => step.to_owned(),
        };
        code.push('\n');
    }
    command.args(&shell.0[1..]).arg(&code);
    let outcome = run(command);
    outcome.ok();
    assert_eq!(outcome.stderr, "", "{outcome}");
    let mut found = BTreeMap::new();
    for entry in fs::read_dir(folder.path()).unwrap() {
        let entry = entry.unwrap();
        let text = fs::read(entry.path()).unwrap();
        let pairs = text.split(|byte| *byte == 0).filter_map(|pair| {
            let at = pair.iter().position(|byte| *byte == b'=')?;
            Some((pair[..at].to_vec(), pair[at + 1..].to_vec()))
        });
        // What shells change by themselves.
        let own: [&[u8]; 4] = [b"_", b"SHLVL", b"OLDPWD", b"PWD"];
        let pairs = pairs.filter(|(name, _)| !own.contains(&name.as_slice()));
        found.insert(entry.file_name().into_string().unwrap(), pairs.collect());
    }
    found
}

#[test]
fn every_shell_goes_to_a_job_and_back() {
    for shell in SHELLS {
        for (name, value) in [
            ("DOCKER_HOST", None),
            ("DOCKER_HOST", Some("unix:///it's $mine *")),
            ("DOCKER_CONTEXT", Some("work")),
        ] {
            let home = Pcocc::new();
            // A configuration folder as nasty as can be.
            let nasty = OsString::from_vec(b"it's  a \"$HOME\" `x` \\ *\n\xff!".to_vec());
            let conf = home.home().join(nasty);
            jobs::write(&conf, 7, State::Ready, None);
            jobs::write(&conf, 8, State::Ready, None);
            let mut command = home.any(shell.0[0]);
            command
                .env("PCOCC_USER_CONF_DIR", &conf)
                .env("https_proxy", "http://proxy");
            command.env_remove("DOCKER_HOST");
            if let Some(value) = value {
                command.env(name, value);
            }
            let script =
                "?before; @-j 7; ?first; @-j 8; ?second; @--unset; ?after; @--unset; ?again;";
            let found = environments(&mut command, *shell, script);
            let get = |when: &str, name: &str| found[when].get(name.as_bytes()).cloned();
            let text = |text: &str| Some(text.as_bytes().to_vec());
            assert_eq!(
                get("first", "DOCKER_HOST"),
                text("tcp://127.0.0.7:2376"),
                "{shell:?}"
            );
            assert_eq!(
                get("second", "DOCKER_HOST"),
                text("tcp://127.0.0.8:2376"),
                "{shell:?}"
            );
            assert_eq!(
                get("second", "DOCKER_MACHINE_NAME"),
                text("pcocc/8"),
                "{shell:?}"
            );
            assert_eq!(get("second", "PCOCC_JOBID"), text("8"), "{shell:?}");
            assert_eq!(get("second", "no_proxy"), text("127.0.0.8"), "{shell:?}");
            assert_eq!(get("second", "DOCKER_CONTEXT"), None, "{shell:?}");
            let certificates = conf
                .join("job_8/vmcerts/client")
                .into_os_string()
                .into_vec();
            assert_eq!(
                get("second", "DOCKER_CERT_PATH"),
                Some(certificates),
                "{shell:?}"
            );
            assert_eq!(found["after"], found["before"], "{shell:?}");
            assert_eq!(found["again"], found["before"], "{shell:?}");
        }
    }
}

#[test]
fn leaving_needs_no_job_and_no_configuration() {
    let home = jobs::home();
    let conf = jobs::conf(&home).display().to_string();
    for shell in SHELLS {
        jobs::write(&jobs::conf(&home), 7, State::Ready, None);
        let script = format!(
            "?before; @; rm -rf {conf}; echo broken > {conf}; @--unset; ?after; rm {conf};"
        );
        let found = environments(&mut home.any(shell.0[0]), *shell, &script);
        assert_eq!(found["after"], found["before"], "{shell:?}");
    }
}

#[test]
fn failures_print_nothing_to_evaluate() {
    let home = jobs::home();
    let failed = |arguments: &[&str], word: &str| -> Outcome {
        let outcome = home.try_run(&[&["docker", "env"], arguments].concat());
        assert!(outcome.failed().contains(word), "{outcome}");
        assert_eq!(outcome.stdout, "", "{outcome}");
        outcome
    };
    failed(&["-j", "8"], "there is no job 8");
    failed(&["-j", "training"], "training");
    jobs::write(&jobs::conf(&home), 8, State::Ended, None);
    failed(&["-j", "8"], "job 8 has ended");
    home.run(&["docker", "env"]);
    jobs::write(&jobs::conf(&home), 9, State::Ready, None);
    failed(&[], "9");
    let usage = failed(&["--shell", "elvish"], "possible values");
    assert_eq!(usage.status.code(), Some(2));
}

#[test]
fn env_waits_until_docker_answers() {
    let home = jobs::home();
    let conf = jobs::conf(&home);
    jobs::write(&conf, 7, State::Booting, None);
    let outcome = home.try_run(&["docker", "env", "-T", "1"]);
    assert_eq!(outcome.status.code(), Some(124), "{outcome}");
    assert!(outcome.stderr.contains("within 1 seconds"), "{outcome}");
    assert_eq!(outcome.stdout, "", "{outcome}");

    for (becomes, code) in [(State::Ready, 0), (State::Failed, 1)] {
        jobs::write(&conf, 7, State::Queued, None);
        let mut command = home.command(&["docker", "env", "--shell", "sh"]);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap();
        let mut words = BufReader::new(child.stderr.take().unwrap());
        let mut line = String::new();
        words.read_line(&mut line).unwrap();
        assert_eq!(line, "Waiting for docker VM to start ...\n");
        jobs::write(&conf, 7, becomes, None);
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(code));
        let said = String::from_utf8_lossy(&output.stdout);
        match becomes {
            State::Ready => assert!(said.contains("DOCKER_HOST=tcp://127.0.0.7:2376;")),
            _ => assert_eq!(said, ""),
        }
    }
}

#[test]
fn code_is_clean_in_every_state() {
    let home = jobs::home();
    let nasty = home.home().join("it's a $folder *");
    jobs::write(&nasty, 7, State::Ready, None);
    let plain = jobs::conf(&home);
    for conf in [&plain, &nasty] {
        for proxy in ["", "http://proxy"] {
            for before in ["", "unix:///my docker"] {
                for shell in ["sh", "bash"] {
                    let call = |arguments: &[&str], more: &[(String, String)]| {
                        let words = [&["docker", "env", "--shell", shell], arguments].concat();
                        let mut command = home.command(&words);
                        command
                            .env("PCOCC_USER_CONF_DIR", conf)
                            .env("https_proxy", proxy)
                            .env("DOCKER_HOST", before)
                            .envs(more.iter().cloned());
                        run(&mut command).ok().to_owned()
                    };
                    let set = call(&[], &[]);
                    // What it sets is what leaving starts from.
                    let json = call_json(&home, conf, proxy, before);
                    for code in [set, call(&["--unset"], &json)] {
                        // A dollar sign that is quoted is meant to be.
                        let program = ["shellcheck", "-s", shell, "-o", "all", "-e", "SC2016"];
                        accepted(&program, &(code + "\n"));
                    }
                }
            }
        }
    }
}

/// What activating sets, as pairs.
fn call_json(home: &Pcocc, conf: &Path, proxy: &str, before: &str) -> Vec<(String, String)> {
    let mut command = home.command(&["docker", "env", "--format", "json"]);
    command
        .env("PCOCC_USER_CONF_DIR", conf)
        .env("https_proxy", proxy)
        .env("DOCKER_HOST", before);
    let text = run(&mut command).ok().to_owned();
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    let set = document["set"].as_object().unwrap();
    set.iter()
        .map(|(name, value)| (name.clone(), value.as_str().unwrap().to_owned()))
        .collect()
}

/// The contexts in docker's store of this home.
fn contexts(home: &Pcocc) -> String {
    let words = ["context", "ls", "--format", "{{.Name}} {{.DockerEndpoint}}"];
    home.run_any("docker", &words)
}

/// Puts certificates into a job's folder: docker wants to see them before it stores them.
fn certify(home: &Pcocc, job: u32) {
    let client = jobs::conf(home).join(format!("job_{job}/vmcerts/client"));
    run(Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout",
        ])
        .arg(client.join("key.pem"))
        .arg("-out")
        .arg(client.join("cert.pem")))
    .ok();
    fs::copy(client.join("cert.pem"), client.join("ca.pem")).unwrap();
}

#[test]
fn contexts_go_with_their_jobs() {
    let home = jobs::home();
    let config = home.home().join("dot-docker");
    let home = home.with_variable("DOCKER_CONFIG", &config.display().to_string());
    let conf = jobs::conf(&home);
    fs::write(conf.join("batch.yaml"), "type: local\n").unwrap();
    let context = |job: u32| {
        jobs::write(&conf, job, State::Ready, None);
        certify(&home, job);
        let name = home.run(&["docker", "env", "--context", "-j", &job.to_string()]);
        assert_eq!(name, format!("pcocc-{job}"));
        assert!(contexts(&home).contains(&format!("{name} ")));
    };

    // The launcher ends the job, here because it has no image to start a VM from.
    context(7);
    let mut launcher = home.command(&["docker", "launch"]);
    let (mut launcher, _) = lifeline::spawn(&mut launcher, "{\"job\": \"7\"}\n").unwrap();
    assert!(!launcher.wait().unwrap().success());
    let state = fs::read_to_string(conf.join("job_7/state")).unwrap();
    assert!(state.starts_with("failed"), "{state}");
    let list = contexts(&home);
    assert!(!list.contains("pcocc-7"), "{list}");

    // Nobody was left to do so: the next command that asks for a VM does.
    context(8);
    jobs::write(&conf, 8, State::Ended, None);
    assert!(contexts(&home).contains("pcocc-8 "));
    home.try_run(&["docker", "batch"]);
    let list = contexts(&home);
    assert!(
        !list.lines().any(|line| line.starts_with("pcocc-")),
        "{list}"
    );
    let state = conf.join("job_9/state");
    wait_until("the launcher is gone", Duration::from_secs(60), || {
        fs::read_to_string(&state).is_ok_and(|state| state.starts_with("failed"))
    });
}

#[test]
fn contexts_are_made_and_pruned_but_never_selected() {
    let home = jobs::home();
    let config = home.home().join("dot-docker");
    let home = home.with_variable("DOCKER_CONFIG", &config.display().to_string());
    certify(&home, 7);
    home.run_any(
        "docker",
        &[
            "context",
            "create",
            "mine",
            "--docker",
            "host=tcp://10.0.0.1:1",
        ],
    );
    for _ in 0..2 {
        assert_eq!(home.run(&["docker", "env", "--context"]), "pcocc-7");
        let list = contexts(&home);
        assert!(list.contains("pcocc-7 tcp://127.0.0.7:2376"), "{list}");
    }
    assert!(
        !config.join("config.json").exists(),
        "a context was selected"
    );
    // Its folder is taken away by hand, and with it what is known of its context.
    fs::remove_dir_all(jobs::conf(&home).join("job_7")).unwrap();
    jobs::write(&jobs::conf(&home), 8, State::Ready, None);
    certify(&home, 8);
    assert_eq!(home.run(&["docker", "env", "--context"]), "pcocc-8");
    let list = contexts(&home);
    assert!(
        list.contains("pcocc-8 ") && list.contains("mine ") && !list.contains("pcocc-7"),
        "{list}"
    );
}

#[test]
fn json_says_the_same() {
    let home = jobs::home();
    let text = home.run(&["docker", "env", "--format", "json"]);
    let document: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(document["job"], "7");
    assert_eq!(document["set"]["DOCKER_HOST"], "tcp://127.0.0.7:2376");
    let none = home.run(&["docker", "env", "--unset", "--format", "json"]);
    let none: serde_json::Value = serde_json::from_str(&none).unwrap();
    assert_eq!(
        none,
        serde_json::json!({"job": null, "set": {}, "unset": []})
    );
}
