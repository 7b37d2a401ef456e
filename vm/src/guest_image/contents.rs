//! The guest's root file system: which files of which packages, and the few that are its own.
//!
//! Nothing of a package is run: no installation scripts, hence no root. What those would have made (links of
//! alternatives, the bundle of certificates) is made here.

use std::collections::BTreeMap;
use std::io::{self, Read, Write};

use sha2::{Digest as _, Sha256};

use super::modules::Modules;
use pcocc_core::hex::hex;

/// Packages and what is taken from them: `path` itself, `path/` with all below it, `path/*` the files in it.
pub(crate) const PACKAGES: [(&str, &[&str]); 28] = [
    (
        "docker.io",
        &[
            "usr/sbin/dockerd",
            "usr/sbin/docker-proxy",
            "usr/bin/docker-init",
        ],
    ),
    ("tini", &["usr/bin/tini-static"]),
    (
        "containerd",
        &["usr/bin/containerd", "usr/bin/containerd-shim-runc-v2"],
    ),
    ("runc", &["usr/sbin/runc", "usr/bin/runc"]),
    (
        "iptables",
        &[
            "usr/sbin/xtables-legacy-multi",
            "usr/sbin/iptables-legacy",
            "usr/sbin/iptables-legacy-restore",
            "usr/sbin/iptables-legacy-save",
            "usr/sbin/ip6tables-legacy",
            "usr/sbin/ip6tables-legacy-restore",
            "usr/sbin/ip6tables-legacy-save",
            "usr/lib/x86_64-linux-gnu/xtables/",
        ],
    ),
    ("e2fsprogs", &["usr/sbin/resize2fs"]),
    ("busybox-static", &["usr/bin/busybox"]),
    ("ca-certificates", &["usr/share/ca-certificates/"]),
    ("netbase", &["etc/protocols", "etc/services"]),
    ("libc6", LIBRARIES),
    ("libgcc-s1", LIBRARIES),
    ("libsystemd0", LIBRARIES),
    ("libseccomp2", LIBRARIES),
    ("libcap2", LIBRARIES),
    ("libzstd1", LIBRARIES),
    ("liblzma5", LIBRARIES),
    ("liblz4-1", LIBRARIES),
    ("libip4tc2", LIBRARIES),
    ("libip6tc2", LIBRARIES),
    ("libxtables12", LIBRARIES),
    ("libext2fs2t64", LIBRARIES),
    ("libcom-err2", LIBRARIES),
    ("libblkid1", LIBRARIES),
    ("libuuid1", LIBRARIES),
    ("libmnl0", LIBRARIES),
    ("libnfnetlink0", LIBRARIES),
    ("libnetfilter-conntrack3", LIBRARIES),
    ("xz-utils", &["usr/bin/xz", "usr/bin/unxz"]),
];

const LIBRARIES: &[&str] = &["usr/lib/x86_64-linux-gnu/*", "usr/lib64/*"];

/// Commands of busybox that get a name of their own.
const APPLETS: &str = "awk cat chmod chown clear cp cut date dd df dmesg du env find free grep gunzip gzip head \
     hostname id ifconfig ip kill killall less ln ls lsmod md5sum mkdir mknod more mount mv nc netstat nslookup \
     ping ping6 pkill ps pwd readlink rm rmdir route sed seq sh sha256sum sleep sort stat strings stty sync \
     sysctl tail tar tee telnet test time top touch tr true uname uniq uptime vi wc wget which xargs";

/// A file, folder or link of the root.
#[derive(Clone, Debug, PartialEq, Eq)]
enum Node {
    File(u32, Vec<u8>),
    Folder(u32),
    Link(String),
}

/// The root file system being put together; paths have no leading slash.
#[derive(Debug, Default)]
pub(crate) struct Contents {
    nodes: BTreeMap<String, Node>,
    certificates: Vec<u8>,
}

impl Contents {
    /// Takes what is wanted out of a package, given as the tar stream of its files.
    pub(crate) fn add_package(&mut self, wanted: &[&str], stream: impl Read) -> io::Result<()> {
        let mut archive = tar::Archive::new(stream);
        for entry in archive.entries()? {
            let mut entry = entry?;
            let path = usr_merged(&entry.path()?.to_string_lossy());
            if !wanted.iter().any(|pattern| matches(pattern, &path)) {
                continue;
            }
            let mode = entry.header().mode()? & 0o777;
            let kind = entry.header().entry_type();
            if kind.is_file() {
                let mut content = Vec::new();
                entry.read_to_end(&mut content)?;
                if path.starts_with("usr/share/ca-certificates/") {
                    self.certificates.extend_from_slice(&content);
                    self.certificates.push(b'\n');
                } else {
                    self.nodes.insert(path, Node::File(mode, content));
                }
            } else if kind.is_symlink() {
                let target = entry.link_name()?.unwrap_or_default();
                let target = target.to_string_lossy().into_owned();
                self.nodes.insert(path, Node::Link(target));
            } else if kind.is_hard_link() {
                let target = entry.link_name()?.unwrap_or_default();
                let target = usr_merged(&target.to_string_lossy());
                if let Some(node) = self.nodes.get(&target).cloned() {
                    self.nodes.insert(path, node);
                }
            }
        }
        Ok(())
    }

    /// Adds the modules the root loads, with their list.
    pub(crate) fn add_modules(&mut self, modules: Vec<(String, Vec<u8>)>) {
        let list: String = modules
            .iter()
            .map(|(name, _)| format!("{name}\n"))
            .collect();
        self.file("modules/list", list.as_bytes());
        for (name, module) in modules {
            self.nodes
                .insert(format!("modules/{name}"), Node::File(0o644, module));
        }
    }

    fn file(&mut self, path: &str, content: &[u8]) {
        self.nodes
            .insert(path.to_owned(), Node::File(0o644, content.to_owned()));
    }

    fn link(&mut self, path: String, target: &str) {
        self.nodes.insert(path, Node::Link(target.to_owned()));
    }

    /// Adds what no package has.
    pub(crate) fn finish(&mut self) {
        for (link, target) in [
            ("bin", "usr/bin"),
            ("sbin", "usr/sbin"),
            ("lib", "usr/lib"),
            ("lib64", "usr/lib64"),
            ("var/run", "/run"),
        ] {
            self.link(link.to_owned(), target);
        }
        for name in APPLETS.split_whitespace() {
            self.link(format!("usr/bin/{name}"), "busybox");
        }
        for family in ["iptables", "ip6tables"] {
            for suffix in ["", "-save", "-restore"] {
                self.link(format!("usr/sbin/{family}{suffix}"), "xtables-legacy-multi");
            }
        }
        for (folder, mode) in [
            ("data", 0o755),
            ("dev", 0o755),
            ("home", 0o755),
            ("mnt", 0o755),
            ("proc", 0o555),
            ("root", 0o700),
            ("run", 0o755),
            ("sys", 0o555),
            ("tmp", 0o1777),
            ("var/lib", 0o755),
            ("var/log", 0o755),
            ("var/tmp", 0o1777),
        ] {
            self.nodes.insert(folder.to_owned(), Node::Folder(mode));
        }
        for (file, content) in [
            (
                "etc/passwd",
                "root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534:nobody:/:/bin/false\n",
            ),
            (
                "etc/group",
                "root:x:0:\ntty:x:5:\ndocker:x:999:\nnogroup:x:65534:\n",
            ),
            (
                "etc/nsswitch.conf",
                "passwd: files\ngroup: files\nhosts: files dns\n",
            ),
            (
                "etc/containerd/config.toml",
                // Beside docker's data, and without what only Kubernetes uses.
                "version = 2\nroot = \"/data/containerd\"\nstate = \"/run/containerd\"\n\
                 disabled_plugins = [\"io.containerd.grpc.v1.cri\", \"io.containerd.nri.v1.nri\", \
                 \"io.containerd.snapshotter.v1.btrfs\", \"io.containerd.snapshotter.v1.zfs\", \
                 \"io.containerd.snapshotter.v1.devmapper\", \"io.containerd.snapshotter.v1.aufs\", \
                 \"io.containerd.internal.v1.opt\", \"io.containerd.tracing.processor.v1.otlp\", \
                 \"io.containerd.internal.v1.tracing\"]\n[debug]\nlevel = \"warn\"\n",
            ),
            ("etc/hosts", "127.0.0.1 localhost\n::1 localhost\n"),
            ("etc/resolv.conf", ""),
            ("etc/hostname", "docker\n"),
            ("etc/profile", "export PS1='guest:\\w # '\n"),
            (
                "etc/os-release",
                "ID=pcocc-guest\nNAME=\"pcocc docker guest\"\nID_LIKE=debian\n",
            ),
        ] {
            self.file(file, content.as_bytes());
        }
        let bundle = std::mem::take(&mut self.certificates);
        self.file("etc/ssl/certs/ca-certificates.crt", &bundle);
        let paths: Vec<String> = self.nodes.keys().cloned().collect();
        for path in paths {
            let mut parent = path.as_str();
            while let Some((up, _)) = parent.rsplit_once('/') {
                self.nodes
                    .entry(up.to_owned())
                    .or_insert(Node::Folder(0o755));
                parent = up;
            }
        }
    }

    /// Writes the root as a tar stream: sorted, all of it root's, no times.
    pub(crate) fn write(&self, output: &mut dyn Write) -> io::Result<()> {
        let mut archive = tar::Builder::new(output);
        for (path, node) in &self.nodes {
            let mut header = tar::Header::new_gnu();
            match node {
                Node::File(mode, content) => {
                    header.set_mode(*mode);
                    header.set_size(content.len() as u64);
                    archive.append_data(&mut header, path, content.as_slice())?;
                }
                Node::Folder(mode) => {
                    header.set_entry_type(tar::EntryType::Directory);
                    header.set_mode(*mode);
                    header.set_size(0);
                    archive.append_data(&mut header, path, io::empty())?;
                }
                Node::Link(target) => {
                    header.set_entry_type(tar::EntryType::Symlink);
                    header.set_mode(0o777);
                    header.set_size(0);
                    archive.append_link(&mut header, path, target)?;
                }
            }
        }
        archive.into_inner()?.flush()
    }

    /// Lists it: path, and what is there.
    pub(crate) fn list(&self) -> BTreeMap<String, String> {
        let shown = |node: &Node| match node {
            Node::File(mode, content) => {
                let digest = hex(&Sha256::digest(content));
                format!("{mode:04o} sha256:{digest}")
            }
            Node::Folder(mode) => format!("{mode:04o} folder"),
            Node::Link(target) => format!("-> {target}"),
        };
        let nodes = self.nodes.iter();
        nodes
            .map(|(path, node)| (format!("/{path}"), shown(node)))
            .collect()
    }

    /// Names what should be there and is not.
    pub(crate) fn missing(&self) -> Vec<String> {
        PACKAGES
            .iter()
            .flat_map(|(package, wanted)| wanted.iter().map(move |path| (package, path)))
            .filter(|(_, path)| !path.ends_with(['/', '*']) && !self.nodes.contains_key(**path))
            .map(|(package, path)| format!("/{path} of {package}"))
            .collect()
    }
}

/// What the kernel's package gives: its image and its modules.
pub(crate) fn read_kernel(stream: impl Read) -> io::Result<(String, Vec<u8>, Modules)> {
    let mut modules = Modules::default();
    let mut kernel = None;
    let mut archive = tar::Archive::new(stream);
    for entry in archive.entries()? {
        let mut entry = entry?;
        let path = entry.path()?.to_string_lossy().into_owned();
        if let Some((_, release)) = path.split_once("boot/vmlinuz-") {
            let mut content = Vec::new();
            let release = release.to_owned();
            entry.read_to_end(&mut content)?;
            kernel = Some((release, content));
        } else if entry.header().entry_type().is_file() {
            modules.add(&path, &mut entry)?;
        }
    }
    let (release, kernel) = kernel.ok_or_else(|| io::Error::other("there is no kernel in it"))?;
    Ok((release, kernel, modules))
}

/// Gives a package's path as it is after `/bin`, `/sbin` and `/lib*` became links into `/usr`.
fn usr_merged(path: &str) -> String {
    let path = path.trim_start_matches("./").trim_start_matches('/');
    let path = path.trim_end_matches('/');
    match path.split_once('/') {
        Some(("bin" | "sbin" | "lib" | "lib64", _)) => format!("usr/{path}"),
        _ => path.to_owned(),
    }
}

fn matches(pattern: &str, path: &str) -> bool {
    if let Some(folder) = pattern.strip_suffix('*') {
        path.strip_prefix(folder)
            .is_some_and(|name| !name.contains('/') && name.contains(".so"))
    } else if pattern.ends_with('/') {
        path.starts_with(pattern)
    } else {
        path == pattern
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_pick_files() {
        for (pattern, path, is) in [
            ("usr/sbin/runc", "usr/sbin/runc", true),
            ("usr/sbin/runc", "usr/sbin/runc2", false),
            ("etc/containerd/", "etc/containerd/config.toml", true),
            ("usr/lib64/*", "usr/lib64/ld-linux-x86-64.so.2", true),
            ("usr/lib/*", "usr/lib/gconv/UTF-16.so", false),
        ] {
            assert_eq!(matches(pattern, path), is, "{pattern} {path}");
        }
        assert_eq!(usr_merged("./lib64/ld.so"), "usr/lib64/ld.so");
        assert_eq!(usr_merged("./usr/bin/x"), "usr/bin/x");
    }
}
