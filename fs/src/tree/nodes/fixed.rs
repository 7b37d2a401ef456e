//! Files and folders that are always there: the top of the tree, its README and status.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use super::{Named, Node, Operations, Side, Stat, file, folder};
use crate::attributes::{ALWAYS, Attributes};
use crate::errno::{Errno, Result};
use crate::tree::Tree;
use crate::tree::images::Content;
use crate::tree::nodes::NamesNode;
use crate::tree::open_file::{Caching, Opened};

/// The README at the top.
const README: &str = "\
Container images as folders. Each image is an OCI image layout.

  docker/        images of the docker daemon; copying one in loads it
  repo/NAME/     images of the repository NAME; copying one in imports it
  rootfs/        the same images as file trees, read only
  .pcocc/status.json   transfers now and lately, with errors

  cp -r repo/user/centos docker/work        export an image to docker
  cp -r docker/work:gcc repo/user/newimage  import it back

A copy is complete when cp returns. ':latest' is not shown, but is accepted.
`getfattr -n user.pcocc.error docker` tells why the last copy failed.
";

/// A file or folder that is always there.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Fixed {
    /// The mount point.
    Root,
    /// `README`
    Readme,
    /// `.pcocc`
    Pcocc,
    /// `.pcocc/status.json`
    Status,
    /// `repo`
    Repo,
    /// `rootfs`
    Rootfs,
    /// `rootfs/repo`
    RootfsRepo,
}

impl Fixed {
    fn content(self, tree: &Tree) -> Option<Vec<u8>> {
        match self {
            Self::Readme => Some(README.into()),
            Self::Status => Some(tree.status.render(tree.gauges())),
            _ => None,
        }
    }
}

impl Operations for Fixed {
    fn known_attributes(&self, tree: &Tree) -> Result<Stat> {
        let file = |size, modified| Attributes::file(tree.owner, 0o444, size, modified);
        Ok(match (self, self.content(tree)) {
            (Self::Status, Some(text)) => {
                (file(text.len() as u64, SystemTime::now()), Duration::ZERO)
            }
            (_, Some(text)) => (file(text.len() as u64, tree.started), ALWAYS),
            (_, None) => (Attributes::folder(tree.owner, 0o555, tree.started), ALWAYS),
        })
    }

    fn lookup(&self, tree: &Tree, name: &OsStr) -> Result<Option<Node>> {
        let mut names = self.list(tree)?.into_iter();
        Ok(names.find_map(|(known, _, node)| (*known == *name.as_bytes()).then_some(node)))
    }

    fn list(&self, tree: &Tree) -> Result<Vec<Named>> {
        let fixed = Node::Fixed;
        let stores = |side| {
            let stores = tree.stores.iter().enumerate();
            let repositories = stores.filter(|(store, _)| Some(*store) != tree.docker);
            let named = repositories
                .map(move |(store, view)| folder(&view.label, NamesNode::top(side, store)));
            named.collect::<Vec<_>>()
        };
        let docker = |side| {
            let docker = tree.docker.into_iter();
            docker.map(move |store| folder("docker", NamesNode::top(side, store)))
        };
        let mut names = Vec::new();
        match self {
            Self::Repo => names = stores(Side::Images),
            Self::RootfsRepo => names = stores(Side::Rootfs),
            Self::Root => {
                names.push(file("README", fixed(Self::Readme)));
                names.push(folder(".pcocc", fixed(Self::Pcocc)));
                names.extend(docker(Side::Images));
                names.push(folder("repo", fixed(Self::Repo)));
                names.push(folder("rootfs", fixed(Self::Rootfs)));
            }
            Self::Rootfs => {
                names.extend(docker(Side::Rootfs));
                names.push(folder("repo", fixed(Self::RootfsRepo)));
            }
            Self::Pcocc => names.push(file("status.json", fixed(Self::Status))),
            Self::Readme | Self::Status => return Err(Errno::NOTDIR),
        }
        Ok(names)
    }

    fn open(&self, tree: &Tree) -> Result<Opened> {
        let content = self.content(tree).ok_or(Errno::ISDIR)?;
        Ok((Arc::new(Content::Bytes(content.into())), Caching::Direct))
    }

    fn refusal(&self) -> Errno {
        match self {
            Self::Rootfs | Self::RootfsRepo => Errno::ROFS,
            _ => Errno::PERM,
        }
    }
}
