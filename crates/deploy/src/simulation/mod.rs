//! A world in memory: machines, engines and proxies that keep the rules of the real ones, with faults on demand; and the planner's
//! properties in it.

mod projects;
mod properties;
mod scenarios;
mod world;
