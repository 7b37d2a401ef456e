//! Starting a copy: a tool makes the folder of the new image.

use std::sync::Arc;

use pcocc_image::Error;

use crate::errno::{Errno, Result, errno_of};
use crate::naming::join;
use crate::process::Process;
use crate::staged::StagedFolder;
use crate::tree::Tree;
use crate::tree::nodes::{NamesNode, Node, Side, StagedDirNode};

impl Tree {
    /// Starts the image `name` in a folder of names.
    pub(super) fn stage(&self, names: &NamesNode, name: &str, by: Process) -> Result<Node> {
        let path = join(&names.path, name);
        let view = self.view(names.store)?;
        let refuse = |error: Error| {
            // The text explains the rule better than the errno.
            tracing::warn!(store = %view.label, path, %error, "refused");
            let errno = errno_of(&error);
            let running = self.status.begin(&view.label, &path, "copy");
            running.end::<(), _>(&Err(error));
            errno
        };
        let image_name = view.notation.name_of(&path).ok_or_else(|| {
            refuse(Error::invalid(
                format!("the name '{path}'"),
                "is not one of an image: those do not begin with a dot",
            ))
        })?;
        view.store.check_name(&image_name).map_err(refuse)?;
        if names.child(self, name)?.is_some() {
            return Err(Errno::EXIST);
        }
        view.store.check_new(&image_name).map_err(refuse)?;
        let staged = StagedFolder::new(names.store, &path, by);
        match self.staging.add(&path, &staged) {
            true => Ok(StagedDirNode::top(&staged)),
            false => Err(Errno::EXIST),
        }
    }

    /// Makes a folder that is no part of a layout inside of an empty staged folder. In a store whose names have
    /// slashes, this makes the staged folder a folder of names.
    pub(super) fn stage_below(
        &self,
        staged: &Arc<StagedFolder>,
        name: &str,
        by: Process,
    ) -> Result<Node> {
        let store = staged.store();
        let view = self.view(store)?;
        let (path, maker) = {
            let state = staged.state();
            (state.path.clone(), state.users.0)
        };
        let image_name = view.notation.name_of(&join(&path, name));
        let image_name = image_name.ok_or(Errno::INVAL)?;
        if !view.notation.nests() || view.store.check_name(&image_name).is_err() {
            return Err(Errno::INVAL);
        }
        self.staging.remove(staged);
        self.staging.make_folder(store, &path, maker);
        let names = NamesNode {
            side: Side::Images,
            store,
            path: path.into(),
        };
        let (old, new) = (StagedDirNode::top(staged), Node::Names(names.clone()));
        self.inodes.rebind(&old, new);
        self.stage(&names, name, by)
    }
}
