//! Repositories that are none of ours, damaged, read-only or full.

use std::fs;

use pcocc_tests::{Outcome, run};
use serde_json::{Value, json};
use sha2::{Digest as _, Sha256};

use crate::image::{Image, file_layer};
use crate::{Bed, snapshot};

#[test]
fn metadata_that_is_not_ours() {
    let bed = Bed::new();
    let meta = bed.pcocc.repository().join("meta");
    let good: Value = serde_json::from_slice(&fs::read(meta.join("there@0")).unwrap()).unwrap();
    let spoilt = |key: &str, value: Value| {
        let mut text = good.clone();
        text["name"] = json!("bad");
        text[key] = value;
        text.to_string()
    };
    let deep = "[".repeat(100_000);
    for text in [
        String::new(),
        "not json".to_owned(),
        "[]".to_owned(),
        "{}".to_owned(),
        deep,
        spoilt("name", json!("../../evil")),
        spoilt("name", json!(7)),
        spoilt("kind", json!("spaceship")),
        spoilt("revision", json!(-1)),
        spoilt("revision", json!("zero")),
        spoilt("data_blobs", json!(["sha256:../../../etc/passwd"])),
        spoilt("data_blobs", json!("none")),
        spoilt("custom_meta", json!({})),
        spoilt("custom_meta", json!({"oci_index": {"manifests": []}})),
        spoilt("custom_meta", json!({"oci_index": 7})),
    ] {
        fs::write(meta.join("bad@0"), &text).unwrap();
        let before = snapshot(&bed.pcocc.repository());
        let shown: String = text.chars().take(100).collect();
        let out = bed
            .pcocc
            .try_run(&["image", "export", "bad", "docker-archive:out.tar"]);
        out.failed();
        assert!(!bed.at("out.tar").exists(), "{shown}");
        // The others are none the worse for it.
        let listed = bed.pcocc.run(&["image", "list"]);
        assert!(listed.contains("there"), "{shown}: {listed}");
        bed.pcocc.run(&["image", "show", "there"]);
        assert_eq!(snapshot(&bed.pcocc.repository()), before, "{shown}");
    }
    fs::remove_file(meta.join("bad@0")).unwrap();
    for stray in [
        "x",
        "bad@",
        "@0",
        "bad@x",
        "bad@-1",
        "a b@0",
        &format!("{}@0", "y".repeat(240)),
    ] {
        fs::write(meta.join(stray), good.to_string()).unwrap();
        let listed = bed.pcocc.run(&["image", "list"]);
        assert!(listed.contains("there"), "{stray}: {listed}");
        fs::remove_file(meta.join(stray)).unwrap();
    }
    assert_eq!(snapshot(&bed.pcocc.repository()), bed.before);
    bed.end();
}

#[test]
fn repositories_that_are_none() {
    let bed = Bed::new();
    let config = bed.pcocc.repository().join(".config");
    let good = fs::read(&config).unwrap();
    for (text, words) in [
        ("version: 3\n", "version 3"),
        ("version: many\n", ".config"),
        ("", ".config"),
        ("{{{{", ".config"),
        ("version: [2]\n", ".config"),
    ] {
        fs::write(&config, text).unwrap();
        let before = snapshot(&bed.pcocc.repository());
        for line in [
            ["image", "import", "oci:good", "bad"],
            ["image", "export", "there", "docker-archive:out.tar"],
            ["image", "copy", "there", "bad"],
        ] {
            let outcome = bed.pcocc.try_run(&line);
            let said = outcome.failed();
            assert!(said.contains(words), "'{words}' is not in:\n{outcome}");
        }
        assert_eq!(snapshot(&bed.pcocc.repository()), before);
        assert!(!bed.at("out.tar").exists());
    }
    fs::write(&config, good).unwrap();
    let elsewhere = |path: &str, words: &str| {
        let yaml = format!("repos:\n  - name: user\n    path: '{path}'\n");
        bed.pcocc.configure_repositories(&yaml);
        let outcome = bed.pcocc.try_run(&["image", "import", "oci:good", "bad"]);
        let said = outcome.failed();
        assert!(said.contains(words), "'{words}' is not in:\n{outcome}");
    };
    let file = bed.at("a-file");
    fs::write(&file, "mine").unwrap();
    elsewhere(&file.display().to_string(), "a-file");
    assert_eq!(fs::read(&file).unwrap(), b"mine");
    let full = bed.at("full");
    fs::create_dir(&full).unwrap();
    fs::write(full.join("mine"), "mine").unwrap();
    elsewhere(&full.display().to_string(), "full");
    assert_eq!(fs::read_dir(&full).unwrap().count(), 1);
    elsewhere("/proc/nothing/here", "/proc/nothing");
    for yaml in [
        "repos: 7\n",
        "{",
        "repos:\n  - name: 'a:b'\n    path: /x\n",
        "repos: []\n",
    ] {
        bed.pcocc.configure_repositories(yaml);
        let outcome = bed.pcocc.try_run(&["image", "import", "oci:good", "bad"]);
        outcome.failed();
    }
    fs::remove_file(bed.at(".pcocc/repos.yaml")).unwrap();
    assert_eq!(snapshot(&bed.pcocc.repository()), bed.before);
    bed.end();
}

/// Runs `pcocc` with `mount` done first, in a mount namespace of its own.
#[track_caller]
fn with_mount(bed: &Bed, mount: &str, line: &[&str]) -> Outcome {
    let pcocc = bed.pcocc.command(line);
    let script = format!("{mount} && exec \"$0\" \"$@\"");
    let mut command = bed.pcocc.any("unshare");
    command
        .args(["-m", "sh", "-c", &script])
        .arg(pcocc.get_program())
        .args(line);
    run(&mut command)
}

#[test]
fn a_repository_that_is_read_only_as_root() {
    let bed = Bed::new();
    let repository = bed.pcocc.repository().display().to_string();
    let mount = format!("mount --bind -o ro '{repository}' '{repository}'");
    for line in [
        ["image", "import", "oci:good", "bad"],
        ["image", "copy", "there", "bad"],
    ] {
        let outcome = with_mount(&bed, &mount, &line);
        bed.unchanged(&outcome, "Read-only file system");
    }
    let outcome = with_mount(&bed, &mount, &["image", "delete", "there"]);
    bed.unchanged(&outcome, "Read-only file system");
    let outcome = with_mount(
        &bed,
        &mount,
        &["image", "export", "there", "docker-archive:out.tar"],
    );
    outcome.ok();
    bed.end();
}

/// `length` bytes of noise, which no compression makes small.
fn noise(length: usize) -> Vec<u8> {
    let digests = (0..u32::MAX).flat_map(|i| Sha256::digest(i.to_le_bytes()));
    digests.take(length).collect()
}

/// The squashfs of an image begins with that of another, for which there is no room, or not for both.
#[test]
fn a_cache_that_is_full_beside_a_base_as_root() {
    let bed = Bed::new();
    let (base, big) = (noise(900_000), noise(700_000));
    let layers = [file_layer("base", &base), file_layer("big", &big)];
    Image::new(&layers[..1]).write(&bed.at("base"));
    Image::new(&layers).write(&bed.at("top"));
    bed.pcocc.run(&["image", "import", "oci:base", "base"]);
    let cache = bed.pcocc.cache().display().to_string();
    let pcocc = bed.pcocc.command(&[]);
    for size in ["1300k", "2400k", "4m"] {
        let script = format!(
            "rm -rf kept && cp -a '{cache}' kept && mount -t tmpfs -o mode=700,size={size} none '{cache}' && \
             cp -a kept/. '{cache}'; list() {{ cd '{cache}' && find . -type f -exec sha256sum {{}} + | sort -k2; cd \"$OLDPWD\"; }}; \
             list > before; \"$0\" \"$@\"; code=$?; list > after; \"$0\" image repo verify user >&2 || exit 99; exit $code"
        );
        let mut command = bed.pcocc.any("unshare");
        command
            .args(["-m", "sh", "-c", &script])
            .arg(pcocc.get_program());
        command.args(["image", "import", "oci:top", "top"]);
        let outcome = run(&mut command);
        let listed = |name: &str| fs::read_to_string(bed.at(name)).unwrap();
        if size == "4m" {
            outcome.ok();
            assert!(listed("after").len() > listed("before").len(), "{outcome}");
        } else {
            let said = outcome.failed();
            assert!(said.contains("No space left"), "{size}: {outcome}");
            assert_eq!(listed("after"), listed("before"), "{size}: {outcome}");
        }
    }
    bed.pcocc.verify();
}

#[test]
fn a_file_system_that_is_full_as_root() {
    let bed = Bed::new();
    let big = noise(60_000 * 32);
    Image::new(&[file_layer("small", b"s"), file_layer("big", &big)]).write(&bed.at("big"));
    let repository = bed.pcocc.repository().display().to_string();
    // What is in the tmpfs is gone with the namespace: it must be looked at from within.
    let look = format!(
        "find '{repository}' -type f | sort > found-before; \"$0\" \"$@\"; code=$?; \
         find '{repository}' -type f | sort > found-after; \
         \"$0\" image repo verify user >&2 || exit 99; exit $code"
    );
    let pcocc = bed.pcocc.command(&[]);
    {
        let script = format!(
            "cp -a '{repository}' kept && mount -t tmpfs -o size=1m none '{repository}' && \
             cp -a kept/. '{repository}' && rm -r kept; {look}"
        );
        let mut command = bed.pcocc.any("unshare");
        command
            .args(["-m", "sh", "-c", &script])
            .arg(pcocc.get_program());
        command.args(["image", "import", "oci:big", "bad"]);
        let outcome = run(&mut command);
        assert_eq!(outcome.status.code(), Some(1), "{outcome}");
        let said = outcome.failed();
        assert!(said.contains("No space left"), "{outcome}");
        assert_eq!(
            fs::read_to_string(bed.at("found-after")).unwrap(),
            fs::read_to_string(bed.at("found-before")).unwrap(),
            "{outcome}"
        );
    }
    let mount = "mkdir small && mount -t tmpfs -o size=1m none small";
    for dest in ["docker-archive:small/out.tar", "oci:small/out"] {
        bed.pcocc.try_run(&["image", "import", "oci:big", "big"]);
        let script = format!(
            "{mount}; \"$0\" \"$@\"; code=$?; ls -A small > left; umount small; rmdir small; exit $code"
        );
        let mut command = bed.pcocc.any("unshare");
        command
            .args(["-m", "sh", "-c", &script])
            .arg(pcocc.get_program());
        command.args(["image", "export", "big", dest]);
        let outcome = run(&mut command);
        assert!(outcome.failed().contains("No space left"), "{outcome}");
        assert_eq!(fs::read_to_string(bed.at("left")).unwrap(), "");
    }
    bed.pcocc.verify();
}
