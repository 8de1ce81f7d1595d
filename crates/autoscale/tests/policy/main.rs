//! The policy alone: tables, properties, a simulated fleet in virtual time, and recorded loads.

mod properties;
mod replay;
mod simulation;
mod tables;
mod world;
