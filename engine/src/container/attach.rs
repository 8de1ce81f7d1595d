//! Attaching to a container that runs, or that is about to.

use tokio::sync::oneshot;

use super::Engine;
use super::error::{Error, Result};
use super::parts::Attachment;
use super::record::Status;
use super::registry::Container;

/// An attachment now or at the start.
pub enum AttachTo {
    /// It runs.
    Now(Attachment),
    /// When it starts; the sender is dropped when it does not.
    Start(oneshot::Receiver<Attachment>),
}

impl Engine {
    /// Connects to the container's streams. Before the start it waits for it, so that no output is missed.
    pub async fn attach(&self, id: &str) -> Result<AttachTo> {
        let container = self.containers.find(id)?;
        let attached = self.attach_to(&container).await?;
        self.tell(&container, "attach");
        Ok(attached)
    }

    /// A client has let go of it by its detach keys.
    pub fn detached(&self, container: &Container) {
        self.tell(container, "detach");
    }

    async fn attach_to(&self, container: &Container) -> Result<AttachTo> {
        match container.status() {
            Status::Running => Ok(AttachTo::Now(self.runtime.attach(&container.id).await?)),
            Status::Paused => Err(Error::conflict(format!(
                "container {} is paused, unpause the container before attach",
                container.id
            ))),
            Status::Restarting => Err(Error::conflict(format!(
                "container {} is restarting, wait until the container is running",
                container.id
            ))),
            Status::Created | Status::Exited => {
                let (sender, receiver) = oneshot::channel();
                container.add_attacher(sender);
                Ok(AttachTo::Start(receiver))
            }
            Status::Removing | Status::Dead => Err(Error::conflict(format!(
                "container {} is being removed",
                container.id
            ))),
        }
    }

    /// Sets the size of the terminal.
    pub async fn resize(&self, id: &str, rows: u16, columns: u16) -> Result<()> {
        let container = self.containers.find(id)?;
        if !container.status().has_process() {
            return Err(Error::conflict(format!(
                "container {} is not running",
                container.id
            )));
        }
        self.runtime
            .resize(&container.id, None, rows, columns)
            .await?;
        let mut attributes = container.attributes();
        attributes.insert("height".to_owned(), rows.to_string());
        attributes.insert("width".to_owned(), columns.to_string());
        self.events
            .publish("container", "resize", &container.id, attributes);
        Ok(())
    }
}
