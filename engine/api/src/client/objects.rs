//! Volumes, networks, events.

use super::Client;
use super::stream::EventStream;
use super::transport::{RequestBody, Url};
use crate::error::Result;
use crate::filters::Filters;
use crate::types::*;

impl Client {
    /// Creates a volume; an existing one of this name is success.
    pub async fn create_volume(&self, volume: &CreateVolume) -> Result<Volume> {
        self.json("POST", "/volumes/create", RequestBody::json(volume)?)
            .await
    }

    /// One volume.
    pub async fn inspect_volume(&self, name: &str) -> Result<Volume> {
        self.get_json(&Url::new(&["volumes", name]).finish()).await
    }

    /// Which volumes there are.
    pub async fn list_volumes(&self, filters: &Filters) -> Result<Vec<Volume>> {
        let url = Url::new(&["volumes"])
            .query("filters", filters.to_json())
            .finish();
        Ok(self.get_json::<VolumeList>(&url).await?.volumes)
    }

    /// Removes a volume that no container uses.
    pub async fn remove_volume(&self, name: &str) -> Result<()> {
        self.command(
            "DELETE",
            &Url::new(&["volumes", name]).finish(),
            RequestBody::Empty,
        )
        .await
        .map(drop)
    }

    /// Creates a network.
    pub async fn create_network(&self, network: &CreateNetwork) -> Result<CreatedNetwork> {
        self.json("POST", "/networks/create", RequestBody::json(network)?)
            .await
    }

    /// One network.
    pub async fn inspect_network(&self, name: &str) -> Result<NetworkInspect> {
        self.get_json(&Url::new(&["networks", name]).finish()).await
    }

    /// Which networks there are.
    pub async fn list_networks(&self, filters: &Filters) -> Result<Vec<NetworkInspect>> {
        self.get_json(
            &Url::new(&["networks"])
                .query("filters", filters.to_json())
                .finish(),
        )
        .await
    }

    /// Removes a network without containers.
    pub async fn remove_network(&self, name: &str) -> Result<()> {
        self.command(
            "DELETE",
            &Url::new(&["networks", name]).finish(),
            RequestBody::Empty,
        )
        .await
        .map(drop)
    }

    /// Events from now on.
    pub async fn events(&self, filters: &Filters) -> Result<EventStream> {
        let url = Url::new(&["events"])
            .query("filters", filters.to_json())
            .finish();
        Ok(EventStream::new(
            self.request("GET", &url, RequestBody::Empty).await?,
        ))
    }
}
