//! Files of settings: all YAML, and the settings that an image brings with it.

use std::fs;
use std::path::{Component, Path, PathBuf};

use pcocc_core::batch::BatchConfig;
use pcocc_core::containers::ContainerTemplates;
use pcocc_core::containers::{self, Runtime, Settings};
use pcocc_core::repos::ReposConfig;
use pcocc_core::template::Variables;
use pcocc_core::{batch, repos, templates};
use pcocc_image::ingest::runtime_config;
use pcocc_image::repository::Repository;
use pcocc_run::account::{self, Account};
use pcocc_run::config::ImageConfig;
use pcocc_run::generator;
use pcocc_run::plan::{Host, Request, plan};

/// Any of the configuration files, as the user's and as the system's.
pub fn yaml(data: &[u8]) {
    let folder = tempfile::tempdir().expect("make a folder");
    let (dir, none) = (folder.path(), Path::new("/nonexistent"));
    for name in [repos::FILE, batch::FILE, templates::FILE] {
        fs::write(dir.join(name), data).expect("write a file");
    }
    let variables = Variables {
        homedir: PathBuf::from("/home/doe"),
        user: "doe".to_owned(),
        env: [("NODE".to_owned(), "n1".to_owned())].into(),
    };
    if let Ok(config) = ReposConfig::load(dir, none, &variables) {
        assert!(
            config
                .repos
                .iter()
                .all(|repo| !repo.name.contains([':', '@', '/']))
        );
    }
    let _ = BatchConfig::load(none, dir, &variables);
    if let Ok(templates) = templates::Templates::load(dir, none) {
        for name in templates.names() {
            let _ = templates.get(name);
        }
    }
    let Ok(text) = std::str::from_utf8(data) else {
        return;
    };
    let file = Path::new(containers::FILE);
    let _ = Runtime::parse(text, file);
    if let Ok(templates) = containers::ContainerTemplates::parse(text, file) {
        let modules: Vec<String> = templates.module_names().map(str::to_owned).collect();
        let _ = templates.settings(&["image"], &modules, true);
    }
}

/// The `.config` of a repository.
pub fn repository(data: &[u8]) {
    let folder = tempfile::tempdir().expect("make a folder");
    fs::write(folder.path().join(".config"), data).expect("write a file");
    if let Ok(version) = Repository::new("fuzz", folder.path()).version() {
        assert!((1..=2).contains(&version));
    }
}

/// An image's config, as `run` reads it, and the runtime configuration that a squashfs has of it.
pub fn image_config(data: &[u8]) {
    if let Ok(runtime) = runtime_config(data) {
        let _: serde_json::Value = serde_json::from_slice(&runtime).expect("it parses");
    }
    let Ok(config) = ImageConfig::parse(data) else {
        return;
    };
    let (request, host) = (Request::default(), Host::default());
    if let Ok(plan) = plan(&config, &Settings::default(), &request, &host) {
        assert_eq!(plan.argv.len(), config.entrypoint.len() + config.cmd.len());
    }
}

/// What a generator of the site prints. Mounts lead to plain paths, and a module that does not exist is refused.
pub fn generator(data: &[u8]) {
    let text = String::from_utf8_lossy(data);
    let variables = Variables {
        homedir: PathBuf::from("/home/doe"),
        user: "doe".to_owned(),
        env: [("NODE".to_owned(), "n1".to_owned())].into(),
    };
    let mut settings = Settings {
        generators: vec!["generator".to_owned()],
        ..Settings::default()
    };
    let printed = generator::parse(&text);
    let (lines, templates) = (text.lines().count(), ContainerTemplates::default());
    let mounts = generator::apply(&mut settings, &templates, &variables, &mut |_| {
        Ok(text.clone().into_owned())
    });
    let Ok(mounts) = mounts else {
        return;
    };
    assert!(printed.modules.is_empty());
    assert_eq!(mounts.len(), printed.mounts.len());
    assert!(settings.env.len() + mounts.len() <= lines);
    for mount in mounts {
        let mut parts = mount.destination.components();
        assert_eq!(parts.next(), Some(Component::RootDir));
        assert!(parts.all(|part| matches!(part, Component::Normal(_))));
    }
}

/// The `/etc/passwd` or the `/etc/group` of an image, into which `run` puts the user.
pub fn accounts(data: &[u8]) {
    let account = Account {
        name: "doe".to_owned(),
        uid: 1000,
        gid: 1000,
        home: PathBuf::from("/home/doe"),
        groups: vec![("users".to_owned(), 100), ("doe".to_owned(), 1000)],
    };
    let passwd = account::passwd(data, &account);
    assert!(passwd.starts_with(b"doe:x:1000:1000:"));
    let lines = passwd.split(|byte| *byte == b'\n');
    let is_whole = |line: &&[u8]| line.split(|byte| *byte == b':').count() == 7;
    let mine = lines
        .filter(is_whole)
        .filter(|line| line.starts_with(b"doe:"));
    assert_eq!(mine.count(), 1);
    account::group(data, &account);
}
