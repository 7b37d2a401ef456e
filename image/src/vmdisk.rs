//! Disks of virtual machines, through qemu-img.
