//! The image repository on disk, in the format of pcocc 0.7.
