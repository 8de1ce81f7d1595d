//! Registry credentials from `~/.docker/config.json`.
//!
//! Only what `docker login` writes into the file itself (`auths`). Deliberately absent: credential helpers, which are programs that
//! would have to be run; the user is told when one would have been asked.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use windlass_compose::model::Project;
use windlass_deploy::registry_of;
use windlass_engine_api::RegistryAuth;

use crate::environment;
use crate::error::{CommandError, Result};
use crate::progress::Progress;

/// How Docker's own registry is named in the file.
const DOCKER_HUB: [&str; 3] = [
    "https://index.docker.io/v1/",
    "index.docker.io",
    "docker.io",
];

/// The logins for a project; says which of its registries would need a helper.
pub fn for_project(project: &Project, progress: &Progress) -> Result<windlass_deploy::Credentials> {
    let logins = Credentials::load()?;
    let pulled = project.services.values().filter(|s| s.build.is_none());
    let registries: BTreeSet<&str> = pulled.map(|s| registry_of(&s.image)).collect();
    for registry in registries {
        if let Found::Helper(helper) = logins.of(registry) {
            progress.line(&format!(
                "note: the login for {registry} is with docker-credential-{helper}, which is not asked; pulling without a login"
            ));
        }
    }
    Ok(windlass_deploy::Credentials::new(
        move |registry| match logins.of(registry) {
            Found::Auth(auth) => Some(auth),
            Found::Helper(_) | Found::Nothing => None,
        },
    ))
}

/// The part of the file that we read.
#[derive(Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Credentials {
    auths: BTreeMap<String, RegistryAuth>,
    creds_store: Option<String>,
    cred_helpers: BTreeMap<String, String>,
}

/// What is known for a registry.
#[derive(Debug, PartialEq, Eq)]
pub enum Found {
    /// Log in with these.
    Auth(RegistryAuth),
    /// They are with this helper, which is not asked.
    Helper(String),
    /// Pull anonymously.
    Nothing,
}

impl Credentials {
    /// Reads `$DOCKER_CONFIG/config.json`, else `~/.docker/config.json`; none is no error.
    pub fn load() -> Result<Self> {
        let folder = environment::variable("DOCKER_CONFIG")
            .map(PathBuf::from)
            .or_else(|| environment::user_home().map(|home| home.join(".docker")));
        match folder.map(|folder| folder.join("config.json")) {
            Some(path) if path.is_file() => Self::read(&path),
            _ => Ok(Self::default()),
        }
    }

    fn read(path: &Path) -> Result<Self> {
        let text = fs_err::read(path)?;
        serde_json::from_slice(&text).map_err(|error| {
            CommandError::input(format!(
                "cannot read the registry logins in {}",
                path.display()
            ))
            .because(&error)
            .hint("`docker login` writes the file anew")
        })
    }

    /// For `docker.io`, `ghcr.io`, `registry.example.com:5000`, ….
    pub fn of(&self, registry: &str) -> Found {
        let names: Vec<&str> = match registry {
            "docker.io" | "index.docker.io" | "registry-1.docker.io" => DOCKER_HUB.to_vec(),
            other => vec![other],
        };
        let matches = |key: &str| names.iter().any(|name| bare(key) == bare(name));
        let helper = self.cred_helpers.iter().find(|(key, _)| matches(key));
        if let Some((_, helper)) = helper {
            return Found::Helper(helper.clone());
        }
        let entry = self.auths.iter().find(|(key, _)| matches(key));
        match (entry, &self.creds_store) {
            (Some((_, auth)), _) if !auth.is_anonymous() => {
                // The header's own reading takes `user:password` apart.
                let auth = RegistryAuth::from_header(&auth.to_header()).unwrap_or_default();
                Found::Auth(RegistryAuth {
                    serveraddress: registry.to_owned(),
                    auth: String::new(),
                    ..auth
                })
            }
            (Some(_), Some(helper)) => Found::Helper(helper.clone()),
            _ => Found::Nothing,
        }
    }
}

/// `https://ghcr.io/v2/` and `ghcr.io` are the same registry.
fn bare(key: &str) -> &str {
    let host = key.split_once("://").map_or(key, |(_, rest)| rest);
    host.split('/').next().unwrap_or(host)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Credentials {
        serde_json::from_str(text).unwrap_or_default()
    }

    #[test]
    fn logins_are_found_by_any_name_of_the_registry() {
        // bob:s3cret
        let file = parsed(
            r#"{"auths": {"https://index.docker.io/v1/": {"auth": "Ym9iOnMzY3JldA=="}, "ghcr.io": {}},
                "credHelpers": {"gcr.io": "gcloud"}, "credsStore": "desktop"}"#,
        );
        let Found::Auth(auth) = file.of("docker.io") else {
            unreachable!("there is a login for Docker Hub")
        };
        assert_eq!(
            (auth.username.as_str(), auth.password.as_str()),
            ("bob", "s3cret")
        );
        assert_eq!(file.of("ghcr.io"), Found::Helper("desktop".to_owned()));
        assert_eq!(file.of("gcr.io"), Found::Helper("gcloud".to_owned()));
        assert_eq!(file.of("quay.io"), Found::Nothing);
    }
}
