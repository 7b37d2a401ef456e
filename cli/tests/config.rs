//! `pcocc config`, and what is said about mistakes in configuration files.

mod sandbox;

use insta::assert_snapshot;
use sandbox::Sandbox;

#[test]
fn defaults_are_shown_as_such() {
    let sandbox = Sandbox::new();
    assert_snapshot!(sandbox.run(&["config", "show", "--origin"]).squeezed(), @r"
    FILE  KEY  VALUE  ORIGIN
    repos.yaml  repos[0].name  user  default
    repos.yaml  repos[0].path  [ROOT]/home/.pcocc/images  default
    repos.yaml  repos[0].layer_compression  keep  default
    repos.yaml  cache.path  [ROOT]/home/.pcocc/cache  default
    containers.yaml  runtime.insecure_registries  []  default
    containers.yaml  runtime.docker_mounts  []  default
    containers.yaml  runtime.image_mountpoints  []  default
    batch.yaml  docker_resolve_address  true  default
    environment  PCOCC_SYSTEM_CONF_DIR  [ROOT]/etc  environment
    environment  PCOCC_USER_CONF_DIR  [ROOT]/home/.pcocc  default
    environment  TMPDIR  [ROOT]  environment
    environment  DOCKER_HOST  unix://[ROOT]/no.sock  environment
    environment  DOCKER_CERT_PATH  [ROOT]/home/.docker  default
    environment  DOCKER_CONFIG  [ROOT]/home/.docker  default
    --- exit 0
    ");
}

#[test]
fn every_value_names_its_file_and_line() {
    let sandbox = Sandbox::new();
    sandbox.write(
        ".pcocc/repos.yaml",
        "repos:\n  - name: mine\n    path: '%{homedir}/m'\n",
    );
    sandbox.write(
        "../etc/repos.yaml",
        "repos:\n  - name: site\n    path: /site\n    layer_compression: none\ncache:\n  path: /c\n",
    );
    sandbox.write(
        "../etc/containers.yaml",
        "runtime:\n  insecure_registries: ['a:1']\n",
    );
    assert_snapshot!(sandbox.run(&["config", "show", "--origin", "repos.yaml"]).squeezed(), @r"
    FILE  KEY  VALUE  ORIGIN
    repos.yaml  repos[0].name  mine  [ROOT]/home/.pcocc/repos.yaml:2
    repos.yaml  repos[0].path  [ROOT]/home/m  [ROOT]/home/.pcocc/repos.yaml:3
    repos.yaml  repos[0].layer_compression  keep  default
    repos.yaml  repos[1].name  site  [ROOT]/etc/repos.yaml:2
    repos.yaml  repos[1].path  /site  [ROOT]/etc/repos.yaml:3
    repos.yaml  repos[1].layer_compression  none  [ROOT]/etc/repos.yaml:4
    repos.yaml  cache.path  /c  [ROOT]/etc/repos.yaml:6
    --- exit 0
    ");
    assert_snapshot!(sandbox.run(&["config", "show", "containers.yaml"]).squeezed(), @r#"
    FILE  KEY  VALUE
    containers.yaml  runtime.insecure_registries  ["a:1"]
    containers.yaml  runtime.docker_mounts  []
    containers.yaml  runtime.image_mountpoints  []
    --- exit 0
    "#);
    let json = sandbox.run(&["config", "show", "--format", "json"]).ok();
    let rows: Vec<serde_json::Value> = serde_json::from_str(&json).unwrap();
    let find = |key: &str| rows.iter().find(|row| row["key"] == key).unwrap();
    let registries = find("runtime.insecure_registries");
    assert_eq!(registries["value"], serde_json::json!(["a:1"]));
    assert_eq!(registries["origin"]["from"], "site");
    assert_eq!(registries["origin"]["line"], 2);
    assert_eq!(find("repos[0].name")["origin"]["from"], "user");
    assert_eq!(find("TMPDIR")["origin"]["from"], "environment");
}

#[test]
fn mistakes_are_shown_where_they_are() {
    for (file, text, words) in [
        (
            "repos.yaml",
            "repos:\n  - name: 'a\n    path: /a\n",
            "repos.yaml:",
        ),
        (
            "repos.yaml",
            "repos:\n  - name: a\n    pth: /a\n",
            "repos.yaml:3:5:",
        ),
        (
            "repos.yaml",
            "repos:\n  - name: a/b\n    path: /a\n",
            "repos.yaml:2:11:",
        ),
        (
            "repos.yaml",
            "repos:\n  - {name: a, path: /a}\n  - {name: a, path: /b}\n",
            "repos.yaml:3:12:",
        ),
        (
            "repos.yaml",
            "repos:\n  - name: a\n    path: '%{no}/a'\n",
            "repos.yaml:3:11:",
        ),
        (
            "containers.yaml",
            "runtime:\n  docker_mounts:\n    - {source: /a, dest: [1]}\n",
            "containers.yaml:3:",
        ),
    ] {
        let sandbox = Sandbox::new();
        sandbox.write(&format!(".pcocc/{file}"), text);
        let shown = sandbox.run(&["config", "show"]);
        assert_eq!(shown.code, Some(1), "{}", shown.all());
        let start = "pcocc: failed to show the configuration: [ROOT]/home/.pcocc/";
        assert!(
            shown.err.starts_with(&format!("{start}{words}")),
            "{}",
            shown.all()
        );
    }
}

#[test]
fn a_schema_is_json() {
    let text = Sandbox::new().run(&["config", "schema", "repos.yaml"]).ok();
    let schema: serde_json::Value = serde_json::from_str(&text).unwrap();
    assert_eq!(schema["title"], "repos.yaml");
    let shown = Sandbox::new().run(&["config", "schema", "other.yaml"]);
    assert_eq!(shown.code, Some(2), "{}", shown.all());
}
