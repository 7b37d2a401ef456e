//! Folders that others can write to: links, pipes, devices, foreign images and damaged blobs in a repository. Nothing is
//! followed, believed or waited for: a command that waits is ended by the time limit of the tests.

mod sandbox;

use std::fs::{self, File};
use std::io::Write as _;
use std::os::unix::fs::{PermissionsExt as _, chown, symlink};
use std::os::unix::process::CommandExt as _;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, SystemTime};

use pcocc_image::oci::{Image, Layer};
use pcocc_image::repository::{Meta, Repository};
use pcocc_layers::compression::GzipWriter;
use pcocc_layers::{Compression, DiffId, Digest};
use sandbox::Sandbox;
use sandbox::images::{container, moment, put};

/// A repository of the sandbox's home with the image `good`, and its folder.
fn with_image(sandbox: &Sandbox) -> PathBuf {
    let path = sandbox.home().join(".pcocc/images");
    container(&path, "good", "doe");
    path
}

fn mkfifo(path: &Path) {
    assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
}

fn make_old(path: &Path) {
    let old = SystemTime::now() - Duration::from_secs(30 * 24 * 3600);
    File::open(path).unwrap().set_modified(old).unwrap();
}

/// A tar archive of the file `name`.
fn tar(name: &str, content: &[u8]) -> Vec<u8> {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join(name), content).unwrap();
    let options = ["--mtime=@0", "--owner=0", "--group=0", "-cf", "-"];
    let mut command = Command::new("tar");
    command.args(options).arg("-C").arg(folder.path()).arg(name);
    let packed = command.output().unwrap();
    assert!(packed.status.success());
    packed.stdout
}

fn gzip(tar: &[u8]) -> Vec<u8> {
    let mut writer = GzipWriter::new(Vec::new(), 1);
    writer.write_all(tar).unwrap();
    writer.finish().unwrap()
}

/// An image whose config says that its layer holds `claimed`, and the layer, which holds `content`.
fn image(claimed: &[u8], content: &[u8]) -> (Image, Vec<u8>) {
    let blob = gzip(content);
    let layer = Layer {
        digest: Digest::of(&blob),
        size: blob.len() as u64,
        compression: Compression::Gzip,
        diff_id: DiffId(Digest::of(claimed)),
    };
    let config = serde_json::json!({
        "architecture": "amd64",
        "os": "linux",
        "config": {"Cmd": ["/p"]},
        "rootfs": {"type": "layers", "diff_ids": [layer.diff_id]},
    });
    let image = Image::assemble(config.to_string().into_bytes(), vec![layer]).unwrap();
    (image, blob)
}

/// Puts the image `planted` into the repository at `path`: it has the config of an image of `claimed`, and `content`.
fn plant(path: &Path, claimed: &[u8], content: &[u8]) -> Image {
    let repository = Repository::new("fixture", path);
    repository.check_writable().unwrap();
    let (image, blob) = image(claimed, content);
    for content in [&blob, image.manifest(), image.config()] {
        put(&repository, content);
    }
    let meta = Meta::container("planted", "mallory", moment(), &image, None).unwrap();
    repository.publish(&meta).unwrap();
    image
}

/// Writes a docker archive of one layer to `path`.
fn archive(path: &Path, layer: &[u8]) {
    let (image, _) = image(layer, layer);
    let folder = tempfile::tempdir().unwrap();
    let at = |name: &str| folder.path().join(name);
    fs::write(at("layer.tar"), layer).unwrap();
    fs::write(at("config.json"), image.config()).unwrap();
    let manifest = serde_json::json!([
        {"Config": "config.json", "RepoTags": ["x:latest"], "Layers": ["layer.tar"]}
    ]);
    fs::write(at("manifest.json"), manifest.to_string()).unwrap();
    let mut command = Command::new("tar");
    command.arg("-cf").arg(path).arg("-C").arg(folder.path());
    let packed = command
        .args(["layer.tar", "config.json", "manifest.json"])
        .status();
    assert!(packed.unwrap().success());
}

#[test]
fn cleaning_a_repository_deletes_nothing_behind_a_link() {
    for name in [".tmp", "data", "data/aa", "meta"] {
        let sandbox = Sandbox::new();
        let repository = with_image(&sandbox);
        let elsewhere = sandbox.home().join("elsewhere");
        let precious = [
            elsewhere.join("precious"),
            // As blobs are named.
            elsewhere.join("aa").join("a".repeat(64)),
            elsewhere.join("a".repeat(64)),
        ];
        for file in &precious {
            fs::create_dir_all(file.parent().unwrap()).unwrap();
            fs::write(file, "precious").unwrap();
            make_old(file);
        }
        let link = repository.join(name);
        if link.exists() {
            fs::remove_dir_all(&link).unwrap();
        }
        symlink(&elsewhere, &link).unwrap();
        let shown = sandbox.run(&["image", "repo", "gc", "--grace", "0", "user"]);
        assert!(shown.err.contains(name), "{}", shown.all());
        assert!(shown.err.contains("symbolic link"), "{}", shown.all());
        for file in &precious {
            assert!(file.exists(), "{name}: {}", file.display());
        }
        let shown = sandbox.run(&["image", "repo", "verify", "user"]);
        assert!(name == ".tmp" || shown.code == Some(1), "{}", shown.all());
        sandbox.run(&["image", "list"]);
        sandbox.run(&["image", "delete", "good"]);
        assert!(precious.iter().all(|file| file.exists()), "{name}");
    }
}

#[test]
fn pipes_and_devices_hold_nothing_up() {
    let sandbox = Sandbox::new();
    let repository = with_image(&sandbox);
    let config = repository.join(".config");
    let kept = fs::read(&config).unwrap();
    for (make, words) in [
        (mkfifo as fn(&Path), "is not a regular file"),
        (|path| symlink("/dev/zero", path).unwrap(), "symbolic link"),
        (
            |path| fs::create_dir(path).unwrap(),
            "is not a regular file",
        ),
    ] {
        fs::remove_file(&config).unwrap();
        make(&config);
        for args in [
            &["image", "list"][..],
            &["image", "show", "good"],
            &["image", "repo", "gc", "user"],
            &["image", "repo", "verify", "user"],
        ] {
            let shown = sandbox.run(args);
            assert_eq!(shown.code, Some(1), "{}", shown.all());
            assert!(shown.err.contains(".config"), "{}", shown.all());
            assert!(shown.err.contains(words), "{}", shown.all());
        }
        let _ = fs::remove_file(&config).or_else(|_| fs::remove_dir(&config));
        fs::write(&config, &kept).unwrap();
    }
    // In place of a blob: the pipe is a problem, and garbage.
    let blob = repository.join("data/00").join("0".repeat(64));
    fs::create_dir_all(blob.parent().unwrap()).unwrap();
    for make in [mkfifo as fn(&Path), |path| {
        symlink("/dev/zero", path).unwrap()
    }] {
        make(&blob);
        let shown = sandbox.run(&["image", "repo", "verify", "user"]);
        assert_eq!(shown.code, Some(1), "{}", shown.all());
        assert!(shown.out.contains(&"0".repeat(64)), "{}", shown.all());
        sandbox.run(&["image", "list"]).ok();
        sandbox
            .run(&["image", "repo", "gc", "--grace", "0", "user"])
            .ok();
        assert!(fs::symlink_metadata(&blob).is_err());
    }
    // In place of a blob that an image needs.
    let layer = tar("p", b"p");
    plant(&repository, &layer, &layer);
    let id = repository.join("meta/planted@0");
    let meta: serde_json::Value = serde_json::from_slice(&fs::read(&id).unwrap()).unwrap();
    for digest in meta["data_blobs"].as_array().unwrap() {
        let hex = digest.as_str().unwrap().trim_start_matches("sha256:");
        let blob = repository.join("data").join(&hex[..2]).join(hex);
        let aside = repository.join("aside");
        fs::rename(&blob, &aside).unwrap();
        mkfifo(&blob);
        let shown = sandbox.run(&["image", "export", "planted", "docker-archive:out.tar"]);
        assert_eq!(shown.code, Some(1), "{}", shown.all());
        assert!(
            shown.err.contains("is not a regular file"),
            "{}",
            shown.all()
        );
        fs::rename(&aside, &blob).unwrap();
    }
    // In place of metadata, and of work in progress.
    for name in ["meta/pipe@0", ".tmp/pipe"] {
        mkfifo(&repository.join(name));
        let shown = sandbox.run(&["image", "list"]);
        assert!(shown.out.contains("good"), "{}", shown.all());
        sandbox.run(&["image", "repo", "gc", "user"]);
        fs::remove_file(repository.join(name)).unwrap();
    }
}

#[test]
fn a_layer_that_is_another_than_the_config_says_is_found_out() {
    let sandbox = Sandbox::new();
    let repository = sandbox.home().join(".pcocc/images");
    let (good, evil) = (tar("p", b"GOOD"), tar("p", b"EVIL"));
    plant(&repository, &good, &evil);
    let shown = sandbox.run(&["image", "repo", "verify", "user"]);
    assert_eq!(shown.code, Some(1), "{}", shown.all());
    let diff_id = Digest::of(&good).to_string();
    assert!(
        shown.out.contains("image user:planted@0"),
        "{}",
        shown.all()
    );
    assert!(shown.out.contains(&diff_id), "{}", shown.all());
    let blob = Digest::of(&gzip(&evil));
    for dest in ["oci:out", "docker-archive:out.tar", "oci:there:one"] {
        // A layout that has the layer already, as one of another image.
        let layer = sandbox.home().join("there/blobs/sha256").join(blob.hex());
        fs::create_dir_all(layer.parent().unwrap()).unwrap();
        fs::write(layer, gzip(&evil)).unwrap();
        sandbox.write("there/oci-layout", r#"{"imageLayoutVersion":"1.0.0"}"#);
        sandbox.write("there/index.json", r#"{"schemaVersion":2,"manifests":[]}"#);
        let shown = sandbox.run(&["image", "export", "planted", dest]);
        assert_eq!(shown.code, Some(1), "{dest}: {}", shown.all());
        assert!(shown.err.contains(&diff_id), "{dest}: {}", shown.all());
        let index = fs::read_to_string(sandbox.home().join("there/index.json")).unwrap();
        assert!(index.contains(r#""manifests":[]"#), "{index}");
    }
    for name in ["out", "out.tar"] {
        assert!(!sandbox.home().join(name).exists(), "{name}");
    }
}

#[test]
fn an_import_replaces_a_damaged_blob() {
    let sandbox = Sandbox::new();
    let layer = tar("p", &vec![b'x'; 300_000]);
    archive(&sandbox.home().join("i.tar"), &layer);
    let import = |name: &str| {
        sandbox
            .run(&["image", "import", "docker-archive:i.tar", name])
            .ok()
    };
    import("a");
    sandbox.run(&["image", "delete", "a"]).ok();
    let data = sandbox.home().join(".pcocc/images/data");
    let mut damaged = 0;
    for folder in fs::read_dir(&data).unwrap() {
        for blob in fs::read_dir(folder.unwrap().path()).unwrap() {
            let path = blob.unwrap().path();
            let mut content = fs::read(&path).unwrap();
            let middle = content.len() / 2;
            content[middle] ^= 0xff;
            fs::remove_file(&path).unwrap();
            fs::write(&path, content).unwrap();
            damaged += 1;
        }
    }
    assert_eq!(damaged, 3);
    fs::remove_dir_all(sandbox.home().join(".pcocc/cache")).unwrap();
    import("b");
    sandbox.run(&["image", "repo", "verify", "user"]).ok();
    // A layout folder, which is written to by name, the same.
    let export = |name: &str| sandbox.run(&["image", "export", "b", name]);
    export("oci:out:one").ok();
    for blob in fs::read_dir(sandbox.home().join("out/blobs/sha256")).unwrap() {
        let path = blob.unwrap().path();
        let size = fs::metadata(&path).unwrap().len();
        fs::write(&path, vec![b'!'; usize::try_from(size).unwrap()]).unwrap();
    }
    export("oci:out:two").ok();
    sandbox.run(&["image", "import", "oci:out:two", "c"]).ok();
    sandbox.run(&["image", "repo", "verify", "user"]).ok();
}

#[test]
fn a_disk_gives_no_file_of_whoever_exports_it_away() {
    let sandbox = Sandbox::new();
    let secret = sandbox.home().join("id_rsa");
    fs::write(&secret, vec![b'k'; 65536]).unwrap();
    let repository = Repository::new("fixture", sandbox.home().join(".pcocc/images"));
    repository.check_writable().unwrap();
    let qemu_img = |args: &[&str]| {
        let mut command = Command::new("qemu-img");
        let status = command.args(args).current_dir(sandbox.home()).output();
        assert!(status.unwrap().status.success(), "{args:?}");
    };
    let plant = |name: &str, blobs: &[Digest]| {
        let meta = Meta::virtual_machine(name, 0, "mallory", moment(), blobs).unwrap();
        repository.publish(&meta).unwrap();
    };
    let secret = secret.to_str().unwrap();
    qemu_img(&[
        "create", "-q", "-u", "-f", "qcow2", "-F", "raw", "-b", secret, "d.qcow2", "65536",
    ]);
    let disk = put(
        &repository,
        &fs::read(sandbox.home().join("d.qcow2")).unwrap(),
    );
    plant("disk", &[disk]);
    qemu_img(&[
        "create",
        "-q",
        "-f",
        "qcow2",
        "-o",
        "data_file=data,data_file_raw=on",
        "e.qcow2",
        "65536",
    ]);
    let other = put(
        &repository,
        &fs::read(sandbox.home().join("e.qcow2")).unwrap(),
    );
    plant("elsewhere", &[other]);
    for name in ["disk", "elsewhere"] {
        for args in [
            &["image", "export", name, "out.raw"][..],
            &["docker", "guest", "show", name],
        ] {
            let shown = sandbox.run(args);
            assert_eq!(shown.code, Some(1), "{}", shown.all());
            assert!(shown.err.contains(name), "{}", shown.all());
            assert!(!sandbox.home().join("out.raw").exists(), "{args:?}");
        }
    }
    // What the metadata names may be below, whatever folder the header says.
    fs::write(sandbox.home().join("bottom.raw"), vec![b'b'; 65536]).unwrap();
    qemu_img(&[
        "convert",
        "-f",
        "raw",
        "-O",
        "qcow2",
        "bottom.raw",
        "bottom.qcow2",
    ]);
    let bottom = put(
        &repository,
        &fs::read(sandbox.home().join("bottom.qcow2")).unwrap(),
    );
    let named = format!("../xx/{}", bottom.hex());
    qemu_img(&[
        "create",
        "-q",
        "-u",
        "-f",
        "qcow2",
        "-F",
        "qcow2",
        "-b",
        &named,
        "top.qcow2",
        "65536",
    ]);
    let top = put(
        &repository,
        &fs::read(sandbox.home().join("top.qcow2")).unwrap(),
    );
    plant("chain", &[bottom, top]);
    sandbox.run(&["image", "export", "chain", "out.raw"]).ok();
    assert_eq!(
        fs::read(sandbox.home().join("out.raw")).unwrap(),
        vec![b'b'; 65536]
    );
    plant("cut", &[top]);
    let shown = sandbox.run(&["image", "export", "cut", "cut.raw"]);
    assert!(shown.err.contains(&bottom.hex()), "{}", shown.all());
}

#[test]
fn an_image_that_somebody_else_planted_is_not_recalled_as_root() {
    const VICTIM: u32 = 2001;
    const MALLORY: u32 = 2002;
    let sandbox = Sandbox::new();
    let shared = sandbox.home().join("shared");
    let (good, evil) = (tar("p", b"GOOD"), tar("p", b"EVIL"));
    let planted = plant(&shared, &good, &evil);
    archive(&sandbox.home().join("good.tar"), &good);
    let yaml = format!("repos: [{{name: shared, path: {}}}]\n", shared.display());
    sandbox.write(".pcocc/repos.yaml", yaml);
    let owned = |path: &Path, owner: u32| {
        let owner = format!("{owner}:{owner}");
        let status = Command::new("chown")
            .arg("-R")
            .arg(owner)
            .arg(path)
            .status();
        assert!(status.unwrap().success());
    };
    owned(&sandbox.home(), VICTIM);
    owned(&shared, MALLORY);
    for folder in ["", "meta", "data", ".tmp"] {
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(shared.join(folder), open).unwrap();
    }
    for folder in fs::read_dir(shared.join("data")).unwrap() {
        let open = fs::Permissions::from_mode(0o777);
        fs::set_permissions(folder.unwrap().path(), open).unwrap();
    }
    let root = sandbox.home().parent().unwrap().to_owned();
    fs::set_permissions(&root, fs::Permissions::from_mode(0o755)).unwrap();
    let victim = |args: &[&str]| {
        let mut command = sandbox.command(args);
        // The program may be in a folder that is root's alone.
        command
            .uid(VICTIM)
            .gid(VICTIM)
            .env("TMPDIR", sandbox.home());
        command.output().unwrap()
    };
    let output = victim(&["image", "import", "docker-archive:good.tar", "shared:mine"]);
    assert!(output.status.success(), "{output:?}");
    let repository = Repository::new("shared", &shared);
    let meta = repository.meta("mine", None).unwrap();
    let image = repository.image(&meta).unwrap();
    assert_eq!(image.id(), planted.id());
    assert_ne!(image.layers()[0].digest, planted.layers()[0].digest);
    chown(&shared, Some(0), Some(0)).unwrap();
    let output = victim(&["image", "export", "shared:mine", "oci:out"]);
    assert!(output.status.success(), "{output:?}");
}

#[test]
fn a_cache_that_others_can_write_to_is_passed_over() {
    let sandbox = Sandbox::new();
    archive(&sandbox.home().join("i.tar"), &tar("p", b"x"));
    let cache = sandbox.home().join("open/cache");
    fs::create_dir_all(&cache).unwrap();
    let yaml = format!(
        "repos: [{{name: user, path: {}}}]\ncache: {{path: {}}}\n",
        sandbox.home().join("images").display(),
        cache.display()
    );
    sandbox.write(".pcocc/repos.yaml", yaml);
    let open = sandbox.home().join("open");
    for (mode, name) in [(0o777, "a"), (0o1777, "b"), (0o755, "c")] {
        fs::set_permissions(&open, fs::Permissions::from_mode(mode)).unwrap();
        let shown = sandbox.run(&["image", "import", "docker-archive:i.tar", name]);
        assert_eq!(shown.code, Some(0), "{}", shown.all());
        let warned = shown
            .err
            .contains("[ROOT]/home/open can be written to by other users");
        assert_eq!(warned, mode == 0o777, "{}", shown.all());
        let is_filled = fs::read_dir(&cache).unwrap().count() > 0;
        assert_eq!(is_filled, mode != 0o777);
    }
}
