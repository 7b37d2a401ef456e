//! Fs
