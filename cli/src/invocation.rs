//! One run of the command: the arguments that every verb gets, and how a verb is run.

use std::sync::Arc;

use pcocc_core::cancel::Cancel;
use pcocc_image::transfer::Context;
use pcocc_remote::docker::Daemon;

use crate::environment::Environment;
use crate::errors::{Outcome, While as _};
use crate::host::Host;
use crate::messages;
use crate::progress::{Drawing, ProgressMode};
use crate::signals::Signals;

/// A verb with its arguments.
pub(crate) trait Run {
    /// The verb's action, as it follows "failed to".
    fn action(&self) -> String;

    /// Runs the verb.
    fn run(self, invocation: &Invocation) -> Outcome;
}

/// One run of the command.
#[derive(Debug)]
pub(crate) struct Invocation {
    /// The environment, read once.
    pub(crate) environment: Arc<Environment>,
    /// The surroundings; each fact is found once.
    pub(crate) host: Arc<Host>,
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
        let environment = Arc::new(environment);
        Self {
            host: Arc::new(Host::new(Arc::clone(&environment))),
            environment,
            cancel,
            signals,
            log,
            progress,
        }
    }

    /// Runs a verb; a failure without an action gets the verb's.
    pub(crate) fn run(&self, verb: impl Run) -> Outcome {
        let action = verb.action();
        verb.run(self).when(|| action)
    }

    /// Whether the user wants warnings and errors only.
    pub(crate) fn is_quiet(&self) -> bool {
        self.progress == ProgressMode::None
    }

    /// The context of work that is too short to draw.
    pub(crate) fn quietly(&self) -> Context {
        Context {
            cancel: self.cancel.clone(),
            ..Context::silent()
        }
    }

    /// Writes a line about the work to stderr, unless the user wants no such lines.
    pub(crate) fn announce(&self, text: &str) {
        if !self.is_quiet() {
            messages::complain(&format!("{text}\n"));
        }
    }

    /// Does `work` while its progress is drawn.
    pub(crate) fn drawn<T>(&self, work: impl FnOnce(&Context) -> T) -> T {
        let (_drawing, context) = self.draw();
        work(&context)
    }

    /// Connects to the docker daemon that is meant.
    pub(crate) fn daemon(&self) -> Outcome<Daemon> {
        self.drawn(|context| self.host.daemon(context))
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
