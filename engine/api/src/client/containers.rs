//! Containers.

use std::time::Duration;

use super::Client;
use super::stream::LogStream;
use super::transport::{RequestBody, Url};
use crate::error::Result;
use crate::filters::Filters;
use crate::types::*;

/// Which containers.
#[derive(Debug, Clone, Default)]
pub struct ListContainers {
    /// Stopped ones too.
    pub all: bool,
    /// Labels, names, states, ….
    pub filters: Filters,
}

/// How to remove.
#[derive(Debug, Clone, Copy, Default)]
pub struct RemoveContainer {
    /// Kill it first if it runs.
    pub force: bool,
    /// Its anonymous volumes too.
    pub volumes: bool,
}

/// Which output.
#[derive(Debug, Clone, Default)]
pub struct LogOptions {
    /// Go on until the container ends.
    pub follow: bool,
    /// Each line begins with its time.
    pub timestamps: bool,
    /// The last lines only.
    pub tail: Option<u64>,
    /// Unix seconds, or RFC 3339.
    pub since: Option<String>,
}

/// What to wait for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WaitCondition {
    /// It does not run now.
    NotRunning,
    /// It ends after this call.
    NextExit,
    /// It is removed.
    Removed,
}

impl WaitCondition {
    fn as_str(self) -> &'static str {
        match self {
            Self::NotRunning => "not-running",
            Self::NextExit => "next-exit",
            Self::Removed => "removed",
        }
    }
}

impl Client {
    /// Creates; the image must be there (see [`Client::pull_image`]).
    pub async fn create_container(
        &self,
        name: Option<&str>,
        spec: &CreateContainer,
    ) -> Result<CreatedContainer> {
        let url = Url::new(&["containers", "create"])
            .optional("name", name)
            .finish();
        self.json("POST", &url, RequestBody::json(spec)?).await
    }

    /// Starts; already started is success.
    pub async fn start_container(&self, id: &str) -> Result<()> {
        self.command(
            "POST",
            &Url::new(&["containers", id, "start"]).finish(),
            RequestBody::Empty,
        )
        .await
        .map(drop)
    }

    /// Sends the stop signal, and SIGKILL after `timeout` (the container's own, else 10 s); already stopped is success.
    pub async fn stop_container(&self, id: &str, timeout: Option<Duration>) -> Result<()> {
        let url = Url::new(&["containers", id, "stop"])
            .optional("t", timeout.map(|t| t.as_secs().to_string()))
            .finish();
        self.command("POST", &url, RequestBody::Empty)
            .await
            .map(drop)
    }

    /// Stops and starts.
    pub async fn restart_container(&self, id: &str, timeout: Option<Duration>) -> Result<()> {
        let url = Url::new(&["containers", id, "restart"])
            .optional("t", timeout.map(|t| t.as_secs().to_string()))
            .finish();
        self.command("POST", &url, RequestBody::Empty)
            .await
            .map(drop)
    }

    /// Sends a signal (`SIGTERM`, `9`).
    pub async fn kill_container(&self, id: &str, signal: &str) -> Result<()> {
        let url = Url::new(&["containers", id, "kill"])
            .query("signal", signal)
            .finish();
        self.command("POST", &url, RequestBody::Empty)
            .await
            .map(drop)
    }

    /// Freezes all its processes.
    pub async fn pause_container(&self, id: &str) -> Result<()> {
        self.command(
            "POST",
            &Url::new(&["containers", id, "pause"]).finish(),
            RequestBody::Empty,
        )
        .await
        .map(drop)
    }

    /// Lets them go on.
    pub async fn unpause_container(&self, id: &str) -> Result<()> {
        self.command(
            "POST",
            &Url::new(&["containers", id, "unpause"]).finish(),
            RequestBody::Empty,
        )
        .await
        .map(drop)
    }

    /// Gives another name.
    pub async fn rename_container(&self, id: &str, name: &str) -> Result<()> {
        let url = Url::new(&["containers", id, "rename"])
            .query("name", name)
            .finish();
        self.command("POST", &url, RequestBody::Empty)
            .await
            .map(drop)
    }

    /// Removes.
    pub async fn remove_container(&self, id: &str, how: RemoveContainer) -> Result<()> {
        let url = Url::new(&["containers", id])
            .flag("force", how.force)
            .flag("v", how.volumes)
            .finish();
        self.command("DELETE", &url, RequestBody::Empty)
            .await
            .map(drop)
    }

    /// Everything about it.
    pub async fn inspect_container(&self, id: &str) -> Result<ContainerInspect> {
        self.get_json(&Url::new(&["containers", id, "json"]).finish())
            .await
    }

    /// Which containers there are.
    pub async fn list_containers(&self, which: &ListContainers) -> Result<Vec<ContainerSummary>> {
        let mut url = Url::new(&["containers", "json"]).flag("all", which.all);
        if !which.filters.is_empty() {
            url = url.query("filters", which.filters.to_json());
        }
        self.get_json(&url.finish()).await
    }

    /// Its output so far, and as it comes with `follow`. One call more finds out whether it has a terminal.
    pub async fn logs(&self, id: &str, options: &LogOptions) -> Result<LogStream> {
        let tty = self.inspect_container(id).await?.config.tty;
        let url = Url::new(&["containers", id, "logs"])
            .query("stdout", "1")
            .query("stderr", "1")
            .flag("follow", options.follow)
            .flag("timestamps", options.timestamps)
            .optional("tail", options.tail.map(|n| n.to_string()))
            .optional("since", options.since.as_ref());
        let response = self
            .request("GET", &url.finish(), RequestBody::Empty)
            .await?;
        Ok(LogStream::new(response, tty))
    }

    /// Waits for its end; the answer is its exit code.
    pub async fn wait_container(&self, id: &str, condition: WaitCondition) -> Result<WaitResult> {
        let url = Url::new(&["containers", id, "wait"])
            .query("condition", condition.as_str())
            .finish();
        self.json("POST", &url, RequestBody::Empty).await
    }

    /// One sample of its resource usage; takes a second or two, since the processor share needs two readings.
    pub async fn stats(&self, id: &str) -> Result<Stats> {
        self.get_json(
            &Url::new(&["containers", id, "stats"])
                .query("stream", "0")
                .finish(),
        )
        .await
    }

    /// One reading at once, without a former one; the caller computes the processor share itself.
    pub async fn stats_one_shot(&self, id: &str) -> Result<Stats> {
        self.get_json(
            &Url::new(&["containers", id, "stats"])
                .query("stream", "0")
                .query("one-shot", "1")
                .finish(),
        )
        .await
    }

    /// Its processes.
    pub async fn top(&self, id: &str) -> Result<Top> {
        self.get_json(&Url::new(&["containers", id, "top"]).finish())
            .await
    }

    /// Unpacks an archive into a directory of the container.
    pub async fn put_archive(&self, id: &str, directory: &str, archive: RequestBody) -> Result<()> {
        let url = Url::new(&["containers", id, "archive"])
            .query("path", directory)
            .finish();
        self.command("PUT", &url, archive).await.map(drop)
    }
}
