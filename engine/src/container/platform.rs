//! Whether an image is for the wanted platform, or for this machine: pure.

use super::error::{Error, Result};

/// `os[/architecture[/variant]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Platform {
    os: String,
    architecture: String,
}

/// An image for another platform than the one asked for is not found (404), so that clients pull; for another one than this
/// machine's there is a warning.
pub fn check(name: &str, image: &serde_json::Value, wanted: Option<&str>) -> Result<Vec<String>> {
    let own = Platform {
        os: text_of(image, "Os"),
        architecture: text_of(image, "Architecture"),
    };
    let text = |p: &Platform| format!("{}/{}", p.os, p.architecture);
    match wanted {
        Some(wanted) => {
            let wanted = parse(wanted)?;
            if wanted == own {
                return Ok(Vec::new());
            }
            Err(Error::not_found(format!(
                "image with reference {name} was found but its platform ({}) does not match the specified platform ({})",
                text(&own),
                text(&wanted)
            )))
        }
        None if own == host() || own.architecture.is_empty() => Ok(Vec::new()),
        None => Ok(vec![format!(
            "The requested image's platform ({}) does not match the detected host platform ({}) and no specific platform was requested",
            text(&own),
            text(&host())
        )]),
    }
}

fn text_of(image: &serde_json::Value, key: &str) -> String {
    image[key].as_str().unwrap_or_default().to_owned()
}

fn host() -> Platform {
    Platform {
        os: "linux".to_owned(),
        architecture: architecture(std::env::consts::ARCH).to_owned(),
    }
}

/// Go's names.
fn architecture(name: &str) -> &str {
    match name {
        "x86_64" | "x86-64" => "amd64",
        "aarch64" => "arm64",
        "i386" | "i686" | "x86" => "386",
        "armhf" => "arm",
        other => other,
    }
}

fn parse(text: &str) -> Result<Platform> {
    const SYSTEMS: [&str; 5] = ["linux", "windows", "darwin", "freebsd", "macos"];
    let parts: Vec<&str> = text.split('/').collect();
    let bad_part = |part: &&&str| {
        part.is_empty()
            || !part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"_-.".contains(&b))
    };
    if let Some(part) = parts.iter().find(bad_part) {
        return Err(Error::invalid(format!(
            "{part:?} is an invalid component of {text:?}: platform specifier component must match \"^[A-Za-z0-9_.-]+(?:\\\\([A-Za-z0-9_.-]+\\\\))?$\": invalid argument"
        )));
    }
    let lower: Vec<String> = parts.iter().map(|p| p.to_lowercase()).collect();
    let names: Vec<&str> = lower.iter().map(String::as_str).collect();
    let own = host();
    match names[..] {
        [os] if SYSTEMS.contains(&os) => Ok(Platform {
            os: os.to_owned(),
            ..own
        }),
        [machine] => Ok(Platform {
            architecture: architecture(machine).to_owned(),
            ..own
        }),
        [os, machine] | [os, machine, _] => Ok(Platform {
            os: os.to_owned(),
            architecture: architecture(machine).to_owned(),
        }),
        _ => Err(Error::invalid(format!(
            "{text:?}: cannot parse platform specifier: invalid argument"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn wanted_and_own() {
        let image =
            |architecture: &str| serde_json::json!({ "Os": "linux", "Architecture": architecture });
        let own = image(&host().architecture);
        assert!(check("x", &own, None).unwrap().is_empty());
        assert!(check("x", &own, Some("linux")).unwrap().is_empty());
        let other = image("s390x");
        assert_eq!(check("x", &other, None).unwrap().len(), 1);
        assert!(check("x", &other, Some("linux/s390x")).unwrap().is_empty());
        let error = check("x", &own, Some("linux/s390x/v1")).unwrap_err();
        assert_eq!(error.kind, super::super::error::Kind::NotFound);
        for bad in ["", "a/b/c/d", "linux//x", "linux/a b"] {
            let error = check("x", &own, Some(bad)).unwrap_err();
            assert_eq!(error.kind, super::super::error::Kind::Invalid, "{bad}");
        }
    }
}
