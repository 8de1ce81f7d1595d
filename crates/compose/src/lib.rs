//! The declared file: parse, interpolate, merge, normalise. Pure.
