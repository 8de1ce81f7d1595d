//! Images.

use super::Client;
use super::stream::ProgressStream;
use super::transport::{RequestBody, Url, header};
use crate::auth::RegistryAuth;
use crate::error::Result;
use crate::filters::Filters;
use crate::types::*;

/// How to build.
#[derive(Debug, Clone, Default)]
pub struct BuildOptions {
    /// Names for the result.
    pub tags: Vec<String>,
    /// Path of the Dockerfile in the context; empty: `Dockerfile`.
    pub dockerfile: String,
    /// `--build-arg`.
    pub args: StringMap,
    /// Labels for the result.
    pub labels: StringMap,
    /// The last stage to build; empty: the last one there is.
    pub target: String,
    /// Ignore the layer cache.
    pub no_cache: bool,
    /// Pull the base image even if it is there.
    pub pull: bool,
}

impl Client {
    /// Pulls `reference` (`name[:tag|@digest]`). An unknown image is an error of this call, later failures of the stream.
    pub async fn pull_image(
        &self,
        reference: &str,
        auth: Option<&RegistryAuth>,
    ) -> Result<ProgressStream> {
        let headers = auth
            .map(|a| header("x-registry-auth", &a.to_header()))
            .unwrap_or_default();
        let url = Url::new(&["images", "create"]);
        let url = match split_tag(reference) {
            Some((name, tag)) => url.query("fromImage", name).query("tag", tag),
            None if reference.contains('@') => url.query("fromImage", reference),
            None => url.query("fromImage", reference).query("tag", "latest"),
        };
        Ok(ProgressStream::new(
            self.request_with("POST", &url.finish(), RequestBody::Empty, headers)
                .await?,
        ))
    }

    /// One image.
    pub async fn inspect_image(&self, reference: &str) -> Result<ImageInspect> {
        self.get_json(&Url::new(&["images", reference, "json"]).finish())
            .await
    }

    /// Which images there are.
    pub async fn list_images(&self, filters: &Filters) -> Result<Vec<ImageSummary>> {
        let mut url = Url::new(&["images", "json"]);
        if !filters.is_empty() {
            url = url.query("filters", filters.to_json());
        }
        self.get_json(&url.finish()).await
    }

    /// Loads an archive of `docker save` or an OCI layout.
    pub async fn load_image(&self, archive: RequestBody) -> Result<ProgressStream> {
        Ok(ProgressStream::new(
            self.request("POST", "/images/load?quiet=1", archive)
                .await?,
        ))
    }

    /// Removes a name, and the image with its last name.
    pub async fn remove_image(&self, reference: &str, force: bool) -> Result<Vec<ImageDeleted>> {
        self.json(
            "DELETE",
            &Url::new(&["images", reference])
                .flag("force", force)
                .finish(),
            RequestBody::Empty,
        )
        .await
    }

    /// Gives another name.
    pub async fn tag_image(&self, reference: &str, repository: &str, tag: &str) -> Result<()> {
        let url = Url::new(&["images", reference, "tag"])
            .query("repo", repository)
            .query("tag", tag)
            .finish();
        self.command("POST", &url, RequestBody::Empty)
            .await
            .map(drop)
    }

    /// Builds from a context archive.
    pub async fn build_image(
        &self,
        options: &BuildOptions,
        context: RequestBody,
    ) -> Result<ProgressStream> {
        let mut url = Url::new(&["build"])
            .query("rm", "1")
            .flag("nocache", options.no_cache)
            .flag("pull", options.pull);
        for tag in &options.tags {
            url = url.query("t", tag);
        }
        for (key, value) in [
            ("dockerfile", &options.dockerfile),
            ("target", &options.target),
        ] {
            url = url.optional(key, (!value.is_empty()).then_some(value));
        }
        for (key, map) in [("buildargs", &options.args), ("labels", &options.labels)] {
            if !map.is_empty() {
                url = url.query(key, serde_json::to_string(map).unwrap_or_default());
            }
        }
        Ok(ProgressStream::new(
            self.request("POST", &url.finish(), context).await?,
        ))
    }
}

/// `name:tag`; a colon before a slash is a port.
fn split_tag(reference: &str) -> Option<(&str, &str)> {
    let (name, tag) = reference.rsplit_once(':')?;
    (!tag.contains('/') && !name.contains('@')).then_some((name, tag))
}

#[cfg(test)]
mod tests {
    use super::split_tag;

    #[test]
    fn tags() {
        assert_eq!(split_tag("a:1"), Some(("a", "1")));
        assert_eq!(split_tag("h:5000/a"), None);
        assert_eq!(split_tag("h:5000/a:2"), Some(("h:5000/a", "2")));
        assert_eq!(split_tag("a@sha256:00"), None);
        assert_eq!(split_tag("a"), None);
    }
}
