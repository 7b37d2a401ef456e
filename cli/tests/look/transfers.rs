//! Images that move.

use std::io::Write as _;
use std::process::Command;
use std::thread;
use std::time::Duration;

use crate::registry::Registry;
use crate::sandbox::Sandbox;
use crate::terminal::Terminal;

fn import(registry: &Registry, sandbox: &Sandbox) -> Command {
    let config = format!(
        "runtime: {{insecure_registries: ['{}']}}\n",
        registry.address
    );
    sandbox.write(".pcocc/containers.yaml", config);
    sandbox.command(&[
        "image",
        "import",
        &format!("docker://{}/slow:1", registry.address),
        "slow",
    ])
}

#[test]
fn a_bar_is_drawn_and_becomes_an_ordinary_line() {
    let (registry, sandbox) = (Registry::start(), Sandbox::new());
    let mut terminal = Terminal::run(24, 100, import(&registry, &sandbox));
    terminal.until("bar", |text| text.contains("[==="));
    let text = terminal.text();
    assert!(text.contains("Copying blob sha256:"), "{text}");
    assert!(text.contains(" / 4.00 MB ["), "{text}");
    registry.go_on();
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    terminal.assert_clean();
    let text = terminal.text();
    let bars = text.lines().filter(|line| line.contains('[')).count();
    // One for the layer and one for the config, both full.
    assert_eq!(text.matches("=] 0s").count(), bars, "{text}");
    assert!(
        text.trim_end()
            .lines()
            .last()
            .unwrap()
            .starts_with("Imported image: user:slow"),
        "{text}"
    );
}

#[test]
fn nothing_wraps_on_a_narrow_terminal() {
    let (registry, sandbox) = (Registry::start(), Sandbox::new());
    let mut terminal = Terminal::run(24, 36, import(&registry, &sandbox));
    terminal.until("progress", |text| {
        text.contains("Copying blob") && text.contains(" / ")
    });
    // Several redraws: one that wrapped would leave its lines behind.
    thread::sleep(Duration::from_millis(900));
    terminal.until("progress", |text| text.contains(" / "));
    let text = terminal.text();
    assert_eq!(text.matches("Copying blob").count(), 1, "{text}");
    assert_eq!(
        text.lines().filter(|line| !line.is_empty()).count(),
        2,
        "{text}"
    );
    registry.go_on();
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    terminal.assert_clean();
}

#[test]
fn ctrl_c_leaves_a_clean_line_and_the_cursor() {
    let (registry, sandbox) = (Registry::start(), Sandbox::new());
    let mut terminal = Terminal::run(24, 80, import(&registry, &sandbox));
    terminal.until("bar", |text| text.contains("[==="));
    terminal.keys.write_all(b"\x03").unwrap();
    assert_eq!(terminal.end(), Some(130), "{}", terminal.text());
    terminal.assert_clean();
    let text = terminal.text();
    assert!(text.contains("pcocc: failed to import"), "{text}");
    assert!(!text.contains("^C") && !text.contains('['), "{text}");
}

#[test]
fn a_dumb_terminal_gets_lines_and_no_escapes() {
    let (registry, sandbox) = (Registry::start(), Sandbox::new());
    let mut command = import(&registry, &sandbox);
    command.env("TERM", "dumb");
    let mut terminal = Terminal::run(24, 100, command);
    terminal.until("line", |text| text.contains("Copying blob"));
    registry.go_on();
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    assert!(!terminal.raw.contains(&0x1b), "{}", terminal.text());
    assert!(
        terminal.text().contains("Copied blob"),
        "{}",
        terminal.text()
    );
}

#[test]
fn what_is_there_already_is_told_on_one_row() {
    for columns in [30, 80, 110] {
        let (registry, sandbox) = (Registry::start(), Sandbox::new());
        let first = import(&registry, &sandbox);
        registry.go_on();
        let mut terminal = Terminal::run(24, columns, first);
        assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
        let again = sandbox.command(&[
            "image",
            "import",
            &format!("docker://{}/slow:1", registry.address),
            "again",
        ]);
        let mut terminal = Terminal::run(24, columns, again);
        assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
        let text = terminal.text();
        let told: Vec<&str> = text
            .lines()
            .filter(|line| line.starts_with("Skipping "))
            .collect();
        assert!(!told.is_empty(), "{text}");
        for line in told {
            let whole = line.ends_with("(already there)") || line.ends_with("...");
            assert!(whole && line.len() < usize::from(columns), "{line}\n{text}");
        }
        terminal.assert_clean();
    }
}
