//! Names, listings, renaming and deleting.

use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use pcocc_tests::{Docker, Dockerd, Mount, Pcocc, Proxy, wait_until};

use crate::common::{Site, shell, text, with_image};

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
    let docker = Docker::shared();
    let site = Site::with(
        Pcocc::new().with(&docker),
        Some(docker),
        &["--allow-delete"],
    );
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
    shell(&pcocc, &mount, "rm -r repo/user/hello").ok();
    assert_eq!(names(), "copy\nold");
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
