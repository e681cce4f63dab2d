//! Reading a request's body within its bounds.

use crate::codec::request::BODY_BYTES_MAX;
use axum::{
    body::Body,
    http::{HeaderMap, StatusCode, header},
};
use http_body_util::BodyExt;
use std::time::Duration;
use tokio::time::timeout;

/// So much of a body that is too large is still read, so that its sender gets to read why it was refused.
const DISCARD_BYTES_MAX: usize = 1024 * 1024;

/// Why there are no bytes to decode.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum BodyError {
    /// More than [`BODY_BYTES_MAX`].
    TooLarge,
    /// Did not arrive in time.
    Timeout,
    /// The client broke off.
    Broken,
    /// Not JSON by its own account, or sent by a web page.
    ContentType,
    /// Compressed.
    ContentEncoding,
}

impl BodyError {
    pub(super) const fn status(self) -> StatusCode {
        match self {
            Self::TooLarge => StatusCode::PAYLOAD_TOO_LARGE,
            Self::Timeout => StatusCode::REQUEST_TIMEOUT,
            Self::Broken => StatusCode::BAD_REQUEST,
            Self::ContentType | Self::ContentEncoding => StatusCode::UNSUPPORTED_MEDIA_TYPE,
        }
    }

    pub(super) const fn detail(self) -> &'static str {
        match self {
            Self::TooLarge => "too_large",
            Self::Timeout => "body_timeout",
            Self::Broken => "body_incomplete",
            Self::ContentType => "content_type: send application/json",
            Self::ContentEncoding => "content_encoding: send the body as it is",
        }
    }
}

/// Checks what the head says about the body.
///
/// Any JSON sender passes, and so does `curl -d`, which calls everything a form. Web pages do not: a browser lets any page post
/// forms and untyped bodies to the loopback address, and names the page when it does.
pub(super) fn check_head(headers: &HeaderMap) -> Result<(), BodyError> {
    if headers.contains_key(header::CONTENT_ENCODING) {
        return Err(BodyError::ContentEncoding);
    }
    let from_page = headers.contains_key(header::ORIGIN) || headers.contains_key("sec-fetch-site");
    let media_type = headers.get(header::CONTENT_TYPE).map(|value| value.to_str().unwrap_or("").split(';').next().unwrap_or("").trim());
    match media_type {
        Some(json) if json.eq_ignore_ascii_case("application/json") => Ok(()),
        None if !from_page => Ok(()),
        Some(form) if !from_page && form.eq_ignore_ascii_case("application/x-www-form-urlencoded") => Ok(()),
        _ => Err(BodyError::ContentType),
    }
}

/// Reads the whole body.
pub(super) async fn read(headers: &HeaderMap, body: Body, within: Duration) -> Result<Vec<u8>, BodyError> {
    let announced = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok()).unwrap_or(0);
    if announced > DISCARD_BYTES_MAX {
        return Err(BodyError::TooLarge);
    }
    timeout(within, collect(body, announced.min(BODY_BYTES_MAX))).await.unwrap_or(Err(BodyError::Timeout))
}

async fn collect(mut body: Body, capacity: usize) -> Result<Vec<u8>, BodyError> {
    let (mut bytes, mut seen) = (Vec::with_capacity(capacity), 0_usize);
    while let Some(frame) = body.frame().await {
        let Ok(data) = frame.map_err(|_| BodyError::Broken)?.into_data() else { continue };
        seen = seen.saturating_add(data.len());
        if seen > DISCARD_BYTES_MAX {
            break;
        }
        if seen <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&data);
        }
    }
    if seen > BODY_BYTES_MAX { Err(BodyError::TooLarge) } else { Ok(bytes) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn bodies_are_json_and_web_pages_are_kept_out() {
        let wrong = Some(BodyError::ContentType);
        for (headers, expected) in [
            (&[][..], None),
            (&[("content-type", "application/json")][..], None),
            (&[("content-type", "Application/JSON; charset=utf-8")][..], None),
            (&[("content-type", "application/x-www-form-urlencoded")][..], None),
            (&[("content-type", "text/plain")][..], wrong),
            (&[("content-type", "application/jsonx")][..], wrong),
            (&[("origin", "https://evil.example")][..], wrong),
            (&[("sec-fetch-site", "cross-site"), ("content-type", "application/x-www-form-urlencoded")][..], wrong),
            (&[("origin", "https://evil.example"), ("content-type", "text/plain")][..], wrong),
            (&[("content-encoding", "gzip"), ("content-type", "application/json")][..], Some(BodyError::ContentEncoding)),
        ] {
            let map: HeaderMap = headers
                .iter()
                .map(|(name, value)| (header::HeaderName::from_static(name), header::HeaderValue::from_static(value)))
                .collect();
            assert_eq!(check_head(&map).err(), expected, "{headers:?}");
        }
    }
}
