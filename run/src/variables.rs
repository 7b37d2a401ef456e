//! The environment of a command: variables in the order they were first set.
//!
//! Notations, as in pcocc 0.7: `VAR=VALUE`; `VAR`, which takes the host's value; `re(REGEX)`, which takes
//! all of the host's variables whose names the expression matches from their first letter on.

use std::ffi::{OsStr, OsString};
use std::os::unix::ffi::{OsStrExt, OsStringExt};

use regex::Regex;

/// Variables and their values.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Environment(Vec<(OsString, OsString)>);

/// Why a variable cannot be set.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum VariableError {
    /// Something that is no variable's name.
    #[error("environment variable {0:?} has no name; write VAR=VALUE, VAR or re(REGEX)")]
    NoName(OsString),
    /// A variable that the host does not have either.
    #[error("environment variable {name:?} is not set here; write {name}=VALUE, or leave it out")]
    Unset {
        /// Its name.
        name: String,
    },
    /// An expression that does not parse.
    #[error("{text:?} has no valid regular expression: {why}")]
    Expression {
        /// The whole.
        text: String,
        /// What is wrong with it.
        why: String,
    },
}

impl Environment {
    /// The variables of `pairs`; of two with the same name the later one counts.
    pub fn new(pairs: impl IntoIterator<Item = (OsString, OsString)>) -> Self {
        let mut environment = Self::default();
        for (name, value) in pairs {
            environment.set(name, value);
        }
        environment
    }

    /// Sets a variable.
    pub fn set(&mut self, name: impl Into<OsString>, value: impl Into<OsString>) {
        let (name, value) = (name.into(), value.into());
        match self.0.iter_mut().find(|(known, _)| *known == name) {
            Some((_, old)) => *old = value,
            None => self.0.push((name, value)),
        }
    }

    /// Value of a variable.
    pub fn get(&self, name: impl AsRef<OsStr>) -> Option<&OsStr> {
        let name = name.as_ref();
        let found = self.0.iter().find(|(known, _)| known == name);
        found.map(|(_, value)| value.as_os_str())
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = (&OsStr, &OsStr)> {
        self.0
            .iter()
            .map(|(name, value)| (name.as_os_str(), value.as_os_str()))
    }

    /// Sets what `text` says, in one of the three notations.
    pub fn apply(&mut self, text: &OsStr, host: &Self) -> Result<(), VariableError> {
        if let Some(expression) = expression(text) {
            let regex = Regex::new(&format!("^(?:{expression})")).map_err(|error| {
                VariableError::Expression {
                    text: text.to_string_lossy().into_owned(),
                    // The last line says it; those before draw a picture of where.
                    why: error
                        .to_string()
                        .lines()
                        .last()
                        .unwrap_or_default()
                        .to_owned(),
                }
            })?;
            for (name, value) in &host.0 {
                if name.to_str().is_some_and(|name| regex.is_match(name)) {
                    self.set(name.clone(), value.clone());
                }
            }
            return Ok(());
        }
        let (name, value) = pair(text, host)?;
        self.set(name, value);
        Ok(())
    }

    /// Puts a value in front of, or behind, the parts of a variable like PATH.
    pub fn extend(&mut self, text: &OsStr, front: bool, host: &Self) -> Result<(), VariableError> {
        let (name, value) = pair(text, host)?;
        let whole = match self.get(&name).filter(|old| !old.is_empty()) {
            None => value,
            Some(old) if front => join(&value, old),
            Some(old) => join(old, &value),
        };
        self.set(name, whole);
        Ok(())
    }
}

fn join(front: &OsStr, back: &OsStr) -> OsString {
    let mut whole = front.to_owned();
    whole.push(":");
    whole.push(back);
    whole
}

/// The expression of `re(…)`.
fn expression(text: &OsStr) -> Option<&str> {
    text.to_str()?.strip_prefix("re(")?.strip_suffix(')')
}

fn pair(text: &OsStr, host: &Environment) -> Result<(OsString, OsString), VariableError> {
    let bytes = text.as_bytes();
    let (name, value) = match bytes.iter().position(|byte| *byte == b'=') {
        Some(at) => {
            let (name, value) = bytes.split_at(at);
            let value = value.get(1..).unwrap_or_default();
            (name, Some(OsString::from_vec(value.to_vec())))
        }
        None => (bytes, None),
    };
    if name.is_empty() {
        return Err(VariableError::NoName(text.to_owned()));
    }
    let name = OsString::from_vec(name.to_vec());
    match value.or_else(|| host.get(&name).map(OsStr::to_owned)) {
        Some(value) => Ok((name, value)),
        None => Err(VariableError::Unset {
            name: name.to_string_lossy().into_owned(),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        Environment::new(
            pairs
                .iter()
                .map(|(name, value)| (name.into(), value.into())),
        )
    }

    fn host() -> Environment {
        environment(&[
            ("SLURM_JOB_ID", "7"),
            ("MY_SLURM", "no"),
            ("EDITOR", "vi"),
            ("TWO", "one\ntwo"),
        ])
    }

    #[test]
    fn every_notation() {
        let mut found = environment(&[("PATH", "/bin"), ("A", "1")]);
        for text in [
            "A=2",
            "B=x=y",
            "EMPTY=",
            "EDITOR",
            "re(SLURM_.*|TW)",
            "LINES=a\nb",
        ] {
            found.apply(text.as_ref(), &host()).unwrap();
        }
        assert_eq!(
            found,
            environment(&[
                ("PATH", "/bin"),
                ("A", "2"),
                ("B", "x=y"),
                ("EMPTY", ""),
                ("EDITOR", "vi"),
                ("SLURM_JOB_ID", "7"),
                ("TWO", "one\ntwo"),
                ("LINES", "a\nb"),
            ])
        );
    }

    #[test]
    fn values_are_put_in_front_and_behind() {
        let mut found = environment(&[("PATH", "/bin"), ("EMPTY", "")]);
        for (text, front) in [
            ("PATH=/a:/b", true),
            ("PATH=/z", false),
            ("NEW=/n", true),
            ("EMPTY=/e", false),
            ("EDITOR", true),
        ] {
            found.extend(text.as_ref(), front, &host()).unwrap();
        }
        assert_eq!(
            found,
            environment(&[
                ("PATH", "/a:/b:/bin:/z"),
                ("EMPTY", "/e"),
                ("NEW", "/n"),
                ("EDITOR", "vi"),
            ])
        );
    }

    #[test]
    fn what_makes_no_sense_says_why() {
        let mut found = Environment::default();
        for (text, part) in [
            ("NOPE", "\"NOPE\" is not set here; write NOPE=VALUE"),
            ("=x", "no name"),
            ("", "no name"),
            ("re(()", "unclosed group"),
        ] {
            let error = found.apply(text.as_ref(), &host()).unwrap_err().to_string();
            assert!(error.contains(part), "{text}: {error}");
        }
        assert_eq!(found, Environment::default());
    }
}
