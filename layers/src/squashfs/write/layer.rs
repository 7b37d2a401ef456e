//! Reads one layer's tar: content goes into the pipeline, names into a tree.

use std::collections::BTreeMap;
use std::io::{BufReader, Read};

use super::tables::{XattrSets, has_place, is_kept};
use super::{FileData, RootfsWriter, Taken};
use crate::error::{Error, Result};
use crate::squashfs::tree::{MAX_PATH, Meta, NodeKind, Path, Refused, Tree, shown};
use crate::tar::{Entry, EntryType, TarError, TarStream};
use pcocc_core::cancel::{Cancel, Cancelled};

/// Prefix of a file that removes its namesake from the layers below.
const WHITEOUT: &[u8] = b".wh.";
/// Prefix of the old AUFS storage driver's own files, which are not part of the image.
const AUFS: &[u8] = b".wh..wh.";
/// Name of a file that hides its folder's content in lower layers.
const OPAQUE: &[u8] = b".wh..wh..opq";

/// A layer's tar with buffered headers.
type LayerTar<'a> = TarStream<BufReader<&'a mut dyn Read>>;

/// Why an entry was not taken.
#[derive(Debug)]
pub(super) enum Stop {
    Refused(Refused),
    Read(std::io::Error),
    Failed(Error),
}

impl From<Refused> for Stop {
    fn from(why: Refused) -> Self {
        Self::Refused(why)
    }
}

impl From<Error> for Stop {
    fn from(error: Error) -> Self {
        Self::Failed(error)
    }
}

impl From<Cancelled> for Stop {
    fn from(cancelled: Cancelled) -> Self {
        Self::Failed(cancelled.into())
    }
}

impl From<TarError> for Stop {
    fn from(error: TarError) -> Self {
        match error {
            TarError::Read(error) => Self::Read(error),
            error => Self::Refused(error.to_string()),
        }
    }
}

impl Stop {
    /// The error with the layer's name and, if there is one, the entry's.
    pub(super) fn into_error(self, layer: &str, entry: &str) -> Error {
        match self {
            Self::Refused(why) if entry.is_empty() => Error::invalid(format!("layer {layer}"), why),
            Self::Refused(why) => Error::invalid(format!("entry {entry} of layer {layer}"), why),
            Self::Read(error) => Error::io("read layer", layer)(error),
            Self::Failed(error) => error,
        }
    }
}

/// Reads the whole stream of a layer.
pub(super) fn read(
    writer: &mut RootfsWriter,
    layer: &str,
    tar: &mut dyn Read,
    cancel: &Cancel,
) -> Result<Tree> {
    let mut stream = TarStream::new(BufReader::with_capacity(128 << 10, tar));
    let mut tree = Tree::new();
    let mut previous = String::new();
    loop {
        cancel.check()?;
        let entry = match stream.next_entry() {
            Ok(Some(entry)) => entry,
            Ok(None) => break,
            Err(error) => {
                return Err(match Stop::from(error) {
                    Stop::Refused(why) if !previous.is_empty() => Error::invalid(
                        format!("layer {layer}"),
                        format!("{why}, after entry {previous}"),
                    ),
                    stop => stop.into_error(layer, ""),
                });
            }
        };
        let name = shown(&entry.path);
        if let Err(stop) = take(writer, &mut tree, &mut stream, entry, cancel) {
            writer.data.abandon();
            return Err(stop.into_error(layer, &name));
        }
        previous = name;
    }
    drain(stream.rest(), cancel).map_err(|stop| stop.into_error(layer, ""))?;
    Ok(tree)
}

/// Reads the stream to its very end, behind the archive: the reader below hashes all bytes.
fn drain(rest: &mut impl Read, cancel: &Cancel) -> Result<(), Stop> {
    let mut chunk = vec![0; 64 << 10];
    loop {
        cancel.check()?;
        match rest.read(&mut chunk) {
            Ok(0) => return Ok(()),
            Ok(_) => {}
            Err(error) if error.kind() == std::io::ErrorKind::Interrupted => {}
            Err(error) => return Err(TarError::from(error).into()),
        }
    }
}

fn take(
    writer: &mut RootfsWriter,
    tree: &mut Tree,
    stream: &mut LayerTar<'_>,
    entry: Entry,
    cancel: &Cancel,
) -> Result<(), Stop> {
    count(writer, &entry)?;
    let path = Path::parse(&entry.path)?;
    let meta = meta(writer, &entry)?;
    if path.is_root() {
        return match entry.kind {
            EntryType::Directory => {
                tree.set_root(meta);
                Ok(())
            }
            _ => Err(Stop::Refused("would replace the root directory".into())),
        };
    }
    if is_aufs(&path) || whiteout(tree, &path)? {
        return Ok(());
    }
    let kind = match entry.kind {
        EntryType::Directory => NodeKind::Directory(Box::default()),
        EntryType::Regular | EntryType::Continuous => {
            NodeKind::File(Box::new(content(writer, stream, &entry, cancel)?))
        }
        EntryType::Symlink => symlink(entry.link)?,
        EntryType::Link => {
            let target = Path::parse(&entry.link).map_err(|why| {
                format!("is a hard link whose target {} {why}", shown(&entry.link))
            })?;
            return Ok(tree.hard_link(&path, &target, meta)?);
        }
        // The overlay file system takes this node for a whiteout, whatever its origin.
        EntryType::Char if entry.device == (0, 0) => NodeKind::Whiteout,
        EntryType::Char => NodeKind::Char(device(entry.device)?),
        EntryType::Block => NodeKind::Block(device(entry.device)?),
        EntryType::Fifo => NodeKind::Fifo,
        other => {
            return Err(Stop::Refused(format!(
                "is of the unknown type {:?}",
                char::from(other.as_byte())
            )));
        }
    };
    Ok(tree.insert(&path, meta, kind)?)
}

/// Counts an entry against the limits.
fn count(writer: &mut RootfsWriter, entry: &Entry) -> Result<(), Refused> {
    let xattrs: usize = entry.xattrs.iter().map(|(k, v)| k.len() + v.len()).sum();
    let names = entry.path.len() + entry.link.len() + xattrs;
    writer.taken.add(&Taken {
        bytes: entry.size,
        entries: 1,
        names: names as u64,
        dropped_xattrs: 0,
    });
    writer.taken.check(&writer.options)
}

fn meta(writer: &mut RootfsWriter, entry: &Entry) -> Result<Meta, Refused> {
    let id = |what, value: i64| {
        u32::try_from(value).map_err(|_| format!("has the {what} {value}, which is no 32-bit ID"))
    };
    Ok(Meta {
        mode: if entry.kind == EntryType::Symlink {
            0o777
        } else {
            entry.mode as u16
        },
        uid: id("owner", entry.uid)?,
        gid: id("group", entry.gid)?,
        // Squashfs has the years 1970 to 2106.
        mtime: entry.mtime.clamp(0, i64::from(u32::MAX)) as u32,
        xattrs: xattrs(writer, &entry.xattrs)?,
    })
}

fn xattrs(writer: &mut RootfsWriter, xattrs: &[(Vec<u8>, Vec<u8>)]) -> Result<u32, Refused> {
    let mut kept = BTreeMap::new();
    for (name, value) in xattrs {
        if !has_place(name) {
            writer.taken.dropped_xattrs += 1;
        } else if !is_kept(name, value) {
            return Err("has an extended attribute that is too long".into());
        } else {
            // The later one counts.
            kept.insert(name.clone(), value.clone());
        }
        if kept.len() > XattrSets::MAX {
            return Err("has too many extended attributes".into());
        }
    }
    Ok(writer.xattrs.intern(kept.into_iter().collect()))
}

/// Whether the path belongs to the AUFS driver and is no opaque mark.
fn is_aufs(path: &Path) -> bool {
    path.components()
        .iter()
        .any(|name| name.starts_with(AUFS) && name != OPAQUE)
}

/// Applies an entry that is a whiteout or an opaque mark; `false` for others.
fn whiteout(tree: &mut Tree, path: &Path) -> Result<bool, Refused> {
    let Some((folder, name)) = path.clone().into_parts() else {
        return Ok(false);
    };
    let through = |name: &Vec<u8>| name.starts_with(WHITEOUT);
    if folder.components().iter().any(through) {
        return Err("is inside a whiteout".into());
    }
    if name == OPAQUE {
        tree.opaque(&folder)?;
        return Ok(true);
    }
    match name.strip_prefix(WHITEOUT) {
        None => Ok(false),
        Some(b"" | b"." | b"..") => Err("is a whiteout of nothing".into()),
        Some(hidden) => {
            tree.whiteout(&folder, hidden)?;
            Ok(true)
        }
    }
}

/// Stores a regular file's content.
fn content(
    writer: &mut RootfsWriter,
    stream: &mut LayerTar<'_>,
    entry: &Entry,
    cancel: &Cancel,
) -> Result<FileData, Stop> {
    let check = || cancel.check().map_err(Stop::from);
    let mut end = 0;
    let whole = [(0, stream.remaining())];
    for &(offset, length) in entry.segments.as_deref().unwrap_or(&whole) {
        writer.data.hole(offset.saturating_sub(end))?;
        writer.data.copy(stream, length, &check)?;
        end = offset + length;
    }
    writer.data.hole(entry.size.saturating_sub(end))?;
    Ok(writer.data.end()?)
}

fn symlink(target: Vec<u8>) -> Result<NodeKind, Refused> {
    if target.is_empty() {
        Err("is a symbolic link to nothing".into())
    } else if target.len() > MAX_PATH {
        Err(format!("is a symbolic link longer than {MAX_PATH} bytes"))
    } else if target.contains(&0) {
        Err("has a zero byte in its target".into())
    } else {
        Ok(NodeKind::Symlink(target.into()))
    }
}

/// Encodes a device number as the kernel's `new_encode_dev` does.
fn device((major, minor): (u32, u32)) -> Result<u32, Refused> {
    if major >= 1 << 12 || minor >= 1 << 20 {
        return Err(format!("has the impossible device number {major}:{minor}"));
    }
    Ok((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}
