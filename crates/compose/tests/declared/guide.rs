//! The user guide says about keys what reading does.

use std::path::Path;

const BEGIN: &str = "<!-- keys: made from crates/compose/src/keys; `UPDATE_GUIDE=1 cargo test -p windlass-compose` writes it -->\n";
const END: &str = "<!-- end of keys -->\n";

#[test]
fn the_tables_of_the_guide_are_those_of_the_code() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/declared-file.md");
    let text = fs_err::read_to_string(&path).unwrap();
    let (before, rest) = text
        .split_once(BEGIN)
        .expect("the guide has the beginning of the tables");
    let (tables, after) = rest
        .split_once(END)
        .expect("the guide has the end of the tables");
    let expected = format!("\n{}", windlass_compose::keys::markdown());
    if std::env::var_os("UPDATE_GUIDE").is_some() {
        fs_err::write(&path, format!("{before}{BEGIN}{expected}{END}{after}")).unwrap();
        return;
    }
    assert_eq!(tables, expected, "write it anew with UPDATE_GUIDE=1");
}

#[test]
fn every_example_of_the_guide_is_read() {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../docs/declared-file.md");
    let text = fs_err::read_to_string(&path).unwrap();
    let examples: Vec<&str> = text
        .split("```yaml\n")
        .skip(1)
        .filter_map(|rest| rest.split("```").next())
        .collect();
    assert!(examples.len() >= 2);
    for example in examples {
        crate::support::loaded(example);
    }
}
