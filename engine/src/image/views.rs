//! What `docker inspect` and `docker history` say of an image.
//!
//! Deliberately absent: what older clients expect in other words, which is the API's business.

use serde_json::{Value, json};
use windlass_engine_api::types::HistoryItem;

use super::listing::seconds;
use super::{Image, ImageStore, Result};
use crate::container::clock::NEVER;

impl ImageStore {
    /// Everything about an image.
    pub(super) fn inspected(&self, image: &Image) -> Result<Value> {
        let raw: Value =
            serde_json::from_slice(&self.config_bytes(&image.id)?).map_err(std::io::Error::from)?;
        let config = &image.config;
        let last = config.history.last();
        let comment = config.comment.clone().filter(|text| !text.is_empty());
        let comment = comment.or_else(|| last?.comment.clone());
        let mut answer = json!({
            "Id": image.id,
            "RepoTags": image.repo_tags,
            "RepoDigests": image.repo_digests,
            "Parent": image.meta.parent.clone().unwrap_or_default(),
            "Comment": comment.unwrap_or_default(),
            "DockerVersion": config.docker_version.clone().unwrap_or_default(),
            "Author": config.author.clone().unwrap_or_default(),
            "Config": with_docker_fields(&raw["config"]),
            "Architecture": config.architecture,
            "Os": config.os,
            "Size": image.size,
            "GraphDriver": { "Name": "overlay2", "Data": self.folders(image) },
            "RootFS": { "Type": "layers", "Layers": config.rootfs.diff_ids },
            "Metadata": { "LastTagTime": image.meta.last_tagged.as_deref().unwrap_or(NEVER) },
            // Meant for older clients; what newer ones are told is the API's matter.
            "Container": raw["container"].as_str().unwrap_or_default(),
            "ContainerConfig": raw["container_config"],
        });
        let mut add = |key: &str, value: Option<&str>| {
            if let Some(text) = value.filter(|text| !text.is_empty()) {
                answer[key] = json!(text);
            }
        };
        add("Created", config.created.as_deref());
        add("Variant", config.variant.as_deref());
        add("OsVersion", raw["os.version"].as_str());
        Ok(answer)
    }

    fn folders(&self, image: &Image) -> Value {
        let folders: Vec<String> = self
            .layer_dirs(image)
            .iter()
            .map(|folder| folder.display().to_string())
            .collect();
        let Some((top, below)) = folders.split_first() else {
            return json!({});
        };
        let beside = |name: &str| top.strip_suffix("diff").unwrap_or(top).to_owned() + name;
        let mut data = json!({
            "UpperDir": top, "MergedDir": beside("merged"), "WorkDir": beside("work"),
        });
        if !below.is_empty() {
            data["LowerDir"] = json!(below.join(":"));
        }
        data
    }

    /// The steps, newest first. Those that are images of their own here have their ids.
    pub(super) fn steps(&self, image: &Image) -> Vec<HistoryItem> {
        let mut layers = image.config.rootfs.diff_ids.iter();
        let mut items = Vec::new();
        for entry in &image.config.history {
            let layer = (entry.empty_layer != Some(true)).then(|| layers.next());
            let size = layer.flatten().and_then(|id| self.layers().info(id).ok());
            items.push(HistoryItem {
                id: "<missing>".into(),
                created: seconds(entry.created.as_deref()),
                created_by: entry.created_by.clone().unwrap_or_default(),
                comment: entry.comment.clone().unwrap_or_default(),
                size: size.map_or(0, |info| i64::try_from(info.size).unwrap_or(i64::MAX)),
                tags: None,
            });
        }
        items.reverse();
        let mut step = Some(image.clone());
        for item in &mut items {
            let Some(image) = step else { break };
            item.id = image.id;
            item.tags = (!image.repo_tags.is_empty()).then_some(image.repo_tags);
            step = image.meta.parent.and_then(|id| self.image(&id).ok());
        }
        items
    }
}

/// The fields that Docker always has in an image's configuration.
fn with_docker_fields(config: &Value) -> Value {
    let mut config = config.as_object().cloned().unwrap_or_default();
    for key in ["Cmd", "Entrypoint", "Env", "Labels", "OnBuild", "Volumes"] {
        config.entry(key).or_insert(Value::Null);
    }
    for key in ["User", "WorkingDir"] {
        config.entry(key).or_insert_with(|| json!(""));
    }
    Value::Object(config)
}

#[cfg(test)]
mod tests {
    use super::super::ImageMeta;
    use super::super::store::tests::store_with_image;
    use super::*;

    #[test]
    fn steps_made_here_have_their_ids() {
        let (_root, store, base) = store_with_image();
        let layer = store.list().unwrap()[0].config.rootfs.diff_ids[0].clone();
        let config = format!(
            r#"{{"os":"linux","config":null,"docker_version":"1","rootfs":{{"type":"layers","diff_ids":["{layer}"]}},
            "history":[{{"created_by":"a"}},{{"created_by":"b","comment":"done","empty_layer":true}}]}}"#
        );
        let meta = ImageMeta {
            parent: Some(base.clone()),
            ..ImageMeta::default()
        };
        let id = store.add(config.as_bytes(), &meta).unwrap();
        let image = store.resolve(&id).unwrap();
        let steps: Vec<_> = store
            .steps(&image)
            .into_iter()
            .map(|step| (step.id, step.created_by, step.size))
            .collect();
        assert_eq!(steps, [(id, "b".into(), 0), (base.clone(), "a".into(), 7)]);
        let inspected = store.inspected(&image).unwrap();
        assert_eq!(
            (
                &inspected["Comment"],
                &inspected["Parent"],
                &inspected["DockerVersion"]
            ),
            (&json!("done"), &json!(base), &json!("1"))
        );
        assert_eq!(inspected["Config"]["Env"], Value::Null);
        let upper = inspected["GraphDriver"]["Data"]["UpperDir"].as_str();
        assert!(upper.unwrap().ends_with("/diff"), "{inspected}");
    }
}
