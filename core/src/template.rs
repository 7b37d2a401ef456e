//! Path templates of config files: `%{homedir}`, `%{user}`, `%{env:VAR}` and a leading `~`.
//!
//! The values of the names are passed in as [`Variables`]; nothing here reads the environment.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use serde::Serialize;

use crate::yaml::{At, ConfigError};

/// Values of the names in path templates.
#[derive(Clone, Debug, Default)]
pub struct Variables {
    /// Home directory of the user.
    pub homedir: PathBuf,
    /// Login name of the user.
    pub user: String,
    /// Environment variables by name.
    pub env: BTreeMap<String, String>,
}

/// Why a path template has no path.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("path {template:?} {why}")]
pub struct TemplateError {
    template: String,
    why: Mistake,
}

#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
enum Mistake {
    #[error("uses %{{{0}}}, which is not known; use %{{homedir}}, %{{user}} or %{{env:VAR}}")]
    Unknown(String),
    #[error("uses the environment variable {0}, which is not set")]
    Unset(String),
    #[error("has a %{{ without a closing }}")]
    Unclosed,
    #[error("is relative; write an absolute path, or one from %{{homedir}}")]
    Relative,
}

impl Mistake {
    fn of(self, template: &str) -> TemplateError {
        TemplateError {
            template: template.to_owned(),
            why: self,
        }
    }
}

/// A path template of a config file that is expanded later, with its position for messages.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(transparent)]
pub struct Written {
    template: At<String>,
    #[serde(skip)]
    file: PathBuf,
}

impl Written {
    /// The template at its position in `file`.
    pub fn new(template: At<String>, file: &Path) -> Self {
        Self {
            template,
            file: file.to_owned(),
        }
    }

    /// The text as it is written.
    pub fn as_str(&self) -> &str {
        &self.template
    }

    /// `FILE:LINE:COLUMN` of it.
    pub fn place(&self) -> String {
        self.template.place(&self.file)
    }

    /// Expands the template to an absolute path.
    pub fn path(&self, variables: &Variables) -> Result<PathBuf, ConfigError> {
        expand(&self.template, variables).map_err(|error| self.error(error.to_string()))
    }

    /// Checks the template as a path. Unset variables are no error: they may be set where the template is expanded.
    pub fn check_path(&self, variables: &Variables) -> Result<(), ConfigError> {
        match expand(&self.template, variables) {
            Ok(_) => Ok(()),
            Err(error) if matches!(error.why, Mistake::Unset(_)) => Ok(()),
            Err(error) => Err(self.error(error.to_string())),
        }
    }

    /// Expands the template to any text.
    pub fn text(&self, variables: &Variables) -> Result<String, ConfigError> {
        expand_text(&self.template, variables).map_err(|error| self.error(error.to_string()))
    }

    /// An error about the template.
    pub fn error(&self, message: impl Into<String>) -> ConfigError {
        self.template.error(&self.file, message)
    }
}

/// Replaces the names in `template`; the result is an absolute path.
///
/// `%%` stands for one `%`; names without braces (`%homedir`) are accepted as pcocc 0.7 does, and
/// a `%` before anything else stands for itself.
pub fn expand(template: &str, variables: &Variables) -> Result<PathBuf, TemplateError> {
    let path = PathBuf::from(expand_text(template, variables)?);
    match path.is_absolute() {
        true => Ok(path),
        false => Err(Mistake::Relative.of(template)),
    }
}

/// Replaces the names in `template`, as [`expand`] does; the result may be any text.
pub fn expand_text(template: &str, variables: &Variables) -> Result<String, TemplateError> {
    let home = variables.homedir.to_string_lossy();
    let mut path = String::new();
    let mut rest = template;
    if rest == "~" || rest.starts_with("~/") {
        path.push_str(&home);
        rest = rest.trim_start_matches('~');
    }
    while let Some((before, after)) = rest.split_once('%') {
        path.push_str(before);
        if let Some(tail) = after.strip_prefix('%') {
            path.push('%');
            rest = tail;
        } else if let Some(tail) = after.strip_prefix('{') {
            let Some((name, tail)) = tail.split_once('}') else {
                return Err(Mistake::Unclosed.of(template));
            };
            path.push_str(&lookup(name, variables).map_err(|why| why.of(template))?);
            rest = tail;
        } else if let Some(tail) = after.strip_prefix("homedir") {
            path.push_str(&home);
            rest = tail;
        } else if let Some(tail) = after.strip_prefix("user") {
            path.push_str(&variables.user);
            rest = tail;
        } else {
            path.push('%');
            rest = after;
        }
    }
    path.push_str(rest);
    Ok(path)
}

fn lookup(name: &str, variables: &Variables) -> Result<String, Mistake> {
    match (name, name.strip_prefix("env:")) {
        ("homedir", _) => Ok(variables.homedir.to_string_lossy().into_owned()),
        ("user", _) => Ok(variables.user.clone()),
        (_, Some(variable)) => {
            let value = variables.env.get(variable).cloned();
            value.ok_or_else(|| Mistake::Unset(variable.to_owned()))
        }
        _ => Err(Mistake::Unknown(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn variables() -> Variables {
        Variables {
            homedir: "/home/doe".into(),
            user: "doe".into(),
            env: [("SCRATCH".to_owned(), "/scratch".to_owned())].into(),
        }
    }

    #[test]
    fn expands_names() {
        for (template, path) in [
            ("%{homedir}/.pcocc/images", "/home/doe/.pcocc/images"),
            ("%homedir/.pcocc/", "/home/doe/.pcocc/"),
            ("~/images", "/home/doe/images"),
            ("/var/%{user}/x", "/var/doe/x"),
            ("%{env:SCRATCH}/%{user}", "/scratch/doe"),
            ("/a%%b/100%", "/a%b/100%"),
        ] {
            assert_eq!(
                expand(template, &variables()).unwrap(),
                PathBuf::from(path),
                "{template}"
            );
        }
    }

    #[test]
    fn refuses_what_has_no_meaning() {
        for (template, part) in [
            ("%{nope}/x", "%{nope}"),
            ("/a/%{env:NOPE}", "variable NOPE"),
            ("/a/%{homedir", "closing"),
            ("images", "relative"),
            ("", "relative"),
        ] {
            let error = expand(template, &variables()).unwrap_err().to_string();
            assert!(error.contains(part), "{error}");
        }
    }
}
