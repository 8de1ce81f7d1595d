//! A service's `volumes` and `tmpfs`.

use super::Reader;
use crate::field::{Field, Fields};
use crate::keys;
use crate::model::ServiceVolume;
use crate::node::Value;

/// What a source that is not absolute would mean.
const ON_THIS_COMPUTER: &str = "lies on this computer, but the container runs on a machine";
const ON_THIS_COMPUTER_HINT: &str = "put the files into the image with `build`, keep data in a named volume, or name an absolute path of the machine";

#[derive(Clone, Copy)]
enum Type {
    Volume,
    Bind,
    Tmpfs,
}

impl Reader<'_> {
    pub(super) fn mounts(&mut self, field: &Field<'_>) -> Vec<ServiceVolume> {
        let mut mounts = Vec::new();
        for item in field.items(self.log) {
            let mount = match &item.node.value {
                Value::Map(_) => self.long_mount(&item),
                _ => self.short_mount(&item),
            };
            mounts.extend(mount);
        }
        mounts
    }

    /// `target`, `source:target`, `source:target:ro`.
    fn short_mount(&mut self, item: &Field<'_>) -> Option<ServiceVolume> {
        let text = item.string(self.log)?;
        if is_windows_path(&text) {
            item.reject_with_hint(ON_THIS_COMPUTER, ON_THIS_COMPUTER_HINT, self.log);
            return None;
        }
        let parts: Vec<&str> = text.split(':').collect();
        let (source, target, options) = match parts[..] {
            [target] => (None, target, ""),
            [source, target] => (Some(source), target, ""),
            [source, target, options] => (Some(source), target, options),
            _ => {
                item.reject("has more parts than `source:target:options`", self.log);
                return None;
            }
        };
        let read_only = self.mount_options(options, item)?;
        let target = self.mount_target(target, item)?;
        match source {
            Some(source) if source.starts_with(['/', '.', '~']) => {
                self.bind(source, target, read_only, item)
            }
            Some(name) => self.named(Some(name), target, read_only, item),
            None => self.named(None, target, read_only, item),
        }
    }

    fn mount_options(&mut self, options: &str, item: &Field<'_>) -> Option<bool> {
        let mut read_only = false;
        for option in options.split(',').filter(|option| !option.is_empty()) {
            match option {
                "ro" => read_only = true,
                "rw" | "cached" | "delegated" | "consistent" => {}
                "z" | "Z" | "nocopy" | "rshared" | "rslave" | "rprivate" | "shared" | "slave"
                | "private" => {
                    let problem = format!("asks for `{option}`, which windlass does not have yet");
                    item.reject(&problem, self.log);
                    return None;
                }
                other => {
                    item.reject(&format!("has the unknown option `{other}`"), self.log);
                    return None;
                }
            }
        }
        Some(read_only)
    }

    fn mount_target(&mut self, target: &str, item: &Field<'_>) -> Option<String> {
        let clean = target.trim_end_matches('/');
        let inside = target.starts_with('/') && !clean.split('/').any(|part| part == "..");
        if inside && !clean.is_empty() {
            return Some(clean.to_owned());
        }
        let problem = format!("has `{target}` where an absolute path in the container belongs");
        item.reject(&problem, self.log);
        None
    }

    fn bind(
        &mut self,
        source: &str,
        target: String,
        read_only: bool,
        item: &Field<'_>,
    ) -> Option<ServiceVolume> {
        if !source.starts_with('/') {
            item.reject_with_hint(
                &format!("names `{source}`, which {ON_THIS_COMPUTER}"),
                ON_THIS_COMPUTER_HINT,
                self.log,
            );
            return None;
        }
        let source = source.to_owned();
        Some(ServiceVolume::Bind {
            source,
            target,
            read_only,
        })
    }

    fn named(
        &mut self,
        name: Option<&str>,
        target: String,
        read_only: bool,
        item: &Field<'_>,
    ) -> Option<ServiceVolume> {
        if name.is_some_and(str::is_empty) {
            item.reject("has nothing before the `:`", self.log);
            return None;
        }
        let name = name.map(str::to_owned);
        Some(ServiceVolume::Volume {
            name,
            target,
            read_only,
        })
    }

    fn long_mount(&mut self, item: &Field<'_>) -> Option<ServiceVolume> {
        let fields = item.fields(&keys::MOUNT, self.log)?;
        let types = [
            ("volume", Type::Volume),
            ("bind", Type::Bind),
            ("tmpfs", Type::Tmpfs),
        ];
        let kind = match fields.get("type") {
            Some(kind) => kind.choice(&types, self.log)?,
            None => {
                item.reject("needs `type`: `volume`, `bind` or `tmpfs`", self.log);
                return None;
            }
        };
        let Some(target) = fields.string("target", self.log) else {
            item.reject("needs `target`, a path in the container", self.log);
            return None;
        };
        let target = self.mount_target(&target, item)?;
        let source = fields.string("source", self.log);
        let read_only = fields.flag("read_only", self.log);
        if !matches!(kind, Type::Tmpfs)
            && let Some(tmpfs) = fields.get("tmpfs")
        {
            tmpfs.reject("belongs to mounts of type `tmpfs`", self.log);
        }
        match (kind, source) {
            (Type::Volume, name) => self.named(name.as_deref(), target, read_only, item),
            (Type::Bind, Some(source)) if is_windows_path(&source) => {
                item.reject_with_hint(ON_THIS_COMPUTER, ON_THIS_COMPUTER_HINT, self.log);
                None
            }
            (Type::Bind, Some(source)) => self.bind(&source, target, read_only, item),
            (Type::Bind, None) => {
                item.reject("needs `source`, an absolute path of the machine", self.log);
                None
            }
            (Type::Tmpfs, Some(_)) => {
                item.reject("is of type `tmpfs`, which has no `source`", self.log);
                None
            }
            (Type::Tmpfs, None) => self.tmpfs_mount(&fields, target),
        }
    }

    fn tmpfs_mount(&mut self, fields: &Fields<'_>, target: String) -> Option<ServiceVolume> {
        let size_bytes = match fields.get("tmpfs") {
            Some(tmpfs) => {
                let fields = tmpfs.fields(&keys::MOUNT_TMPFS, self.log)?;
                fields.get("size").and_then(|size| size.bytes(self.log))
            }
            None => None,
        };
        Some(ServiceVolume::Tmpfs { target, size_bytes })
    }

    /// `/path`, `/path:size=64m,mode=1777`.
    pub(super) fn tmpfs(&mut self, field: &Field<'_>) -> Vec<String> {
        let mut mounts = Vec::new();
        for item in field.one_or_more() {
            let Some(text) = item.string(self.log) else {
                continue;
            };
            let target = text.split(':').next().unwrap_or_default();
            if self.mount_target(target, &item).is_some() {
                mounts.push(text);
            }
        }
        mounts
    }
}

/// `C:\data`; `c:/data` is a volume named `c`.
fn is_windows_path(text: &str) -> bool {
    matches!(text.as_bytes(), [letter, b':', b'\\', ..] if letter.is_ascii_alphabetic())
}
