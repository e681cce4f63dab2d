#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

fn read(text: &str, flags: &[Flag]) -> Result<Scenario, Problems> {
    reader::read("test", "test.toml", text, flags)
}

#[test]
fn every_built_in_scenario_is_sound_and_says_what_it_answers() {
    for (name, _) in BUILT_IN {
        let scenario = Scenario::load(name, &[]).unwrap_or_else(|error| panic!("{name}: {error}"));
        assert!(scenario.question.contains('?'), "{name}: {}", scenario.question);
        assert_eq!(scenario.name, name);
    }
    let steady = Scenario::load("steady", &[]).unwrap();
    let Scenario { name, question, thresholds, .. } = steady.clone();
    assert_eq!(steady, Scenario { name, question, thresholds, ..Scenario::default() });
}

#[test]
fn everything_that_is_wrong_is_told_at_once_with_its_line() {
    let text = "# What?\nrate_per_s = 0\nrate = 5\n[mix]\nreplay_permile = 3\nunknown_card_permille = \"x\"\n";
    let Problems(problems) = read(text, &[]).unwrap_err();
    for (line, part) in [
        (2, "rate_per_s must be a whole number from 1 to 200000"),
        (3, "rate is no key of a scenario"),
        (5, "did you mean mix.replay_permille?"),
        (6, "mix.unknown_card_permille must be a whole number"),
    ] {
        assert!(problems.iter().any(|it| it.starts_with(&format!("test.toml:{line}: ")) && it.contains(part)), "{part}: {problems:?}");
    }
    assert_eq!(problems.len(), 4, "{problems:?}");
}

#[test]
fn what_cannot_be_together_is_told() {
    for (text, part) in [
        ("rate_per_s = 10", "does not open with a comment"),
        ("# ?\nburst_rate_per_s = 10", "belong together"),
        ("# ?\nburst_rate_per_s = 10\nburst_every_s = 3\nburst_length_s = 3", "must be less than burst_every_s"),
        ("# ?\nduration_s = 8\nburst_rate_per_s = 10\nburst_every_s = 9\nburst_length_s = 3", "duration_s must be at least burst_every_s"),
        ("# ?\n[mix]\nreplay_permille = 600\ntest_card_permille = 401", "1001 thousandths"),
        ("# ?\narrival = \"closed\"\nramp_to_per_s = 5", "no rate to ramp"),
        ("# ?\nstart = \"cold\"\nwarm_up_s = 1", "warm_up_s must be 0"),
        ("# ?\nrate_per_s = 200000\nduration_s = 3600", "more than the 4000000 of one run"),
        ("# ?\nthresholds = [\"p98<1ms\", \"p99<2\"]", "p98"),
        ("# ?\nthresholds = [\"p98<1ms\", \"p99<2\"]", "p99<2"),
        ("# ?\nzipf_exponent = -0.5", "from 0 to 3"),
        ("# ?\nrate_per_s = ", "test.toml:2: "),
    ] {
        let problems = read(text, &[]).unwrap_err().to_string();
        assert!(problems.contains(part), "{text}: {problems}");
    }
}

#[test]
fn flags_win_over_the_file() {
    let flag = |key, value: &str| Flag { name: "--flag", key, value: value.to_owned() };
    let scenario = read("# ?\nrate_per_s = 10\ncards = 7", &[flag("rate_per_s", "20"), flag("zipf_exponent", "1.1")]).unwrap();
    assert_eq!((scenario.rate_per_s, scenario.cards, scenario.zipf_exponent), (20, 7, 1.1));
    let problems = read("# ?\n", &[flag("rate_per_s", "many"), flag("cards", "0")]).unwrap_err();
    assert_eq!(problems.0.len(), 2, "{problems}");
    assert!(problems.0.iter().all(|problem| problem.starts_with("--flag: ")), "{problems}");
}

#[test]
fn a_scenario_nobody_knows_is_answered_with_those_there_are() {
    let error = Scenario::load("no_such", &[]).unwrap_err().to_string();
    assert!(error.contains("no_such") && error.contains("hot_account"), "{error}");
}
