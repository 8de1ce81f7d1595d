//! A user's profile in Docker's JSON → rules: what it includes and excludes is settled by the container's capabilities, the kernel and
//! the machine. Pure but for asking for the kernel's version.
//!
//! Deliberately absent: `SCMP_ACT_NOTIFY`, which needs somebody who listens.

use serde::Deserialize;

use super::assembly::{Calls, Compare, Condition, Policy, Rule};
use super::machine::Machine;
use crate::runtime::capability::has;

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Profile {
    default_action: String,
    default_errno_ret: Option<u32>,
    architectures: Vec<String>,
    arch_map: Vec<Family>,
    flags: Vec<String>,
    listener_path: String,
    syscalls: Vec<Entry>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Family {
    architecture: String,
    sub_architectures: Vec<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Entry {
    name: String,
    names: Vec<String>,
    action: String,
    errno_ret: Option<u32>,
    args: Vec<Argument>,
    includes: Filter,
    excludes: Filter,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Argument {
    index: u8,
    value: u64,
    value_two: u64,
    op: String,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
struct Filter {
    caps: Vec<String>,
    arches: Vec<String>,
    min_kernel: String,
}

/// What the profile is read for.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// The container's capabilities.
    pub capabilities: u64,
    /// The kernel's version.
    pub kernel: (u32, u32),
}

impl Place {
    /// On this kernel.
    pub fn here(capabilities: u64) -> Self {
        let release = nix::sys::utsname::uname().ok();
        let release = release.map(|u| u.release().to_string_lossy().into_owned());
        let kernel = version(&release.unwrap_or_default()).unwrap_or_default();
        Self {
            capabilities,
            kernel,
        }
    }
}

/// A profile's policy, and the flags for its installation; an error is a sentence for the user.
pub fn read(text: &str, place: Place) -> Result<(Policy, u64), String> {
    let profile: Profile = windlass_engine_api::from_slice(text.as_bytes())
        .map_err(|e| format!("decoding seccomp profile failed: {e}"))?;
    if !profile.listener_path.is_empty() {
        return Err("seccomp profiles with a listener are not supported".to_owned());
    }
    if !profile.architectures.is_empty() && !profile.arch_map.is_empty() {
        return Err("'architectures' and 'archMap' were specified in the seccomp profile, use either 'architectures' or 'archMap'".to_owned());
    }
    let default = action(&profile.default_action, profile.default_errno_ret)?;
    let mut rules = Vec::new();
    for entry in profile.syscalls {
        if applies(&entry, place)? {
            add(&mut rules, entry)?;
        }
    }
    let refuses = matches!(default & ERRNO_MASK, libc::SECCOMP_RET_ERRNO);
    let policy = Policy {
        machines: machines(&profile.architectures, &profile.arch_map),
        default,
        unknown: refuses.then_some(libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32),
        rules,
    };
    Ok((policy, flags(&profile.flags)?))
}

const ERRNO_MASK: u32 = 0xffff_0000;

fn flags(names: &[String]) -> Result<u64, String> {
    let mut flags = 0;
    for name in names {
        flags |= match name.as_str() {
            // There is one thread.
            "SECCOMP_FILTER_FLAG_TSYNC" => 0,
            "SECCOMP_FILTER_FLAG_LOG" => libc::SECCOMP_FILTER_FLAG_LOG,
            "SECCOMP_FILTER_FLAG_SPEC_ALLOW" => libc::SECCOMP_FILTER_FLAG_SPEC_ALLOW,
            other => return Err(format!("seccomp flag {other:?} is not known")),
        };
    }
    Ok(flags)
}

/// The native machine, with those that the profile names.
fn machines(plain: &[String], map: &[Family]) -> Vec<Machine> {
    let native = |f: &&Family| Machine::named(&f.architecture) == Some(Machine::NATIVE);
    let of_map = map.iter().filter(native).flat_map(|f| &f.sub_architectures);
    let named: Vec<Machine> = plain
        .iter()
        .chain(of_map)
        .filter_map(|n| Machine::named(n))
        .collect();
    let mut machines = Machine::family();
    machines.retain(|m| *m == Machine::NATIVE || named.contains(m));
    machines
}

fn action(name: &str, errno: Option<u32>) -> Result<u32, String> {
    let number = errno.unwrap_or(libc::EPERM as u32) & 0xffff;
    Ok(match name {
        "SCMP_ACT_KILL" | "SCMP_ACT_KILL_THREAD" => libc::SECCOMP_RET_KILL_THREAD,
        "SCMP_ACT_KILL_PROCESS" => libc::SECCOMP_RET_KILL_PROCESS,
        "SCMP_ACT_TRAP" => libc::SECCOMP_RET_TRAP,
        "SCMP_ACT_ERRNO" => libc::SECCOMP_RET_ERRNO | number,
        "SCMP_ACT_TRACE" => libc::SECCOMP_RET_TRACE | number,
        "SCMP_ACT_ALLOW" => libc::SECCOMP_RET_ALLOW,
        "SCMP_ACT_LOG" => libc::SECCOMP_RET_LOG,
        "SCMP_ACT_NOTIFY" => {
            return Err("seccomp profiles with SCMP_ACT_NOTIFY are not supported".to_owned());
        }
        "" => return Err("seccomp profile: an action is missing".to_owned()),
        other => return Err(format!("seccomp profile: unknown action {other:?}")),
    })
}

fn applies(entry: &Entry, place: Place) -> Result<bool, String> {
    let cap = |name: &String| {
        let short = name.strip_prefix("CAP_").unwrap_or(name);
        has(place.capabilities, short)
    };
    let arch = |names: &[String]| names.iter().any(|n| n == Machine::NATIVE.go_name());
    let new_enough = |wanted: &str| match wanted {
        "" => Ok(None),
        text => match version(text) {
            Some(wanted) => Ok(Some(place.kernel >= wanted)),
            None => Err(format!("seccomp profile: invalid kernel version {text:?}")),
        },
    };
    let (yes, no) = (&entry.includes, &entry.excludes);
    if arch(&no.arches) || no.caps.iter().any(cap) || new_enough(&no.min_kernel)? == Some(true) {
        return Ok(false);
    }
    let kernel = new_enough(&yes.min_kernel)? != Some(false);
    Ok(kernel && (yes.arches.is_empty() || arch(&yes.arches)) && yes.caps.iter().all(cap))
}

/// `4.8`, `6.1.0-13-amd64`.
fn version(text: &str) -> Option<(u32, u32)> {
    let mut numbers = text.split(|c: char| !c.is_ascii_digit());
    Some((numbers.next()?.parse().ok()?, numbers.next()?.parse().ok()?))
}

fn add(rules: &mut Vec<Rule>, entry: Entry) -> Result<(), String> {
    let Entry {
        name, mut names, ..
    } = entry;
    if !name.is_empty() && !names.is_empty() {
        return Err("'name' and 'names' were specified in the seccomp profile, use either 'name' or 'names'".to_owned());
    }
    names.extend(Some(name).filter(|n| !n.is_empty()));
    let rule = |conditions| -> Result<Rule, String> {
        Ok(Rule {
            calls: Calls::Named(names.clone()),
            action: action(&entry.action, entry.errno_ret)?,
            conditions,
        })
    };
    let conditions: Vec<Condition> = entry.args.iter().map(condition).collect::<Result<_, _>>()?;
    let twice = |c: &Condition| {
        conditions
            .iter()
            .filter(|o| o.argument == c.argument)
            .count()
            > 1
    };
    if conditions.iter().any(twice) {
        // Several of one argument are alternatives.
        for condition in conditions {
            rules.push(rule(vec![condition])?);
        }
    } else {
        rules.push(rule(conditions)?);
    }
    Ok(())
}

fn condition(argument: &Argument) -> Result<Condition, String> {
    let value = argument.value;
    let compare = match argument.op.as_str() {
        "SCMP_CMP_NE" => Compare::NotEqual(value),
        "SCMP_CMP_LT" => Compare::Less(value),
        "SCMP_CMP_LE" => Compare::AtMost(value),
        "SCMP_CMP_EQ" => Compare::Equal(value),
        "SCMP_CMP_GE" => Compare::AtLeast(value),
        "SCMP_CMP_GT" => Compare::Greater(value),
        "SCMP_CMP_MASKED_EQ" => Compare::Masked {
            mask: value,
            value: argument.value_two,
        },
        other => return Err(format!("seccomp profile: unknown comparison {other:?}")),
    };
    if argument.index > 5 {
        return Err(format!(
            "seccomp profile: there is no argument {}",
            argument.index
        ));
    }
    Ok(Condition {
        argument: argument.index,
        compare,
    })
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::super::assembly::{decide, program};
    use super::*;

    const PROFILE: &str = r#"{
        "defaultAction": "SCMP_ACT_ERRNO", "defaultErrnoRet": 38,
        "archMap": [{"architecture": "SCMP_ARCH_X86_64", "subArchitectures": ["SCMP_ARCH_X86"]}],
        "syscalls": [
            {"names": ["read", "write", "nosuch"], "action": "SCMP_ACT_ALLOW", "args": null},
            {"names": ["ptrace"], "action": "SCMP_ACT_ALLOW", "includes": {"minKernel": "4.8"}},
            {"names": ["mount"], "action": "SCMP_ACT_ALLOW", "includes": {"caps": ["CAP_SYS_ADMIN"]}},
            {"names": ["mkdir"], "action": "SCMP_ACT_ERRNO", "errnoRet": 13},
            {"names": ["rmdir"], "action": "SCMP_ACT_ALLOW", "excludes": {"arches": ["amd64"]}},
            {"names": ["personality"], "action": "SCMP_ACT_ALLOW", "args": [
                {"index": 0, "value": 0, "op": "SCMP_CMP_EQ"}, {"index": 0, "value": 8, "op": "SCMP_CMP_EQ"}]},
            {"name": "clone", "action": "SCMP_ACT_LOG", "args": [
                {"index": 0, "value": 2114060288, "valueTwo": 0, "op": "SCMP_CMP_MASKED_EQ"}]}
        ]}"#;

    fn run(text: &str, place: Place, machine: Machine, number: u32, first: u64) -> u32 {
        let (policy, _) = read(text, place).unwrap();
        let code = program(&policy).unwrap();
        decide(&code, machine.audit(), number, [first, 0, 0, 0, 0, 0])
    }

    #[test]
    fn a_profile_of_docker() {
        use libc::{SECCOMP_RET_ALLOW as ALLOW, SECCOMP_RET_ERRNO as ERRNO};
        let place = Place {
            capabilities: 0,
            kernel: (5, 10),
        };
        let mighty = Place {
            capabilities: u64::MAX,
            kernel: (4, 7),
        };
        let native = |name: &str| Machine::Amd64.number(name).unwrap();
        let run_native =
            |place, name, first| run(PROFILE, place, Machine::Amd64, native(name), first);
        assert_eq!(run_native(place, "read", 0), ALLOW);
        assert_eq!(
            run(PROFILE, place, Machine::X86, 3, 0),
            ALLOW,
            "32-bit read"
        );
        assert_eq!(
            run(PROFILE, place, Machine::X32, 0x4000_0000, 0),
            libc::SECCOMP_RET_KILL_PROCESS
        );
        assert_eq!(
            run(PROFILE, place, Machine::Arm, 3, 0),
            libc::SECCOMP_RET_KILL_PROCESS
        );
        assert_eq!(run_native(place, "open", 0), ERRNO | 38);
        assert_eq!(run_native(place, "ptrace", 0), ALLOW);
        assert_eq!(run_native(mighty, "ptrace", 0), ERRNO | 38);
        assert_eq!(run_native(place, "mount", 0), ERRNO | 38);
        assert_eq!(run_native(mighty, "mount", 0), ALLOW);
        assert_eq!(run_native(place, "mkdir", 0), ERRNO | 13);
        assert_eq!(run_native(place, "rmdir", 0), ERRNO | 38);
        assert_eq!(run_native(place, "personality", 8), ALLOW);
        assert_eq!(run_native(place, "personality", 9), ERRNO | 38);
        assert_eq!(run_native(place, "clone", 17), libc::SECCOMP_RET_LOG);
        assert_eq!(run_native(place, "clone", 0x1000_0000), ERRNO | 38);
    }

    #[test]
    fn refusals() {
        let place = Place::here(0);
        assert!(place.kernel > (2, 0));
        for (text, words) in [
            ("{", "decoding seccomp profile failed"),
            ("{}", "an action is missing"),
            (r#"{"defaultAction":"SCMP_ACT_NOTIFY"}"#, "SCMP_ACT_NOTIFY"),
            (r#"{"defaultAction":"x"}"#, "unknown action"),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","architectures":["a"],"archMap":[{"architecture":"a"}]}"#,
                "'architectures' and 'archMap'",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","names":["a"],"action":"SCMP_ACT_ALLOW"}]}"#,
                "'name' and 'names'",
            ),
            (
                r#"{"defaultAction":"SCMP_ACT_ALLOW","syscalls":[{"name":"a","action":"SCMP_ACT_ALLOW","args":[{"index":7,"op":"SCMP_CMP_EQ"}]}]}"#,
                "no argument 7",
            ),
        ] {
            let error = read(text, place).unwrap_err();
            assert!(error.contains(words), "{error} / {words}");
        }
    }
}
