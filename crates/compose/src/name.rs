//! The project's name: as asked for, from the environment, from the file, from the folder.

use std::collections::BTreeMap;

use crate::Context;
use crate::error::Log;
use crate::interpolate::expand_tree;
use crate::node::{Kind, Mark, Node, Value};

pub(crate) fn find(
    roots: &[Node],
    context: &Context<'_>,
    variables: &BTreeMap<String, String>,
    log: &mut Log,
) -> Option<String> {
    let given = context
        .project_name
        .as_ref()
        .or_else(|| variables.get("COMPOSE_PROJECT_NAME"));
    if let Some(name) = given.filter(|name| !name.is_empty()) {
        return checked(name, outside(), log);
    }
    if let Some(node) = roots.iter().rev().find_map(|root| root.get("name")) {
        let mut node = node.clone();
        expand_tree(&mut node, &|name| variables.get(name).cloned(), log);
        if log.has_errors() {
            return None;
        }
        match &node.value {
            Value::Scalar(scalar) if scalar.kind() == Kind::Text => {
                return checked(&scalar.text, node.mark, log);
            }
            _ if node.is_null() => {}
            _ => {
                log.error(
                    node.mark,
                    format!("`name` must be a string, but is {}", node.describe()),
                );
                return None;
            }
        }
    }
    let folder = context
        .project_dir
        .file_name()
        .unwrap_or_default()
        .to_string_lossy()
        .to_lowercase();
    let name: String = folder.chars().filter(|c| allowed(*c)).collect();
    let name = name.trim_start_matches(['-', '_']);
    if name.is_empty() {
        log.error_with_hint(
            outside(),
            "the folder's name cannot name the project",
            "add `name:` to the file",
        );
        return None;
    }
    Some(name.to_owned())
}

/// Not in any of the files.
fn outside() -> Mark {
    Mark {
        source: usize::MAX,
        line: 0,
        column: 0,
    }
}

fn allowed(c: char) -> bool {
    c.is_ascii_lowercase() || c.is_ascii_digit() || c == '-' || c == '_'
}

fn checked(name: &str, mark: Mark, log: &mut Log) -> Option<String> {
    let starts = name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit());
    if starts && name.chars().all(allowed) && name.len() <= 63 {
        return Some(name.to_owned());
    }
    let hint =
        "it takes lower-case letters, digits, `-` and `_`, a letter or digit first, at most 63";
    log.error_with_hint(mark, format!("`{name}` cannot name a project"), hint);
    None
}
