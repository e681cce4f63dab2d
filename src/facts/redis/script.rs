//! The scripts that write rows. Each looks at what is there before it writes, which only the server can do in one step.

use fred::{
    cmd,
    prelude::{ClientLike, FredResult, Value},
};
use std::sync::OnceLock;

/// Reads `KEYS[i]` into `have`, `version` and `mark`; what is no string of ours counts as nothing. A macro, because scripts are text.
macro_rules! with_row {
    ($before:literal, $after:literal) => {
        concat!(
            $before,
            "
  local have = redis.pcall('GET', key)
  if type(have) == 'table' then redis.call('DEL', key) have = false end
  local version, mark
  if have then version, mark = string.match(have, '^(%d+) ([{!-])') end
  local old = tonumber(version)
",
            $after
        )
    };
}

/// Writes facts of a higher version than what is there. `ARGV`: version, seconds, row; for each key.
const KEEP: &str = with_row!(
    "local kept = 0
for i, key in ipairs(KEYS) do",
    "  local new = tonumber(ARGV[3 * i - 2])
  if not old or new > old or (new == old and mark == '-') then
    redis.call('SET', key, ARGV[3 * i], 'EX', ARGV[3 * i - 1])
    kept = kept + 1
  end
end
return kept"
);

/// Puts tombstones in place of what is older. `ARGV`: version or nothing, rest of the tombstone; for each key; then seconds.
/// Without a version, what is there must be surpassed; where nothing is, nothing is written until the tombstone has gone, because
/// nobody can tell what is on its way.
const BURY: &str = with_row!(
    "local buried = 0
local seconds = ARGV[#ARGV]
for i, key in ipairs(KEYS) do",
    "  local new, rest = ARGV[2 * i - 1], ARGV[2 * i]
  local stone
  if new == '' then
    if mark ~= '!' then stone = (version or '9007199254740991') .. ' ! ' .. rest end
  elseif not old or tonumber(new) > old then
    stone = new .. ' - ' .. rest
  end
  if stone then
    redis.call('SET', key, stone, 'EX', seconds)
    buried = buried + 1
  end
end
return buried"
);

/// Says that everything may have changed, unless that was said about the same instant or a later one. `ARGV`: µs, seconds.
const EVERYTHING: &str = "local have = redis.pcall('GET', KEYS[1])
if type(have) == 'table' then redis.call('DEL', KEYS[1]) have = false end
local old = have and tonumber(have)
if old == tonumber(ARGV[1]) then return 0 end
redis.call('SET', KEYS[1], ARGV[1], 'EX', ARGV[2])
return 1";

/// Removes a row that is garbage, if it is still the same garbage.
const DISCARD: &str = "if redis.pcall('GET', KEYS[1]) == ARGV[1] then return redis.call('DEL', KEYS[1]) end
return 0";

/// One of the scripts.
#[derive(Clone, Copy, Debug)]
pub(super) enum Task {
    Keep,
    Bury,
    Everything,
    Discard,
}

/// What the server calls each of them, once it has told.
static NAMES: [OnceLock<String>; 4] = [const { OnceLock::new() }; 4];

impl Task {
    const fn text(self) -> &'static str {
        match self {
            Self::Keep => KEEP,
            Self::Bury => BURY,
            Self::Everything => EVERYTHING,
            Self::Discard => DISCARD,
        }
    }

    /// Runs it by its name. A server that does not know it, because it was started anew, is given the text again.
    pub(super) async fn run(self, client: &impl ClientLike, keys: &[String], values: &[Value]) -> FredResult<i64> {
        let name = match NAMES[self as usize].get() {
            Some(name) => name.clone(),
            None => {
                let name: String = client.custom(cmd!("SCRIPT"), vec!["LOAD", self.text()]).await?;
                NAMES[self as usize].get_or_init(|| name).clone()
            }
        };
        let call = |script: String| -> Vec<Value> {
            let count = Value::from(i64::try_from(keys.len()).unwrap_or(i64::MAX));
            let keys = keys.iter().map(|key| Value::from(key.as_str()));
            [Value::from(script), count].into_iter().chain(keys).chain(values.iter().cloned()).collect()
        };
        match client.custom(cmd!("EVALSHA"), call(name)).await {
            Err(error) if error.details().starts_with("NOSCRIPT") => client.custom(cmd!("EVAL"), call(self.text().into())).await,
            result => result,
        }
    }
}
