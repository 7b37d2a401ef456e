//! Random requests against the tree: nothing panics, nothing half-made is visible, and everything
//! that was held is given back.

use proptest::prelude::*;

use super::driver::{Order, Tool, world_with};
use crate::errno::Errno;
use crate::status::Gauges;

#[derive(Clone, Debug)]
enum Step {
    Mkdir(String),
    Write(String, Vec<u8>),
    Read(String),
    Copy(String, String),
    CopyTree(String, String),
    Rename(String, String),
    Unlink(String),
    Rmdir(String),
    List(String),
    Times(String),
    FailCommits(bool),
}

fn path() -> impl Strategy<Value = String> {
    let top = prop::sample::select(vec![
        "docker",
        "repo/user",
        "repo",
        "rootfs/docker",
        "",
        "docker/new",
        "docker/bb",
        "repo/user/centos",
        "repo/user/new",
    ]);
    let name = prop::sample::select(vec![
        "new",
        "bb",
        "centos",
        "blobs",
        "blobs/sha256",
        "index.json",
        "oci-layout",
        ".tmp.1",
        "x:1",
        "a b",
        "..",
        "sha256",
        "blobs/sha256/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ]);
    (top, name).prop_map(|(top, name)| crate::naming::join(top, name))
}

fn step() -> impl Strategy<Value = Step> {
    let content = prop_oneof![
        Just(Vec::new()),
        Just(br#"{"imageLayoutVersion":"1.0.0"}"#.to_vec()),
        Just(br#"{"schemaVersion":2,"manifests":[]}"#.to_vec()),
        prop::collection::vec(any::<u8>(), 0..40),
    ];
    prop_oneof![
        path().prop_map(Step::Mkdir),
        (path(), content).prop_map(|(path, bytes)| Step::Write(path, bytes)),
        path().prop_map(Step::Read),
        (path(), path()).prop_map(|(a, b)| Step::Copy(a, b)),
        (path(), path()).prop_map(|(a, b)| Step::CopyTree(a, b)),
        (path(), path()).prop_map(|(a, b)| Step::Rename(a, b)),
        path().prop_map(Step::Unlink),
        path().prop_map(Step::Rmdir),
        path().prop_map(Step::List),
        path().prop_map(Step::Times),
        any::<bool>().prop_map(Step::FailCommits),
    ]
}

fn take(tool: &Tool, step: &Step) -> Result<(), Errno> {
    match step {
        Step::Mkdir(path) => tool.mkdir(path),
        Step::Write(path, bytes) => tool.write(path, bytes),
        Step::Read(path) => tool.read(path).map(drop),
        Step::Copy(from, to) => tool.write(to, &tool.read(from)?),
        Step::CopyTree(from, to) => tool.copy_tree(from, to, Order::Listing),
        Step::Rename(from, to) => tool.rename(from, to),
        Step::Unlink(path) => tool.unlink(path),
        Step::Rmdir(path) => tool.rmdir(path),
        Step::List(path) => tool.list(path).map(drop),
        Step::Times(path) => tool.set_times(path),
        Step::FailCommits(_) => Ok(()),
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 150, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn nothing_is_left(steps in prop::collection::vec(step(), 1..40), delete in any::<bool>()) {
        let world = world_with(delete);
        let mut tool = world.other_tool();
        for step in &steps {
            if let Step::FailCommits(fail) = step {
                let fault = || pcocc_image::Error::Exists("it".into());
                world.docker.fail_commits(fail.then(|| Box::new(fault) as _));
            }
            // Any errno is fine; a panic is not.
            let _ = take(&tool, step);
        }
        tool.kill();
        let tool = world.tool();
        world.tree.collect();
        for (path, store) in [("docker", &world.docker), ("repo/user", &world.user)] {
            // Every image is whole.
            for name in tool.names(path) {
                if tool.names(&format!("{path}/{name}")).iter().any(|part| part == "index.json") {
                    tool.read(&format!("{path}/{name}/index.json")).unwrap();
                }
            }
            for name in store.names() {
                prop_assert!(store.get(&name).is_some());
            }
        }
        tool.let_go();
        prop_assert_eq!(world.tree.gauges(), Gauges::default());
    }
}
