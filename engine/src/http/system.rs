//! The engine itself: version, events, what every answer carries.

use std::collections::BTreeMap;
use std::sync::Arc;

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use tokio::sync::broadcast::error::RecvError;
use windlass_engine_api::types::{Component, Platform, Version};

use super::request::{API_VERSION, MIN_API_VERSION, Req};
use super::respond::{self, Reply};
use crate::container::error::{Error, Result};
use crate::container::{Engine, clock, events};

pub(super) const VERSION: &str = env!("CARGO_PKG_VERSION");
/// Clients show it; there is no Go in here.
const GO_VERSION: &str = "none";
const ARCH: &str = if cfg!(target_arch = "x86_64") {
    "amd64"
} else if cfg!(target_arch = "aarch64") {
    "arm64"
} else {
    std::env::consts::ARCH
};

/// What every answer carries.
pub fn headers(headers: &mut HeaderMap) {
    for (name, value) in [
        ("api-version", "1.50"),
        ("docker-experimental", "false"),
        ("ostype", "linux"),
        (
            "server",
            concat!("windlass/", env!("CARGO_PKG_VERSION"), " (linux)"),
        ),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
}

/// `GET` and `HEAD /_ping`.
pub fn ping() -> Reply {
    let mut reply = respond::text("OK");
    for (name, value) in [
        ("builder-version", "1"),
        ("swarm", "inactive"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
    ] {
        reply.headers_mut().insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
    reply
}

/// When this program was built, as far as its file tells.
fn build_time() -> String {
    use std::os::unix::fs::MetadataExt as _;
    let written = std::fs::metadata("/proc/self/exe").map_or(0, |m| m.mtime());
    let time = time::OffsetDateTime::from_unix_timestamp(written)
        .unwrap_or(time::OffsetDateTime::UNIX_EPOCH);
    format!("{}+00:00", clock::format(time).trim_end_matches('Z'))
}

/// `GET /version`.
pub fn version(engine: &Engine) -> Result<Reply> {
    let text = |v: (u32, u32)| format!("{}.{}", v.0, v.1);
    let details: BTreeMap<String, String> = [
        ("ApiVersion", text(API_VERSION)),
        ("MinAPIVersion", text(MIN_API_VERSION)),
        ("Arch", ARCH.to_owned()),
        ("Os", "linux".to_owned()),
        ("KernelVersion", kernel()),
        ("GitCommit", engine.settings.build_id.clone()),
        ("Experimental", "false".to_owned()),
        ("BuildTime", build_time()),
        ("GoVersion", GO_VERSION.to_owned()),
    ]
    .map(|(k, v)| (k.to_owned(), v))
    .into();
    respond::json(&Version {
        platform: Platform {
            name: "windlass engine".to_owned(),
        },
        components: vec![Component {
            name: "Engine".to_owned(),
            version: VERSION.to_owned(),
            details,
        }],
        version: VERSION.to_owned(),
        api_version: text(API_VERSION),
        min_api_version: text(MIN_API_VERSION),
        git_commit: engine.settings.build_id.clone(),
        os: "linux".to_owned(),
        arch: ARCH.to_owned(),
        kernel_version: kernel(),
        build_time: build_time(),
        go_version: GO_VERSION.to_owned(),
        ..Version::default()
    })
}

pub(super) fn kernel() -> String {
    nix::sys::utsname::uname()
        .map(|u| u.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

/// `GET /events`.
pub fn events(engine: &Arc<Engine>, req: &Req) -> Result<Reply> {
    let filters = req.filters()?;
    let time = |key: &str| match req.query(key) {
        None => Ok(None),
        Some(text) => clock::parse_flexible(text)
            .map(Some)
            .ok_or_else(|| Error::invalid(format!("parameter {key}: '{text}' is no time"))),
    };
    let (since, mut until) = (time("since")?, time("until")?);
    // Podman's, which its clients send: what has been, and no more.
    if req.query("stream") == Some("false") {
        until = until.or(Some(time::OffsetDateTime::now_utc()));
    }
    if let (Some(since), Some(until)) = (since, until)
        && until < since
    {
        return Err(Error::invalid(format!(
            "`since` time ({}) cannot be after `until` time ({})",
            req.query("since").unwrap_or_default(),
            req.query("until").unwrap_or_default()
        )));
    }
    let past_only = req.has_query("stream") && !req.flag("stream");
    let (past, mut receiver) = engine.events.subscribe(events::Span { since, until });
    let (sender, body) = respond::channel();
    tokio::spawn(async move {
        for event in past.into_iter().filter(|e| events::matches(e, &filters)) {
            if !sender.send_json_line(&event).await {
                return;
            }
        }
        // A parameter of podman's, which clients send here too.
        if past_only {
            return;
        }
        let left = until.map(|t| (t - time::OffsetDateTime::now_utc()).try_into());
        let end = async {
            match left {
                // A time that is past has no more events to come.
                Some(left) => tokio::time::sleep(left.unwrap_or_default()).await,
                None => std::future::pending().await,
            }
        };
        tokio::pin!(end);
        loop {
            let event = tokio::select! {
                biased;
                () = &mut end => return,
                event = receiver.recv() => event,
                () = sender.closed() => return,
            };
            match event {
                Ok(event) if events::matches(&event, &filters) => {
                    if !sender.send_json_line(&event).await {
                        return;
                    }
                }
                Ok(_) | Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return,
            }
        }
    });
    Ok(respond::typed(StatusCode::OK, "application/json", body))
}
