//! Which devices a control group may use: lists for v1, a small program in the kernel for v2.

use std::io::{Error, Result};
use std::os::fd::{AsRawFd as _, FromRawFd as _, OwnedFd};
use std::path::Path;

use fs_err as fs;

use super::cgroup::Group;
use super::task::DeviceRule;

/// Everything that no rule allows is refused from now on.
pub fn restrict(group: &Group, rules: &[DeviceRule]) -> Result<()> {
    if group.is_v2() {
        let folder = group
            .unified()
            .ok_or_else(|| Error::other("no control groups of version 2 are mounted"))?;
        return attach(&folder, &program(rules));
    }
    let Some(folder) = group.controller("devices") else {
        return Err(Error::other("the kernel has no controller 'devices'"));
    };
    fs::write(folder.join("devices.deny"), "a")?;
    for rule in rules {
        fs::write(folder.join("devices.allow"), text(rule))?;
    }
    Ok(())
}

fn text(rule: &DeviceRule) -> String {
    let number = |n: Option<u32>| n.map_or("*".to_owned(), |n| n.to_string());
    let (major, minor) = (number(rule.major), number(rule.minor));
    format!("{} {major}:{minor} {}", rule.kind, rule.access)
}

/// An instruction of the kernel's virtual machine.
#[repr(C)]
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Instruction {
    code: u8,
    /// Destination in the lower four bits, source in the upper.
    registers: u8,
    offset: i16,
    immediate: i32,
}

const fn op(code: u8, to: u8, from: u8, offset: i16, immediate: i32) -> Instruction {
    Instruction {
        code,
        registers: to | (from << 4),
        offset,
        immediate,
    }
}

const LOAD_WORD: u8 = 0x61;
const MOVE: u8 = 0xbf;
const MOVE_NUMBER: u8 = 0xb7;
const AND: u8 = 0x57;
const SHIFT_RIGHT: u8 = 0x77;
const JUMP_NOT_EQUAL: u8 = 0x55;
const JUMP_NOT_EQUAL_REGISTER: u8 = 0x5d;
const EXIT: u8 = 0x95;

/// Context: `access << 16 | type`, major, minor. Types: block 1, character 2; access: mknod 1, read 2, write 4.
fn program(rules: &[DeviceRule]) -> Vec<Instruction> {
    let mut code = vec![
        op(LOAD_WORD, 2, 1, 0, 0),
        op(MOVE, 3, 2, 0, 0),
        op(AND, 2, 0, 0, 0xffff),
        op(SHIFT_RIGHT, 3, 0, 0, 16),
        op(LOAD_WORD, 4, 1, 4, 0),
        op(LOAD_WORD, 5, 1, 8, 0),
    ];
    for rule in rules {
        code.extend(compile(rule));
    }
    code.extend([op(MOVE_NUMBER, 0, 0, 0, 0), op(EXIT, 0, 0, 0, 0)]);
    code
}

/// Every test that fails jumps behind the rule.
fn compile(rule: &DeviceRule) -> Vec<Instruction> {
    let mut code = Vec::new();
    match rule.kind {
        'b' => code.push(op(JUMP_NOT_EQUAL, 2, 0, 0, 1)),
        'c' => code.push(op(JUMP_NOT_EQUAL, 2, 0, 0, 2)),
        _ => {}
    }
    let bit = |letter, bit| if rule.access.contains(letter) { bit } else { 0 };
    let access = bit('m', 1) | bit('r', 2) | bit('w', 4);
    if access != 7 {
        code.push(op(MOVE, 1, 3, 0, 0));
        code.push(op(AND, 1, 0, 0, access));
        code.push(op(JUMP_NOT_EQUAL_REGISTER, 1, 3, 0, 0));
    }
    if let Some(major) = rule.major {
        code.push(op(JUMP_NOT_EQUAL, 4, 0, 0, major as i32));
    }
    if let Some(minor) = rule.minor {
        code.push(op(JUMP_NOT_EQUAL, 5, 0, 0, minor as i32));
    }
    code.extend([op(MOVE_NUMBER, 0, 0, 0, 1), op(EXIT, 0, 0, 0, 0)]);
    let length = code.len();
    for (index, step) in code.iter_mut().enumerate() {
        if matches!(step.code, JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER) {
            step.offset = (length - index - 1) as i16;
        }
    }
    code
}

#[repr(C)]
#[derive(Default)]
struct LoadProgram {
    kind: u32,
    count: u32,
    instructions: u64,
    license: u64,
    rest: [u64; 13],
}

#[repr(C)]
#[derive(Default)]
struct AttachProgram {
    target: u32,
    program: u32,
    kind: u32,
    flags: u32,
    rest: [u64; 14],
}

const PROG_LOAD: libc::c_int = 5;
const PROG_ATTACH: libc::c_int = 8;
const CGROUP_DEVICE_PROGRAM: u32 = 15;
const CGROUP_DEVICE_ATTACH: u32 = 6;
const ALLOW_MULTI: u32 = 2;

#[allow(unsafe_code)]
fn attach(folder: &Path, code: &[Instruction]) -> Result<()> {
    let group = fs::File::open(folder)?;
    let load = LoadProgram {
        kind: CGROUP_DEVICE_PROGRAM,
        count: code.len() as u32,
        instructions: code.as_ptr() as u64,
        license: c"Apache-2.0".as_ptr() as u64,
        ..LoadProgram::default()
    };
    let size = size_of::<LoadProgram>();
    // SAFETY: the kernel reads `size` bytes of the structure and the instructions and text it points to; all outlive the call.
    let fd = unsafe { libc::syscall(libc::SYS_bpf, PROG_LOAD, &raw const load, size) };
    if fd < 0 {
        let e = Error::last_os_error();
        return Err(Error::new(e.kind(), format!("load the device filter: {e}")));
    }
    // SAFETY: the descriptor has just been made for us.
    let program = unsafe { OwnedFd::from_raw_fd(fd as i32) };
    let wanted = AttachProgram {
        target: group.as_raw_fd() as u32,
        program: program.as_raw_fd() as u32,
        kind: CGROUP_DEVICE_ATTACH,
        flags: ALLOW_MULTI,
        ..AttachProgram::default()
    };
    let size = size_of::<AttachProgram>();
    // SAFETY: the kernel reads `size` bytes of the structure.
    let done = unsafe { libc::syscall(libc::SYS_bpf, PROG_ATTACH, &raw const wanted, size) };
    if done < 0 {
        let e = Error::last_os_error();
        let text = format!("attach the device filter: {e}");
        return Err(Error::new(e.kind(), text));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rule(kind: char, major: Option<u32>, minor: Option<u32>, access: &str) -> DeviceRule {
        DeviceRule {
            kind,
            major,
            minor,
            access: access.to_owned(),
        }
    }

    /// What the kernel would answer.
    fn run(code: &[Instruction], kind: u32, access: u32, major: u32, minor: u32) -> i64 {
        let context = [access << 16 | kind, major, minor];
        let mut r = [0i64; 6];
        let mut at = 0usize;
        loop {
            let step = code[at];
            at += 1;
            let (to, from) = (
                usize::from(step.registers & 15),
                usize::from(step.registers >> 4),
            );
            let number = i64::from(step.immediate);
            match step.code {
                LOAD_WORD => r[to] = i64::from(context[step.offset as usize / 4]),
                MOVE => r[to] = r[from],
                MOVE_NUMBER => r[to] = number,
                AND => r[to] &= number,
                SHIFT_RIGHT => r[to] >>= number,
                JUMP_NOT_EQUAL if r[to] != number => at += step.offset as usize,
                JUMP_NOT_EQUAL_REGISTER if r[to] != r[from] => at += step.offset as usize,
                JUMP_NOT_EQUAL | JUMP_NOT_EQUAL_REGISTER => {}
                EXIT => return r[0],
                other => panic!("{other}"),
            }
        }
    }

    #[test]
    fn decisions() {
        let rules = [
            rule('c', None, None, "m"),
            rule('c', Some(1), Some(3), "rwm"),
            rule('b', Some(8), None, "r"),
        ];
        assert_eq!(text(&rules[0]), "c *:* m");
        assert_eq!(text(&rules[1]), "c 1:3 rwm");
        let code = program(&rules);
        // A program that loads its context only before the rules must not clobber it in one of them.
        assert_eq!(run(&code, 2, 2 | 4, 1, 3), 1, "null");
        assert_eq!(run(&code, 2, 1, 7, 7), 1, "any node may be made");
        assert_eq!(run(&code, 2, 2, 1, 1), 0, "memory is not read");
        assert_eq!(run(&code, 1, 2, 8, 5), 1, "disk read");
        assert_eq!(run(&code, 1, 4, 8, 5), 0, "disk written");
    }
}
