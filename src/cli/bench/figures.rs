//! `jitauth bench figures`: the table of what has to be reached.

use super::{Invocation, Shown, asked};
use crate::{
    bench::{
        Kind, Request,
        figures::{self, Board, IntoError, Order, Sizes},
        scenario::Scenario,
        scratch::Location,
    },
    cli::{Error, Exit, say, write_out},
    config::{Config, StoreKind},
};
use clap::Args;
use std::{fs, path::PathBuf};

/// What `jitauth bench figures` takes.
#[derive(Clone, Debug, Args)]
pub(in crate::cli) struct FiguresArgs {
    /// Directory for figures.json and figures.md
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
    /// File whose table is replaced, between its two markers, as in README.md
    #[arg(long, value_name = "FILE")]
    into: Option<PathBuf>,
    /// Only this figure, by the name it has in figures.json; may be given again
    #[arg(long = "only", value_name = "NAME")]
    only: Vec<String>,
    /// Directory to work in, on the disk that is meant [default: where sqlite.path is]
    #[arg(long, value_name = "DIR")]
    scratch: Option<PathBuf>,
    /// As short as can be, with few cards: shows that everything can be measured, and the figures mean nothing
    #[arg(long)]
    quick: bool,
    /// Print figures.json instead of the table
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: &FiguresArgs, config: &Config, invocation: Invocation) -> Result<(), Error> {
    let next = "name a figure as figures.json does, or leave out --only for all";
    let rows = figures::chosen(&args.only).map_err(|what| Error::new(Exit::BadFlagValue, what, next))?;
    let asked = asked(Scenario::default(), Kind::Inproc, None, config, invocation)?;
    let order = Order {
        rows,
        sizes: if args.quick { Sizes::QUICK } else { Sizes::WHOLE },
        request: Request { scratch: args.scratch.clone(), ..asked },
        sqlite: Location::Sqlite(config.sqlite.clone()),
        postgres: (config.store == StoreKind::Postgres).then(|| Location::Postgres(config.postgres.clone())),
        redis: config.redis.as_ref().map(|redis| redis.url.clone()),
        command: typed(),
    };
    let mut shown = Shown::default();
    let board = figures::run(&order, |step| shown.step(step)).await?;
    let mut table = Vec::new();
    board.markdown(&mut table).map_err(Error::bug)?;
    let mut json = serde_json::to_vec_pretty(&board).map_err(Error::bug)?;
    json.push(b'\n');
    if let Some(directory) = &args.out {
        let written = fs::create_dir_all(directory)
            .and_then(|()| fs::write(directory.join("figures.json"), &json))
            .and_then(|()| fs::write(directory.join("figures.md"), &table));
        written.map_err(|error| {
            let what = format!("the figures cannot be written to {}: {error}", directory.display());
            Error::new(Exit::Failed, what, "give a directory that can be written to with --out")
        })?;
    }
    write_out(if args.json { &json } else { &table })?;
    if let Some(path) = &args.into {
        into(&board, path)?;
        if !args.json {
            say(&format!("\nWritten into {}", path.display()))?;
        }
    }
    Ok(())
}

fn into(board: &Board, path: &std::path::Path) -> Result<(), Error> {
    board.write_into(path).map_err(|error| {
        let next = match error {
            IntoError::Markers { .. } => "put both lines where the table belongs; the figures are in --out DIR",
            IntoError::File { .. } => "give a file that can be written to with --into; the figures are in --out DIR",
        };
        Error::new(Exit::Failed, error.to_string(), next)
    })
}

/// The command line, without the path of the program.
fn typed() -> String {
    let arguments = std::env::args().skip(1).map(|argument| {
        let plain = argument.chars().all(|letter| letter.is_ascii_alphanumeric() || "-_./=:%".contains(letter));
        if plain && !argument.is_empty() { argument } else { format!("'{}'", argument.replace('\'', "'\\''")) }
    });
    std::iter::once("jitauth".to_owned()).chain(arguments).collect::<Vec<_>>().join(" ")
}
