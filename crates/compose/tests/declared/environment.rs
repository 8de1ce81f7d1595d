//! Variables: `environment` over `env_file`, `.env`, the project's name, profiles.

use std::path::PathBuf;

use windlass_compose::{Context, Source, load};

use crate::support::{context, errors, loaded};

fn environment(keys: &str) -> Vec<(String, String)> {
    let text = format!("services:\n  web:\n    image: i\n{keys}");
    let project = loaded(&text).project;
    project.services["web"]
        .environment
        .clone()
        .into_iter()
        .collect()
}

fn pairs(pairs: &[(&str, &str)]) -> Vec<(String, String)> {
    pairs
        .iter()
        .map(|(name, value)| ((*name).into(), (*value).into()))
        .collect()
}

#[test]
fn later_files_go_before_earlier_ones_and_the_environment_before_both() {
    let found = environment("    env_file: [a.env, ./b.env]\n    environment: {A: own}\n");
    let expected = [
        ("A", "own"),
        ("B", "second file"),
        ("C", "own/me"),
        ("OUT", "outside"),
    ];
    assert_eq!(found, pairs(&expected));
}

#[test]
fn names_without_a_value_take_it_from_outside_or_are_left_out() {
    let found = environment("    env_file: a.env\n    environment: [USER, NOT_SET, B]\n");
    assert_eq!(
        found,
        pairs(&[("A", "file"), ("OUT", "outside"), ("USER", "me")])
    );
}

#[test]
fn a_file_that_is_missing_or_broken_is_an_error() {
    let text = "services: {web: {image: i, env_file: none.env}}\n";
    assert_eq!(
        errors(text),
        "f.yaml:1:38: `services.web.env_file` cannot be read: /srv/shop/none.env: no such file"
    );
    let text = "services: {web: {image: i, env_file: [bad.env]}}\n";
    assert_eq!(
        errors(text),
        "/srv/shop/bad.env:2:1: `no name` is not the name of a variable"
    );
}

#[test]
fn dot_env_stands_under_the_environment() {
    let context = Context {
        dot_env: Some(Source::new(".env", "TAG=9\nIMAGE=httpd:$TAG\n")),
        ..context()
    };
    let text = "services: {web: {image: '$IMAGE', hostname: '${NO:-h}'}}\n";
    let loaded = load(&[Source::new("f.yaml", text)], &context).unwrap();
    assert_eq!(loaded.project.services["web"].image, "httpd:2.4");
    assert_eq!(
        loaded.project.services["web"].hostname.as_deref(),
        Some("h")
    );
}

#[test]
fn what_is_not_set_is_empty_and_told_once() {
    let text = "services: {web: {image: 'i$NO', command: '$NO $NO'}}\n";
    let loaded = loaded(text);
    assert_eq!(loaded.project.services["web"].image, "i");
    assert_eq!(loaded.warnings.len(), 1);
    assert_eq!(
        loaded.warnings[0].to_string(),
        "f.yaml:1:25: the variable `NO` is not set; an empty text stands for it"
    );
}

#[test]
fn the_name_is_asked_for_or_in_the_environment_or_in_the_file_or_the_folder() {
    let name = |text: &str, context: Context<'_>| {
        let text = format!("{text}\nservices: {{web: {{image: '$COMPOSE_PROJECT_NAME'}}}}\n");
        let project = load(&[Source::new("f.yaml", text)], &context)
            .unwrap()
            .project;
        assert_eq!(project.services["web"].image, project.name);
        project.name
    };
    let folder = |folder: &str| Context {
        project_dir: PathBuf::from(folder),
        ..context()
    };
    assert_eq!(name("", context()), "shop");
    assert_eq!(name("", folder("/x/_My Shop.2")), "myshop2");
    assert_eq!(name("name: file", context()), "file");
    let mut set = context();
    set.environment
        .insert("COMPOSE_PROJECT_NAME".into(), "set".into());
    assert_eq!(name("name: file", set), "set");
    let mut asked = context();
    asked
        .environment
        .insert("COMPOSE_PROJECT_NAME".into(), "set".into());
    asked.project_name = Some("asked".into());
    assert_eq!(name("name: file", asked), "asked");
}

#[test]
fn profiles_bring_services_in() {
    let text =
        "services: {a: {image: i}, b: {image: i, profiles: [p]}, c: {image: i, profiles: [q]}}\n";
    let names = |profiles: &[&str], variable: &str| {
        let mut context = context();
        context.profiles = profiles.iter().map(|name| (*name).to_owned()).collect();
        context
            .environment
            .insert("COMPOSE_PROFILES".into(), variable.into());
        let project = load(&[Source::new("f.yaml", text)], &context)
            .unwrap()
            .project;
        project.services.into_keys().collect::<String>()
    };
    assert_eq!(names(&[], ""), "a");
    assert_eq!(names(&["p"], ""), "ab");
    assert_eq!(names(&["*"], ""), "abc");
    assert_eq!(names(&[], "p, q"), "abc");
    assert_eq!(names(&["q"], "p"), "ac");
}
