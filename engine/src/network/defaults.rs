//! The default network, from the engine's options.

use anyhow::{Context as _, bail};

use super::Settings;
use super::link::Links;
use super::record::{Pool, Record};
use super::subnet::{self, Family, Subnet};
use crate::container::clock;

/// The option's own default: no wish, so that another range may be taken where it is in use.
pub const SUBNET: &str = "172.29.0.0/16";
/// Of an interface's name.
pub const LONGEST_NAME: usize = 15;
/// Two containers at least.
const SMALLEST: u8 = 29;

/// The default network's record, taken out of `records` if it was there.
pub async fn settle(
    settings: &Settings,
    links: &Links,
    records: &mut Vec<Record>,
) -> anyhow::Result<Record> {
    interface(&settings.bridge).context("--bridge")?;
    let wanted = Subnet::parse(&settings.subnet)
        .filter(|s| s.family() == Family::V4 && s.length() >= 8 && s.length() <= SMALLEST)
        .with_context(|| {
            format!(
                "--bridge-subnet: '{}' is no IPv4 network like 10.1.0.0/16",
                settings.subnet
            )
        })?;
    let former = records.iter().position(|r| r.is_default());
    let former = former.map(|at| records.swap_remove(at));
    let bridge = links.find(&settings.bridge).await?;
    let wish = settings.subnet != SUBNET;
    let kept = former
        .as_ref()
        .and_then(|former| former.v4.as_ref())
        .map(|pool| pool.subnet)
        .filter(|range| !wish || *range == wanted);
    let range = match kept {
        Some(kept) if bridge.is_some() => kept,
        _ => {
            let mut taken = links.routed(bridge).await?;
            taken.extend(records.iter().flat_map(Record::pools).map(|p| p.subnet));
            free(kept, wanted, wish, &taken)?
        }
    };
    let (id, created) = match former {
        Some(former) => (former.id, former.created),
        None => (new_id(), clock::now()),
    };
    Ok(Record {
        id,
        name: "bridge".to_owned(),
        created,
        bridge: settings.bridge.clone(),
        v4: Some(Pool::new(range)),
        ..Record::default()
    })
}

fn free(
    kept: Option<Subnet>,
    wanted: Subnet,
    wish: bool,
    taken: &[Subnet],
) -> anyhow::Result<Subnet> {
    let clash = |range: &Subnet| taken.iter().find(|t| t.overlaps(*range));
    let mut candidates = kept.into_iter().chain([wanted]);
    if let Some(range) = candidates.find(|c| clash(c).is_none()) {
        return Ok(range);
    }
    match clash(&wanted) {
        Some(other) if wish => bail!(
            "--bridge-subnet: {wanted} overlaps with {other}, which this host already uses; choose another"
        ),
        _ => subnet::choose(taken).context("no private address range is free for containers"),
    }
}

/// Whether it may be an interface's name.
pub fn interface(name: &str) -> anyhow::Result<()> {
    let valid = (1..=LONGEST_NAME).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.'))
        && !matches!(name, "." | "..");
    anyhow::ensure!(valid, "'{name}' is no name for an interface");
    Ok(())
}

/// 64 random hex digits.
pub fn new_id() -> String {
    hex::encode(rand::random::<[u8; 32]>())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn subnet(text: &str) -> Subnet {
        Subnet::parse(text).unwrap()
    }

    #[test]
    fn the_default_range_gives_way_and_a_wish_does_not() {
        let default = subnet(SUBNET);
        let nested = [subnet("172.29.0.0/16")];
        assert_eq!(free(None, default, false, &[]).unwrap(), default);
        let other = free(None, default, false, &nested).unwrap();
        assert!(!other.overlaps(default));
        let error = free(None, default, true, &nested).unwrap_err().to_string();
        assert!(error.contains("172.29.0.0/16"), "{error}");
        let kept = subnet("172.27.0.0/16");
        assert_eq!(free(Some(kept), default, false, &nested).unwrap(), kept);
    }
}
