//! The declared file: parse, interpolate, merge, check; the result is a [`Project`]. Pure.
//!
//! [`load`] is the whole of it. Deliberately absent: reading files and the environment; both are handed in. What becomes of a
//! project is for `windlass-deploy`.

mod check;
mod dotenv;
mod error;
mod field;
mod interpolate;
pub mod keys;
mod merge;
pub mod model;
mod name;
mod node;
mod read;
mod units;
mod words;
mod yaml;

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};

use error::Log;
pub use error::{ComposeErrors, Diagnostic};
use model::Project;
use node::{Mark, Node};
use read::Reader;

/// A file that was read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Source {
    /// Shown in errors.
    pub path: String,
    /// What is in it.
    pub text: String,
}

impl Source {
    /// A file by the name to show and what is in it.
    pub fn new(path: impl Into<String>, text: impl Into<String>) -> Self {
        let (path, text) = (path.into(), text.into());
        Self { path, text }
    }
}

/// What a declared file is read with.
pub struct Context<'a> {
    /// Folder of the first file; its name is the project's by default, and paths in the file are relative to it.
    pub project_dir: PathBuf,
    /// Goes before `COMPOSE_PROJECT_NAME` and the file's `name`.
    pub project_name: Option<String>,
    /// Variables of the environment.
    pub environment: BTreeMap<String, String>,
    /// The project's `.env`, which the environment goes before.
    pub dot_env: Option<Source>,
    /// Profiles asked for; if none, those of `COMPOSE_PROFILES`.
    pub profiles: Vec<String>,
    /// Reads an `env_file`.
    pub read_file: &'a dyn Fn(&Path) -> io::Result<String>,
}

/// A project, and what its author may want to know.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Loaded {
    /// What is declared.
    pub project: Project,
    /// What looks wrong but may be meant, like a variable that is not set.
    pub warnings: Vec<Diagnostic>,
}

/// Reads a declared file, the later sources over the earlier ones.
///
/// # Errors
/// Everything that is wrong with it, each with its place.
pub fn load(sources: &[Source], context: &Context<'_>) -> Result<Loaded, ComposeErrors> {
    let mut log = Log::default();
    let project = load_into(sources, context, &mut log);
    let warnings = log.finish()?;
    let project = project.unwrap_or_default();
    Ok(Loaded { project, warnings })
}

/// `None` only where the log has an error.
fn load_into(sources: &[Source], context: &Context<'_>, log: &mut Log) -> Option<Project> {
    let mut roots = Vec::new();
    for source in sources {
        let index = log.add_file(&source.path);
        roots.extend(yaml::parse(&source.text, index, log));
    }
    if sources.is_empty() {
        log.error(Mark::default(), "no file is given");
    }
    let mut variables = variables(context, log);
    if log.has_errors() {
        return None;
    }
    let name = name::find(&roots, context, &variables, log)?;
    variables.insert("COMPOSE_PROJECT_NAME".into(), name.clone());
    for root in &mut roots {
        interpolate::expand_tree(root, &|name| variables.get(name).cloned(), log);
    }
    let mut root = roots.into_iter().reduce(merge::merge)?;
    merge::strip_resets(&mut root);
    read(&root, &name, context, &variables, log)
}

fn read(
    root: &Node,
    name: &str,
    context: &Context<'_>,
    variables: &BTreeMap<String, String>,
    log: &mut Log,
) -> Option<Project> {
    let mut reader = Reader {
        log,
        project: name,
        context,
        variables,
        left_out: BTreeSet::new(),
    };
    let mut project = reader.project(root)?;
    add_default_network(&mut project);
    check::check(&project, root, log);
    Some(project)
}

/// The environment over `.env`.
fn variables(context: &Context<'_>, log: &mut Log) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    if let Some(file) = &context.dot_env {
        match dotenv::parse(&file.text, &|name| context.environment.get(name).cloned()) {
            Ok(pairs) => variables.extend(
                pairs
                    .into_iter()
                    .filter_map(|(name, value)| Some((name, value?))),
            ),
            Err(error) => {
                let source = log.add_file(&file.path);
                let mark = Mark {
                    source,
                    line: error.line,
                    column: 1,
                };
                log.error(mark, error.message);
            }
        }
    }
    variables.extend(context.environment.clone());
    variables
}

fn add_default_network(project: &mut Project) {
    let in_default = |service: &model::Service| {
        service.network_mode.is_none()
            && (service.networks.is_empty() || service.networks.contains_key("default"))
    };
    if project.services.values().any(in_default) {
        let name = format!("{}_default", project.name);
        let decl = model::NetworkDecl {
            name,
            ..model::NetworkDecl::default()
        };
        project.networks.entry("default".into()).or_insert(decl);
    }
}
