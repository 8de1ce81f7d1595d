//! Rules about system calls as a program for the kernel: one section an architecture, in it conditions before plain answers.

use libc::{
    BPF_ABS, BPF_ALU, BPF_AND, BPF_JEQ, BPF_JGE, BPF_JGT, BPF_JMP, BPF_K, BPF_LD, BPF_RET, BPF_W,
    sock_filter,
};

use super::machine::Machine;

/// A comparison of an argument, 64 bits without sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// `!=`
    NotEqual(u64),
    /// `<`
    Less(u64),
    /// `<=`
    AtMost(u64),
    /// `==`
    Equal(u64),
    /// `>=`
    AtLeast(u64),
    /// `>`
    Greater(u64),
    /// `argument & mask == value`
    Masked {
        /// These bits
        mask: u64,
        /// have this value.
        value: u64,
    },
}

/// What one argument must be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// 0–5.
    pub argument: u8,
    /// How it compares.
    pub compare: Compare,
}

/// System calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Calls {
    /// By name.
    Named(Vec<String>),
    /// By their numbers on the native machine.
    Native(Vec<u32>),
}

impl Calls {
    fn on(&self, machine: Machine) -> Vec<u32> {
        match self {
            Self::Named(names) => names.iter().filter_map(|n| machine.number(n)).collect(),
            Self::Native(numbers) if machine == Machine::NATIVE => numbers.clone(),
            Self::Native(numbers) => {
                let there = numbers.iter().filter_map(|n| machine.translate(*n));
                there.collect()
            }
        }
    }
}

/// What happens to some system calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which; those that a machine does not have are passed over.
    pub calls: Calls,
    /// The kernel's answer.
    pub action: u32,
    /// All must hold.
    pub conditions: Vec<Condition>,
}

/// Everything a program is made from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Policy {
    /// Programs of these run; others are killed.
    pub machines: Vec<Machine>,
    /// For calls that no rule names.
    pub default: u32,
    /// For calls younger than all that rules name, so that programs fall back to older ones.
    pub unknown: Option<u32>,
    /// In the order in which they are tried.
    pub rules: Vec<Rule>,
}

/// The kernel takes no more instructions.
const MOST: usize = 4096;

/// A program that the kernel takes, or `None` when it would be too long.
pub fn program(policy: &Policy) -> Option<Vec<sock_filter>> {
    let mut code = vec![load(4)];
    let mut kinds: Vec<u32> = policy.machines.iter().map(|m| m.audit()).collect();
    kinds.dedup();
    for kind in kinds {
        let of_kind = policy.machines.iter().filter(|m| m.audit() == kind);
        let sections: Vec<_> = of_kind.map(|m| section(*m, policy)).collect();
        let length: usize = sections.iter().map(Vec::len).sum::<usize>() + 2;
        code.extend([jump(BPF_JEQ, kind, 1, 0), far(length)?]);
        code.push(load(0));
        code.extend(sections.into_iter().flatten());
        code.push(answer(libc::SECCOMP_RET_KILL_PROCESS));
    }
    code.push(answer(libc::SECCOMP_RET_KILL_PROCESS));
    (code.len() <= MOST).then_some(code)
}

/// For one machine; the call's number is loaded. It falls through when the number is of another machine of the same kind.
fn section(machine: Machine, policy: &Policy) -> Vec<sock_filter> {
    let mut plain: Vec<(u32, u32)> = Vec::new();
    let mut conditional: Vec<(u32, Vec<&Rule>)> = Vec::new();
    for rule in &policy.rules {
        for number in rule.calls.on(machine) {
            if !rule.conditions.is_empty() {
                match conditional.iter_mut().find(|(n, _)| *n == number) {
                    Some((_, rules)) => rules.push(rule),
                    None => conditional.push((number, vec![rule])),
                }
            } else if !plain.iter().any(|(n, _)| *n == number) {
                plain.push((number, rule.action));
            }
        }
    }
    let newest = plain.iter().map(|(n, _)| *n);
    let newest = newest.chain(conditional.iter().map(|(n, _)| *n)).max();
    let mut body = Vec::new();
    if let (Some(newest), Some(unknown)) = (newest, policy.unknown) {
        body.extend([jump(BPF_JGT, newest, 0, 1), answer(unknown)]);
    }
    for (number, rules) in &conditional {
        let otherwise = plain.iter().find(|(n, _)| n == number);
        let otherwise = otherwise.map_or(policy.default, |(_, action)| *action);
        let mut block: Vec<sock_filter> = rules.iter().flat_map(|r| conditions(r)).collect();
        block.push(answer(otherwise));
        body.push(jump(BPF_JEQ, *number, 1, 0));
        body.extend(far(block.len()));
        body.extend(block);
    }
    plain.retain(|(_, action)| *action != policy.default);
    plain.sort_unstable();
    for (first, last, action) in ranges(&plain) {
        body.extend([
            jump(BPF_JGE, first, 0, 2),
            jump(BPF_JGT, last, 1, 0),
            answer(action),
        ]);
    }
    body.push(answer(policy.default));
    match machine.least() {
        0 if machine.most() == u32::MAX => body,
        least => {
            let mut guarded = vec![
                jump(BPF_JGE, least, 0, 1),
                jump(BPF_JGT, machine.most(), 0, 1),
            ];
            guarded.extend(far(body.len()));
            guarded.extend(body);
            guarded
        }
    }
}

/// Neighbours with one answer joined.
fn ranges(sorted: &[(u32, u32)]) -> Vec<(u32, u32, u32)> {
    let mut ranges: Vec<(u32, u32, u32)> = Vec::new();
    for (number, action) in sorted {
        match ranges.last_mut() {
            Some((_, last, same)) if *number <= *last + 1 && same == action => *last = *number,
            _ => ranges.push((*number, *number, *action)),
        }
    }
    ranges
}

/// Where a comparison leads.
#[derive(Clone, Copy)]
enum To {
    Next,
    Holds,
    Fails,
}

/// The rule's answer if all hold; else it falls through.
fn conditions(rule: &Rule) -> Vec<sock_filter> {
    let mut code: Vec<sock_filter> = Vec::new();
    let pieces: Vec<_> = rule.conditions.iter().map(condition).collect();
    let total: usize = pieces.iter().map(Vec::len).sum();
    for piece in pieces {
        let end = code.len() + piece.len();
        for (mut step, yes, no) in piece {
            let here = code.len();
            let offset = |to: To| match to {
                To::Next => 0,
                To::Holds => end - here - 1,
                // Past the answer.
                To::Fails => total + 1 - here - 1,
            };
            if step.code & 7 == BPF_JMP as u16 {
                (step.jt, step.jf) = (offset(yes) as u8, offset(no) as u8);
            }
            code.push(step);
        }
    }
    code.push(answer(rule.action));
    code
}

type Step = (sock_filter, To, To);

fn condition(wanted: &Condition) -> Vec<Step> {
    use To::{Fails, Holds, Next};
    let at = 16 + 8 * u32::from(wanted.argument);
    let (low, high) = (plain(load(at)), plain(load(at + 4)));
    let test = |kind, k, yes, no| (jump(kind, k, 0, 0), yes, no);
    let halves = |v: u64| ((v >> 32) as u32, v as u32);
    match wanted.compare {
        Compare::Equal(v) => {
            let (h, l) = halves(v);
            vec![
                high,
                test(BPF_JEQ, h, Next, Fails),
                low,
                test(BPF_JEQ, l, Holds, Fails),
            ]
        }
        Compare::NotEqual(v) => {
            let (h, l) = halves(v);
            vec![
                high,
                test(BPF_JEQ, h, Next, Holds),
                low,
                test(BPF_JEQ, l, Fails, Holds),
            ]
        }
        Compare::Masked { mask, value } => {
            let ((mh, ml), (h, l)) = (halves(mask), halves(value));
            let and = |k| plain(statement(BPF_ALU | BPF_AND | BPF_K, k));
            vec![
                high,
                and(mh),
                test(BPF_JEQ, h, Next, Fails),
                low,
                and(ml),
                test(BPF_JEQ, l, Holds, Fails),
            ]
        }
        Compare::Greater(v) | Compare::AtLeast(v) => {
            let (h, l) = halves(v);
            let last = match wanted.compare {
                Compare::Greater(_) => BPF_JGT,
                _ => BPF_JGE,
            };
            vec![
                high,
                test(BPF_JGT, h, Holds, Next),
                test(BPF_JEQ, h, Next, Fails),
                low,
                test(last, l, Holds, Fails),
            ]
        }
        Compare::Less(v) | Compare::AtMost(v) => {
            let (h, l) = halves(v);
            let last = match wanted.compare {
                Compare::Less(_) => BPF_JGE,
                _ => BPF_JGT,
            };
            vec![
                high,
                test(BPF_JGT, h, Fails, Next),
                test(BPF_JEQ, h, Next, Holds),
                low,
                test(last, l, Fails, Holds),
            ]
        }
    }
}

fn plain(step: sock_filter) -> Step {
    (step, To::Next, To::Next)
}

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

/// Over so many instructions.
fn far(length: usize) -> Option<sock_filter> {
    Some(statement(
        BPF_JMP | libc::BPF_JA,
        u32::try_from(length).ok()?,
    ))
}

fn load(offset: u32) -> sock_filter {
    statement(BPF_LD | BPF_W | BPF_ABS, offset)
}

fn answer(action: u32) -> sock_filter {
    statement(BPF_RET | BPF_K, action)
}

/// What the kernel would decide.
#[cfg(test)]
pub fn decide(code: &[sock_filter], audit: u32, number: u32, arguments: [u64; 6]) -> u32 {
    let (mut a, mut at) = (0, 0);
    loop {
        let step = code[at];
        at += 1;
        let op = u32::from(step.code);
        if op == BPF_RET | BPF_K {
            return step.k;
        } else if op == BPF_LD | BPF_W | BPF_ABS {
            a = match step.k {
                0 => number,
                4 => audit,
                n => {
                    let value = arguments[(n as usize - 16) / 8];
                    (value >> (((n - 16) % 8) * 8)) as u32
                }
            };
        } else if op == BPF_ALU | BPF_AND | BPF_K {
            a &= step.k;
        } else if op == BPF_JMP | libc::BPF_JA {
            at += step.k as usize;
        } else {
            let holds = match op & 0xf0 {
                BPF_JEQ => a == step.k,
                BPF_JGT => a > step.k,
                BPF_JGE => a >= step.k,
                other => panic!("jump {other}"),
            };
            at += usize::from(if holds { step.jt } else { step.jf });
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn comparisons_of_64_bits() {
        let high = 1u64 << 40;
        for (compare, yes, no) in [
            (
                Compare::Equal(high | 1),
                vec![high | 1],
                vec![1, high, high | 2],
            ),
            (Compare::NotEqual(high | 1), vec![1, high], vec![high | 1]),
            (
                Compare::Less(high | 5),
                vec![7, high | 4],
                vec![high | 5, high | 6, high << 1],
            ),
            (
                Compare::AtMost(high | 5),
                vec![7, high | 5],
                vec![high | 6, high << 1],
            ),
            (
                Compare::Greater(high | 5),
                vec![high | 6, high << 1],
                vec![7, high | 5],
            ),
            (
                Compare::AtLeast(high | 5),
                vec![high | 5, high << 1],
                vec![7, high | 4],
            ),
            (
                Compare::Masked {
                    mask: high | 0xf0,
                    value: high | 0x10,
                },
                vec![high | 0x1f, (high * 3) | 0x10],
                vec![0x10, high | 0x20],
            ),
        ] {
            let rule = Rule {
                calls: Calls::Named(vec!["read".to_owned()]),
                action: libc::SECCOMP_RET_ALLOW,
                conditions: vec![
                    Condition {
                        argument: 0,
                        compare: Compare::Equal(3),
                    },
                    Condition {
                        argument: 2,
                        compare,
                    },
                ],
            };
            let policy = Policy {
                machines: vec![Machine::NATIVE],
                default: 7,
                unknown: None,
                rules: vec![rule],
            };
            let code = program(&policy).unwrap();
            let number = Machine::NATIVE.number("read").unwrap();
            let run = |first, third| {
                let arguments = [first, 0, third, 0, 0, 0];
                decide(&code, Machine::NATIVE.audit(), number, arguments)
            };
            for value in yes {
                assert_eq!(
                    run(3, value),
                    libc::SECCOMP_RET_ALLOW,
                    "{compare:?} {value:x}"
                );
                assert_eq!(run(4, value), 7, "the other condition");
            }
            for value in no {
                assert_eq!(run(3, value), 7, "{compare:?} {value:x}");
            }
        }
    }
}
