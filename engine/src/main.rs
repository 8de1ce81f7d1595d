//! The bundled container engine.

fn main() {}
