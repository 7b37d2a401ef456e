use std::fs;

use super::*;

fn source(text: &str) -> Result<Location> {
    Location::source(text, None, None)
}

#[test]
fn prefixes_name_the_format() {
    assert_eq!(
        source("docker://centos").unwrap(),
        Location::Registry {
            reference: "centos".into()
        }
    );
    assert_eq!(
        source("docker-archive:/nowhere/a.tar:img:1").unwrap(),
        Location::DockerArchive {
            path: "/nowhere/a.tar".into(),
            reference: Some("img:1".into())
        }
    );
    assert_eq!(
        source("OCI:/nowhere/dir:tag").unwrap(),
        Location::OciFolder {
            path: "/nowhere/dir".into(),
            tag: Some("tag".into())
        }
    );
    assert_eq!(
        source("oci:/nowhere/dir:reg.io:5000/os/centos:8").unwrap(),
        Location::OciFolder {
            path: "/nowhere/dir".into(),
            tag: Some("reg.io:5000/os/centos:8".into())
        }
    );
    assert_eq!(
        source("docker-daemon:debian:12").unwrap(),
        Location::DockerDaemon {
            reference: "debian:12".into()
        }
    );
}

#[test]
fn the_first_colon_behind_a_folder_ends_it() {
    let folder = tempfile::tempdir().unwrap();
    let colons = folder.path().join("a:b");
    std::fs::create_dir(&colons).unwrap();
    for (tail, path, tag) in [
        ("a:b", "a:b", None),
        ("a:b:c:d", "a:b", Some("c:d")),
        ("a:x:c/d:e", "a", Some("x:c/d:e")),
        ("new:centos:7", "new", Some("centos:7")),
        ("new:", "new", None),
    ] {
        let text = format!("oci:{}/{tail}", folder.path().display());
        let path = folder.path().join(path);
        let found = source(&text).unwrap();
        let tag = tag.map(str::to_owned);
        assert_eq!(
            found,
            Location::OciFolder {
                path: path.clone(),
                tag: tag.clone()
            },
            "{tail}"
        );
        let made = Location::destination(&text, None, None, false).unwrap();
        let tag = tag.or_else(|| Some("latest".to_owned()));
        assert_eq!(made, Location::OciFolder { path, tag }, "{tail}");
    }
}

#[test]
fn the_flag_must_not_contradict_the_prefix() {
    assert!(Location::source("oci:/x", Some("docker-archive"), None).is_err());
    assert!(Location::source("oci:/x", Some("oci"), None).is_ok());
    assert!(Location::source("/x", Some("nonsense"), None).is_err());
    assert!(source("sif:/x").unwrap_err().to_string().contains("skopeo"));
    assert!(
        source("docker:centos")
            .unwrap_err()
            .to_string()
            .contains("docker://")
    );
    assert!(source("docker:").is_err());
    let registry = |text| Location::source(text, Some("docker"), None).unwrap();
    for text in ["docker://centos:7", "//centos:7", "centos:7"] {
        let reference = "centos:7".to_owned();
        assert_eq!(registry(text), Location::Registry { reference }, "{text}");
    }
}

#[test]
fn content_decides_and_must_agree() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::write(at("disk"), b"QFI\xfb\0\0\0\x03rest of it").unwrap();
    fs::write(at("disk.vmdk"), b"QFI\xfb\0\0\0\x03rest of it").unwrap();
    fs::write(at("blank"), vec![0; 4096]).unwrap();
    fs::create_dir(at("layout")).unwrap();
    fs::write(at("layout/oci-layout"), "{}").unwrap();
    let found = |name: &str| source(at(name).to_str().unwrap());
    assert!(matches!(
        found("disk").unwrap(),
        Location::VmDisk {
            format: DiskFormat::Qcow2,
            ..
        }
    ));
    assert!(
        found("disk.vmdk")
            .unwrap_err()
            .to_string()
            .contains("qcow2")
    );
    assert!(matches!(
        found("blank").unwrap(),
        Location::VmDisk {
            format: DiskFormat::Raw,
            ..
        }
    ));
    assert!(matches!(
        found("layout").unwrap(),
        Location::OciFolder { tag: None, .. }
    ));
    assert!(matches!(found("none"), Err(Error::NotFound(_))));
    assert!(matches!(
        Location::source("~/disk", None, Some(dir.path())).unwrap(),
        Location::VmDisk { .. }
    ));
    assert!(source(&"x".repeat(4096)).unwrap_err().to_string().len() < 400);
}

#[test]
fn destinations_default_by_kind() {
    let to = |text, vm| Location::destination(text, None, None, vm);
    assert!(matches!(
        to("/a.tar", false).unwrap(),
        Location::DockerArchive {
            reference: None,
            ..
        }
    ));
    assert!(matches!(
        to("/a", true).unwrap(),
        Location::VmDisk {
            format: DiskFormat::Raw,
            ..
        }
    ));
    assert!(matches!(
        to("/a.qcow2", true).unwrap(),
        Location::VmDisk {
            format: DiskFormat::Qcow2,
            ..
        }
    ));
    assert_eq!(
        to("oci:/a", false).unwrap(),
        Location::OciFolder {
            path: "/a".into(),
            tag: Some("latest".into())
        }
    );
    assert!(to("/a.qcow2", false).is_err());
    assert!(to("oci:/a", true).is_err());
}
