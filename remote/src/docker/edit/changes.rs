//! The layer of a container's changes, made from the changed files alone.
//!
//! Docker lists the changed paths and gives the archive of any path, but gives a layer only within a whole
//! image. For a small change to a large image that is the difference between two requests and a save of the
//! whole image, which a daemon in a virtual machine sends through its network.
//!
//! Phases: the list of changes → one request for each change that is not below an added folder → the entries
//! under their full names, and whiteouts for deleted files (OCI image spec, "Layer changesets"). The layer is
//! the one that docker would make, or there is none: a change that cannot be reproduced surely is left to a
//! commit. That is a change of too many bytes or requests, or a hard link that leads out of one request's
//! archive. Docker does not report such links, but names of one file have the same size, owner, mode and time;
//! and a link to a file of the image is as old as the image, not as young as the edit.

#[cfg(test)]
mod tests;

use base64::Engine as _;
use bytes::Bytes;
use futures_util::StreamExt;
use hyper::body::{Body, Incoming};
use jiff::Timestamp;

use crate::docker::client::Daemon;
use crate::docker::container::Change;
use crate::docker::link::get;
use pcocc_image::{Error, Result};

/// Most bytes of a layer that is made in memory.
const MAX_LAYER: usize = 32 << 20;

/// Number of requests that are always worth it.
const FEW_REQUESTS: u64 = 8;

/// Bytes of an image that a daemon saves during one request.
const BYTES_PER_REQUEST: u64 = 16 << 20;

/// Number of requests at a time.
const AT_ONCE: usize = 4;

/// A start of an archive that surely has its first header.
const START: usize = 8 << 10;

/// The response header that describes the path.
const STAT: &str = "X-Docker-Container-Path-Stat";

/// The plain tar of the changes that `container` made to its image of `image_size` bytes. Empty without
/// changes; `None` when only a commit gives the layer.
pub(super) fn layer(daemon: &Daemon, container: &str, image_size: u64) -> Result<Option<Vec<u8>>> {
    let Some(created) = daemon.container_created(container)? else {
        return Ok(None);
    };
    let Some(parts) = parts(daemon.container_changes(container)?) else {
        return Ok(None);
    };
    let requests = parts.iter().filter(|part| part.change != Change::Deleted);
    if requests.count() as u64 > FEW_REQUESTS + image_size / BYTES_PER_REQUEST {
        return Ok(None);
    }
    let fetched = daemon.patient(async {
        let fetches = parts.iter().map(|part| fetch(daemon, container, part));
        let mut fetched = futures_util::stream::iter(fetches).buffered(AT_ONCE);
        let mut all = Vec::with_capacity(parts.len());
        let mut bytes = 0;
        while let Some(next) = fetched.next().await {
            let Some(part) = next? else {
                return Ok(None);
            };
            bytes += part.archive.len();
            if bytes > MAX_LAYER {
                return Ok(None);
            }
            all.push(part);
        }
        Ok(Some(all))
    })?;
    let Some(fetched) = fetched else {
        return Ok(None);
    };
    assembled(created, &parts, &fetched)
}

/// As [`layer`], with `archive` as the daemon's answer for every one of the changes `list`.
pub(in crate::docker) fn layer_of(
    list: Vec<(String, Change)>,
    archive: &[u8],
) -> Result<Option<Vec<u8>>> {
    let Some(parts) = parts(list) else {
        return Ok(None);
    };
    let answer = |_: &Part| Fetched {
        archive: archive.to_vec(),
        modified: None,
    };
    let fetched: Vec<Fetched> = parts.iter().map(answer).collect();
    assembled(Timestamp::UNIX_EPOCH, &parts, &fetched)
}

/// The plain tar of the changes `parts`, from the daemon's answer for each of them; `None` as in [`layer`].
fn assembled(created: Timestamp, parts: &[Part], fetched: &[Fetched]) -> Result<Option<Vec<u8>>> {
    let mut layer = Layer::new(created);
    for (part, fetched) in parts.iter().zip(fetched) {
        match layer.add(part, fetched) {
            Ok(()) => {}
            Err(why) => {
                tracing::debug!(path = part.path, why, "the changes are left to a commit");
                return Ok(None);
            }
        }
    }
    layer.finish()
}

/// A change with a request of its own, or a whiteout.
#[derive(Debug, PartialEq, Eq)]
struct Part {
    /// The path from the root, without the slash in front.
    path: String,
    change: Change,
}

/// The changes that are handled one by one, parents first; `None` when a name makes that impossible.
fn parts(mut changes: Vec<(String, Change)>) -> Option<Vec<Part>> {
    // Names are compared one by one: a folder's content follows the folder at once, before "folder.x".
    changes.sort_by(|(left, _), (right, _)| left.split('/').cmp(right.split('/')));
    let mut parts: Vec<Part> = Vec::new();
    // The last added folder; the changes inside of it are part of it.
    let mut whole: Option<String> = None;
    for (path, change) in changes {
        if whole
            .as_ref()
            .is_some_and(|folder| path.starts_with(folder))
        {
            continue;
        }
        let relative = path.strip_prefix('/')?;
        let name = relative.rsplit('/').next()?;
        // Bytes that are not text have become these marks in the list.
        if name.starts_with(".wh.") || path.contains(['\u{fffd}', '\0']) {
            return None;
        }
        if relative
            .split('/')
            .any(|name| ["", ".", ".."].contains(&name))
        {
            return None;
        }
        if change == Change::Added {
            whole = Some(format!("{path}/"));
        }
        parts.push(Part {
            path: relative.to_owned(),
            change,
        });
    }
    Some(parts)
}

/// The daemon's answer for a path.
#[derive(Debug, Default)]
struct Fetched {
    archive: Vec<u8>,
    /// Modification time of the path itself, to the nanosecond.
    modified: Option<Timestamp>,
}

/// Fetches a part; of a folder that is only modified, its header alone. `None` when the answer is too large, or
/// when docker would not archive the file.
async fn fetch(daemon: &Daemon, container: &str, part: &Part) -> Result<Option<Fetched>> {
    if part.change == Change::Deleted {
        return Ok(Some(Fetched::default()));
    }
    let action = || format!("read /{} of container {container}", part.path);
    let path = format!(
        "/containers/{container}/archive?path={}",
        encoded(&part.path)
    );
    let answer = daemon.link().send(get(&path)?).await?;
    if !answer.status().is_success() {
        tracing::debug!(status = %answer.status(), path, "not to be had");
        return Ok(None);
    }
    let modified = answer.headers().get(STAT).and_then(|stat| {
        let json = base64::prelude::BASE64_STANDARD.decode(stat.as_bytes());
        let stat: serde_json::Value = serde_json::from_slice(&json.ok()?).ok()?;
        stat.get("mtime")?.as_str()?.parse().ok()
    });
    let mut body = Box::pin(answer.into_body());
    let mut archive = Vec::new();
    let mut looked = part.change == Change::Added;
    while let Some(data) = next(&mut body).await {
        let data = data.map_err(|error| Error::Unreachable {
            endpoint: daemon.endpoint().to_string(),
            why: format!("broke the connection, asked to {}: {error}", action()),
        })?;
        archive.extend_from_slice(&data);
        if archive.len() > MAX_LAYER {
            return Ok(None);
        }
        if !looked && archive.len() >= START {
            looked = true;
            if starts_with_folder(&archive) {
                break;
            }
        }
    }
    Ok(Some(Fetched { archive, modified }))
}

async fn next(body: &mut std::pin::Pin<Box<Incoming>>) -> Option<Result<Bytes, hyper::Error>> {
    loop {
        let frame = std::future::poll_fn(|cx| body.as_mut().poll_frame(cx)).await?;
        match frame.map(hyper::body::Frame::into_data) {
            Ok(Ok(data)) => return Some(Ok(data)),
            Ok(Err(_trailers)) => {}
            Err(error) => return Some(Err(error)),
        }
    }
}

fn starts_with_folder(archive: &[u8]) -> bool {
    let mut archive = tar::Archive::new(archive);
    let first = archive.entries().ok().and_then(|mut all| all.next());
    matches!(first, Some(Ok(entry)) if entry.header().entry_type().is_dir())
}

/// A path in the form of a query's value.
fn encoded(path: &str) -> String {
    let mut made = String::from("/");
    for byte in path.bytes() {
        if byte.is_ascii_alphanumeric() || b"-_.~/".contains(&byte) {
            made.push(char::from(byte));
        } else {
            made.push_str(&format!("%{byte:02X}"));
        }
    }
    made
}

/// The properties that all names of one file share.
#[derive(Debug)]
struct Likeness {
    size: u64,
    mode: u32,
    owner: (u64, u64),
    seconds: u64,
    /// Known only of files with a request of their own.
    exact: Option<Timestamp>,
    /// Number of the part that brought the file.
    part: usize,
}

impl Likeness {
    fn may_be(&self, other: &Self) -> bool {
        self.part != other.part
            && (self.size, self.mode, self.owner, self.seconds)
                == (other.size, other.mode, other.owner, other.seconds)
            && (self.exact.is_none() || other.exact.is_none() || self.exact == other.exact)
    }
}

/// A layer that is being made.
struct Layer {
    tar: tar::Builder<Vec<u8>>,
    created: Timestamp,
    files: Vec<Likeness>,
    parts: usize,
    entries: usize,
}

/// Why a layer cannot be made of the changed files alone.
type Unfit = &'static str;

impl Layer {
    /// Files of the container are not older than `created`, unless they are the image's.
    fn new(created: Timestamp) -> Self {
        Self {
            tar: tar::Builder::new(Vec::new()),
            created,
            files: Vec::new(),
            parts: 0,
            entries: 0,
        }
    }

    fn add(&mut self, part: &Part, fetched: &Fetched) -> Result<(), Unfit> {
        self.parts += 1;
        let (folder, name) = part
            .path
            .rsplit_once('/')
            .map_or(("", part.path.as_str()), |(folder, name)| (folder, name));
        let under = |path: &str| match folder {
            "" => path.to_owned(),
            folder => format!("{folder}/{path}"),
        };
        if part.change == Change::Deleted {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Regular);
            header.set_mode(0o600);
            return self.append(
                header,
                &under(&format!(".wh.{name}")),
                None,
                Vec::new(),
                &[],
            );
        }
        let before = self.entries;
        let mut archive = tar::Archive::new(fetched.archive.as_slice());
        let unread = |_| "its archive cannot be read";
        for entry in archive.entries().map_err(unread)? {
            let mut entry = entry.map_err(unread)?;
            let path = text(&entry.path_bytes())?;
            let path = path.trim_end_matches('/').to_owned();
            let is_root = path == name;
            if !is_root && !path.starts_with(&format!("{name}/")) {
                return Err("its archive holds something else");
            }
            if path.split('/').any(|name| name.starts_with(".wh.")) {
                return Err("a name looks like a whiteout");
            }
            if path.split('/').any(|name| ["", ".", ".."].contains(&name)) {
                return Err("a path does not lead straight down");
            }
            let kind = entry.header().entry_type();
            let link = match entry.link_name_bytes() {
                Some(link) if kind.is_hard_link() => Some(under(&text(&link)?)),
                Some(link) if kind.is_symlink() => Some(text(&link)?),
                _ => None,
            };
            let known = kind.is_file()
                || kind.is_dir()
                || kind.is_symlink()
                || kind.is_hard_link()
                || kind.is_fifo()
                || kind.is_character_special()
                || kind.is_block_special();
            if !known {
                return Err("it holds an entry of a kind of its own");
            }
            let records = records(&mut entry)?;
            let header = entry.header().clone();
            if kind.is_file() {
                let exact = fetched.modified.filter(|_| is_root);
                self.check_file(&header, entry.size(), exact)?;
            }
            let mut data = Vec::new();
            std::io::Read::read_to_end(&mut entry, &mut data).map_err(unread)?;
            self.append(plain(&header)?, &under(&path), link, records, &data)?;
            if is_root && kind.is_dir() && part.change == Change::Modified {
                // The rest of the archive belongs to other changes.
                break;
            }
        }
        match self.entries > before {
            true => Ok(()),
            false => Err("docker archives nothing of it"),
        }
    }

    /// Fails when the file may be another name of a known file.
    fn check_file(
        &mut self,
        header: &tar::Header,
        size: u64,
        exact: Option<Timestamp>,
    ) -> Result<(), Unfit> {
        let number = |_| "a header's number cannot be read";
        let file = Likeness {
            size,
            mode: header.mode().map_err(number)?,
            owner: (header.uid().map_err(number)?, header.gid().map_err(number)?),
            seconds: header.mtime().map_err(number)?,
            exact,
            part: self.parts,
        };
        let is_young = match exact {
            Some(exact) => exact > self.created,
            None => i64::try_from(file.seconds).is_ok_and(|at| at > self.created.as_second()),
        };
        if !is_young {
            return Err("a file is older than the edit, and may be a link to another");
        }
        if self.files.iter().any(|other| file.may_be(other)) {
            return Err("two files may be one");
        }
        self.files.push(file);
        Ok(())
    }

    fn append(
        &mut self,
        mut header: tar::Header,
        path: &str,
        link: Option<String>,
        mut records: Vec<(String, Vec<u8>)>,
        data: &[u8],
    ) -> Result<(), Unfit> {
        let full = |_| "the layer cannot be written";
        let is_folder = header.entry_type().is_dir();
        let path = match is_folder {
            true => format!("{path}/"),
            false => path.to_owned(),
        };
        let ustar = header.as_ustar_mut().ok_or("a header of another format")?;
        set(&mut ustar.name, "path", &path, &mut records);
        if let Some(link) = link {
            set(&mut ustar.linkname, "linkpath", &link, &mut records);
        }
        header.set_size(data.len() as u64);
        header.set_cksum();
        if !records.is_empty() {
            let records = records
                .iter()
                .map(|(key, value)| (key.as_str(), value.as_slice()));
            self.tar.append_pax_extensions(records).map_err(full)?;
        }
        self.tar.append(&header, data).map_err(full)?;
        self.entries += 1;
        Ok(())
    }

    fn finish(self) -> Result<Option<Vec<u8>>> {
        if self.entries == 0 {
            return Ok(Some(Vec::new()));
        }
        let tar = self.tar.into_inner();
        tar.map(Some).map_err(Error::io("write", "layer"))
    }
}

/// Puts a name into a header's field, or into an extended record if it is too long.
fn set(field: &mut [u8], key: &str, value: &str, records: &mut Vec<(String, Vec<u8>)>) {
    let bytes = value.as_bytes();
    if bytes.len() > field.len() || !value.is_ascii() {
        records.push((key.to_owned(), bytes.to_vec()));
    }
    for (to, from) in field.iter_mut().zip(bytes) {
        *to = *from;
    }
}

/// A header with the meaningful fields of another, without a name.
fn plain(header: &tar::Header) -> Result<tar::Header, Unfit> {
    let number = |_| "a header's number cannot be read";
    let mut made = tar::Header::new_ustar();
    made.set_entry_type(header.entry_type());
    made.set_mode(header.mode().map_err(number)?);
    made.set_uid(header.uid().map_err(number)?);
    made.set_gid(header.gid().map_err(number)?);
    made.set_mtime(header.mtime().map_err(number)?);
    for (number, set) in [
        (
            header.device_major(),
            tar::Header::set_device_major as fn(&mut tar::Header, u32) -> std::io::Result<()>,
        ),
        (header.device_minor(), tar::Header::set_device_minor),
    ] {
        if let Ok(Some(number)) = number {
            set(&mut made, number).map_err(|_| "a device's number cannot be written")?;
        }
    }
    Ok(made)
}

/// An entry's extended records without names and size: extended attributes, and numbers that do not fit into a
/// header.
fn records<R: std::io::Read>(
    entry: &mut tar::Entry<'_, R>,
) -> Result<Vec<(String, Vec<u8>)>, Unfit> {
    let unread = |_| "an extended header cannot be read";
    let mut records = Vec::new();
    let Some(extensions) = entry.pax_extensions().map_err(unread)? else {
        return Ok(records);
    };
    for extension in extensions {
        let extension = extension.map_err(unread)?;
        let key = extension
            .key()
            .map_err(|_| "an extended header cannot be read")?;
        if key.starts_with("GNU.sparse") {
            return Err("a file is packed in a way of its own");
        }
        if !["path", "linkpath", "size"].contains(&key) {
            records.push((key.to_owned(), extension.value_bytes().to_vec()));
        }
    }
    Ok(records)
}

fn text(bytes: &[u8]) -> Result<String, Unfit> {
    String::from_utf8(bytes.to_vec()).map_err(|_| "a name is no text")
}
