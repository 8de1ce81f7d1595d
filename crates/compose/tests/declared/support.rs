//! Loading from text, with a few files and variables at hand.

use std::collections::BTreeMap;
use std::io;
use std::path::Path;

use windlass_compose::{ComposeErrors, Context, Loaded, Source, load};

fn read_file(path: &Path) -> io::Result<String> {
    match path.to_str() {
        Some("/srv/shop/a.env") => Ok("A=file\nB=file\nOUT\n".into()),
        Some("/srv/shop/b.env") => Ok("B='second file'\nC=\"$A/${USER}\"\n".into()),
        Some("/srv/shop/bad.env") => Ok("A=1\nno name=2\n".into()),
        _ => Err(io::Error::new(io::ErrorKind::NotFound, "no such file")),
    }
}

/// The context of a project in `/srv/shop`, where `USER` and `TAG` are set.
pub fn context() -> Context<'static> {
    let variables = [("USER", "me"), ("TAG", "2.4"), ("OUT", "outside")];
    let variables = variables.map(|(name, value)| (name.to_owned(), value.to_owned()));
    Context {
        project_dir: "/srv/shop".into(),
        project_name: None,
        environment: BTreeMap::from(variables),
        dot_env: None,
        profiles: Vec::new(),
        read_file: &read_file,
    }
}

pub fn try_load(text: &str) -> Result<Loaded, ComposeErrors> {
    load(&[Source::new("f.yaml", text)], &context())
}

pub fn loaded(text: &str) -> Loaded {
    try_load(text).unwrap_or_else(|errors| panic!("{errors}\nin\n{text}"))
}

pub fn errors(text: &str) -> String {
    match try_load(text) {
        Ok(_) => panic!("accepted:\n{text}"),
        Err(errors) => errors.to_string(),
    }
}
