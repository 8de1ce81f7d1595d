//! The machines whose programs this kernel can run, and the numbers of their system calls by name.

use std::str::FromStr as _;

/// One of them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Machine {
    /// x86_64.
    Amd64,
    /// 32-bit x86.
    X86,
    /// 32-bit pointers on x86_64.
    X32,
    /// aarch64.
    Arm64,
    /// 32-bit ARM.
    Arm,
}

/// Marks the numbers of x32.
const X32_BIT: u32 = 0x4000_0000;
/// x32 has numbers of its own for what has pointers in memory, from 512 on.
#[cfg(target_arch = "x86_64")]
const X32_OWN: [&str; 36] = [
    "rt_sigaction",
    "rt_sigreturn",
    "ioctl",
    "readv",
    "writev",
    "recvfrom",
    "sendmsg",
    "recvmsg",
    "execve",
    "ptrace",
    "rt_sigpending",
    "rt_sigtimedwait",
    "rt_sigqueueinfo",
    "sigaltstack",
    "timer_create",
    "mq_notify",
    "kexec_load",
    "waitid",
    "set_robust_list",
    "get_robust_list",
    "vmsplice",
    "move_pages",
    "preadv",
    "pwritev",
    "rt_tgsigqueueinfo",
    "recvmmsg",
    "sendmmsg",
    "process_vm_readv",
    "process_vm_writev",
    "setsockopt",
    "getsockopt",
    "io_setup",
    "io_submit",
    "execveat",
    "preadv2",
    "pwritev2",
];
/// From here on numbers are the same on every machine.
const COMMON: u32 = 424;

impl Machine {
    /// This one.
    #[cfg(target_arch = "x86_64")]
    pub const NATIVE: Self = Self::Amd64;
    /// This one.
    #[cfg(target_arch = "aarch64")]
    pub const NATIVE: Self = Self::Arm64;

    /// By the name in a profile (`SCMP_ARCH_X86`); others cannot be run here.
    pub fn named(name: &str) -> Option<Self> {
        let machine = match name.strip_prefix("SCMP_ARCH_")? {
            "X86_64" => Self::Amd64,
            "X86" => Self::X86,
            "X32" => Self::X32,
            "AARCH64" => Self::Arm64,
            "ARM" => Self::Arm,
            _ => return None,
        };
        let family = |m: Self| matches!(m, Self::Arm64 | Self::Arm);
        (family(machine) == family(Self::NATIVE)).then_some(machine)
    }

    /// With all that run here beside it.
    pub fn family() -> Vec<Self> {
        match Self::NATIVE {
            Self::Arm64 => vec![Self::Arm64, Self::Arm],
            _ => vec![Self::Amd64, Self::X32, Self::X86],
        }
    }

    /// As profiles' conditions call it.
    pub fn go_name(self) -> &'static str {
        match self {
            Self::Amd64 => "amd64",
            Self::X86 => "x86",
            Self::X32 => "x32",
            Self::Arm64 => "arm64",
            Self::Arm => "arm",
        }
    }

    /// The kernel's number for it (`AUDIT_ARCH_…`).
    pub fn audit(self) -> u32 {
        match self {
            Self::Amd64 | Self::X32 => 0xc000_003e,
            Self::X86 => 0x4000_0003,
            Self::Arm64 => 0xc000_00b7,
            Self::Arm => 0x4000_0028,
        }
    }

    /// The least number that its calls have.
    pub fn least(self) -> u32 {
        if self == Self::X32 { X32_BIT } else { 0 }
    }

    /// The highest number that its calls can have.
    pub fn most(self) -> u32 {
        if self == Self::Amd64 {
            X32_BIT - 1
        } else {
            u32::MAX
        }
    }

    /// A call's number, if there is one.
    pub fn number(self, name: &str) -> Option<u32> {
        let number = match self {
            #[cfg(target_arch = "x86_64")]
            Self::Amd64 => syscalls::x86_64::Sysno::from_str(name).ok()?.id(),
            #[cfg(target_arch = "x86_64")]
            Self::X32 => return x32(name),
            #[cfg(target_arch = "aarch64")]
            Self::Arm64 => syscalls::aarch64::Sysno::from_str(name).ok()?.id(),
            Self::X86 => syscalls::x86::Sysno::from_str(name).ok()?.id(),
            Self::Arm => syscalls::arm::Sysno::from_str(name).ok()?.id(),
            #[allow(unreachable_patterns)]
            _ => return None,
        };
        u32::try_from(number).ok()
    }

    /// The name of a call of the native machine.
    pub fn name(number: u32) -> Option<&'static str> {
        let found = syscalls::Sysno::new(usize::try_from(number).ok()?)?;
        Some(found.name())
    }

    /// The number there of a call of the native machine.
    pub fn translate(self, native: u32) -> Option<u32> {
        match (self, native) {
            (Self::X32, n) if n >= COMMON => Some(n | X32_BIT),
            (_, n) if n >= COMMON => Some(n),
            _ => self.number(Self::name(native)?),
        }
    }
}

#[cfg(target_arch = "x86_64")]
fn x32(name: &str) -> Option<u32> {
    let own = X32_OWN.iter().position(|n| *n == name);
    let number = match own {
        Some(at) => 512 + u32::try_from(at).ok()?,
        None => Machine::Amd64.number(name)?,
    };
    Some(number | X32_BIT)
}

#[cfg(all(test, target_arch = "x86_64"))]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        assert_eq!(Machine::Amd64.number("read"), Some(0));
        assert_eq!(Machine::X86.number("read"), Some(3));
        assert_eq!(Machine::X86.number("clock_gettime64"), Some(403));
        assert_eq!(Machine::X32.number("read"), Some(X32_BIT));
        assert_eq!(Machine::X32.number("execve"), Some(X32_BIT | 520));
        assert_eq!(Machine::X32.number("pwritev2"), Some(X32_BIT | 547));
        assert_eq!(Machine::X86.translate(59), Some(11), "execve");
        assert_eq!(Machine::X86.translate(435), Some(435));
        assert_eq!(Machine::named("SCMP_ARCH_X86"), Some(Machine::X86));
        assert_eq!(Machine::named("SCMP_ARCH_AARCH64"), None);
        assert_eq!(Machine::Amd64.number("nosuch"), None);
    }
}
