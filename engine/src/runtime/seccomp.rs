//! Docker's default filter of system calls as a program for the kernel, for x86_64 and aarch64.
//!
//! Deliberately absent: profiles of users, and 32-bit programs (killed when a filter is on).

use libc::{
    BPF_ABS, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_JSET, BPF_K, BPF_LD, BPF_RET, BPF_W,
    sock_filter,
};

use super::capability::has;
use super::syscalls;

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const KILL: u32 = libc::SECCOMP_RET_KILL_PROCESS;
const REFUSE: u32 = libc::SECCOMP_RET_ERRNO | libc::EPERM as u32;
const UNKNOWN: u32 = libc::SECCOMP_RET_ERRNO | libc::ENOSYS as u32;

#[cfg(target_arch = "x86_64")]
const ARCHITECTURE: u32 = 0xc000_003e;
#[cfg(target_arch = "aarch64")]
const ARCHITECTURE: u32 = 0xc000_00b7;

/// Flags of `clone` that make namespaces.
const NAMESPACES: u32 = 0x7e02_0000;
const PERSONALITIES: [u32; 5] = [0, 0x8, 0x2_0000, 0x2_0008, u32::MAX];
/// The newest system call that the profile knows of: what is newer gets ENOSYS, so that programs fall back.
const NEWEST: u32 = 466;

fn statement(code: u32, k: u32) -> sock_filter {
    sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    }
}

fn jump(test: u32, k: u32, jt: u8, jf: u8) -> sock_filter {
    sock_filter {
        code: (BPF_JMP | test | BPF_K) as u16,
        jt,
        jf,
        k,
    }
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn answer(action: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, action)
}

/// The filter for a process with these capabilities.
pub fn program(capabilities: u64) -> Vec<sock_filter> {
    let mut code = vec![
        load(4),
        jump(BPF_JEQ, ARCHITECTURE, 1, 0),
        answer(KILL),
        load(0),
    ];
    // x32 calls of x86_64 lie above it too.
    code.extend([jump(BPF_JGT, NEWEST, 0, 1), answer(UNKNOWN)]);
    if !has(capabilities, "SYS_ADMIN") {
        code.extend([
            jump(BPF_JEQ, libc::SYS_clone as u32, 0, 4),
            load(16),
            jump(BPF_JSET, NAMESPACES, 0, 1),
            answer(REFUSE),
            answer(ALLOW),
        ]);
        code.extend([
            jump(BPF_JEQ, syscalls::CLONE3 as u32, 0, 1),
            answer(UNKNOWN),
        ]);
    }
    code.extend([
        jump(BPF_JEQ, libc::SYS_socket as u32, 0, 4),
        load(16),
        jump(BPF_JEQ, libc::AF_VSOCK as u32, 0, 1),
        answer(REFUSE),
        answer(ALLOW),
    ]);
    let known = PERSONALITIES.len() as u8;
    code.push(jump(BPF_JEQ, libc::SYS_personality as u32, 0, known + 3));
    code.push(load(16));
    for (index, value) in PERSONALITIES.iter().enumerate() {
        code.push(jump(BPF_JEQ, *value, known - index as u8, 0));
    }
    code.extend([answer(REFUSE), answer(ALLOW)]);
    for (first, last) in ranges(syscalls::allowed(capabilities)) {
        code.extend([
            jump(BPF_JGE, first, 0, 2),
            jump(BPF_JGT, last, 1, 0),
            answer(ALLOW),
        ]);
    }
    code.push(answer(REFUSE));
    code
}

/// Neighbours joined.
fn ranges(mut numbers: Vec<i64>) -> Vec<(u32, u32)> {
    numbers.sort_unstable();
    let mut ranges: Vec<(u32, u32)> = Vec::new();
    for number in numbers.into_iter().map(|n| n as u32) {
        match ranges.last_mut() {
            Some((_, last)) if number <= *last + 1 => *last = number,
            _ => ranges.push((number, number)),
        }
    }
    ranges
}

/// Puts the filter on this process, for good; needs CAP_SYS_ADMIN or `no_new_privs`.
#[allow(unsafe_code)]
pub fn install(program: &[sock_filter]) -> std::io::Result<()> {
    let filter = libc::sock_fprog {
        len: program.len() as u16,
        filter: program.as_ptr().cast_mut(),
    };
    // SAFETY: the kernel reads `len` instructions at `filter`, which outlive the call.
    let done = unsafe {
        libc::syscall(
            libc::SYS_seccomp,
            libc::SECCOMP_SET_MODE_FILTER,
            0,
            &raw const filter,
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
    use super::*;
    use crate::runtime::capability::{ALL, DEFAULT};

    /// What the kernel would decide.
    fn run(code: &[sock_filter], number: i64, argument: u32) -> u32 {
        let (mut a, mut at) = (0, 0);
        loop {
            let step = code[at];
            at += 1;
            let op = u32::from(step.code);
            if op == BPF_RET | BPF_K {
                return step.k;
            } else if op == BPF_LD | BPF_W | BPF_ABS {
                a = match step.k {
                    0 => number as u32,
                    4 => ARCHITECTURE,
                    16 => argument,
                    other => panic!("load of {other}"),
                };
            } else {
                let holds = match op & 0xf0 {
                    BPF_JEQ => a == step.k,
                    BPF_JGT => a > step.k,
                    BPF_JGE => a >= step.k,
                    BPF_JSET => a & step.k != 0,
                    other => panic!("jump {other}"),
                };
                at += usize::from(if holds { step.jt } else { step.jf });
            }
        }
    }

    #[test]
    fn decisions() {
        let plain = program(DEFAULT);
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
        assert_eq!(run(&plain, 0x4000_0000, 0), UNKNOWN);
        assert_eq!(run(&plain, libc::SYS_clone, 0x1200_0011), REFUSE);
        assert_eq!(run(&plain, libc::SYS_clone, 0x0120_0011), ALLOW);
        assert_eq!(run(&plain, libc::SYS_socket, libc::AF_VSOCK as u32), REFUSE);
        assert_eq!(run(&plain, libc::SYS_socket, libc::AF_INET as u32), ALLOW);
        for value in PERSONALITIES {
            assert_eq!(run(&plain, libc::SYS_personality, value), ALLOW);
        }
        assert_eq!(run(&plain, libc::SYS_personality, 0x40_0000), REFUSE);
        let mighty = program(ALL);
        for number in [libc::SYS_mount, libc::SYS_clone, 435, libc::SYS_setns] {
            assert_eq!(run(&mighty, number, 0x1200_0011), ALLOW, "{number}");
        }
        assert_eq!(run(&mighty, libc::SYS_keyctl, 0), REFUSE);
    }
}
