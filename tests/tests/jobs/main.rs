//! Docker VMs as jobs: real QEMU, real docker in it, real Slurm. VMs resume one snapshot that all these tests share.

mod background;
mod clocks;
mod cluster;
mod contexts;
mod disks;
mod faults;
mod guide;
mod home;
mod late;
mod layers;
mod logout;
mod look;
mod many;
mod picture;
mod places;
mod refusals;
mod returning;
mod settings;
mod several;
mod shell;
mod slurm;
mod slurm_ends;
#[path = "../../../cli/tests/look/terminal.rs"]
mod terminal;
