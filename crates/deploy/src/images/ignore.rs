//! `.dockerignore`: the last pattern that matches decides, `!` brings back, `**` matches any number of folders.

/// Which files do not go into a build.
#[derive(Clone, Debug, Default)]
pub(super) struct Ignore {
    patterns: Vec<Pattern>,
}

#[derive(Clone, Debug)]
struct Pattern {
    parts: Vec<String>,
    brings_back: bool,
}

impl Ignore {
    /// Reads the file's text.
    pub(super) fn parse(text: &str) -> Self {
        let patterns = text
            .lines()
            .map(str::trim)
            .filter(|line| !line.is_empty() && !line.starts_with('#'))
            .filter_map(|line| {
                let (rest, brings_back) = match line.strip_prefix('!') {
                    Some(rest) => (rest.trim_start(), true),
                    None => (line, false),
                };
                Pattern::parse(rest, brings_back)
            })
            .collect();
        Self { patterns }
    }

    /// These files are needed whatever the patterns say.
    pub(super) fn always_with(mut self, dockerfile: &str) -> Self {
        if !self.patterns.is_empty() {
            for file in [dockerfile, ".dockerignore"] {
                self.patterns.extend(Pattern::parse(file, true));
            }
        }
        self
    }

    /// Whether a path below the context stays out.
    pub(super) fn ignores(&self, path: &str) -> bool {
        let parts: Vec<&str> = path.split('/').collect();
        let mut ignored = false;
        for pattern in &self.patterns {
            if pattern.brings_back == ignored && pattern.matches_or_holds(&parts) {
                ignored = !pattern.brings_back;
            }
        }
        ignored
    }

    /// Whether something below an ignored folder may be wanted after all.
    pub(super) fn may_bring_back(&self) -> bool {
        self.patterns.iter().any(|p| p.brings_back)
    }
}

impl Pattern {
    fn parse(text: &str, brings_back: bool) -> Option<Self> {
        let mut parts = Vec::new();
        for part in text.split('/') {
            match part {
                "" | "." => {}
                ".." => {
                    parts.pop();
                }
                part => parts.push(part.to_owned()),
            }
        }
        (!parts.is_empty()).then_some(Self { parts, brings_back })
    }

    /// Matches the path itself, or a folder above it.
    fn matches_or_holds(&self, path: &[&str]) -> bool {
        (1..=path.len()).any(|n| matches(&self.parts, &path[..n]))
    }
}

fn matches(pattern: &[String], path: &[&str]) -> bool {
    match pattern.split_first() {
        None => path.is_empty(),
        Some((first, rest)) if first == "**" => {
            (0..=path.len()).any(|skipped| matches(rest, &path[skipped..]))
        }
        Some((first, rest)) => path.split_first().is_some_and(|(name, below)| {
            let pattern: Vec<char> = first.chars().collect();
            let name: Vec<char> = name.chars().collect();
            matches_name(&pattern, &name) && matches(rest, below)
        }),
    }
}

/// `*`, `?`, `[a-z]`, `[^a-z]` and `\` within one name.
fn matches_name(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['*', rest @ ..] => (0..=name.len()).any(|n| matches_name(rest, &name[n..])),
        ['?', rest @ ..] => !name.is_empty() && matches_name(rest, &name[1..]),
        ['[', rest @ ..] => match (rest.iter().position(|c| *c == ']'), name) {
            (Some(end), [c, below @ ..]) => {
                matches_class(&rest[..end], *c) && matches_name(&rest[end + 1..], below)
            }
            _ => false,
        },
        ['\\', c, rest @ ..] | [c, rest @ ..] => {
            name.first() == Some(c) && matches_name(rest, &name[1..])
        }
    }
}

fn matches_class(class: &[char], c: char) -> bool {
    let (class, negated) = match class {
        ['^' | '!', rest @ ..] => (rest, true),
        class => (class, false),
    };
    let mut found = false;
    let mut rest = class;
    while let [from, below @ ..] = rest {
        rest = below;
        if let ['-', to, after @ ..] = below {
            found |= (*from..=*to).contains(&c);
            rest = after;
        } else {
            found |= *from == c;
        }
    }
    found != negated
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn as_docker_reads_it() {
        let ignore = Ignore::parse(
            "# comment\n\n*.md\n!README.md\nnode_modules\n**/*.tmp\n/target/\n[a-c]?.txt\n",
        );
        for (path, ignored) in [
            ("x.md", true),
            ("README.md", false),
            ("sub/x.md", false),
            ("node_modules", true),
            ("node_modules/a/b", true),
            ("sub/node_modules", false),
            ("a.tmp", true),
            ("a/b/c.tmp", true),
            ("target/x", true),
            ("b1.txt", true),
            ("d1.txt", false),
            ("src/main.rs", false),
        ] {
            assert_eq!(ignore.ignores(path), ignored, "{path}");
        }
    }

    #[test]
    fn everything_but_a_few() {
        let ignore = Ignore::parse("*\n!src\nsrc/secret").always_with("Dockerfile");
        assert!(!ignore.ignores("src/main.rs"));
        assert!(!ignore.ignores("Dockerfile"));
        assert!(ignore.ignores("src/secret/key"));
        assert!(ignore.ignores("other"));
        assert!(ignore.may_bring_back());
    }
}
