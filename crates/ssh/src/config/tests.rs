//! Tables of what a configuration says about a host.

use super::*;

fn config(text: &str) -> ClientConfig {
    ClientConfig::parse(text, Path::new("/home/ann"), "ann").unwrap()
}

#[test]
fn the_first_value_wins_and_identities_add_up() {
    let config = config(
        "# comment\nHost web1\n  HostName 203.0.113.5\n  Port=2222\n  User \"deploy\"\n  IdentityFile ~/.ssh/web\n\n\
         Host web* !web9\n  Port 9\n  IdentityFile keys/%h-%r-%u\n  IdentitiesOnly yes\nHost *\n  User nobody\n  ForwardX11 yes\n",
    );
    let web1 = config.resolve("web1").unwrap();
    assert_eq!(web1.host_name, "203.0.113.5");
    assert_eq!(web1.port, Some(2222));
    assert_eq!(web1.user.as_deref(), Some("deploy"));
    assert!(web1.identities_only);
    assert_eq!(
        web1.identity_files,
        [
            PathBuf::from("/home/ann/.ssh/web"),
            PathBuf::from("/home/ann/.ssh/keys/203.0.113.5-deploy-ann")
        ]
    );
    let web9 = config.resolve("web9").unwrap();
    assert_eq!(web9.host_name, "web9");
    assert_eq!(web9.port, None);
    assert_eq!(web9.user.as_deref(), Some("nobody"));
}

#[test]
fn jumps_of_every_form() {
    let config = config(
        "Host a\n ProxyJump bastion\nHost b\n ProxyJump ann@one:2200,[2001:db8::1]:22,ssh://two\n\
         Host c\n ProxyJump none\nHost d\n ProxyJump @x\nHost e\n ProxyCommand nc %h %p\n\
         Host f\n ProxyJump bastion\n ProxyCommand nc\nHost g\n ProxyCommand none\n ProxyJump bastion\n",
    );
    let hop = |host: &str, port, user: Option<&str>| Hop {
        host: host.to_owned(),
        port,
        user: user.map(str::to_owned),
    };
    let jumps = |host| config.resolve(host).unwrap().proxy_jump;
    assert_eq!(jumps("a"), [hop("bastion", None, None)]);
    assert_eq!(
        jumps("b"),
        [
            hop("one", Some(2200), Some("ann")),
            hop("2001:db8::1", Some(22), None),
            hop("two", None, None)
        ]
    );
    assert!(jumps("c").is_empty());
    assert_eq!(jumps("f").len(), 1);
    assert!(jumps("g").is_empty());
    assert!(matches!(config.resolve("d"), Err(ConfigError::Jump(_))));
    assert!(matches!(
        config.resolve("e"),
        Err(ConfigError::ProxyCommand { .. })
    ));
}

#[test]
fn match_blocks_are_skipped_except_all() {
    let config = config("Match user root\n Port 1\nMatch all\n Port 2\nHost x\n User y\n");
    let x = config.resolve("x").unwrap();
    assert_eq!((x.port, x.user.as_deref()), (Some(2), Some("y")));
}

#[test]
fn includes_take_patterns_and_start_with_no_host() {
    let home = tempfile::tempdir().unwrap();
    let ssh = home.path().join(".ssh");
    fs_err::create_dir_all(ssh.join("conf.d")).unwrap();
    fs_err::write(ssh.join("conf.d/10-a"), "Host web\n Port 10\n").unwrap();
    fs_err::write(ssh.join("conf.d/20-b"), "User inner\n").unwrap();
    let parse = |text: &str| ClientConfig::parse(text, home.path(), "ann");
    let both = parse("Include conf.d/* absent\n").unwrap();
    assert_eq!(both.resolve("web").unwrap().port, Some(10));
    assert_eq!(both.resolve("db").unwrap().port, None);
    let db = both.resolve("db").unwrap();
    assert_eq!(
        db.user.as_deref(),
        Some("inner"),
        "a Host block ends with its file"
    );
}

#[test]
fn an_include_inside_a_host_block_applies_to_that_host_only() {
    let home = tempfile::tempdir().unwrap();
    let ssh = home.path().join(".ssh");
    fs_err::create_dir_all(&ssh).unwrap();
    fs_err::write(ssh.join("web"), "User inner\n").unwrap();
    fs_err::write(ssh.join("loop"), "Include loop\n").unwrap();
    let parse = |text: &str| ClientConfig::parse(text, home.path(), "ann");
    let config = parse("Host web\n Include ~/.ssh/web\n").unwrap();
    assert_eq!(
        config.resolve("web").unwrap().user.as_deref(),
        Some("inner")
    );
    assert_eq!(config.resolve("db").unwrap().user, None);
    assert!(matches!(
        parse("Include loop\n"),
        Err(ConfigError::Circle(_))
    ));
}

#[test]
fn errors_name_the_line() {
    let parse = |text: &str| {
        ClientConfig::parse(text, Path::new("/home/ann"), "ann")
            .unwrap_err()
            .to_string()
    };
    assert_eq!(
        parse("Host a\n Port many\n"),
        "line 2 of /home/ann/.ssh/config: many is not a port"
    );
    assert!(parse("User \"open\n").contains("line 1"));
    assert!(parse("HostName\n").contains("no value"));
}
