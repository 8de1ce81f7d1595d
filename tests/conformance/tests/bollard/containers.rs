//! Containers from creation to removal, their files and their figures.

use bollard::models::{ContainerStateStatusEnum, ContainerUpdateBody, RestartPolicy};
use bollard::query_parameters::{
    DownloadFromContainerOptionsBuilder, InspectContainerOptions, KillContainerOptionsBuilder,
    ListContainersOptionsBuilder, RenameContainerOptionsBuilder, StartContainerOptions,
    StatsOptionsBuilder, StopContainerOptionsBuilder, TopOptions, UploadToContainerOptionsBuilder,
};
use futures_util::TryStreamExt as _;
use std::collections::HashMap;
use std::io::Read as _;

use super::{Done, client, create, exit_code, remove, shell, start, status};

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn a_container_from_creation_to_removal() -> Done {
    let docker = client().await?;
    let id = create(&docker, "bollard-life", shell("exit 7")).await?;
    let created = docker
        .inspect_container("bollard-life", None::<InspectContainerOptions>)
        .await?;
    assert_eq!(created.id.as_deref(), Some(id.as_str()));
    assert_eq!(created.name.as_deref(), Some("/bollard-life"));
    let state = created.state.ok_or("no state")?;
    assert_eq!(state.status, Some(ContainerStateStatusEnum::CREATED));
    docker
        .start_container("bollard-life", None::<StartContainerOptions>)
        .await?;
    assert_eq!(exit_code(&docker, "bollard-life").await?, 7);
    let ended = docker
        .inspect_container("bollard-life", None::<InspectContainerOptions>)
        .await?
        .state
        .ok_or("no state")?;
    assert_eq!(ended.status, Some(ContainerStateStatusEnum::EXITED));
    assert_eq!(ended.exit_code, Some(7));
    remove(&docker, "bollard-life").await;
    let gone = docker
        .inspect_container("bollard-life", None::<InspectContainerOptions>)
        .await
        .unwrap_err();
    assert_eq!(status(&gone), Some(404));
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn listing_by_label_and_state() -> Done {
    let docker = client().await?;
    let mut body = shell("sleep 600");
    body.labels = Some(HashMap::from([("bollard".to_owned(), "list".to_owned())]));
    start(&docker, "bollard-list", body).await?;
    let filters = HashMap::from([
        ("label".to_owned(), vec!["bollard=list".to_owned()]),
        ("status".to_owned(), vec!["running".to_owned()]),
    ]);
    let options = ListContainersOptionsBuilder::new()
        .all(true)
        .size(true)
        .filters(&filters)
        .build();
    let listed = docker.list_containers(Some(options)).await?;
    assert_eq!(listed.len(), 1);
    assert_eq!(
        listed[0].names.as_deref(),
        Some(&["/bollard-list".to_owned()][..])
    );
    assert!(listed[0].size_root_fs.is_some_and(|size| size > 100_000));
    remove(&docker, "bollard-list").await;
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn stop_kill_pause_and_rename() -> Done {
    let docker = client().await?;
    start(&docker, "bollard-stop", shell("sleep 600")).await?;
    docker.pause_container("bollard-stop").await?;
    let paused = docker
        .inspect_container("bollard-stop", None::<InspectContainerOptions>)
        .await?;
    assert_eq!(paused.state.and_then(|state| state.paused), Some(true));
    docker.unpause_container("bollard-stop").await?;
    remove(&docker, "bollard-moved").await;
    docker
        .rename_container(
            "bollard-stop",
            RenameContainerOptionsBuilder::new()
                .name("bollard-moved")
                .build(),
        )
        .await?;
    docker
        .stop_container(
            "bollard-moved",
            Some(StopContainerOptionsBuilder::new().t(1).build()),
        )
        .await?;
    assert_eq!(exit_code(&docker, "bollard-moved").await?, 143);
    docker
        .start_container("bollard-moved", None::<StartContainerOptions>)
        .await?;
    docker
        .kill_container(
            "bollard-moved",
            Some(KillContainerOptionsBuilder::new().signal("KILL").build()),
        )
        .await?;
    assert_eq!(exit_code(&docker, "bollard-moved").await?, 137);
    let not_running = docker
        .kill_container(
            "bollard-moved",
            Some(KillContainerOptionsBuilder::new().signal("KILL").build()),
        )
        .await
        .unwrap_err();
    assert_eq!(status(&not_running), Some(409));
    remove(&docker, "bollard-moved").await;
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn figures_and_processes() -> Done {
    let docker = client().await?;
    start(&docker, "bollard-stats", shell("sleep 61; true")).await?;
    let options = StatsOptionsBuilder::new().stream(false).build();
    let stats: Vec<_> = docker
        .stats("bollard-stats", Some(options))
        .try_collect()
        .await?;
    assert_eq!(stats.len(), 1);
    let memory = stats[0].memory_stats.as_ref().ok_or("no memory")?;
    assert!(memory.usage.is_some_and(|bytes| bytes > 0));
    assert!(
        stats[0]
            .pids_stats
            .as_ref()
            .and_then(|pids| pids.current)
            .is_some_and(|count| count >= 2)
    );
    let top = docker
        .top_processes("bollard-stats", None::<TopOptions>)
        .await?;
    let titles = top.titles.ok_or("no titles")?;
    assert!(titles.iter().any(|title| title == "PID"), "{titles:?}");
    let processes = top.processes.ok_or("no processes")?;
    assert!(
        processes
            .iter()
            .any(|process| process.iter().any(|word| word.contains("sleep 61"))),
        "{processes:?}"
    );
    remove(&docker, "bollard-stats").await;
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn files_in_and_out_of_a_stopped_container() -> Done {
    let docker = client().await?;
    create(&docker, "bollard-files", shell("cat /kept/word")).await?;
    let mut archive = tar::Builder::new(Vec::new());
    let mut header = tar::Header::new_gnu();
    header.set_size(6);
    header.set_mode(0o640);
    header.set_mtime(1_577_836_800);
    archive.append_data(&mut header, "kept/word", &b"hello\n"[..])?;
    docker
        .upload_to_container(
            "bollard-files",
            Some(UploadToContainerOptionsBuilder::new().path("/").build()),
            bollard::body_full(archive.into_inner()?.into()),
        )
        .await?;
    let options = DownloadFromContainerOptionsBuilder::new()
        .path("/kept")
        .build();
    let parts: Vec<bytes::Bytes> = docker
        .download_from_container("bollard-files", Some(options))
        .try_collect()
        .await?;
    let bytes = parts.concat();
    let mut found = None;
    for entry in tar::Archive::new(&bytes[..]).entries()? {
        let mut entry = entry?;
        if entry.path()?.ends_with("kept/word") {
            let mut text = String::new();
            entry.read_to_string(&mut text)?;
            found = Some((text, entry.header().mode()? & 0o777));
        }
    }
    assert_eq!(found, Some(("hello\n".to_owned(), 0o640)));
    let changes = docker
        .container_changes("bollard-files")
        .await?
        .ok_or("no changes")?;
    assert!(changes.iter().any(|change| change.path == "/kept/word"));
    remove(&docker, "bollard-files").await;
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn limits_changed_while_it_runs() -> Done {
    let docker = client().await?;
    start(&docker, "bollard-update", shell("sleep 600")).await?;
    let body = ContainerUpdateBody {
        memory: Some(64 << 20),
        memory_swap: Some(128 << 20),
        restart_policy: Some(RestartPolicy {
            name: Some(bollard::models::RestartPolicyNameEnum::UNLESS_STOPPED),
            maximum_retry_count: None,
        }),
        ..Default::default()
    };
    docker.update_container("bollard-update", body).await?;
    let host = docker
        .inspect_container("bollard-update", None::<InspectContainerOptions>)
        .await?
        .host_config
        .ok_or("no host config")?;
    assert_eq!(host.memory, Some(64 << 20));
    assert_eq!(
        host.restart_policy.and_then(|policy| policy.name),
        Some(bollard::models::RestartPolicyNameEnum::UNLESS_STOPPED)
    );
    remove(&docker, "bollard-update").await;
    Ok(())
}
