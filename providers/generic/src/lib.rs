//! Hosts that already exist, reached by SSH.
//!
//! Nothing here touches the host: create checks what was given, delete forgets it. Deliberately absent: a power switch.

use async_trait::async_trait;
use windlass_provider::{
    Context, CreateRequest, Driver, ErrorKind, Instance, LoginKey, OptionSpec, OptionValues,
    Ownership, PowerState, Provider, ProviderError, Result,
};

/// The options, in docker-machine's names.
pub const OPTIONS: &[OptionSpec] = &[
    OptionSpec {
        required: true,
        env: Some("GENERIC_IP_ADDRESS"),
        ..OptionSpec::new("ip-address", "IP address or name of the host")
    },
    OptionSpec {
        env: Some("GENERIC_SSH_USER"),
        default: Some("root"),
        ..OptionSpec::new(
            "ssh-user",
            "SSH login name: root, or a user with passwordless sudo",
        )
    },
    OptionSpec {
        env: Some("GENERIC_SSH_KEY"),
        file: true,
        ..OptionSpec::new(
            "ssh-key",
            "SSH private key file [default: the agent and your own keys]",
        )
    },
    OptionSpec {
        env: Some("GENERIC_SSH_PORT"),
        default: Some("22"),
        ..OptionSpec::new("ssh-port", "SSH port")
    },
    OptionSpec {
        env: Some("GENERIC_ENGINE_PORT"),
        ..OptionSpec::new(
            "engine-port",
            "accepted for docker-machine's sake; the engine opens no TCP port",
        )
    },
    OptionSpec {
        env: Some("GENERIC_PRIVATE_ADDRESS"),
        ..OptionSpec::new(
            "private-address",
            "address under which the other machines reach it [default: ip-address]",
        )
    },
];

/// This provider, for the table of drivers.
pub const DRIVER: Driver = Driver {
    name: "generic",
    summary: "a host that already exists, reached by SSH",
    options: OPTIONS,
    from_options,
};

/// One host, as given by the options.
#[derive(Clone, Debug)]
pub struct Generic {
    address: String,
    private_address: Option<String>,
    user: String,
    port: u16,
    key: LoginKey,
}

/// Builds the provider from resolved values, and checks them.
pub fn from_options(values: &OptionValues, _: &Context) -> Result<Box<dyn Provider>> {
    Ok(Box::new(Generic::new(values)?))
}

impl Generic {
    /// Checks the values.
    pub fn new(values: &OptionValues) -> Result<Self> {
        let text = |name: &str| {
            values
                .get(name)
                .map(String::as_str)
                .filter(|value| !value.is_empty())
        };
        let address =
            text("ip-address").ok_or_else(|| invalid("ip-address", "", "it is missing"))?;
        check_address("ip-address", address)?;
        let private_address = text("private-address");
        if let Some(private) = private_address {
            check_address("private-address", private)?;
        }
        let user = text("ssh-user").unwrap_or("root");
        if user.starts_with('-')
            || user.contains(|c: char| c.is_whitespace() || c.is_control() || "@:/".contains(c))
        {
            return Err(invalid("ssh-user", user, "it is not a login name"));
        }
        if let Some(port) = text("engine-port") {
            check_port("engine-port", port)?;
        }
        Ok(Self {
            address: address.to_owned(),
            private_address: private_address.map(str::to_owned),
            user: user.to_owned(),
            port: check_port("ssh-port", text("ssh-port").unwrap_or("22"))?,
            key: text("ssh-key").map_or(LoginKey::Users, |path| LoginKey::File(path.into())),
        })
    }

    fn instance(&self, name: &str, token: &str) -> Instance {
        Instance {
            id: self.id(),
            name: name.to_owned(),
            token: token.to_owned(),
            state: PowerState::Unknown,
            address: Some(self.address.clone()),
            private_address: self.private_address.clone(),
            ssh_port: self.port,
            ssh_user: self.user.clone(),
        }
    }

    fn id(&self) -> String {
        match self.address.contains(':') {
            true => format!("[{}]:{}", self.address, self.port),
            false => format!("{}:{}", self.address, self.port),
        }
    }
}

#[async_trait]
impl Provider for Generic {
    fn name(&self) -> &'static str {
        DRIVER.name
    }

    fn ownership(&self) -> Ownership {
        Ownership::Adopts
    }

    fn login_key(&self) -> LoginKey {
        self.key.clone()
    }

    async fn create(&self, request: &CreateRequest) -> Result<Instance> {
        if let LoginKey::File(path) = &self.key
            && !path.is_file()
        {
            let path = path.display().to_string();
            return Err(invalid("ssh-key", &path, "there is no such file"));
        }
        Ok(self.instance(&request.name, &request.token))
    }

    async fn get(&self, id: &str) -> Result<Instance> {
        if id == self.id() {
            return Ok(self.instance("", ""));
        }
        let message = format!("the host is `{}` by its options, and not `{id}`", self.id());
        Err(ProviderError::new(ErrorKind::NotFound, message))
    }

    async fn list(&self) -> Result<Vec<Instance>> {
        Ok(Vec::new())
    }

    async fn delete(&self, _: &str) -> Result<()> {
        Ok(())
    }
}

fn check_address(option: &str, value: &str) -> Result<()> {
    if value.parse::<std::net::IpAddr>().is_ok() {
        return Ok(());
    }
    let label = |label: &str| {
        let inner = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        !label.is_empty()
            && label.len() <= 63
            && label.chars().all(inner)
            && !label.starts_with('-')
    };
    let numbers = value.chars().all(|c| c.is_ascii_digit() || c == '.');
    let name = value.trim_end_matches('.');
    if !numbers && name.len() <= 253 && name.split('.').all(label) {
        return Ok(());
    }
    Err(invalid(
        option,
        value,
        "it is neither an IP address nor a host name",
    ))
}

fn check_port(option: &str, value: &str) -> Result<u16> {
    match value.parse() {
        Ok(port) if port > 0 => Ok(port),
        _ => Err(invalid(option, value, "it is not a port from 1 to 65535")),
    }
}

fn invalid(option: &str, value: &str, reason: &str) -> ProviderError {
    ProviderError::new(
        ErrorKind::Invalid,
        format!("--generic-{option} `{value}`: {reason}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use windlass_provider::{conformance, resolve};

    fn values(pairs: &[(&str, &str)]) -> OptionValues {
        let given = pairs
            .iter()
            .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
            .collect();
        resolve("generic", OPTIONS, &given).unwrap()
    }

    #[tokio::test]
    async fn conforms() {
        let factory = || async {
            Box::new(Generic::new(&values(&[("ip-address", "192.0.2.5")])).unwrap())
                as Box<dyn Provider>
        };
        conformance::run(factory, &conformance::Settings::default()).await;
    }

    #[test]
    fn values_are_checked() {
        for good in [
            "192.0.2.5",
            "2001:db8::1",
            "web.example.com",
            "localhost",
            "web.example.com.",
        ] {
            assert!(
                Generic::new(&values(&[("ip-address", good)])).is_ok(),
                "{good}"
            );
        }
        let bad = [
            ("ip-address", "1.2.3"),
            ("ip-address", "a b"),
            ("ip-address", "root@host"),
            ("ip-address", "-oProxyCommand=x"),
            ("ssh-port", "0"),
            ("ssh-port", "70000"),
            ("ssh-user", "-x"),
            ("ssh-user", "a b"),
            ("engine-port", "x"),
            ("private-address", "a/b"),
        ];
        for (name, value) in bad {
            let mut given = values(&[("ip-address", "192.0.2.5")]);
            given.insert(name.to_owned(), value.to_owned());
            let error = Generic::new(&given).unwrap_err();
            assert!(
                error.message.contains(name) && error.message.contains(value),
                "{error}"
            );
        }
    }

    #[tokio::test]
    async fn a_missing_key_is_named() {
        let generic = Generic::new(&values(&[
            ("ip-address", "192.0.2.5"),
            ("ssh-key", "/nowhere/key"),
        ]))
        .unwrap();
        let request = CreateRequest {
            name: "a".into(),
            token: "t".into(),
            authorized_key: String::new(),
            host_key: None,
        };
        let error = generic.create(&request).await.unwrap_err();
        assert_eq!(
            error.message,
            "--generic-ssh-key `/nowhere/key`: there is no such file"
        );
    }
}
