#![expect(clippy::unwrap_used, reason = "tests")]

use super::*;

/// Every row with a figure halfway between what must be and what is wanted, but for one without.
fn board() -> Board {
    let mut figures: Vec<Figure> = ROWS
        .iter()
        .map(|row| {
            let value = Some(f64::midpoint(row.must, row.aim));
            Figure { value, standing: row.standing(value), ..Figure::of(row) }
        })
        .collect();
    figures[0].turns = vec![0.85, 0.9, 1.0];
    figures[0].notes = vec!["3 turns of 20 s".to_owned()];
    figures[1].notes = vec!["the machine was busy".to_owned(), "3 turns of 20 s".to_owned()];
    figures[2].value = Some(9.0);
    figures[2].standing = Standing::Short;
    figures[3] = Figure { notes: vec!["no broker".to_owned()], ..Figure::of(&ROWS[3]) };
    let environment =
        Environment { cpu: "A processor".to_owned(), cores: 2, memory_mib: 4_096, kernel: "6.1".to_owned(), ..Environment::default() };
    let tool = Tool {
        name: "jitauth".to_owned(),
        version: "0.1.0".to_owned(),
        commit: Some("0123456789ab".to_owned()),
        build: "release".to_owned(),
        command: None,
    };
    Board {
        schema_version: 1,
        meaningful: true,
        started_at: "2026-03-04T10:15:07Z".to_owned(),
        command: "jitauth --profile services bench figures --into README.md".to_owned(),
        tool,
        rustc: Some("rustc 1.95.0".to_owned()),
        environment,
        versions: [("PostgreSQL", "16.1"), ("RabbitMQ", "3.13.0")].map(|(name, version)| (name.to_owned(), version.to_owned())).into(),
        durability: BTreeMap::from([
            ("postgresql".to_owned(), "fsync=on".to_owned()),
            ("sqlite".to_owned(), "synchronous=full".to_owned()),
        ]),
        figures,
    }
}

fn markdown(board: &Board) -> String {
    let mut text = Vec::new();
    board.markdown(&mut text).unwrap();
    String::from_utf8(text).unwrap()
}

#[test]
fn a_person_reads_this() {
    let text = markdown(&board());
    assert_eq!(text, include_str!("snapshot.txt"), "\n{text}");
    assert!(markdown(&Board { meaningful: false, ..board() }).starts_with("**These figures mean nothing**"));
}

#[test]
fn what_is_written_is_read_again() {
    let text = serde_json::to_string(&board()).unwrap();
    assert_eq!(serde_json::from_str::<Board>(&text).unwrap(), board());
}

#[test]
fn the_table_takes_the_place_between_the_markers_and_nothing_else() {
    let (directory, mut board) = (tempfile::tempdir().unwrap(), board());
    board.figures.truncate(1);
    let path = directory.path().join("README.md");
    let around = |inside: &str| format!("# Title\n\n{BEGIN}\n{inside}{END}\n\nmore\n");
    fs::write(&path, around("old\ntext\n")).unwrap();
    board.write_into(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), around(&format!("\n{}\n", markdown(&board))));
    board.write_into(&path).unwrap();
    assert_eq!(fs::read_to_string(&path).unwrap(), around(&format!("\n{}\n", markdown(&board))), "again is the same");
    assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 1, "nothing else is left there");
}

#[test]
fn a_file_without_a_place_for_it_stays_as_it_is() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("README.md");
    for (text, part) in [
        ("nothing".to_owned(), "the first is missing"),
        (format!("a {BEGIN}\n{END}"), "the first is missing"),
        (format!("{BEGIN}\n"), "the second is missing"),
        (format!("{END}\n{BEGIN}\n"), "the other way round"),
        (format!("{BEGIN}\n{END}\n{BEGIN}\n{END}\n"), "twice"),
        (format!("{BEGIN}\n{END}\n{END}\n"), "twice"),
    ] {
        fs::write(&path, &text).unwrap();
        let said = board().write_into(&path).unwrap_err().to_string();
        assert!(said.contains(part) && said.contains("README.md"), "{part}: {said}");
        assert_eq!(fs::read_to_string(&path).unwrap(), text);
    }
    assert!(board().write_into(&directory.path().join("missing.md")).unwrap_err().to_string().contains("missing.md"));
}

#[test]
fn a_name_that_no_row_has_is_an_error() {
    assert_eq!(chosen(&[]).unwrap().len(), ROWS.len());
    let two = chosen(&["hot_account".to_owned(), "decide".to_owned()]).unwrap();
    assert_eq!(two.iter().map(|row| row.name).collect::<Vec<_>>(), ["decide", "hot_account"]);
    assert!(chosen(&["hot".to_owned()]).unwrap_err().contains("no figure \"hot\"; there are amqp_p50_quorum"));
}
