//! What goes wrong, as the provider contract wants it.

use std::fmt::Display;
use std::io;

use windlass_engine_api::Error as EngineError;
use windlass_provider::{ErrorKind, ProviderError};

/// A failure of this computer: files, processes.
pub fn of_host(what: &str) -> impl FnOnce(io::Error) -> ProviderError {
    move |error| {
        let kind = match error.kind() {
            io::ErrorKind::PermissionDenied => ErrorKind::Auth,
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorKind::Quota,
            _ => ErrorKind::Other,
        };
        ProviderError::new(kind, format!("{what}: {error}"))
    }
}

/// A failure of the private engine.
pub fn of_engine(what: &str) -> impl FnOnce(EngineError) -> ProviderError {
    move |error| {
        let kind = match error.status() {
            Some(404) => ErrorKind::NotFound,
            Some(409) => ErrorKind::Conflict,
            Some(400) => ErrorKind::Invalid,
            _ => ErrorKind::Other,
        };
        ProviderError::new(kind, format!("{what}: {}", chain(&error)))
    }
}

/// A failure with a text of its own.
pub fn other(message: impl Into<String>) -> ProviderError {
    ProviderError::new(ErrorKind::Other, message)
}

/// No machine has this id.
pub fn no_machine(id: impl Display) -> ProviderError {
    ProviderError::new(
        ErrorKind::NotFound,
        format!("there is no local machine `{id}`"),
    )
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(inner) = source {
        text.push_str(&format!(": {inner}"));
        source = inner.source();
    }
    text
}
