//! Lays one file over another by Compose's rules, before anything is read.
//!
//! Mappings are merged, lists appended without repeats; commands and health checks are replaced; mounts go by their
//! target. Deliberately absent: `extends` and `include`.

use crate::node::{Directive, Entry, Node, Value};

/// How the two values of one place become one.
enum Rule {
    /// Mappings key by key, lists appended, else the later one.
    Default,
    /// The later one, even when it is nothing.
    Replace,
    /// One value is a list of one.
    Many,
    /// `NAME=value` lines are mappings.
    Pairs,
    /// A list of names is a mapping to nothing.
    Names,
    /// `NAME=value` mappings are lines.
    Lines,
    /// A text is the mapping with this key.
    Short(&'static str),
    /// A list whose elements go by where they are mounted.
    Mounts,
    /// Options belong to the driver.
    Logging,
}

fn rule(path: &[String]) -> Rule {
    let path: Vec<&str> = path.iter().map(String::as_str).collect();
    match path[..] {
        ["services", _, "command" | "entrypoint"] => Rule::Replace,
        ["services", _, "healthcheck", "test"] => Rule::Replace,
        ["services", _, "environment" | "labels" | "sysctls", _] => Rule::Replace,
        ["services", _, "build", "args" | "labels", _] => Rule::Replace,
        ["services", _, "dns" | "tmpfs" | "env_file"] => Rule::Many,
        ["services", _, "environment" | "labels" | "sysctls"] => Rule::Pairs,
        ["services", _, "build", "args" | "labels"] => Rule::Pairs,
        ["volumes" | "networks", _, "labels"] => Rule::Pairs,
        ["services", _, "depends_on" | "networks"] => Rule::Names,
        ["services", _, "extra_hosts"] => Rule::Lines,
        ["services", _, "build"] => Rule::Short("context"),
        ["services", _, "volumes"] => Rule::Mounts,
        ["services", _, "logging"] => Rule::Logging,
        _ => Rule::Default,
    }
}

/// The later file over the earlier one.
pub(crate) fn merge(earlier: Node, later: Node) -> Node {
    merge_at(earlier, later, &mut Vec::new())
}

/// Takes away what is marked `!reset`.
pub(crate) fn strip_resets(node: &mut Node) {
    let kept = |node: &Node| node.directive != Some(Directive::Reset);
    match &mut node.value {
        Value::Scalar(_) => {}
        Value::List(items) => {
            items.retain(kept);
            items.iter_mut().for_each(strip_resets);
        }
        Value::Map(entries) => {
            entries.retain(|entry| kept(&entry.value));
            entries
                .iter_mut()
                .for_each(|entry| strip_resets(&mut entry.value));
        }
    }
}

fn merge_at(earlier: Node, later: Node, path: &mut Vec<String>) -> Node {
    match later.directive {
        Some(Directive::Reset | Directive::Override) => return later,
        None => {}
    }
    let rule = rule(path);
    if later.is_null() && !matches!(rule, Rule::Replace) {
        return earlier;
    }
    let (earlier, later) = match rule {
        Rule::Replace => return later,
        Rule::Many => (one_to_list(earlier), one_to_list(later)),
        Rule::Mounts => return merge_mounts(earlier, later),
        Rule::Logging if changes_driver(&earlier, &later) => return later,
        Rule::Default | Rule::Logging => (earlier, later),
        Rule::Pairs => (pairs_to_map(earlier), pairs_to_map(later)),
        Rule::Names => (names_to_map(earlier), names_to_map(later)),
        Rule::Lines => (map_to_lines(earlier), map_to_lines(later)),
        Rule::Short(key) => (text_to_map(earlier, key), text_to_map(later, key)),
    };
    let mark = earlier.mark;
    match (earlier.value, later.value) {
        (Value::Map(entries), Value::Map(others)) => {
            Node::of(Value::Map(merge_maps(entries, others, path)), mark)
        }
        (Value::List(items), Value::List(others)) => {
            Node::of(Value::List(append(items, others)), mark)
        }
        (_, value) => Node::of(value, later.mark),
    }
}

fn merge_maps(mut entries: Vec<Entry>, others: Vec<Entry>, path: &mut Vec<String>) -> Vec<Entry> {
    for other in others {
        let Some(at) = entries.iter().position(|entry| entry.key == other.key) else {
            entries.push(other);
            continue;
        };
        let earlier = entries.remove(at);
        path.push(other.key);
        let value = merge_at(earlier.value, other.value, path);
        let key = path.pop().unwrap_or_default();
        let mark = other.mark;
        entries.insert(at, Entry { key, mark, value });
    }
    entries
}

fn append(mut items: Vec<Node>, others: Vec<Node>) -> Vec<Node> {
    for other in others {
        if !items.iter().any(|item| same(item, &other)) {
            items.push(other);
        }
    }
    items
}

fn same(a: &Node, b: &Node) -> bool {
    match (&a.value, &b.value) {
        (Value::Scalar(a), Value::Scalar(b)) => a.text == b.text,
        (Value::List(a), Value::List(b)) => {
            a.len() == b.len() && a.iter().zip(b).all(|(a, b)| same(a, b))
        }
        (Value::Map(a), Value::Map(others)) => {
            let found = |entry: &Entry| {
                b.get(&entry.key)
                    .is_some_and(|value| same(&entry.value, value))
            };
            a.len() == others.len() && a.iter().all(found)
        }
        _ => false,
    }
}

fn changes_driver(earlier: &Node, later: &Node) -> bool {
    match (earlier.get("driver"), later.get("driver")) {
        (Some(earlier), Some(later)) => !same(earlier, later),
        _ => false,
    }
}

fn merge_mounts(earlier: Node, later: Node) -> Node {
    let mark = earlier.mark;
    match (earlier.value, later.value) {
        (Value::List(mut items), Value::List(others)) => {
            for other in others {
                let target = mount_target(&other);
                let held = |item: &Node| target.is_some() && mount_target(item) == target;
                match items.iter().position(held) {
                    Some(at) => items[at] = other,
                    None => items.push(other),
                }
            }
            Node::of(Value::List(items), mark)
        }
        (_, value) => Node::of(value, later.mark),
    }
}

/// Where a mount is seen in the container, in short or long form.
fn mount_target(node: &Node) -> Option<String> {
    let text = match &node.value {
        Value::Scalar(scalar) => {
            let mut parts = scalar.text.split(':');
            let first = parts.next()?;
            parts.next().unwrap_or(first)
        }
        _ => match &node.get("target")?.value {
            Value::Scalar(scalar) => &scalar.text,
            _ => return None,
        },
    };
    Some(text.trim_end_matches('/').to_owned())
}

fn pairs_to_map(node: Node) -> Node {
    list_to_map(node, |text| match text.split_once('=') {
        Some((name, value)) => (name.to_owned(), Some(value.to_owned())),
        None => (text.to_owned(), None),
    })
}

fn names_to_map(node: Node) -> Node {
    list_to_map(node, |text| (text.to_owned(), None))
}

/// A list of scalars as a mapping. A list with anything else in it is left for the reader to find fault with.
fn list_to_map(node: Node, split: fn(&str) -> (String, Option<String>)) -> Node {
    let Value::List(items) = &node.value else {
        return node;
    };
    let mut entries: Vec<Entry> = Vec::new();
    for item in items {
        let Value::Scalar(scalar) = &item.value else {
            return node;
        };
        let mark = item.mark;
        let (key, value) = split(&scalar.text);
        let value = value.map_or_else(|| Node::null(mark), |value| Node::text(value, mark));
        entries.retain(|entry| entry.key != key);
        entries.push(Entry { key, mark, value });
    }
    Node::of(Value::Map(entries), node.mark)
}

fn map_to_lines(node: Node) -> Node {
    let Value::Map(entries) = &node.value else {
        return node;
    };
    let mut items = Vec::new();
    for entry in entries {
        let Value::Scalar(scalar) = &entry.value.value else {
            return node;
        };
        items.push(Node::text(
            format!("{}={}", entry.key, scalar.text),
            entry.mark,
        ));
    }
    Node::of(Value::List(items), node.mark)
}

fn one_to_list(node: Node) -> Node {
    match node.value {
        Value::List(_) => node,
        _ => {
            let mark = node.mark;
            Node::of(Value::List(vec![node]), mark)
        }
    }
}

fn text_to_map(node: Node, key: &str) -> Node {
    if !matches!(node.value, Value::Scalar(_)) {
        return node;
    }
    let mark = node.mark;
    let key = key.to_owned();
    let value = node;
    Node::of(Value::Map(vec![Entry { key, mark, value }]), mark)
}
