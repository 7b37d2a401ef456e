//! The manual's sessions ("Modify Images with Docker", "Build images with Docker"), letter by letter, typed
//! at the prompt of a shell: each ends with `pcocc run` of what was made.

use std::path::Path;
use std::sync::Arc;

use pcocc_tests::{Docker, Dockerd, Pcocc, Terminal, binary, leaks};

use crate::site::program;

/// What no program here prints.
const PROMPT: &str = "johndoe$ ";

/// Types a line at the prompt, and gives all that is shown until the next one.
#[track_caller]
fn type_line(terminal: &mut Terminal, line: &str) -> String {
    let before = terminal.shown().len();
    terminal.keys(&format!("{line}\r"));
    terminal.wait_for(PROMPT);
    terminal.shown()[before..].to_owned()
}

/// The manual's two sessions, on an image with busybox or one with bash, whose prompt is `inside`. The
/// Dockerfile is built from `base`, which docker has.
fn modify_and_build(pcocc: &Pcocc, inside: &str, base: &str) {
    let watch = leaks::Watch::new(pcocc.home());
    let hello = pcocc.home().join("hello");
    pcocc.run_any("mkdir", &["hello"]);
    let dockerfile = format!("from {base}\nCMD [\"echo\", \"Hello Pcocc\"]\n");
    std::fs::write(hello.join("Dockerfile"), dockerfile).expect("write a Dockerfile");

    let mut shell = pcocc.any("sh");
    // An ordinary user has a copy of the program at home.
    let folders = [
        pcocc.home().join("bin"),
        binary().parent().expect("a folder").to_owned(),
    ];
    let path = std::env::var_os("PATH").unwrap_or_default();
    let folders = folders.into_iter().chain(std::env::split_paths(&path));
    shell.env("PATH", std::env::join_paths(folders).expect("a PATH"));
    let mut terminal = Terminal::start(shell.env("PS1", PROMPT));
    terminal.wait_for(PROMPT);

    terminal.keys("pcocc docker edit cont-centos new-centos\r");
    terminal.wait_for(
        "###########################################\r\n\
         # You are now editing your image          #\r\n\
         # Hit CTRL + D to save your modifications #\r\n\
         ###########################################\r\n",
    );
    terminal.wait_for(inside);
    terminal.keys("touch /newfile\r");
    terminal.wait_for(inside);
    terminal.keys("exit\r");
    terminal.wait_for(
        "###########################################\r\n\
         # Saving modified image ...               #\r\n\
         ###########################################\r\n",
    );
    terminal.wait_for(PROMPT);
    let shown = type_line(
        &mut terminal,
        "pcocc run -s --cwd / -I new-centos ls /newfile",
    );
    assert!(shown.contains("\n/newfile\r\n"), "{}", terminal.shown());
    // The image that was edited is what it was.
    let shown = type_line(
        &mut terminal,
        "pcocc run -s --cwd / -I cont-centos ls /newfile",
    );
    assert!(shown.contains("No such file"), "{}", terminal.shown());

    let shown = type_line(&mut terminal, "pcocc docker build ./hello hello");
    assert!(shown.contains("Built image: user:hello"), "{shown}");
    let shown = type_line(&mut terminal, "pcocc run -s --cwd / -I hello");
    assert!(shown.contains("\nHello Pcocc\r\n"), "{}", terminal.shown());

    terminal.keys("exit\r");
    assert!(terminal.end().success(), "{}", terminal.shown());
    watch.assert_clean();
    pcocc.verify();
}

/// An image that says nothing of how it is run but where its programs are, as busybox' own.
fn busybox(docker: &Docker) -> String {
    docker.build(
        "busybox",
        "FROM scratch\nCOPY busybox /bin/busybox\nRUN [\"/bin/busybox\", \"--install\", \"-s\", \"/bin\"]\n\
         ENV PATH=/bin\nCMD [\"sh\"]\n",
        &[("busybox", Path::new("/bin/busybox"))],
    )
}

/// An image like centos': with bash, and programs linked with libraries.
fn centos(docker: &Docker) -> String {
    let mut files = program("/bin/bash");
    files.extend(program("/bin/touch"));
    files.extend(program("/bin/ls"));
    let context: Vec<(&str, &Path)> = files
        .iter()
        .map(|(to, from)| (to.as_str(), from.as_path()))
        .collect();
    let mut dockerfile = "FROM scratch\n".to_owned();
    for (file, _) in &files {
        dockerfile.push_str(&format!("COPY {file} /{file}\n"));
    }
    dockerfile.push_str("CMD [\"bash\"]\n");
    docker.build("centos", &dockerfile, &context)
}

/// With the manual's own Dockerfile, in a daemon in which `busybox` means what it says there.
#[test]
fn docker_sessions_with_busybox_as_root() {
    let docker = Docker::of(Arc::new(Dockerd::start()));
    let pcocc = Pcocc::as_ordinary_user().with(&docker);
    docker.run(&["tag", &busybox(&docker), "busybox"]);
    pcocc.run(&["-q", "docker", "import", "busybox", "cont-centos"]);
    modify_and_build(&pcocc, "# ", "busybox");
}

#[test]
fn docker_sessions_with_bash() {
    let docker = Docker::shared();
    let pcocc = Pcocc::new().with(&docker);
    let centos = centos(&docker);
    pcocc.run(&["-q", "docker", "import", &centos, "cont-centos"]);
    // It is not in docker when it is edited, and but lent to it.
    docker.run(&["rmi", "-f", &centos]);
    modify_and_build(&pcocc, "bash-", &busybox(&docker));
    assert_eq!(docker.image_id(&centos), None);
}
