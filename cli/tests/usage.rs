//! Wrong command lines and useless surroundings: what is said, and the exit code.

mod sandbox;

use sandbox::Sandbox;

#[test]
fn wrong_usage_exits_2_and_says_what_is_known() {
    let sandbox = Sandbox::new();
    for args in [
        &[] as &[&str],
        &["image"],
        &["image", "frobnicate"],
        &["image", "import"],
        &["image", "import", "a"],
        &["image", "list", "--format", "xml"],
        &["image", "list", "a", "b"],
        &["docker", "export", "a", "b", "c"],
        &["docker", "mount"],
        &["--progress", "loud", "image", "list"],
    ] {
        let shown = sandbox.run(args);
        assert_eq!(shown.code, Some(2), "{args:?}: {}", shown.all());
        assert_eq!(shown.out, "", "{args:?}");
        assert!(shown.err.contains("Usage: pcocc") || shown.err.contains("possible values"));
    }
}

#[test]
fn home_must_be_a_place() {
    let sandbox = Sandbox::new();
    let mut command = sandbox.command(&["image", "list"]);
    let output = command.env("HOME", "nowhere").output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    insta::assert_snapshot!(String::from_utf8(output.stderr).unwrap(), @r"
    pcocc: failed to find your home directory: HOME is not an absolute path
    hint: set HOME to your home directory
    ");
}
