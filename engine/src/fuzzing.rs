//! What the fuzz targets in `engine/fuzz` call: one function for each reader of bytes that strangers write.
//!
//! Only there when built for fuzzing. Each panics where something is wrong, and that is all it says.

use std::io::BufReader;

use windlass_engine_api::Filters;
use windlass_engine_api::types::{
    CreateContainer, CreateNetwork, CreateVolume, ExecCreate, HostConfig,
};

use crate::build::{dockerfile, expand};
use crate::container::logs::{LogQuery, LogReader, Tail};
use crate::container::removal::remove_dir_all;
use crate::image;

/// A layer, compressed or not: nothing is written beside its root.
pub fn layer(bytes: &[u8]) {
    let outer = folder();
    let root = outer.join("root");
    fs_err::create_dir_all(&root).expect("a root");
    fs_err::write(outer.join("secret"), "outside").expect("a file beside it");
    if let Ok(plain) = image::decompress(bytes) {
        // What it says of a broken archive is its own business.
        let _ = image::unpack(BufReader::new(plain), &root, 1 << 20);
    }
    remove_dir_all(&root).expect("the root can be removed");
    let beside: Vec<_> = fs_err::read_dir(&outer)
        .expect("the outer folder")
        .filter_map(|entry| Some(entry.ok()?.file_name()))
        .collect();
    assert_eq!(beside, ["secret"], "something is beside the root");
    let secret = fs_err::read_to_string(outer.join("secret"));
    assert_eq!(secret.expect("the file beside it"), "outside");
}

/// An image reference: what is taken is written as it was read.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else {
        return;
    };
    if let Ok(reference) = image::Reference::parse(text) {
        let again = image::Reference::parse(&reference.to_string());
        assert_eq!(again.ok().as_ref(), Some(&reference), "{reference}");
        let _ = (reference.target(), reference.familiar());
    }
}

/// A Dockerfile, and the variables in it.
pub fn dockerfile(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let lookup = |name: &str| (name.len() % 2 == 1).then(|| name.to_owned());
    for escape in ['\\', '`'] {
        let _ = expand::split(&text, escape);
        let lexer = expand::Lexer {
            escape,
            lookup: &lookup,
        };
        let _ = lexer.single(&text);
        let _ = lexer.several(&text);
        let _ = lexer.document(&text);
    }
    for instruction in dockerfile::parse(&text).unwrap_or_default() {
        let _ = (instruction.arguments(), instruction.list());
        let _ = (instruction.words(), instruction.pairs());
        let _ = dockerfile::from(&instruction);
    }
}

/// Bodies and filters of requests: what is taken can be written and taken again.
pub fn body(bytes: &[u8]) {
    round::<CreateContainer>(bytes);
    round::<HostConfig>(bytes);
    round::<CreateNetwork>(bytes);
    round::<CreateVolume>(bytes);
    round::<ExecCreate>(bytes);
    if let Ok(text) = std::str::from_utf8(bytes) {
        let _ = Filters::parse(text);
        let _ = windlass_engine_api::RegistryAuth::from_header(text);
    }
}

fn round<T: serde::Serialize + serde::de::DeserializeOwned>(bytes: &[u8]) {
    if let Ok(value) = serde_json::from_slice::<T>(bytes) {
        let text = serde_json::to_vec(&value).expect("what was read can be written");
        serde_json::from_slice::<T>(&text).expect("and be read again");
    }
}

/// A log file, from its beginning and from its end.
pub fn log(bytes: &[u8]) {
    let path = folder().join("log");
    fs_err::write(&path, bytes).expect("a log");
    for tail in [Tail::All, Tail::Lines(0), Tail::Lines(3)] {
        let query = LogQuery {
            stdout: true,
            stderr: true,
            timestamps: true,
            details: true,
            tail,
            ..LogQuery::default()
        };
        if let Ok(mut reader) = LogReader::open(&path, query) {
            // Twice: the second finds nothing new, and says so at once.
            for _ in 0..2 {
                let _ = reader.read(1 << 20);
            }
        }
    }
}

/// One a process.
fn folder() -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("windlass-fuzz-{}", std::process::id()));
    fs_err::create_dir_all(&folder).expect("a folder for the target");
    folder
}
