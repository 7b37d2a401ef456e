//! One run of the command: what every verb is given.

use pcocc_core::cancel::Cancel;
use pcocc_image::transfer::Context;

use crate::environment::Environment;
use crate::output;
use crate::progress::{Drawing, ProgressMode};
use crate::signals::Signals;

/// One run of the command.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// The environment, read once.
    pub(crate) environment: Environment,
    /// Raised by the first signal that asks to stop.
    pub(crate) cancel: Cancel,
    /// The signals that ask to stop.
    pub(crate) signals: Signals,
    /// The filter of the log; `None` without a log.
    pub(crate) log: Option<String>,
    progress: ProgressMode,
}

impl Invocation {
    /// A run with these options, in this environment.
    pub(crate) fn new(
        environment: Environment,
        cancel: Cancel,
        signals: Signals,
        log: Option<String>,
        progress: ProgressMode,
    ) -> Self {
        Self {
            environment,
            cancel,
            signals,
            log,
            progress,
        }
    }

    /// Whether the user wants warnings and errors only.
    pub(crate) fn is_quiet(&self) -> bool {
        self.progress == ProgressMode::None
    }

    /// Accompanies work that is too short to draw.
    pub(crate) fn quietly(&self) -> Context {
        Context {
            cancel: self.cancel.clone(),
            ..Context::silent()
        }
    }

    /// Writes a line about the work on stderr, unless the user wants it quiet.
    pub(crate) fn announce(&self, text: &str) {
        if !self.is_quiet() {
            output::complain(&format!("{text}\n"));
        }
    }

    /// Starts to draw an operation's progress; dropping the drawing leaves the terminal clean.
    pub(crate) fn draw(&self) -> (Drawing, Context) {
        let drawing = Drawing::new(self.progress, &self.environment.terminal);
        let context = Context {
            progress: drawing.reporter(),
            cancel: self.cancel.clone(),
        };
        (drawing, context)
    }
}
