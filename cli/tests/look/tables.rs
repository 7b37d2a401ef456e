//! Listings.

use pcocc_vm::job::State;

use crate::sandbox::Sandbox;
use crate::terminal::Terminal;

/// Columns count what a terminal takes for a character, which may be two.
#[test]
fn columns_are_straight_with_wide_characters() {
    let sandbox = Sandbox::new();
    for name in ["docker", "名前のある仕事", "e\u{301}te\u{301}"] {
        sandbox.job(name, State::Booting);
    }
    let mut terminal = Terminal::run(10, 100, sandbox.command(&["docker", "ls"]));
    assert_eq!(terminal.end(), Some(0), "{}", terminal.text());
    let screen = terminal.screen.screen();
    let word = |row: u16, column: u16, length: u16| -> String {
        (column..column + length)
            .filter_map(|column| screen.cell(row, column))
            .map(vt100::Cell::contents)
            .collect()
    };
    let column = (0..100)
        .find(|column| word(0, *column, 5) == "STATE")
        .unwrap_or_else(|| panic!("{}", terminal.text()));
    for row in 1..=3 {
        assert_eq!(word(row, column, 7), "booting", "{}", terminal.text());
    }
    assert!(
        terminal.text().contains("名前のある仕事"),
        "{}",
        terminal.text()
    );
}
