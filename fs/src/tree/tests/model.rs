//! Random operations against a model of what docs/SEMANTICS.md promises: after each one the result, the
//! listings and the images are what the model says.

use std::collections::{BTreeMap, BTreeSet};

use pcocc_image::store::Store as _;
use pcocc_image::testing::MemoryStore;
use pcocc_layers::squashfs::FileType;
use proptest::prelude::*;

use super::driver::{Tool, World, world_with};
use crate::errno::Errno;
use crate::status::Gauges;

const SOURCES: usize = 3;
const SIDES: [&str; 2] = ["docker", "repo/user"];
const NAMES: [&str; 4] = ["a", "b", "c", "d"];

type Files = BTreeMap<String, Vec<u8>>;
type At = (usize, &'static str);

#[derive(Clone, Debug)]
enum Step {
    /// mkdir of an image to be.
    Begin(At),
    /// Writes one file of a source image, by position; its folders are made on the way.
    Put(At, usize, usize),
    /// Writes something else there.
    Spoil(At, usize, usize),
    /// Writes all files of a source image, from a position on and around.
    PutAll(At, usize, usize),
    Rename(At, At),
    Remove(At),
    /// Another program puts an image into the store.
    Behind(At, usize),
    /// Another program removes one.
    BehindGone(At),
    FailCommits(bool),
    /// The tool that has written so far is killed.
    Kill,
}

fn place() -> impl Strategy<Value = At> {
    (0..SIDES.len(), prop::sample::select(NAMES.to_vec()))
}

fn step() -> impl Strategy<Value = Step> {
    let file = (0..SOURCES, 0..8usize);
    prop_oneof![
        2 => place().prop_map(Step::Begin),
        4 => (place(), file.clone()).prop_map(|(at, (s, f))| Step::Put(at, s, f)),
        1 => (place(), file.clone()).prop_map(|(at, (s, f))| Step::Spoil(at, s, f)),
        4 => (place(), file).prop_map(|(at, (s, f))| Step::PutAll(at, s, f)),
        2 => (place(), place()).prop_map(|(a, b)| Step::Rename(a, b)),
        2 => place().prop_map(Step::Remove),
        1 => (place(), 0..SOURCES).prop_map(|(at, s)| Step::Behind(at, s)),
        1 => place().prop_map(Step::BehindGone),
        1 => any::<bool>().prop_map(Step::FailCommits),
        1 => Just(Step::Kill),
    ]
}

/// What the promises say there is.
struct Model {
    sources: Vec<Files>,
    /// Which source image stands where.
    images: BTreeMap<At, usize>,
    /// Those that were copied in through the tree: their files may be written again, unchanged.
    ours: BTreeSet<At>,
    staged: BTreeMap<At, Files>,
    allow_delete: bool,
    failing: bool,
}

/// What a folder amounts to.
enum Judgement {
    Image(usize),
    Incomplete,
    /// It can never become an image as it is, and is refused with this.
    Bad(Errno),
    /// Something is missing, and something is wrong: either may be found first.
    Open,
}

impl Model {
    fn judge(&self, files: &Files) -> Judgement {
        let (Some(marker), Some(index)) = (files.get("oci-layout"), files.get("index.json")) else {
            return Judgement::Incomplete;
        };
        let named = self.sources.iter().position(|s| s["index.json"] == *index);
        let Some(source) = named.filter(|source| self.sources[*source]["oci-layout"] == *marker)
        else {
            return Judgement::Bad(Errno::INVAL);
        };
        let wanted = &self.sources[source];
        let missing = wanted.keys().any(|path| !files.contains_key(path));
        let wrong = wanted
            .iter()
            .any(|(path, content)| files.get(path).is_some_and(|found| found != content));
        match (missing, wrong) {
            (false, false) => Judgement::Image(source),
            (true, false) => Judgement::Incomplete,
            (false, true) => Judgement::Bad(Errno::IO),
            (true, true) => Judgement::Open,
        }
    }

    /// What closing the file just written does and answers; `None` where more than one answer is right.
    fn close(&mut self, at: At) -> Option<Result<(), Errno>> {
        let source = match self.judge(&self.staged[&at]) {
            Judgement::Incomplete => return Some(Ok(())),
            Judgement::Open => return None,
            Judgement::Bad(errno) => return Some(Err(errno)),
            Judgement::Image(source) => source,
        };
        if self.images.contains_key(&at) {
            return Some(Err(Errno::EXIST));
        }
        if self.failing {
            return Some(Err(Errno::NOSPC));
        }
        self.staged.remove(&at);
        self.images.insert(at, source);
        self.ours.insert(at);
        Some(Ok(()))
    }

    fn taken(&self, at: At) -> bool {
        self.images.contains_key(&at) || self.staged.contains_key(&at)
    }

    fn names(&self, side: usize) -> BTreeSet<&'static str> {
        let images = self.images.keys().chain(self.staged.keys());
        images
            .filter(|(other, _)| *other == side)
            .map(|(_, name)| *name)
            .collect()
    }
}

/// The tree, the model, and who makes the requests.
struct Run {
    world: World,
    tool: Tool,
    model: Model,
}

impl Run {
    fn new(allow_delete: bool) -> Self {
        let world = world_with(allow_delete);
        let tool = world.other_tool();
        let mut sources = Vec::new();
        for (i, layers) in [&[b"one".as_slice()][..], &[b"one", b"two"], &[b"three"]]
            .iter()
            .enumerate()
        {
            let name = format!("source{i}");
            world.user.put(&name, layers).unwrap();
            let mut files = Files::new();
            collect(&tool, &format!("repo/user/{name}"), "", &mut files);
            sources.push(files);
            world.user.remove(&name).unwrap();
        }
        // What the world begins with is not ours to look at.
        world.user.remove("centos").unwrap();
        world.docker.remove("bb:latest").unwrap();
        let model = Model {
            sources,
            images: BTreeMap::new(),
            ours: BTreeSet::new(),
            staged: BTreeMap::new(),
            allow_delete,
            failing: false,
        };
        Self { world, tool, model }
    }

    fn store(&self, side: usize) -> &MemoryStore {
        [&self.world.docker, &self.world.user][side]
    }

    fn take(&mut self, step: &Step) {
        match *step {
            Step::Begin(at) => {
                let expected = match self.model.taken(at) {
                    true => Err(Errno::EXIST),
                    false => Ok(()),
                };
                assert_eq!(self.tool.mkdir(&path(at)), expected);
                if expected.is_ok() {
                    self.model.staged.insert(at, Files::new());
                }
            }
            Step::Put(at, source, file) => self.put(at, source, file, None),
            Step::Spoil(at, source, file) => self.put(at, source, file, Some(b"something else")),
            Step::PutAll(at, source, from) => {
                for file in 0..self.model.sources[source].len() {
                    self.put(at, source, from + file, None);
                }
            }
            Step::Rename(from, to) => self.rename(from, to),
            Step::Remove(at) => self.remove(at),
            Step::Behind(at, source) => {
                if !self.model.images.contains_key(&at) {
                    let layers: [&[&[u8]]; SOURCES] = [&[b"one"], &[b"one", b"two"], &[b"three"]];
                    let name = stored(at);
                    self.store(at.0).put(&name, layers[source]).unwrap();
                    self.model.images.insert(at, source);
                }
            }
            Step::BehindGone(at) => {
                let found = self.store(at.0).remove(&stored(at)).is_ok();
                assert_eq!(found, self.model.images.remove(&at).is_some());
                self.model.ours.remove(&at);
            }
            Step::FailCommits(fail) => {
                self.model.failing = fail;
                for side in 0..SIDES.len() {
                    let full = || {
                        pcocc_image::Error::io("write", "/x")(std::io::Error::from_raw_os_error(
                            Errno::NOSPC.raw_os_error(),
                        ))
                    };
                    self.store(side)
                        .fail_commits(fail.then(|| Box::new(full) as _));
                }
            }
            Step::Kill => {
                self.tool.kill();
                self.tool = self.world.other_tool();
                self.world.tree.collect();
                self.model.staged.clear();
            }
        }
    }

    fn put(&mut self, at: At, source: usize, file: usize, instead: Option<&[u8]>) {
        let files = &self.model.sources[source];
        let (name, content) = files.iter().nth(file % files.len()).unwrap();
        let (name, right) = (name.clone(), content.clone());
        let content = instead.map_or_else(|| right.clone(), <[u8]>::to_vec);
        let full = format!("{}/{name}", path(at));
        if let Some(staged) = self.model.staged.get_mut(&at) {
            for folder in ["blobs", "blobs/sha256"] {
                let made = self.tool.mkdir(&format!("{}/{folder}", path(at)));
                assert!(matches!(made, Ok(()) | Err(Errno::EXIST)), "{made:?}");
            }
            // Opened and truncated, closed once with its content.
            staged.insert(name, content.clone());
            let expected = self.model.close(at);
            let found = self.tool.write(&full, &content);
            if let Some(expected) = expected {
                assert_eq!(found, expected, "{full}");
            }
        } else if let Some(image) = self.model.images.get(&at) {
            // The index is told apart by where it came from; blobs are what their names say.
            let theirs = &self.model.sources[*image];
            if name.starts_with("blobs/") && self.model.ours.contains(&at) {
                let expected = match theirs.get(&name) {
                    Some(known) if *known == content => Ok(()),
                    _ => Err(Errno::ROFS),
                };
                assert_eq!(self.tool.write(&full, &content), expected, "{full}");
            }
        } else {
            assert_eq!(self.tool.write(&full, &content), Err(Errno::NOENT));
        }
    }

    fn rename(&mut self, from: At, to: At) {
        let found = self.tool.rename(&path(from), &path(to));
        let expected = if from.0 != to.0 {
            Err(Errno::XDEV)
        } else if !self.model.taken(from) {
            Err(Errno::NOENT)
        } else if from == to {
            Ok(())
        } else if self.model.taken(to) {
            Err(Errno::EXIST)
        } else if let Some(files) = self.model.staged.remove(&from) {
            self.model.staged.insert(to, files);
            Ok(())
        } else {
            let image = self.model.images.remove(&from).unwrap();
            self.model.images.insert(to, image);
            self.model.ours.remove(&from);
            Ok(())
        };
        assert_eq!(found, expected, "{from:?} to {to:?}");
    }

    fn remove(&mut self, at: At) {
        let expected = if self.model.staged.remove(&at).is_some() {
            Ok(())
        } else if !self.model.images.contains_key(&at) {
            Err(Errno::NOENT)
        } else if self.model.allow_delete {
            self.model.images.remove(&at);
            self.model.ours.remove(&at);
            Ok(())
        } else {
            // Removing the folder comes first here: its files are not to be missed.
            assert_eq!(self.tool.rmdir(&path(at)), Err(Errno::PERM));
            return;
        };
        assert_eq!(remove_all(&self.tool, &path(at)), expected);
    }

    /// Compares everything that can be seen.
    fn check(&self) {
        for (side, top) in SIDES.iter().enumerate() {
            let found = self.tool.names(top);
            let found: BTreeSet<&str> = found.iter().map(String::as_str).collect();
            assert_eq!(found, self.model.names(side), "{top}");
            let images = self.model.images.keys().filter(|at| at.0 == side);
            let expected: BTreeSet<String> = images.map(|at| stored(*at)).collect();
            let stored: BTreeSet<String> = self.store(side).names().into_iter().collect();
            assert_eq!(stored, expected, "{top}");
        }
        for (at, source) in &self.model.images {
            if self.model.staged.contains_key(at) {
                continue;
            }
            let mut files = Files::new();
            collect(&self.tool, &path(*at), "", &mut files);
            let blobs = |files: &Files| {
                let mut files = files.clone();
                // It names the image.
                files.remove("index.json").unwrap();
                files
            };
            assert_eq!(blobs(&files), blobs(&self.model.sources[*source]), "{at:?}");
        }
        for (at, expected) in &self.model.staged {
            let mut files = Files::new();
            collect(&self.tool, &path(*at), "", &mut files);
            assert_eq!(files, *expected, "{at:?}");
        }
    }
}

fn path((side, name): At) -> String {
    format!("{}/{name}", SIDES[side])
}

/// The name in its store.
fn stored((side, name): At) -> String {
    match side {
        0 => format!("{name}:latest"),
        _ => name.to_owned(),
    }
}

/// Reads all files below a folder.
fn collect(tool: &Tool, top: &str, below: &str, files: &mut Files) {
    for (_, name, kind) in tool.list(&crate::naming::join(top, below)).unwrap() {
        let path = crate::naming::join(below, &name);
        if kind == FileType::Directory {
            collect(tool, top, &path, files);
        } else {
            let content = tool.read(&format!("{top}/{path}")).unwrap();
            files.insert(path, content);
        }
    }
}

/// rm -r
fn remove_all(tool: &Tool, top: &str) -> Result<(), Errno> {
    for (_, name, kind) in tool.list(top)? {
        let path = format!("{top}/{name}");
        if kind == FileType::Directory {
            remove_all(tool, &path)?;
        } else {
            tool.unlink(&path)?;
        }
    }
    tool.rmdir(top)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 60, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn the_tree_keeps_its_promises(
        steps in prop::collection::vec(step(), 1..40),
        delete in any::<bool>(),
    ) {
        let mut run = Run::new(delete);
        for step in &steps {
            run.take(step);
            run.check();
        }
        run.take(&Step::Kill);
        run.check();
        run.tool.let_go();
        prop_assert_eq!(run.world.tree.gauges(), Gauges::default());
    }
}
