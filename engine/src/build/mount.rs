//! `RUN --mount`: what is asked for. Pure.

use super::mode;
use crate::container::error::{Error, Result};

/// Which kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Kind {
    /// Files of the context, a stage or an image.
    #[default]
    Bind,
    /// A folder that lasts.
    Cache,
    /// Memory.
    Tmpfs,
    /// A file that only the client has.
    Secret,
    /// The client's agent.
    Ssh,
}

/// How builds share a cache.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Sharing {
    /// At once.
    #[default]
    Shared,
    /// Each its own.
    Private,
    /// One after the other.
    Locked,
}

/// A mount of a step.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Mount {
    /// Which kind.
    pub kind: Kind,
    /// In the container.
    pub target: String,
    /// In what it comes from.
    pub source: String,
    /// Stage or image.
    pub from: Option<String>,
    /// Name of a cache or secret.
    pub id: String,
    /// Not writable; without a word that is so for binds only.
    pub read_only: Option<bool>,
    /// See there.
    pub sharing: Sharing,
    /// A secret that is missing is an error.
    pub required: bool,
    /// Bytes of a tmpfs.
    pub size: Option<u64>,
    /// Of a new cache's folder.
    pub mode: Option<u32>,
    /// Of a new cache's folder.
    pub owner: (u32, u32),
}

/// Stage or image that a mount comes from.
pub fn source_of(text: &str) -> Option<String> {
    let field = fields(text).into_iter().find(|(key, _)| key == "from");
    field.and_then(|(_, value)| value)
}

/// `key=value` at commas; quotes keep commas.
fn fields(text: &str) -> Vec<(String, Option<String>)> {
    let (mut fields, mut field, mut quoted) = (Vec::new(), String::new(), false);
    for c in text.chars().chain([',']) {
        match c {
            '"' => quoted = !quoted,
            ',' if !quoted => fields.push(std::mem::take(&mut field)),
            c => field.push(c),
        }
    }
    let split = |field: String| match field.split_once('=') {
        Some((key, value)) => (key.to_lowercase(), Some(value.to_owned())),
        None => (field.to_lowercase(), None),
    };
    fields.into_iter().map(split).collect()
}

/// Reads a flag's value, variables put in by `expand`.
pub fn parse(text: &str, expand: &dyn Fn(&str) -> Result<String>) -> Result<Mount> {
    let mut mount = Mount::default();
    for (key, value) in fields(text) {
        let switch = match value.as_deref() {
            None | Some("true" | "1") => true,
            Some(_) => false,
        };
        let missing = || Error::invalid(format!("invalid field '{key}' must be a key=value pair"));
        let given = || -> Result<String> { expand(value.as_deref().ok_or_else(missing)?) };
        let wrong = |value: &str| Error::invalid(format!("invalid value for {key}: {value}"));
        match key.as_str() {
            "type" => mount.kind = kind(&given()?)?,
            "target" | "dst" | "destination" => mount.target = given()?,
            "source" | "src" => mount.source = given()?,
            "from" => mount.from = Some(given()?),
            "id" => mount.id = given()?,
            "readonly" | "ro" => mount.read_only = Some(switch),
            "readwrite" | "rw" => mount.read_only = Some(!switch),
            "required" => mount.required = switch,
            "sharing" => mount.sharing = sharing(&given()?)?,
            "size" => {
                let text = given()?;
                mount.size = Some(bytes(&text).ok_or_else(|| wrong(&text))?);
            }
            "mode" => {
                let text = given()?;
                match mode::parse(&text) {
                    Some(mode::Mode::Octal(mode)) => mount.mode = Some(mode),
                    _ => return Err(Error::invalid(format!("invalid value {text} for mode"))),
                }
            }
            "uid" | "gid" => {
                let text = given()?;
                let number = text
                    .parse()
                    .map_err(|_| Error::invalid(format!("invalid value {text} for {key}")))?;
                match key.as_str() {
                    "uid" => mount.owner.0 = number,
                    _ => mount.owner.1 = number,
                }
            }
            "env" => {
                return Err(Error::not_implemented(
                    "secrets as variables need BuildKit, which windlassd does not have",
                ));
            }
            other => {
                return Err(Error::invalid(format!(
                    "unexpected key '{other}' in '{text}'"
                )));
            }
        }
    }
    complete(mount)
}

fn complete(mut mount: Mount) -> Result<Mount> {
    if mount.kind == Kind::Secret {
        let last = mount.target.rsplit('/').next().unwrap_or_default();
        if mount.id.is_empty() {
            mount.id = [mount.source.as_str(), last]
                .into_iter()
                .find(|name| !name.is_empty())
                .unwrap_or_default()
                .to_owned();
        }
        return Ok(mount);
    }
    if mount.target.is_empty() && mount.kind != Kind::Ssh {
        return Err(Error::invalid("invalid mount: a target is required"));
    }
    if mount.id.is_empty() {
        mount.id.clone_from(&mount.target);
    }
    Ok(mount)
}

fn kind(text: &str) -> Result<Kind> {
    Ok(match text {
        "bind" => Kind::Bind,
        "cache" => Kind::Cache,
        "tmpfs" => Kind::Tmpfs,
        "secret" => Kind::Secret,
        "ssh" => Kind::Ssh,
        other => {
            return Err(Error::invalid(format!(
                "unsupported mount type \"{other}\""
            )));
        }
    })
}

fn sharing(text: &str) -> Result<Sharing> {
    Ok(match text {
        "shared" => Sharing::Shared,
        "private" => Sharing::Private,
        "locked" => Sharing::Locked,
        other => {
            return Err(Error::invalid(format!(
                "unsupported sharing value \"{other}\""
            )));
        }
    })
}

/// `64m`, `1g`, `1000`.
fn bytes(text: &str) -> Option<u64> {
    let lower = text.trim().to_lowercase();
    let lower = lower.trim_end_matches('b').trim_end_matches('i');
    let (digits, factor) = match lower.chars().last()? {
        'k' => (&lower[..lower.len() - 1], 1 << 10),
        'm' => (&lower[..lower.len() - 1], 1 << 20),
        'g' => (&lower[..lower.len() - 1], 1 << 30),
        _ => (lower, 1),
    };
    digits.parse::<u64>().ok()?.checked_mul(factor)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_asked_for() {
        let read = |text: &str| parse(text, &|text| Ok(text.replace("$X", "x")));
        let cache = read("type=cache,target=/$X,sharing=locked,mode=0700,uid=5,ro").unwrap();
        assert_eq!((cache.id.as_str(), cache.sharing), ("/x", Sharing::Locked));
        assert_eq!(
            (cache.mode, cache.owner, cache.read_only),
            (Some(0o700), (5, 0), Some(true))
        );
        let bind = read("target=/a,\"source=b,c\",from=stage,rw").unwrap();
        assert_eq!((bind.kind, bind.source.as_str()), (Kind::Bind, "b,c"));
        assert_eq!(source_of("type=bind,from=stage").as_deref(), Some("stage"));
        assert_eq!(
            read("type=tmpfs,target=/t,size=64m").unwrap().size,
            Some(64 << 20)
        );
        assert_eq!(read("type=secret,target=/run/key").unwrap().id, "key");
        for bad in [
            "type=what,target=/x",
            "type=cache",
            "type=cache,target=/x,sharing=q",
            "a=b,target=/x",
        ] {
            assert!(read(bad).is_err(), "{bad}");
        }
    }
}
