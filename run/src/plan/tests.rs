//! Each rule of the plan by itself.

use super::*;

fn host() -> Host {
    Host {
        environment: Environment::new([
            ("TERM".into(), "xterm".into()),
            ("LANG".into(), "C".into()),
            ("PATH".into(), "/host/bin".into()),
        ]),
        variables: Variables {
            homedir: "/home/doe".into(),
            user: "doe".into(),
            env: [("HOME".to_owned(), "/home/doe".to_owned())].into(),
        },
        account: Account {
            name: "doe".into(),
            uid: 1000,
            gid: 100,
            home: "/home/doe".into(),
            groups: Vec::new(),
        },
        cwd: "/project/here".into(),
    }
}

fn image() -> ImageConfig {
    ImageConfig {
        entrypoint: vec!["/entry".into()],
        cmd: vec!["one".into(), "two".into()],
        env: vec!["A=image".into(), "PATH=/bin".into(), "BARE".into()],
        working_dir: "/srv".into(),
        ..ImageConfig::default()
    }
}

fn words(argv: &[OsString]) -> Vec<&str> {
    argv.iter().map(|word| word.to_str().unwrap()).collect()
}

fn texts(texts: &[&str]) -> Vec<OsString> {
    texts.iter().map(OsString::from).collect()
}

#[test]
fn entrypoint_then_command() {
    let script = Some(PathBuf::from("job.sh"));
    let entry = |words: &[&str]| Some(words.iter().map(|word| (*word).to_owned()).collect());
    for (entry_point, command, script, expected) in [
        (None, &[][..], None, &["/entry", "one", "two"][..]),
        (None, &["x"], None, &["/entry", "x"]),
        (
            entry(&["/bin/sh", "-c"]),
            &["x"],
            None,
            &["/bin/sh", "-c", "x"],
        ),
        (
            entry(&["/bin/echo"]),
            &[],
            None,
            &["/bin/echo", "one", "two"],
        ),
        (entry(&[]), &["x"], None, &["x"]),
        (entry(&[]), &["x"], script.clone(), &[SCRIPT, "x"]),
        (None, &[], script, &["/entry", SCRIPT]),
    ] {
        let request = Request {
            entry_point,
            command: texts(command),
            script,
            ..Request::default()
        };
        assert_eq!(words(&argv(&image(), &request).unwrap()), expected);
    }
    let none = argv(&ImageConfig::default(), &Request::default());
    assert_eq!(none, Err(PlanError::NoCommand));
}

#[test]
fn variables_from_the_general_to_the_particular() {
    let settings = Settings {
        env: vec!["A=site".into(), "B=site".into(), "LANG".into()],
        path_prefix: vec!["PATH=/site/bin".into()],
        path_suffix: vec!["LD_LIBRARY_PATH=/site/lib".into()],
        ..Settings::default()
    };
    let request = Request {
        env: texts(&["B=mine\nof two lines"]),
        path_prefix: texts(&["PATH=/mine"]),
        path_suffix: texts(&["PATH=/last"]),
        pty: true,
        ..Request::default()
    };
    let found = plan(&image(), &settings, &request, &host())
        .unwrap()
        .environment;
    for (name, value) in [
        ("A", "site"),
        ("B", "mine\nof two lines"),
        ("BARE", ""),
        ("HOME", "/home/doe"),
        ("LANG", "C"),
        ("LD_LIBRARY_PATH", "/site/lib"),
        ("PATH", "/mine:/site/bin:/bin:/last"),
        ("TERM", "xterm"),
    ] {
        assert_eq!(found.get(name), Some(OsStr::new(value)), "{name}");
    }
    assert_eq!(found.iter().count(), 8);

    let request = Request {
        mirror_env: true,
        no_user: true,
        ..Request::default()
    };
    let found = plan(&image(), &Settings::default(), &request, &host())
        .unwrap()
        .environment;
    assert_eq!(found.get("PATH"), Some(OsStr::new("/host/bin")));
    assert_eq!(found.get("HOME"), None);

    let bare = plan(
        &ImageConfig {
            cmd: vec!["x".into()],
            ..ImageConfig::default()
        },
        &Settings::default(),
        &Request {
            no_user: true,
            ..Request::default()
        },
        &host(),
    );
    assert_eq!(
        bare.unwrap().environment.get("PATH"),
        Some(OsStr::new(DEFAULT_PATH))
    );
}

#[test]
fn a_variable_nobody_has_is_an_error() {
    let request = Request {
        env: texts(&["NOPE"]),
        ..Request::default()
    };
    let error = plan(&image(), &Settings::default(), &request, &host()).unwrap_err();
    assert_eq!(
        error,
        PlanError::Variable(VariableError::Unset {
            name: "NOPE".into()
        })
    );
}

#[test]
fn where_the_command_starts() {
    for (image_says, user_says, path, wanted) in [
        ("", None, "/project/here", Wanted::Nobody),
        ("/", None, "/", Wanted::Image),
        ("/srv", None, "/srv", Wanted::Image),
        ("srv/./x", None, "/srv/x", Wanted::Image),
        ("/srv", Some("/"), "/", Wanted::User),
        ("/srv", Some("-"), "/srv", Wanted::Image),
        ("", Some("-"), "/", Wanted::Image),
    ] {
        let config = ImageConfig {
            working_dir: image_says.into(),
            ..image()
        };
        let request = Request {
            cwd: user_says.map(PathBuf::from),
            ..Request::default()
        };
        let found = plan(&config, &Settings::default(), &request, &host())
            .unwrap()
            .cwd;
        let path = PathBuf::from(path);
        assert_eq!(
            found,
            Directory { path, wanted },
            "{image_says:?} {user_says:?}"
        );
    }
    let request = Request {
        cwd: Some("relative".into()),
        ..Request::default()
    };
    let error = plan(&image(), &Settings::default(), &request, &host()).unwrap_err();
    assert!(
        error.to_string().contains("relative is relative"),
        "{error}"
    );
}

fn destinations(mounts: &[Mount]) -> Vec<&str> {
    mounts
        .iter()
        .map(|mount| mount.destination.to_str().unwrap())
        .collect()
}

#[test]
fn the_home_is_empty_unless_it_is_mounted() {
    let home = |mounts: &[&str], no_user: bool| {
        let request = Request {
            mounts: mounts.iter().map(|text| (*text).to_owned()).collect(),
            no_user,
            ..Request::default()
        };
        let plan = plan(&image(), &Settings::default(), &request, &host()).unwrap();
        let found = plan.mounts.into_iter();
        found
            .filter(|mount| mount.destination.starts_with("/home"))
            .map(|mount| mount.source)
            .collect::<Vec<_>>()
    };
    let bind = |path: &str| Source::Bind(path.into());
    assert_eq!(home(&[], false), [Source::Tmpfs]);
    assert_eq!(home(&[], true), []);
    assert_eq!(home(&["/home"], false), [bind("/home")]);
    assert_eq!(home(&["/x:/home/doe"], false), [bind("/x")]);
    // What lies below it goes on top of it.
    assert_eq!(
        home(&["/x:/home/doe/x"], false),
        [Source::Tmpfs, bind("/x")]
    );
}

#[test]
fn the_last_mount_of_a_place_counts_and_outer_ones_come_first() {
    let settings = Settings {
        mounts: vec![(
            "data".to_owned(),
            pcocc_core::containers::TemplateMount {
                source: Some("/site".into()),
                destination: Some("/a/b/c".into()),
                ..Default::default()
            },
        )],
        ..Settings::default()
    };
    let request = Request {
        mounts: vec![
            "/one:/a/b".into(),
            "/two:/a/b/c".into(),
            "/three:/tmp".into(),
        ],
        ..Request::default()
    };
    let found = plan(&image(), &settings, &request, &host()).unwrap().mounts;
    let at = |path: &str| {
        let place = destinations(&found)
            .iter()
            .position(|found| *found == path)
            .unwrap();
        (place, found[place].source.clone())
    };
    assert_eq!(at("/a/b/c").1, Source::Bind("/two".into()));
    assert_eq!(at("/tmp").1, Source::Bind("/three".into()));
    assert!(at("/a/b").0 < at("/a/b/c").0);
    assert!(at("/dev").0 < at("/dev/pts").0);
}

#[test]
fn namespaces_are_those_of_the_configuration() {
    let found = |namespaces| {
        let settings = Settings {
            namespaces,
            ..Settings::default()
        };
        plan(&image(), &settings, &Request::default(), &host())
            .unwrap()
            .namespaces
    };
    assert_eq!(found(None), [Namespace::Pid, Namespace::Ipc]);
    assert_eq!(found(Some(vec![Namespace::Mount])), []);
    assert_eq!(
        found(Some(vec![Namespace::Uts, Namespace::User])),
        [Namespace::Uts]
    );
}
