//! Registries that `registries.conf` leads to, and certificates of clients.

use super::super::rules::RulesFile;
use super::server::{Ask, Server, reply};
use super::{access, honest, is_blob, is_manifest, lying, pull, push_with, sample, taking};
use crate::registry::Access;

fn with(text: String, server: &Server) -> Access {
    let path = "/etc/containers/registries.conf".into();
    Access {
        rules: vec![RulesFile { path, text }],
        ..access(server)
    }
}

#[test]
fn an_image_is_read_from_the_first_mirror_that_has_it() {
    let (origin, empty, mirror) = (
        lying(|_| None),
        Server::start(|_| reply(404, b"{}")),
        lying(|_| None),
    );
    let lacking = lying(|request| is_manifest(request).then(|| reply(404, b"{}")));
    let rules = format!(
        "[[registry]]\nlocation = \"{}\"\n{}",
        origin.address,
        [&empty, &lacking, &mirror]
            .map(|server| format!(
                "[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
                server.address
            ))
            .concat()
    );
    assert_eq!(
        pull(&origin, with(rules.clone(), &origin)).unwrap(),
        sample().image
    );
    assert!(origin.seen().is_empty());
    assert!(!empty.seen().is_empty() && !lacking.seen().is_empty() && !mirror.seen().is_empty());
    // Without a mirror that has it, the registry itself is asked.
    let rules = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        origin.address, lacking.address
    );
    assert_eq!(pull(&origin, with(rules, &origin)).unwrap(), sample().image);
    assert!(!origin.seen().is_empty());
}

#[test]
fn a_blocked_registry_is_not_asked_and_a_moved_one_elsewhere() {
    let (origin, other) = (lying(|_| None), lying(|_| None));
    let blocked = format!(
        "[[registry]]\nlocation = \"{}/app\"\nblocked = true\n",
        origin.address
    );
    let error = pull(&origin, with(blocked, &origin))
        .unwrap_err()
        .to_string();
    assert!(error.contains("registries.conf"), "{error}");
    let moved = format!(
        "[[registry]]\nprefix = \"{}\"\nlocation = \"{}\"\ninsecure = true\n",
        origin.address, other.address
    );
    assert!(pull(&origin, with(moved, &origin)).is_ok());
    let insecure = format!(
        "[[registry]]\nlocation = \"{}\"\ninsecure = true\n",
        other.address
    );
    assert!(origin.seen().is_empty());
    let only = Access {
        insecure_registries: Vec::new(),
        ..with(insecure, &other)
    };
    assert!(pull(&other, only).is_ok());
}

#[test]
fn an_image_is_written_to_the_registry_and_not_to_its_mirrors() {
    let (origin, mirror) = (taking(""), taking(""));
    let rules = format!(
        "[[registry]]\nlocation = \"{}\"\n[[registry.mirror]]\nlocation = \"{}\"\ninsecure = true\n",
        origin.address, mirror.address
    );
    push_with(&origin, &sample(), with(rules, &origin)).unwrap();
    assert!(mirror.seen().is_empty() && !origin.seen().is_empty());
}

#[test]
fn a_client_certificate_is_shown_to_its_registry() {
    let server = Server::start_asking(Ask::Everybody, |request| honest(&sample(), request));
    let folder = tempfile::tempdir().unwrap();
    server.trust(folder.path(), &server.address);
    let without = Access {
        certificate_folders: vec![folder.path().to_owned()],
        ..Access::default()
    };
    assert!(pull(&server, without.clone()).is_err());
    server.admit(folder.path());
    assert_eq!(pull(&server, without).unwrap(), sample().image);
    std::fs::remove_file(folder.path().join(&server.address).join("client.key")).unwrap();
    let half = Access {
        certificate_folders: vec![folder.path().to_owned()],
        ..Access::default()
    };
    let error = pull(&server, half).unwrap_err().to_string();
    assert!(error.contains("client.key"), "{error}");
}

#[test]
fn a_client_certificate_is_shown_to_nobody_else() {
    let layer = sample().image.layers()[1].digest;
    let shown = |follows: bool| {
        let folder = tempfile::tempdir().unwrap();
        let store = Server::start_asking(Ask::Whoever, |request| honest(&sample(), request));
        let origin = store.origin();
        let server = Server::start_asking(Ask::Everybody, move |request| {
            if is_blob(request, layer) && follows {
                let path = request.line.strip_prefix("GET ").unwrap();
                return reply(307, b"").with("location", format!("{origin}{path}"));
            }
            honest(&sample(), request)
        });
        for other in [&server, &store] {
            other.trust(folder.path(), &server.address);
        }
        server.admit(folder.path());
        let access = Access {
            certificate_folders: vec![folder.path().to_owned()],
            ..Access::default()
        };
        assert_eq!(pull(&server, access).unwrap(), sample().image);
        assert!(server.certificates() > 0);
        (store.seen().len(), store.certificates())
    };
    assert_eq!(shown(false), (0, 0));
    assert_eq!(shown(true), (1, 0));
}
