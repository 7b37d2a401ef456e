//! Docker VMs as jobs: real QEMU, real docker in it, real Slurm. VMs resume one snapshot that all these tests share.

mod background;
mod faults;
mod home;
mod refusals;
mod shell;
mod slurm;
