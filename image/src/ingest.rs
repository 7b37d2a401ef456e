//! Receiving an image into a folder of blobs, with its root filesystem as squashfs.
