#![expect(clippy::unwrap_used, reason = "a test fails by panicking")]

use super::*;
use crate::config::{Config, Flag, Sources};
use axum::{Router, http::HeaderMap, routing::get};
use std::collections::BTreeMap;

const TOKEN: &str = "0123456789abcdef";

fn config(values: &[(&'static str, &str)]) -> Config {
    let flags: Vec<Flag> = values.iter().map(|(key, value)| Flag { name: "--set", key, value: (*value).to_owned() }).collect();
    let environment = BTreeMap::new();
    Config::load(&Sources { profile: "embedded", file: None, environment: &environment, flags: &flags, cores: 2 }).unwrap()
}

fn args(url: Option<&str>) -> DaemonArgs {
    DaemonArgs { url: url.map(str::to_owned), token_file: None }
}

#[test]
fn stage_times_are_read_and_nonsense_is_left_out() {
    let both = vec![(Span::User, 3), (Span::Commit, 640)];
    for (header, expected) in [
        (b"user=3;commit=640".as_slice(), both.clone()),
        (b" user=3; commit=640 ;", both),
        (b"", vec![]),
        (b"nonsense=1;user;card=x", vec![]),
        (b"\xff", vec![]),
    ] {
        assert_eq!(stages(header), expected);
    }
}

#[test]
fn the_daemon_is_found_by_its_flag_or_by_the_configuration() {
    for (url, values, expected) in [
        (None, &[][..], Ok("http://127.0.0.1:8080")),
        (None, &[("http.listen", "0.0.0.0:81"), ("http.token", TOKEN)], Ok("http://127.0.0.1:81")),
        (None, &[("http.listen", "[::]:81"), ("http.token", TOKEN)], Ok("http://[::1]:81")),
        (None, &[("http.listen", "127.0.0.1:0")], Err("http.listen has port 0")),
        (None, &[("http.enabled", "false"), ("broker.enabled", "true")], Err("http.enabled is false")),
        (Some("http://host:9/"), &[("http.enabled", "false"), ("broker.enabled", "true")], Ok("http://host:9")),
        (Some("http://host/behind/nginx"), &[], Ok("http://host/behind/nginx")),
        (Some("https://host"), &[], Err("does not begin with http://")),
        (Some("host:8080"), &[], Err("does not begin with http://")),
        (Some("nonsense"), &[], Err("is no URL")),
        (Some("http://a:b@host"), &[], Err("more than host, port and path")),
        (Some("http://host/?a=b"), &[], Err("more than host, port and path")),
    ] {
        let found = Daemon::new(&args(url), &config(values)).map(|daemon| daemon.shown());
        match (found, expected) {
            (Ok(found), Ok(expected)) => assert_eq!(found, expected, "{url:?} {values:?}"),
            (Err(error), Err(expected)) => assert!(error.to_string().contains(expected), "{url:?} {values:?}: {error}"),
            (found, expected) => panic!("{url:?} {values:?}: {found:?} where {expected:?} is expected"),
        }
    }
}

#[test]
fn the_token_of_the_configuration_stays_on_this_machine() {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), format!("{TOKEN}-other\n")).unwrap();
    let token = |url, token_file: Option<&Path>, values: &[(&'static str, &str)]| {
        let args = DaemonArgs { url: Option::map(url, str::to_owned), token_file: token_file.map(Path::to_owned) };
        Daemon::new(&args, &config(values)).unwrap().token.map(|token| token.to_str().unwrap().to_owned())
    };
    let (ours, theirs) = (Some(format!("Bearer {TOKEN}")), Some(format!("Bearer {TOKEN}-other")));
    let local = &[("http.token", TOKEN)][..];
    let far = &[("http.token", TOKEN), ("http.listen", "192.0.2.1:80")][..];
    for (url, file, values, expected) in [
        (None, None, &[][..], &None),
        (None, None, local, &ours),
        (Some("http://localhost:1"), None, local, &ours),
        (Some("http://[::1]:1"), None, local, &ours),
        (Some("http://elsewhere:8080"), None, local, &None),
        (None, None, far, &ours),
        (Some("http://192.0.2.1:80"), None, far, &ours),
        (Some("http://192.0.2.2:80"), None, far, &None),
        (Some("http://elsewhere:8080"), Some(file.path()), local, &theirs),
        (None, Some(file.path()), local, &theirs),
    ] {
        assert_eq!(&token(url, file, values), expected, "{url:?} {file:?} {values:?}");
    }
}

#[test]
fn a_token_file_without_a_token_is_refused() {
    let file = tempfile::NamedTempFile::new().unwrap();
    for (content, good) in [("", false), ("\n", false), ("two words\n", false), ("sécret", false), ("abc\r\n", true)] {
        std::fs::write(file.path(), content).unwrap();
        let read = read_token(file.path());
        assert_eq!(read.is_ok(), good, "{content:?}: {read:?}");
        assert!(!read.is_err_and(|error| error.to_string().contains("secret")), "{content:?}");
    }
    assert_eq!(read_token(Path::new("/nonexistent/token")).unwrap_err().exit(), Exit::BadFlagValue);
}

/// What each kind of counterpart makes of a question, as a person reads it.
async fn check(listener: Option<Router>, patience: Duration, expected: Result<&str, (Exit, &str)>) {
    let socket = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", socket.local_addr().unwrap());
    match listener {
        Some(router) => drop(tokio::spawn(async move { axum::serve(socket, router).await })),
        None => drop(socket),
    }
    let daemon = Daemon::new(&args(Some(&url)), &config(&[("http.token", TOKEN)])).unwrap().patient_for(patience);
    match (daemon.ask("/report").await, expected) {
        (Ok(reply), Ok(expected)) => assert_eq!(reply.text(), expected),
        (Err(error), Err((exit, part))) => {
            assert_eq!(error.exit(), exit, "{error}");
            let text = error.to_string();
            assert!(text.contains(&url) && text.contains(part) && text.contains("\n  next: ") && !text.contains(TOKEN), "{text}");
        }
        (got, expected) => panic!("{got:?} where {expected:?} is expected"),
    }
}

#[tokio::test]
async fn whoever_does_not_answer_is_named_with_what_to_do() {
    let patience = Duration::from_secs(10);
    let guarded = async |headers: HeaderMap| headers["authorization"].to_str().unwrap().to_owned();
    check(Some(Router::new().route("/report", get(guarded))), patience, Ok(&format!("Bearer {TOKEN}"))).await;
    check(None, patience, Err((Exit::Unavailable, "Connection refused"))).await;
    let unknown = Router::new().route("/report", get(async || StatusCode::UNAUTHORIZED));
    check(Some(unknown), patience, Err((Exit::Refused, "does not know this token"))).await;
    let silent = Router::new().route("/report", get(async || std::future::pending::<()>().await));
    check(Some(silent), Duration::from_millis(50), Err((Exit::Unavailable, "no answer within 50 ms"))).await;
    let endless = Router::new().route("/report", get(async || vec![b'x'; BODY_BYTES_MAX + 1]));
    check(Some(endless), patience, Err((Exit::Unavailable, "the answer broke off"))).await;
}
