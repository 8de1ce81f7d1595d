//! Machines on this computer, as privileged containers of a private engine.
