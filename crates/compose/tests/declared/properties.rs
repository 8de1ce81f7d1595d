//! Whatever is in the file, reading it ends with a project or with errors, never in a panic.

use proptest::prelude::*;
use windlass_compose::{Source, load};

use crate::support::{context, try_load};

const FILES: [&str; 3] = [
    include_str!("../../../../examples/httpd/windlass.yaml"),
    include_str!("../../../../examples/fleet/windlass.yaml"),
    "x-a: &a {image: 'i:$TAG', environment: [A=1], volumes: ['v:/a', '/b:/c:ro'], ports: ['80-81:80-81/udp', {target: 1}]}\n\
     services:\n  a: {<<: *a, depends_on: {b: {condition: service_healthy}}, command: sh -c 'x y'}\n  b: *a\n\
     volumes: {v: {external: true}}\nnetworks: {n: {internal: true}}\nx-fleets: {f: {count: 2, options: {a: [1, 2]}}}\n",
];

/// What a slip of the keyboard may put there.
const PIECES: &str =
    r#"(\$\{|\}|\[|\]|\{|: |- |\n|  |"|'|&a |\*a|<<: |!reset |[a-z]|[0-9]|\||>|#|%|é|-)"#;

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    #[test]
    fn a_mutated_file_never_panics(
        which in 0..FILES.len(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), 0..6usize, PIECES), 1..6),
    ) {
        let mut text: Vec<char> = FILES[which].chars().collect();
        for (at, removed, piece) in edits {
            let at = at.index(text.len() + 1).min(text.len());
            let end = (at + removed).min(text.len());
            text.splice(at..end, piece.chars());
        }
        let text: String = text.into_iter().collect();
        if let Err(errors) = try_load(&text) {
            prop_assert!(!errors.findings.is_empty());
            prop_assert!(errors.findings.len() <= 10);
        }
    }

    #[test]
    fn a_swapped_value_never_panics(
        which in 0..FILES.len(),
        line in any::<prop::sample::Index>(),
        value in prop::sample::select(vec!["[]", "{}", "3", "-1", "''", "null", "true", "[[1]]", "{a: {b: c}}", "1e400", "x:y:z:w"]),
    ) {
        let mut lines: Vec<String> = FILES[which].lines().map(str::to_owned).collect();
        let at = line.index(lines.len());
        if let Some((key, _)) = lines[at].split_once(": ") {
            lines[at] = format!("{key}: {value}");
        }
        let _ = try_load(&lines.join("\n"));
    }

    #[test]
    fn any_two_files_merge_without_a_panic(first in 0..FILES.len(), second in 0..FILES.len()) {
        let sources = [Source::new("a", FILES[first]), Source::new("b", FILES[second])];
        let _ = load(&sources, &context());
    }
}
