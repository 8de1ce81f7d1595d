//! Networks and volumes.

use bollard::models::{
    ContainerCreateBody, EndpointSettings, HostConfig, Ipam, IpamConfig, NetworkConnectRequest,
    NetworkCreateRequest, NetworkDisconnectRequest, VolumeCreateOptions,
};
use bollard::query_parameters::{
    InspectContainerOptions, InspectNetworkOptions, ListNetworksOptionsBuilder,
    ListVolumesOptionsBuilder, RemoveVolumeOptions,
};
use std::collections::HashMap;

use super::{Done, client, exit_code, remove, shell, start, status};

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn a_network_with_an_alias_and_an_address() -> Done {
    let docker = client().await?;
    let _ = docker.remove_network("bollard-net").await;
    docker
        .create_network(NetworkCreateRequest {
            name: "bollard-net".to_owned(),
            driver: Some("bridge".to_owned()),
            ipam: Some(Ipam {
                config: Some(vec![IpamConfig {
                    subnet: Some("10.213.7.0/24".to_owned()),
                    gateway: Some("10.213.7.1".to_owned()),
                    ..Default::default()
                }]),
                ..Default::default()
            }),
            labels: Some(HashMap::from([("bollard".to_owned(), "net".to_owned())])),
            ..Default::default()
        })
        .await?;
    start(&docker, "bollard-server", shell("sleep 600")).await?;
    let mut endpoint = EndpointSettings {
        aliases: Some(vec!["server".to_owned()]),
        ..Default::default()
    };
    endpoint.ipam_config = Some(bollard::models::EndpointIpamConfig {
        ipv4_address: Some("10.213.7.9".to_owned()),
        ..Default::default()
    });
    docker
        .connect_network(
            "bollard-net",
            NetworkConnectRequest {
                container: Some("bollard-server".to_owned()),
                endpoint_config: Some(endpoint),
            },
        )
        .await?;
    let body = ContainerCreateBody {
        host_config: Some(HostConfig {
            network_mode: Some("bollard-net".to_owned()),
            ..Default::default()
        }),
        ..shell("nslookup server && ping -c 1 -W 2 server")
    };
    start(&docker, "bollard-client", body).await?;
    assert_eq!(exit_code(&docker, "bollard-client").await?, 0);
    let network = docker
        .inspect_network("bollard-net", None::<InspectNetworkOptions>)
        .await?;
    let inside = network.containers.ok_or("no containers")?;
    assert!(
        inside
            .values()
            .any(|one| one.ipv4_address.as_deref() == Some("10.213.7.9/24")),
        "{inside:?}"
    );
    let busy = docker.remove_network("bollard-net").await.unwrap_err();
    assert_eq!(status(&busy), Some(403));
    docker
        .disconnect_network(
            "bollard-net",
            NetworkDisconnectRequest {
                container: Some("bollard-server".to_owned()),
                force: Some(true),
            },
        )
        .await?;
    let left = docker
        .inspect_container("bollard-server", None::<InspectContainerOptions>)
        .await?
        .network_settings
        .and_then(|settings| settings.networks)
        .ok_or("no networks")?;
    assert!(!left.contains_key("bollard-net"), "{left:?}");
    remove(&docker, "bollard-server").await;
    remove(&docker, "bollard-client").await;
    let filters = HashMap::from([("label".to_owned(), vec!["bollard=net".to_owned()])]);
    let options = ListNetworksOptionsBuilder::new().filters(&filters).build();
    assert_eq!(docker.list_networks(Some(options)).await?.len(), 1);
    docker.remove_network("bollard-net").await?;
    let gone = docker
        .inspect_network("bollard-net", None::<InspectNetworkOptions>)
        .await
        .unwrap_err();
    assert_eq!(status(&gone), Some(404));
    Ok(())
}

#[tokio::test]
#[ignore = "run by `cargo xtask conformance`"]
async fn a_volume_that_two_containers_share() -> Done {
    let docker = client().await?;
    let _ = docker
        .remove_volume("bollard-data", None::<RemoveVolumeOptions>)
        .await;
    let volume = docker
        .create_volume(VolumeCreateOptions {
            name: Some("bollard-data".to_owned()),
            labels: Some(HashMap::from([("bollard".to_owned(), "data".to_owned())])),
            ..Default::default()
        })
        .await?;
    assert_eq!(
        (&volume.name[..], &volume.driver[..]),
        ("bollard-data", "local")
    );
    let with_volume = |script: &str| ContainerCreateBody {
        host_config: Some(HostConfig {
            binds: Some(vec!["bollard-data:/data".to_owned()]),
            ..Default::default()
        }),
        ..shell(script)
    };
    start(
        &docker,
        "bollard-writer",
        with_volume("echo kept > /data/x"),
    )
    .await?;
    assert_eq!(exit_code(&docker, "bollard-writer").await?, 0);
    start(&docker, "bollard-reader", with_volume("grep kept /data/x")).await?;
    assert_eq!(exit_code(&docker, "bollard-reader").await?, 0);
    let busy = docker
        .remove_volume("bollard-data", None::<RemoveVolumeOptions>)
        .await
        .unwrap_err();
    assert_eq!(status(&busy), Some(409));
    remove(&docker, "bollard-writer").await;
    remove(&docker, "bollard-reader").await;
    let filters = HashMap::from([("label".to_owned(), vec!["bollard=data".to_owned()])]);
    let listed = docker
        .list_volumes(Some(
            ListVolumesOptionsBuilder::new().filters(&filters).build(),
        ))
        .await?;
    assert_eq!(listed.volumes.unwrap_or_default().len(), 1);
    docker
        .remove_volume("bollard-data", None::<RemoveVolumeOptions>)
        .await?;
    Ok(())
}
