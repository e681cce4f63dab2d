//! What can be said about a URL of a service without opening it.

use std::net::IpAddr;
use url::Url;

/// A kind of URL.
pub(super) struct Kind {
    /// The schemes it may have.
    pub(super) schemes: [&'static str; 2],
    /// Whether host, user, password and TLS mode may be in the query, where they win.
    pub(super) has_query: bool,
    /// What such a URL looks like.
    pub(super) form: &'static str,
}

pub(super) const POSTGRES: Kind =
    Kind { schemes: ["postgres", "postgresql"], has_query: true, form: "postgres://user:password@host:port/database" };
pub(super) const REDIS: Kind = Kind { schemes: ["redis", "rediss"], has_query: false, form: "redis://user:password@host:port/database" };
pub(super) const AMQP: Kind = Kind { schemes: ["amqp", "amqps"], has_query: false, form: "amqp://user:password@host:port/vhost" };

/// How a URL authenticates.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Password {
    /// Not at all.
    Missing,
    /// By a password that is the user's name.
    Default,
    /// By a password.
    Set,
}

/// A service that a URL leads to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Link {
    /// It is on this machine.
    pub(super) local: bool,
    /// It is a Unix socket, where the system says who asks.
    pub(super) socket: bool,
    /// It is encrypted, or refused.
    pub(super) encrypted: bool,
    pub(super) password: Password,
}

impl Link {
    /// `None` when `text` is not a URL of `kind` with a host.
    pub(super) fn parse(text: &str, kind: &Kind) -> Option<Self> {
        let url = Url::parse(text).ok()?;
        if !kind.schemes.contains(&url.scheme()) {
            return None;
        }
        let query = |names: &[&str]| {
            let pairs = url.query_pairs().filter(|(name, _)| kind.has_query && names.contains(&name.as_ref()));
            pairs.last().map(|(_, value)| value)
        };
        let host = query(&["host", "hostaddr"]).or_else(|| url.host_str().map(Into::into)).filter(|host| !host.is_empty())?;
        let socket = host.starts_with('/') || host.to_ascii_lowercase().starts_with("%2f");
        let tls = query(&["sslmode", "ssl-mode"]).is_some_and(|mode| matches!(mode.as_ref(), "require" | "verify-ca" | "verify-full"));
        let user = query(&["user"]).unwrap_or_else(|| url.username().into());
        let password = query(&["password"]).unwrap_or_else(|| url.password().unwrap_or_default().into());
        Some(Self {
            local: socket || is_loopback(&host),
            socket,
            encrypted: tls || url.scheme() == "rediss" || url.scheme() == "amqps",
            password: match &*password {
                "" => Password::Missing,
                password if password == user => Password::Default,
                _ => Password::Set,
            },
        })
    }
}

fn is_loopback(host: &str) -> bool {
    let bare = host.trim_start_matches('[').trim_end_matches(']');
    host.eq_ignore_ascii_case("localhost") || bare.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}
