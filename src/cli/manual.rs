//! `jitauth completions` and `jitauth man`: what the command line says about itself, for shells and for `man`.

use super::{Cli, Error, Exit, say, write_out};
use clap::{Args, CommandFactory};
use clap_complete::Shell;
use clap_mangen::Man;
use std::{fs, io, path::PathBuf};

/// For which shell.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct CompletionsArgs {
    /// The shell, as in: jitauth completions bash > /etc/bash_completion.d/jitauth
    #[arg(value_name = "SHELL")]
    shell: Shell,
}

/// Where to.
#[derive(Clone, Debug, Args)]
pub(super) struct ManArgs {
    /// Write a page for every command into this directory, which is created; otherwise the page of jitauth itself is printed
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

pub(super) fn completions(args: CompletionsArgs) -> Result<(), Error> {
    // Into memory first: the generator panics when its reader has gone away.
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut Cli::command(), "jitauth", &mut script);
    write_out(&script)
}

pub(super) fn pages(args: &ManArgs) -> Result<(), Error> {
    let Some(directory) = &args.out else {
        let mut page = Vec::new();
        Man::new(Cli::command()).render(&mut page).map_err(Error::bug)?;
        return write_out(&page);
    };
    let failed = |error: io::Error| {
        let what = format!("the pages cannot be written to {}: {error}", directory.display());
        Error::new(Exit::Failed, what, "give a directory that can be written to")
    };
    fs::create_dir_all(directory).map_err(failed)?;
    clap_mangen::generate_to(Cli::command(), directory).map_err(failed)?;
    say(&format!("the manual pages are in {}\nnext: man --local-file {}/jitauth.1", directory.display(), directory.display()))
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;

    #[test]
    fn every_command_has_its_page() {
        let directory = tempfile::tempdir().unwrap();
        let out = directory.path().join("man1");
        pages(&ManArgs { out: Some(out.clone()) }).unwrap();
        for (page, part) in [
            ("jitauth.1", "jitauth\\-serve(1)"),
            ("jitauth-config-show.1", "\\-\\-origin"),
            ("jitauth-topology-apply.1", "Declare what is"),
        ] {
            let text = fs::read_to_string(out.join(page)).unwrap();
            assert!(text.contains(part), "{part} in {page}:\n{text}");
        }
        let error = pages(&ManArgs { out: Some(out.join("jitauth.1")) }).unwrap_err();
        assert_eq!(error.exit(), Exit::Failed, "{error}");
    }

    #[test]
    fn every_shell_gets_a_script_that_knows_the_commands() {
        for shell in <Shell as clap::ValueEnum>::value_variants() {
            let mut script = Vec::new();
            clap_complete::generate(*shell, &mut Cli::command(), "jitauth", &mut script);
            let script = String::from_utf8(script).unwrap();
            assert!(script.contains("topology") && script.contains("origin"), "{shell}");
        }
    }
}
