//! Puts the engine binary and its service onto a host.
