//! What each tool does to the tree, and that it leaves exactly one image.

use std::time::{Duration, Instant};

use pcocc_image::Error;

use super::driver::{Order, Tool, World, world, world_with};
use crate::errno::Errno;
use crate::status::Gauges;
use crate::tree::Lookup;

fn assert_idle(world: &World, tool: &Tool) {
    tool.let_go();
    assert_eq!(world.tree.gauges(), Gauges::default());
}

#[test]
fn copies_in_any_order_in_both_directions_make_one_image() {
    for order in [Order::Number, Order::Listing, Order::Reverse] {
        let world = world();
        let tool = world.tool();
        tool.copy_tree("repo/user/centos", "docker/work", order)
            .unwrap();
        tool.copy_tree("docker/bb", "repo/user/newbb", order)
            .unwrap();
        let id = world.user.get("centos").unwrap().id();
        assert_eq!(world.docker.get("work:latest").unwrap().id(), id);
        let id = world.docker.get("bb:latest").unwrap().id();
        assert_eq!(world.user.get("newbb").unwrap().id(), id);
        assert_eq!((world.docker.counts().2, world.user.counts().2), (1, 1));
        assert_eq!(
            tool.read("repo/user/centos/index.json").unwrap(),
            tool.read("docker/work/index.json").unwrap()
        );
        for folder in ["", "/blobs", "/blobs/sha256", "/index.json"] {
            tool.set_times(&format!("docker/work{folder}")).unwrap();
        }
        assert_idle(&world, &tool);
    }
}

#[test]
fn a_listing_never_exports() {
    let world = world();
    let tool = world.tool();
    assert_eq!(
        tool.names(""),
        ["README", ".pcocc", "docker", "repo", "rootfs"]
    );
    assert_eq!(tool.names("docker"), ["bb"]);
    assert_eq!(tool.names("rootfs/docker"), ["bb"]);
    assert_eq!(
        tool.names("docker/bb"),
        ["oci-layout", "blobs", "index.json"]
    );
    tool.find("docker/bb/oci-layout").unwrap();
    assert_eq!(world.docker.counts().1, 0);
    let numbers: Vec<u64> = tool
        .list("docker/bb")
        .unwrap()
        .iter()
        .map(|(number, ..)| *number)
        .collect();
    assert_eq!(numbers.iter().max(), numbers.last());
    assert_eq!(tool.names("docker/bb/blobs/sha256").len(), 3);
    tool.read("docker/bb/index.json").unwrap();
    assert_eq!(world.docker.counts().1, 1);
    assert!(!tool.exists("docker/nope"));
    assert!(tool.exists("docker/bb:latest/index.json"));
    assert_idle(&world, &tool);
}

#[test]
fn images_of_others_show_up_and_go() {
    let world = world();
    let tool = world.tool();
    assert_eq!(tool.names("repo/user"), ["centos"]);
    world.user.put("late", &[b"x"]).unwrap();
    assert_eq!(tool.names("repo/user"), ["centos", "late"]);
    assert!(tool.exists("repo/user/late"));
    let lists = world.user.counts().0;
    tool.names("repo/user");
    assert_eq!(world.user.counts().0, lists);
}

/// The blobs of the image, as paths in a layout and content.
fn files(world: &World) -> Vec<(String, Vec<u8>)> {
    let tool = world.tool();
    let mut files = vec![(
        "index.json".to_owned(),
        tool.read("repo/user/centos/index.json").unwrap(),
    )];
    for name in tool.names("repo/user/centos/blobs/sha256") {
        let path = format!("blobs/sha256/{name}");
        let content = tool.read(&format!("repo/user/centos/{path}")).unwrap();
        files.push((path, content));
    }
    files.push((
        "oci-layout".to_owned(),
        tool.read("repo/user/centos/oci-layout").unwrap(),
    ));
    files
}

#[test]
fn rsync_completes_with_the_rename_of_the_last_blob() {
    let world = world();
    let files = files(&world);
    let tool = world.tool();
    for folder in ["docker/r", "docker/r/blobs", "docker/r/blobs/sha256"] {
        tool.mkdir(folder).unwrap();
    }
    for (i, (path, content)) in files.iter().enumerate() {
        assert!(world.docker.get("r:latest").is_none());
        let (folder, name) = crate::naming::split(path);
        let temp = format!(
            "docker/r/{}.{name}.AbC{i}",
            if folder.is_empty() {
                String::new()
            } else {
                format!("{folder}/")
            }
        );
        tool.write(&temp, content).unwrap();
        tool.set_times(&temp).unwrap();
        tool.rename(&temp, &format!("docker/r/{path}")).unwrap();
    }
    assert!(world.docker.get("r:latest").is_some());
    for folder in ["docker/r/blobs/sha256", "docker/r/blobs", "docker/r"] {
        tool.set_times(folder).unwrap();
    }
    assert_eq!(world.docker.counts().2, 1);
    assert_idle(&world, &tool);
}

#[test]
fn skopeo_puts_blobs_at_the_top_and_renames_them() {
    let world = world();
    let mut files = files(&world);
    files.rotate_left(1);
    let tool = world.tool();
    tool.mkdir("docker/s:1").unwrap();
    for (i, (path, content)) in files.iter().enumerate() {
        if path.starts_with("blobs/") {
            let temp = format!("docker/s:1/oci-put-blob{i}");
            tool.write(&temp, content).unwrap();
            for folder in ["docker/s:1/blobs", "docker/s:1/blobs/sha256"] {
                if !tool.exists(folder) {
                    tool.mkdir(folder).unwrap();
                }
            }
            tool.rename(&temp, &format!("docker/s:1/{path}")).unwrap();
        } else {
            tool.write(&format!("docker/s:1/{path}"), content).unwrap();
        }
    }
    assert!(world.docker.get("s:1").is_some());
    assert_idle(&world, &tool);
}

#[test]
fn early_flushes_and_late_writers_do_no_harm() {
    let world = world();
    let files = files(&world);
    let tool = world.tool();
    for folder in ["docker/d", "docker/d/blobs", "docker/d/blobs/sha256"] {
        tool.mkdir(folder).unwrap();
    }
    let (index_path, index) = &files[0];
    for (path, content) in files.iter().skip(1) {
        // install: a flush at size 0 first.
        let handle = tool.open_write(&format!("docker/d/{path}")).unwrap();
        world.tree.flush(handle, std::process::id()).unwrap();
        world.tree.write(handle, 0, content).unwrap();
        tool.close(handle).unwrap();
    }
    // While a blob is being written again, the index completes nothing.
    let (path, content) = &files[1];
    let handle = tool.open_write(&format!("docker/d/{path}")).unwrap();
    tool.write(&format!("docker/d/{index_path}"), index)
        .unwrap();
    assert!(world.docker.get("d:latest").is_none());
    world.tree.write(handle, 0, content).unwrap();
    world.tree.flush(handle, std::process::id()).unwrap();
    assert!(world.docker.get("d:latest").is_some());
    // A second descriptor of the same handle, and what tar does afterwards.
    world.tree.flush(handle, std::process::id()).unwrap();
    world.tree.release(handle);
    tool.unlink("docker/d/oci-layout").unwrap();
    assert!(!tool.exists("docker/d/oci-layout"));
    tool.write("docker/d/oci-layout", &files.last().unwrap().1)
        .unwrap();
    tool.write("docker/d/index.json", index).unwrap();
    assert_eq!(
        tool.write("docker/d/index.json", b"{}").unwrap_err(),
        Errno::ROFS
    );
    assert_eq!(world.docker.counts().2, 1);
    assert_idle(&world, &tool);
}

#[test]
fn a_reference_moves_no_bytes_and_reads_the_same() {
    let world = world();
    let tool = world.tool();
    let layer = pcocc_layers::Digest::of(b"base layer").hex();
    for folder in ["docker/w", "docker/w/blobs", "docker/w/blobs/sha256"] {
        tool.mkdir(folder).unwrap();
    }
    let path = format!("docker/w/blobs/sha256/{layer}");
    tool.copy_file(&format!("repo/user/centos/blobs/sha256/{layer}"), &path)
        .unwrap();
    assert_eq!(tool.find(&path).unwrap().size, 10);
    assert_eq!(tool.read(&path).unwrap(), b"base layer");
    tool.write(&path, b"BASE").unwrap();
    assert_eq!(tool.read(&path).unwrap(), b"BASE");
    assert_eq!(
        tool.read(&format!("repo/user/centos/blobs/sha256/{layer}"))
            .unwrap(),
        b"base layer"
    );
}

#[test]
fn a_failed_commit_is_told_changes_nothing_and_can_be_tried_again() {
    let world = world();
    world.docker.fail_commits(Some(Box::new(|| Error::Daemon {
        action: "load".into(),
        message: "write /x: no space left on device".into(),
    })));
    let mut tool = world.other_tool();
    assert_eq!(
        tool.copy_tree("repo/user/centos", "docker/work", Order::Number),
        Err(Errno::NOSPC)
    );
    assert_eq!(world.docker.names(), ["bb:latest"]);
    let number = tool.find("docker").unwrap().number;
    let text = world
        .tree
        .attribute(number, std::ffi::OsStr::new("user.pcocc.error"))
        .unwrap();
    assert!(String::from_utf8_lossy(&text).contains("no space left"));
    assert!(
        String::from_utf8_lossy(&tool.read(".pcocc/status.json").unwrap()).contains("no space")
    );
    tool.kill();
    world.docker.fail_commits(None);
    let tool = world.tool();
    assert!(!tool.exists("docker/work"));
    tool.copy_tree("repo/user/centos", "docker/work", Order::Number)
        .unwrap();
    assert!(world.docker.get("work:latest").is_some());
    assert_idle(&world, &tool);
}

#[test]
fn a_rename_that_fails_to_commit_is_undone() {
    let world = world();
    let files = files(&world);
    world
        .docker
        .fail_commits(Some(Box::new(|| Error::Exists("u".into()))));
    let tool = world.tool();
    for folder in ["docker/u", "docker/u/blobs", "docker/u/blobs/sha256"] {
        tool.mkdir(folder).unwrap();
    }
    for (path, content) in &files[1..] {
        tool.write(&format!("docker/u/{path}"), content).unwrap();
    }
    tool.write("docker/u/.index.json.x", &files[0].1).unwrap();
    assert_eq!(
        tool.rename("docker/u/.index.json.x", "docker/u/index.json"),
        Err(Errno::EXIST)
    );
    assert!(tool.exists("docker/u/.index.json.x"));
    assert!(!tool.exists("docker/u/index.json"));
    world.docker.fail_commits(None);
    tool.rename("docker/u/.index.json.x", "docker/u/index.json")
        .unwrap();
    assert!(world.docker.get("u:latest").is_some());
}

#[test]
fn a_killed_copy_leaves_nothing_and_the_next_one_works() {
    let world = world();
    let files = files(&world);
    for stop in 0..=files.len() {
        let mut tool = world.other_tool();
        for folder in ["docker/k", "docker/k/blobs", "docker/k/blobs/sha256"] {
            tool.mkdir(folder).unwrap();
        }
        for (path, content) in files.iter().rev().take(stop.saturating_sub(1)) {
            tool.write(&format!("docker/k/{path}"), content).unwrap();
        }
        assert_eq!(tool.names("docker"), ["k", "bb"]);
        tool.kill();
        assert_eq!(world.tool().names("docker"), ["bb"]);
    }
    let tool = world.tool();
    tool.copy_tree("repo/user/centos", "docker/k", Order::Number)
        .unwrap();
    assert!(world.docker.get("k:latest").is_some());
    assert_idle(&world, &tool);
}

#[test]
fn an_interrupted_commit_stops_and_rolls_back() {
    let world = world();
    world.docker.delay_commits(Duration::from_secs(30));
    let mut tool = world.other_tool();
    let started = Instant::now();
    let tree = std::sync::Arc::clone(&world.tree);
    let watcher = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(200));
        tree.cancel_all();
    });
    assert_eq!(
        tool.copy_tree("repo/user/centos", "docker/i", Order::Number),
        Err(Errno::INTR)
    );
    watcher.join().unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert_eq!(world.docker.names(), ["bb:latest"]);
    tool.kill();
}

#[test]
fn the_same_name_twice_gives_one_image_and_an_error() {
    let world = world();
    let tool = world.tool();
    world.docker.delay_commits(Duration::from_millis(300));
    let docker = world.docker.clone();
    let thread = std::thread::spawn(move || {
        std::thread::sleep(Duration::from_millis(100));
        docker.put("two:latest", &[b"other"]).unwrap();
    });
    assert_eq!(
        tool.copy_tree("repo/user/centos", "docker/two", Order::Number),
        Err(Errno::EXIST)
    );
    thread.join().unwrap();
}

#[test]
fn renames_tag_and_removals_ask_for_permission() {
    let world = world();
    let tool = world.tool();
    let docker = tool.find("docker").unwrap().number;
    let bb = world.tree.lookup(docker, "bb".as_ref()).unwrap();
    let Lookup::Found(bb, _) = bb else {
        panic!("no bb");
    };
    tool.rename("docker/bb", "docker/renamed:2").unwrap();
    assert_eq!(world.docker.names(), ["renamed:2"]);
    // The kernel keeps the inode it has.
    assert_eq!(tool.find("docker/renamed:2").unwrap().number, bb.number);
    world.tree.forget(bb.number, 1);
    tool.read("docker/renamed:2/index.json").unwrap();
    assert_eq!(
        tool.rename("docker/renamed:2", "repo/user/x"),
        Err(Errno::XDEV)
    );
    assert_eq!(tool.unlink("docker/renamed:2/index.json"), Err(Errno::PERM));
    assert_eq!(tool.rmdir("docker/renamed:2"), Err(Errno::PERM));
}

#[test]
fn rm_removes_where_it_may_without_an_export() {
    let world = world_with(true);
    let tool = world.tool();
    tool.unlink("docker/bb/oci-layout").unwrap();
    assert_eq!(tool.names("docker/bb/blobs/sha256"), [""; 0]);
    tool.rmdir("docker/bb/blobs/sha256").unwrap();
    tool.rmdir("docker/bb/blobs").unwrap();
    // The kernel looks at what it removes.
    tool.find("docker/bb/index.json").unwrap();
    tool.unlink("docker/bb/index.json").unwrap();
    tool.rmdir("docker/bb").unwrap();
    assert!(world.docker.names().is_empty());
    assert_eq!(world.docker.counts().1, 0);
    assert_idle(&world, &tool);
}

#[test]
fn slashes_are_folders() {
    let world = world();
    let tool = world.tool();
    tool.mkdir("docker/localhost:5000").unwrap();
    tool.copy_tree(
        "repo/user/centos",
        "docker/localhost:5000/org",
        Order::Number,
    )
    .unwrap();
    assert_eq!(
        world.docker.names(),
        ["bb:latest", "localhost:5000/org:latest"]
    );
    assert_eq!(tool.names("docker"), ["localhost:5000", "bb"]);
    tool.copy_tree("docker/bb", "docker/localhost:5000/two:1", Order::Listing)
        .unwrap();
    assert_eq!(tool.names("docker/localhost:5000"), ["org", "two:1"]);
    world.docker.put("bb/sub:3", &[b"x"]).unwrap();
    assert_eq!(tool.names("docker/bb"), ["sub:3"]);
    assert!(tool.exists("docker/bb:latest/index.json"));
}
