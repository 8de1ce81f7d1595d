//! The engine itself: version, host, events.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;

use fs_err as fs;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use windlass_engine_api::types::{Component, Info, Platform, Plugins, Version};

use super::request::{API_VERSION, MIN_API_VERSION, Req};
use super::respond::{self, Reply};
use crate::container::error::{Error, Result};
use crate::container::parts::ImageQuery;
use crate::container::record::Status;
use crate::container::{Engine, clock, events};

const VERSION: &str = env!("CARGO_PKG_VERSION");
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
        ("builder-version", "1"),
        ("cache-control", "no-cache, no-store, must-revalidate"),
        ("pragma", "no-cache"),
    ] {
        headers.insert(
            HeaderName::from_static(name),
            HeaderValue::from_static(value),
        );
    }
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
        ..Version::default()
    })
}

fn kernel() -> String {
    nix::sys::utsname::uname()
        .map(|u| u.release().to_string_lossy().into_owned())
        .unwrap_or_default()
}

fn operating_system() -> (String, String) {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let field = |name: &str| {
        let line = text
            .lines()
            .find_map(|l| l.strip_prefix(name)?.strip_prefix('='));
        line.unwrap_or_default().trim_matches('"').to_owned()
    };
    (field("PRETTY_NAME"), field("VERSION_ID"))
}

fn total_memory() -> i64 {
    let text = fs::read_to_string("/proc/meminfo").unwrap_or_default();
    let kib = text.lines().find_map(|l| {
        l.strip_prefix("MemTotal:")?
            .trim()
            .strip_suffix("kB")?
            .trim()
            .parse::<i64>()
            .ok()
    });
    kib.unwrap_or_default() * 1024
}

/// `GET /info`.
pub async fn info(engine: &Engine) -> Result<Reply> {
    let count = |wanted: &[Status]| {
        engine
            .containers
            .all()
            .iter()
            .filter(|c| wanted.contains(&c.status()))
            .count() as i64
    };
    let (operating_system, os_version) = operating_system();
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let all = engine.containers.all().len() as i64;
    let running = count(&[Status::Running, Status::Restarting]);
    let paused = count(&[Status::Paused]);
    respond::json(&Info {
        id: engine.settings.engine_id.clone(),
        containers: all,
        containers_running: running,
        containers_paused: paused,
        containers_stopped: all - running - paused,
        images: engine
            .images
            .list(&ImageQuery {
                all: true,
                ..ImageQuery::default()
            })
            .map_or(0, |i| i.len() as i64),
        driver: "overlay2".to_owned(),
        driver_status: vec![vec![
            "Backing Filesystem".to_owned(),
            "overlayfs layers".to_owned(),
        ]],
        plugins: Plugins {
            volume: vec!["local".to_owned()],
            network: ["bridge", "host", "none"].map(str::to_owned).to_vec(),
            authorization: None,
            log: crate::container::log_options::drivers()
                .map(str::to_owned)
                .collect(),
        },
        memory_limit: true,
        swap_limit: true,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: true,
        system_time: clock::now(),
        logging_driver: engine.settings.log.kind.clone(),
        cgroup_driver: "cgroupfs".to_owned(),
        cgroup_version: if v2 { "2" } else { "1" }.to_owned(),
        kernel_version: kernel(),
        operating_system,
        os_version,
        os_type: "linux".to_owned(),
        architecture: std::env::consts::ARCH.to_owned(),
        index_server_address: "https://index.docker.io/v1/".to_owned(),
        registry_config: json!({ "InsecureRegistryCIDRs": [], "IndexConfigs": {}, "Mirrors": [] }),
        ncpu: engine.settings.cpus as i64,
        mem_total: total_memory(),
        docker_root_dir: engine.settings.root.display().to_string(),
        name: nix::unistd::gethostname()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        server_version: VERSION.to_owned(),
        // The name that clients know, though containers are run by the engine itself.
        runtimes: [("runc".to_owned(), json!({ "path": "windlassd" }))].into(),
        default_runtime: "runc".to_owned(),
        swarm: json!({ "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null }),
        live_restore_enabled: true,
        security_options: if v2 {
            vec!["name=seccomp,profile=builtin", "name=cgroupns"]
        } else {
            vec!["name=seccomp,profile=builtin"]
        }
        .into_iter()
        .map(str::to_owned)
        .collect(),
        ..Info::default()
    })
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
    let (past, mut receiver) = engine.events.subscribe(events::Span { since, until });
    let (sender, body) = respond::channel();
    tokio::spawn(async move {
        for event in past.into_iter().filter(|e| events::matches(e, &filters)) {
            if !sender.send_json_line(&event).await {
                return;
            }
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
