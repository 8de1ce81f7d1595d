//! `GET /info`: the engine, its host, and what is in it.

use std::path::Path;

use fs_err as fs;
use serde_json::json;
use windlass_engine_api::types::{Info, Plugins};

use super::respond::{self, Reply};
use super::system::{VERSION, kernel};
use crate::container::error::Result;
use crate::container::parts::ImageQuery;
use crate::container::record::Status;
use crate::container::{Engine, clock, log_options};

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

fn is_on(setting: &str) -> bool {
    std::fs::read_to_string(format!("/proc/sys/net/{setting}")).is_ok_and(|v| v.trim() == "1")
}

/// The name by which Docker knows the file system below a folder.
fn file_system(folder: &Path) -> String {
    let kind = nix::sys::statfs::statfs(folder).map(|s| s.filesystem_type().0);
    match kind {
        Ok(0xef53) => "extfs".to_owned(),
        Ok(0x5846_5342) => "xfs".to_owned(),
        Ok(0x9123_683e) => "btrfs".to_owned(),
        Ok(0x0102_1994) => "tmpfs".to_owned(),
        Ok(0x2fc1_2fc1) => "zfs".to_owned(),
        Ok(0xf2f5_2010) => "f2fs".to_owned(),
        _ => "<unknown>".to_owned(),
    }
}

fn in_folder(folder: &str) -> i64 {
    std::fs::read_dir(folder).map_or(0, |entries| entries.count() as i64)
}

/// The variable, in capitals or not, without a password.
fn proxy(name: &str) -> String {
    let value = std::env::var(name)
        .or_else(|_| std::env::var(name.to_ascii_lowercase()))
        .unwrap_or_default();
    match (value.split_once("://"), value.rsplit_once('@')) {
        (Some((scheme, _)), Some((_, host))) => format!("{scheme}://xxxxx:xxxxx@{host}"),
        _ => value,
    }
}

/// Counts of containers: running, paused, stopped.
fn counts(engine: &Engine) -> (i64, i64, i64) {
    let mut counts = (0, 0, 0);
    for container in engine.containers.all() {
        match container.status() {
            Status::Running | Status::Restarting => counts.0 += 1,
            Status::Paused => counts.1 += 1,
            _ => counts.2 += 1,
        }
    }
    counts
}

fn security(v2: bool, remapped: bool) -> Vec<String> {
    let mut options = vec!["name=seccomp,profile=builtin".to_owned()];
    let apparmor = std::fs::read("/sys/module/apparmor/parameters/enabled");
    if apparmor.is_ok_and(|on| on.starts_with(b"Y")) {
        options.insert(0, "name=apparmor".to_owned());
    }
    if remapped {
        options.push("name=userns".to_owned());
    }
    if v2 {
        options.push("name=cgroupns".to_owned());
    }
    options
}

fn registries(engine: &Engine) -> serde_json::Value {
    let settings = engine.settings.config.registries();
    let mut indexes = serde_json::Map::new();
    indexes.insert(
        "docker.io".to_owned(),
        json!({ "Name": "docker.io", "Mirrors": settings.registry_mirrors, "Secure": true, "Official": true }),
    );
    let mut networks = vec!["::1/128".to_owned(), "127.0.0.0/8".to_owned()];
    for registry in &settings.insecure_registries {
        if registry.contains('/') {
            networks.push(registry.clone());
        } else {
            let index =
                json!({ "Name": registry, "Mirrors": [], "Secure": false, "Official": false });
            indexes.insert(registry.clone(), index);
        }
    }
    json!({
        "AllowNondistributableArtifactsCIDRs": [],
        "AllowNondistributableArtifactsHostnames": [],
        "InsecureRegistryCIDRs": networks,
        "IndexConfigs": indexes,
        "Mirrors": settings.registry_mirrors,
    })
}

/// `GET /info`.
pub async fn info(engine: &Engine) -> Result<Reply> {
    let (operating_system, os_version) = operating_system();
    let v2 = Path::new("/sys/fs/cgroup/cgroup.controllers").exists();
    let (running, paused, stopped) = counts(engine);
    let config = &engine.settings.config;
    let images = engine.images.list(&ImageQuery {
        all: true,
        ..ImageQuery::default()
    });
    let info = Info {
        id: engine.settings.engine_id.clone(),
        containers: running + paused + stopped,
        containers_running: running,
        containers_paused: paused,
        containers_stopped: stopped,
        images: images.map_or(0, |i| i.len() as i64),
        driver: "overlay2".to_owned(),
        driver_status: [
            (
                "Backing Filesystem",
                file_system(&engine.settings.root).as_str(),
            ),
            ("Supports d_type", "true"),
            ("Using metacopy", "false"),
            ("Native Overlay Diff", "true"),
            ("userxattr", "false"),
        ]
        .map(|(name, value)| vec![name.to_owned(), value.to_owned()])
        .to_vec(),
        plugins: Plugins {
            volume: vec!["local".to_owned()],
            network: ["bridge", "host", "null"].map(str::to_owned).to_vec(),
            authorization: None,
            log: log_options::drivers().map(str::to_owned).collect(),
        },
        memory_limit: true,
        swap_limit: true,
        cpu_cfs_period: true,
        cpu_cfs_quota: true,
        cpu_shares: true,
        cpu_set: true,
        pids_limit: true,
        ipv4_forwarding: is_on("ipv4/ip_forward"),
        n_fd: in_folder("/proc/self/fd"),
        n_goroutines: in_folder("/proc/self/task"),
        n_events_listener: engine.events.listeners(),
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
        registry_config: registries(engine),
        ncpu: engine.settings.cpus as i64,
        mem_total: total_memory(),
        docker_root_dir: engine.settings.root.display().to_string(),
        http_proxy: proxy("HTTP_PROXY"),
        https_proxy: proxy("HTTPS_PROXY"),
        no_proxy: proxy("NO_PROXY"),
        name: nix::unistd::gethostname()
            .map(|n| n.to_string_lossy().into_owned())
            .unwrap_or_default(),
        labels: config.labels.clone(),
        server_version: VERSION.to_owned(),
        runtimes: ["runc", "io.containerd.runc.v2"]
            .map(|name| (name.to_owned(), json!({ "path": "windlassd" })))
            .into(),
        default_runtime: "runc".to_owned(),
        swarm: json!({ "NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": null }),
        live_restore_enabled: true,
        init_binary: "docker-init".to_owned(),
        security_options: security(v2, engine.remap.is_some()),
        ..Info::default()
    };
    let mut answer =
        serde_json::to_value(info).map_err(crate::container::error::Error::internal)?;
    more(&mut answer, v2);
    respond::json(&answer)
}

/// What only some clients look at.
fn more(answer: &mut serde_json::Value, v2: bool) {
    let commit = json!({ "ID": VERSION, "Expected": VERSION });
    for (key, value) in [
        ("OomKillDisable", json!(!v2)),
        (
            "BridgeNfIptables",
            json!(is_on("bridge/bridge-nf-call-iptables")),
        ),
        (
            "BridgeNfIp6tables",
            json!(is_on("bridge/bridge-nf-call-ip6tables")),
        ),
        ("GenericResources", json!(null)),
        ("ContainerdCommit", commit.clone()),
        ("RuncCommit", commit.clone()),
        ("InitCommit", commit),
        ("ProductLicense", json!("")),
        ("CDISpecDirs", json!([])),
        ("DefaultAddressPools", json!([])),
        ("FirewallBackend", json!({ "Driver": "nftables" })),
    ] {
        answer[key] = value;
    }
}
