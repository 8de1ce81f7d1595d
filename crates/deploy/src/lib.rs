//! Observe, plan (pure), apply.
