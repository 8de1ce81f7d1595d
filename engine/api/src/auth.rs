//! Registry credentials in the `X-Registry-Auth` header.

use base64::Engine as _;
use base64::alphabet;
use base64::engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig};
use serde::{Deserialize, Serialize};

const URL_SAFE: GeneralPurpose = GeneralPurpose::new(
    &alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent),
);

/// Credentials for one registry.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, rename_all = "lowercase")]
pub struct RegistryAuth {
    /// The user.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub username: String,
    /// The password or access token.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub password: String,
    /// The registry's host.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub serveraddress: String,
    /// An OAuth2 refresh token, instead of a password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub identitytoken: String,
    /// A bearer token, instead of a password.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub registrytoken: String,
    /// `user:password` in base64, instead of the two fields.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub auth: String,
}

impl std::fmt::Debug for RegistryAuth {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("RegistryAuth")
            .field("username", &self.username)
            .field("serveraddress", &self.serveraddress)
            .finish_non_exhaustive()
    }
}

impl RegistryAuth {
    /// User and password.
    pub fn basic(username: &str, password: &str) -> Self {
        Self {
            username: username.to_owned(),
            password: password.to_owned(),
            ..Self::default()
        }
    }

    /// Whether there is anything to log in with.
    pub fn is_anonymous(&self) -> bool {
        self.username.is_empty()
            && self.identitytoken.is_empty()
            && self.registrytoken.is_empty()
            && self.auth.is_empty()
    }

    /// As the header's value.
    pub fn to_header(&self) -> String {
        URL_SAFE.encode(serde_json::to_vec(self).unwrap_or_default())
    }

    /// Reads the header's value; base64 of either alphabet, with or without padding. Nothing readable means anonymous.
    pub fn from_header(value: &str) -> Option<Self> {
        let value = value.trim().replace('+', "-").replace('/', "_");
        let mut auth: Self = crate::from_slice(&URL_SAFE.decode(value).ok()?).ok()?;
        if auth.username.is_empty() && !auth.auth.is_empty() {
            let pair = URL_SAFE
                .decode(auth.auth.replace('+', "-").replace('/', "_"))
                .ok()?;
            let pair = String::from_utf8(pair).ok()?;
            let (user, password) = pair.split_once(':')?;
            auth.username = user.to_owned();
            auth.password = password.to_owned();
        }
        (!auth.is_anonymous()).then_some(auth)
    }
}

#[cfg(test)]
mod tests {
    use super::RegistryAuth;

    #[test]
    fn header_round_trip() {
        let auth = RegistryAuth::basic("bob", "s3cret?>~");
        assert_eq!(
            RegistryAuth::from_header(&auth.to_header()),
            Some(auth.clone())
        );
        assert_eq!(RegistryAuth::from_header("e30="), None);
        assert_eq!(RegistryAuth::from_header(""), None);
        assert!(!format!("{auth:?}").contains("s3cret"));
    }
}
