//! `environment` over `env_file`, and values that come from outside.

use std::collections::BTreeMap;
use std::io::ErrorKind;
use std::path::PathBuf;

use super::Reader;
use crate::dotenv;
use crate::field::{Field, Fields};
use crate::keys;
use crate::node::{Mark, Value};

type Pairs = Vec<(String, Option<String>)>;

impl Reader<'_> {
    pub(super) fn environment(&mut self, fields: &Fields<'_>) -> BTreeMap<String, String> {
        let own = fields
            .get("environment")
            .map(|field| field.pairs(self.log))
            .unwrap_or_default();
        let own = self.fill(own);
        let mut environment = BTreeMap::new();
        if let Some(files) = fields.get("env_file") {
            for file in files.one_or_more() {
                self.env_file(&file, &own, &mut environment);
            }
        }
        for (name, value) in own {
            match value {
                Some(value) => environment.insert(name, value),
                // As Compose has it: named without a value and not set outside, it is not set inside.
                None => environment.remove(&name),
            };
        }
        environment
    }

    /// Names without a value take it from outside.
    pub(super) fn fill(&self, pairs: Pairs) -> Pairs {
        let outside = |name: &str| self.variables.get(name).cloned();
        let fill = |(name, value): (String, Option<String>)| {
            let value = value.or_else(|| outside(&name));
            (name, value)
        };
        pairs.into_iter().map(fill).collect()
    }

    fn env_file(&mut self, field: &Field<'_>, own: &Pairs, into: &mut BTreeMap<String, String>) {
        let Some((path, required)) = self.env_file_path(field) else {
            return;
        };
        // `./a.env` and `a.env` are one name in errors.
        let full: PathBuf = self.context.project_dir.join(&path).components().collect();
        let text = match (self.context.read_file)(&full) {
            Ok(text) => text,
            Err(error) if error.kind() == ErrorKind::NotFound && !required => return,
            Err(error) => {
                return field.reject(
                    &format!("cannot be read: {}: {error}", full.display()),
                    self.log,
                );
            }
        };
        let parsed = dotenv::parse(&text, &|name| {
            let own = own.iter().find(|(known, _)| known == name);
            let own = own.and_then(|(_, value)| value.clone());
            self.variables.get(name).cloned().or(own)
        });
        match parsed {
            Ok(pairs) => {
                let set = self.fill(pairs).into_iter();
                into.extend(set.filter_map(|(name, value)| Some((name, value?))));
            }
            Err(error) => {
                let source = self.log.add_file(full.display().to_string());
                let mark = Mark {
                    source,
                    line: error.line,
                    column: 1,
                };
                self.log.error(mark, error.message);
            }
        }
    }

    fn env_file_path(&mut self, field: &Field<'_>) -> Option<(String, bool)> {
        if let Value::Scalar(_) = field.node.value {
            return Some((field.string(self.log)?, true));
        }
        let fields = field.fields(&keys::ENV_FILE, self.log)?;
        let required = fields
            .get("required")
            .and_then(|r| r.boolean(self.log))
            .unwrap_or(true);
        match fields.get("path") {
            Some(path) => Some((path.string(self.log)?, required)),
            None => {
                field.reject("needs `path`", self.log);
                None
            }
        }
    }
}
