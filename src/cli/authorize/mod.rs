//! `jitauth authorize`: one authorization, or a few, asked for by a person.
#![expect(clippy::disallowed_methods, reason = "the command measures the daemon from outside, on the real clock")]

mod print;
#[cfg(test)]
mod tests;

use super::{
    Error, Exit,
    daemon::{Daemon, DaemonArgs, Reply, StatusCode},
    write_out,
};
use crate::{
    app,
    codec::request::{self, BODY_BYTES_MAX, DEADLINE_MS, Decoded},
    config::Config,
};
use clap::Args;
use print::{Answered, Summary};
use serde_json::{json, value::RawValue};
use std::{
    collections::BTreeMap,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    time::{Duration, Instant},
};

/// On top of the request's deadline, how long the daemon may take to answer.
const ANSWER_MARGIN: Duration = Duration::from_secs(5);

/// What to ask, and whom.
#[derive(Clone, Debug, Args)]
pub(super) struct AuthorizeArgs {
    /// The card's token, as in crd_test_approve; jitauth seed makes some
    #[arg(long, value_name = "TOKEN", required_unless_present = "file")]
    card: Option<String>,
    /// The amount, as in 42.50
    #[arg(long, value_name = "DECIMAL", required_unless_present = "file")]
    amount: Option<String>,
    /// The amount's currency, ISO 4217
    #[arg(long, value_name = "CODE", default_value = "USD")]
    currency: String,
    /// The merchant's category, ISO 18245
    #[arg(long, value_name = "CODE", default_value = "5411")]
    mcc: String,
    /// The merchant's id
    #[arg(long, value_name = "ID", default_value = "mrc_grocer")]
    merchant: String,
    /// The merchant's country, ISO 3166-1 alpha-3
    #[arg(long, value_name = "CODE", default_value = "USA")]
    country: String,
    /// How the card is presented: chip, contactless, magstripe, manual, ecommerce, moto, atm, other
    #[arg(long, value_name = "NAME", default_value = "chip")]
    channel: String,
    /// The user who is said to own the card [default: not said]
    #[arg(long, value_name = "TOKEN")]
    user: Option<String>,
    /// The request's id; the same id again gets the same answer [default: a fresh one]
    #[arg(long, value_name = "ID")]
    id: Option<String>,
    /// How long the requester waits, milliseconds [default: deadline.default_ms]
    #[arg(long, value_name = "MS", value_parser = clap::value_parser!(u32).range(i64::from(*DEADLINE_MS.start())..=i64::from(*DEADLINE_MS.end())))]
    deadline_ms: Option<u32>,
    /// Take less than the amount rather than nothing
    #[arg(long)]
    partial: bool,
    /// Send this file as it is, `-` for the standard input, instead of what the flags above say
    #[arg(long, value_name = "FILE", conflicts_with_all = ["card", "amount", "user", "id", "deadline_ms", "partial"])]
    file: Option<PathBuf>,
    /// Ask so often, one after the other, each time under a fresh id, and sum up
    #[arg(long, value_name = "N", default_value_t = 1, value_parser = clap::value_parser!(u32).range(1..=100_000), conflicts_with = "id")]
    repeat: u32,
    /// Decide in this process instead of asking a daemon. A SQLite file must not be in use by one
    #[arg(long, conflicts_with_all = ["url", "token_file"])]
    offline: bool,
    #[command(flatten)]
    daemon: DaemonArgs,
    /// As one JSON object
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &AuthorizeArgs, config: &Config) -> Result<(), Error> {
    let bodies = bodies(args)?;
    let mut summary = Summary::default();
    let mut last = None;
    let mut hear = |answered: Answered| {
        summary.add(&answered);
        last = Some(answered);
    };
    if args.offline {
        offline(config, &bodies, &mut hear).await?;
    } else {
        online(args, config, bodies, &mut hear).await?;
    }
    let Some(last) = last else { return Err(Error::bug("nothing was asked")) };
    let text = match (args.repeat, args.json) {
        (1, true) => last.json(),
        (1, false) => last.text(),
        (_, true) => summary.json(),
        (_, false) => summary.text(),
    };
    write_out(text.as_bytes())
}

async fn online(args: &AuthorizeArgs, config: &Config, bodies: Vec<Vec<u8>>, hear: &mut impl FnMut(Answered)) -> Result<(), Error> {
    let longest = args.deadline_ms.map_or(config.pipeline.deadline_default, |ms| Duration::from_millis(u64::from(ms)));
    let longest = if args.file.is_some() { Duration::from_millis(u64::from(*DEADLINE_MS.end())) } else { longest };
    let daemon = Daemon::new(&args.daemon, config)?.patient_for(longest + ANSWER_MARGIN);
    for body in bodies {
        let began = Instant::now();
        let reply = daemon.answered(daemon.authorize(body.into()).await)?;
        hear(judge(reply, began.elapsed())?);
    }
    Ok(())
}

async fn offline(config: &Config, bodies: &[Vec<u8>], hear: &mut impl FnMut(Answered)) -> Result<(), Error> {
    let decoded: Result<Vec<Decoded>, _> = bodies.iter().map(|body| request::decode(body)).collect();
    let decoded = decoded.map_err(|error| refused(error.reason.name(), Some(&error.detail)))?;
    app::offline(config, decoded, |answer, took| {
        let stages = answer.spans.iter().map(|(span, us)| (span, u64::from(us))).collect();
        hear(Answered { body: answer.body.to_vec(), replayed: answer.replayed, journaled: answer.journaled, stages, took });
    })
    .await?;
    Ok(())
}

/// What the daemon said, if it is a decision.
fn judge(reply: Reply, took: Duration) -> Result<Answered, Error> {
    let Reply { status, body, replayed, journaled, stages, detail } = reply;
    match status {
        StatusCode::OK | StatusCode::CONFLICT => Ok(Answered { body: body.to_vec(), replayed, journaled, stages, took }),
        StatusCode::BAD_REQUEST | StatusCode::PAYLOAD_TOO_LARGE | StatusCode::UNSUPPORTED_MEDIA_TYPE | StatusCode::UNPROCESSABLE_ENTITY => {
            let answer: serde_json::Value = serde_json::from_slice(&body).unwrap_or_default();
            Err(refused(answer["reason"].as_str().unwrap_or("malformed"), detail.as_deref()))
        }
        status if status.is_server_error() => {
            let said = String::from_utf8_lossy(&body);
            let what = format!("the daemon answers {status}: {}", super::table::plain(said.trim()));
            Err(Error::new(Exit::Unavailable, what, "ask again with the same --id: whatever was decided is answered then"))
        }
        status => {
            let what = format!("{status} is no answer of jitauth");
            Err(Error::new(Exit::Failed, what, "see that --url leads to the daemon itself"))
        }
    }
}

/// The request is not one. It was not decided, and nothing is in the journal.
fn refused(reason: &str, detail: Option<&str>) -> Error {
    let detail = detail.map_or_else(String::new, |detail| format!(": {}", super::table::plain(detail)));
    Error::new(Exit::BadFlagValue, format!("this is no request ({reason}){detail}"), "mend it and ask again; nothing was decided")
}

fn bodies(args: &AuthorizeArgs) -> Result<Vec<Vec<u8>>, Error> {
    let given = args.file.as_deref().map(read).transpose()?;
    (0..args.repeat)
        .map(|_| match (&given, args.repeat) {
            (Some(body), 1) => Ok(body.clone()),
            (Some(body), _) => with_id(body, &fresh_id()),
            (None, _) => Ok(body(args, args.id.clone().unwrap_or_else(fresh_id))),
        })
        .collect()
}

fn body(args: &AuthorizeArgs, id: String) -> Vec<u8> {
    let mut request = json!({
        "version": 1, "type": "authorization", "id": id, "card": args.card, "amount": args.amount, "currency": args.currency,
        "merchant": {"id": args.merchant, "mcc": args.mcc, "country": args.country}, "channel": args.channel,
        "partial_approval": args.partial,
    });
    if let Some(user) = &args.user {
        request["user"] = user.as_str().into();
    }
    if let Some(deadline_ms) = args.deadline_ms {
        request["deadline_ms"] = deadline_ms.into();
    }
    request.to_string().into_bytes()
}

fn fresh_id() -> String {
    let milliseconds = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default().as_millis();
    format!("cli-{}", ulid::Ulid::from_parts(u64::try_from(milliseconds).unwrap_or_default(), rand::random()))
}

fn read(path: &Path) -> Result<Vec<u8>, Error> {
    let mut body = Vec::new();
    // A byte more than may be, so that the daemon says that it is too long.
    let bytes_max = BODY_BYTES_MAX as u64 + 1;
    let read = if path.as_os_str() == "-" {
        io::stdin().lock().take(bytes_max).read_to_end(&mut body)
    } else {
        File::open(path).and_then(|file| file.take(bytes_max).read_to_end(&mut body))
    };
    match read {
        Ok(_) => Ok(body),
        Err(error) => {
            let what = format!("--file {}: cannot be read: {error}", path.display());
            Err(Error::new(Exit::BadFlagValue, what, "give a file with one request, or - for the standard input"))
        }
    }
}

/// The same request under another id; every other value keeps its bytes.
fn with_id(body: &[u8], id: &str) -> Result<Vec<u8>, Error> {
    let fields: Result<BTreeMap<String, Box<RawValue>>, _> = serde_json::from_slice(body);
    let mut fields = fields.map_err(|error| refused("malformed", Some(&error.to_string())))?;
    fields.insert("id".to_owned(), RawValue::from_string(format!("{id:?}")).map_err(Error::bug)?);
    serde_json::to_vec(&fields).map_err(Error::bug)
}
