//! Docker VMs on real QEMU with a real dockerd. One guest is booted for all; every test resumes it.

mod clones;
mod disk;
mod ends;
mod image;
mod layers;
mod network;
mod settings;
mod shares;
mod snapshots;
