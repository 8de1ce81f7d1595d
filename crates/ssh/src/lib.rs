//! SSH sessions: exec, upload, tunnel, host keys, client configuration.
