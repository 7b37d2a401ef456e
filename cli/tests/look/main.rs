//! What a terminal shows, read back through a terminal emulator.

mod logs;
mod registry;
#[path = "../sandbox/mod.rs"]
mod sandbox;
mod tables;
mod terminal;
mod transfers;
mod waits;

use sandbox::Sandbox;
use terminal::Terminal;

#[test]
fn colors_are_for_those_who_want_them() {
    for (variable, colored) in [
        (("SOMETHING", "else"), true),
        (("NO_COLOR", "1"), false),
        (("CLICOLOR", "0"), false),
        (("TERM", "dumb"), false),
    ] {
        let sandbox = Sandbox::new();
        for args in [
            &["--debug", "image", "show", "nothing"] as &[&str],
            &["image", "frobnicate"],
        ] {
            let mut command = sandbox.command(args);
            command
                .env(variable.0, variable.1)
                .env("PCOCC_LOG", "trace");
            let mut terminal = Terminal::run(24, 100, command);
            assert_ne!(terminal.end(), Some(0));
            let raw = String::from_utf8_lossy(&terminal.raw).into_owned();
            if args[0] == "image" || !colored {
                assert_eq!(
                    raw.contains('\x1b'),
                    colored,
                    "{variable:?} {args:?}: {raw:?}"
                );
            }
        }
    }
}
