//! Names for containers that got none: an adjective and a thing aboard.

const ADJECTIVES: [&str; 48] = [
    "able", "ample", "blithe", "bold", "brave", "breezy", "bright", "brisk", "calm", "candid",
    "cheerful", "clear", "clever", "cosy", "daring", "deft", "eager", "early", "fair", "fleet",
    "frank", "gallant", "gentle", "glad", "golden", "hardy", "honest", "jolly", "keen", "kind",
    "lively", "lucid", "merry", "mild", "nimble", "noble", "patient", "plucky", "proud", "quick",
    "quiet", "ready", "silent", "steady", "sturdy", "swift", "tidy", "trusty",
];
const THINGS: [&str; 48] = [
    "anchor", "ballast", "barge", "beacon", "bilge", "bollard", "bosun", "bowline", "bridge",
    "buoy", "cable", "capstan", "cleat", "clipper", "compass", "coxswain", "crane", "cutter",
    "davit", "dinghy", "dory", "fairlead", "fender", "galley", "gangway", "halyard", "harbour",
    "hawser", "helm", "jetty", "keel", "ketch", "lantern", "lighter", "lugger", "mast", "mooring",
    "oar", "pilot", "pulley", "quay", "rigging", "rudder", "schooner", "sextant", "shackle",
    "tiller", "winch",
];

/// A name for the given random number; `attempt` > 0 adds a digit, as Docker does.
pub fn generate(random: u64, attempt: u32) -> String {
    let adjective = ADJECTIVES[(random % ADJECTIVES.len() as u64) as usize];
    let thing = THINGS[(random / ADJECTIVES.len() as u64 % THINGS.len() as u64) as usize];
    if attempt == 0 {
        format!("{adjective}_{thing}")
    } else {
        format!("{adjective}_{thing}{attempt}")
    }
}

/// Whether a user may choose this name: `[a-zA-Z0-9][a-zA-Z0-9_.-]+`.
pub fn is_valid(name: &str) -> bool {
    name.len() >= 2
        && name.starts_with(|c: char| c.is_ascii_alphanumeric())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"_.-".contains(&b))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn generated_names_are_valid() {
        for random in 0..3000 {
            assert!(is_valid(&generate(random, (random % 3) as u32)));
        }
        for bad in ["", "a", "-a", "a b", "a/b", "ü1"] {
            assert!(!is_valid(bad), "{bad}");
        }
    }
}
