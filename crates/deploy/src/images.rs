//! Images: which registry a reference is of, and build contexts as archives with a digest.
//!
//! Deliberately absent: pulling and building, which the engines do.

mod context;
mod ignore;

use std::fmt;
use std::sync::Arc;

use windlass_engine_api::RegistryAuth;

pub use context::{BuildContext, ContextError};

/// Logins: registry (`docker.io`, `localhost:5000`) → credentials.
#[derive(Clone, Default)]
pub struct Credentials(Option<Arc<Find>>);

type Find = dyn Fn(&str) -> Option<RegistryAuth> + Send + Sync;

impl Credentials {
    /// Asked with the registry's host.
    pub fn new(find: impl Fn(&str) -> Option<RegistryAuth> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(find)))
    }

    pub(crate) fn of(&self, reference: &str) -> Option<RegistryAuth> {
        self.0.as_ref()?(registry_of(reference))
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Credentials")
    }
}

/// The registry's host in an image reference.
pub fn registry_of(reference: &str) -> &str {
    match reference.split_once('/') {
        Some((host, _)) if host.contains(['.', ':']) || host == "localhost" => host,
        _ => "docker.io",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn registries() {
        for (reference, host) in [
            ("httpd", "docker.io"),
            ("library/httpd:2.4", "docker.io"),
            ("localhost/x", "localhost"),
            ("localhost:5000/x:1", "localhost:5000"),
            ("ghcr.io/a/b@sha256:00", "ghcr.io"),
            ("httpd:2.4", "docker.io"),
        ] {
            assert_eq!(registry_of(reference), host, "{reference}");
        }
    }
}
