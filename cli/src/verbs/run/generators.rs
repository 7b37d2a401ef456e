//! The contribution of the generators of `containers.yaml` to a container.

use pcocc_core::containers::{ContainerTemplates, Settings};
use pcocc_image::Error;
use pcocc_run::generator::{self, GeneratorError};
use pcocc_run::mount::Mount;
use pcocc_run::plan::{Host, Request, plan};
use pcocc_run::sandbox::View;
use serde_json::json;

use super::image::RunImage;
use super::sources::Sources;
use crate::errors::Outcome;
use crate::invocation::Invocation;

/// Runs the generators of `settings`; returns the mounts that they request.
pub(super) fn generate(
    invocation: &Invocation,
    settings: &mut Settings,
    templates: &ContainerTemplates,
    sources: &mut Sources<'_>,
    image: &RunImage,
    request: &Request,
    host: &Host,
) -> Outcome<Vec<Mount>> {
    // The container without generators: some generators need the command.
    let plan = plan(&image.config, settings, request, host)
        .map_err(|error| sources.of_plan(error, settings))?;
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
    let tree = image.bundle(&host.account)?;
    let mut view = View::open(tree, config.to_string().into_bytes(), &super::program())?;
    let mut run = |command: &str| {
        let failed = |why: String| GeneratorError::Failed {
            command: command.to_owned(),
            why,
        };
        let words = shell_words::split(command).map_err(|error| failed(error.to_string()))?;
        let output = view.run(&words, &invocation.cancel).map_err(failed)?;
        sources.note(command, &output);
        Ok(output)
    };
    let mounts = generator::apply(settings, templates, &host.variables, &mut run);
    // Ctrl-C ends the generator as well, which is no failure of its own.
    if invocation.cancel.is_cancelled() {
        return Err(Error::Cancelled.into());
    }
    mounts.map_err(|error| sources.of_generator(error))
}
