//! Images: build, history, tag, save, load, removal.

use bollard::models::{ContainerConfig, HistoryResponseItem};
use bollard::query_parameters::{
    BuildImageOptionsBuilder, CommitContainerOptionsBuilder, ImportImageOptions,
    RemoveImageOptions, TagImageOptionsBuilder,
};
use futures_util::{StreamExt as _, TryStreamExt as _};

use super::{Done, Failure, client, create, exit_code, remove, shell, start, status};

/// A build context with this Dockerfile and one file.
fn context(dockerfile: &str) -> Result<bytes::Bytes, Failure> {
    let mut archive = tar::Builder::new(Vec::new());
    for (name, text) in [("Dockerfile", dockerfile), ("word", "hello\n")] {
        let mut header = tar::Header::new_gnu();
        header.set_size(text.len() as u64);
        header.set_mode(0o644);
        archive.append_data(&mut header, name, text.as_bytes())?;
    }
    Ok(archive.into_inner()?.into())
}

async fn build(dockerfile: &str, tag: &str) -> Result<(String, Option<String>), Failure> {
    let docker = client().await?;
    let options = BuildImageOptionsBuilder::new()
        .t(tag)
        .dockerfile("Dockerfile")
        .rm(true)
        .build();
    let mut said = String::new();
    let mut failure = None;
    let mut stream = std::pin::pin!(docker.build_image(
        options,
        None,
        Some(bollard::body_full(context(dockerfile)?)),
    ));
    while let Some(line) = stream.next().await {
        match line {
            Ok(line) => {
                said.push_str(&line.stream.unwrap_or_default());
                failure = failure.or(line.error);
            }
            Err(error) => failure = Some(error.to_string()),
        }
    }
    Ok((said, failure))
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn an_image_built_from_a_context() -> Done {
    let docker = client().await?;
    let dockerfile =
        "FROM box\nCOPY word /word\nENV A=b\nLABEL made=here\nCMD [\"cat\", \"/word\"]\n";
    let (said, failure) = build(dockerfile, "bollard/built:1").await?;
    assert_eq!(failure, None, "{said}");
    assert!(said.contains("Step 1/5 : FROM box"), "{said}");
    assert!(
        said.contains("Successfully tagged bollard/built:1"),
        "{said}"
    );
    let image = docker.inspect_image("bollard/built:1").await?;
    let config = image.config.ok_or("no config")?;
    assert!(config.env.unwrap_or_default().contains(&"A=b".to_owned()));
    assert_eq!(
        config
            .labels
            .unwrap_or_default()
            .get("made")
            .map(String::as_str),
        Some("here")
    );
    let history: Vec<HistoryResponseItem> = docker.image_history("bollard/built:1").await?;
    assert!(history[0].created_by.contains("CMD"), "{history:?}");
    let (again, _) = build(dockerfile, "bollard/built:2").await?;
    assert!(again.contains("Using cache"), "{again}");
    let second = docker.inspect_image("bollard/built:2").await?;
    assert_eq!(second.id, image.id);
    for tag in ["bollard/built:1", "bollard/built:2"] {
        docker
            .remove_image(tag, None::<RemoveImageOptions>, None)
            .await?;
    }
    let gone = docker.inspect_image("bollard/built:1").await.unwrap_err();
    assert_eq!(status(&gone), Some(404));
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn a_failing_step_says_its_exit_code() -> Done {
    let (said, failure) = build("FROM box\nRUN exit 9\n", "bollard/broken:1").await?;
    let failure = failure.ok_or(said)?;
    assert!(failure.contains("returned a non-zero code: 9"), "{failure}");
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn an_image_saved_removed_and_loaded() -> Done {
    let docker = client().await?;
    let tag = TagImageOptionsBuilder::new()
        .repo("bollard/saved")
        .tag("1")
        .build();
    docker.tag_image(super::IMAGE, Some(tag)).await?;
    let id = docker.inspect_image("bollard/saved:1").await?.id;
    let parts: Vec<bytes::Bytes> = docker.export_image("bollard/saved:1").try_collect().await?;
    docker
        .remove_image("bollard/saved:1", None::<RemoveImageOptions>, None)
        .await?;
    let loaded: Vec<_> = docker
        .import_image(
            ImportImageOptions::default(),
            bollard::body_full(parts.concat().into()),
            None,
        )
        .try_collect()
        .await?;
    assert!(
        loaded.iter().any(|line| line
            .stream
            .as_ref()
            .is_some_and(|text| text.contains("bollard/saved:1"))),
        "{loaded:?}"
    );
    assert_eq!(docker.inspect_image("bollard/saved:1").await?.id, id);
    docker
        .remove_image("bollard/saved:1", None::<RemoveImageOptions>, None)
        .await?;
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn a_container_committed() -> Done {
    let docker = client().await?;
    create(&docker, "bollard-commit", shell("echo new > /made")).await?;
    start(&docker, "bollard-commit", shell("echo new > /made")).await?;
    exit_code(&docker, "bollard-commit").await?;
    let options = CommitContainerOptionsBuilder::new()
        .container("bollard-commit")
        .repo("bollard/committed")
        .tag("1")
        .comment("by hand")
        .build();
    docker
        .commit_container(
            options,
            ContainerConfig {
                cmd: Some(vec!["cat".to_owned(), "/made".to_owned()]),
                ..Default::default()
            },
        )
        .await?;
    let image = docker.inspect_image("bollard/committed:1").await?;
    assert_eq!(image.comment.as_deref(), Some("by hand"));
    assert_eq!(
        image.config.and_then(|config| config.cmd),
        Some(vec!["cat".to_owned(), "/made".to_owned()])
    );
    remove(&docker, "bollard-commit").await;
    docker
        .remove_image("bollard/committed:1", None::<RemoveImageOptions>, None)
        .await?;
    Ok(())
}
