//! Logging in: which keys are offered, in which order.
//!
//! Key files come first (given ones, then the configuration's), each signed for by the agent where the file is encrypted and the
//! agent holds it; then what else the agent has, unless `IdentitiesOnly`. A host counts every offer against its limit, so no key
//! is offered twice.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use russh::AgentAuthError;
use russh::client::AuthResult;
use russh::keys::agent::AgentIdentity;
use russh::keys::agent::client::AgentClient;
use russh::keys::{Algorithm, HashAlg, PrivateKey, PrivateKeyWithHashAlg, PublicKey};
use tokio::net::UnixStream;

use crate::connection::Greeted;
use crate::error::{Error, Result};
use crate::keys::{self, LoadedKey, fingerprint};

/// What may be offered to one host.
#[derive(Clone, Debug, Default)]
pub(crate) struct Identities {
    pub files: Vec<PathBuf>,
    pub agent: Option<PathBuf>,
    pub only_files: bool,
}

enum Offer {
    File(PathBuf, Arc<PrivateKey>),
    Agent(Box<AgentIdentity>),
}

struct Attempt {
    offers: Vec<Offer>,
    agent: Option<AgentClient<UnixStream>>,
    tried: Vec<String>,
    problems: Vec<Error>,
}

/// Tries every key until one is accepted.
pub(crate) async fn log_in(greeted: &mut Greeted, user: &str, given: &Identities) -> Result<()> {
    let mut attempt = Attempt::prepare(given).await;
    let offers = std::mem::take(&mut attempt.offers);
    let nothing_to_offer = offers.is_empty();
    for offer in offers {
        if greeted.handle.is_closed() {
            attempt
                .tried
                .push("then the host hung up, perhaps because of too many keys".to_owned());
            break;
        }
        if attempt.offer(greeted, user, offer).await? {
            return Ok(());
        }
    }
    // One unusable key file and nothing else: that is the error.
    if nothing_to_offer && attempt.problems.len() == 1 {
        return Err(attempt.problems.remove(0));
    }
    let problems = attempt.problems.iter().map(ToString::to_string);
    attempt.tried.extend(problems);
    Err(Error::Auth {
        user: user.to_owned(),
        address: greeted.expected.address.clone(),
        tried: attempt.tried,
    })
}

impl Attempt {
    async fn prepare(given: &Identities) -> Self {
        let mut attempt = Self {
            offers: Vec::new(),
            agent: None,
            tried: Vec::new(),
            problems: Vec::new(),
        };
        let mut held = attempt.ask_agent(given.agent.as_deref()).await;
        let mut seen: Vec<PublicKey> = Vec::new();
        for path in &given.files {
            attempt.add_file(path, &mut held, &mut seen);
        }
        if !given.only_files {
            held.retain(|identity| !holds(&seen, &identity.public_key()));
            attempt
                .offers
                .extend(held.into_iter().map(|i| Offer::Agent(Box::new(i))));
        }
        attempt
    }

    fn add_file(&mut self, path: &Path, held: &mut Vec<AgentIdentity>, seen: &mut Vec<PublicKey>) {
        match keys::load(path) {
            Ok(LoadedKey::Ready(key)) => {
                if !holds(seen, key.public_key()) {
                    seen.push(key.public_key().clone());
                    self.offers.push(Offer::File(path.to_owned(), key));
                }
            }
            Ok(LoadedKey::Encrypted(public)) => {
                let place = public.as_ref().and_then(|public| {
                    let same = |i: &AgentIdentity| i.public_key().key_data() == public.key_data();
                    held.iter().position(same)
                });
                match place {
                    Some(place) => {
                        let identity = Box::new(held.remove(place));
                        self.offers.push(Offer::Agent(identity));
                    }
                    None => self.problems.push(keys::encrypted(path)),
                }
            }
            Err(problem) => self.problems.push(problem),
        }
    }

    async fn ask_agent(&mut self, socket: Option<&Path>) -> Vec<AgentIdentity> {
        let Some(socket) = socket else {
            return Vec::new();
        };
        let ask = async {
            let mut agent = AgentClient::connect_uds(socket).await?;
            let identities = agent.request_identities().await?;
            Ok::<_, russh::keys::Error>((agent, identities))
        };
        match ask.await {
            Ok((agent, identities)) => {
                self.agent = Some(agent);
                identities
            }
            Err(e) => {
                self.tried.push(format!(
                    "the agent at {} does not answer: {e}",
                    socket.display()
                ));
                Vec::new()
            }
        }
    }

    async fn offer(&mut self, greeted: &mut Greeted, user: &str, offer: Offer) -> Result<bool> {
        let result = match offer {
            Offer::File(path, key) => {
                let shown = format!("{} {}", path.display(), fingerprint(key.public_key()));
                self.tried.push(shown);
                let hash = rsa_hash(greeted, &key.algorithm()).await;
                let key = PrivateKeyWithHashAlg::new(key, hash);
                greeted.handle.authenticate_publickey(user, key).await
            }
            Offer::Agent(identity) => match self.offer_of_agent(greeted, user, *identity).await {
                Ok(result) => Ok(result),
                Err(e) => {
                    self.tried
                        .push(format!("which the agent did not sign with: {e}"));
                    return Ok(false);
                }
            },
        };
        match result {
            Ok(AuthResult::Success) => return Ok(true),
            Ok(AuthResult::Failure {
                partial_success: true,
                ..
            }) => self
                .tried
                .push("accepted, but the host asks for a second factor".to_owned()),
            Ok(AuthResult::Failure { .. }) => {}
            Err(source) => {
                return Err(Error::Handshake {
                    address: greeted.expected.address.clone(),
                    source,
                });
            }
        }
        Ok(false)
    }

    async fn offer_of_agent(
        &mut self,
        greeted: &mut Greeted,
        user: &str,
        identity: AgentIdentity,
    ) -> Result<AuthResult, AgentAuthError> {
        let public = identity.public_key().into_owned();
        let shown = format!("{} {}", identity.comment(), fingerprint(&public));
        self.tried.push(format!("{shown} of the agent"));
        let hash = rsa_hash(greeted, &public.algorithm()).await;
        let Some(agent) = self.agent.as_mut() else {
            return Err(AgentAuthError::Key(russh::keys::Error::AgentFailure));
        };
        let handle = &mut greeted.handle;
        match identity {
            AgentIdentity::PublicKey { key, .. } => {
                handle
                    .authenticate_publickey_with(user, key, hash, agent)
                    .await
            }
            AgentIdentity::Certificate { certificate, .. } => {
                handle
                    .authenticate_certificate_with(user, certificate, hash, agent)
                    .await
            }
        }
    }
}

fn holds(keys: &[PublicKey], key: &PublicKey) -> bool {
    keys.iter().any(|other| other.key_data() == key.key_data())
}

/// Asked for only when there is an RSA key: a host that does not say costs up to a second.
async fn rsa_hash(greeted: &Greeted, algorithm: &Algorithm) -> Option<HashAlg> {
    if !matches!(algorithm, Algorithm::Rsa { .. }) {
        return None;
    }
    match greeted.handle.best_supported_rsa_hash().await {
        Ok(Some(best)) => best,
        _ => Some(HashAlg::Sha256),
    }
}
