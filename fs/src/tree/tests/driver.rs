//! Makes the requests a tool's system calls turn into.

use std::cell::RefCell;
use std::ffi::OsStr;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;

use pcocc_image::store::Store;
use pcocc_image::testing::MemoryStore;
use pcocc_layers::squashfs::FileType;

use crate::attributes::Attributes;
use crate::errno::Errno;
use crate::tree::inodes::ROOT;
use crate::tree::{Lookup, Tree, TreeOptions};

/// Two stores in memory and a tree over them.
pub(super) struct World {
    pub(super) tree: Arc<Tree>,
    pub(super) user: MemoryStore,
    pub(super) docker: MemoryStore,
    _folders: [tempfile::TempDir; 3],
}

pub(super) fn world() -> World {
    world_with(false)
}

pub(super) fn world_with(allow_delete: bool) -> World {
    let folders = [(); 3].map(|()| tempfile::tempdir().unwrap());
    let user = MemoryStore::repository(folders[0].path());
    let docker = MemoryStore::docker(folders[1].path());
    user.put("centos", &[b"base layer", b"second layer"])
        .unwrap();
    docker.put("bb:latest", &[b"busybox"]).unwrap();
    let tree = Tree::new(
        Some(Arc::new(docker.clone()) as Arc<dyn Store>),
        vec![("user".into(), Arc::new(user.clone()) as Arc<dyn Store>)],
        TreeOptions {
            owner: (1, 1),
            allow_delete,
            staging_dir: folders[2].path().into(),
            ..TreeOptions::default()
        },
    );
    World {
        tree: Arc::new(tree),
        user,
        docker,
        _folders: folders,
    }
}

/// A process that makes requests.
pub(super) struct Tool {
    tree: Arc<Tree>,
    process: u32,
    child: Option<Child>,
    /// Inodes the last walk found, held until the next one as the kernel would.
    held: RefCell<Vec<u64>>,
}

pub(super) type Result<T> = std::result::Result<T, Errno>;

impl World {
    /// This process.
    pub(super) fn tool(&self) -> Tool {
        Tool {
            tree: Arc::clone(&self.tree),
            process: std::process::id(),
            child: None,
            held: RefCell::default(),
        }
    }

    /// Another process, that can be killed.
    pub(super) fn other_tool(&self) -> Tool {
        let child = Command::new("sleep")
            .arg("600")
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        Tool {
            tree: Arc::clone(&self.tree),
            process: child.id(),
            child: Some(child),
            held: RefCell::default(),
        }
    }
}

impl Tool {
    pub(super) fn kill(&mut self) {
        self.let_go();
        if let Some(mut child) = self.child.take() {
            child.kill().unwrap();
            child.wait().unwrap();
        }
    }

    /// Walks to a path, as the kernel does, and keeps no reference.
    pub(super) fn find(&self, path: &str) -> Result<Attributes> {
        let mut told = Vec::new();
        let mut at = self.tree.attributes(ROOT).map(|(found, _)| found);
        for name in path.split('/').filter(|name| !name.is_empty()) {
            at = match at {
                Ok(folder) => match self.tree.lookup(folder.number, OsStr::new(name)) {
                    Ok(Lookup::Found(found, _)) => {
                        told.push(found.number);
                        Ok(found)
                    }
                    Ok(Lookup::Missing(_)) => Err(Errno::NOENT),
                    Err(error) => Err(error),
                },
                error => error,
            };
        }
        // As the kernel does, hold on until the next request was made.
        for number in self.held.replace(told) {
            self.tree.forget(number, 1);
        }
        at
    }

    pub(super) fn let_go(&self) {
        for number in self.held.take() {
            self.tree.forget(number, 1);
        }
    }

    fn parent<'a>(&self, path: &'a str) -> Result<(u64, &'a OsStr)> {
        let (folder, name) = crate::naming::split(path);
        Ok((self.find(folder)?.number, OsStr::new(name)))
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.find(path).is_ok()
    }

    pub(super) fn mkdir(&self, path: &str) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        let (made, _) = self.tree.make_dir(parent, name, self.process)?;
        self.tree.forget(made.number, 1);
        Ok(())
    }

    /// Creates or opens a file for writing and truncates it.
    pub(super) fn open_write(&self, path: &str) -> Result<u64> {
        match self.find(path) {
            Ok(found) => Ok(self.tree.open(found.number, true, true, self.process)?.0),
            Err(Errno::NOENT) => {
                let (parent, name) = self.parent(path)?;
                let (made, _, handle) = self.tree.create(parent, name, self.process)?;
                self.tree.forget(made.number, 1);
                Ok(handle)
            }
            Err(error) => Err(error),
        }
    }

    pub(super) fn close(&self, handle: u64) -> Result<()> {
        let flushed = self.tree.flush(handle, self.process);
        self.tree.release(handle);
        flushed
    }

    /// Writes a file in small steps, as dd, tar and cp across file systems do.
    pub(super) fn write(&self, path: &str, content: &[u8]) -> Result<()> {
        let handle = self.open_write(path)?;
        for (i, chunk) in content.chunks(7).enumerate() {
            if let Err(error) = self.tree.write(handle, i as u64 * 7, chunk) {
                self.tree.release(handle);
                return Err(error);
            }
        }
        self.close(handle)
    }

    pub(super) fn read(&self, path: &str) -> Result<Vec<u8>> {
        let number = self.find(path)?.number;
        let (handle, _) = self.tree.open(number, false, false, self.process)?;
        let mut content = Vec::new();
        let mut chunk = [0; 11];
        loop {
            match self.tree.read(handle, content.len() as u64, &mut chunk)? {
                0 => break,
                n => content.extend_from_slice(&chunk[..n]),
            }
        }
        self.close(handle)?;
        Ok(content)
    }

    /// Copies a file as GNU cp does.
    pub(super) fn copy_file(&self, from: &str, to: &str) -> Result<()> {
        let number = self.find(from)?.number;
        let (source, _) = self.tree.open(number, false, false, self.process)?;
        let size = self.find(from)?.size;
        let target = self.open_write(to)?;
        let mut done = 0;
        while done < size {
            let n = self
                .tree
                .copy_range(source, done, target, done, size - done)?;
            done += u64::from(n);
        }
        self.close(source)?;
        self.close(target)
    }

    pub(super) fn list(&self, path: &str) -> Result<Vec<(u64, String, FileType)>> {
        let number = self.find(path)?.number;
        let (handle, _) = self.tree.open_dir(number)?;
        let mut names = Vec::new();
        let mut plus = Vec::new();
        self.tree.read_dir(handle, 0, false, &mut |item| {
            let name = String::from_utf8_lossy(item.name).into_owned();
            names.push((item.number, name, item.kind));
            false
        })?;
        self.tree.read_dir(handle, 0, true, &mut |item| {
            plus.push((item.number, item.name.starts_with(b".")));
            false
        })?;
        for (number, _) in plus.iter().skip(2) {
            self.tree.forget(*number, 1);
        }
        assert_eq!(names.len(), plus.len());
        self.tree.release(handle);
        names.retain(|(_, name, _)| name != "." && name != "..");
        Ok(names)
    }

    pub(super) fn names(&self, path: &str) -> Vec<String> {
        let names = self.list(path).unwrap();
        names.into_iter().map(|(_, name, _)| name).collect()
    }

    pub(super) fn rename(&self, from: &str, to: &str) -> Result<()> {
        let (folder, name) = self.parent(from)?;
        // The second walk lets go of the first, which the kernel would not do.
        let held = self.held.take();
        let result = self.parent(to).and_then(|(new_folder, new_name)| {
            let to = (new_folder, new_name);
            self.tree.rename((folder, name), to, true, self.process)
        });
        for number in held {
            self.tree.forget(number, 1);
        }
        result
    }

    pub(super) fn unlink(&self, path: &str) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        self.tree.unlink(parent, name, self.process)
    }

    pub(super) fn rmdir(&self, path: &str) -> Result<()> {
        let (parent, name) = self.parent(path)?;
        self.tree.remove_dir(parent, name)
    }

    /// chmod, chown, utimens.
    pub(super) fn set_times(&self, path: &str) -> Result<()> {
        let number = self.find(path)?.number;
        self.tree.change(number, None).map(drop)
    }

    /// What GNU cp -r does with a folder; `by_number` or in the order of the listing.
    pub(super) fn copy_tree(&self, from: &str, to: &str, order: Order) -> Result<()> {
        self.mkdir(to)?;
        let mut names = self.list(from)?;
        match order {
            Order::Number => names.sort_by_key(|(number, ..)| *number),
            Order::Listing => {}
            Order::Reverse => names.reverse(),
        }
        for (_, name, kind) in names {
            let (from, to) = (format!("{from}/{name}"), format!("{to}/{name}"));
            match (kind, order) {
                (FileType::Directory, _) => self.copy_tree(&from, &to, order)?,
                (_, Order::Number) => self.copy_file(&from, &to)?,
                _ => self.write(&to, &self.read(&from)?)?,
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// GNU cp, with copy_file_range.
    Number,
    /// tar, python, busybox.
    Listing,
    /// Whatever comes.
    Reverse,
}

impl Drop for Tool {
    fn drop(&mut self) {
        self.let_go();
        self.kill();
    }
}
