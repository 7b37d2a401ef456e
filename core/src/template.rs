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
pub enum TemplateError {
    /// A name in braces that means nothing here.
    #[error(
        "path {template:?} uses %{{{name}}}, which is not known; use %{{homedir}}, %{{user}} or %{{env:VAR}}"
    )]
    Unknown {
        /// The whole template.
        template: String,
        /// The name in braces.
        name: String,
    },
    /// An environment variable that is not set.
    #[error("path {template:?} uses the environment variable {name}, which is not set")]
    Unset {
        /// The whole template.
        template: String,
        /// The variable.
        name: String,
    },
    /// A `%{` without its `}`.
    #[error("path {template:?} has a %{{ without a closing }}")]
    Unclosed {
        /// The whole template.
        template: String,
    },
    /// The result is not an absolute path.
    #[error("path {template:?} is relative; write an absolute path, or one from %{{homedir}}")]
    Relative {
        /// The whole template.
        template: String,
    },
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
            Ok(_) | Err(TemplateError::Unset { .. }) => Ok(()),
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
    if path.is_absolute() {
        Ok(path)
    } else {
        Err(TemplateError::Relative {
            template: template.to_owned(),
        })
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
                return Err(TemplateError::Unclosed {
                    template: template.to_owned(),
                });
            };
            path.push_str(&lookup(name, template, variables)?);
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

fn lookup(name: &str, template: &str, variables: &Variables) -> Result<String, TemplateError> {
    match name {
        "homedir" => Ok(variables.homedir.to_string_lossy().into_owned()),
        "user" => Ok(variables.user.clone()),
        _ => match name.strip_prefix("env:") {
            Some(variable) => {
                variables
                    .env
                    .get(variable)
                    .cloned()
                    .ok_or_else(|| TemplateError::Unset {
                        template: template.to_owned(),
                        name: variable.to_owned(),
                    })
            }
            None => Err(TemplateError::Unknown {
                template: template.to_owned(),
                name: name.to_owned(),
            }),
        },
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
