//! The stages of a Dockerfile, and which of them a build needs. Pure.

use std::collections::{BTreeMap, BTreeSet};

use super::dockerfile::{Instruction, from};
use super::expand::Lexer;
use super::mount::source_of;
use super::options::Options;
use crate::container::error::{Error, Result};
use crate::image::Platform;

/// A stage.
#[derive(Clone, Debug)]
pub struct Stage {
    /// In small letters.
    pub name: Option<String>,
    /// Image or earlier stage, variables replaced.
    pub base: String,
    /// `--platform`, variables replaced.
    pub platform: Option<String>,
    /// As written.
    pub from: Instruction,
    /// What follows.
    pub steps: Vec<Instruction>,
    /// The number of its FROM among all steps that are done.
    pub first: usize,
}

/// All of them.
#[derive(Clone, Debug)]
pub struct Plan {
    /// ARGs before the first FROM.
    pub globals: Vec<Instruction>,
    /// Their values.
    pub values: BTreeMap<String, String>,
    /// Up to the one that is wanted.
    pub stages: Vec<Stage>,
    /// Those that are known to be needed.
    pub needed: BTreeSet<usize>,
    /// Steps that are done.
    pub total: usize,
    /// Names of all ARGs in the file.
    pub declared: BTreeSet<String>,
}

/// What every Dockerfile may name without giving it a value.
pub fn platforms(target: Option<&str>) -> BTreeMap<String, String> {
    let host = Platform::host();
    let host = format!("{}/{}", host.os, host.architecture);
    let mut values = BTreeMap::new();
    for (prefix, platform) in [
        ("BUILD", host.as_str()),
        ("TARGET", target.unwrap_or(&host)),
    ] {
        let mut parts = platform.splitn(3, '/');
        let mut put = |name: &str, value: &str| {
            values.insert(format!("{prefix}{name}"), value.to_owned());
        };
        put("PLATFORM", platform);
        put("OS", parts.next().unwrap_or_default());
        put("ARCH", parts.next().unwrap_or_default());
        put("VARIANT", parts.next().unwrap_or_default());
    }
    values
}

impl Plan {
    /// Cuts the file into stages.
    pub fn new(instructions: Vec<Instruction>, options: &Options) -> Result<Self> {
        let builtin = platforms(options.platform.as_deref());
        let mut plan = Self {
            globals: Vec::new(),
            values: BTreeMap::new(),
            stages: Vec::new(),
            needed: BTreeSet::new(),
            total: 0,
            declared: BTreeSet::new(),
        };
        for instruction in instructions {
            if instruction.keyword == "ARG" {
                plan.declare(&instruction);
            }
            match (instruction.keyword.as_str(), plan.stages.last_mut()) {
                ("FROM", _) => plan.begin(instruction, &builtin)?,
                ("ARG", None) => plan.global(instruction, options, &builtin)?,
                (_, Some(stage)) => stage.steps.push(instruction),
                (_, None) => {
                    return Err(Error::invalid("no build stage in current context"));
                }
            }
        }
        plan.cut(options)?;
        plan.add_labels(options);
        plan.number(&builtin);
        Ok(plan)
    }

    fn declare(&mut self, instruction: &Instruction) {
        for word in instruction.words() {
            let name = word.split('=').next().unwrap_or_default();
            self.declared.insert(name.to_owned());
        }
    }

    fn begin(&mut self, from_line: Instruction, builtin: &BTreeMap<String, String>) -> Result<()> {
        let (written, name) = from(&from_line)?;
        if let Some(name) = name.as_deref().filter(|name| self.named(name).is_some()) {
            return Err(from_line.error(&format!("{name} stage name already used")));
        }
        let lexer = Lexer {
            escape: from_line.escape,
            lookup: &|name| self.values.get(name).or_else(|| builtin.get(name)).cloned(),
        };
        let base = lexer.single(&written)?;
        if base.is_empty() {
            return Err(Error::invalid(format!(
                "base name ({written}) should not be blank"
            )));
        }
        let platform = from_line
            .flag("platform")
            .map(|text| lexer.single(text))
            .transpose()?;
        self.stages.push(Stage {
            name,
            base,
            platform: platform.filter(|platform| !platform.is_empty()),
            from: from_line,
            steps: Vec::new(),
            first: 0,
        });
        Ok(())
    }

    fn global(
        &mut self,
        instruction: Instruction,
        options: &Options,
        builtin: &BTreeMap<String, String>,
    ) -> Result<()> {
        for word in instruction.words() {
            let lexer = Lexer {
                escape: instruction.escape,
                lookup: &|name| self.values.get(name).or_else(|| builtin.get(name)).cloned(),
            };
            let word = lexer.single(&word)?;
            let (name, default) = match word.split_once('=') {
                Some((name, default)) => (name, Some(default.to_owned())),
                None => (word.as_str(), None),
            };
            let value = options.build_args.get(name).cloned().or(default);
            self.values
                .extend(value.map(|value| (name.to_owned(), value)));
        }
        self.globals.push(instruction);
        Ok(())
    }

    /// A stage by its name.
    pub fn named(&self, name: &str) -> Option<usize> {
        let name = name.to_lowercase();
        self.stages
            .iter()
            .rposition(|stage| stage.name.as_deref() == Some(&name))
    }

    /// Leaves out what follows the wanted stage.
    fn cut(&mut self, options: &Options) -> Result<()> {
        if self.stages.is_empty() {
            return Err(Error::invalid("no build stage in current context"));
        }
        if options.target.is_empty() {
            return Ok(());
        }
        let by_number = || {
            let number = options.target.parse::<usize>().ok()?;
            (number < self.stages.len()).then_some(number)
        };
        let target = self
            .named(&options.target)
            .or_else(by_number)
            .ok_or_else(|| {
                Error::invalid(format!(
                    "failed to reach build target {} in Dockerfile",
                    options.target
                ))
            })?;
        self.stages.truncate(target + 1);
        Ok(())
    }

    /// `--label` is a LABEL at the end.
    fn add_labels(&mut self, options: &Options) {
        let Some(last) = self.stages.last_mut() else {
            return;
        };
        for (name, value) in &options.labels {
            let quoted = |text: &str| {
                let escaped: String = text
                    .chars()
                    .flat_map(|c| {
                        let escape = matches!(c, '"' | '$' | '\\').then_some('\\');
                        escape.into_iter().chain([c])
                    })
                    .collect();
                format!("\"{escaped}\"")
            };
            last.steps.push(Instruction {
                line: 0,
                keyword: "LABEL".into(),
                flags: Vec::new(),
                text: format!("{}={}", quoted(name), quoted(value)),
                original: format!("LABEL {name}={value}"),
                escape: '\\',
                documents: Vec::new(),
            });
        }
    }

    /// Finds what the last stage needs, and numbers the steps.
    fn number(&mut self, builtin: &BTreeMap<String, String>) {
        let mut open = vec![self.stages.len() - 1];
        while let Some(stage) = open.pop() {
            if self.needed.insert(stage) {
                open.extend(self.sources(stage, builtin));
            }
        }
        self.total = self.globals.len();
        for (index, stage) in self.stages.iter_mut().enumerate() {
            stage.first = self.total + 1;
            if self.needed.contains(&index) {
                self.total += 1 + stage.steps.len();
            }
        }
    }

    /// Earlier stages that one builds upon or copies from, as far as they can be told.
    fn sources(&self, index: usize, builtin: &BTreeMap<String, String>) -> Vec<usize> {
        let stage = &self.stages[index];
        let mut found: Vec<usize> = self.base_stage(index).into_iter().collect();
        for step in &stage.steps {
            let mut names: Vec<String> = step.flag("from").map(str::to_owned).into_iter().collect();
            names.extend(step.all_flags("mount").filter_map(source_of));
            for name in names {
                let lexer = Lexer {
                    escape: step.escape,
                    lookup: &|name| self.values.get(name).or_else(|| builtin.get(name)).cloned(),
                };
                let name = lexer.single(&name).unwrap_or(name);
                found.extend(self.before(index, &name));
            }
        }
        found
    }

    /// The earlier stage that a stage is based on, if it is one.
    pub fn base_stage(&self, index: usize) -> Option<usize> {
        let name = self.stages[index].base.to_lowercase();
        self.stages[..index]
            .iter()
            .rposition(|stage| stage.name.as_deref() == Some(&name))
    }

    /// The stage before `index` that `--from` means.
    pub fn before(&self, index: usize, name: &str) -> Option<usize> {
        let by_number = || name.parse::<usize>().ok();
        let found = self.named(name).or_else(by_number)?;
        (found < index).then_some(found)
    }
}

#[cfg(test)]
mod tests {
    use super::super::dockerfile::parse;
    use super::*;

    const FILE: &str = "ARG V=1\nARG B=box:$V\nFROM $B AS base\nRUN a\nFROM base AS one\nRUN b\nFROM base AS two\nRUN c\n\
        FROM scratch AS unused\nCOPY x /\nFROM one\nCOPY --from=2 /c /\nRUN --mount=type=bind,from=base,target=/b d\nARG T\n";

    fn plan(options: &Options) -> Result<Plan> {
        Plan::new(parse(FILE).unwrap(), options)
    }

    #[test]
    fn only_what_is_needed() {
        let whole = plan(&Options::default()).unwrap();
        assert_eq!(whole.needed, BTreeSet::from([0, 1, 2, 4]));
        assert_eq!(whole.stages[0].base, "box:1");
        assert_eq!((whole.total, whole.stages[4].first), (12, 9));
        let options = Options {
            target: "ONE".into(),
            build_args: [("V".to_owned(), "2".to_owned())].into(),
            labels: [("a b".to_owned(), "$c\"".to_owned())].into(),
            ..Options::default()
        };
        let cut = plan(&options).unwrap();
        assert_eq!((cut.stages.len(), cut.total), (2, 7));
        assert_eq!(cut.stages[0].base, "box:2");
        assert_eq!(cut.stages[1].steps[1].text, r#""a b"="\$c\"""#);
        let nowhere = Options {
            target: "nine".into(),
            ..Options::default()
        };
        assert!(
            plan(&nowhere)
                .unwrap_err()
                .message
                .contains("failed to reach build target nine")
        );
    }

    #[test]
    fn mistakes() {
        for (text, wanted) in [
            ("RUN x\nFROM a", "no build stage in current context"),
            ("ARG x", "no build stage in current context"),
            ("ARG x\nFROM $x", "base name ($x) should not be blank"),
            ("FROM a AS x\nFROM b AS X", "x stage name already used"),
        ] {
            let error = Plan::new(parse(text).unwrap(), &Options::default()).unwrap_err();
            assert!(error.message.contains(wanted), "{text}: {}", error.message);
        }
        let arm = platforms(Some("linux/arm/v7"));
        assert_eq!(
            (arm["TARGETARCH"].as_str(), arm["TARGETVARIANT"].as_str()),
            ("arm", "v7")
        );
    }
}
