//! Events, and what the engine says about itself.

use bollard::query_parameters::EventsOptionsBuilder;
use futures_util::TryStreamExt as _;
use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::{Done, client, exit_code, remove, shell, start};

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn events_of_one_container_in_order() -> Done {
    let docker = client().await?;
    remove(&docker, "bollard-events").await;
    let now = || -> Result<u64, std::time::SystemTimeError> {
        Ok(SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs())
    };
    let begun = now()?;
    start(&docker, "bollard-events", shell("exit 3")).await?;
    exit_code(&docker, "bollard-events").await?;
    remove(&docker, "bollard-events").await;
    let filters = HashMap::from([
        ("container".to_owned(), vec!["bollard-events".to_owned()]),
        ("type".to_owned(), vec!["container".to_owned()]),
    ]);
    let options = EventsOptionsBuilder::new()
        .since(&begun.to_string())
        .until(&(now()? + 1).to_string())
        .filters(&filters)
        .build();
    let events: Vec<_> = docker.events(Some(options)).try_collect().await?;
    let mut actions: Vec<_> = events
        .iter()
        .filter_map(|event| event.action.as_deref())
        .collect();
    // A container of the same name that an earlier run left may have been removed within the second.
    if let Some(first) = actions.iter().position(|action| *action == "create") {
        actions.drain(..first);
    }
    assert_eq!(actions, ["create", "start", "die", "destroy"]);
    let died = events
        .iter()
        .rfind(|event| event.action.as_deref() == Some("die"))
        .and_then(|event| event.actor.clone())
        .and_then(|actor| actor.attributes)
        .ok_or("no attributes")?;
    assert_eq!(died.get("exitCode").map(String::as_str), Some("3"));
    assert_eq!(died.get("image").map(String::as_str), Some(super::IMAGE));
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn what_the_engine_says_of_itself() -> Done {
    let docker = client().await?;
    assert_eq!(docker.ping().await?, "OK");
    let version = docker.version().await?;
    assert!(
        version
            .api_version
            .is_some_and(|version| version.starts_with("1."))
    );
    let info = docker.info().await?;
    assert_eq!(info.os_type.as_deref(), Some("linux"));
    assert!(info.ncpu.is_some_and(|count| count > 0));
    let usage = docker.df(None).await?;
    assert!(
        usage.images.is_some_and(|images| !images.is_empty()),
        "the image of the tests is there"
    );
    Ok(())
}
