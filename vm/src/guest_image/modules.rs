//! Kernel modules: which are needed, what they need in turn, and the order in which they load.
//!
//! The package has them compressed with xz and without a dependency file, which its installation would make;
//! but each module names its own dependencies in its `.modinfo` section.

use std::collections::{BTreeMap, BTreeSet};
use std::io::{self, Read};

/// What the initramfs loads to reach the root disk.
pub(crate) const BOOT: [&str; 3] = ["virtio_blk", "squashfs", "overlay"];

/// What the root loads: the data disk, the network, the shares, and what docker uses. `crc32c_generic` is
/// nobody's declared dependency, and libcrc32c does not load without it.
pub(crate) const RUN: [&str; 27] = [
    "crc32c_generic",
    "ext4",
    "virtio_net",
    "virtio_rng",
    "9pnet_virtio",
    "9p",
    "bridge",
    "br_netfilter",
    "veth",
    "xt_conntrack",
    "xt_addrtype",
    "xt_MASQUERADE",
    "xt_nat",
    "xt_tcpudp",
    "xt_mark",
    "xt_comment",
    "xt_multiport",
    "ipt_REJECT",
    "iptable_nat",
    "iptable_filter",
    "iptable_mangle",
    "nf_conntrack_netlink",
    "ip6table_nat",
    "ip6table_filter",
    "ip6t_REJECT",
    "tun",
    "fuse",
];

/// All modules of a kernel, compressed, by normalized name.
#[derive(Debug, Default)]
pub(crate) struct Modules {
    compressed: BTreeMap<String, Vec<u8>>,
    builtin: BTreeSet<String>,
}

impl Modules {
    /// Notes a file of the kernel's package; other files than modules and their list are passed over.
    pub(crate) fn add(&mut self, path: &str, content: &mut dyn Read) -> io::Result<()> {
        let file = path.rsplit('/').next().unwrap_or(path);
        if let Some(name) = file.strip_suffix(".ko.xz") {
            let mut bytes = Vec::new();
            content.read_to_end(&mut bytes)?;
            self.compressed.insert(normalized(name), bytes);
        } else if file == "modules.builtin" {
            let mut text = String::new();
            content.read_to_string(&mut text)?;
            for line in text.lines() {
                let name = line.rsplit('/').next().unwrap_or(line);
                self.builtin
                    .insert(normalized(name.trim_end_matches(".ko")));
            }
        }
        Ok(())
    }

    /// Gives the wanted modules and all they need that is not in `loaded`, uncompressed, in the order of
    /// loading, and adds them to `loaded`.
    pub(crate) fn resolve(
        &self,
        wanted: &[&str],
        loaded: &mut BTreeSet<String>,
    ) -> io::Result<Vec<(String, Vec<u8>)>> {
        let mut order = Vec::new();
        for name in wanted {
            self.visit(&normalized(name), loaded, &mut order)?;
        }
        Ok(order)
    }

    fn visit(
        &self,
        name: &str,
        loaded: &mut BTreeSet<String>,
        order: &mut Vec<(String, Vec<u8>)>,
    ) -> io::Result<()> {
        if self.builtin.contains(name) || !loaded.insert(name.to_owned()) {
            return Ok(());
        }
        let compressed = self
            .compressed
            .get(name)
            .ok_or_else(|| io::Error::other(format!("the kernel has no module {name}")))?;
        let mut module = Vec::new();
        liblzma::read::XzDecoder::new(compressed.as_slice()).read_to_end(&mut module)?;
        for dependency in dependencies(&module) {
            self.visit(&dependency, loaded, order)?;
        }
        order.push((format!("{name}.ko"), module));
        Ok(())
    }
}

/// Module names use `-` and `_` as one.
fn normalized(name: &str) -> String {
    name.replace('-', "_")
}

/// Reads what a module says it needs: `depends=A,B` in its `.modinfo`.
fn dependencies(module: &[u8]) -> Vec<String> {
    const KEY: &[u8] = b"\0depends=";
    let Some(at) = module.windows(KEY.len()).position(|window| window == KEY) else {
        return Vec::new();
    };
    let value = module.get(at + KEY.len()..).unwrap_or_default();
    let end = value.iter().position(|byte| *byte == 0).unwrap_or(0);
    String::from_utf8_lossy(value.get(..end).unwrap_or_default())
        .split(',')
        .filter(|name| !name.is_empty())
        .map(normalized)
        .collect()
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn packed(content: &[u8]) -> Vec<u8> {
        let mut encoder = liblzma::write::XzEncoder::new(Vec::new(), 1);
        encoder.write_all(content).unwrap();
        encoder.finish().unwrap()
    }

    #[test]
    fn dependencies_come_first_and_once() {
        let mut modules = Modules::default();
        for (name, content) in [
            (
                "bridge",
                &b"\x7fELF\0license=GPL\0depends=stp,ll-c\0name=bridge\0"[..],
            ),
            ("stp", b"\0depends=ll-c\0"),
            ("ll_c", b"\0depends=\0"),
            ("alone", b"\0depends=built_in\0"),
        ] {
            let path = format!("kernel/net/{name}.ko.xz");
            modules.add(&path, &mut packed(content).as_slice()).unwrap();
        }
        modules
            .add("x/modules.builtin", &mut &b"kernel/a/built-in.ko\n"[..])
            .unwrap();
        let mut loaded = BTreeSet::new();
        let names = |wanted: &[&str], loaded: &mut BTreeSet<String>| -> Vec<String> {
            let order = modules.resolve(wanted, loaded).unwrap();
            order.into_iter().map(|(name, _)| name).collect()
        };
        assert_eq!(
            names(&["bridge"], &mut loaded),
            ["ll_c.ko", "stp.ko", "bridge.ko"]
        );
        assert_eq!(names(&["alone", "stp"], &mut loaded), ["alone.ko"]);
        assert!(modules.resolve(&["none"], &mut loaded).is_err());
    }
}
