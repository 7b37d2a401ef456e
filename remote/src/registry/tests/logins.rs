//! Which credentials a registry gets, and which of its challenges is answered.

use base64::Engine as _;
use serde_json::{Value, json};

use super::super::credentials::{self, CredentialFile, Credentials};
use super::server::{Server, reply};
use super::{access, config_with, file_of, lying, pull};
use crate::registry::Access;
use pcocc_image::transfer::Context;
use std::sync::Arc;

fn auth(user: &str) -> Value {
    let both = base64::engine::general_purpose::STANDARD.encode(format!("{user}:p"));
    json!({"auth": both})
}

/// The user whose credentials in these files are meant for `org/team/app` of `host`.
fn user(files: &[CredentialFile], host: &str) -> Option<String> {
    let found = credentials::find(files, host, "org/team/app", &Context::silent());
    match found.unwrap()? {
        Credentials::Password { user, .. } => Some(user),
        _ => panic!("no password"),
    }
}

#[test]
fn credentials_are_found_as_docker_finds_them() {
    let context = Context::silent();
    let find = |config: &Value, host: &str| {
        credentials::find(&[file_of(config)], host, "org/app", &context)
    };
    let auth = base64::engine::general_purpose::STANDARD.encode("u:p");
    let password = || {
        Some(Credentials::Password {
            user: "u".to_owned(),
            password: "p".to_owned(),
        })
    };
    for (key, host) in [
        ("https://index.docker.io/v1/", "docker.io"),
        ("reg.io", "reg.io"),
        ("https://reg.io/v2/", "reg.io"),
        ("reg.io:5000", "reg.io:5000"),
    ] {
        let config = json!({"auths": {key: {"auth": auth}}});
        assert!(find(&config, host).unwrap() == password(), "{key}");
        assert!(find(&config, "elsewhere.io").unwrap().is_none());
    }
    let none = json!({"credHelpers": {"reg.io": "no-such-program-here"}});
    let error = find(&none, "reg.io").unwrap_err().to_string();
    assert!(
        error.contains("docker-credential-no-such-program-here"),
        "{error}"
    );
    let bad = json!({"credsStore": "../../bin/sh"});
    assert!(
        find(&bad, "reg.io")
            .unwrap_err()
            .to_string()
            .contains("no program name")
    );
    assert!(find(&json!("no object"), "reg.io").is_err());
    assert!(find(&json!({}), "reg.io").unwrap().is_none());
}

#[test]
fn of_several_keys_the_best_is_taken() {
    // In each row the user `good` is meant, whatever the others are.
    for (host, good, others) in [
        (
            "reg.io",
            "reg.io",
            vec!["https://reg.io/v1/", "reg.io/org", "reg.io/org/team/app"],
        ),
        (
            "reg.io",
            "reg.io/org/team",
            vec![
                "reg.io/org",
                "https://reg.io",
                "reg.io/org/tea",
                "reg.io/org/team/ap",
            ],
        ),
        (
            "reg.io",
            "https://reg.io/v1/",
            vec![
                "https://reg.io/v1/access-token",
                "https://reg.io/v1/refresh-token",
                "reg.io/other",
            ],
        ),
        (
            "docker.io",
            "https://index.docker.io/v1/",
            vec![
                "docker.io",
                "docker.io/org",
                "https://index.docker.io/v1/access-token",
            ],
        ),
        (
            "docker.io",
            "docker.io/org",
            vec!["docker.io", "index.docker.io"],
        ),
        (
            "reg.io:5000",
            "reg.io:5000",
            vec!["reg.io", "https://reg.io:5000"],
        ),
    ] {
        let mut auths = serde_json::Map::new();
        auths.insert(good.to_owned(), auth("good"));
        for other in &others {
            auths.insert((*other).to_owned(), auth("bad"));
        }
        let found = user(&config_with(Value::Object(auths)), host);
        assert_eq!(found.as_deref(), Some("good"), "{good} among {others:?}");
    }
    let nothing = config_with(json!({
        "reg.io/other": auth("bad"), "https://reg.io/v1/access-token": auth("bad"),
        "reg.io.evil.com": auth("bad"), "evil.com/reg.io": auth("bad"), "": auth("bad"),
    }));
    assert_eq!(user(&nothing, "reg.io"), None);
}

#[test]
fn the_first_file_with_credentials_counts_and_empty_ones_are_none() {
    let file = |text: &str| CredentialFile {
        path: "auth.json".into(),
        text: text.to_owned(),
    };
    let podmans = file_of(&json!({"auths": {"reg.io": auth("good")}}));
    for empty in [
        "",
        " \n",
        "{}",
        r#"{"auths": null}"#,
        r#"{"auths": {"reg.io": null}, "credHelpers": null, "credsStore": ""}"#,
        r#"{"auths": {"reg.io": {}}}"#,
    ] {
        let files = [file(empty), podmans.clone()];
        assert_eq!(user(&files, "reg.io").as_deref(), Some("good"), "{empty}");
    }
    let both = [
        file_of(&json!({"auths": {"reg.io": auth("good")}})),
        file_of(&json!({"auths": {"reg.io": auth("bad")}})),
    ];
    assert_eq!(user(&both, "reg.io").as_deref(), Some("good"));
    let broken = [file("{"), podmans];
    let error = credentials::find(&broken, "reg.io", "app", &Context::silent()).unwrap_err();
    assert!(error.to_string().contains("auth.json"), "{error}");
}

/// A registry with these challenges that takes the token or the password.
fn challenging(challenges: &'static [&'static str]) -> Server {
    let own = Arc::new(parking_lot::Mutex::new(String::new()));
    let address = Arc::clone(&own);
    let server = lying(move |request| {
        if request.line.starts_with("GET /token") {
            return Some(reply(200, br#"{"token":"","access_token":"good"}"#));
        }
        if request.line.starts_with("GET /broken") {
            return Some(reply(404, b"{}"));
        }
        let known = [Some("Bearer good"), Some("Basic bWU6cA==")];
        if known.contains(&request.authorization.as_deref()) {
            return None;
        }
        let mut refusal = reply(401, b"{}");
        for challenge in challenges {
            let challenge = challenge.replace("HERE", &format!("http://{}", address.lock()));
            refusal = refusal.with("www-authenticate", challenge);
        }
        Some(refusal)
    });
    own.lock().clone_from(&server.address);
    server
}

#[test]
fn of_several_challenges_one_that_can_be_answered_is() {
    const BASIC: &str = "Basic realm=\"r\"";
    const TOKEN: &str = "Bearer realm=\"HERE/token\",service=\"s\"";
    const BROKEN: &str = "Bearer realm=\"HERE/broken\"";
    for (challenges, anonymous) in [
        (&[BASIC, TOKEN] as &[&str], true),
        (&["Basic realm=\"r\", Bearer realm=\"HERE/token\""], true),
        (&["Negotiate", TOKEN], true),
        (&[BROKEN, TOKEN], true),
        (&[BROKEN, BASIC], false),
        (&[BASIC], false),
    ] {
        let server = challenging(challenges);
        assert_eq!(
            pull(&server, access(&server)).is_ok(),
            anonymous,
            "{challenges:?}"
        );
        let known = Access {
            credentials: config_with(json!({server.address.clone(): auth("me")})),
            ..access(&server)
        };
        assert!(pull(&server, known).is_ok(), "{challenges:?}");
    }
}
