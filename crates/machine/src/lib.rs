//! Machines: name, spec, lifecycle, store and intents.
