use super::*;
use proptest::prelude::*;

const SHA: &str = "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

#[test]
fn image_uris() {
    for (text, repo, name, revision) in [
        ("centos", None, "centos", None),
        ("user:centos", Some("user"), "centos", None),
        ("centos@3", None, "centos", Some(3)),
        ("user:cent_os-7.2@0", Some("user"), "cent_os-7.2", Some(0)),
    ] {
        let uri: ImageUri = text.parse().unwrap();
        assert_eq!(uri.repo.as_deref(), repo);
        assert_eq!(uri.name, name);
        assert_eq!(uri.revision, revision);
        assert_eq!(uri.to_string(), text);
    }
}

#[test]
fn illegal_image_uris_suggest_a_legal_one() {
    for (text, part) in [
        ("ghcr.io/org/app:1", "\"ghcr.io-org-app-1\" would be"),
        ("a/b:c", "\"a-b-c\" would be"),
        ("my image", "\"my-image\" would be"),
        ("user:a:b", "\"user-a-b\" would be"),
        ("../../etc/passwd", "\"etc-passwd\" would be"),
        (".hidden", "\"hidden\" would be"),
        ("", "is empty"),
        (":x", "\"x\" would be"),
        ("x@", "not a number"),
        ("x@-1", "not a number"),
        ("x@99999999999999999999999", "not a number"),
        ("x@1@2", "would be"),
    ] {
        let error = text.parse::<ImageUri>().unwrap_err().to_string();
        assert!(error.contains(part), "{text}: {error}");
    }
    assert!("x".repeat(300).parse::<ImageUri>().is_err());
}

#[test]
fn docker_references() {
    for (text, canonical, familiar) in [
        (
            "busybox",
            "docker.io/library/busybox:latest",
            "busybox:latest",
        ),
        ("debian:12", "docker.io/library/debian:12", "debian:12"),
        (
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855:1",
            "docker.io/library/e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855:1",
            "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855:1",
        ),
        (
            "docker.io/library/x",
            "docker.io/library/x:latest",
            "x:latest",
        ),
        (
            "index.docker.io/x",
            "docker.io/library/x:latest",
            "x:latest",
        ),
        ("docker.io/org/x:1", "docker.io/org/x:1", "org/x:1"),
        (
            "library/a/b",
            "docker.io/library/a/b:latest",
            "library/a/b:latest",
        ),
        (
            "docker.io/docker.io/a/b",
            "docker.io/docker.io/a/b:latest",
            "docker.io/docker.io/a/b:latest",
        ),
        (
            "index.docker.io/index.docker.io/a",
            "docker.io/index.docker.io/a:latest",
            "docker.io/index.docker.io/a:latest",
        ),
        (
            "docker.io/ghcr.io/a",
            "docker.io/ghcr.io/a:latest",
            "docker.io/ghcr.io/a:latest",
        ),
        (
            "ghcr.io/org/app:1",
            "ghcr.io/org/app:1",
            "ghcr.io/org/app:1",
        ),
        ("localhost/x", "localhost/x:latest", "localhost/x:latest"),
        ("host:5000/x", "host:5000/x:latest", "host:5000/x:latest"),
        ("[::1]:5000/x:t", "[::1]:5000/x:t", "[::1]:5000/x:t"),
        (
            "a__b/c--d/e.f_g",
            "docker.io/a__b/c--d/e.f_g:latest",
            "a__b/c--d/e.f_g:latest",
        ),
    ] {
        let reference: DockerReference = text.parse().unwrap();
        assert_eq!(reference.canonical(), canonical);
        assert_eq!(reference.to_string(), familiar);
    }
    let pinned: DockerReference = format!("busybox@{SHA}").parse().unwrap();
    assert_eq!(pinned.tag(), None);
    assert_eq!(pinned.to_string(), format!("busybox@{SHA}"));
    let both: DockerReference = format!("busybox:1@{SHA}").parse().unwrap();
    assert_eq!(both.to_string(), format!("busybox:1@{SHA}"));
    assert_eq!(both.with_tag("2").unwrap().to_string(), "busybox:2");
}

#[test]
fn illegal_docker_references() {
    for text in [
        "",
        "Busybox",
        "a b",
        "a:b:c",
        "a//b",
        "/a",
        "a/",
        "-a",
        "a_",
        "a___b",
        "a..b",
        "a:",
        "a:-t",
        "a@sha256:00",
        "a@",
        ":t",
        "..",
        "host:/x",
        "-h.io/x",
        "[::1/x",
        "é",
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
    ] {
        assert!(text.parse::<DockerReference>().is_err(), "{text:?}");
    }
    let error = "org/App"
        .parse::<DockerReference>()
        .unwrap_err()
        .to_string();
    assert!(error.contains("upper-case"), "{error}");
}

proptest! {
    #[test]
    fn any_text_parses_or_is_refused(text in "\\PC{0,40}") {
        if let Ok(uri) = text.parse::<ImageUri>() {
            prop_assert_eq!(&uri.to_string().parse::<ImageUri>().unwrap(), &uri);
        }
        if let Ok(reference) = text.parse::<DockerReference>() {
            prop_assert_eq!(&reference.to_string().parse::<DockerReference>().unwrap(), &reference);
            prop_assert_eq!(&reference.canonical().parse::<DockerReference>().unwrap(), &reference);
        }
    }

    #[test]
    fn suggested_names_are_legal(text in "\\PC{0,300}") {
        prop_assert!(check_name(&legal_name(&text)).is_ok());
    }

    #[test]
    fn docker_references_round_trip(
        host in "(|localhost/|[a-z]{1,6}\\.io(:[0-9]{1,4})?/)",
        path in "[a-z0-9]{1,6}([._]|__|-{1,3})[a-z0-9]{1,4}(/[a-z0-9]{1,5}){0,2}",
        tag in "(|:[A-Za-z0-9_][A-Za-z0-9_.-]{0,8})",
    ) {
        let reference: DockerReference = format!("{host}{path}{tag}").parse().unwrap();
        prop_assert_eq!(&reference.to_string().parse::<DockerReference>().unwrap(), &reference);
        prop_assert_eq!(&reference.canonical().parse::<DockerReference>().unwrap(), &reference);
    }
}
