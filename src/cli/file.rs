//! The declared file of a command: which one, and the variables for it.

use std::path::{Path, PathBuf};

use windlass_compose::model::Project;
use windlass_compose::{ComposeErrors, Context, Source};

use crate::error::{CommandError, Kind, Result};
use crate::hosts::provider_of_fleet;
use crate::projects;
use crate::registry;
use crate::world::World;

/// Where a project is looked for, in this order.
pub const NAMES: [&str; 5] = [
    "windlass.yaml",
    "compose.yaml",
    "compose.yml",
    "docker-compose.yaml",
    "docker-compose.yml",
];

/// Which project.
#[derive(clap::Args, Clone, Debug)]
pub struct FileArgs {
    /// The declared file; given several times, later ones override [default: windlass.yaml, compose.yaml, compose.yml,
    /// docker-compose.yaml or docker-compose.yml of this folder]
    #[arg(short, long = "file", value_name = "FILE")]
    files: Vec<PathBuf>,
    /// The project's name instead of the file's
    #[arg(short, long, value_name = "NAME", env = "COMPOSE_PROJECT_NAME")]
    project_name: Option<String>,
    /// Variables for the file [default: .env beside it]
    #[arg(long, value_name = "FILE")]
    env_file: Option<PathBuf>,
    /// Services of this profile too
    #[arg(long = "profile", value_name = "NAME")]
    profiles: Vec<String>,
}

impl FileArgs {
    /// The files given, else the first that there is.
    fn paths(&self) -> Result<Vec<PathBuf>> {
        if !self.files.is_empty() {
            return Ok(self.files.clone());
        }
        match NAMES.iter().find(|name| Path::new(name).is_file()) {
            Some(name) => Ok(vec![PathBuf::from(name)]),
            None => Err(CommandError::new(
                Kind::NotFound,
                "there is no declared file in this folder",
            )
            .hint(format!("looked for {}", NAMES.join(", ")))
            .hint("name it with `-f`")),
        }
    }
}

/// A project as read.
pub struct Loaded {
    /// What it declares.
    pub project: Project,
    /// The folder of the first file: relative paths start there.
    pub folder: PathBuf,
}

impl FileArgs {
    fn read(&self, world: &World) -> Result<Loaded> {
        let paths = self.paths()?;
        let sources = paths.iter().map(|path| source(path));
        let sources = sources.collect::<Result<Vec<_>>>()?;
        // `Path::parent` of a bare name is the empty path.
        let folder = paths[0].parent().unwrap_or(Path::new(""));
        let folder = std::path::absolute(Path::new(".").join(folder))?;
        let dot_env = match &self.env_file {
            Some(path) => Some(source(path)?),
            None => Some(folder.join(".env"))
                .filter(|path| path.is_file())
                .map(|path| source(&path))
                .transpose()?,
        };
        let context = Context {
            project_dir: folder.clone(),
            project_name: self.project_name.clone(),
            environment: std::env::vars_os()
                .filter_map(|(k, v)| Some((k.into_string().ok()?, v.into_string().ok()?)))
                .collect(),
            dot_env,
            profiles: self.profiles.clone(),
            read_file: &|path| fs_err::read_to_string(path),
        };
        let read = windlass_compose::load(&sources, &context).map_err(findings)?;
        for warning in &read.warnings {
            world.progress.line(&format!("warning: {warning}"));
        }
        Ok(Loaded {
            project: read.project,
            folder,
        })
    }

    /// Reads and checks the files; fleets without a provider get `driver`, else the one that made their machines before.
    pub async fn load(&self, world: &World, driver: Option<&str>) -> Result<Loaded> {
        let mut loaded = self.read(world)?;
        if let Some(driver) = driver {
            registry::driver(driver)?;
        }
        let machines = world.store.machines().await?;
        for (name, fleet) in &mut loaded.project.fleets {
            if fleet.provider.is_some() {
                continue;
            }
            let before = machines.iter().find(|machine| {
                machine.project.as_deref() == Some(loaded.project.name.as_str())
                    && machine
                        .slot
                        .as_ref()
                        .is_some_and(|slot| slot.fleet == *name)
            });
            fleet.provider = driver
                .map(str::to_owned)
                .or_else(|| before.map(|machine| machine.driver.clone()));
        }
        // Options are checked before anything is made.
        for (name, fleet) in &loaded.project.fleets {
            provider_of_fleet(world, name, fleet)?;
        }
        Ok(loaded)
    }

    /// The project's name: as given, else the file's, else that of the only project that is up.
    pub fn project_name(&self, world: &World) -> Result<String> {
        if let Some(name) = self.project_name.as_ref().filter(|name| !name.is_empty()) {
            projects::check(name)?;
            return Ok(name.clone());
        }
        let no_file = match self.paths() {
            Ok(_) => return Ok(self.read(world)?.project.name),
            Err(error) => error,
        };
        match projects::all(world)?.as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(no_file.hint("no project is up")),
            several => Err(no_file.hint(format!(
                "or name the project with `-p`; these are up: {}",
                several.join(", ")
            ))),
        }
    }
}

fn source(path: &Path) -> Result<Source> {
    match fs_err::read_to_string(path) {
        Ok(text) => Ok(Source::new(path.display().to_string(), text)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Err(CommandError::new(
            Kind::NotFound,
            format!("there is no file {}", path.display()),
        )),
        Err(error) => Err(CommandError::input("cannot read the declared file").because(&error)),
    }
}

/// One error a finding, each with its place.
fn findings(errors: ComposeErrors) -> CommandError {
    let more = errors.more;
    let each = errors.findings.into_iter().map(|finding| {
        let hint = finding.hint.clone();
        let place = windlass_compose::Diagnostic {
            hint: None,
            ..finding
        };
        let error = CommandError::input(place.to_string());
        match hint {
            Some(hint) => error.hint(hint),
            None => error,
        }
    });
    let error = CommandError::several(each);
    let error = error.unwrap_or_else(|| CommandError::input("the declared file is wrong"));
    match more {
        0 => error,
        more => error.hint(format!("there are {more} more like these")),
    }
}
