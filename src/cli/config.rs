//! `jitauth config`: what the layers make together.

use super::{Error, say};
use crate::config::{Config, Effective, Origin};
use clap::{Args, Subcommand};
use serde_json::{Map, Value, json};

/// What about the configuration.
#[derive(Clone, Copy, Debug, Subcommand)]
pub(super) enum ConfigCommand {
    /// Print every key with the value that won, as a file that could be loaded again; secrets are masked
    Show(ShowArgs),
    /// Say whether the configuration is good: exit 78 with everything that is wrong otherwise
    Check,
}

/// How to show it.
#[derive(Clone, Copy, Debug, Args)]
pub(super) struct ShowArgs {
    /// Say where each value was set: file, line and column, environment variable or flag
    #[arg(long)]
    origin: bool,
    /// As one JSON object, origins included
    #[arg(long)]
    json: bool,
}

pub(super) fn run(command: ConfigCommand, config: &Config) -> Result<(), Error> {
    match command {
        ConfigCommand::Show(ShowArgs { json: true, .. }) => say(&as_json(config).to_string()),
        ConfigCommand::Show(ShowArgs { origin, .. }) => say(as_toml(config, origin).trim_end()),
        // A configuration that is not good has ended the process before.
        ConfigCommand::Check => {
            let set = config.effective().iter().filter(|it| !is_default(&it.origin)).count();
            let keys = config.effective().len();
            let (profile, fingerprint) = (&config.profile, config.fingerprint());
            say(&format!(
                "the configuration is good: profile {profile}, fingerprint {fingerprint}, {set} of {keys} keys set over the defaults"
            ))
        }
    }
}

fn is_default(origin: &Origin) -> bool {
    matches!(origin, Origin::File { name, .. } if name == "built-in config.toml")
}

fn as_json(config: &Config) -> Value {
    let value = |shown: &str| {
        let document: Option<toml::Table> = format!("value = {shown}").parse().ok();
        document.and_then(|table| serde_json::to_value(table.get("value")?).ok()).unwrap_or_else(|| shown.into())
    };
    let entry = |it: &Effective| (it.key.clone(), json!({"value": value(&it.shown), "origin": it.origin.to_string()}));
    let values: Map<String, Value> = config.effective().iter().map(entry).collect();
    json!({"profile": config.profile, "fingerprint": config.fingerprint(), "values": values})
}

fn as_toml(config: &Config, origin: bool) -> String {
    let mut text = format!("# profile {}, fingerprint {}\n", config.profile, config.fingerprint());
    let parts = |it: &Effective| it.key.rsplit_once('.').map_or_else(Default::default, |(a, b)| (a.to_owned(), b.to_owned()));
    for section in config.effective().chunk_by(|a, b| parts(a).0 == parts(b).0) {
        let lines: Vec<_> = section.iter().map(|it| (format!("{} = {}", parts(it).1, written(&it.shown)), &it.origin)).collect();
        let width = lines.iter().map(|(line, _)| line.chars().count()).max().unwrap_or_default();
        if let [first, ..] = section {
            text.push_str(&format!("\n[{}]\n", parts(first).0));
        }
        for (line, set_at) in lines {
            let end = if origin { format!("{:1$} # {set_at}", "", width - line.chars().count()) } else { String::new() };
            text.push_str(&format!("{line}{end}\n"));
        }
    }
    text
}

/// What stands in place of a secret is a text, too.
fn written(shown: &str) -> String {
    if shown == "(secret)" { format!("{shown:?}") } else { shown.to_owned() }
}

#[cfg(test)]
#[expect(clippy::unwrap_used, reason = "a test fails by panicking")]
mod tests {
    use super::*;
    use crate::config::Sources;
    use std::{collections::BTreeMap, path::Path};

    const SECRET: &str = "hunter2-hunter2-hunter2";

    fn load(file: Option<&Path>, variables: &[(&str, &str)]) -> Config {
        let environment: BTreeMap<String, String> = variables.iter().map(|(a, b)| ((*a).to_owned(), (*b).to_owned())).collect();
        Config::load(&Sources { profile: "services", file, environment: &environment, flags: &[], cores: 2 }).unwrap()
    }

    fn config() -> Config {
        load(None, &[("JITAUTH_PIPELINE__BATCH_MAX", "7"), ("JITAUTH_POSTGRES__URL", &format!("postgres://u:{SECRET}@db/x"))])
    }

    #[test]
    fn what_is_shown_can_be_loaded_again_and_says_where_each_value_is_from() {
        let config = config();
        let (plain, origins) = (as_toml(&config, false), as_toml(&config, true));
        assert!(plain.starts_with(&format!("# profile services, fingerprint {}\n\n[alerts]\n", config.fingerprint())), "{plain}");
        assert!(plain.contains("\n[pipeline]\nbatch_max = 7\n") && plain.contains("\nurl = \"(secret)\"\n"), "{plain}");
        for part in [
            "\nbatch_max = 7              # JITAUTH_PIPELINE__BATCH_MAX\n",
            "\nlane_queue_max = 2048      # built-in config.toml:",
            "\nkind = \"postgres\" # built-in profiles/services.toml:",
        ] {
            assert!(origins.contains(part), "{part:?} in {origins}");
        }
        assert!(!plain.contains(SECRET) && !origins.contains(SECRET));

        let file = tempfile::NamedTempFile::with_suffix(".toml").unwrap();
        for shown in [plain, origins] {
            // What is masked has to come from elsewhere, as in a real file.
            std::fs::write(file.path(), shown.replace("url = \"(secret)\"", "").replace("token = \"(secret)\"", "")).unwrap();
            assert_eq!(load(Some(file.path()), &[]).fingerprint(), config.fingerprint());
        }
    }

    #[test]
    fn json_has_typed_values_and_no_secret() {
        let json = as_json(&config());
        let at = |key: &str| json["values"][key].clone();
        assert_eq!(at("pipeline.batch_max"), json!({"value": 7, "origin": "JITAUTH_PIPELINE__BATCH_MAX"}));
        assert_eq!((at("redis.enabled")["value"].clone(), at("postgres.url")["value"].clone()), (json!(true), json!("(secret)")));
        assert_eq!(at("safety.allow_plaintext")["value"], json!(["postgres", "redis", "broker", "http"]));
        assert!(!json.to_string().contains(SECRET));
    }

    #[test]
    fn what_comes_from_the_built_in_file_is_a_default() {
        let count = |config: &Config| config.effective().iter().filter(|it| !is_default(&it.origin)).count();
        assert_eq!(count(&config()), count(&load(None, &[])) + 2);
    }
}
