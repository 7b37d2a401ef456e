//! The squashfs file of an image on its way: made from nothing, or begun with layers of another image's file.
//!
//! The base is copied and verified by a thread of its own while the first layers come ([`Root::begin_on`]); the first
//! layer that has to be written waits for the thread. A base that turns out to be no use costs that time only: the
//! file is emptied and made from nothing, of layers that are in the folder of blobs by then.

use std::collections::{HashMap, HashSet};
use std::fs::File;
use std::path::PathBuf;
use std::thread::JoinHandle;

use pcocc_core::beneath::TempFile;
use pcocc_core::cancel::Cancelled;
use pcocc_core::progress::Reporter;

use crate::error::{Error, Result};
use crate::transfer::Context;
use pcocc_layers::squashfs::{Finished, LayerTree, Options, RootfsWriter, Toc};
use pcocc_layers::{DiffId, error as bytes};

/// The squashfs file of another image, with its table of contents.
#[derive(Debug)]
pub struct Base {
    /// The file.
    pub file: File,
    /// Where it is, for messages.
    pub path: PathBuf,
    /// Its layers.
    pub toc: Toc,
}

type Trees = Vec<(DiffId, LayerTree)>;

/// How far the file is.
#[derive(Debug)]
enum Stage {
    Empty,
    /// Layers of the file at a path are copied.
    Copying(Copying, PathBuf),
    Writing(Box<RootfsWriter>),
}

type Copied = bytes::Result<(RootfsWriter, Trees)>;

/// The thread that copies, which ends before this is gone.
#[derive(Debug)]
struct Copying(Option<JoinHandle<Copied>>);

impl Copying {
    fn join(mut self) -> Copied {
        match self.0.take().map(JoinHandle::join) {
            Some(Ok(copied)) => copied,
            Some(Err(panic)) => std::panic::resume_unwind(panic),
            None => Err(Cancelled.into()),
        }
    }
}

impl Drop for Copying {
    fn drop(&mut self) {
        if let Some(thread) = self.0.take() {
            let _ = thread.join();
        }
    }
}

/// The unfinished squashfs file with the layers so far.
#[derive(Debug)]
pub(super) struct Root {
    file: TempFile,
    options: Options,
    stage: Stage,
    /// A layer that occurs twice in an image has two trees.
    trees: HashMap<DiffId, Vec<LayerTree>>,
    /// The layers that come from another file.
    copied: HashSet<DiffId>,
}

impl Root {
    /// Begins in the empty `file`.
    pub(super) fn new(file: TempFile, options: Options) -> Self {
        Self {
            file,
            options,
            stage: Stage::Empty,
            trees: HashMap::new(),
            copied: HashSet::new(),
        }
    }

    /// Begins with those layers of `base` that the image has; `lowest` are the image's lowest layers. Nothing happens
    /// when the file has something already.
    pub(super) fn begin_on(
        &mut self,
        base: Base,
        lowest: &[DiffId],
        context: &Context,
    ) -> Result<()> {
        if !matches!(self.stage, Stage::Empty) {
            return Ok(());
        }
        let path = self.file.path();
        let file = self.reopen()?;
        let (options, cancel, lowest) = (self.options, context.cancel.clone(), lowest.to_vec());
        let Base {
            file: from,
            path: name,
            toc,
        } = base;
        self.copied = toc.diff_ids().filter(|id| lowest.contains(id)).collect();
        let body =
            move || RootfsWriter::on_base(file, &path, options, &from, &toc, &lowest, &cancel);
        let thread = std::thread::Builder::new().name("squashfs-base".into());
        let thread = thread.spawn(body);
        let thread = thread.map_err(Error::io("start a thread to copy", &name))?;
        self.stage = Stage::Copying(Copying(Some(thread)), name);
        Ok(())
    }

    /// Whether the layer comes from another file and need not be written.
    pub(super) fn is_copied(&self, diff_id: DiffId) -> bool {
        self.copied.contains(&diff_id)
    }

    /// The writer, once what is copied is there.
    pub(super) fn writer(&mut self, progress: &Reporter) -> Result<&mut RootfsWriter> {
        let writer = match std::mem::replace(&mut self.stage, Stage::Empty) {
            Stage::Writing(writer) => writer,
            Stage::Empty => self.new_writer()?,
            Stage::Copying(copying, from) => match copying.join() {
                Ok((writer, trees)) => {
                    for (diff_id, tree) in trees {
                        self.trees.entry(diff_id).or_default().push(tree);
                    }
                    Box::new(writer)
                }
                Err(error @ bytes::Error::Cancelled(_)) => return Err(error.into()),
                Err(error) => {
                    progress.warn(format!(
                        "{} is not built upon: {error}; the squashfs image is made from all layers",
                        from.display()
                    ));
                    self.copied.clear();
                    self.new_writer()?
                }
            },
        };
        self.stage = Stage::Writing(writer);
        match &mut self.stage {
            Stage::Writing(writer) => Ok(writer),
            _ => Err(Error::invalid("squashfs file", "is not being written")),
        }
    }

    fn new_writer(&self) -> Result<Box<RootfsWriter>> {
        let path = self.file.path();
        let file = self.reopen()?;
        file.set_len(0).map_err(Error::io("empty", &path))?;
        Ok(Box::new(RootfsWriter::create(file, &path, self.options)?))
    }

    fn reopen(&self) -> Result<File> {
        let opened = self.file.reopen();
        opened.map_err(Error::io("open", self.file.path()))
    }

    /// Keeps the tree of a layer that was written.
    pub(super) fn keep(&mut self, diff_id: DiffId, tree: LayerTree) {
        self.trees.entry(diff_id).or_default().push(tree);
    }

    /// Takes the tree of a layer.
    pub(super) fn take(&mut self, diff_id: DiffId) -> Option<LayerTree> {
        self.trees.get_mut(&diff_id)?.pop()
    }

    /// Completes the file of the layers `trees`, lowest first.
    pub(super) fn finish(
        mut self,
        trees: Vec<LayerTree>,
        config: &[u8],
        context: &Context,
    ) -> Result<(TempFile, Finished)> {
        self.writer(&context.progress)?;
        match std::mem::replace(&mut self.stage, Stage::Empty) {
            Stage::Writing(writer) => {
                let finished = writer.finish(trees, config, &context.cancel)?;
                Ok((self.file, finished))
            }
            _ => Err(Error::invalid("squashfs file", "is not being written")),
        }
    }
}
