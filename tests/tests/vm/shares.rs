//! What a root process in a container can do to the node through a shared folder: what the user could, and no more.

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

use pcocc_tests::{TestVm, scratch, share, vm_spec};

#[test]
fn roots_of_containers_have_the_users_rights_and_no_more() {
    let folder = scratch();
    let home = folder.path().join("home,with=comma");
    let (mine, secret, fixed) = (
        home.join("d"),
        folder.path().join("secret"),
        folder.path().join("fixed"),
    );
    for path in [&mine, &fixed] {
        fs::create_dir_all(path).expect("make a folder");
    }
    fs::write(mine.join("in"), "from the node").expect("write");
    fs::write(fixed.join("in"), "fixed").expect("write");
    fs::write(&secret, "secret").expect("write");
    fs::create_dir(mine.join("team")).expect("make a folder");
    fs::set_permissions(mine.join("team"), fs::Permissions::from_mode(0o2755)).expect("setgid");
    symlink(&secret, mine.join("link")).expect("link");
    symlink("../../secret", mine.join("relative")).expect("link");
    let mut spec = vm_spec(folder.path());
    spec.plan.shares = vec![share(&home, false), share(&fixed, true)];
    let vm = TestVm::start(spec);
    vm.load_busybox();
    let d = format!("{}:/d", mine.display());
    // Docker's own notation cannot have a comma, but a colon is what separates.
    let f = format!("{}:/f", fixed.display());
    let script = "cat /d/in; echo from a guest > /d/out; mkdir /d/dir
        cp /bin/busybox /d/su; chmod 755 /d/su
        chmod 4755 /d/su && echo set the user; chmod u+s /d/out && echo set the user
        chmod 2755 /d/su; chmod g+s /d/dir; mkdir /d/team/new && echo in the team
        chown 33:33 /d/dir
        mknod /d/null c 1 3 && echo made a device
        cat /d/link && echo followed; cat /d/relative && echo followed
        ln -s / /d/root; ls /d/root/bin/busybox
        echo x > /f/new && echo wrote; echo x >> /f/in && echo wrote; cat /f/in
        id -u";
    let outcome = vm.container(&["-v", &d, "-v", &f], script);
    let said = outcome.ok();
    assert!(said.starts_with("from the node"), "{outcome}");
    assert!(said.contains("in the team"), "{outcome}");
    let mode = |name: &str| fs::metadata(mine.join(name)).expect("made").mode() & 0o7777;
    for name in ["su", "out", "dir"] {
        assert_eq!(mode(name) & 0o6000, 0, "{name}: {outcome}");
    }
    assert_eq!(mode("su"), 0o755, "{outcome}");
    assert_eq!(mode("team/new") & 0o2700, 0o2700, "{outcome}");
    for word in ["made a device", "followed", "wrote", "set the user"] {
        assert!(!said.contains(word), "{outcome}");
    }
    assert!(said.contains("fixed") && said.ends_with('0'), "{outcome}");
    assert_eq!(
        fs::read_to_string(mine.join("out")).expect("read"),
        "from a guest\n"
    );
    let own = fs::metadata(&home).expect("our folder");
    for name in ["out", "dir"] {
        let meta = fs::metadata(mine.join(name)).expect("what the guest made");
        assert_eq!(
            (meta.uid(), meta.gid()),
            (own.uid(), own.gid()),
            "{name} is not ours"
        );
    }
    assert!(!mine.join("null").exists());
    assert_eq!(fs::read_to_string(&secret).expect("read"), "secret");
    assert_eq!(fs::read_to_string(fixed.join("in")).expect("read"), "fixed");
    // Both sides see what the other does, at once.
    fs::write(mine.join("later"), "later").expect("write");
    assert_eq!(vm.container(&["-v", &d], "cat /d/later").ok(), "later");
    fs::set_permissions(mine.join("out"), fs::Permissions::from_mode(0o644))
        .expect("ours to change");
}

#[test]
fn files_of_others_stay_closed_as_root() {
    let folder = scratch();
    let home = folder.path().join("home");
    fs::create_dir(&home).expect("make a folder");
    fs::write(home.join("others"), "others").expect("write");
    // As root we can make what an ordinary user only meets: a file of somebody else's.
    std::os::unix::fs::chown(home.join("others"), Some(1234), Some(1234)).expect("give away");
    fs::set_permissions(home.join("others"), fs::Permissions::from_mode(0o600)).expect("close");
    let mut spec = vm_spec(folder.path());
    spec.plan.shares = vec![share(&home, false)];
    let vm = TestVm::start(spec);
    let script = format!(
        "cat {0}/others && echo read; chmod 777 {0}/others && echo opened; true",
        home.display()
    );
    let said = crate::ends::in_guest(&vm, &script);
    assert!(
        !said.contains("read\n") && !said.contains("opened"),
        "{said}"
    );
    assert_eq!(
        fs::metadata(home.join("others"))
            .expect("still there")
            .mode()
            & 0o777,
        0o600
    );
}
