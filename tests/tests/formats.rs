//! Formats of import and export against the tools that define them: skopeo, umoci, a registry, qemu-img.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use pcocc_tests::{Outcome, Pcocc, Registry, certificates, run};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

/// Runs a tool that must succeed, in `folder`; gives its standard output.
#[track_caller]
fn tool(folder: &Path, line: &[&str]) -> Vec<u8> {
    let output = Command::new(line[0])
        .args(&line[1..])
        .current_dir(folder)
        .output()
        .unwrap_or_else(|error| panic!("cannot run {}: {error}", line[0]));
    assert!(output.status.success(), "{line:?}: {output:?}");
    output.stdout
}

fn sha256(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let hex: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// A home folder with the image `made:base`, two layers built by umoci on a busybox.
struct Bed {
    pcocc: Pcocc,
    /// The image's manifest.
    manifest: Vec<u8>,
    /// Its ID.
    id: String,
}

impl Bed {
    fn new() -> Self {
        let pcocc = Pcocc::new();
        let home = pcocc.home().to_owned();
        let sh = |line: &[&str]| tool(&home, line);
        sh(&["umoci", "init", "--layout", "made"]);
        sh(&["umoci", "new", "--image", "made:base"]);
        fs::create_dir_all(home.join("root/bin")).unwrap();
        fs::copy("/bin/busybox", home.join("root/bin/busybox")).unwrap();
        sh(&[
            "umoci",
            "insert",
            "--rootless",
            "--image",
            "made:base",
            "root",
            "/",
        ]);
        fs::write(home.join("note"), "a second layer\n").unwrap();
        sh(&[
            "umoci",
            "insert",
            "--rootless",
            "--image",
            "made:base",
            "note",
            "/note",
        ]);
        sh(&[
            "umoci",
            "config",
            "--image",
            "made:base",
            "--config.cmd",
            "/bin/busybox",
        ]);
        let manifest = sh(&["skopeo", "inspect", "--raw", "oci:made:base"]);
        let parsed: Value = serde_json::from_slice(&manifest).unwrap();
        let id = parsed["config"]["digest"].as_str().unwrap().to_owned();
        Self {
            pcocc,
            manifest,
            id,
        }
    }

    fn home(&self) -> &Path {
        self.pcocc.home()
    }

    #[track_caller]
    fn tool(&self, line: &[&str]) -> Vec<u8> {
        tool(self.home(), line)
    }

    #[track_caller]
    fn import(&self, source: &str, name: &str) {
        self.pcocc.run(&["image", "import", source, name]);
        assert_eq!(self.pcocc.image_id(name), self.id, "{source}");
    }

    #[track_caller]
    fn export(&self, name: &str, dest: &str) {
        self.pcocc.run(&["image", "export", name, dest]);
    }

    #[track_caller]
    fn try_import(&self, source: &str, name: &str) -> Outcome {
        self.pcocc.try_run(&["image", "import", source, name])
    }

    #[track_caller]
    fn raw(&self, image: &str) -> Vec<u8> {
        self.tool(&["skopeo", "inspect", "--raw", image])
    }

    /// Lists a registry as insecure, and gives docker a password for it.
    fn know(&self, registry: &Registry, password: bool) {
        let yaml = format!(
            "runtime:\n  insecure_registries: ['{}']\n",
            registry.address()
        );
        fs::create_dir_all(self.home().join(".pcocc")).unwrap();
        fs::write(self.home().join(".pcocc/containers.yaml"), yaml).unwrap();
        if password {
            // base64 of "tester:let me in"
            let auth = "dGVzdGVyOmxldCBtZSBpbg==";
            let config = json!({"auths": {registry.address(): {"auth": auth}}});
            fs::create_dir_all(self.home().join(".docker")).unwrap();
            fs::write(self.home().join(".docker/config.json"), config.to_string()).unwrap();
        }
    }
}

#[test]
fn archives_agree_with_skopeo_both_ways() {
    let bed = Bed::new();
    bed.tool(&[
        "skopeo",
        "copy",
        "-q",
        "oci:made:base",
        "docker-archive:theirs.tar:bb:1",
    ]);
    bed.import("docker-archive:theirs.tar", "a");
    bed.import("docker-archive:theirs.tar:bb:1", "b");
    bed.import("theirs.tar", "guessed");
    bed.tool(&["gzip", "-k", "theirs.tar"]);
    bed.import("docker-archive:theirs.tar.gz", "c");
    bed.tool(&["zstd", "-q", "theirs.tar"]);
    bed.import("docker-archive:theirs.tar.zst", "zipped");
    bed.import("oci:made:base", "d");
    for name in ["a", "d"] {
        bed.export(name, &format!("docker-archive:{name}.tar:bb:1"));
        let ours = format!("docker-archive:{name}.tar:bb:1");
        for what in ["--raw", "--config"] {
            let ours = bed.tool(&["skopeo", "inspect", what, &ours]);
            let theirs = bed.tool(&["skopeo", "inspect", what, "docker-archive:theirs.tar:bb:1"]);
            assert_eq!(ours, theirs, "{name} {what}");
        }
        bed.import(
            &format!("docker-archive:{name}.tar"),
            &format!("{name}-again"),
        );
    }
    let before = fs::read(bed.home().join("a.tar")).unwrap();
    let outcome = bed
        .pcocc
        .try_run(&["image", "export", "a", "docker-archive:a.tar"]);
    assert!(outcome.failed().contains("exists"), "{outcome}");
    assert_eq!(fs::read(bed.home().join("a.tar")).unwrap(), before);
    bed.pcocc.verify();
}

#[test]
fn folders_agree_with_skopeo_and_umoci_both_ways() {
    let bed = Bed::new();
    bed.import("oci:made:base", "a");
    bed.import("oci:made", "b");
    bed.import("made", "c");
    bed.export("a", "oci:out:one");
    bed.export("b", "oci:out");
    assert_eq!(bed.raw("oci:out:one"), bed.manifest);
    assert_eq!(bed.raw("oci:out:latest"), bed.manifest);
    bed.tool(&["umoci", "tag", "--image", "out:one", "two"]);
    bed.export("a", "oci:out:three");
    let listed = bed.tool(&["umoci", "ls", "--layout", "out"]);
    let listed = String::from_utf8(listed).unwrap();
    let mut listed: Vec<&str> = listed.lines().collect();
    listed.sort_unstable();
    assert_eq!(listed, ["latest", "one", "three", "two"]);
    bed.tool(&[
        "umoci",
        "unpack",
        "--rootless",
        "--image",
        "out:two",
        "bundle",
    ]);
    let unpacked = bed.home().join("bundle/rootfs");
    assert_eq!(
        fs::read(unpacked.join("note")).unwrap(),
        b"a second layer\n"
    );
    assert_eq!(
        fs::read(unpacked.join("bin/busybox")).unwrap(),
        fs::read("/bin/busybox").unwrap()
    );
    bed.tool(&["skopeo", "copy", "-q", "oci:out:three", "oci:skopeos:x"]);
    assert_eq!(bed.raw("oci:skopeos:x"), bed.manifest);
    // One image under three names is one image; with another one beside it, a name has to choose.
    assert_eq!(bed.try_import("oci:out", "d").status.code(), Some(0));
    bed.tool(&["umoci", "new", "--image", "out:empty"]);
    let outcome = bed.try_import("oci:out", "e");
    assert!(outcome.failed().contains("one"), "{outcome}");
    let outcome = bed.try_import("oci:out:four", "d");
    assert!(outcome.failed().contains("four"), "{outcome}");
    fs::create_dir(bed.home().join("mine")).unwrap();
    fs::write(bed.home().join("mine/file"), "mine").unwrap();
    let outcome = bed.pcocc.try_run(&["image", "export", "a", "oci:mine:x"]);
    assert!(outcome.failed().contains("other content"), "{outcome}");
    assert_eq!(fs::read_dir(bed.home().join("mine")).unwrap().count(), 1);
    bed.pcocc.verify();
}

#[test]
fn a_registry_takes_and_gives_what_skopeo_does() {
    let bed = Bed::new();
    let registry = Registry::start();
    let at = |name: &str| format!("docker://{}/{name}", registry.address());
    bed.import("oci:made:base", "a");
    let outcome = bed.pcocc.try_run(&["image", "export", "a", &at("app:1")]);
    assert!(
        outcome.failed().contains("insecure_registries"),
        "{outcome}"
    );
    bed.know(&registry, false);
    bed.export("a", &at("app:1"));
    let patches = |log: &str| log.matches("\"PATCH /v2/").count();
    let sent = patches(&registry.log());
    assert_eq!(sent, 2, "{}", registry.log());
    bed.export("a", &at("app:2"));
    assert_eq!(patches(&registry.log()), sent, "blobs went up twice");
    let raw = |name: &str| {
        bed.tool(&[
            "skopeo",
            "inspect",
            "--tls-verify=false",
            "--raw",
            &at(name),
        ])
    };
    assert_eq!(raw("app:1"), bed.manifest);
    assert_eq!(raw("app:2"), bed.manifest);
    bed.import(&at("app:1"), "b");
    bed.import(&at(&format!("app@{}", sha256(&bed.manifest))), "c");
    let copy = ["skopeo", "copy", "-q", "--dest-tls-verify=false"];
    bed.tool(
        &[
            &copy[..],
            &["-f", "v2s2", "oci:made:base", &at("schema2:1")],
        ]
        .concat(),
    );
    bed.import_as(&at("schema2:1"), "d");
    for missing in ["app:3", "none:1", &format!("app@{}", sha256(b"none"))] {
        let outcome = bed.try_import(&at(missing), "e");
        assert!(outcome.failed().contains("not found"), "{outcome}");
    }
    drop(registry);
    let outcome = bed.try_import("docker://127.0.0.1:1/app", "e");
    assert!(outcome.failed().contains("refused"), "{outcome}");
    bed.pcocc.verify();
}

impl Bed {
    /// As [`Bed::import`], of an image whose config skopeo wrote anew.
    #[track_caller]
    fn import_as(&self, source: &str, name: &str) {
        self.pcocc.run(&["image", "import", source, name]);
        let config = self.tool(&["skopeo", "inspect", "--tls-verify=false", "--raw", source]);
        let config: Value = serde_json::from_slice(&config).unwrap();
        assert_eq!(
            self.pcocc.image_id(name),
            config["config"]["digest"].as_str().unwrap()
        );
    }
}

#[test]
fn a_registry_with_a_password_wants_to_see_it() {
    let bed = Bed::new();
    let registry = Registry::with_password();
    let at = format!("docker://{}/org/app:1", registry.address());
    bed.import("oci:made:base", "a");
    bed.know(&registry, false);
    let outcome = bed.pcocc.try_run(&["image", "export", "a", &at]);
    assert!(outcome.failed().contains("docker login"), "{outcome}");
    let outcome = bed.try_import(&at, "b");
    assert!(outcome.failed().contains("docker login"), "{outcome}");
    bed.know(&registry, true);
    bed.export("a", &at);
    bed.import(&at, "b");
    let creds = format!("{}:{}", Registry::USER, Registry::PASSWORD);
    let line = [
        "skopeo",
        "inspect",
        "--tls-verify=false",
        "--creds",
        &creds,
        "--raw",
        &at,
    ];
    assert_eq!(bed.tool(&line), bed.manifest);
    let wrong = json!({"auths": {registry.address(): {"username": "tester", "password": "no"}}});
    fs::write(bed.home().join(".docker/config.json"), wrong.to_string()).unwrap();
    let outcome = bed.try_import(&at, "c");
    assert!(outcome.failed().contains("check the rights"), "{outcome}");
    assert!(!outcome.stderr.contains("\"no\""), "{outcome}");
    // A helper, as docker runs it.
    let bin = bed.home().join("bin");
    fs::create_dir(&bin).unwrap();
    let helper = bin.join("docker-credential-test");
    let script = format!(
        "#!/bin/sh\nread host\necho \"{{\\\"Username\\\":\\\"{}\\\",\\\"Secret\\\":\\\"{}\\\"}}\"\n",
        Registry::USER,
        Registry::PASSWORD
    );
    fs::write(&helper, script).unwrap();
    bed.tool(&["chmod", "755", "bin/docker-credential-test"]);
    let config = json!({"credsStore": "test"});
    fs::write(bed.home().join(".docker/config.json"), config.to_string()).unwrap();
    let path = format!("{}:{}", bin.display(), std::env::var("PATH").unwrap());
    let mut import = bed.pcocc.command(&["image", "import", &at, "c"]);
    run(import.env("PATH", path)).ok();
    bed.pcocc.verify();
}

#[test]
fn a_registry_over_https_is_believed_by_its_authority_only() {
    let bed = Bed::new();
    let registry = Registry::with_tls();
    let at = format!("docker://{}/org/app:1", registry.address());
    bed.import("oci:made:base", "a");
    let refused = || {
        let outcome = bed.pcocc.try_run(&["image", "export", "a", &at]);
        let said = outcome.failed();
        assert!(said.contains("certificate"), "{outcome}");
        assert!(said.contains("insecure_registries"), "{outcome}");
        assert!(said.contains("certs.d"), "{outcome}");
        let outcome = bed.try_import(&at, "b");
        assert!(outcome.failed().contains("certificate"), "{outcome}");
        assert!(!registry.log().contains("/v2/"), "{}", registry.log());
    };
    refused();
    // The authority of another.
    let stranger = bed.home().join("stranger");
    certificates(&stranger);
    let certs = bed.home().join(".config/containers/certs.d");
    let certs = certs.join(registry.address());
    fs::create_dir_all(&certs).unwrap();
    fs::copy(stranger.join("ca.pem"), certs.join("ca.crt")).unwrap();
    refused();
    fs::copy(registry.authority(), certs.join("ca.crt")).unwrap();
    bed.export("a", &at);
    bed.import(&at, "b");
    let certs = certs.to_string_lossy();
    let line = ["skopeo", "inspect", "--cert-dir", &certs, "--raw", &at];
    assert_eq!(bed.tool(&line), bed.manifest);
    // What is listed as insecure need not prove itself, but is not talked to in plain when it can do better.
    fs::remove_dir_all(bed.home().join(".config")).unwrap();
    bed.know(&registry, false);
    bed.import(&at, "c");
    // The machine's own authorities count as well.
    fs::remove_file(bed.home().join(".pcocc/containers.yaml")).unwrap();
    let mut import = bed.pcocc.command(&["image", "import", &at, "d"]);
    run(import.env("SSL_CERT_FILE", registry.authority())).ok();
    bed.pcocc.verify();
}

#[test]
fn this_machines_image_is_taken_out_of_several() {
    let bed = Bed::new();
    let registry = Registry::start();
    bed.know(&registry, false);
    let own = match std::env::consts::ARCH {
        "x86_64" => "amd64",
        "aarch64" => "arm64",
        other => other,
    };
    let digest = sha256(&bed.manifest);
    let of = |architecture: &str| {
        json!({"mediaType": "application/vnd.oci.image.manifest.v1+json", "digest": digest,
               "size": bed.manifest.len(),
               "platform": {"os": "linux", "architecture": architecture}})
    };
    let push = |architectures: &[&str], name: &str| {
        let manifests: Vec<Value> = architectures.iter().map(|a| of(a)).collect();
        let list = json!({"schemaVersion": 2, "manifests": manifests,
            "mediaType": "application/vnd.oci.image.index.v1+json"})
        .to_string();
        let layout = bed.home().join("made");
        fs::write(
            layout
                .join("blobs/sha256")
                .join(&sha256(list.as_bytes())[7..]),
            &list,
        )
        .unwrap();
        let index = json!({"schemaVersion": 2, "manifests": [{
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": sha256(list.as_bytes()), "size": list.len(),
            "annotations": {"org.opencontainers.image.ref.name": name}}]});
        fs::write(layout.join("index.json"), index.to_string()).unwrap();
        let at = format!("docker://{}/multi:{name}", registry.address());
        let from = format!("oci:made:{name}");
        let line = [
            "skopeo",
            "copy",
            "-q",
            "--all",
            "--dest-tls-verify=false",
            &from,
            &at,
        ];
        bed.tool(&line);
        at
    };
    let both = push(&["s390x", own], "both");
    bed.import(&both, "a");
    bed.import("oci:made:both", "b");
    let foreign = push(&["s390x", "mips64le"], "foreign");
    for source in [foreign.as_str(), "oci:made:foreign"] {
        let outcome = bed.try_import(source, "c");
        assert!(outcome.failed().contains("linux/s390x"), "{outcome}");
    }
    bed.pcocc.verify();
}

#[test]
fn disks_of_virtual_machines_make_the_round_trip() {
    let pcocc = Pcocc::new();
    let home = pcocc.home().to_owned();
    let mut disk = vec![0_u8; 3 << 20];
    for (i, byte) in disk.iter_mut().enumerate().skip(100_000).take(100_000) {
        *byte = (i * 31 % 251) as u8;
    }
    fs::write(home.join("disk.raw"), &disk).unwrap();
    for format in ["raw", "qcow2", "qed", "vdi", "vpc", "vmdk"] {
        let file = format!("disk.{format}");
        if format != "raw" {
            let line = [
                "qemu-img", "convert", "-f", "raw", "-O", format, "disk.raw", &file,
            ];
            tool(&home, &line);
        }
        let name = format!("vm-{format}");
        pcocc.run(&["image", "import", &file, &name]);
        let meta = fs::read(pcocc.repository().join(format!("meta/{name}@0"))).unwrap();
        let meta: Value = serde_json::from_slice(&meta).unwrap();
        assert_eq!(meta["kind"], "vm");
        let back = format!("back.{format}");
        pcocc.run(&["image", "export", &name, &back]);
        let line = [
            "qemu-img",
            "convert",
            "-f",
            format,
            "-O",
            "raw",
            &back,
            "back.check",
        ];
        tool(&home, &line);
        let mut check = fs::read(home.join("back.check")).unwrap();
        check.truncate(disk.len());
        assert!(check == disk, "{format}");
    }
    let line = [
        "qemu-img",
        "create",
        "-q",
        "-f",
        "qcow2",
        "-F",
        "raw",
        "-b",
        "/etc/passwd",
        "over",
    ];
    tool(&home, &line);
    let outcome = pcocc.try_run(&["image", "import", "over", "stolen"]);
    assert!(outcome.failed().contains("/etc/passwd"), "{outcome}");
    tool(&home, &["mkdir", "empty", "closed"]);
    tool(&home, &["chmod", "0", "closed"]);
    for folder in ["empty", "closed"] {
        let mut import = pcocc.command(&["image", "import", "disk.raw", "more"]);
        let outcome = run(import.env("PATH", home.join(folder)));
        assert!(outcome.failed().contains("qemu-utils"), "{outcome}");
    }
    tool(&home, &["chmod", "700", "closed"]);
    let temp: Vec<PathBuf> = fs::read_dir(pcocc.repository().join(".tmp"))
        .map(|entries| entries.map(|entry| entry.unwrap().path()).collect())
        .unwrap_or_default();
    assert!(temp.is_empty(), "{temp:?}");
    pcocc.verify();
}
