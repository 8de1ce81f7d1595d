//! Hosts that already exist, reached by SSH.
