//! Docker VMs as jobs: real QEMU, real docker in it, real Slurm. VMs resume one snapshot that all these tests share.

mod background;
mod clocks;
mod cluster;
mod disks;
mod faults;
mod home;
mod late;
mod logout;
mod many;
mod refusals;
mod returning;
mod several;
mod shell;
mod slurm;
mod slurm_ends;
