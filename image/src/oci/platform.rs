//! Platforms: operating system, architecture and variant, in OCI's words (image index spec, "platform").

use std::fmt;
use std::str::FromStr;

use oci_spec::image as oci;

use crate::error::{Error, Result};

/// What an image runs on, such as `linux/amd64` or `linux/arm/v7`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Platform {
    os: String,
    architecture: String,
    variant: Option<String>,
}

impl Platform {
    /// This machine.
    pub fn host() -> Self {
        let variant = (std::env::consts::ARCH == "x86_64").then(|| format!("v{}", level()));
        Self {
            os: "linux".to_owned(),
            architecture: canonical(std::env::consts::ARCH),
            variant,
        }
    }

    /// The platform of a manifest in an index.
    pub(super) fn of(platform: &oci::Platform) -> Self {
        Self {
            os: platform.os().to_string(),
            architecture: canonical(&platform.architecture().to_string()),
            variant: platform
                .variant()
                .clone()
                .filter(|variant| !variant.is_empty()),
        }
    }

    /// Whether this is the platform of manifests that are no images.
    pub(super) fn is_unknown(&self) -> bool {
        self.os == "unknown" && self.architecture == "unknown"
    }

    /// How well an image for `offered` runs here: the more, the better; `None` when it does not run. An image for an older
    /// variant of the architecture runs, one for a newer variant does not.
    pub fn rank(&self, offered: &Self) -> Option<u32> {
        if (&self.os, &self.architecture) != (&offered.os, &offered.architecture) {
            return None;
        }
        // Images that name no variant are for the first.
        let first = match self.architecture.as_str() {
            "arm64" => 8,
            "arm" => 7,
            _ => 1,
        };
        let number = |variant: &Option<String>| match variant {
            None => Some(first),
            Some(variant) => variant.strip_prefix('v')?.parse::<u32>().ok(),
        };
        match (number(&self.variant), number(&offered.variant)) {
            (Some(own), Some(other)) => (other <= own).then_some(other),
            _ => (self.variant == offered.variant).then_some(0),
        }
    }
}

/// The level of this processor in the x86-64 ABI, from 1 to 4.
fn level() -> u32 {
    #[cfg(target_arch = "x86_64")]
    {
        use std::is_x86_feature_detected as has;
        let second = has!("sse4.2") && has!("ssse3") && has!("popcnt") && has!("cmpxchg16b");
        let third = second
            && has!("avx2")
            && has!("bmi1")
            && has!("bmi2")
            && has!("fma")
            && has!("lzcnt")
            && has!("movbe")
            && has!("f16c");
        let fourth = third
            && has!("avx512f")
            && has!("avx512bw")
            && has!("avx512cd")
            && has!("avx512dq")
            && has!("avx512vl");
        1 + u32::from(second) + u32::from(third) + u32::from(fourth)
    }
    #[cfg(not(target_arch = "x86_64"))]
    1
}

/// Go's name of an architecture, for the names that kernels and compilers have.
fn canonical(architecture: &str) -> String {
    match architecture {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "x86" | "i386" | "i686" => "386",
        "powerpc64" => "ppc64le",
        "armhf" => "arm",
        other => other,
    }
    .to_owned()
}

impl FromStr for Platform {
    type Err = Error;

    /// Parses `OS/ARCH[/VARIANT]`.
    fn from_str(text: &str) -> Result<Self> {
        let parts: Vec<&str> = text.split('/').collect();
        let legal = |part: &&str| {
            !part.is_empty()
                && part.len() <= 32
                && part
                    .bytes()
                    .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
        };
        let (os, architecture, variant) = match parts.as_slice() {
            [os, architecture] => (os, architecture, None),
            [os, architecture, variant] => (os, architecture, Some((*variant).to_owned())),
            _ => (&"", &"", None),
        };
        if !parts.iter().all(legal) || os.is_empty() {
            let shown: String = text.chars().take(100).collect();
            return Err(Error::invalid(
                format!("platform {shown:?}"),
                "is not of the form OS/ARCH[/VARIANT], such as linux/arm64",
            ));
        }
        Ok(Self {
            os: (*os).to_owned(),
            architecture: canonical(architecture),
            variant,
        })
    }
}

impl fmt::Display for Platform {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.os, self.architecture)?;
        match &self.variant {
            Some(variant) => write!(f, "/{variant}"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn older_variants_run_and_newer_ones_do_not() {
        let rank = |own: &str, other: &str| {
            let own: Platform = own.parse().unwrap();
            own.rank(&other.parse().unwrap())
        };
        for (own, other, expected) in [
            ("linux/amd64/v3", "linux/amd64", Some(1)),
            ("linux/amd64/v3", "linux/x86_64/v2", Some(2)),
            ("linux/amd64/v3", "linux/amd64/v4", None),
            ("linux/amd64/v3", "linux/amd64/odd", None),
            ("linux/amd64", "linux/amd64/v2", None),
            ("linux/aarch64", "linux/arm64/v8", Some(8)),
            ("linux/arm/v7", "linux/arm/v6", Some(6)),
            ("linux/arm/v6", "linux/arm", None),
            ("linux/amd64", "linux/arm64", None),
            ("linux/amd64", "windows/amd64", None),
            ("linux/mips64/odd", "linux/mips64/odd", Some(0)),
        ] {
            assert_eq!(rank(own, other), expected, "{own} {other}");
        }
        let host = Platform::host();
        assert!(host.rank(&host).is_some(), "{host}");
    }

    #[test]
    fn what_is_no_platform_is_refused() {
        for text in [
            "",
            "linux",
            "/",
            "linux/",
            "/amd64",
            "linux/amd64/",
            "a/b/c/d",
            "linux/a b",
            "linux/\u{1b}",
        ] {
            assert!(text.parse::<Platform>().is_err(), "{text:?}");
        }
        let shown = |text: &str| text.parse::<Platform>().unwrap().to_string();
        assert_eq!(shown("linux/x86_64/v2"), "linux/amd64/v2");
    }
}
