//! Machines on this computer.

mod fleet;
mod interrupted;
mod machines;
