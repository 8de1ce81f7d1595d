//! The declared file from outside: everything through `load`.

mod examples;
mod support;
