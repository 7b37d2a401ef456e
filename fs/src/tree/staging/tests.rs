//! How long folders without their makers, and removed files, are remembered.

use std::process::{Child, Command};

use super::*;
use crate::tree::TreeOptions;

fn tree() -> Tree {
    Tree::new(None, Vec::new(), TreeOptions::default())
}

/// A process of a program that is called so.
fn program(folder: &tempfile::TempDir, name: &str) -> (Child, Process) {
    let path = folder.path().join(name);
    std::fs::copy("/bin/sleep", &path).unwrap();
    let child = Command::new(&path).arg("60").spawn().unwrap();
    let process = Process::of_thread(child.id());
    assert_eq!(process.program(), name);
    (child, process)
}

#[test]
fn what_mkdir_made_is_kept_for_ten_minutes_and_what_others_made_until_they_end() {
    let folder = tempfile::tempdir().unwrap();
    for (name, kept) in [("mkdir", true), ("cp", false)] {
        let tree = tree();
        let (mut child, maker) = program(&folder, name);
        let image = StagedFolder::new(0, "image", maker);
        assert!(tree.staging.add("image", &image));
        tree.staging.make_folder(0, "names", maker);
        let there = |path| tree.staging.find(0, path).is_some();
        tree.collect_abandoned(None);
        assert!(there("image") && there("names"), "{name}");
        child.kill().unwrap();
        child.wait().unwrap();
        let age = |seconds| {
            let then = Instant::now() - Duration::from_secs(seconds);
            image.state().touched = then;
            if let Some(made) = tree.staging.0.lock().made.get_mut(&(0, "names".into())) {
                made.at = then;
            }
            tree.collect_abandoned(None);
        };
        age(590);
        assert_eq!((there("image"), there("names")), (kept, kept), "{name}");
        age(610);
        assert!(!there("image") && !there("names"), "{name}");
    }
}

#[test]
fn what_was_taken_off_an_image_that_stays_shows_again_after_a_minute() {
    let tree = tree();
    let key = ImageKey {
        store: 0,
        name: "image".into(),
        id: None,
        created: 0,
    };
    tree.staging.hide(&key, Part::Index);
    for (seconds, hidden) in [(50, true), (70, false)] {
        if let Some(hidden) = tree.staging.0.lock().hidden.get_mut(&key) {
            hidden.at = Instant::now() - Duration::from_secs(seconds);
        }
        tree.collect_abandoned(None);
        assert_eq!(tree.staging.is_hidden(&key, Part::Index), hidden);
    }
}
