//! A VM without a shell: `pcocc docker batch`, and the verbs that look at it, use it and end it.

use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use pcocc_tests::{Pcocc, Terminal, run, wait_until};
use rustix::process::Signal;

use crate::home::{BUSYBOX, SOON, Stop, assert_nothing_left, end, home, left, quoted, signal};

#[test]
fn a_vm_in_the_background_and_its_verbs() {
    let pcocc = home(Pcocc::new(), "local", "");
    assert_eq!(
        pcocc.run(&["docker", "batch", "-J", "work", "-t", "60"]),
        "Submitted batch job 1"
    );
    let _stop = Stop(&pcocc);
    // What `logs -f` shows comes as it is written, until the job is over.
    let followed = fs::File::create(pcocc.home().join("followed")).unwrap();
    let mut follow = pcocc.command(&["docker", "logs", "-f"]);
    let mut follow = follow.stdout(followed).spawn().unwrap();
    let script = format!("{BUSYBOX} docker info -f '{{{{.Name}}}}'");
    let script = format!("bash -c {}", quoted(&script));
    let name = pcocc.run(&["docker", "shell", "-J", "work", "-E", &script]);
    assert_eq!(name, "docker-1");
    let list: serde_json::Value =
        serde_json::from_str(&pcocc.run(&["docker", "ls", "--format", "json"])).unwrap();
    assert_eq!(list[0]["state"], "ready");
    assert_eq!(list[0]["name"], "work");
    assert!(list[0]["deadline"].is_string());
    assert!(
        pcocc
            .run(&["docker", "status"])
            .contains("state       ready")
    );

    // The manual's `eval $(pcocc docker env -j …)`.
    let program = pcocc_tests::binary();
    let text = format!(
        "eval $({} docker env -j 1) && docker images -q bb | wc -l && echo $PCOCC_JOBID",
        program.display()
    );
    assert_eq!(pcocc.run_any("sh", &["-c", &text]), "1\n1");
    assert_only_its_own_certificates_open(&pcocc, list[0]["endpoint"].as_str().unwrap());

    // The other verbs take the job's daemon by themselves.
    let by_itself = |arguments: &[&str]| {
        let mut command = pcocc.command(arguments);
        command.env_remove("DOCKER_HOST");
        command
    };
    run(&mut by_itself(&["docker", "import", "bb", "kept"])).ok();
    run(&mut by_itself(&["docker", "export", "kept", "again"])).ok();
    let point = pcocc.home().join("mnt");
    run(&mut by_itself(&[
        "docker",
        "mount",
        &point.to_string_lossy(),
    ]))
    .ok();
    assert!(point.join("docker/again").is_dir());

    forwarded(&pcocc);
    looked_into(&pcocc);

    assert_eq!(pcocc.run(&["docker", "stop"]), "Stopped job 1");
    // At once: stop came back when nothing was left, but for what looks by itself.
    let rest = left(&pcocc);
    let meant = |line: &String| {
        line.contains("logs -f") || line.contains("mnt") || line.contains("docker mount")
    };
    assert!(rest.iter().all(meant), "{rest:?}");
    assert!(end(&mut follow, "logs -f").success());
    let followed = fs::read_to_string(pcocc.home().join("followed")).unwrap();
    assert_eq!(
        followed.trim_end(),
        pcocc.run(&["docker", "logs", "-j", "1"]).trim_end()
    );
    assert!(!followed.is_empty());
    assert!(!pcocc.run(&["docker", "ls"]).contains("work"));
    assert!(pcocc.run(&["docker", "ls", "-a"]).contains("ended"));
    let none = pcocc.try_run(&["docker", "shell"]);
    assert!(none.failed().contains("you have no docker VM"), "{none}");
    wait_until("the mount ends with its job", SOON, || {
        fs::read_dir(&point).is_ok_and(|mut names| names.next().is_none())
    });
    assert_nothing_left(&pcocc);
}

/// A client needs a certificate of this job's, and TLS of today.
fn assert_only_its_own_certificates_open(pcocc: &Pcocc, endpoint: &str) {
    let address = endpoint.trim_start_matches("tcp://").to_owned();
    let certificates = pcocc.home().join(".pcocc/job_1/vmcerts/client");
    let curl = |with: bool| {
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--max-time", "20", "--cacert"])
            .arg(certificates.join("ca.pem"))
            .arg(format!("https://{address}/_ping"));
        if with {
            curl.arg("--cert").arg(certificates.join("cert.pem"));
            curl.arg("--key").arg(certificates.join("key.pem"));
        }
        run(&mut curl)
    };
    assert_eq!(curl(true).ok(), "OK");
    curl(false).failed();
    let plain = run(Command::new("docker")
        .env("DOCKER_HOST", endpoint)
        .arg("version"));
    assert!(!plain.status.success(), "{plain}");
    let old = run(Command::new("openssl")
        .args(["s_client", "-tls1_1", "-connect", &address])
        .env("OPENSSL_CONF", "/dev/null"));
    assert!(!old.status.success(), "{old}");
}

/// Two services that know each other by name, as compose starts them, and the port that one publishes, here.
fn forwarded(pcocc: &Pcocc) {
    let compose = "version: '3'\nservices:\n  \
        web:\n    image: bb\n    command: sh -c 'echo page >/index.html; httpd -f -h /'\n    ports: ['8080:80']\n  \
        client:\n    image: bb\n    depends_on: [web]\n    \
        command: sh -c 'until wget -q -O - http://web/index.html; do sleep 1; done'\n";
    fs::write(pcocc.home().join("docker-compose.yml"), compose).unwrap();
    let up = "env COMPOSE_HTTP_TIMEOUT=300 docker-compose --ansi never up -d";
    let outcome = pcocc.try_run(&["docker", "shell", "-E", up]);
    assert!(
        outcome.status.success(),
        "{outcome}\n{}\n{}",
        pcocc.run(&["docker", "status", "-j", "1"]),
        pcocc.run(&["docker", "logs", "-j", "1"])
    );
    wait_until(
        "one service reaches the other",
        Duration::from_secs(60),
        || {
            let logs = "docker-compose --ansi never logs --no-color client";
            pcocc.run(&["docker", "shell", "-E", logs]).contains("page")
        },
    );
    let mut forward = pcocc
        .command(&["docker", "forward", "0:8080"])
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    let mut output = BufReader::new(forward.stdout.take().unwrap());
    output.read_line(&mut line).unwrap();
    let here = line.split(' ').nth(1).unwrap().to_owned();
    let begun = Instant::now();
    let answer = loop {
        let mut stream = TcpStream::connect(&here).unwrap();
        stream.set_read_timeout(Some(SOON)).unwrap();
        stream
            .write_all(b"GET /index.html HTTP/1.0\r\n\r\n")
            .unwrap();
        let mut answer = String::new();
        // Cut off by whatever is not there yet.
        let _ = stream.read_to_string(&mut answer);
        if answer.contains("page") || begun.elapsed() > Duration::from_secs(60) {
            break answer;
        }
        std::thread::sleep(Duration::from_millis(200));
    };
    assert!(answer.ends_with("page\n"), "{answer:?}");
    signal(u64::from(forward.id()), Signal::INT);
    end(&mut forward, "forward");
}

/// The guest's own root shell, typed into and not, and its console.
fn looked_into(pcocc: &Pcocc) {
    let inside = [
        "docker",
        "guest",
        "shell",
        "-E",
        "hostname; id -u; ls -d /run/docker.sock",
    ];
    let said = pcocc.run(&inside).replace('\r', "");
    assert_eq!(said, "docker-1\n0\n/run/docker.sock");
    let mut terminal = Terminal::start(&pcocc.command(&["docker", "guest", "shell"]));
    terminal.keys("echo $(hostname)_$((40+2)); stty size\r");
    terminal.wait_for("docker-1_42");
    terminal.wait_for("24 80");
    terminal.keys("exit\r");
    assert!(terminal.end().success(), "{}", terminal.shown());
    pcocc.run(&[
        "docker",
        "guest",
        "shell",
        "-E",
        "printf '\\033[31mred\\033[0m\\n' >/dev/console",
    ]);
    let mut console = Terminal::start(&pcocc.command(&["docker", "guest", "console"]));
    console.wait_for("red");
    assert!(!console.shown().contains('\x1b'), "{}", console.shown());
    console.keys("\x03");
    assert!(console.end().code().is_some(), "{}", console.shown());
}
