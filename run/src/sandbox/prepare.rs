//! Resolves the mount points of a plan in the image, before anything is mounted.
//!
//! Mount points that the image lacks are added to its tree: the image is read only, and the kernel mounts only on
//! existing files and folders. Resolved mount points contain no symbolic links.

use std::fs;
use std::io::{self, Read};
use std::path::{Path, PathBuf};

use pcocc_fs::root::{Found, RootTree, TreeError};

use crate::account;
use crate::mount::{Missing, Mount, Source};
use crate::plan::{Plan, SCRIPT, Wanted, in_order};

/// Largest `/etc/passwd` or `/etc/group` of an image that is read, in bytes.
const MAX_ACCOUNTS: u64 = 4 << 20;

/// Largest script, in bytes.
const MAX_SCRIPT: u64 = 64 << 20;

/// Why a plan does not fit an image or this machine.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PrepareError {
    /// A mount point that cannot be made in the image.
    #[error("cannot mount on {}: {source}", destination.display())]
    Place {
        /// Where in the container.
        destination: PathBuf,
        /// What is in the way.
        source: TreeError,
    },
    /// A file of the image that cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// A source that is not there.
    #[error("cannot mount {} on {}: {source}", path.display(), destination.display())]
    Source {
        /// What was to be mounted.
        path: PathBuf,
        /// Where in the container.
        destination: PathBuf,
        /// The system's error.
        source: io::Error,
    },
    /// A script that cannot be read.
    #[error("cannot read the script {}: {source}", path.display())]
    Script {
        /// The script.
        path: PathBuf,
        /// The system's error.
        source: io::Error,
    },
}

/// A mount with its resolved mount point.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Target {
    pub(super) mount: Mount,
    /// Whether what is mounted is a folder.
    pub(super) is_folder: bool,
    /// Whether the place is on a file system in memory, and can be made there.
    pub(super) can_make: bool,
}

/// Makes the mount points of all mounts in `tree`; `warn` is called for each mount that is left out.
/// `image_mountpoints` are files and folders (with a slash at the end) that every container has.
pub(super) fn prepare(
    plan: &Plan,
    tree: &mut RootTree,
    image_mountpoints: &[String],
    warn: &mut dyn FnMut(String),
) -> Result<Vec<Target>, PrepareError> {
    add_user(plan, tree)?;
    if let Some(script) = &plan.script {
        let content = read_script(script).map_err(|source| PrepareError::Script {
            path: script.clone(),
            source,
        })?;
        tree.put_file(Path::new(SCRIPT), content, 0o755)?;
    }
    for place in image_mountpoints {
        let result = match place.ends_with('/') {
            true => tree.ensure_folder(Path::new(place)),
            false => tree.ensure_file(Path::new(place)),
        };
        if let Err(error) = result
            && !matches!(error, TreeError::IsAFolder(_) | TreeError::NotAFolder(_))
        {
            return Err(error.into());
        }
    }
    if plan.cwd.wanted == Wanted::Image {
        // docker makes it as well. What is in the way shows when the command starts.
        let _ = tree.ensure_folder(&plan.cwd.path);
    }
    let mut mounts = Vec::with_capacity(plan.mounts.len());
    for mount in &plan.mounts {
        let Some(is_folder) = source_of(mount, tree, warn)? else {
            continue;
        };
        let placed = match is_folder {
            true => tree.ensure_folder(&mount.destination),
            false => tree.ensure_file(&mount.destination),
        };
        let destination = match placed {
            Ok(destination) => destination,
            Err(source) => {
                let destination = mount.destination.clone();
                return Err(PrepareError::Place {
                    destination,
                    source,
                });
            }
        };
        mounts.push(Mount {
            destination,
            ..mount.clone()
        });
    }
    let mounts = in_order(mounts);
    Ok(mounts
        .iter()
        .map(|mount| {
            let is_folder = match &mount.source {
                Source::Bind(path) => path.is_dir(),
                _ => true,
            };
            // The innermost of those around it; they come in this order.
            let around = mounts.iter().rev().find(|other| {
                other.destination != mount.destination
                    && mount.destination.starts_with(&other.destination)
            });
            Target {
                mount: mount.clone(),
                is_folder,
                can_make: around
                    .is_some_and(|around| matches!(around.source, Source::Tmpfs | Source::Devices)),
            }
        })
        .collect())
}

/// Whether what is mounted is a folder; `None` when the mount is left out.
fn source_of(
    mount: &Mount,
    tree: &RootTree,
    warn: &mut dyn FnMut(String),
) -> Result<Option<bool>, PrepareError> {
    let Source::Bind(path) = &mount.source else {
        return Ok(Some(true));
    };
    if mount.missing == Missing::Passes
        && mount.destination == Path::new("/etc/hosts")
        && tree
            .read_file(&mount.destination, MAX_ACCOUNTS)?
            .is_some_and(|text| !text.is_empty())
    {
        // An image that has names of its own keeps them.
        return Ok(None);
    }
    match (fs::metadata(path), mount.missing) {
        (Ok(found), _) => Ok(Some(found.is_dir())),
        (Err(source), Missing::Fails) => Err(PrepareError::Source {
            path: path.clone(),
            destination: mount.destination.clone(),
            source,
        }),
        (Err(error), Missing::Warns) => {
            warn(format!(
                "{} is not mounted on {}: {error}",
                path.display(),
                mount.destination.display()
            ));
            Ok(None)
        }
        (Err(_), Missing::Passes) => Ok(None),
    }
}

/// Adds the user to the image's `/etc/passwd` and `/etc/group`.
fn add_user(plan: &Plan, tree: &mut RootTree) -> Result<(), PrepareError> {
    let Some(user) = &plan.account else {
        return Ok(());
    };
    type Edit = fn(&[u8], &account::Account) -> Vec<u8>;
    for (path, edit) in [
        ("/etc/passwd", account::passwd as Edit),
        ("/etc/group", account::group),
    ] {
        let path = Path::new(path);
        if let (_, Some(Found::Image(_, kind))) = tree.resolve(path)?
            && kind == pcocc_fs::root::FileType::Directory
        {
            continue;
        }
        let image = tree.read_file(path, MAX_ACCOUNTS)?.unwrap_or_default();
        tree.put_file(path, edit(&image, user), 0o644)?;
    }
    Ok(())
}

fn read_script(path: &Path) -> io::Result<Vec<u8>> {
    let file = fs::File::open(path)?;
    if file.metadata()?.is_dir() {
        return Err(io::ErrorKind::IsADirectory.into());
    }
    let mut content = Vec::new();
    file.take(MAX_SCRIPT + 1).read_to_end(&mut content)?;
    match content.len() as u64 > MAX_SCRIPT {
        true => Err(io::ErrorKind::FileTooLarge.into()),
        false => Ok(content),
    }
}
