//! The options of a container's log (`--log-driver`, `--log-opt`): whether they make sense, and what they put beside each line. Pure.
//!
//! Deliberately absent: sizes and numbers of files, which are read where the log is planned (`runtime::plan`), since Docker too finds
//! fault with them at the start only.

use regex_lite::Regex;
use windlass_engine_api::types::{LogConfig, StringMap};

use super::error::{Error, Result};
use super::record::Record;

/// What the drivers know.
const DRIVERS: [(&str, &[&str]); 3] = [
    (
        "json-file",
        &[
            "max-file",
            "max-size",
            "compress",
            "labels",
            "labels-regex",
            "env",
            "env-regex",
            "tag",
        ],
    ),
    ("local", &["max-file", "max-size", "compress"]),
    (
        "journald",
        &["labels", "labels-regex", "env", "env-regex", "tag"],
    ),
];

/// The names of the drivers, as `docker info` shows them.
pub fn drivers() -> impl Iterator<Item = &'static str> {
    DRIVERS.iter().map(|(name, _)| *name)
}

/// Refuses unknown drivers and options in Docker's words.
pub fn check(log: &LogConfig) -> Result<()> {
    let kind = log.kind.as_str();
    if matches!(kind, "" | "none") {
        return Ok(());
    }
    let Some((_, known)) = DRIVERS.iter().find(|(name, _)| *name == kind) else {
        return Err(Error::invalid(format!(
            "error looking up logging plugin {kind}: plugin \"{kind}\" not found"
        )));
    };
    delivery(&log.config)?;
    for option in log.config.keys() {
        if known.contains(&option.as_str()) || matches!(option.as_str(), "mode" | "max-buffer-size")
        {
            continue;
        }
        return Err(Error::invalid(match kind {
            "local" => format!("unknown log opt '{option}' for log driver local"),
            kind => format!("unknown log opt '{option}' for {kind} log driver"),
        }));
    }
    Ok(())
}

/// `mode` and `max-buffer-size`. A keeper that writes to a file holds nobody up in either mode.
fn delivery(options: &StringMap) -> Result<()> {
    let mode = options.get("mode").map_or("", String::as_str);
    if !matches!(mode, "" | "blocking" | "non-blocking") {
        return Err(Error::invalid(format!(
            "logger: logging mode not supported: {mode}"
        )));
    }
    let Some(size) = options.get("max-buffer-size") else {
        return Ok(());
    };
    if mode != "non-blocking" {
        return Err(Error::invalid(
            "logger: max-buffer-size option is only supported with 'mode=non-blocking'",
        ));
    }
    match bytes(size) {
        Some(_) => Ok(()),
        None => Err(Error::invalid(format!(
            "error parsing option max-buffer-size: invalid size: '{size}'"
        ))),
    }
}

/// The labels, variables and the tag that the options name.
pub fn attributes(record: &Record) -> Result<StringMap> {
    let options = &record.host_config.log_config.config;
    let option = |name: &str| options.get(name).map_or("", String::as_str);
    let mut all = StringMap::new();
    let variables: StringMap = record
        .config
        .env
        .iter()
        .filter_map(|v| v.split_once('='))
        .map(|(name, value)| (name.to_owned(), value.to_owned()))
        .collect();
    for (there, names, pattern) in [
        (
            &record.config.labels,
            option("labels"),
            option("labels-regex"),
        ),
        (&variables, option("env"), option("env-regex")),
    ] {
        let named = names
            .split(',')
            .filter_map(|name| there.get_key_value(name));
        all.extend(named.map(|(k, v)| (k.clone(), v.clone())));
        if !pattern.is_empty() {
            let pattern = Regex::new(pattern).map_err(|e| failed(&e.to_string()))?;
            let matching = there.iter().filter(|(name, _)| pattern.is_match(name));
            all.extend(matching.map(|(k, v)| (k.clone(), v.clone())));
        }
    }
    if !option("tag").is_empty() {
        all.insert("tag".to_owned(), tag(option("tag"), record)?);
    }
    Ok(all)
}

/// The fields of a journal entry, `None` for another driver.
pub fn journal(record: &Record, attributes: &StringMap) -> Result<Option<StringMap>> {
    if record.host_config.log_config.kind != "journald" {
        return Ok(None);
    }
    let short: String = record.id.chars().take(12).collect();
    let tag = attributes.get("tag").unwrap_or(&short).clone();
    let mut fields = StringMap::from(
        [
            ("CONTAINER_ID", short),
            ("CONTAINER_ID_FULL", record.id.clone()),
            ("CONTAINER_NAME", record.name.clone()),
            ("CONTAINER_TAG", tag.clone()),
            ("IMAGE_NAME", record.config.image.clone()),
            ("SYSLOG_IDENTIFIER", tag),
        ]
        .map(|(name, value)| (name.to_owned(), value)),
    );
    for (name, value) in attributes.iter().filter(|(name, _)| *name != "tag") {
        fields.entry(field(name)).or_insert(value.clone());
    }
    Ok(Some(fields))
}

/// Journal fields are made of capitals, digits and underscores, and begin with no underscore.
fn field(name: &str) -> String {
    let upper = name.to_uppercase();
    let clean = |c: char| {
        if c.is_ascii_uppercase() || c.is_ascii_digit() {
            c
        } else {
            '_'
        }
    };
    let field: String = upper.chars().map(clean).collect();
    field.trim_start_matches('_').to_owned()
}

/// What the engine's own settings say where the container's do not.
pub fn fill(log: &mut LogConfig, default: &LogConfig) {
    if log.kind.is_empty() {
        log.kind.clone_from(&default.kind);
    }
    if log.kind == default.kind {
        for (name, value) in &default.config {
            log.config.entry(name.clone()).or_insert(value.clone());
        }
    }
}

/// `10m`, `512k`, `1g`, `1000`; `-1` is 0, no limit.
pub fn bytes(text: &str) -> Option<u64> {
    if text == "-1" {
        return Some(0);
    }
    let lower = text.trim().to_lowercase();
    let lower = lower.strip_suffix('b').unwrap_or(&lower);
    let (digits, factor) = match lower.strip_suffix(['k', 'm', 'g']) {
        Some(digits) if lower.ends_with('k') => (digits, 1 << 10),
        Some(digits) if lower.ends_with('m') => (digits, 1 << 20),
        Some(digits) => (digits, 1 << 30),
        None => (lower, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

fn failed(why: &str) -> Error {
    Error::message(format!("failed to initialize logging driver: {why}"))
}

/// `{{.Name}}/{{.ID}}` filled in.
fn tag(template: &str, record: &Record) -> Result<String> {
    let mut text = String::new();
    let mut rest = template;
    while let Some((before, after)) = rest.split_once("{{") {
        let (word, after) = after
            .split_once("}}")
            .ok_or_else(|| failed(&format!("template: log-tag: unclosed action in {template}")))?;
        text.push_str(before);
        text.push_str(&value(word.trim(), record).ok_or_else(|| {
            failed(&format!(
                "template: log-tag: can't evaluate {}",
                word.trim()
            ))
        })?);
        rest = after;
    }
    text.push_str(rest);
    Ok(text)
}

fn value(word: &str, record: &Record) -> Option<String> {
    let short = |id: &str| id.chars().take(12).collect::<String>();
    let image = record.image_id.trim_start_matches("sha256:");
    Some(match word {
        ".ID" => short(&record.id),
        ".FullID" | ".ContainerID" => record.id.clone(),
        ".Name" => record.name.clone(),
        ".ContainerName" => format!("/{}", record.name),
        ".ImageID" => short(image),
        ".ImageFullID" | ".ContainerImageID" => record.image_id.clone(),
        ".ImageName" | ".ContainerImageName" => record.config.image.clone(),
        ".DaemonName" => "docker".to_owned(),
        ".Command" => record.command().join(" "),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(kind: &str, options: &[(&str, &str)]) -> Record {
        let mut record = Record {
            id: "0123456789abcdef".to_owned(),
            name: "web".to_owned(),
            image_id: "sha256:ffff".to_owned(),
            ..Record::default()
        };
        record.config.image = "box".to_owned();
        record.config.env = ["A=1", "B_x=2", "EMPTY"].map(str::to_owned).into();
        record.config.labels = [("tier".to_owned(), "front".to_owned())].into();
        let options = options.iter().map(|(k, v)| (k.to_string(), v.to_string()));
        record.host_config.log_config = LogConfig {
            kind: kind.to_owned(),
            config: options.collect(),
        };
        record
    }

    #[test]
    fn refused_in_dockers_words() {
        let words = |kind: &str, options: &[(&str, &str)]| {
            let checked = check(&record(kind, options).host_config.log_config);
            checked.map_err(|e| e.message).err().unwrap_or_default()
        };
        assert_eq!(words("json-file", &[("max-size", "1m"), ("tag", "x")]), "");
        assert_eq!(words("none", &[("anything", "x")]), "");
        assert_eq!(
            words("syslog", &[]),
            "error looking up logging plugin syslog: plugin \"syslog\" not found"
        );
        assert_eq!(
            words("json-file", &[("bad", "1")]),
            "unknown log opt 'bad' for json-file log driver"
        );
        assert_eq!(
            words("local", &[("labels", "a")]),
            "unknown log opt 'labels' for log driver local"
        );
        assert_eq!(bytes("10m"), Some(10 << 20));
        assert_eq!(
            (bytes("1KB"), bytes("7"), bytes("x")),
            (Some(1024), Some(7), None)
        );
        assert!(words("local", &[("mode", "bad")]).contains("not supported: bad"));
        assert!(words("local", &[("max-buffer-size", "4m")]).contains("only supported with"));
        let odd = [("mode", "non-blocking"), ("max-buffer-size", "x")];
        assert!(words("json-file", &odd).contains("invalid size: 'x'"));
    }

    #[test]
    fn attributes_tags_and_fields() {
        let options = [
            ("labels", "tier,none"),
            ("env-regex", "^B_"),
            ("env", "A"),
            ("tag", "{{.Name}}/{{ .ID }}"),
        ];
        let record = record("journald", &options);
        let found = attributes(&record).unwrap();
        let pairs: Vec<_> = found.iter().map(|(k, v)| format!("{k}={v}")).collect();
        assert_eq!(
            pairs,
            ["A=1", "B_x=2", "tag=web/0123456789ab", "tier=front"]
        );
        let fields = journal(&record, &found).unwrap().unwrap();
        assert_eq!(fields["CONTAINER_TAG"], "web/0123456789ab");
        assert_eq!(
            (fields["TIER"].as_str(), fields["B_X"].as_str()),
            ("front", "2")
        );
        assert!(tag("{{.Nothing}}", &record).is_err() && tag("{{.ID", &record).is_err());
        let default = record.host_config.log_config.clone();
        let mut filled = LogConfig::default();
        fill(&mut filled, &default);
        assert_eq!(filled, default);
        let mut odd = record;
        odd.host_config.log_config.config = [("labels-regex".to_owned(), "((".to_owned())].into();
        assert!(attributes(&odd).is_err());
    }
}
