//! Which docker daemon is meant: docker's variables, docker's contexts, docker's own sockets.

mod sandbox;

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::os::unix::net::UnixListener;

use pcocc_layers::Digest;
use sandbox::Sandbox;

/// Makes a docker context whose daemon is at `host`.
fn context(sandbox: &Sandbox, name: &str, host: &str) {
    let id = Digest::of(name.as_bytes()).hex();
    let meta = serde_json::json!({"Name": name, "Endpoints": {"docker": {"Host": host}}});
    sandbox.write(
        &format!(".docker/contexts/meta/{id}/meta.json"),
        meta.to_string(),
    );
}

/// What an import says when it runs with these variables and without DOCKER_HOST.
fn import(sandbox: &Sandbox, variables: &[(&str, &str)]) -> String {
    let mut command = sandbox.command(&["docker", "import", "a", "b"]);
    command
        .env_remove("DOCKER_HOST")
        .envs(variables.iter().copied());
    let output = command.output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    String::from_utf8(output.stderr).unwrap()
}

#[test]
fn the_daemon_is_the_one_that_dockers_own_command_would_use() {
    let sandbox = Sandbox::new();
    context(&sandbox, "mine", "unix:///mine.sock");
    context(&sandbox, "other", "unix:///other.sock");
    sandbox.write(".docker/config.json", r#"{"currentContext": "mine"}"#);
    let host = ("DOCKER_HOST", "unix:///host.sock");
    let other = ("DOCKER_CONTEXT", "other");
    for (variables, endpoint) in [
        (&[host, other] as &[(&str, &str)], "unix:///host.sock"),
        (&[other], "unix:///other.sock"),
        (&[("DOCKER_CONTEXT", "")], "unix:///mine.sock"),
        (
            &[("DOCKER_CONTEXT", "default")],
            "unix:///var/run/docker.sock",
        ),
        (&[], "unix:///mine.sock"),
    ] {
        let said = import(&sandbox, variables);
        assert!(
            said.contains(&format!("{endpoint} ")),
            "{variables:?}: {said}"
        );
    }
    let said = import(&sandbox, &[("DOCKER_CONTEXT", "none")]);
    assert!(
        said.contains("\"none\"") && said.contains("docker context ls"),
        "{said}"
    );
}

#[test]
fn rootless_docker_is_found_where_no_other_is() {
    let sandbox = Sandbox::new();
    let runtime = sandbox.home().join("run");
    fs::create_dir(&runtime).unwrap();
    let _socket = UnixListener::bind(runtime.join("docker.sock")).unwrap();
    let said = import(&sandbox, &[("XDG_RUNTIME_DIR", runtime.to_str().unwrap())]);
    // A machine of a developer may have docker's own socket.
    let expected = match std::path::Path::new("/var/run/docker.sock").exists() {
        true => "unix:///var/run/docker.sock".to_owned(),
        false => format!("unix://{}/docker.sock", runtime.display()),
    };
    assert!(said.contains(&expected), "{said}");
}

#[test]
fn what_ssh_says_is_told() {
    let sandbox = Sandbox::new();
    let programs = sandbox.home().join("bin");
    sandbox.write(
        "bin/ssh",
        "#!/bin/sh\necho \"$*\" >&2\necho 'Host key verification failed.' >&2\nexit 255\n",
    );
    fs::set_permissions(programs.join("ssh"), fs::Permissions::from_mode(0o755)).unwrap();
    let path = format!("{}:/usr/bin:/bin", programs.display());
    let said = import(
        &sandbox,
        &[("DOCKER_HOST", "ssh://me@there:2222"), ("PATH", &path)],
    );
    assert!(said.contains("Host key verification failed."), "{said}");
    assert!(
        said.contains("-lme -p2222 -- there docker system dial-stdio"),
        "{said}"
    );
    let nothing = import(
        &sandbox,
        &[("DOCKER_HOST", "ssh://there"), ("PATH", "/nowhere")],
    );
    assert!(nothing.contains("ssh, which is not there"), "{nothing}");
}
