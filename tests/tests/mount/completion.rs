//! What a copy is, and when it is complete.

use pcocc_tests::{Docker, Mount, Pcocc};

use crate::hello::{Site, shell, with_image};

/// Writes the files of the layout argv[1] to argv[2], in the order and manner that argv[3] says.
const WRITER: &str = r#"
import os, sys
source, to, how = sys.argv[1:]
os.makedirs(to + "/blobs/sha256")
files = sorted(os.path.relpath(os.path.join(at, f), source) for at, _, fs in os.walk(source) for f in fs)
image = os.path.join(os.environ["PCOCC_USER_CONF_DIR"], "images/meta", os.path.basename(to) + "@0")
if how == "backwards":
    files.reverse()
if how.startswith("open:"):
    # The one that is still open, though all of it is written, comes first.
    files.sort(key=lambda name: not name.startswith(how[5:]))
late = None
for name in files:
    assert not os.path.exists(image), "there before " + name
    file = open(os.path.join(to, name), "wb", buffering=0)
    file.write(open(os.path.join(source, name), "rb").read())
    if how.startswith("open:") and late is None:
        late = file
        # Closing another descriptor of it completes nothing: it is written again.
        os.close(os.dup(file.fileno()))
        file.write(b"")
        file.seek(0)
        file.write(open(os.path.join(source, name), "rb").read())
    else:
        file.close()
if late:
    assert not os.path.exists(image), "there before the last file was closed"
    late.close()
assert os.path.exists(image), "not there when the last file was closed"
"#;

#[test]
fn complete_is_when_all_is_there_and_closed_whatever_the_order() {
    let (pcocc, id) = with_image(Pcocc::as_ordinary_user());
    let mount = Mount::new(&pcocc);
    for (image, how) in [
        ("forwards", "forwards"),
        ("backwards", "backwards"),
        ("marker", "open:oci-layout"),
        ("index", "open:index.json"),
        ("blob", "open:blobs"),
    ] {
        let line = format!(
            "python3 -c '{}' $home/plain $PWD/repo/user/{image} {how}",
            WRITER
        );
        shell(&pcocc, &mount, &line).ok();
        assert_eq!(pcocc.image_id(image), id);
    }
    mount.end();
    pcocc.verify();
}

#[test]
fn a_copy_is_one_transfer_whatever_is_done_to_it_afterwards() {
    let site = Site::new(Pcocc::as_ordinary_user(), None);
    let (from, to) = ("$home/plain", "repo/user");
    site.copy(
        "cp -a $from $to; chmod -R 700 $to; touch -d 2001-01-01 $to/index.json $to",
        from,
        to,
        "a",
    )
    .ok();
    // The same bytes once more, by a tool that truncates and by one that removes first.
    site.copy(
        "cat $from/index.json > $to/index.json; cp -rT $from $to",
        from,
        to,
        "a",
    )
    .ok();
    site.copy(
        "mkdir $to; tar -C $from -c . | tar -C $to -x",
        from,
        to,
        "b",
    )
    .ok();
    for image in ["a", "b"] {
        assert_eq!(site.transfers(image), ["done"]);
        assert_eq!(site.id_of(to, image).as_ref(), Some(&site.id));
    }
    // Others are refused, and the image stays what it is.
    for line in [
        "echo '{}' | cat > $to/index.json",
        "echo x | cat > $to/blobs/sha256/$(ls $to/blobs/sha256 | head -1)",
        "echo x | cat >> $to/oci-layout",
        "mkdir $to/blobs/other",
        "echo x > $to/other",
    ] {
        let refused = site.copy(line, from, to, "a");
        assert!(
            refused.failed().contains("Read-only file system"),
            "{refused}"
        );
    }
    assert_eq!(site.transfers("a"), ["done"]);
    site.end();
}

#[test]
fn within_the_mount_no_bytes_are_copied() {
    let site = Site::new(Pcocc::as_ordinary_user(), None);
    // wchar counts what the process wrote anywhere, by any system call.
    let copy = "pid=$(sed -n 's/.*\"pid\": *\\([0-9]*\\).*/\\1/p' .pcocc/status.json); \
                before=$(sed -n 's/^wchar: //p' /proc/$pid/io); cp -r $from $to; \
                echo $(($(sed -n 's/^wchar: //p' /proc/$pid/io) - before))";
    let bytes = |from: &str, image: &str| -> u64 {
        let copied = site.copy(copy, from, "repo/user", image);
        copied.ok().trim().parse().unwrap()
    };
    let referred = bytes("$PWD/repo/user/hello", "referred");
    let copied = bytes("$home/plain", "copied");
    assert!(copied > 1_000_000, "{copied}");
    assert!(referred < 200_000, "{referred}");
    site.end();
}

/// Adds an image for another machine to the index of the layout argv[1]; only its manifest when argv[2] says so.
const OTHER_PLATFORM: &str = r#"
import hashlib, json, os, sys
layout, how = sys.argv[1:]
index = json.load(open(layout + "/index.json"))
def blob(document, write=True):
    data = json.dumps(document).encode()
    hex = hashlib.sha256(data).hexdigest()
    if write:
        open(f"{layout}/blobs/sha256/{hex}", "wb").write(data)
    return {"digest": "sha256:" + hex, "size": len(data)}
kind = "application/vnd.oci.image."
first = index["manifests"][0]
manifest = json.load(open(layout + "/blobs/sha256/" + first["digest"][7:]))
config = json.load(open(layout + "/blobs/sha256/" + manifest["config"]["digest"][7:]))
first["platform"] = {"os": "linux", "architecture": config["architecture"]}
config["architecture"] = "riscv64"
manifest["config"] = blob(config, how != "part") | {"mediaType": kind + "config.v1+json"}
other = blob(manifest) | {"mediaType": kind + "manifest.v1+json"}
other["platform"] = {"os": "linux", "architecture": "riscv64"}
index["manifests"] = [other] if how == "only" else [other, first]
json.dump(index, open(layout + "/index.json", "w"))
"#;

#[test]
fn of_several_platforms_all_have_to_be_there_and_this_machines_is_kept() {
    let site = Site::new(Pcocc::as_ordinary_user(), None);
    for how in ["all", "part"] {
        let line = format!(
            "cp -r $home/plain $home/{how}; python3 -c '{OTHER_PLATFORM}' $home/{how} {how}"
        );
        site.shell(&line).ok();
        site.copy("cp -r $from $to", &format!("$home/{how}"), "repo/user", how)
            .ok();
    }
    assert_eq!(site.id_of("repo/user", "all").as_ref(), Some(&site.id));
    assert_eq!(site.id_of("repo/user", "part"), None);
    site.end();
}

#[test]
fn what_is_no_layout_of_version_1_is_refused_when_it_is_complete() {
    let site = Site::new(Pcocc::as_ordinary_user(), None);
    for (image, spoil) in [
        (
            "version",
            r#"echo '{"imageLayoutVersion":"2.0.0"}' > $home/version/oci-layout"#,
        ),
        ("parse", "echo '{' > $home/parse/index.json"),
    ] {
        site.shell(&format!("cp -r $home/plain $home/{image}; {spoil}"))
            .ok();
        let from = format!("$home/{image}");
        let refused = site.copy("cp -r $from $to", &from, "repo/user", image);
        assert!(refused.failed().contains("Invalid argument"), "{refused}");
        assert_eq!(site.id_of("repo/user", image), None);
    }
    site.end();
}

#[test]
fn until_it_is_complete_nobody_else_sees_it() {
    let docker = Docker::shared();
    let site = Site::with(Pcocc::new().with(&docker), Some(docker), &[]);
    let second = Mount::with(&site.pcocc, "second", &[]);
    let image = site.name("part");
    site.shell(&format!(
        "for at in docker repo/user; do mkdir -p $at/{image}/blobs/sha256; \
         cp $home/plain/oci-layout $at/{image}; cp $home/plain/blobs/sha256/* $at/{image}/blobs/sha256; done"
    ))
    .ok();
    for store in ["docker", "repo/user"] {
        assert!(site.names(store).contains(&image));
        let elsewhere = shell(&site.pcocc, &second, &format!("ls {store}"));
        assert!(!elsewhere.ok().contains(&image), "{elsewhere}");
        assert_eq!(site.id_of(store, &image), None);
        site.shell(&format!("cp $home/plain/index.json {store}/{image}"))
            .ok();
        assert_eq!(site.id_of(store, &image).as_ref(), Some(&site.id));
        let elsewhere = shell(&site.pcocc, &second, &format!("ls {store}/{image}"));
        assert_eq!(elsewhere.ok(), "blobs\nindex.json\noci-layout");
    }
    second.end();
    site.end();
}
