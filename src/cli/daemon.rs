//! The running daemon, asked over HTTP: one client for every command that does.

pub use hyper::StatusCode;

use super::{Error, Exit};
use crate::{config::Config, telemetry::Span};
use bytes::Bytes;
use clap::Args;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{
    Method, Request, Uri,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue},
};
use hyper_util::{
    client::legacy::{self, Client, connect::HttpConnector},
    rt::TokioExecutor,
};
use std::{
    fmt::Write as _,
    fs::File,
    io::Read,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    path::{Path, PathBuf},
    time::Duration,
};
use tokio::{sync::watch, time::timeout};

/// Longest that a connection attempt may take.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(2);
/// Longest that one question may take, unless the caller knows better. The daemon answers or hangs up long before.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// Largest answer that is read: metrics and reports are the largest.
const BODY_BYTES_MAX: usize = 4 * 1024 * 1024;
/// Largest token file that is read.
const TOKEN_BYTES_MAX: u64 = 4096;

/// Which daemon is asked, and as whom.
#[derive(Clone, Debug, Default, Args)]
pub struct DaemonArgs {
    /// Where the running daemon listens, as in http://127.0.0.1:8080 [default: http.listen of the configuration]
    #[arg(long, value_name = "URL")]
    pub url: Option<String>,
    /// File with the bearer token [default: that of the configuration, for a daemon on this machine]
    #[arg(long, value_name = "FILE")]
    pub token_file: Option<PathBuf>,
}

/// Where a daemon listens. It may change with a restart.
#[derive(Clone, Debug)]
pub struct Place {
    base: String,
    authorizations: Uri,
}

/// A pooled client, where it sends to and what it shows at the door. Clones share their connections.
#[derive(Clone, Debug)]
pub struct Daemon {
    client: Client<HttpConnector, Full<Bytes>>,
    place: watch::Receiver<Place>,
    token: Option<HeaderValue>,
    patience: Duration,
}

/// An answer, whatever its status.
#[derive(Clone, Debug)]
pub struct Reply {
    /// The HTTP status.
    pub status: StatusCode,
    /// All of the body.
    pub body: Bytes,
    /// The bytes are those of an earlier answer.
    pub replayed: bool,
    /// Whether the journal has it: not when `x-final: false` says so.
    pub journaled: bool,
    /// Microseconds per span, from the header.
    pub stages: Vec<(Span, u64)>,
    /// What is wrong with the request, where the daemon says so.
    pub detail: Option<String>,
}

/// Why there was no answer; asking the same again is safe.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nobody took the question, or the connection broke.
    #[error("no connection: {}", with_causes(.0))]
    Connection(#[from] legacy::Error),
    /// An answer began and did not end, or is longer than 4 MiB.
    #[error("the answer broke off: {0}")]
    Body(Box<dyn std::error::Error + Send + Sync>),
    /// The path makes no URL.
    #[error("not a request: {0}")]
    Request(#[from] hyper::http::Error),
    /// The time was up.
    #[error("no answer within {} ms", .0.as_millis())]
    Timeout(Duration),
}

impl Place {
    /// The daemon that listens here. An address that stands for every interface is reached on loopback.
    ///
    /// # Errors
    /// None in practice: every address makes a URL.
    pub fn new(address: SocketAddr) -> Result<Self, Error> {
        let ip = match address.ip() {
            IpAddr::V4(ip) if ip.is_unspecified() => Ipv4Addr::LOCALHOST.into(),
            IpAddr::V6(ip) if ip.is_unspecified() => Ipv6Addr::LOCALHOST.into(),
            ip => ip,
        };
        Self::parse(&format!("http://{}", SocketAddr::new(ip, address.port())))
    }

    /// Reads what a person gave as `--url`.
    ///
    /// # Errors
    /// [`Exit::BadFlagValue`] when it is not `http://host[:port][/path]`.
    pub fn parse(text: &str) -> Result<Self, Error> {
        let wrong = |why: &str| {
            let next = "give it as in --url http://127.0.0.1:8080 (https ends at the proxy in front of the daemon; ask the daemon itself)";
            Error::new(Exit::BadFlagValue, format!("--url {text:?} {why}"), next)
        };
        let base = text.trim_end_matches('/');
        let url: url::Url = base.parse().map_err(|error| wrong(&format!("is no URL: {error}")))?;
        if url.scheme() != "http" {
            return Err(wrong("does not begin with http://"));
        }
        if url.query().is_some() || url.fragment().is_some() || !url.username().is_empty() || url.password().is_some() {
            return Err(wrong("has more than host, port and path"));
        }
        let authorizations = format!("{base}/v1/authorizations").parse().map_err(|error| wrong(&format!("is no URL: {error}")))?;
        Ok(Self { base: base.to_owned(), authorizations })
    }

    fn is_loopback(&self) -> bool {
        let host = self.authorizations.host().unwrap_or_default();
        host == "localhost" || host.trim_matches(['[', ']']).parse().is_ok_and(|ip: IpAddr| ip.is_loopback())
    }
}

impl Daemon {
    /// The daemon that the arguments mean, or else the one that runs by this configuration. Nothing is sent yet.
    ///
    /// The token of the configuration is shown only to where the configuration listens, and to this machine: it is a secret, and
    /// `--url` may name anybody.
    ///
    /// # Errors
    /// [`Exit::BadFlagValue`] for a flag that makes no sense, [`Exit::Misconfigured`] when neither tells where the daemon is.
    pub fn new(args: &DaemonArgs, config: &Config) -> Result<Self, Error> {
        let http = config.http.as_ref();
        let configured = http.filter(|http| http.listen.port() != 0).map(|http| Place::new(http.listen)).transpose()?;
        let place = match (&args.url, &configured) {
            (Some(url), _) => Place::parse(url)?,
            (None, Some(place)) => place.clone(),
            (None, None) => {
                let what = if http.is_some() { "http.listen has port 0" } else { "http.enabled is false" };
                let what = format!("{what}, so the configuration does not tell where the daemon listens");
                return Err(Error::new(Exit::Misconfigured, what, "say where, as in --url http://127.0.0.1:8080"));
            }
        };
        let trusted = place.is_loopback() || configured.is_some_and(|configured| configured.base == place.base);
        let token = match &args.token_file {
            Some(path) => Some(read_token(path)?),
            None => http.and_then(|http| http.token.clone()).filter(|_| trusted),
        };
        let token = token.map(|token| bearer(&token)).transpose()?;
        let (_, place) = watch::channel(place);
        Ok(Self { token, ..Self::at(place, 1) })
    }

    /// A daemon that may move, asked without a token over up to `connections` connections.
    #[must_use]
    pub fn at(place: watch::Receiver<Place>, connections: usize) -> Self {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        connector.set_connect_timeout(Some(CONNECT_TIMEOUT));
        let client = Client::builder(TokioExecutor::new()).pool_max_idle_per_host(connections).build(connector);
        Self { client, place, token: None, patience: ANSWER_TIMEOUT }
    }

    /// The same daemon, given this long for each answer.
    #[must_use]
    pub fn patient_for(self, patience: Duration) -> Self {
        Self { patience, ..self }
    }

    /// Where it is, for people.
    #[must_use]
    pub fn shown(&self) -> String {
        self.place.borrow().base.clone()
    }

    /// Where it is, and the token that is shown there: for a client of another kind.
    #[must_use]
    pub fn place_and_token(&self) -> (String, Option<String>) {
        let token = self.token.as_ref().and_then(|value| value.to_str().ok()?.strip_prefix("Bearer ").map(str::to_owned));
        (self.shown(), token)
    }

    /// Asks for one authorization.
    ///
    /// # Errors
    /// [`CallError`] says why there was no answer; any status is an answer.
    pub async fn authorize(&self, body: Bytes) -> Result<Reply, CallError> {
        let uri = self.place.borrow().authorizations.clone();
        let json = HeaderValue::from_static("application/json");
        self.send(Request::builder().method(Method::POST).uri(uri).header(CONTENT_TYPE, json).body(Full::new(body))?).await
    }

    /// `GET path`, where the path begins with a slash and may have a query.
    ///
    /// # Errors
    /// As for [`authorize`](Self::authorize).
    pub async fn get(&self, path: &str) -> Result<Reply, CallError> {
        let uri = format!("{}{path}", self.place.borrow().base);
        self.send(Request::get(uri).body(Full::default())?).await
    }

    /// [`get`](Self::get) for a command: nobody there is an error for people, and so is a token that is missing or wrong. Any other
    /// status is the caller's to judge.
    ///
    /// # Errors
    /// [`Exit::Unavailable`] and [`Exit::Refused`], with where the daemon was looked for and what to do.
    pub async fn ask(&self, path: &str) -> Result<Reply, Error> {
        self.answered(self.get(path).await)
    }

    /// An outcome of [`authorize`](Self::authorize) or [`get`](Self::get), for people.
    ///
    /// # Errors
    /// As for [`ask`](Self::ask).
    pub fn answered(&self, outcome: Result<Reply, CallError>) -> Result<Reply, Error> {
        let at = self.shown();
        match outcome {
            Ok(reply) if reply.status == StatusCode::UNAUTHORIZED => {
                let what = if self.token.is_some() { "does not know this token" } else { "asks for a token" };
                let next = "give the file with its token, as in --token-file /run/secrets/jitauth_token";
                Err(Error::new(Exit::Refused, format!("the daemon at {at} {what}"), next))
            }
            Ok(reply) => Ok(reply),
            Err(CallError::Connection(error)) if error.is_connect() => Err(Error::new(
                Exit::Unavailable,
                format!("no daemon answers at {at}: {}", with_causes(&error)),
                "start it with jitauth serve, or say where it is with --url",
            )),
            Err(error) => Err(Error::new(
                Exit::Unavailable,
                format!("the daemon at {at} did not answer: {error}"),
                "look at its log and at GET /ready?verbose; asking again is safe",
            )),
        }
    }

    async fn send(&self, mut request: Request<Full<Bytes>>) -> Result<Reply, CallError> {
        if let Some(token) = &self.token {
            request.headers_mut().insert(AUTHORIZATION, token.clone());
        }
        timeout(self.patience, async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = Limited::new(body, BODY_BYTES_MAX).collect().await.map_err(CallError::Body)?.to_bytes();
            Ok(Reply::new(head.status, &head.headers, body))
        })
        .await
        .map_err(|_| CallError::Timeout(self.patience))?
    }
}

impl Reply {
    fn new(status: StatusCode, headers: &HeaderMap, body: Bytes) -> Self {
        let header = |name: &str| headers.get(name).map(HeaderValue::as_bytes);
        Self {
            status,
            body,
            replayed: header("x-replayed") == Some(b"true"),
            journaled: header("x-final") != Some(b"false"),
            stages: header("x-stage-us").map(stages).unwrap_or_default(),
            detail: header("x-detail").map(|text| String::from_utf8_lossy(text).into_owned()),
        }
    }

    /// The body as text; what is not UTF-8 is shown as �.
    #[must_use]
    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }
}

/// Reads `user=3;card=2;commit=640`. What is not understood is left out.
fn stages(header: &[u8]) -> Vec<(Span, u64)> {
    let text = str::from_utf8(header).unwrap_or_default();
    let pairs = text.split(';').filter_map(|pair| pair.trim().split_once('='));
    pairs
        .filter_map(|(name, us)| {
            let span = Span::ALL.into_iter().find(|span| span.name() == name)?;
            Some((span, us.parse().ok()?))
        })
        .collect()
}

fn read_token(path: &Path) -> Result<String, Error> {
    let wrong = |why: String| {
        let next = "give a file that holds the daemon's http.token, 16 or more printable characters on one line";
        Error::new(Exit::BadFlagValue, format!("--token-file {}: {why}", path.display()), next)
    };
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(TOKEN_BYTES_MAX).read_to_string(&mut text));
    read.map_err(|error| wrong(format!("cannot be read: {error}")))?;
    let token = text.trim_end_matches(['\n', '\r']);
    if token.is_empty() || !token.chars().all(|c| c.is_ascii_graphic()) {
        return Err(wrong("holds no token".to_owned()));
    }
    Ok(token.to_owned())
}

fn bearer(token: &str) -> Result<HeaderValue, Error> {
    let mut value = HeaderValue::try_from(format!("Bearer {token}")).map_err(|_| Error::bug("a checked token does not fit a header"))?;
    value.set_sensitive(true);
    Ok(value)
}

/// An error with what is behind it: the outermost says little by itself.
fn with_causes(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        // Writing to a String cannot fail.
        write!(text, ": {error}").unwrap_or_default();
        cause = error.source();
    }
    text
}

#[cfg(test)]
#[path = "daemon_tests.rs"]
mod tests;
