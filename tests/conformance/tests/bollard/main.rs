//! bollard as a client of the engine that `DOCKER_HOST` names, which has the image `box:latest`: a static busybox.
//!
//! `cargo xtask conformance` starts the engines and runs these; by themselves they are left out.

mod building;
mod containers;
mod executing;
mod networks;
mod watching;

use bollard::Docker;
use bollard::models::{ContainerCreateBody, HostConfig};
use bollard::query_parameters::{
    CreateContainerOptionsBuilder, RemoveContainerOptionsBuilder, StartContainerOptions,
    WaitContainerOptions,
};
use futures_util::TryStreamExt as _;

type Failure = Box<dyn std::error::Error + Send + Sync>;
type Done = Result<(), Failure>;

const IMAGE: &str = "box:latest";

/// A client that has agreed on a version with the engine.
async fn client() -> Result<Docker, Failure> {
    Ok(Docker::connect_with_unix_defaults()?
        .negotiate_version()
        .await?)
}

/// What runs `script` in a shell.
fn shell(script: &str) -> ContainerCreateBody {
    ContainerCreateBody {
        image: Some(IMAGE.to_owned()),
        cmd: Some(["sh", "-c", script].map(str::to_owned).to_vec()),
        host_config: Some(HostConfig {
            init: Some(true),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// Creates a container named `name` after removing what an earlier run left.
async fn create(docker: &Docker, name: &str, body: ContainerCreateBody) -> Result<String, Failure> {
    remove(docker, name).await;
    let options = CreateContainerOptionsBuilder::new().name(name).build();
    Ok(docker.create_container(Some(options), body).await?.id)
}

/// Creates and starts one.
async fn start(docker: &Docker, name: &str, body: ContainerCreateBody) -> Result<String, Failure> {
    let id = create(docker, name, body).await?;
    docker
        .start_container(name, None::<StartContainerOptions>)
        .await?;
    Ok(id)
}

/// Removes it, running or not, or nothing.
async fn remove(docker: &Docker, name: &str) {
    let options = RemoveContainerOptionsBuilder::new()
        .force(true)
        .v(true)
        .build();
    let _ = docker.remove_container(name, Some(options)).await;
}

/// The exit code, once there is one; bollard makes an error of all but 0.
async fn exit_code(docker: &Docker, name: &str) -> Result<i64, Failure> {
    let ended: Result<Vec<_>, _> = docker
        .wait_container(name, None::<WaitContainerOptions>)
        .try_collect()
        .await;
    match ended {
        Ok(answers) => Ok(answers.first().ok_or("no answer")?.status_code),
        Err(bollard::errors::Error::DockerContainerWaitError { code, .. }) => Ok(code),
        Err(error) => Err(error.into()),
    }
}

/// The status that an error of the engine came with.
fn status(error: &bollard::errors::Error) -> Option<u16> {
    match error {
        bollard::errors::Error::DockerResponseServerError { status_code, .. } => Some(*status_code),
        _ => None,
    }
}
