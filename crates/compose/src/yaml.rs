//! YAML text into a tree: anchors, merge keys, duplicate keys, one document.
//!
//! Deliberately absent: YAML's exotic tags and non-scalar keys; they are errors.

use std::collections::HashMap;

use granit_parser::{Event, Marker, Parser, ScalarStyle, Span, Tag};

use crate::error::Log;
use crate::node::{Directive, Entry, Mark, Node, Scalar, Style, Value};

/// Aliases may repeat content up to here; more is an attack ("billion laughs").
const MOST_NODES: usize = 100_000;
/// Aliases may also nest, beyond what the parser itself limits.
const DEEPEST: usize = 200;

/// The source's only document, or `None` with the reason in the log.
pub(crate) fn parse(text: &str, source: usize, log: &mut Log) -> Option<Node> {
    let options = granit_parser::options! { emit_comments: false };
    let mut builder = Builder {
        source,
        ..Builder::default()
    };
    for event in Parser::new_from_str_with_options(text, options) {
        let outcome = match event {
            Ok((event, span)) => builder.take(event, span, log),
            Err(error) => {
                let message = format!("not valid YAML: {}", error.info());
                Err(Rejected(builder.mark(error.marker()), message))
            }
        };
        if let Err(Rejected(mark, message)) = outcome {
            log.error(mark, message);
            return None;
        }
    }
    let top = Mark {
        source,
        line: 0,
        column: 0,
    };
    match builder.root {
        Some(root) if !root.is_null() => Some(root),
        _ => {
            log.error(top, "the file is empty");
            None
        }
    }
}

struct Rejected(Mark, String);

/// A finished node with what it weighs, aliases expanded.
#[derive(Clone)]
struct Finished {
    node: Node,
    nodes: usize,
    depth: usize,
}

enum Frame {
    List {
        items: Vec<Node>,
        open: Open,
    },
    Map {
        entries: Vec<Entry>,
        merged: Vec<Node>,
        key: Option<(String, Style, Mark)>,
        open: Open,
    },
}

/// What holds for a collection that is still open.
struct Open {
    mark: Mark,
    anchor: usize,
    directive: Option<Directive>,
    nodes: usize,
    depth: usize,
}

#[derive(Default)]
struct Builder {
    source: usize,
    stack: Vec<Frame>,
    anchors: HashMap<usize, Finished>,
    documents: usize,
    nodes: usize,
    root: Option<Node>,
}

impl Builder {
    fn mark(&self, marker: &Marker) -> Mark {
        Mark {
            source: self.source,
            line: marker.line(),
            column: marker.col() + 1,
        }
    }

    fn take(&mut self, event: Event<'_>, span: Span, log: &mut Log) -> Result<(), Rejected> {
        let mark = self.mark(&span.start);
        match event {
            Event::DocumentStart(..) => self.begin_document(mark),
            Event::Scalar(text, style, anchor, tag) => {
                let (directive, as_text) = self.read_tag(tag.as_deref(), mark)?;
                self.grow(1, mark)?;
                let plain = style == ScalarStyle::Plain && !as_text;
                let style = if plain { Style::Plain } else { Style::Quoted };
                let text = text.into_owned();
                let mut node = Node::of(Value::Scalar(Scalar { text, style }), mark);
                node.directive = directive;
                let finished = Finished {
                    node,
                    nodes: 1,
                    depth: 1,
                };
                self.finish(finished, anchor, log)
            }
            Event::SequenceStart(_, anchor, tag) => {
                let open = self.open(anchor, tag.as_deref(), mark)?;
                let items = Vec::new();
                self.stack.push(Frame::List { items, open });
                Ok(())
            }
            Event::MappingStart(_, anchor, tag) => {
                let open = self.open(anchor, tag.as_deref(), mark)?;
                self.stack.push(Frame::Map {
                    entries: Vec::new(),
                    merged: Vec::new(),
                    key: None,
                    open,
                });
                Ok(())
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(log),
            Event::Alias(id) => match self.anchors.get(&id).cloned() {
                Some(finished) => {
                    self.grow(finished.nodes, mark)?;
                    self.finish(finished, 0, log)
                }
                None => Err(Rejected(
                    mark,
                    "the alias refers to what it is part of".into(),
                )),
            },
            _ => Ok(()),
        }
    }

    fn grow(&mut self, nodes: usize, mark: Mark) -> Result<(), Rejected> {
        self.nodes += nodes;
        if self.nodes > MOST_NODES {
            let message = "the file is too large with its aliases expanded";
            return Err(Rejected(mark, message.into()));
        }
        Ok(())
    }

    fn begin_document(&mut self, mark: Mark) -> Result<(), Rejected> {
        self.documents += 1;
        if self.documents > 1 {
            let message = "a second document begins here; a declared file is one document";
            return Err(Rejected(mark, message.into()));
        }
        Ok(())
    }

    fn open(&mut self, anchor: usize, tag: Option<&Tag>, mark: Mark) -> Result<Open, Rejected> {
        let (directive, _) = self.read_tag(tag, mark)?;
        self.grow(1, mark)?;
        Ok(Open {
            mark,
            anchor,
            directive,
            nodes: 1,
            depth: 1,
        })
    }

    /// Compose's directive, and whether the tag makes a string of it.
    fn read_tag(
        &self,
        tag: Option<&Tag>,
        mark: Mark,
    ) -> Result<(Option<Directive>, bool), Rejected> {
        let Some(tag) = tag else {
            return Ok((None, false));
        };
        if let Some(core) = tag.core_suffix() {
            return Ok((None, core == "str"));
        }
        match tag.original().as_str() {
            "!reset" => Ok((Some(Directive::Reset), false)),
            "!override" => Ok((Some(Directive::Override), false)),
            "!" => Ok((None, true)),
            other => Err(Rejected(
                mark,
                format!("the tag `{other}` means nothing here"),
            )),
        }
    }

    fn close(&mut self, log: &mut Log) -> Result<(), Rejected> {
        let Some(frame) = self.stack.pop() else {
            return Ok(());
        };
        let (value, open) = match frame {
            Frame::List { items, open } => (Value::List(items), open),
            Frame::Map {
                mut entries,
                merged,
                open,
                ..
            } => {
                for source in merged {
                    merge_into(&mut entries, source)?;
                }
                (Value::Map(entries), open)
            }
        };
        let mut node = Node::of(value, open.mark);
        node.directive = open.directive;
        let finished = Finished {
            node,
            nodes: open.nodes,
            depth: open.depth,
        };
        self.finish(finished, open.anchor, log)
    }

    fn finish(&mut self, finished: Finished, anchor: usize, log: &mut Log) -> Result<(), Rejected> {
        if finished.depth > DEEPEST {
            return Err(Rejected(
                finished.node.mark,
                "this is nested too deep".into(),
            ));
        }
        if anchor != 0 {
            self.anchors.insert(anchor, finished.clone());
        }
        let Some(frame) = self.stack.last_mut() else {
            self.root = Some(finished.node);
            return Ok(());
        };
        let (Frame::List { open, .. } | Frame::Map { open, .. }) = frame;
        open.nodes += finished.nodes;
        open.depth = open.depth.max(finished.depth + 1);
        match frame {
            Frame::List { items, .. } => items.push(finished.node),
            Frame::Map {
                entries,
                merged,
                key,
                ..
            } => match key.take() {
                None => *key = Some(read_key(finished.node)?),
                Some((name, Style::Plain, _)) if name == "<<" => merged.push(finished.node),
                Some((name, _, mark)) => insert(entries, name, mark, finished.node, log),
            },
        }
        Ok(())
    }
}

fn read_key(node: Node) -> Result<(String, Style, Mark), Rejected> {
    match node.value {
        Value::Scalar(scalar) => Ok((scalar.text, scalar.style, node.mark)),
        _ => Err(Rejected(
            node.mark,
            "a key must be a word, not a list or a mapping".into(),
        )),
    }
}

fn insert(entries: &mut Vec<Entry>, key: String, mark: Mark, value: Node, log: &mut Log) {
    if let Some(first) = entries.iter().find(|entry| entry.key == key) {
        let hint = format!("it is first given in line {}", first.mark.line);
        log.error_with_hint(mark, format!("the key `{key}` is given twice"), hint);
        return;
    }
    entries.push(Entry { key, mark, value });
}

/// `<<`: what is there already wins.
fn merge_into(entries: &mut Vec<Entry>, source: Node) -> Result<(), Rejected> {
    match source.value {
        Value::Map(others) => {
            for other in others {
                if !entries.iter().any(|entry| entry.key == other.key) {
                    entries.push(other);
                }
            }
            Ok(())
        }
        Value::List(items) if items.iter().all(|item| matches!(item.value, Value::Map(_))) => items
            .into_iter()
            .try_for_each(|item| merge_into(entries, item)),
        _ => Err(Rejected(
            source.mark,
            "`<<` takes a mapping or a list of mappings".into(),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn errors(text: &str) -> String {
        let mut log = Log::default();
        let source = log.add_file("f.yaml");
        parse(text, source, &mut log);
        log.finish()
            .map_or_else(|e| e.to_string(), |_| String::new())
    }

    #[test]
    fn anchors_and_merge_keys_are_expanded() {
        let text = "base: &b {a: 1, b: 2}\nx:\n  <<: *b\n  b: 3\ny: {<<: [{a: 9}, *b]}\n";
        let mut log = Log::default();
        let root = parse(text, 0, &mut log).unwrap();
        let value =
            |map: &str, key: &str| root.get(map).and_then(|m| m.get(key)).unwrap().describe();
        assert_eq!(value("x", "a"), "the number `1`");
        assert_eq!(value("x", "b"), "the number `3`");
        assert_eq!(value("y", "a"), "the number `9`");
        assert_eq!(value("y", "b"), "the number `2`");
    }

    #[test]
    fn what_is_not_one_plain_document_is_refused() {
        for (text, expected) in [
            ("", "f.yaml: the file is empty"),
            (
                "a: 1\na: 2\n",
                "f.yaml:2:1: the key `a` is given twice\n  hint: it is first given in line 1",
            ),
            (
                "a: 1\n---\nb: 2\n",
                "f.yaml:2:1: a second document begins here; a declared file is one document",
            ),
            (
                "[a]: 1\n",
                "f.yaml:1:1: a key must be a word, not a list or a mapping",
            ),
            (
                "a: {<<: 3}\n",
                "f.yaml:1:9: `<<` takes a mapping or a list of mappings",
            ),
            (
                "a: !weird 3\n",
                "f.yaml:1:11: the tag `!weird` means nothing here",
            ),
            (
                "a: *nope\n",
                "f.yaml:1:4: not valid YAML: while parsing node, found unknown anchor",
            ),
        ] {
            assert_eq!(errors(text), expected, "{text:?}");
        }
    }

    #[test]
    fn repeated_aliases_do_not_explode() {
        let mut text = "a0: &a0 [x, x, x, x, x, x, x, x, x, x]\n".to_owned();
        for level in 1..12 {
            let inner = vec![format!("*a{}", level - 1); 10].join(", ");
            text += &format!("a{level}: &a{level} [{inner}]\n");
        }
        assert!(errors(&text).contains("too large"), "{}", errors(&text));
    }
}
