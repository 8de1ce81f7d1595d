//! One wanted mount read and checked, in Docker's words: pure, but that the source of `--mount type=bind` must exist.

use std::path::{Component, Path};

use windlass_engine_api::types::{BindOptions, Mount, VolumeOptions};

use super::MountRecord;
use crate::container::error::{Error, Result};
use crate::volume;

const PROPAGATIONS: [&str; 6] = [
    "private", "rprivate", "slave", "rslave", "shared", "rshared",
];

/// What stands behind the second colon of `-v`: each kind of word at most once.
#[derive(Debug, Default)]
struct Mode<'a> {
    access: Option<&'a str>,
    label: Option<&'a str>,
    propagation: Option<&'a str>,
    copy: Option<&'a str>,
    consistency: Option<&'a str>,
}

impl<'a> Mode<'a> {
    fn parse(text: &'a str) -> Option<Self> {
        let mut mode = Self::default();
        if text.is_empty() {
            return Some(mode);
        }
        for word in text.split(',') {
            let place = match word {
                "ro" | "rw" => &mut mode.access,
                "z" | "Z" => &mut mode.label,
                "nocopy" => &mut mode.copy,
                "consistent" | "cached" | "delegated" => &mut mode.consistency,
                word if PROPAGATIONS.contains(&word) => &mut mode.propagation,
                _ => return None,
            };
            if place.replace(word).is_some() {
                return None;
            }
        }
        Some(mode)
    }
}

fn bad_mode(text: &str) -> Error {
    Error::invalid(format!("invalid mode: {text}"))
}

/// `source:destination[:options]`, `name:destination[:options]`, `destination`.
pub(super) fn parse_bind(text: &str, driver: &str) -> Result<MountRecord> {
    let bad = || Error::invalid(format!("invalid volume specification: '{text}'"));
    let parts: Vec<&str> = text.split(':').collect();
    let (source, target, mode) = match parts[..] {
        [target] => ("", target, ""),
        // A folder and a mode are no volume.
        [_, target] if Mode::parse(target).is_some() => return Err(bad()),
        [source, target] => (source, target, ""),
        [source, target, mode] => (source, target, mode),
        _ => return Err(bad()),
    };
    if parts[0].is_empty() {
        return Err(bad());
    }
    let words = Mode::parse(mode).ok_or_else(|| bad_mode(mode))?;
    let is_bind = source.starts_with('/');
    let nocopy = VolumeOptions {
        no_copy: true,
        ..VolumeOptions::default()
    };
    let mount = Mount {
        kind: if is_bind { "bind" } else { "volume" }.to_owned(),
        source: source.to_owned(),
        target: target.to_owned(),
        read_only: words.access == Some("ro"),
        bind_options: words.propagation.map(|propagation| BindOptions {
            propagation: propagation.to_owned(),
            create_mountpoint: true,
            ..BindOptions::default()
        }),
        volume_options: words.copy.map(|_| nocopy),
        ..Mount::default()
    };
    let mut record = from_checked(&mount, Source::Unchecked).map_err(|error| {
        let about_volume = error.message.starts_with("create ");
        let wrapped = format!("{}: {}", bad().message, error.message);
        if about_volume {
            error
        } else {
            Error::new(error.kind, wrapped)
        }
    })?;
    if !is_bind && !driver.is_empty() {
        volume::check_driver(&record.name, driver)?;
    }
    if is_bind || !mode.is_empty() {
        mode.clone_into(&mut record.mode);
    }
    record.make_source = is_bind;
    Ok(record)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Source {
    MustExist,
    Unchecked,
}

/// `--mount`.
pub(super) fn from_mount(mount: &Mount) -> Result<MountRecord> {
    from_checked(mount, Source::MustExist)
}

fn from_checked(mount: &Mount, source: Source) -> Result<MountRecord> {
    let bad = |why: String| {
        Error::invalid(format!(
            "invalid mount config for type \"{}\": {why}",
            mount.kind
        ))
    };
    let mut record = MountRecord {
        kind: mount.kind.clone(),
        destination: mount_target(mount).map_err(bad)?,
        rw: !mount.read_only,
        ..MountRecord::default()
    };
    extra_fields(mount).map_err(bad)?;
    match mount.kind.as_str() {
        "bind" => bind(mount, &mut record, source).map_err(bad)?,
        "volume" => {
            named_volume(mount, &mut record).map_err(bad)?;
            if let Some(driver) = mount
                .volume_options
                .as_ref()
                .and_then(|o| o.driver_config.as_ref())
            {
                volume::check_driver(&record.name, &driver.name)?;
                record.driver_options = driver.options.clone();
            }
            if !record.name.is_empty() {
                volume::check_name(&record.name)?;
            }
        }
        "tmpfs" => record.options = tmpfs_options(mount),
        "image" => {
            if mount.source.is_empty() {
                return Err(bad("field Source must not be empty".to_owned()));
            }
            record.name.clone_from(&mount.source);
            record.subpath = mount
                .image_options
                .as_ref()
                .map(|o| o.subpath.clone())
                .unwrap_or_default();
            local_subpath(&record.subpath).map_err(bad)?;
        }
        _ => return Err(bad("mount type unknown".to_owned())),
    }
    Ok(record)
}

fn mount_target(mount: &Mount) -> Result<String, String> {
    if mount.target.is_empty() {
        return Err("field Target must not be empty".to_owned());
    }
    if clean(&mount.target) == "/" {
        return Err("invalid specification: destination can't be '/'".to_owned());
    }
    absolute(&mount.target)
}

fn absolute(path: &str) -> Result<String, String> {
    if path.starts_with('/') {
        Ok(clean(path))
    } else {
        Err(format!(
            "invalid mount path: '{path}' mount path must be absolute"
        ))
    }
}

/// Options of another kind of mount.
fn extra_fields(mount: &Mount) -> Result<(), String> {
    let given = [
        ("BindOptions", "bind", mount.bind_options.is_some()),
        ("VolumeOptions", "volume", mount.volume_options.is_some()),
        ("TmpfsOptions", "tmpfs", mount.tmpfs_options.is_some()),
        ("ImageOptions", "image", mount.image_options.is_some()),
    ];
    let known = given.iter().any(|(_, kind, _)| mount.kind == *kind);
    match given
        .iter()
        .find(|(_, kind, given)| *given && mount.kind != *kind)
    {
        Some((field, ..)) if known => Err(format!("field {field} must not be specified")),
        _ if mount.kind == "tmpfs" && !mount.source.is_empty() => {
            Err("field Source must not be specified".to_owned())
        }
        _ => Ok(()),
    }
}

fn bind(mount: &Mount, record: &mut MountRecord, source: Source) -> Result<(), String> {
    if mount.source.is_empty() {
        return Err("field Source must not be empty".to_owned());
    }
    let options = mount.bind_options.clone().unwrap_or_default();
    if !options.propagation.is_empty() && !PROPAGATIONS.contains(&options.propagation.as_str()) {
        return Err(format!("invalid propagation mode: {}", options.propagation));
    }
    if options.read_only_force_recursive && options.read_only_non_recursive {
        return Err(
            "field ReadOnlyForceRecursive and field ReadOnlyNonRecursive are mutually exclusive"
                .to_owned(),
        );
    }
    record.source = absolute(&mount.source)?;
    record.make_source = options.create_mountpoint;
    if source == Source::MustExist && !record.make_source && !Path::new(&record.source).exists() {
        return Err(format!(
            "bind source path does not exist: {}",
            record.source
        ));
    }
    record.propagation = if options.propagation.is_empty() {
        "rprivate".to_owned()
    } else {
        options.propagation
    };
    record.non_recursive = options.non_recursive;
    record.read_only_top = options.read_only_non_recursive;
    Ok(())
}

fn named_volume(mount: &Mount, record: &mut MountRecord) -> Result<(), String> {
    let options = mount.volume_options.clone().unwrap_or_default();
    record.anonymous = mount.source.is_empty();
    if record.anonymous && mount.read_only {
        return Err("must not set ReadOnly mode when using anonymous volumes".to_owned());
    }
    if record.anonymous && !options.subpath.is_empty() {
        return Err("must not set Subpath when using anonymous volumes".to_owned());
    }
    local_subpath(&options.subpath)?;
    // A mode of its own is what Docker shows for volumes.
    record.mode = "z".to_owned();
    record.name.clone_from(&mount.source);
    record.copy = !options.no_copy;
    record.labels = options.labels;
    record.subpath = options.subpath;
    Ok(())
}

fn local_subpath(subpath: &str) -> Result<(), String> {
    let mut depth = 0i32;
    for component in Path::new(subpath).components() {
        match component {
            Component::Normal(_) => depth += 1,
            Component::CurDir => {}
            Component::ParentDir => depth -= 1,
            Component::RootDir | Component::Prefix(_) => depth = -1,
        }
        if depth < 0 {
            return Err("subpath must be a relative path within the volume".to_owned());
        }
    }
    Ok(())
}

fn tmpfs_options(mount: &Mount) -> Vec<String> {
    let options = mount.tmpfs_options.clone().unwrap_or_default();
    let mut words = Vec::new();
    if mount.read_only {
        words.push("ro".to_owned());
    }
    if options.mode > 0 {
        words.push(format!("mode={:o}", options.mode));
    }
    if options.size_bytes > 0 {
        words.push(format!("size={}", options.size_bytes));
    }
    for option in options.options {
        words.push(option.join("="));
    }
    words
}

/// `--tmpfs path[:options]`.
pub(super) fn from_tmpfs(path: &str, options: &str) -> Result<MountRecord> {
    let options: Vec<String> = options
        .split(',')
        .filter(|o| !o.is_empty())
        .map(str::to_owned)
        .collect();
    Ok(MountRecord {
        kind: "tmpfs".to_owned(),
        destination: destination(path)?,
        rw: !options.iter().any(|o| o == "ro"),
        options,
        unlisted: true,
        ..MountRecord::default()
    })
}

/// Where a volume of an image or a tmpfs goes.
pub(super) fn destination(path: &str) -> Result<String> {
    let path = absolute(path).map_err(Error::invalid)?;
    if path == "/" {
        return Err(Error::invalid(
            "invalid specification: destination can't be '/'",
        ));
    }
    Ok(path)
}

/// `container[:mode]` → the container, and whether its mounts may be written.
pub fn parse_volumes_from(text: &str) -> Result<(&str, bool)> {
    if text.is_empty() {
        return Err(Error::invalid(
            "volumes-from specification cannot be an empty string",
        ));
    }
    let (reference, mode) = text.split_once(':').unwrap_or((text, ""));
    match Mode::parse(mode) {
        Some(words) if words.propagation.is_none() && words.copy.is_none() => {
            Ok((reference, words.access != Some("ro")))
        }
        _ => Err(bad_mode(mode)),
    }
}

/// A path without `.`, `..` and doubled slashes, from the root on.
fn clean(path: &str) -> String {
    let mut parts = Vec::new();
    for component in Path::new(path).components() {
        match component {
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => drop(parts.pop()),
            _ => {}
        }
    }
    format!("/{}", parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_engine_api::types::{Driver, ImageOptions, TmpfsOptions};

    #[test]
    fn binds() {
        let bind = parse_bind("/a/../b:/c/:ro,z", "").unwrap();
        let seen = (
            bind.kind.as_str(),
            bind.source.as_str(),
            bind.destination.as_str(),
        );
        assert_eq!(seen, ("bind", "/b", "/c"));
        assert_eq!(
            (bind.rw, bind.mode.as_str(), bind.make_source),
            (false, "ro,z", true)
        );
        let volume = parse_bind("v1:/c", "local").unwrap();
        let seen = (volume.kind.as_str(), volume.name.as_str(), volume.copy);
        assert_eq!(seen, ("volume", "v1", true));
        assert_eq!(volume.mode, "z");
        assert!(!parse_bind("v1:/c:nocopy", "").unwrap().copy);
        assert_eq!(
            parse_bind("/a:/c:rslave", "").unwrap().propagation,
            "rslave"
        );
        assert!(parse_bind("/c", "").unwrap().anonymous);
    }

    #[test]
    fn refused_binds_in_dockers_words() {
        let about = |text: &str| parse_bind(text, "").unwrap_err().message;
        let volume = "invalid mount config for type \"volume\"";
        let bind = "invalid mount config for type \"bind\"";
        for (text, words) in [
            ("a:b:c:d", String::new()),
            (":/x", String::new()),
            ("", String::new()),
            ("/x:ro", String::new()),
            (
                "vv:rel",
                format!(": {volume}: invalid mount path: 'rel' mount path must be absolute"),
            ),
            (
                "/a:/",
                format!(": {bind}: invalid specification: destination can't be '/'"),
            ),
            (
                "/a:/b:nocopy",
                format!(": {bind}: field VolumeOptions must not be specified"),
            ),
            (
                "vv:/b:rshared",
                format!(": {volume}: field BindOptions must not be specified"),
            ),
        ] {
            let wanted = format!("invalid volume specification: '{text}'{words}");
            assert_eq!(about(text), wanted);
        }
        assert_eq!(about("/a:/b:wat"), "invalid mode: wat");
        assert_eq!(about("/a:/b:ro,ro"), "invalid mode: ro,ro");
        assert!(about("./x:/y").starts_with(
            "create ./x: \"./x\" includes invalid characters for a local volume name"
        ));
        assert_eq!(
            parse_bind("vv:/x", "nope").unwrap_err().message,
            "create vv: error looking up volume plugin nope: plugin \"nope\" not found"
        );
    }

    #[test]
    fn mounts() {
        let of = |kind: &str, source: &str, target: &str| Mount {
            kind: kind.to_owned(),
            source: source.to_owned(),
            target: target.to_owned(),
            ..Mount::default()
        };
        let options = TmpfsOptions {
            size_bytes: 1024,
            mode: 0o700,
            options: vec![vec!["uid".to_owned(), "5".to_owned()]],
        };
        let tmpfs = Mount {
            tmpfs_options: Some(options),
            ..of("tmpfs", "", "/t")
        };
        assert_eq!(
            from_mount(&tmpfs).unwrap().options,
            ["mode=700", "size=1024", "uid=5"]
        );
        let driver = Mount {
            volume_options: Some(VolumeOptions {
                driver_config: Some(Driver {
                    name: "local".to_owned(),
                    options: [("type".to_owned(), "tmpfs".to_owned())].into(),
                }),
                ..VolumeOptions::default()
            }),
            ..of("volume", "vv", "/v")
        };
        assert_eq!(from_mount(&driver).unwrap().driver_options["type"], "tmpfs");
        let image = Mount {
            image_options: Some(ImageOptions {
                subpath: "a/../b".to_owned(),
            }),
            ..of("image", "box", "/i")
        };
        assert_eq!(from_mount(&image).unwrap().name, "box");
        let subpath = |path: &str, source: &str| Mount {
            volume_options: Some(VolumeOptions {
                subpath: path.to_owned(),
                ..VolumeOptions::default()
            }),
            ..of("volume", source, "/v")
        };
        let read_only = |mount: Mount| Mount {
            read_only: true,
            ..mount
        };
        for (mount, words) in [
            (of("", "", ""), "field Target must not be empty"),
            (of("bind", "", "/x"), "field Source must not be empty"),
            (
                of("bind", "/no/such/folder", "/x"),
                "bind source path does not exist: /no/such/folder",
            ),
            (
                of("bind", "/tmp", "x"),
                "invalid mount path: 'x' mount path must be absolute",
            ),
            (
                of("bind", "tmp", "/x"),
                "invalid mount path: 'tmp' mount path must be absolute",
            ),
            (
                read_only(of("volume", "", "/x")),
                "must not set ReadOnly mode when using anonymous volumes",
            ),
            (
                subpath("../x", "vv"),
                "subpath must be a relative path within the volume",
            ),
            (
                subpath("/x", "vv"),
                "subpath must be a relative path within the volume",
            ),
            (
                subpath("x", ""),
                "must not set Subpath when using anonymous volumes",
            ),
            (of("tmpfs", "a", "/x"), "field Source must not be specified"),
            (of("npipe", "a", "/x"), "mount type unknown"),
            (of("cluster", "a", "/x"), "mount type unknown"),
        ] {
            let wanted = format!("invalid mount config for type \"{}\": {words}", mount.kind);
            assert_eq!(from_mount(&mount).unwrap_err().message, wanted);
        }
    }

    #[test]
    fn volumes_of_others() {
        assert_eq!(parse_volumes_from("c").unwrap(), ("c", true));
        assert_eq!(parse_volumes_from("c:ro,z").unwrap(), ("c", false));
        for bad in ["", "c:wat", "c:rshared", "c:nocopy"] {
            assert!(parse_volumes_from(bad).is_err(), "{bad}");
        }
    }
}
