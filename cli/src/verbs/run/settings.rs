//! What `containers.yaml` says, and what its generators add.

use std::path::Path;

use pcocc_core::containers::{Runtime, Settings, Templates};
use pcocc_image::Error;
use pcocc_run::generator::{self, GeneratorError};
use pcocc_run::mount::Mount;
use pcocc_run::plan::{Host, Request, plan};
use pcocc_run::sandbox::View;
use serde_json::json;

use super::image::RunImage;
use super::said::Said;
use crate::errors::{Failure, Outcome, While as _};
use crate::invocation::Invocation;

/// The site's and the user's `containers.yaml`.
#[derive(Debug)]
pub(super) struct Site {
    pub(super) templates: Templates,
    pub(super) runtime: Runtime,
}

/// Reads both files.
pub(super) fn load(invocation: &Invocation) -> Outcome<Site> {
    let file = |folder: &Path| folder.join("containers.yaml");
    let environment = &invocation.environment;
    let (system, user) = (file(&environment.system_conf), file(&environment.user_conf));
    let action = || "read what containers are given";
    Ok(Site {
        templates: Templates::load(&system, &user).when(action)?,
        runtime: Runtime::load(&system, &user).when(action)?,
    })
}

/// Runs the generators of `settings`, and gives the mounts they ask for.
#[expect(clippy::too_many_arguments, reason = "they are what a plan is made of")]
pub(super) fn generate(
    invocation: &Invocation,
    settings: &mut Settings,
    site: &Site,
    said: &mut Said<'_>,
    image: &RunImage,
    request: &Request,
    host: &Host,
    action: &str,
) -> Outcome<Vec<Mount>> {
    // The container as it is without them: some look at the command.
    let plan = plan(&image.config, settings, request, host)
        .map_err(|error| said.of_plan(error, settings, action))?;
    let words = |words: &[std::ffi::OsString]| -> Vec<String> {
        words
            .iter()
            .map(|word| word.to_string_lossy().into_owned())
            .collect()
    };
    let variables = plan.environment.iter();
    let config = json!({
        "ociVersion": "1.0.0",
        "root": {"path": "rootfs", "readonly": true},
        "process": {
            "args": words(&plan.argv),
            "env": variables
                .map(|(name, value)| format!("{}={}", name.to_string_lossy(), value.to_string_lossy()))
                .collect::<Vec<_>>(),
            "cwd": plan.cwd.path.to_string_lossy(),
            "user": {"uid": host.account.uid, "gid": host.account.gid},
            "terminal": plan.pty,
        },
    });
    let tree = image.bundle(&host.account).when(|| action)?;
    let mut view =
        View::open(tree, config.to_string().into_bytes(), &super::program()).when(|| action)?;
    let mut run = |command: &str| {
        let failed = |why: String| GeneratorError::Failed {
            command: command.to_owned(),
            why,
        };
        let words = shell_words::split(command).map_err(|error| failed(error.to_string()))?;
        let output = view.run(&words, &invocation.cancel).map_err(failed)?;
        said.remember(command, &output);
        Ok(output)
    };
    let mounts = generator::apply(settings, &site.templates, &host.variables, &mut run);
    // Ctrl-C ends the generator as well, which is no failure of its own.
    if invocation.cancel.is_cancelled() {
        return Err(Failure::new(action, Error::Cancelled));
    }
    mounts.map_err(|error| said.of_generator(error, action))
}
