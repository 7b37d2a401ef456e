//! What cannot become an image is refused at the first step, and says so.

use std::fs;
use std::path::Path;

use pcocc_image::Error;
use pcocc_image::layout::{LayoutFolder, LayoutSink};
use pcocc_image::oci::{MAX_NESTING, Platform};
use pcocc_image::testing::memory::MemoryImage;
use pcocc_image::transfer::{Context, Layout, copy};
use pcocc_layers::{Compression, Digest};
use serde_json::{Value, json};

use super::driver::{Order, world};
use crate::errno::Errno;

#[test]
fn folders_that_cannot_be_images() {
    let world = world();
    let tool = world.tool();
    for (path, errno) in [
        ("repo/user/has space", Errno::INVAL),
        ("repo/user/a:b", Errno::INVAL),
        ("repo/user/.hidden", Errno::INVAL),
        ("repo/other", Errno::PERM),
        ("new", Errno::PERM),
        ("repo/user/centos", Errno::EXIST),
        ("docker/bb", Errno::EXIST),
        ("docker/bb:latest", Errno::EXIST),
        ("repo/user/centos/busybox", Errno::EXIST),
        ("repo/user/centos/.umoci-1", Errno::ROFS),
        ("docker/bb/busybox", Errno::ROFS),
        ("repo/user/centos/blobs/x", Errno::ROFS),
        ("rootfs/docker/x", Errno::ROFS),
    ] {
        let made = tool.mkdir(path);
        assert_eq!(made, Err(errno), "{path}");
    }
    tool.mkdir("repo/user/r1").unwrap();
    assert_eq!(tool.mkdir("repo/user/r1/busybox"), Err(Errno::INVAL));
    assert_eq!(tool.write("repo/user/r1/file", b"x"), Err(Errno::INVAL));
    tool.mkdir("docker/r2").unwrap();
    tool.mkdir("docker/r2/blobs").unwrap();
    assert_eq!(tool.mkdir("docker/r2/busybox"), Err(Errno::INVAL));
    assert_eq!(tool.mkdir("docker/r2/blobs/sha512"), Err(Errno::INVAL));
    for path in ["docker/file", "repo/user/file", "file", "repo/file"] {
        assert_eq!(tool.write(path, b"x"), Err(Errno::PERM), "{path}");
    }
    assert_eq!(
        tool.write("repo/user/centos/index.json", b"x"),
        Err(Errno::ROFS)
    );
    assert_eq!(tool.set_times("repo/user/centos"), Err(Errno::ROFS));
}

#[test]
fn a_daemon_that_is_gone_leaves_the_rest() {
    let world = world();
    let tool = world.tool();
    world
        .docker
        .fail_lists(Some(Box::new(|| Error::Unreachable {
            endpoint: "unix:///x".into(),
            why: "is gone".into(),
        })));
    assert_eq!(tool.list("docker").unwrap_err(), Errno::NOTCONN);
    assert_eq!(tool.find("docker/bb").unwrap_err(), Errno::NOTCONN);
    assert_eq!(tool.mkdir("docker/new"), Err(Errno::NOTCONN));
    assert_eq!(tool.names("repo/user"), ["centos"]);
    world.docker.fail_lists(None);
    assert_eq!(tool.names("docker"), ["bb"]);
}

/// A layout's files, one of them changed.
#[test]
fn corrupt_copies_fail_and_leave_nothing() {
    let layer = format!("blobs/sha256/{}", Digest::of(b"base layer").hex());
    for (path, content, errno) in [
        (layer.as_str(), &b"BASE LAYER"[..], Errno::IO),
        (&layer, b"base", Errno::IO),
        (&layer, b"base layer and more", Errno::IO),
        ("index.json", b"{\"schemaVersion\":2,\"manif", Errno::INVAL),
        ("index.json", b"[]", Errno::INVAL),
        (
            "oci-layout",
            b"{\"imageLayoutVersion\":\"9\"}",
            Errno::INVAL,
        ),
        ("oci-layout", b"what?", Errno::INVAL),
    ] {
        let world = world();
        let tool = world.tool();
        let mut files = vec!["oci-layout".to_owned(), "index.json".to_owned()];
        for name in tool.names("repo/user/centos/blobs/sha256") {
            files.insert(0, format!("blobs/sha256/{name}"));
        }
        for folder in ["docker/c", "docker/c/blobs", "docker/c/blobs/sha256"] {
            tool.mkdir(folder).unwrap();
        }
        let mut result = Ok(());
        for file in files {
            let good = tool.read(&format!("repo/user/centos/{file}")).unwrap();
            let bytes = if file == path { content } else { &good };
            result = result.and(tool.write(&format!("docker/c/{file}"), bytes));
        }
        assert_eq!(result, Err(errno), "{path}");
        assert_eq!(world.docker.names(), ["bb:latest"]);
        // The right file in its place makes it an image after all.
        let good = tool.read(&format!("repo/user/centos/{path}")).unwrap();
        tool.write(&format!("docker/c/{path}"), &good).unwrap();
        assert!(world.docker.get("c:latest").is_some(), "{path}");
    }
}

/// Writes an OCI layout whose manifest lies below `nesting` indexes, apart from `index.json`.
fn nested_layout(folder: &Path, nesting: usize) {
    let image = MemoryImage::new(&[b"nested"], Compression::None);
    copy(&image, &LayoutSink::new(folder, None), &Context::silent()).unwrap();
    let path = folder.join("index.json");
    for _ in 0..nesting {
        let mut index: Value = serde_json::from_slice(&fs::read(&path).unwrap()).unwrap();
        let bytes = index.to_string().into_bytes();
        let digest = Digest::of(&bytes);
        index["manifests"] = json!([{
            "mediaType": "application/vnd.oci.image.index.v1+json",
            "digest": digest.to_string(), "size": bytes.len(),
        }]);
        fs::write(folder.join("blobs/sha256").join(digest.hex()), bytes).unwrap();
        fs::write(&path, index.to_string()).unwrap();
    }
}

#[test]
fn a_copy_takes_what_an_import_of_the_layout_takes() {
    for nesting in [0, 1, MAX_NESTING, MAX_NESTING + 1] {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("layout");
        nested_layout(&folder, nesting);
        let imported = LayoutFolder::open(&folder, None, Platform::host())
            .and_then(|layout| layout.image(&Context::silent()))
            .map(|image| image.id());
        assert_eq!(imported.is_ok(), nesting <= MAX_NESTING);
        let world = world();
        let tool = world.tool();
        for made in ["docker/n", "docker/n/blobs", "docker/n/blobs/sha256"] {
            tool.mkdir(made).unwrap();
        }
        let mut files = vec!["oci-layout".to_owned()];
        for blob in fs::read_dir(folder.join("blobs/sha256")).unwrap() {
            let name = blob.unwrap().file_name();
            files.push(format!("blobs/sha256/{}", name.to_str().unwrap()));
        }
        for file in files {
            let content = fs::read(folder.join(&file)).unwrap();
            tool.write(&format!("docker/n/{file}"), &content).unwrap();
        }
        let index = fs::read(folder.join("index.json")).unwrap();
        let copied = tool.write("docker/n/index.json", &index);
        let copied = copied.map(|()| world.docker.get("n:latest").unwrap().id());
        assert_eq!(copied.ok(), imported.ok(), "{nesting} nested indexes");
    }
}

#[test]
fn stale_numbers_and_handles_are_errors() {
    let world = world();
    let tree = &world.tree;
    let mut buffer = [0; 4];
    assert_eq!(tree.attributes(99).unwrap_err(), Errno::STALE);
    assert_eq!(tree.open_dir(99).unwrap_err(), Errno::STALE);
    assert_eq!(tree.read(99, 0, &mut buffer), Err(Errno::BADF));
    assert_eq!(tree.write(99, 0, b"x"), Err(Errno::BADF));
    assert_eq!(tree.flush(99, 1), Err(Errno::BADF));
    tree.release(99);
    tree.forget(99, 7);
    let rootfs = 1 << 62 | 3 << 48 | 5;
    assert_eq!(tree.attributes(rootfs).unwrap_err(), Errno::STALE);
}

#[test]
fn an_image_that_moved_on_is_stale() {
    let world = world();
    let tool = world.tool();
    let number = tool.find("repo/user/centos/index.json").unwrap().number;
    tool.copy_tree("repo/user/centos", "repo/user/other", Order::Number)
        .unwrap();
    assert!(world.tree.attributes(number).is_err());
}
