//! `scripts/install` and the Debian package: what they put somewhere works, and goes again.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

fn workspace() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

#[track_caller]
fn run(command: &mut Command) -> String {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    let words = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}{words}");
    text
}

fn files(folder: &Path) -> Vec<String> {
    let text = run(Command::new("find")
        .arg(folder)
        .args(["-type", "f", "-printf", "%P\n"]));
    text.lines().map(str::to_owned).collect()
}

/// The pages of every verb are there, and man reads them without a complaint.
#[track_caller]
fn look_at_pages(folder: &Path) {
    for (page, words) in [
        ("pcocc.1", "docker"),
        ("pcocc-docker-import.1", "pcocc docker import bb newbb"),
        ("pcocc-config-show.1", "--origin"),
    ] {
        let path = [folder.join(page), folder.join(format!("{page}.gz"))]
            .into_iter()
            .find(|path| path.exists())
            .unwrap_or_else(|| panic!("no {page} in {}", folder.display()));
        let output = Command::new("man")
            .args(["--warnings", "-l"])
            .arg(&path)
            .env("MANWIDTH", "100")
            .env("LC_ALL", "C.UTF-8")
            .output()
            .expect("run man");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        assert!(text.contains(words), "{page}: {text}");
    }
    assert!(!folder.join("pcocc-manpages.1").exists());
}

/// A program that is static, as the agent of docker VMs has to be. The agent itself takes minutes to build; what is
/// looked at here is where it is put.
const AGENT: &str = "/bin/busybox";

/// Each shell finds the completion below `share`, of the program `pcocc`.
#[track_caller]
fn look_at_completion(share: &Path, zsh: &str, program: &str) {
    let (zsh, fish) = (share.join(zsh), share.join("fish/vendor_completions.d"));
    let asked = |shell: &str, arguments: &[&str], variable: (&str, &Path), code: &str| {
        let home = tempfile::tempdir().unwrap();
        let mut command = Command::new(shell);
        command.args(arguments).arg("-c").arg(code);
        command
            .env_clear()
            .env("HOME", home.path())
            .env("PATH", "/usr/bin:/bin")
            .env(variable.0, variable.1);
        let text = run(&mut command);
        assert!(text.contains("image"), "{shell}: {text}");
    };
    // What bash-completion does at the first TAB, and then at this one.
    asked(
        "bash",
        &["--norc"],
        ("XDG_DATA_DIRS", share),
        "source /usr/share/bash-completion/bash_completion && _completion_loader pcocc\n\
         COMP_WORDS=(pcocc im) COMP_CWORD=1 COMP_LINE='pcocc im' COMP_POINT=8\n\
         $(complete -p pcocc | sed 's/.*-F \\([^ ]*\\) .*/\\1/') pcocc im pcocc && echo \"${COMPREPLY[@]}\"",
    );
    let found = run(Command::new("zsh")
        .args(["-f", "-c"])
        .arg("fpath=($FOLDER $fpath); autoload -Uz compinit && compinit -D -u && echo $_comps[pcocc]")
        .env("FOLDER", &zsh));
    assert_eq!(found, "_pcocc\n");
    let stub = fs::read_to_string(zsh.join("_pcocc")).unwrap();
    let fish_stub = fs::read_to_string(fish.join("pcocc.fish")).unwrap();
    for text in [&stub, &fish_stub] {
        assert!(text.contains(program), "{text}");
    }
    asked(
        "fish",
        &["--no-config"],
        ("FOLDER", &fish),
        "source $FOLDER/pcocc.fish; complete --do-complete 'pcocc im'",
    );
}

#[test]
fn what_is_installed_works_and_goes_again() {
    let folder = tempfile::tempdir().unwrap();
    let prefix = folder.path().join("a prefix");
    let script = workspace().join("scripts/install");
    let mut install = Command::new(&script);
    install.args(["--binary", env!("CARGO_BIN_EXE_pcocc"), "--agent", AGENT]);
    install.arg("--prefix");
    run(install.arg(&prefix));
    let version = run(Command::new(prefix.join("bin/pcocc")).arg("--version"));
    assert_eq!(version, format!("pcocc {}\n", env!("CARGO_PKG_VERSION")));
    look_at_pages(&prefix.join("share/man/man1"));
    look_at_completion(
        &prefix.join("share"),
        "zsh/site-functions",
        "prefix/bin/pcocc",
    );
    assert!(prefix.join("libexec/pcocc/pcocc-guest").is_file());
    assert!(prefix.join("share/doc/pcocc/GUIDE.md").is_file());
    assert!(prefix.join("share/pcocc/schemas/repos.yaml.json").exists());
    fs::write(prefix.join("bin/other"), "stays").unwrap();
    run(Command::new(&script)
        .args(["--uninstall", "--prefix"])
        .arg(&prefix));
    assert_eq!(files(&prefix), ["bin/other"]);
    let again = Command::new(&script)
        .args(["--uninstall", "--prefix"])
        .arg(&prefix)
        .output();
    assert!(!again.unwrap().status.success());
}

#[test]
fn the_debian_package_is_installed_and_removed_as_root() {
    let program = Path::new(env!("CARGO_BIN_EXE_pcocc"));
    assert!(program.ends_with("debug/pcocc"), "{}", program.display());
    let mut deb = Command::new(workspace().join("scripts/deb"));
    let package = run(deb.args(["--profile", "dev", "--built", "--agent", AGENT]));
    let root = tempfile::tempdir().unwrap();
    for part in ["var/lib/dpkg/updates", "var/lib/dpkg/info"] {
        fs::create_dir_all(root.path().join(part)).unwrap();
    }
    fs::write(root.path().join("var/lib/dpkg/status"), "").unwrap();
    let dpkg = |arguments: &[&str]| {
        let mut command = Command::new("dpkg");
        command.arg(format!("--root={}", root.path().display()));
        // There is nothing else in that folder, and its log is nobody's.
        command
            .args(["--force-depends", "--log=/dev/null"])
            .args(arguments);
        run(&mut command)
    };
    dpkg(&["--install", package.trim()]);
    let version = run(Command::new(root.path().join("usr/bin/pcocc")).arg("--version"));
    assert_eq!(version, format!("pcocc {}\n", env!("CARGO_PKG_VERSION")));
    look_at_pages(&root.path().join("usr/share/man/man1"));
    for (file, words) in [
        ("share/bash-completion/completions/pcocc", "COMPLETE=bash"),
        ("share/zsh/vendor-completions/_pcocc", "COMPLETE=zsh"),
        (
            "share/fish/vendor_completions.d/pcocc.fish",
            "COMPLETE=fish",
        ),
    ] {
        let text = fs::read_to_string(root.path().join("usr").join(file)).unwrap();
        assert!(
            text.contains(words) && text.contains("/usr/bin/pcocc"),
            "{text}"
        );
    }
    let agent = root.path().join("usr/libexec/pcocc/pcocc-guest");
    assert_eq!(fs::read(agent).unwrap(), fs::read(AGENT).unwrap());
    let about = run(Command::new("dpkg-deb").args(["--field", package.trim()]));
    assert!(
        about.contains("\nMaintainer: pcocc developers\n"),
        "{about}"
    );
    dpkg(&["--purge", "pcocc"]);
    assert!(
        !root.path().join("usr").exists(),
        "{:?}",
        files(root.path())
    );
}

#[test]
fn a_machine_without_build_tools_is_told_their_packages() {
    let path = tempfile::tempdir().unwrap();
    for program in ["bash", "env", "dirname", "sort"] {
        let find = ["-c", "command -v \"$0\"", program];
        let found = run(Command::new("bash").args(find));
        symlink(found.trim(), path.path().join(program)).unwrap();
    }
    let cargo = path.path().join("cargo");
    fs::write(&cargo, "#!/bin/sh\necho built >&2\n").unwrap();
    fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
    let output = Command::new("/bin/bash")
        .arg(workspace().join("scripts/install"))
        .arg("--prefix")
        .arg(path.path().join("prefix"))
        .env_clear()
        .env("PATH", path.path())
        .env("HOME", path.path())
        .output()
        .unwrap();
    let words = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{words}");
    for package in ["autoconf", "automake", "gcc", "libtool", "make", "nasm"] {
        assert!(words.contains(&format!(" {package}")), "{words}");
    }
    assert!(
        words.contains("scripts/install-dependencies build"),
        "{words}"
    );
    assert!(!words.contains("built"), "{words}");
}
