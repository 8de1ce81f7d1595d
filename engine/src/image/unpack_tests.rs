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

    /// An ordinary entry with something changed before it is summed up.
    fn changed(
        mut self,
        kind: EntryType,
        name: &str,
        content: &[u8],
        change: impl FnOnce(&mut Header),
    ) -> Self {
        let mut header = Header::new_gnu();
        header.as_old_mut().name[..name.len()].copy_from_slice(name.as_bytes());
        header.set_entry_type(kind);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(1_000_000);
        header.set_size(content.len() as u64);
        change(&mut header);
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

/// The root after unpacking without an error.
fn root_of(tar: Tar) -> (tempfile::TempDir, PathBuf) {
    let (outer, result) = tar.unpack();
    result.unwrap();
    outside_is_untouched(&outer);
    let root = outer.path().join("root");
    (outer, root)
}

fn opaque(path: &Path) -> bool {
    let mut value = [0_u8; 8];
    fs::lgetxattr(path, OPAQUE_ATTRIBUTE, &mut value).is_ok()
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
    let more = vec![
        (
            "whiteout through a symlink",
            Tar::new().symlink("a", "..").file("a/.wh.secret", ""),
        ),
        (
            "opaque mark through a symlink",
            Tar::new().symlink("a", "..").file("a/.wh..wh..opq", ""),
        ),
        (
            "symlink over a directory of an earlier entry",
            Tar::new()
                .dir("a")
                .file("a/b", "")
                .symlink("a", "..")
                .file("a/secret", "x"),
        ),
        (
            "chain of symlinks",
            Tar::new()
                .symlink("a", "b")
                .symlink("b", "c/..")
                .symlink("c", "/..")
                .file("a/secret", "x"),
        ),
        (
            "hard link to a symlink, then through it",
            Tar::new()
                .symlink("s", "../secret")
                .raw(EntryType::Link, "h", "s", b"")
                .file("h", "x"),
        ),
        (
            "device through a symlink",
            Tar::new()
                .symlink("a", "..")
                .raw(EntryType::Char, "a/null", "", b""),
        ),
        (
            "many slashes",
            Tar::new()
                .file("///..///secret", "x")
                .file("//./secret", "x"),
        ),
        (
            "an absolute hard link",
            Tar::new()
                .raw(EntryType::Link, "h", "/../secret", b"")
                .file("h", "x"),
        ),
    ];
    for (name, tar) in escapes.into_iter().chain(more) {
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

#[test]
fn the_same_name_again_is_the_last_of_them() {
    let (_outer, root) = root_of(
        Tar::new()
            .file("a", "file")
            .dir("a")
            .file("a/b", "1")
            .dir("c")
            .file("c/d", "")
            .symlink("c", "a")
            .file("f", "old")
            .raw(EntryType::Link, "g", "f", b"")
            .file("f", "new")
            .dir("e")
            .file("e/kept", "")
            .dir("e"),
    );
    assert_eq!(fs_err::read_to_string(root.join("a/b")).unwrap(), "1");
    assert_eq!(fs_err::read_link(root.join("c")).unwrap(), Path::new("a"));
    assert_eq!(fs_err::read_to_string(root.join("f")).unwrap(), "new");
    assert_eq!(fs_err::read_to_string(root.join("g")).unwrap(), "old");
    assert!(root.join("e/kept").exists(), "a directory twice is one");
}

#[test]
fn a_whiteout_is_of_the_layers_below() {
    let (_outer, root) = root_of(
        Tar::new()
            .file("kept", "mine")
            .file(".wh.kept", "")
            .dir("before")
            .file("before/mine", "")
            .file(".wh.before", "")
            .file(".wh.after", "")
            .dir("after")
            .file("after/mine", "")
            .file(".wh.again", "")
            .file("again", "mine")
            .dir("plain")
            .file(".wh..wh.plnk", ""),
    );
    assert_eq!(fs_err::read_to_string(root.join("kept")).unwrap(), "mine");
    assert_eq!(fs_err::read_to_string(root.join("again")).unwrap(), "mine");
    for hidden in ["before", "after"] {
        assert!(root.join(hidden).join("mine").exists());
        assert!(opaque(&root.join(hidden)), "{hidden}");
    }
    assert!(!opaque(&root.join("plain")));
    assert!(!root.join(".wh..wh.plnk").exists() && !root.join(".wh.plnk").exists());
}

#[test]
fn devices_pipes_owners_and_set_id_bits() {
    let (_outer, root) = root_of(
        Tar::new()
            .changed(EntryType::Char, "null", b"", |header| {
                header.set_mode(0o666);
                header.set_device_major(1).unwrap();
                header.set_device_minor(3).unwrap();
            })
            .changed(EntryType::Fifo, "pipe", b"", |header| {
                header.set_mode(0o620)
            })
            .changed(EntryType::Regular, "su", b"x", |header| {
                header.set_mode(0o4755);
                header.set_uid(5);
            })
            .changed(EntryType::Directory, "shared", b"", |header| {
                header.set_mode(0o2775);
                header.set_gid(50);
            })
            .file("shared/roots", "")
            .dir("shared/inner")
            .symlink("shared/link", "roots")
            .changed(EntryType::Regular, "blank", b"", |header| {
                header.as_old_mut().uid.fill(0);
                header.as_old_mut().gid.fill(b' ');
                header.as_old_mut().mtime.fill(0);
            })
            .changed(EntryType::Directory, "tmp", b"", |header| {
                header.set_mode(0o1777);
            }),
    );
    let look = |name: &str| {
        let meta = fs_err::symlink_metadata(root.join(name)).unwrap();
        (meta.mode() & 0o7777, meta.uid(), meta.gid())
    };
    let null = fs_err::symlink_metadata(root.join("null")).unwrap();
    assert!(null.file_type().is_char_device() && null.rdev() == 0x103);
    assert_eq!(look("null"), (0o666, 0, 0));
    assert_eq!(look("pipe").0, 0o620);
    assert_eq!(look("su"), (0o4755, 5, 0));
    assert_eq!(look("shared"), (0o2775, 0, 50));
    // What the directory gives to new files is not what the archive says.
    assert_eq!(look("shared/roots"), (0o644, 0, 0));
    assert_eq!(look("shared/inner"), (0o755, 0, 0));
    assert_eq!(look("shared/link").2, 0);
    assert_eq!(look("blank"), (0o644, 0, 0));
    assert_eq!(look("tmp").0, 0o1777);
}

#[test]
fn names_are_bytes() {
    let mut tar = Tar::new();
    let mut header = Header::new_gnu();
    header.as_old_mut().name[..4].copy_from_slice(b"a\xff\xfeb");
    header.set_mode(0o644);
    header.set_size(0);
    header.set_uid(0);
    header.set_gid(0);
    header.set_mtime(0);
    header.set_cksum();
    tar.0.append(&header, &b""[..]).unwrap();
    let (_outer, root) = root_of(tar);
    assert!(root.join(OsStr::from_bytes(b"a\xff\xfeb")).exists());
}

#[test]
fn attributes_are_kept_and_overlayfs_is_not_steered() {
    let capability = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let mut tar = Tar::new();
    tar.0
        .append_pax_extensions([
            ("SCHILY.xattr.security.capability", &capability[..]),
            ("SCHILY.xattr.user.color", b"red"),
            ("SCHILY.xattr.trusted.overlay.opaque", b"y"),
            ("SCHILY.xattr.trusted.overlay.redirect", b"/etc"),
        ])
        .unwrap();
    let (_outer, root) = root_of(tar.changed(EntryType::Regular, "ping", b"x", |header| {
        header.set_uid(1);
        header.set_mode(0o755);
    }));
    let mut value = [0_u8; 64];
    let n = fs::getxattr(root.join("ping"), "security.capability", &mut value).unwrap();
    assert_eq!(value[..n], capability);
    let n = fs::getxattr(root.join("ping"), "user.color", &mut value).unwrap();
    assert_eq!(&value[..n], b"red");
    for name in [OPAQUE_ATTRIBUTE, "trusted.overlay.redirect"] {
        assert!(fs::getxattr(root.join("ping"), name, &mut value).is_err());
    }
}

#[test]
fn holes_are_holes() {
    let mut tar = Tar::new();
    tar.0
        .append_pax_extensions([
            ("GNU.sparse.size", &b"1073741824"[..]),
            ("GNU.sparse.map", b"4096,4,1073741820,4"),
        ])
        .unwrap();
    let (_outer, root) = root_of(tar.file("f", "headtail"));
    let meta = fs_err::metadata(root.join("f")).unwrap();
    assert_eq!(meta.len(), 1 << 30);
    assert!(meta.blocks() < 64, "{} blocks", meta.blocks());
    use std::os::unix::fs::FileExt as _;
    let file = std::fs::File::open(root.join("f")).unwrap();
    for (at, want) in [(4096, b"head"), ((1 << 30) - 4, b"tail")] {
        let mut got = [0; 4];
        file.read_exact_at(&mut got, at).unwrap();
        assert_eq!(&got, want);
    }
}

#[test]
fn limits_are_said_and_held() {
    let long = "x/".repeat(3000);
    for (what, tar) in [
        ("a file larger than any disk", {
            Tar::new().changed(EntryType::Regular, "giant", b"", |header| {
                header.set_size(1 << 60);
            })
        }),
        ("a path longer than the kernel takes", {
            let mut tar = Tar::new();
            tar.0
                .append_pax_extensions([("path", long.as_bytes())])
                .unwrap();
            tar.file("f", "")
        }),
        ("a name longer than the kernel takes", {
            let mut tar = Tar::new();
            tar.0
                .append_pax_extensions([("path", &[b'n'; 300][..])])
                .unwrap();
            tar.file("f", "")
        }),
        ("a device number over 32 bits", {
            Tar::new().changed(EntryType::Char, "d", b"", |header| {
                if let Some(ustar) = header.as_ustar_mut() {
                    ustar.dev_major.fill(b'9');
                }
                if let Some(gnu) = header.as_gnu_mut() {
                    gnu.dev_major.fill(b'9');
                }
            })
        }),
        ("no name", Tar::new().file("", "x")),
        (
            "an unknown type",
            Tar::new().raw(EntryType::new(b'Q'), "q", "", b""),
        ),
        (
            "a link to nothing",
            Tar::new().raw(EntryType::Link, "h", "gone", b""),
        ),
    ] {
        let (outer, result) = tar.unpack();
        let error = result.expect_err(what).to_string();
        assert!(error.len() < 400, "{what}: {error}");
        outside_is_untouched(&outer);
    }
}

/// Deeper than a stack or a table of open files could take.
#[test]
fn deep_trees_come_and_go() {
    let mut tar = Tar::new();
    let deep = "d/".repeat(1900);
    tar.0
        .append_pax_extensions([("path", (deep + "f").as_bytes())])
        .unwrap();
    let (_outer, root) = root_of(tar.file("f", "").file("d", "a file now"));
    assert_eq!(
        fs_err::read_to_string(root.join("d")).unwrap(),
        "a file now"
    );
}

#[test]
fn empty_layers_are_layers() {
    for bytes in [&[][..], &[0; 1024], &[0; 10240]] {
        let root = tempfile::tempdir().unwrap();
        let unpacked = unpack(bytes, root.path(), 1).unwrap();
        assert_eq!(unpacked, Unpacked::default());
    }
}
