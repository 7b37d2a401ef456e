//! Names, listings, renaming and deleting.

use std::os::fd::AsFd;
use std::path::Path;
use std::time::{Duration, Instant};

use pcocc_tests::{Docker, Dockerd, Mount, Pcocc, Proxy, wait_until};

use crate::hello::{Site, shell, text, with_image};

/// What an announced change takes to be seen, and one that is not.
const AT_ONCE: Duration = Duration::from_millis(1500);

#[test]
fn images_are_renamed_and_deleted_where_that_is_allowed() {
    let (pcocc, id) = with_image(Pcocc::new());
    let mount = Mount::with(&pcocc, "mnt", &["--allow-delete"]);
    shell(
        &pcocc,
        &mount,
        "mv repo/user/hello repo/user/renamed; cp -r repo/user/renamed repo/user/other; \
         rm -r repo/user/other",
    )
    .ok();
    assert_eq!(
        shell(&pcocc, &mount, "ls repo/user").ok().trim_end(),
        "renamed"
    );
    assert_eq!(pcocc.image_id("renamed"), id);
    // An import by another process shows up without a new mount.
    let plain = pcocc.home().join("plain");
    pcocc.run(&["image", "import", "-t", "oci", text(&plain), "late"]);
    assert_eq!(
        shell(&pcocc, &mount, "ls repo/user").ok().trim_end(),
        "late\nrenamed"
    );
    // A name that is taken is not replaced.
    let taken = shell(&pcocc, &mount, "mv -T repo/user/late repo/user/renamed");
    assert!(taken.failed().contains("File exists"), "{taken}");
    mount.end();
    pcocc.verify();
}

#[test]
fn names_of_docker_images_are_paths() {
    let site = Site::that_deletes();
    let docker = site.docker.as_ref().unwrap();
    let image = docker.name("image");
    let host = format!("localhost:5000/{}", docker.name("x"));
    site.pcocc.run(&["docker", "export", "hello", &image]);
    for name in [
        format!("{image}:1.0"),
        format!("{image}/below:tag"),
        format!("{host}/app"),
        format!("{host}/app:2"),
    ] {
        docker.run(&["tag", &image, &name]);
    }
    // Each tag is an image; one that has names below it stands beside their folder.
    let mine = |folder: &str| -> Vec<String> {
        let mut names = site.names(folder);
        names.retain(|name| folder != "docker" || name.starts_with(&image));
        names
    };
    wait_until("all names are there", AT_ONCE, || {
        mine("docker")
            == [
                image.clone(),
                format!("{image}:1.0"),
                format!("{image}:latest"),
            ]
    });
    assert_eq!(mine(&format!("docker/{image}")), ["below:tag"]);
    assert_eq!(mine(&format!("docker/{host}")), ["app", "app:2"]);
    for path in [
        format!("{image}:latest"),
        format!("{image}:1.0"),
        format!("{image}/below:tag"),
        format!("{host}/app"),
        // Not shown, and accepted.
        format!("{host}/app:latest"),
    ] {
        let config = site.id.trim_start_matches("sha256:");
        site.shell(&format!("test -f docker/{path}/blobs/sha256/{config}"))
            .ok();
    }
    for path in [
        format!("{image}:2"),
        format!("{image}/below"),
        format!("{host}/app:3"),
    ] {
        site.shell(&format!("ls docker/{path}")).failed();
    }
    // Copies make them, folder by folder; a rename gives another tag; the last name takes the image along.
    let more = docker.name("more");
    site.shell(&format!(
        "mkdir -p docker/{host}/deep; cp -r repo/user/hello docker/{host}/deep/er:3; \
         cp -r repo/user/hello docker/{more}:latest; mv docker/{more} docker/{more}:9; \
         cp -r repo/user/hello docker/{image}/second; rm -r docker/{host}/app; \
         rsync -r repo/user/hello docker/{more}"
    ))
    .ok();
    for name in [
        format!("{host}/deep/er:3"),
        format!("{more}:9"),
        format!("{image}/second"),
        format!("{more}/hello"),
    ] {
        assert_eq!(docker.image_id(&name).as_ref(), Some(&site.id), "{name}");
    }
    for name in [more.clone(), format!("{host}/app")] {
        assert_eq!(docker.image_id(&name), None, "{name}");
    }
    assert_eq!(mine(&format!("docker/{host}")), ["app:2", "deep"]);
    // An image without a name is not shown.
    docker.run(&[
        "rmi",
        &format!("{host}/app:2"),
        &format!("{host}/deep/er:3"),
    ]);
    wait_until("the folder is gone", AT_ONCE, || {
        site.shell(&format!("ls docker/{host}")).status.code() == Some(2)
    });
    // What docker would not take as a name is refused when the folder is made.
    for name in ["Capital", "a:b:c", "-a", "a..b", "a@sha256:0"] {
        let refused = site.shell(&format!("mkdir -- docker/{name}"));
        assert!(refused.failed().contains("Invalid argument"), "{refused}");
    }
    docker.run(&[
        "rmi",
        &format!("{image}/second"),
        &format!("{image}/below:tag"),
    ]);
    site.end();
}

#[test]
fn docker_images_that_are_hard_to_name() {
    let docker = Docker::shared();
    let site = Site::with(Pcocc::new().with(&docker), Some(docker), &[]);
    let docker = site.docker.as_ref().unwrap();
    let image = docker.name("image");
    site.pcocc.run(&["docker", "export", "hello", &image]);
    docker.run(&["tag", &image, &format!("{image}:1")]);
    wait_until("it is shown", AT_ONCE, || {
        site.names("docker").contains(&format!("{image}:1"))
    });
    // Other tools see a tag in a colon; not in that of a link's target.
    site.shell(&format!(
        "ln -s $PWD/docker/{image}:1 $home/link; skopeo copy -q oci:$home/link dir:$home/out; \
         test -f $home/out/{}",
        site.id.trim_start_matches("sha256:")
    ))
    .ok();
    // Below an image there is no folder of names, unless docker has one there.
    let below = site.shell(&format!("mkdir docker/{image}/below"));
    assert!(below.failed().contains("Read-only"), "{below}");
    docker.run(&["tag", &image, &format!("{image}/below")]);
    wait_until("there is a folder", Duration::from_secs(5), || {
        site.names("docker").contains(&format!("{image}:latest"))
            && site.names(&format!("docker/{image}")) == ["below"]
    });
    site.shell(&format!("cp -r repo/user/hello docker/{image}/beside"))
        .ok();
    for name in [format!("{image}/below"), format!("{image}/beside")] {
        assert_eq!(docker.image_id(&name).as_ref(), Some(&site.id), "{name}");
        docker.run(&["rmi", &name]);
    }
    // One that lost its name to another is not shown.
    let file = [("f", Path::new("/etc/hostname"))];
    let lost = docker.build("lost", "FROM scratch\nCOPY f /first\n", &file);
    let id = docker.image_id(&lost);
    docker.build("lost", "FROM scratch\nCOPY f /second\n", &file);
    assert_ne!(docker.image_id(&lost), id);
    wait_until("the name is shown", AT_ONCE, || {
        site.names("docker").contains(&lost)
    });
    let all = site.names("docker");
    assert_eq!(all.iter().filter(|n| n.starts_with(&lost)).count(), 1);
    assert!(all.iter().all(|name| !name.contains("<none>")), "{all:?}");
    let config = id.unwrap();
    let config = config.trim_start_matches("sha256:");
    site.shell(&format!("test ! -e docker/{lost}/blobs/sha256/{config}"))
        .ok();
    // A link, a file, or a folder in the place of a folder of names: not in docker.
    for (line, said) in [
        ("ln -s x docker/link", "not permitted"),
        ("echo > docker/file", "not permitted"),
        ("mkfifo docker/pipe", "not permitted"),
    ] {
        let refused = site.shell(line);
        assert!(refused.failed().contains(said), "{refused}");
    }
    let deep = docker.name("deep");
    docker.run(&["tag", &image, &format!("{deep}/er")]);
    wait_until("the folder is shown", AT_ONCE, || {
        site.names("docker").contains(&deep)
    });
    let taken = site.shell(&format!("mkdir docker/{deep}"));
    assert!(taken.failed().contains("File exists"), "{taken}");
    // The image's own date is its folder's time.
    let created = docker.run(&["inspect", "--format", "{{.Created}}", &lost]);
    let times = site.shell(&format!(
        "stat -c %Y docker/{lost}; date -d {created} +%s; stat -c %Y docker/{lost}/index.json"
    ));
    let times: Vec<&str> = times.ok().lines().collect();
    assert_eq!([times[0], times[2]], [times[1]; 2], "{times:?}");
    site.end();
}

#[test]
fn a_name_that_is_refused_is_refused_with_the_rule() {
    let (pcocc, _) = with_image(Pcocc::new());
    let mount = Mount::new(&pcocc);
    // A disk of a virtual machine is not shown, and its name is taken all the same.
    let disk = r#"{"name": "disk", "revision": 0, "kind": "vm", "owner": "u", "timestamp": 1,
        "data_blobs": [], "custom_meta": {}}"#;
    let line = format!("printf '%s' '{disk}' > $home/.pcocc/images/meta/disk@0; ls repo/user");
    assert_eq!(shell(&pcocc, &mount, &line).ok(), "hello");
    for (name, errno, rule) in [
        ("a b", "Invalid argument", "is not legal"),
        (".a", "Invalid argument", "begin with a dot"),
        ("new@1", "Invalid argument", "revision"),
        ("disk", "File exists", "disk"),
    ] {
        let refused = shell(&pcocc, &mount, &format!("mkdir 'repo/user/{name}'"));
        assert!(refused.failed().contains(errno), "{refused}");
        let last = mount.status()["transfers"].as_array().unwrap().len() - 1;
        let told = mount.status()["transfers"][last]["message"].to_string();
        assert!(told.contains(rule), "{name}: {told}");
        let line = "getfattr --only-values -n user.pcocc.error repo/user";
        let told = shell(&pcocc, &mount, line);
        assert!(told.ok().contains(rule), "{told}");
    }
    mount.end();
}

#[test]
fn revisions_of_a_repository_are_names() {
    let (pcocc, id) = with_image(Pcocc::as_ordinary_user());
    let mount = Mount::with(&pcocc, "mnt", &["--allow-delete"]);
    let names = || shell(&pcocc, &mount, "ls repo/user").ok().to_owned();
    let config = id.trim_start_matches("sha256:");
    shell(
        &pcocc,
        &mount,
        &format!("test -f repo/user/hello@0/blobs/sha256/{config}"),
    )
    .ok();
    assert_eq!(names(), "hello");
    // pcocc 0.7 writes further revisions of its own; we never do.
    shell(
        &pcocc,
        &mount,
        "cd $home/.pcocc/images/meta; sed 's/\"revision\": *0/\"revision\": 3/' hello@0 > t; mv t hello@3",
    )
    .ok();
    assert_eq!(names(), "hello\nhello@0\nhello@3");
    shell(
        &pcocc,
        &mount,
        "cmp repo/user/hello@3/index.json repo/user/hello/index.json; ! ls repo/user/hello@1; \
         ls rootfs/repo/user/hello@3/etc; cp -r repo/user/hello@3 repo/user/copy",
    )
    .ok();
    for refused in ["mkdir repo/user/new@1", "mkdir repo/user/new@0"] {
        let refused = shell(&pcocc, &mount, refused);
        assert!(refused.failed().contains("Invalid argument"), "{refused}");
    }
    // mv words EINVAL in its own way.
    shell(&pcocc, &mount, "mv repo/user/copy repo/user/x@2").failed();
    shell(&pcocc, &mount, "mv repo/user/hello@0 repo/user/old").ok();
    assert_eq!(names(), "copy\nhello\nold");
    // One revision goes alone, the image with all of them.
    let add = "cd $home/.pcocc/images/meta; sed 's/\"revision\": *3/\"revision\": 5/' hello@3 > t; mv t hello@5";
    for (removed, left) in [("hello@5", "copy\nhello\nold"), ("hello", "copy\nold")] {
        shell(&pcocc, &mount, add).ok();
        assert_eq!(names(), "copy\nhello\nhello@3\nhello@5\nold");
        shell(&pcocc, &mount, &format!("rm -r repo/user/{removed}")).ok();
        assert_eq!(names(), left);
    }
    mount.end();
    pcocc.verify();
}

#[test]
fn changes_behind_the_mount_are_seen_and_a_listing_being_read_stays() {
    let docker = Docker::shared();
    let site = Site::with(Pcocc::new().with(&docker), Some(docker), &[]);
    let docker = site.docker.as_ref().unwrap();
    let image = docker.name("a");
    site.pcocc.run(&["docker", "export", "hello", &image]);
    let shown = |name: &str| site.names("docker").iter().any(|n| n == name);
    for round in 0..3 {
        let other = docker.name(&format!("b{round}"));
        docker.run(&["tag", &image, &other]);
        wait_until("a new tag is shown", AT_ONCE, || shown(&other));
        site.shell(&format!("test -f docker/{other}/oci-layout"))
            .ok();
        docker.run(&["rmi", &other]);
        wait_until("a tag is gone", AT_ONCE, || !shown(&other));
        // What was just looked up is found for a second more.
        wait_until("it is not found", AT_ONCE, || {
            !site.shell(&format!("ls docker/{other}")).status.success()
        });
    }
    // Half of a folder is read, then it changes.
    let plain = site.pcocc.home().join("plain");
    let import = |name: &str| {
        site.pcocc
            .run(&["image", "import", "-t", "oci", text(&plain), name]);
    };
    for n in 0..6 {
        import(&format!("image{n}"));
    }
    let read = |folder: &std::fs::File, some: usize| -> Vec<String> {
        // A buffer for two or three names.
        let mut buffer = Vec::with_capacity(80);
        let mut names = Vec::new();
        let mut entries = rustix::fs::RawDir::new(folder.as_fd(), buffer.spare_capacity_mut());
        // What is in the buffer would be lost with it.
        while names.len() < some || !entries.is_buffer_empty() {
            let Some(entry) = entries.next() else { break };
            names.push(entry.unwrap().file_name().to_string_lossy().into_owned());
        }
        names
    };
    let folder = std::fs::File::open(site.mount.join("repo/user")).unwrap();
    let mut names = read(&folder, 4);
    site.pcocc.run(&["image", "delete", "image5"]);
    import("image9");
    names.extend(read(&folder, 100));
    names.retain(|name| !name.starts_with('.'));
    names.sort();
    names.dedup();
    assert_eq!(
        names,
        [
            "hello", "image0", "image1", "image2", "image3", "image4", "image5"
        ]
    );
    assert!(site.names("repo/user").contains(&"image9".to_owned()));
    assert!(!site.names("repo/user").contains(&"image5".to_owned()));
    site.end();
}

/// Needs a daemon in which nothing else happens.
#[test]
fn a_long_listing_of_docker_asks_once_as_root() {
    let docker = Docker::of(std::sync::Arc::new(Dockerd::start()));
    let proxy = Proxy::before(&docker);
    let site = Site::with(Pcocc::new().through(&proxy), Some(docker), &[]);
    let docker = site.docker.as_ref().unwrap();
    let image = docker.name("a");
    site.pcocc.run(&["docker", "export", "hello", &image]);
    let socket = docker.host().trim_start_matches("unix://");
    let url = format!("http://d/images/{image}/tag?repo=many&tag=t[1-200]");
    let mut curl = std::process::Command::new("curl");
    curl.args(["-fsS", "-X", "POST", "--unix-socket", socket, &url]);
    pcocc_tests::run(&mut curl).ok();
    wait_until("all are there", AT_ONCE, || {
        site.names("docker").len() == 201
    });
    for round in 0..3 {
        proxy.take_requests("");
        let started = Instant::now();
        assert_eq!(site.shell("ls -l docker").ok().lines().count(), 202);
        let asked = proxy.take_requests("");
        let listed = asked.iter().filter(|line| line.contains("/images/json"));
        assert!(listed.count() <= 1, "{asked:?}");
        assert!(asked.iter().all(|line| !line.contains("/get")), "{asked:?}");
        assert!(started.elapsed() < Duration::from_secs(2));
        if round == 1 {
            // Long enough for a look at what nobody announced.
            std::thread::sleep(Duration::from_millis(2100));
        }
    }
    assert_eq!(
        site.transfers_of(&format!("{image}:latest"), "export"),
        [""; 0]
    );
    site.end();
}
