//! Metrics, scaling policy (pure), reconcile.
