//! `pcocc docker env`, read by every shell it is for.

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::os::unix::ffi::OsStringExt as _;
use std::process::Command;

use pcocc_tests::{Outcome, Pcocc, binary, run};
use pcocc_vm::job::State;

use crate::jobs;

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
fn contexts_are_made_and_pruned_but_never_selected() {
    let home = jobs::home();
    let config = home.home().join("dot-docker");
    let home = home.with_variable("DOCKER_CONFIG", &config.display().to_string());
    // Docker wants to see certificates before it stores them.
    let client = jobs::conf(&home).join("job_7/vmcerts/client");
    run(Command::new("openssl")
        .args([
            "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-subj", "/CN=x", "-keyout",
        ])
        .arg(client.join("key.pem"))
        .arg("-out")
        .arg(client.join("cert.pem")))
    .ok();
    fs::copy(client.join("cert.pem"), client.join("ca.pem")).unwrap();
    let program = "docker";
    let current = || {
        home.run_any(
            program,
            &["context", "ls", "--format", "{{.Name}} {{.DockerEndpoint}}"],
        )
    };
    home.run_any(
        program,
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
        assert!(
            current().contains("pcocc-7 tcp://127.0.0.7:2376"),
            "{}",
            current()
        );
    }
    assert!(
        !config.join("config.json").exists(),
        "a context was selected"
    );
    jobs::write(&jobs::conf(&home), 7, State::Ended, None);
    let other = jobs::conf(&home).join("job_8/vmcerts/client");
    jobs::write(&jobs::conf(&home), 8, State::Ready, None);
    for name in ["ca.pem", "cert.pem", "key.pem"] {
        fs::copy(client.join(name), other.join(name)).unwrap();
    }
    assert_eq!(home.run(&["docker", "env", "--context"]), "pcocc-8");
    let list = current();
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
