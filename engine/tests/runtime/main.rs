//! The runtime with real processes, namespaces and control groups; needs root and `/bin/busybox`.

mod confinement;
mod lab;
mod life;
mod nested;
mod pace;
mod streams;
