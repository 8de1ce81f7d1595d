//! What Docker's clients expect of an engine, as tests that run against any: `cargo xtask conformance` runs them on ours and on dockerd.
//!
//! [`cli`] is a table of commands of the docker CLI, [`suites`] runs the tests of other clients (docker-py and docker compose by pytest,
//! bollard by cargo), and [`report`] sets the results side by side. Deliberately absent: starting engines, and anything about one of them.

pub mod cli;
mod normal;
pub mod report;
pub mod suites;

pub use normal::normal;

use std::path::{Path, PathBuf};

/// Where an engine is reached, and what the tests find there.
#[derive(Clone, Debug)]
pub struct Target {
    /// Its socket.
    pub socket: PathBuf,
    /// What `box:latest` is imported from, which it has.
    pub image: PathBuf,
    /// A registry that it may pull from and push to, as `HOST:PORT`.
    pub registry: String,
}

impl Target {
    /// The environment of every client: this engine, the registry, and nobody's logins.
    pub fn environment(&self) -> Vec<(&'static str, String)> {
        vec![
            ("DOCKER_HOST", format!("unix://{}", self.socket.display())),
            (
                "DOCKER_CONFIG",
                self.socket.with_extension("client").display().to_string(),
            ),
            ("REGISTRY", self.registry.clone()),
            ("BOX", self.image.display().to_string()),
            // The classic builder: both engines have it.
            ("DOCKER_BUILDKIT", "0".to_owned()),
            ("COMPOSE_DOCKER_CLI_BUILD", "0".to_owned()),
            ("COMPOSE_PROGRESS", "plain".to_owned()),
            ("COMPOSE_MENU", "0".to_owned()),
            ("COMPOSE_ANSI", "never".to_owned()),
        ]
    }
}

/// Which of the tests.
#[derive(Clone, Debug, Default)]
pub struct Selection {
    /// Only those with this in their names.
    pub only: Option<String>,
    /// How many.
    pub extent: Extent,
}

/// How many of the tests.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Extent {
    /// All.
    #[default]
    Whole,
    /// Those that are not marked as slow.
    Quick,
}

/// How one test ended on one engine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// As expected; what it showed, made comparable.
    Passed(String),
    /// Otherwise; why.
    Failed(String),
    /// It does not apply here.
    Skipped,
}

/// A test's name, such as `cli/containers/exit_code`, and how it ended.
pub type Result = (String, Outcome);

/// The folder of this crate, with the tests that are not Rust.
pub fn folder() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}
