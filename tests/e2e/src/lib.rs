//! What the end-to-end tests share. The tests themselves are ignored unless asked for: they need root, QEMU and built binaries.
