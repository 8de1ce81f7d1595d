//! The installation: look, check, send, start, wait; and back to the engine before when the new one does not answer.

use std::time::Duration;

use tokio::time::Instant;
use tokio_util::io::InspectReader;
use windlass_engine_api::Client;
use windlass_ssh::{Command, Encoding, Session, Upload};

use crate::binaries::{Binaries, EngineBinary};
use crate::check;
use crate::error::{Error, Restored, Result};
use crate::layout::Layout;
use crate::probe::{Probe, Running, probe_at};
use crate::progress::{Installed, Progress};
use crate::service::{Service, Started, State, Wanted, Words};

/// How long a started engine may take to answer. On a busy small host it has containers to adopt first.
const ANSWERS_WITHIN: Duration = Duration::from_secs(60);
/// For one question.
const QUESTION: Duration = Duration::from_secs(5);
const BETWEEN_QUESTIONS: Duration = Duration::from_millis(100);
/// How often the host is asked whether the engine is still there.
const BETWEEN_LOOKS: Duration = Duration::from_secs(1);

type Report<'a> = &'a mut (dyn FnMut(Progress) + Send);

/// Puts the engine onto the host and waits until it answers; changes nothing where it is there already.
pub async fn install(
    session: &Session,
    binaries: &Binaries,
    report: Report<'_>,
) -> Result<Installed> {
    install_at(session, binaries, &Layout::default(), report).await
}

/// The same with everything below a prefix.
pub async fn install_at(
    session: &Session,
    binaries: &Binaries,
    layout: &Layout,
    report: Report<'_>,
) -> Result<Installed> {
    report(Progress::Probing);
    let probe = probe_at(session, layout).await?;
    let arch = check::host(&probe, session.user())?;
    let engine = binaries.engine(arch).await?;
    let there = probe.engine.as_ref();
    let same = there.is_some_and(|there| there.digest.as_ref() == Some(&engine.digest));
    let stale = there.is_some_and(|there| there.running == Running::Stale);
    let job = Job {
        service: Service {
            session,
            layout,
            init: probe.init,
        },
        probe: &probe,
        engine: &engine,
    };
    let uploaded_bytes = if same { 0 } else { job.send(report).await? };
    report(Progress::Starting);
    let wanted = if !same || stale {
        Wanted::Restarted
    } else {
        Wanted::Running
    };
    let started = job.service.converge(wanted).await?;
    report(Progress::Waiting);
    let version = match job.answer(&started).await? {
        Ok(version) => version,
        Err(silence) => return Err(job.give_up(silence, same, report).await),
    };
    if !same || stale {
        job.service.keep(&engine.digest).await?;
    }
    Ok(Installed {
        digest: engine.digest.clone(),
        version,
        socket: layout.socket(),
        uploaded_bytes,
        changed: !same || started.changed,
        docker: probe.docker.clone(),
    })
}

struct Job<'a> {
    service: Service<'a>,
    probe: &'a Probe,
    engine: &'a EngineBinary,
}

/// An engine that does not answer.
struct Silence {
    how: String,
    last_words: String,
}

impl Job<'_> {
    /// Sends the program, compressed where the host can unpack it. Returns the bytes sent.
    async fn send(&self, report: Report<'_>) -> Result<u64> {
        let layout = self.service.layout;
        let binary = layout.binary();
        let folder = binary.rsplit_once('/').map_or("/", |(folder, _)| folder);
        check::room(self.probe, folder, &layout.state(), self.engine.size)?;
        let (content, encoding) = if self.probe.has_gzip {
            (self.engine.compressed.to_vec(), Encoding::Gzip)
        } else {
            (self.engine.unpacked().await?, Encoding::Plain)
        };
        let upload = Upload::new(&binary, 0o755)
            .sha256(&self.engine.digest)
            .encoding(encoding)
            .keep_old_as(layout.old_binary())
            .as_root();
        let total = content.len() as u64;
        let mut sent = 0;
        let watched = InspectReader::new(content.as_slice(), |bytes: &[u8]| {
            sent += bytes.len() as u64;
            report(Progress::Uploading { sent, total });
        });
        let uploaded = self.service.session.upload(watched, &upload).await;
        let uploaded = uploaded.map_err(|e| self.upload_error(folder, e))?;
        if !uploaded.verified {
            self.try_out(&binary).await?;
        }
        Ok(uploaded.bytes_sent)
    }

    fn upload_error(&self, folder: &str, source: windlass_ssh::Error) -> Error {
        match &source {
            windlass_ssh::Error::Failed { said, .. } if said.contains("No space left") => {
                Error::DiskFull {
                    path: folder.to_owned(),
                    free: self.probe.free_binary_bytes.unwrap_or(0),
                    needed: self.engine.size,
                }
            }
            _ => Error::ssh("the upload of the engine", source),
        }
    }

    /// On a host that cannot compare digests: whether the program runs at all.
    async fn try_out(&self, binary: &str) -> Result<()> {
        let version = Command::new([binary, "--version"]).as_root();
        let output = self.service.session.exec(&version).await;
        let output = output.map_err(|e| Error::ssh("trying the engine out", e))?;
        if output.success() {
            return Ok(());
        }
        self.service.take_back().await?;
        Err(Error::DoesNotRun {
            said: output.stderr_text(),
        })
    }

    /// Asks until the engine answers with its version, its process is gone, or the time is over.
    async fn answer(&self, started: &Started) -> Result<Result<String, Silence>> {
        let layout = self.service.layout;
        let socket = layout.socket();
        let dial = self
            .service
            .session
            .unix_socket_with(&socket, layout.bridge());
        let client = Client::new(dial);
        let end = Instant::now() + ANSWERS_WITHIN;
        let mut look = Instant::now() + BETWEEN_LOOKS;
        loop {
            let asking = async {
                client.ping().await?;
                client.version().await
            };
            match tokio::time::timeout(QUESTION, asking).await {
                Ok(Ok(version)) => return Ok(Ok(version.version)),
                Ok(Err(error)) => tracing::debug!(%error, "the engine does not answer yet"),
                Err(_) => tracing::debug!("the engine keeps silent"),
            }
            let over = Instant::now() >= end;
            if over || Instant::now() >= look {
                let words = if over { Words::Always } else { Words::IfGone };
                let (state, last_words) = self.service.state(started, words).await?;
                if let Some(how) = describe(&state, over) {
                    return Ok(Err(Silence { how, last_words }));
                }
                look = Instant::now() + BETWEEN_LOOKS;
            }
            tokio::time::sleep(BETWEEN_QUESTIONS).await;
        }
    }

    /// Back to the engine before, if there was one. Nothing new was sent where it was the `same` already.
    async fn give_up(&self, silence: Silence, same: bool, report: Report<'_>) -> Error {
        report(Progress::Restoring);
        let restored = match self.restore(same).await {
            Ok(restored) => restored,
            Err(error) => Restored::No(error.to_string()),
        };
        Error::Silent {
            how: silence.how,
            last_words: if silence.last_words.is_empty() {
                "(it said nothing)".to_owned()
            } else {
                silence.last_words
            },
            restored,
        }
    }

    async fn restore(&self, same: bool) -> Result<Restored> {
        if !self.service.take_back().await? {
            // A new engine that cannot run is not left to be started over and over.
            if !same {
                self.service.converge(Wanted::Stopped).await?;
            }
            return Ok(Restored::NoneBefore);
        }
        let started = self.service.converge(Wanted::Restarted).await?;
        Ok(match self.answer(&started).await? {
            Ok(_) => Restored::Yes,
            Err(_) => Restored::Silent,
        })
    }
}

fn describe(state: &State, over: bool) -> Option<String> {
    match state {
        State::Gone => Some("ended at once".to_owned()),
        State::Up if over => Some(format!(
            "did not answer within {} s",
            ANSWERS_WITHIN.as_secs()
        )),
        State::Up => None,
    }
}
