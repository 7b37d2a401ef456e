//! `pcocc config show`: the values in force.

use clap::builder::PossibleValuesParser;
use pcocc_core::repos::Scope;
use pcocc_core::schema;
use pcocc_core::settings::{self, Origin, Setting};
use serde::Serialize;
use serde_json::Value;

use crate::environment::Variable;
use crate::errors::Outcome;
use crate::invocation::{Invocation, Run};
use crate::output::{self, Format};

/// Name under which environment variables are listed.
const ENVIRONMENT: &str = "environment";

/// Show the values that are in force
///
/// Reads the configuration files as every other verb does, so a mistake in one of them is told here as well.
/// Keys that are not listed are not set, and have no default. At the end: what the environment says.
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Examples:\n  pcocc config show\n  pcocc config show --origin repos.yaml\n\n\
    JSON: a list of {file, key, value, origin: {from, path, line}}; from is user, site, environment or default."
)]
pub(crate) struct Args {
    /// Only this file
    #[arg(value_parser = PossibleValuesParser::new(schema::FILES))]
    file: Option<String>,
    /// Tell where each value came from: file and line, environment, or default
    #[arg(long)]
    origin: bool,
    /// How to write the values
    #[arg(long, value_enum, value_name = "FORMAT", default_value_t)]
    format: Format,
}

/// One value, as `--format json` writes it. The keys are stable.
#[derive(Debug, Serialize)]
struct Row {
    file: &'static str,
    key: String,
    value: Value,
    origin: From,
}

#[derive(Debug, Serialize)]
struct From {
    from: &'static str,
    path: Option<String>,
    line: Option<u64>,
}

impl Run for Args {
    fn action(&self) -> String {
        "show the configuration".to_owned()
    }

    fn run(self, invocation: &Invocation) -> Outcome {
        let environment = &invocation.environment;
        let settings = settings::settings(
            &environment.user_conf,
            &environment.system_conf,
            &environment.path_variables(),
        )?;
        let rows: Vec<Row> = settings
            .into_iter()
            .map(Row::of_setting)
            .chain(environment.shown().into_iter().map(Row::of_variable))
            .filter(|row| self.file.as_ref().is_none_or(|file| file == row.file))
            .collect();
        if self.format == Format::Json {
            return output::json(&rows);
        }
        let mut header = vec!["FILE", "KEY", "VALUE"];
        if self.origin {
            header.push("ORIGIN");
        }
        let cells = |row: Row| {
            let mut cells = vec![row.file.to_owned(), row.key, words(&row.value)];
            if self.origin {
                cells.push(row.origin.words());
            }
            cells
        };
        output::table(&header, &[], rows.into_iter().map(cells).collect())
    }
}

impl Row {
    fn of_setting(setting: Setting) -> Self {
        let origin = match setting.origin {
            Origin::Default => From {
                from: "default",
                path: None,
                line: None,
            },
            Origin::File { scope, path, line } => From {
                from: match scope {
                    Scope::User => "user",
                    Scope::System | Scope::Default => "site",
                },
                path: Some(path.display().to_string()),
                line: Some(line),
            },
        };
        Self {
            file: setting.file,
            key: setting.key,
            value: setting.value,
            origin,
        }
    }

    fn of_variable(variable: Variable) -> Self {
        Self {
            file: ENVIRONMENT,
            key: variable.name.to_owned(),
            value: Value::from(variable.value),
            origin: From {
                from: match variable.set {
                    true => "environment",
                    false => "default",
                },
                path: None,
                line: None,
            },
        }
    }
}

impl From {
    fn words(self) -> String {
        match (self.path, self.line) {
            (Some(path), Some(line)) => format!("{path}:{line}"),
            _ => self.from.to_owned(),
        }
    }
}

/// A value as on a command line, if it is plain text, or else as JSON.
fn words(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
