//! Layer blobs: compressing and inflating them on several threads.
