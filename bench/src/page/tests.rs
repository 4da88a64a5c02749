use super::*;
use crate::report::chain;

const LINES: &str = concat!(
    r#"{"subject":"floor","metric":"spawn_to_ready","unit":"ms","n":2,"failures":0,"min":1.0,"p50":2.0,"p99":3.0,"mean":2.0,"bench":"cold_start","started":7,"seed":1,"commit":"old","host":{}}"#,
    "\n",
    r#"{"subject":"floor","version":"","metric":"spawn_to_ready","unit":"ms","n":2,"failures":0,"min":1.0,"p50":2.0,"p99":3.0,"mean":2.0,"outliers":1,"bench":"cold_start","started":8,"seed":1,"commit":"new","host":{"cpu":"A <CPU>","cpus":2}}"#,
    "\n",
    r#"{"subject":"mote","version":"mote 1, \"x\"","metric":"spawn_to_ready","unit":"ms","n":2,"failures":1,"min":1.5,"p50":2.25,"p99":3.5,"mean":2.0,"bench":"cold_start","started":8,"seed":1,"commit":"new","host":{"cpu":"A <CPU>","cpus":2}}"#,
    "\n",
    r#"{"subject":"mote","metric":"spawn_to_ready","relative_to":"floor","unit":"ratio","n":2,"ratio":1.125,"low":1.1,"high":1.2,"bench":"cold_start","started":8,"seed":1,"commit":"new","host":{}}"#,
    "\n",
    r#"{"subject":"mote","metric":"memory_per_machine","unit":"KiB","n":60,"slope":927.0,"low":889.0,"high":965.0,"bench":"density","started":5,"seed":2,"commit":"new","host":{}}"#,
    "\n",
);
const SAMPLES: &str = concat!(
    r#"{"subject":"mote","metric":"spawn_to_ready","unit":"ms","samples":[2.5,null,1.5],"bench":"cold_start","started":8,"seed":1,"commit":"new","host":{"cpu":"A <CPU>","cpus":2}}"#,
    "\n",
    r#"{"subject":"mote","metric":"memory_available","unit":"KiB","samples":[9000,8000,7000],"bench":"density","started":5,"seed":2,"commit":"new","host":{}}"#,
    "\n",
);

fn results() -> Results {
    let directory = tempfile::tempdir().unwrap();
    fs::write(directory.path().join("results.jsonl"), LINES).unwrap();
    fs::write(directory.path().join("cold_start-samples.jsonl"), SAMPLES).unwrap();
    fs::write(directory.path().join("other.txt"), "no JSON").unwrap();
    load(directory.path()).unwrap()
}

#[test]
fn only_the_last_run_of_each_bench_counts() {
    let results = results();
    assert_eq!(results.benches.keys().collect::<Vec<_>>(), ["cold_start", "density"]);
    assert!(results.benches.values().flatten().all(|line| line.commit == "new"));
    assert_eq!(results.benches["cold_start"].len(), 4);
}

#[test]
fn markdown_has_a_table_for_each_metric() {
    let text = render(&results(), Format::Markdown).unwrap();
    assert!(text.contains("| floor | 2.00 | 3.00 | 1.00 |  | 1.12 (1.10..1.20) | 2 | 1 | 0 |\n"), "{text}");
    assert!(text.contains("| mote |  |  |  | 927 (889..965) |  | 60 |  |  |\n"), "{text}");
    assert!(text.contains("### memory_per_machine, KiB\n"), "{text}");
}

#[test]
fn csv_is_quoted() {
    let text = render(&results(), Format::Csv).unwrap();
    assert_eq!(text.lines().count(), 5, "{text}");
    assert!(
        text.contains(r#"cold_start,8,1,new,mote,"mote 1, ""x""",spawn_to_ready,ms,,2,1,1.5,"#),
        "{text}"
    );
    let columns = text.lines().next().unwrap().split(',').count();
    assert_eq!(text.lines().nth(1).unwrap().split(',').count(), columns);
}

#[test]
fn json_is_what_was_read() {
    let lines: Vec<Line> = serde_json::from_str(&render(&results(), Format::Json).unwrap()).unwrap();
    assert_eq!(lines.iter().collect::<Vec<_>>(), results().benches.values().flatten().collect::<Vec<_>>());
}

#[test]
fn a_page_stands_alone_and_escapes_what_it_was_told() {
    let page = render(&results(), Format::Html).unwrap();
    assert!(page.contains("A &lt;CPU&gt;") && !page.contains("<CPU>"));
    assert!(
        !page.contains("://") && !page.contains("<script") && !page.contains("src="),
        "it needs the network"
    );
    assert_eq!(page.matches("<figure>").count(), 2, "starts and memory");
    assert!(page.contains("<pre>2.5 failed 1.5</pre>"));
    let figures = page.split("<figure>").skip(1).map(|rest| rest.split("</figure>").next().unwrap());
    for figure in figures {
        assert!(figure.contains("<summary>Data and command</summary>"), "{figure}");
        assert!(figure.contains("cargo bench --bench"), "{figure}");
    }
    assert!(page.contains("prefers-color-scheme: dark") && page.contains("width=device-width"));
}

#[test]
fn what_is_wrong_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let failed = |name: &str| chain(&load(&directory.path().join(name)).unwrap_err());
    assert!(failed("nowhere").contains("nowhere could not be read: has a bench run?"));
    assert!(failed("").contains("holds no results: run a bench first"));
    fs::write(directory.path().join("bad.jsonl"), "{}\nnonsense\n").unwrap();
    assert!(failed("").contains("bad.jsonl, line 2: this is no result of a bench"));
}

#[test]
fn formats_are_known_by_name() {
    assert_eq!("csv".parse(), Ok(Format::Csv));
    assert!("pdf".parse::<Format>().is_err());
}
