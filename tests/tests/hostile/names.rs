//! Names that nothing can have, and places that cannot be written.

use std::fs;
use std::path::PathBuf;

use crate::Bed;

#[test]
fn names_that_no_image_can_have() {
    let bed = Bed::new();
    let long = "x".repeat(4096);
    for (name, words) in [
        ("nowhere:image", "nowhere"),
        ("user:a:b", ":"),
        ("a b", "a b"),
        ("a/b", "a/b"),
        ("../escape", "legal"),
        ("user:../escape", "legal"),
        (".hidden", "legal"),
        ("", "empty"),
        ("user:", "legal"),
        (":x", "legal"),
        ("ünïcode", "legal"),
        ("a\nb", "legal"),
        (&long, "image name"),
    ] {
        let outcome = bed.pcocc.try_run(&["image", "import", "oci:good", name]);
        bed.unchanged(&outcome, words);
        let outcome = bed.pcocc.try_run(&["image", "copy", "there", name]);
        bed.unchanged(&outcome, words);
    }
    let outcome = bed.pcocc.try_run(&["image", "import", "oci:good", "there"]);
    bed.unchanged(&outcome, "already exists");
    for (source, words) in [
        ("sif:x", "skopeo"),
        ("dir:x", "skopeo"),
        ("docker:centos", "docker://centos"),
        ("docker://127.0.0.1:1/UPPER", "upper-case"),
        ("docker-daemon:UPPER", "docker"),
        ("oci:", "names no image"),
        ("", "FORMAT:PATH"),
        (&long, "FORMAT:PATH"),
    ] {
        bed.refuses(source, words);
    }
    for (name, words) in [
        ("none", "not found"),
        ("there@7", "not found"),
        ("there@x", "not a number"),
        ("none:there", "not configured"),
        ("", "empty"),
    ] {
        let outcome = bed.pcocc.try_run(&["image", "show", name]);
        bed.unchanged(&outcome, words);
        let outcome = bed
            .pcocc
            .try_run(&["image", "export", name, "docker-archive:out.tar"]);
        bed.unchanged(&outcome, words);
        assert!(!bed.at("out.tar").exists());
        let outcome = bed.pcocc.try_run(&["image", "delete", name]);
        bed.unchanged(&outcome, words);
    }
    bed.end();
}

#[test]
fn exports_that_cannot_be_made() {
    let bed = Bed::new();
    fs::write(bed.at("file"), "mine").unwrap();
    fs::create_dir(bed.at("mine")).unwrap();
    fs::write(bed.at("mine/file"), "mine").unwrap();
    let long = format!("oci:new:{}", "x".repeat(4096));
    let files = || {
        let mut files: Vec<PathBuf> = fs::read_dir(bed.at(""))
            .unwrap()
            .map(|e| e.unwrap().path())
            .collect();
        files.sort();
        files
    };
    let before = files();
    for (dest, words) in [
        ("docker-archive:file", "exists"),
        ("docker-archive:mine", "exists"),
        ("docker-archive:no/such/folder/x", "no/such/folder"),
        ("docker-archive:new.tar:UPPER", "upper-case"),
        ("oci:mine", "other content"),
        ("oci:file", "not a folder"),
        ("oci:no/such/folder/x", "no/such/folder"),
        ("oci:new:a b", "a b"),
        (&long, "longer"),
        ("disk.qcow2", "container"),
        ("docker://127.0.0.1:1/x", "refused"),
        ("docker://127.0.0.1:1/UPPER", "upper-case"),
    ] {
        let outcome = bed.pcocc.try_run(&["image", "export", "there", dest]);
        bed.unchanged(&outcome, words);
        assert_eq!(files(), before, "{dest}");
    }
    assert_eq!(fs::read(bed.at("file")).unwrap(), b"mine");
    bed.end();
}
