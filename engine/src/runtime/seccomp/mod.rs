//! Filters of system calls: Docker's default one, and those that users' profiles describe, as programs for the kernel.
//!
//! The engine makes them, once for each set of capabilities, and sends them to the shims; these only install them.

mod assembly;
mod calls;
mod machine;
mod profile;

use std::collections::BTreeMap;
use std::sync::{Mutex, PoisonError};

use libc::sock_filter;
use serde::{Deserialize, Serialize};

use super::capability::has;
use assembly::{Calls, Compare, Condition, Policy, Rule};
use machine::Machine;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

/// Flags of `clone` that make namespaces.
const NAMESPACES: u64 = 0x7e02_0000;
const PERSONALITIES: [u64; 5] = [0, 0x8, 0x2_0000, 0x2_0008, 0xffff_ffff];

/// A program for the kernel, as it goes to a shim.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Filter {
    /// `SECCOMP_FILTER_FLAG_…`.
    pub flags: u64,
    /// Instructions of 8 bytes, in hex.
    pub code: String,
}

impl Filter {
    fn new(program: &[sock_filter], flags: u64) -> Self {
        let bytes = program.iter().flat_map(|step| {
            let [a, b] = step.code.to_ne_bytes();
            let [c, d, e, f] = step.k.to_ne_bytes();
            [a, b, step.jt, step.jf, c, d, e, f]
        });
        Self {
            flags,
            code: hex::encode(bytes.collect::<Vec<u8>>()),
        }
    }

    fn program(&self) -> std::io::Result<Vec<sock_filter>> {
        let bytes = hex::decode(&self.code).map_err(std::io::Error::other)?;
        let step = |b: &[u8]| sock_filter {
            code: u16::from_ne_bytes([b[0], b[1]]),
            jt: b[2],
            jf: b[3],
            k: u32::from_ne_bytes([b[4], b[5], b[6], b[7]]),
        };
        Ok(bytes.chunks_exact(8).map(step).collect())
    }
}

/// Docker's default for a process with these capabilities.
pub fn default_filter(capabilities: u64) -> Filter {
    static MADE: Mutex<BTreeMap<u64, Filter>> = Mutex::new(BTreeMap::new());
    let mut made = MADE.lock().unwrap_or_else(PoisonError::into_inner);
    let make = || Filter::new(&default_program(capabilities), 0);
    made.entry(capabilities).or_insert_with(make).clone()
}

/// A user's profile for a process with these capabilities; an error is a sentence for the user.
pub fn filter(profile: &str, capabilities: u64) -> Result<Filter, String> {
    let (policy, flags) = profile::read(profile, profile::Place::here(capabilities))?;
    let program = assembly::program(&policy)
        .ok_or("the seccomp profile makes a longer program than the kernel takes")?;
    Ok(Filter::new(&program, flags))
}

fn default_program(capabilities: u64) -> Vec<sock_filter> {
    let named = |names: &[&str], action, conditions| Rule {
        calls: Calls::Named(names.iter().map(|n| (*n).to_owned()).collect()),
        action,
        conditions,
    };
    let first = |compare| {
        vec![Condition {
            argument: 0,
            compare,
        }]
    };
    let mut rules = Vec::new();
    if !has(capabilities, "SYS_ADMIN") {
        let (mask, value) = (NAMESPACES, 0);
        rules.push(named(
            &["clone"],
            ALLOW,
            first(Compare::Masked { mask, value }),
        ));
        // Its flags are in memory, out of sight.
        rules.push(named(&["clone3"], UNKNOWN, Vec::new()));
    }
    let vsock = Compare::NotEqual(libc::AF_VSOCK as u64);
    rules.push(named(&["socket"], ALLOW, first(vsock)));
    for value in PERSONALITIES {
        rules.push(named(&["personality"], ALLOW, first(Compare::Equal(value))));
    }
    let allowed = calls::allowed(capabilities).into_iter();
    rules.push(Rule {
        calls: Calls::Native(allowed.map(|n| n as u32).collect()),
        action: ALLOW,
        conditions: Vec::new(),
    });
    rules.push(named(&calls::narrow(capabilities), ALLOW, Vec::new()));
    let policy = Policy {
        machines: Machine::family(),
        default: REFUSE,
        unknown: Some(UNKNOWN),
        rules,
    };
    // Its length is known; were it too long, nothing would be allowed.
    assembly::program(&policy).unwrap_or_default()
}

/// Puts the filter on this process, for good; needs CAP_SYS_ADMIN or `no_new_privs`.
#[allow(unsafe_code)]
pub fn install(filter: &Filter) -> std::io::Result<()> {
    let program = filter.program()?;
    let kernels = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads `len` instructions at `filter`, which outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            filter.flags,
            &raw const kernels,
        )
    };
    if done == 0 {
        Ok(())
    } else {
        Err(std::io::Error::last_os_error())
    }
}

#[cfg(test)]
mod tests {
    use super::assembly::decide;
    use super::*;
    use crate::runtime::capability::{ALL, DEFAULT};

    fn run(code: &[sock_filter], number: i64, argument: u64) -> u32 {
        let arguments = [argument, 0, 0, 0, 0, 0];
        decide(code, Machine::NATIVE.audit(), number as u32, arguments)
    }

    #[test]
    fn decisions() {
        let plain = default_program(DEFAULT);
        for number in [
            libc::SYS_read,
            libc::SYS_openat,
            libc::SYS_execve,
            libc::SYS_seccomp,
            libc::SYS_chroot,
            435 + 1,
        ] {
            assert_eq!(run(&plain, number, 0), ALLOW, "{number}");
        }
        for number in [
            libc::SYS_mount,
            libc::SYS_unshare,
            libc::SYS_keyctl,
            libc::SYS_bpf,
            libc::SYS_reboot,
            libc::SYS_setns,
        ] {
            assert_eq!(run(&plain, number, 0), REFUSE, "{number}");
        }
        assert_eq!(run(&plain, 435, 0), UNKNOWN);
        assert_eq!(run(&plain, 5000, 0), UNKNOWN);
        assert_eq!(run(&plain, libc::SYS_clone, 0x1200_0011), REFUSE);
        assert_eq!(run(&plain, libc::SYS_clone, 0x0120_0011), ALLOW);
        assert_eq!(run(&plain, libc::SYS_socket, libc::AF_VSOCK as u64), REFUSE);
        assert_eq!(run(&plain, libc::SYS_socket, libc::AF_INET as u64), ALLOW);
        for value in PERSONALITIES {
            assert_eq!(run(&plain, libc::SYS_personality, value), ALLOW);
        }
        assert_eq!(run(&plain, libc::SYS_personality, 0x40_0000), REFUSE);
        let mighty = default_program(ALL);
        for number in [libc::SYS_mount, libc::SYS_clone, 435, libc::SYS_setns] {
            assert_eq!(run(&mighty, number, 0x1200_0011), ALLOW, "{number}");
        }
        assert_eq!(run(&mighty, libc::SYS_keyctl, 0), REFUSE);
    }

    #[cfg(target_arch = "x86_64")]
    #[test]
    fn programs_of_32_bits() {
        let plain = default_program(DEFAULT);
        let run = |machine: Machine, name: &str, argument| {
            let number = machine.number(name).unwrap();
            decide(&plain, machine.audit(), number, [argument, 0, 0, 0, 0, 0])
        };
        for machine in [Machine::X86, Machine::X32] {
            for name in ["read", "execve", "openat", "futex", "exit_group"] {
                assert_eq!(run(machine, name, 0), ALLOW, "{machine:?} {name}");
            }
            for name in ["mount", "unshare", "reboot", "keyctl"] {
                assert_eq!(run(machine, name, 0), REFUSE, "{machine:?} {name}");
            }
            assert_eq!(run(machine, "clone", 0x1200_0011), REFUSE);
            assert_eq!(run(machine, "clone", 0x0120_0011), ALLOW);
            assert_eq!(run(machine, "clone3", 0), UNKNOWN);
        }
        for name in [
            "mmap2",
            "fstat64",
            "clock_gettime64",
            "socketcall",
            "set_thread_area",
        ] {
            assert_eq!(run(Machine::X86, name, 0), ALLOW, "{name}");
        }
        assert_eq!(run(Machine::X86, "umount", 0), REFUSE);
        let other = decide(&plain, Machine::Arm.audit(), 3, [0; 6]);
        assert_eq!(other, libc::SECCOMP_RET_KILL_PROCESS);
    }

    #[test]
    fn a_filter_travels() {
        let filter = default_filter(DEFAULT);
        assert_eq!(Filter::new(&filter.program().unwrap(), 0), filter);
        assert!(filter.code.len() < 16 * 1500, "{}", filter.code.len() / 16);
    }
}
