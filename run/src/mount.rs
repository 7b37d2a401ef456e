//! Mounts: what the command line and `containers.yaml` ask for, as one type.
//!
//! Notations: `SRC`, `SRC:DST`, `SRC:DST:OPTION,…`, and `src=SRC,dest=DST,type=TYPE,opt=A,B` as in
//! pcocc 0.7, where `opt` comes last. `$VAR` and a leading `~` in SRC are replaced.

use std::path::{Component, Path, PathBuf};

use pcocc_core::containers::TemplateMount;
use pcocc_core::template::{self, Variables};

/// What is mounted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// A file or folder of the host, with all that is mounted below it.
    Bind(PathBuf),
    /// An empty folder in memory.
    Tmpfs,
    /// The processes of the container.
    Proc,
    /// The host's `/sys`.
    Sys,
    /// The device files every program may expect.
    Devices,
    /// POSIX message queues.
    Queues,
    /// Pseudo terminals.
    Terminals,
}

/// Options of a mount.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Options {
    /// Nothing can be written.
    pub read_only: bool,
    /// No program can be started from it.
    pub no_exec: bool,
    /// Device files work.
    pub devices: bool,
    /// Options for the file system itself, like `size=1g` and `mode=700` of a tmpfs.
    pub data: Vec<String>,
}

/// One mount.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Mount {
    /// What.
    pub source: Source,
    /// Where in the container: an absolute path.
    pub destination: PathBuf,
    /// How.
    pub options: Options,
    /// What it means when the source does not exist.
    pub missing: Missing,
}

/// What it means when the source of a mount does not exist.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Missing {
    /// The user asked for it: nothing is run.
    Fails,
    /// The site's configuration is for more machines than this: it is left out, with a warning.
    Warns,
    /// Not every machine has it: it is left out.
    Passes,
}

/// Why a mount makes no sense.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mount {mount} {why}")]
pub struct MountError {
    /// The mount as it was written, in quotes, and where.
    pub mount: String,
    /// What is wrong.
    pub why: String,
}

fn error(mount: &str, why: impl Into<String>) -> MountError {
    MountError {
        mount: format!("{mount:?}"),
        why: why.into(),
    }
}

impl Mount {
    /// A mount that every container has.
    pub(crate) fn builtin(source: Source, destination: impl Into<PathBuf>) -> Self {
        Self {
            source,
            destination: destination.into(),
            options: Options::default(),
            missing: Missing::Passes,
        }
    }

    /// Parses a mount of the command line. Relative sources are below `cwd`.
    pub fn parse(text: &str, cwd: &Path, variables: &Variables) -> Result<Self, MountError> {
        let expanded = |source: &str| {
            let path = PathBuf::from(expand(source, variables));
            normalized(&cwd.join(path))
        };
        let is_long = text.split(',').next().is_some_and(|first| {
            ["src=", "dest=", "type="]
                .iter()
                .any(|key| first.starts_with(key))
        });
        if is_long {
            return Self::parse_long(text, expanded);
        }
        let mut parts = text.splitn(3, ':');
        let source = parts.next().unwrap_or_default();
        if source.is_empty() {
            return Err(error(text, "has no source; write SRC or SRC:DST"));
        }
        let source = expanded(source);
        let destination = match parts.next() {
            Some("") => return Err(error(text, "has nothing behind the colon; write SRC:DST")),
            Some(destination) => PathBuf::from(destination),
            None => source.clone(),
        };
        let options = match parts.next() {
            Some(options) => Options::parse(options.split(','), text)?,
            None => Options::default(),
        };
        Self::new(Source::Bind(source), destination, options, text)
    }

    fn parse_long(text: &str, expanded: impl Fn(&str) -> PathBuf) -> Result<Self, MountError> {
        let (head, options) = match text.split_once("opt=") {
            Some((head, options)) => (head.trim_end_matches(','), Some(options)),
            None => (text, None),
        };
        let (mut source, mut destination, mut kind) = (None, None, "bind");
        for part in head.split(',').filter(|part| !part.is_empty()) {
            match part.split_once('=') {
                Some(("src", value)) => source = Some(value),
                Some(("dest", value)) => destination = Some(value),
                Some(("type", value)) => kind = value,
                _ => {
                    let why = format!(
                        "has {part:?}, which is none of src=, dest=, type= and, at the end, opt="
                    );
                    return Err(error(text, why));
                }
            }
        }
        let destination = destination
            .or(source)
            .ok_or_else(|| error(text, "has neither src= nor dest="))?;
        let source = match kind_of(kind, text)? {
            Source::Bind(_) => {
                let source = source.ok_or_else(|| error(text, "has no src="))?;
                Source::Bind(expanded(source))
            }
            other => other,
        };
        let options = match options {
            Some(options) => Options::parse(options.split([',', ':']), text)?,
            None => Options::default(),
        };
        Self::new(source, destination.into(), options, text)
    }

    /// The mount `name` of a template in `containers.yaml`.
    pub fn of_template(
        name: &str,
        mount: &TemplateMount,
        variables: &Variables,
    ) -> Result<Self, MountError> {
        Self::from_template(name, mount, variables).map_err(|error| {
            let place = mount.place.as_ref().map(ToString::to_string);
            let place = place.unwrap_or_else(|| "containers.yaml".to_owned());
            MountError {
                mount: format!("{} of {place}", error.mount),
                ..error
            }
        })
    }

    fn from_template(
        name: &str,
        mount: &TemplateMount,
        variables: &Variables,
    ) -> Result<Self, MountError> {
        let path = |text: &str| {
            template::expand(text, variables).map_err(|why| error(name, format!("{why}")))
        };
        let source = match kind_of(mount.kind.as_deref().unwrap_or("bind"), name)? {
            Source::Bind(_) => match &mount.source {
                Some(source) => Source::Bind(path(source)?),
                None => return Err(error(name, "has no source")),
            },
            other => other,
        };
        let destination = match (&mount.destination, &mount.source) {
            (Some(destination), _) => path(destination)?,
            (None, Some(source)) => path(source)?,
            (None, None) => return Err(error(name, "has no destination")),
        };
        let options = mount.options.iter().flatten().map(String::as_str);
        let mount = Self::new(source, destination, Options::parse(options, name)?, name)?;
        Ok(Self {
            missing: Missing::Warns,
            ..mount
        })
    }

    /// What a generator printed behind `MOUNT`: `SRC[:DST]`. Devices work in it.
    pub(crate) fn of_generator(text: &str, variables: &Variables) -> Result<Self, MountError> {
        let mut mount = Self::parse(text, Path::new("/"), variables)?;
        mount.options.devices = true;
        mount.missing = Missing::Warns;
        Ok(mount)
    }

    fn new(
        source: Source,
        destination: PathBuf,
        options: Options,
        text: &str,
    ) -> Result<Self, MountError> {
        if !destination.is_absolute() {
            let why = format!(
                "has the relative destination {}; write an absolute path",
                destination.display()
            );
            return Err(error(text, why));
        }
        let destination = normalized(&destination);
        if destination == Path::new("/") {
            return Err(error(text, "would hide the whole image; mount below /"));
        }
        Ok(Self {
            source,
            destination,
            options,
            missing: Missing::Fails,
        })
    }
}

fn kind_of(kind: &str, text: &str) -> Result<Source, MountError> {
    Ok(match kind {
        "bind" | "none" => Source::Bind(PathBuf::new()),
        "tmpfs" => Source::Tmpfs,
        "proc" => Source::Proc,
        "sysfs" => Source::Sys,
        "mqueue" => Source::Queues,
        "devpts" => Source::Terminals,
        other => {
            let why = format!(
                "has the type {other:?}, which cannot be mounted without root; use bind or tmpfs"
            );
            return Err(error(text, why));
        }
    })
}

impl Options {
    fn parse<'a>(
        words: impl IntoIterator<Item = &'a str>,
        mount: &str,
    ) -> Result<Self, MountError> {
        let mut options = Self::default();
        for word in words {
            match word {
                "ro" => options.read_only = true,
                "rw" => options.read_only = false,
                "noexec" => options.no_exec = true,
                "exec" => options.no_exec = false,
                "dev" => options.devices = true,
                "nodev" => options.devices = false,
                // Always so, or without a meaning here.
                "" | "bind" | "rbind" | "nosuid" | "private" | "rprivate" | "slave" | "rslave"
                | "relatime" | "noatime" | "strictatime" => {}
                _ if ["size=", "mode=", "nr_inodes="]
                    .iter()
                    .any(|key| word.starts_with(key)) =>
                {
                    options.data.push(word.to_owned());
                }
                // Files belong to who runs the container anyway.
                _ if word.starts_with("uid=") || word.starts_with("gid=") => {}
                _ => {
                    let why = format!(
                        "has the unknown option {word:?}; there are ro, rw, noexec, dev, size=, mode="
                    );
                    return Err(error(mount, why));
                }
            }
        }
        Ok(options)
    }
}

/// Replaces `$VAR`, `${VAR}` and a leading `~`; variables that are not set stay as they are written.
fn expand(text: &str, variables: &Variables) -> String {
    let mut out = String::new();
    let mut rest = text;
    if rest == "~" || rest.starts_with("~/") {
        out.push_str(&variables.homedir.to_string_lossy());
        rest = rest.strip_prefix('~').unwrap_or(rest);
    }
    while let Some((before, after)) = rest.split_once('$') {
        out.push_str(before);
        let (name, tail) = match after
            .strip_prefix('{')
            .and_then(|after| after.split_once('}'))
        {
            Some((name, tail)) => (name, tail),
            None => {
                let end = after
                    .find(|c: char| !c.is_ascii_alphanumeric() && c != '_')
                    .unwrap_or(after.len());
                after.split_at(end)
            }
        };
        match variables.env.get(name) {
            Some(value) => {
                out.push_str(value);
                rest = tail;
            }
            None => {
                out.push('$');
                rest = after;
            }
        }
    }
    out + rest
}

/// Removes `.` and `..` from a path.
pub(crate) fn normalized(path: &Path) -> PathBuf {
    let mut out = PathBuf::new();
    for component in path.components() {
        match component {
            Component::ParentDir => {
                out.pop();
            }
            Component::CurDir => {}
            other => out.push(other),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        Variables {
            homedir: "/home/doe".into(),
            user: "doe".into(),
            env: [("SCRATCH".to_owned(), "/scratch".to_owned())].into(),
        }
    }

    fn parse(text: &str) -> Result<Mount, MountError> {
        Mount::parse(text, Path::new("/project"), &variables())
    }

    #[test]
    fn every_notation() {
        for (text, source, destination) in [
            ("/a", "/a", "/a"),
            ("/a:/b", "/a", "/b"),
            ("a/../c", "/project/c", "/project/c"),
            ("~/data:/data/", "/home/doe/data", "/data"),
            ("$SCRATCH/x:/x", "/scratch/x", "/x"),
            ("${SCRATCH}x", "/scratchx", "/scratchx"),
            ("$NOPE/x:/x", "/project/$NOPE/x", "/x"),
            ("src=/a,dest=/b", "/a", "/b"),
            ("src=/a,type=bind,opt=ro,dev", "/a", "/a"),
            ("/a:/../b/./c", "/a", "/b/c"),
        ] {
            let mount = parse(text).unwrap();
            assert_eq!(mount.source, Source::Bind(source.into()), "{text}");
            assert_eq!(mount.destination, Path::new(destination), "{text}");
            assert_eq!(mount.missing, Missing::Fails);
        }
        assert!(parse("/a:/b:ro").unwrap().options.read_only);
        let long = parse("src=/a,opt=ro,dev").unwrap().options;
        assert!(long.read_only && long.devices);
        let tmpfs = parse("dest=/t,type=tmpfs,opt=size=1m:mode=700").unwrap();
        assert_eq!(tmpfs.source, Source::Tmpfs);
        assert_eq!(tmpfs.options.data, ["size=1m", "mode=700"]);
    }

    #[test]
    fn what_makes_no_sense_says_why() {
        for (text, part) in [
            ("", "no source"),
            (":/b", "no source"),
            ("/a:", "behind the colon"),
            ("/a:b", "relative destination b"),
            ("/a:/", "hide the whole image"),
            ("/a:/b:rx", "unknown option \"rx\""),
            ("src=/a,target=/b", "target=/b"),
            ("type=bind,dest=/x", "no src="),
            ("src=/dev/sda1,dest=/x,type=ext4", "without root"),
            ("type=tmpfs", "neither src= nor dest="),
        ] {
            let error = parse(text).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn templates_use_path_templates() {
        let mount = TemplateMount {
            source: Some("%{env:SCRATCH}/%{user}".into()),
            options: Some(vec!["rbind".into(), "ro".into()]),
            ..TemplateMount::default()
        };
        let mount = Mount::of_template("scratch", &mount, &variables()).unwrap();
        assert_eq!(mount.source, Source::Bind("/scratch/doe".into()));
        assert_eq!(mount.destination, Path::new("/scratch/doe"));
        assert!(mount.options.read_only);
        assert_eq!(mount.missing, Missing::Warns);
        let none = Mount::of_template("none", &TemplateMount::default(), &variables());
        assert!(none.unwrap_err().to_string().contains("no source"));
    }
}
