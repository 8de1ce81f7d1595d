//! Route table, admin protocol and proxy.
