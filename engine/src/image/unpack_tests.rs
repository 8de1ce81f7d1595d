//! Archives that people make, and archives that attackers make.

use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};

use tar::{Builder, EntryType, Header};

use super::*;

struct Tar(Builder<Vec<u8>>);

impl Tar {
    fn new() -> Self {
        Self(Builder::new(Vec::new()))
    }

    /// An entry whose name is taken as it is, `..` and all.
    fn raw(mut self, kind: EntryType, name: &str, link: &str, content: &[u8]) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.as_old_mut().linkname[..link.len()].copy_from_slice(link.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(if kind == EntryType::Directory {
            0o755
        } else {
            0o644
        });
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        header.set_cksum();
        self.0.append(&header, content).unwrap();
        self
    }

    fn file(self, name: &str, content: &str) -> Self {
        self.raw(EntryType::Regular, name, "", content.as_bytes())
    }

    fn dir(self, name: &str) -> Self {
        self.raw(EntryType::Directory, name, "", b"")
    }

    fn symlink(self, name: &str, link: &str) -> Self {
        self.raw(EntryType::Symlink, name, link, b"")
    }

    fn unpack(self) -> (tempfile::TempDir, Result<Unpacked>) {
        let outer = tempfile::tempdir().unwrap();
        fs_err::create_dir(outer.path().join("root")).unwrap();
        fs_err::write(outer.path().join("secret"), "outside").unwrap();
        let bytes = self.0.into_inner().unwrap();
        let result = unpack(&bytes[..], &outer.path().join("root"), 1 << 20);
        (outer, result)
    }
}

fn outside_is_untouched(outer: &tempfile::TempDir) {
    assert_eq!(
        fs_err::read_to_string(outer.path().join("secret")).unwrap(),
        "outside"
    );
    assert_eq!(
        fs_err::read_dir(outer.path()).unwrap().count(),
        2,
        "something was written beside the root"
    );
}

#[test]
fn files_keep_content_mode_and_time() {
    let (outer, result) = Tar::new()
        .dir("./a")
        .file("./a/b", "hello")
        .symlink("a/l", "/a/b")
        .raw(EntryType::Link, "h", "a/b", b"")
        .unpack();
    assert_eq!(
        result.unwrap(),
        Unpacked {
            size: 5,
            entries: 4
        }
    );
    let root = outer.path().join("root");
    assert_eq!(fs_err::read_to_string(root.join("a/b")).unwrap(), "hello");
    let meta = fs_err::metadata(root.join("a/b")).unwrap();
    assert_eq!(
        (
            meta.permissions().mode() & 0o7777,
            meta.mtime(),
            meta.nlink()
        ),
        (0o644, 1_000_000, 2)
    );
    assert_eq!(fs_err::metadata(root.join("a")).unwrap().mtime(), 1_000_000);
    assert_eq!(
        fs_err::read_link(root.join("a/l")).unwrap(),
        Path::new("/a/b")
    );
}

#[test]
fn missing_parents_are_made_and_later_entries_win() {
    let (outer, result) = Tar::new()
        .file("x/y/z", "1")
        .file("x/y/z", "2")
        .dir("d")
        .file("d/inside", "")
        .file("d", "file now")
        .unpack();
    result.unwrap();
    let root = outer.path().join("root");
    assert_eq!(fs_err::read_to_string(root.join("x/y/z")).unwrap(), "2");
    assert_eq!(fs_err::read_to_string(root.join("d")).unwrap(), "file now");
}

#[test]
fn nothing_is_written_outside() {
    let escapes: Vec<(&str, Tar)> = vec![
        ("dot dot", Tar::new().file("../secret", "x")),
        (
            "inner dot dot",
            Tar::new().dir("a").file("a/../../secret", "x"),
        ),
        (
            "hard link out",
            Tar::new()
                .raw(EntryType::Link, "h", "../secret", b"")
                .file("h", "x"),
        ),
        (
            "symlinked parent",
            Tar::new().symlink("a", "..").file("a/secret", "x"),
        ),
        (
            "absolute symlink",
            Tar::new().symlink("a", "/").file("a/secret", "x"),
        ),
        ("absolute path", Tar::new().file("/secret", "x")),
        (
            "through a symlink file",
            Tar::new().symlink("s", "../secret").file("s", "x"),
        ),
        (
            "hard link through a symlink",
            Tar::new()
                .symlink("up", "..")
                .raw(EntryType::Link, "h", "up/secret", b"")
                .file("h", "x"),
        ),
        ("whiteout of dot dot", Tar::new().file(".wh...", "")),
        (
            "directory over a symlink",
            Tar::new().symlink("a", "..").dir("a").file("a/secret", "x"),
        ),
        (
            "proc",
            Tar::new()
                .symlink("p", "/proc/self/root")
                .file("p/secret", "x"),
        ),
    ];
    for (name, tar) in escapes {
        let (outer, _) = tar.unpack();
        outside_is_untouched(&outer);
        println!("{name}: contained");
    }
}

#[test]
fn whiteouts_become_overlay_marks() {
    let (outer, result) = Tar::new()
        .dir("d")
        .file("d/.wh..wh..opq", "")
        .file("d/.wh.gone", "")
        .unpack();
    result.unwrap();
    let gone = fs_err::symlink_metadata(outer.path().join("root/d/gone")).unwrap();
    assert!(gone.file_type().is_char_device());
    assert_eq!(gone.rdev(), 0);
    let mut value = [0_u8; 8];
    let n = fs::getxattr(
        outer.path().join("root/d"),
        "trusted.overlay.opaque",
        &mut value,
    )
    .unwrap();
    assert_eq!(&value[..n], b"y");
}

#[test]
fn too_much_and_too_little_are_refused() {
    let big = vec![0_u8; (1 << 20) + 1];
    let (_outer, result) = Tar::new().raw(EntryType::Regular, "big", "", &big).unpack();
    assert!(matches!(result, Err(Error::Archive(_))));
    let root = tempfile::tempdir().unwrap();
    let cut = Tar::new()
        .file("a", &"x".repeat(5000))
        .0
        .into_inner()
        .unwrap();
    assert!(unpack(&cut[..2000], root.path(), 1 << 20).is_err());
}
