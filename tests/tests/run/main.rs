//! `pcocc run`: commands in images, without docker and without root.

mod bad_input;
mod busybox;
mod images;
mod life;
mod options;
mod site;
mod slurm;
mod vs_docker;
