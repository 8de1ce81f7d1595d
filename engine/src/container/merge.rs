//! The image's defaults under the user's wishes: pure.

use windlass_engine_api::types::{ContainerConfig, HealthConfig};

use super::error::{Error, Result};

/// Fills what `config` leaves open from the image.
pub fn merge(config: &mut ContainerConfig, image: &ContainerConfig) -> Result<()> {
    let fill = |own: &mut String, default: &String| {
        if own.is_empty() {
            own.clone_from(default);
        }
    };
    fill(&mut config.user, &image.user);
    fill(&mut config.working_dir, &image.working_dir);
    fill(&mut config.stop_signal, &image.stop_signal);
    let given = |words: &Option<Vec<String>>| words.as_ref().is_some_and(|w| !w.is_empty());
    if !given(&config.entrypoint) {
        if !given(&config.cmd) {
            config.cmd.clone_from(&image.cmd);
        }
        config.entrypoint.clone_from(&image.entrypoint);
    }
    if config.shell.is_none() {
        config.shell.clone_from(&image.shell);
    }
    if config.stop_timeout.is_none() {
        config.stop_timeout = image.stop_timeout;
    }
    for (port, empty) in &image.exposed_ports {
        config.exposed_ports.entry(port.clone()).or_insert(*empty);
    }
    for (path, empty) in &image.volumes {
        config.volumes.entry(path.clone()).or_insert(*empty);
    }
    // Whose container it is, is not for an image to say.
    let others = |name: &&String| !name.starts_with("windlass.");
    for (name, value) in image.labels.iter().filter(|(name, _)| others(name)) {
        config
            .labels
            .entry(name.clone())
            .or_insert_with(|| value.clone());
    }
    config.env = environment(&image.env, &config.env);
    config.healthcheck = health(config.healthcheck.take(), image.healthcheck.as_ref());
    // An empty word takes the image's entrypoint away; as a command it is one that the start will not find.
    let mut entrypoint = config.entrypoint.iter().flatten();
    if entrypoint.all(String::is_empty) && !given(&config.cmd) {
        return Err(Error::invalid("no command specified"));
    }
    Ok(())
}

/// The user's variables, then those of the image that the user does not name. A name without `=` stays: it takes the variable away
/// when a process starts.
fn environment(image: &[String], own: &[String]) -> Vec<String> {
    let name = |v: &str| v.split('=').next().unwrap_or_default().to_owned();
    let mut all = own.to_vec();
    for variable in image {
        if !own.iter().any(|v| name(v) == name(variable)) {
            all.push(variable.clone());
        }
    }
    all
}

fn health(own: Option<HealthConfig>, image: Option<&HealthConfig>) -> Option<HealthConfig> {
    let Some(image) = image else { return own };
    let Some(mut own) = own else {
        return Some(image.clone());
    };
    if own.test.is_empty() {
        own.test.clone_from(&image.test);
    }
    for (value, default) in [
        (&mut own.interval, image.interval),
        (&mut own.timeout, image.timeout),
        (&mut own.start_period, image.start_period),
        (&mut own.start_interval, image.start_interval),
        (&mut own.retries, image.retries),
    ] {
        if *value == 0 {
            *value = default;
        }
    }
    Some(own)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn words(list: &[&str]) -> Vec<String> {
        list.iter().map(|s| (*s).to_owned()).collect()
    }

    #[test]
    fn command_and_entrypoint() {
        let image = ContainerConfig {
            entrypoint: Some(words(&["/e"])),
            cmd: Some(words(&["d"])),
            ..ContainerConfig::default()
        };
        for (entrypoint, cmd, wanted) in [
            (None, None, (Some(words(&["/e"])), Some(words(&["d"])))),
            (
                None,
                Some(words(&["x"])),
                (Some(words(&["/e"])), Some(words(&["x"]))),
            ),
            (Some(words(&["/o"])), None, (Some(words(&["/o"])), None)),
            (
                Some(words(&[""])),
                Some(words(&["x"])),
                (Some(words(&[""])), Some(words(&["x"]))),
            ),
        ] {
            let mut config = ContainerConfig {
                entrypoint,
                cmd,
                ..ContainerConfig::default()
            };
            merge(&mut config, &image).unwrap();
            assert_eq!((config.entrypoint, config.cmd), wanted);
        }
        assert!(merge(&mut ContainerConfig::default(), &ContainerConfig::default()).is_err());
    }

    #[test]
    fn an_image_does_not_say_whose_a_container_is() {
        let labels = |all: &[(&str, &str)]| {
            let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
            all.iter().map(own).collect()
        };
        let image = ContainerConfig {
            cmd: Some(words(&["x"])),
            labels: labels(&[("windlass.project", "other"), ("version", "1")]),
            ..ContainerConfig::default()
        };
        let mut config = ContainerConfig::default();
        merge(&mut config, &image).unwrap();
        assert_eq!(config.labels, labels(&[("version", "1")]));
    }

    #[test]
    fn variables() {
        let merged = environment(
            &words(&["PATH=/x", "A=1", "B=2"]),
            &words(&["A=9", "C=3", "B", "D"]),
        );
        assert_eq!(merged, ["A=9", "C=3", "B", "D", "PATH=/x"]);
    }
}
