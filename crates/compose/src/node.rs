//! A YAML document as a tree of values that know where they stand.
//!
//! Deliberately absent: what any key means; numbers are not parsed here, a scalar keeps its text until somebody asks.

/// A place in one of the sources.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Mark {
    /// Index of the source.
    pub source: usize,
    /// From 1.
    pub line: usize,
    /// From 1.
    pub column: usize,
}

/// A value and where it stands.
#[derive(Clone, Debug)]
pub(crate) struct Node {
    pub value: Value,
    pub mark: Mark,
    pub directive: Option<Directive>,
}

/// Compose's two tags for overriding files.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Directive {
    /// `!reset`: as if it had never been there.
    Reset,
    /// `!override`: replaces instead of being merged.
    Override,
}

#[derive(Clone, Debug)]
pub(crate) enum Value {
    Scalar(Scalar),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// Text, and whether it was quoted (then it is a string whatever it looks like).
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Scalar {
    pub text: String,
    pub style: Style,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Style {
    Plain,
    Quoted,
}

#[derive(Clone, Debug)]
pub(crate) struct Entry {
    pub key: String,
    pub mark: Mark,
    pub value: Node,
}

/// What a scalar is by YAML's core schema.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Null,
    Boolean,
    Number,
    Text,
}

impl Scalar {
    /// What it is; quoted text is always text.
    pub fn kind(&self) -> Kind {
        if self.style == Style::Quoted {
            return Kind::Text;
        }
        match self.text.as_str() {
            "" | "~" | "null" | "Null" | "NULL" => Kind::Null,
            "true" | "True" | "TRUE" | "false" | "False" | "FALSE" => Kind::Boolean,
            text if is_number(text) => Kind::Number,
            _ => Kind::Text,
        }
    }
}

/// Rust would also take `inf`, `NaN` and `infinity` for numbers.
fn is_number(text: &str) -> bool {
    let digits = text.trim_start_matches(['+', '-']);
    digits.starts_with(|c: char| c.is_ascii_digit() || c == '.')
        && digits.contains(|c: char| c.is_ascii_digit())
        && text.parse::<f64>().is_ok()
}

impl Node {
    pub fn text(text: impl Into<String>, mark: Mark) -> Self {
        let style = Style::Quoted;
        let text = text.into();
        Self::of(Value::Scalar(Scalar { text, style }), mark)
    }

    pub fn of(value: Value, mark: Mark) -> Self {
        Self {
            value,
            mark,
            directive: None,
        }
    }

    pub fn null(mark: Mark) -> Self {
        let style = Style::Plain;
        let text = String::new();
        Self::of(Value::Scalar(Scalar { text, style }), mark)
    }

    pub fn is_null(&self) -> bool {
        matches!(&self.value, Value::Scalar(scalar) if scalar.kind() == Kind::Null)
    }

    /// What was found, for an error.
    pub fn describe(&self) -> String {
        match &self.value {
            Value::List(_) => "a list".into(),
            Value::Map(_) => "a mapping".into(),
            Value::Scalar(scalar) => match scalar.kind() {
                Kind::Null => "nothing".into(),
                Kind::Boolean => format!("the boolean `{}`", scalar.text),
                Kind::Number => format!("the number `{}`", scalar.text),
                Kind::Text => format!("the string `{}`", shorten(&scalar.text)),
            },
        }
    }

    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => entries.iter().find(|e| e.key == key).map(|e| &e.value),
            _ => None,
        }
    }
}

/// One line, at most 40 characters.
pub(crate) fn shorten(text: &str) -> String {
    let line = text.lines().next().unwrap_or_default();
    if line.len() == text.len() && line.chars().count() <= 40 {
        return line.to_owned();
    }
    line.chars().take(39).chain(['…']).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_scalars_have_kinds() {
        let kind = |text: &str| Node::null(Mark::default()).with_text(text);
        for (text, expected) in [
            ("", Kind::Null),
            ("~", Kind::Null),
            ("true", Kind::Boolean),
            ("no", Kind::Text),
            ("1", Kind::Number),
            ("-1.5", Kind::Number),
            ("1e3", Kind::Number),
            ("inf", Kind::Text),
            ("nan", Kind::Text),
            (".", Kind::Text),
            ("80:80", Kind::Text),
            ("1.2.3", Kind::Text),
        ] {
            assert_eq!(kind(text), expected, "{text}");
        }
    }

    impl Node {
        fn with_text(&self, text: &str) -> Kind {
            let style = Style::Plain;
            let text = text.to_owned();
            Scalar { text, style }.kind()
        }
    }
}
