//! `--chmod`: octal, or as `chmod` takes it (`u=rwX,go=rX`). Pure.

/// A change of permission bits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Mode {
    /// These.
    Octal(u32),
    /// One after the other.
    Symbolic(Vec<Clause>),
}

/// `go+rX`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Clause {
    who: u32,
    operator: char,
    permissions: String,
}

/// Bits of the user, the group and others, with the set-id bits and the sticky one.
const WHO: [(char, u32); 4] = [('u', 0o4700), ('g', 0o2070), ('o', 0o1007), ('a', 0o7777)];

/// Reads it; `None` where it makes no sense.
pub fn parse(text: &str) -> Option<Mode> {
    if !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit()) {
        let octal = u32::from_str_radix(text, 8).ok()?;
        return (octal <= 0o7777).then_some(Mode::Octal(octal));
    }
    let mut clauses = Vec::new();
    for clause in text.split(',') {
        let names = clause.find(['+', '-', '='])?;
        let mut who = 0;
        for name in clause[..names].chars() {
            who |= WHO.iter().find(|(known, _)| *known == name)?.1;
        }
        let permissions = &clause[names + 1..];
        if !permissions.chars().all(|c| "rwxXst".contains(c)) {
            return None;
        }
        clauses.push(Clause {
            who: if who == 0 { 0o7777 } else { who },
            operator: clause[names..].chars().next()?,
            permissions: permissions.to_owned(),
        });
    }
    Some(Mode::Symbolic(clauses))
}

impl Mode {
    /// The bits of something that had `before`.
    pub fn of(&self, before: u32, folder: bool) -> u32 {
        let clauses = match self {
            Mode::Octal(mode) => return *mode,
            Mode::Symbolic(clauses) => clauses,
        };
        clauses.iter().fold(before & 0o7777, |mode, clause| {
            let bits = clause.permissions.chars().fold(0, |bits, c| {
                bits | match c {
                    'r' => 0o444,
                    'w' => 0o222,
                    'x' => 0o111,
                    'X' if folder || mode & 0o111 != 0 => 0o111,
                    's' => 0o6000,
                    't' => 0o1000,
                    _ => 0,
                }
            });
            let bits = bits & clause.who;
            match clause.operator {
                '+' => mode | bits,
                '-' => mode & !bits,
                _ => (mode & !(clause.who & 0o777)) | bits,
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn octal_and_symbolic() {
        for (text, before, folder, wanted) in [
            ("755", 0o644, false, 0o755),
            ("0644", 0o755, false, 0o644),
            ("u=rwX,go=rX", 0o600, false, 0o644),
            ("u=rwX,go=rX", 0o700, true, 0o755),
            ("+x", 0o644, false, 0o755),
            ("a-w,u+s", 0o755, false, 0o4555),
        ] {
            assert_eq!(parse(text).unwrap().of(before, folder), wanted, "{text}");
        }
        for bad in ["", "x", "u+q", "8", "77777", "z=r"] {
            assert_eq!(parse(bad), None, "{bad}");
        }
    }
}
