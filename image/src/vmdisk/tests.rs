use super::*;
use pcocc_core::beneath::TempFile;

/// The disk in one file.
fn disk(path: &Path) -> Disk {
    let file = File::open(path).unwrap();
    Disk::chain("disk".into(), [Ok((Digest::of(b""), file))]).unwrap()
}

fn qemu_img(args: &[&str], dir: &Path) {
    let output = Command::new("qemu-img")
        .args(args)
        .current_dir(dir)
        .output()
        .unwrap();
    assert!(output.status.success(), "{args:?}: {output:?}");
}

#[test]
fn every_format_is_detected_and_makes_the_round_trip() {
    let dir = tempfile::tempdir().unwrap();
    let raw = dir.path().join("disk.raw");
    let mut content = vec![0_u8; 4 << 20];
    for (i, byte) in content.iter_mut().enumerate().skip(1 << 20).take(1 << 20) {
        *byte = (i * 7 + i / 251) as u8;
    }
    fs::write(&raw, &content).unwrap();
    for format in ["raw", "qcow2", "qed", "vdi", "vpc", "vmdk"] {
        let format = DiskFormat::parse(format).unwrap();
        let name = format!("disk.{}", format.name());
        if format != DiskFormat::Raw {
            qemu_img(
                &[
                    "convert",
                    "-f",
                    "raw",
                    "-O",
                    format.name(),
                    "disk.raw",
                    &name,
                ],
                dir.path(),
            );
        }
        let path = dir.path().join(&name);
        let detected = detect(&path).unwrap();
        assert_eq!(detected, (format != DiskFormat::Raw).then_some(format));
        let stored = TempFile::new_in(dir.path()).unwrap();
        import(
            &path,
            format,
            &stored.path_for_children(),
            &Context::silent(),
        )
        .unwrap();
        assert_eq!(detect(&stored.path()).unwrap(), Some(DiskFormat::Qcow2));
        let back = dir.path().join(format!("back-{}", format.name()));
        export(
            &disk(&stored.path()),
            &back,
            DiskFormat::Raw,
            &Context::silent(),
        )
        .unwrap();
        let mut back = fs::read(&back).unwrap();
        back.truncate(content.len());
        assert!(back == content, "{format:?}");
    }
}

#[test]
fn files_behind_the_image_are_refused() {
    let dir = tempfile::tempdir().unwrap();
    let temp = dir.path().join("temp");
    fs::write(&temp, "").unwrap();
    let refused = |name: &str, format| {
        import(&dir.path().join(name), format, &temp, &Context::silent())
            .unwrap_err()
            .to_string()
    };
    qemu_img(
        &[
            "create",
            "-f",
            "qcow2",
            "-F",
            "raw",
            "-b",
            "/etc/passwd",
            "over.qcow2",
            "1M",
        ],
        dir.path(),
    );
    assert!(refused("over.qcow2", DiskFormat::Qcow2).contains("/etc/passwd"));
    fs::write(
        dir.path().join("out.vmdk"),
        "# Disk DescriptorFile\nversion=1\nCID=1\nparentCID=ffffffff\n\
         createType=\"monolithicFlat\"\nRW 2 FLAT \"/etc/passwd\" 0\n\
         ddb.geometry.cylinders = \"1\"\nddb.geometry.heads = \"1\"\n\
         ddb.geometry.sectors = \"2\"\nddb.adapterType = \"ide\"\n",
    )
    .unwrap();
    let said = refused("out.vmdk", DiskFormat::Vmdk);
    assert!(
        said.contains("passwd") || said.contains("qemu-img says"),
        "{said}"
    );
    fs::write(dir.path().join("broken.qcow2"), b"QFI\xfb\0\0\0\x03\0\0").unwrap();
    assert!(refused("broken.qcow2", DiskFormat::Qcow2).contains("qemu-img says"));
    assert!(refused("none", DiskFormat::Raw).contains("none"));
    assert_eq!(fs::read(&temp).unwrap(), b"");
}

#[test]
fn a_cancelled_conversion_ends_and_an_export_leaves_nothing() {
    let dir = tempfile::tempdir().unwrap();
    qemu_img(&["create", "-f", "qcow2", "a.qcow2", "1G"], dir.path());
    let context = Context::silent();
    context.cancel.cancel();
    let to = dir.path().join("out.raw");
    let source = dir.path().join("a.qcow2");
    assert!(matches!(
        export(&disk(&source), &to, DiskFormat::Raw, &context),
        Err(Error::Cancelled)
    ));
    assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 1);
    fs::write(&to, "mine").unwrap();
    assert!(matches!(
        export(&disk(&source), &to, DiskFormat::Raw, &Context::silent()),
        Err(Error::Exists(_))
    ));
    assert_eq!(fs::read(&to).unwrap(), b"mine");
}
