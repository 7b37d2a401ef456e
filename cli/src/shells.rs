//! Shells as values on the command line.

use clap::builder::{PossibleValuesParser, TypedValueParser};
use pcocc_shellenv::Dialect;

/// Parses the name of any shell.
pub(crate) fn any() -> impl TypedValueParser<Value = Dialect> {
    one_of(&Dialect::ALL)
}

/// Parses the name of a shell that has a prompt hook and completion.
pub(crate) fn interactive() -> impl TypedValueParser<Value = Dialect> {
    one_of(&[Dialect::Bash, Dialect::Zsh, Dialect::Fish])
}

fn one_of(shells: &'static [Dialect]) -> impl TypedValueParser<Value = Dialect> {
    let names = shells.iter().map(|shell| shell.name());
    PossibleValuesParser::new(names).try_map(|name| {
        let named = shells.iter().find(|shell| shell.name() == name);
        named.copied().ok_or("is not a shell")
    })
}
