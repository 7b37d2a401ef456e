//! Repositories on a real file system: interoperation with pcocc 0.7, hostile content, many writers.

mod bases;
mod caching;
mod collecting;
mod interop;
mod receiving;
mod trusting;
mod writing;

use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pcocc_core::repos::{LayerCompression, RepoDefinition, ReposConfig, Scope};

use super::*;
use crate::oci::Image;
use pcocc_layers::Digest;

/// Repositories in a directory of their own.
struct Site {
    dir: tempfile::TempDir,
    repositories: Arc<Repositories>,
}

impl Site {
    /// Repositories with these names, highest priority first; none is made yet.
    fn new(names: &[&str]) -> Self {
        Self::storing(names, LayerCompression::default())
    }

    /// The same, with repositories that store layers in another way.
    fn storing(names: &[&str], layer_compression: LayerCompression) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let repos = names.iter().map(|name| RepoDefinition {
            name: (*name).to_owned(),
            path: dir.path().join("repos").join(name),
            scope: Scope::User,
            layer_compression,
        });
        let config = ReposConfig {
            repos: repos.collect(),
            cache: Some(dir.path().join("cache")),
        };
        Self {
            repositories: Arc::new(Repositories::new(&config, "doe")),
            dir,
        }
    }

    fn repo(&self) -> &Arc<Repository> {
        self.repositories.default_repository().unwrap()
    }
}

fn put_blob(repository: &Repository, content: &[u8]) -> Digest {
    let digest = Digest::of(content);
    let mut temp = repository.temp_blob().unwrap();
    temp.write_all(content).unwrap();
    repository.publish_blob(temp, digest).unwrap();
    digest
}

/// An image of plain layers, without their blobs.
fn image_of(layers: &[&[u8]]) -> Image {
    crate::testing::image_of(layers).unwrap()
}

fn put_blobs(repository: &Repository, layers: &[&[u8]]) -> Image {
    let image = image_of(layers);
    for layer in layers {
        put_blob(repository, layer);
    }
    put_blob(repository, image.manifest());
    put_blob(repository, image.config());
    image
}

fn meta_of(name: &str, image: &Image) -> Meta {
    Meta::container(name, "doe", SystemTime::now(), image, None).unwrap()
}

fn put_image(repository: &Repository, name: &str, layers: &[&[u8]]) -> Image {
    repository.version().unwrap();
    let image = put_blobs(repository, layers);
    repository.publish(&meta_of(name, &image)).unwrap();
    image
}

/// Makes a file look as if it was last changed `age` ago.
fn age(path: &std::path::Path, age: Duration) {
    let time = SystemTime::now() - age;
    std::fs::File::open(path)
        .unwrap()
        .set_modified(time)
        .unwrap();
}

/// Runs the script that knows pcocc 0.7's format; returns what it printed.
fn pcocc07(arguments: &[&std::ffi::OsStr]) -> String {
    let mut child = Command::new("python3")
        .arg("-")
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("the tests need python3");
    let script = include_bytes!("tests/pcocc07.py");
    child.stdin.take().unwrap().write_all(script).unwrap();
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "python3 {arguments:?}");
    String::from_utf8(output.stdout).unwrap()
}
