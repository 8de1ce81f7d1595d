//! Headers in every form that layers come with.

use super::*;

/// A v7 header: no magic at all.
fn header(name: &[u8], flag: u8, size: &[u8]) -> [u8; BLOCK] {
    let mut header = [0_u8; BLOCK];
    header[..name.len()].copy_from_slice(name);
    header[100..107].copy_from_slice(b"0000644");
    header[124..124 + size.len()].copy_from_slice(size);
    header[156] = flag;
    sum(&mut header);
    header
}

fn sum(header: &mut [u8; BLOCK]) {
    header[148..156].fill(b' ');
    let sum: u32 = header.iter().map(|byte| u32::from(*byte)).sum();
    header[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
}

fn padded(content: &[u8]) -> Vec<u8> {
    let mut padded = content.to_vec();
    padded.resize(content.len().next_multiple_of(BLOCK), 0);
    padded
}

fn extension(flag: u8, content: &[u8]) -> Vec<u8> {
    let size = format!("{:o}", content.len());
    [
        header(b"x", flag, size.as_bytes()).to_vec(),
        padded(content),
    ]
    .concat()
}

fn pax(records: &[(&str, &str)]) -> Vec<u8> {
    let mut all = String::new();
    for (key, value) in records {
        let rest = key.len() + value.len() + 3;
        let mut length = rest + 1;
        while length.to_string().len() + rest != length {
            length += 1;
        }
        all += &format!("{length} {key}={value}\n");
    }
    extension(b'x', all.as_bytes())
}

fn first(archive: &[u8]) -> io::Result<(Entry, Vec<u8>)> {
    let mut entries = Entries::new(archive);
    let mut entry = Entry::default();
    assert!(entries.next(&mut entry)?, "no entry");
    let mut content = Vec::new();
    loop {
        let part = entries.content()?;
        if part.is_empty() {
            return Ok((entry, content));
        }
        content.extend_from_slice(part);
        let n = part.len();
        entries.consume(n);
    }
}

#[test]
fn numbers_are_read_as_people_write_them() {
    for (field, want) in [
        (&b"0000644\0"[..], Some(0o644)),
        (b"   644 \0", Some(0o644)),
        (b"\0\0\0\0\0\0\0\0", Some(0)),
        (b"        ", Some(0)),
        (b"00001750", Some(1000)),
        (b"\x80\0\0\0\0\0\x01\0", Some(256)),
        (b"\xff\xff\xff\xff\xff\xff\xff\xff", None),
        (b"\x80\xff\xff\xff\xff\xff\xff\xff\xff\xff", None),
        (b"0000888\0", None),
        (b"-000001\0", None),
    ] {
        assert_eq!(number(field).ok(), want, "{field:?}");
    }
    assert_eq!(signed(b"\xff\xff\xff\xff\xff\xff\xff\xfe").unwrap(), -2);
    for (text, want) in [
        ("12.5", Some((12, 500_000_000))),
        ("-12.0345", Some((-13, 965_500_000))),
        ("7", Some((7, 0))),
        ("1.1234567891", Some((1, 123_456_789))),
        ("1.x", None),
        ("", None),
    ] {
        assert_eq!(time(text.as_bytes()).ok(), want, "{text}");
    }
}

#[test]
fn long_names_come_by_both_extensions() {
    let long = "d/".repeat(120) + "f";
    let plain = header(b"short", b'0', b"1").to_vec();
    for before in [
        extension(b'L', (long.clone() + "\0").as_bytes()),
        pax(&[("path", &long)]),
    ] {
        let archive = [before, plain.clone(), padded(b"x")].concat();
        let (entry, content) = first(&archive).unwrap();
        assert_eq!(
            (String::from_utf8(entry.path).unwrap(), &content[..]),
            (long.clone(), &b"x"[..])
        );
    }
    let archive = [
        extension(b'K', long.as_bytes()),
        header(b"l", b'2', b"0").to_vec(),
    ]
    .concat();
    let (entry, _) = first(&archive).unwrap();
    assert_eq!((entry.kind, entry.link), (Kind::Symlink, long.into_bytes()));
}

#[test]
fn pax_records_outweigh_the_header() {
    let records = [
        ("uid", "3000000"),
        ("gid", "7"),
        ("mtime", "5.25"),
        ("size", "3"),
        ("SCHILY.xattr.user.a", "v=1"),
    ];
    let archive = [
        pax(&records),
        header(b"f", b'0', b"0").to_vec(),
        padded(b"abc"),
    ]
    .concat();
    let (entry, content) = first(&archive).unwrap();
    assert_eq!(
        (entry.uid, entry.gid, entry.mtime, &content[..]),
        (3_000_000, 7, (5, 250_000_000), &b"abc"[..])
    );
    assert_eq!(entry.xattrs, [(b"user.a".to_vec(), b"v=1".to_vec())]);
}

#[test]
fn old_and_odd_kinds_are_known() {
    let kind_of = |archive: &[u8]| first(archive).unwrap().0.kind;
    assert_eq!(kind_of(&header(b"d/", 0, b"0")), Kind::Directory);
    assert_eq!(kind_of(&header(b"f", 0, b"0")), Kind::File);
    assert_eq!(kind_of(&header(b"f", b'7', b"0")), Kind::File);
    assert_eq!(kind_of(&header(b"v", b'V', b"0")), Kind::Other(b'V'));
    // A directory or link that claims content has none.
    let archive = [header(b"d", b'5', b"1000"), header(b"f", b'0', b"0")].concat();
    let mut entries = Entries::new(&archive[..]);
    let mut entry = Entry::default();
    for want in ["d", "f"] {
        assert!(entries.next(&mut entry).unwrap());
        assert_eq!(entry.path, want.as_bytes());
    }
    let mut ustar = header(b"name", b'0', b"0");
    ustar[257..265].copy_from_slice(b"ustar\x0000");
    ustar[345..351].copy_from_slice(b"prefix");
    sum(&mut ustar);
    assert_eq!(first(&ustar).unwrap().0.path, b"prefix/name");
}

#[test]
fn files_with_holes_in_four_forms() {
    let mut gnu = header(b"f", b'S', b"4");
    gnu[386..397].copy_from_slice(b"00000001000");
    gnu[398..409].copy_from_slice(b"00000000004");
    gnu[483..494].copy_from_slice(b"00000002000");
    sum(&mut gnu);
    let file = |size| header(b"GNUSparseFile.1/f", b'0', size).to_vec();
    let content = padded(b"data");
    let name = ("GNU.sparse.name", "f");
    let archives = [
        [gnu.to_vec(), content.clone()].concat(),
        [
            pax(&[
                name,
                ("GNU.sparse.size", "1024"),
                ("GNU.sparse.offset", "512"),
                ("GNU.sparse.numbytes", "4"),
            ]),
            file(b"4"),
            content.clone(),
        ]
        .concat(),
        [
            pax(&[
                name,
                ("GNU.sparse.size", "1024"),
                ("GNU.sparse.map", "512,4"),
            ]),
            file(b"4"),
            content.clone(),
        ]
        .concat(),
        [
            pax(&[
                name,
                ("GNU.sparse.major", "1"),
                ("GNU.sparse.minor", "0"),
                ("GNU.sparse.realsize", "1024"),
            ]),
            file(b"1004"),
            padded(b"1\n512\n4\n"),
            content,
        ]
        .concat(),
    ];
    let map = [Fragment {
        offset: 512,
        length: 4,
    }];
    for (at, archive) in archives.iter().enumerate() {
        let (entry, content) = first(archive).unwrap();
        assert_eq!(
            (entry.path.as_slice(), entry.size, content.as_slice()),
            (&b"f"[..], 1024, &b"data"[..]),
            "{at}"
        );
        assert_eq!(entry.sparse.as_deref(), Some(&map[..]), "{at}");
    }
}

#[test]
fn what_is_broken_is_refused() {
    let mut wrong_sum = header(b"f", b'0', b"0");
    wrong_sum[0] = b'g';
    let sparse = |map| {
        [
            pax(&[("GNU.sparse.size", "10"), ("GNU.sparse.map", map)]),
            header(b"f", b'0', b"4").to_vec(),
            padded(b"data"),
        ]
        .concat()
    };
    for (what, archive) in [
        ("checksum", wrong_sum.to_vec()),
        ("cut header", header(b"f", b'0', b"0")[..100].to_vec()),
        ("cut content", header(b"f", b'0', b"1000").to_vec()),
        ("size", header(b"f", b'0', b"\xff\xff\xff\xff").to_vec()),
        ("giant", {
            let size = b"\x80\0\0\0\xff\xff\xff\xff\xff\xff\xff\xff";
            header(b"f", b'0', size).to_vec()
        }),
        (
            "long name bomb",
            header(b"x", b'L', b"77777777777").to_vec(),
        ),
        ("pax bomb", header(b"x", b'x', b"77777777777").to_vec()),
        (
            "pax length",
            [extension(b'x', b"99 a=b\n"), header(b"f", b'0', b"").into()].concat(),
        ),
        (
            "pax size",
            [pax(&[("size", "-1")]), header(b"f", b'0', b"").into()].concat(),
        ),
        ("extension of nothing", pax(&[("path", "x")])),
        ("sparse overlap", sparse("0,3,2,1")),
        ("sparse past the end", sparse("8,4")),
        ("sparse of another size", sparse("0,3")),
        ("sparse overflow", sparse("9223372036854775807,4")),
        ("sparse half a pair", sparse("1")),
    ] {
        assert!(first(&archive).is_err(), "{what}");
    }
}
