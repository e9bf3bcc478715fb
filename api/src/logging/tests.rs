//! Lines as they reach a file.

use super::*;

fn lines(options: Options, log: impl FnOnce()) -> Vec<String> {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("log");
    let options = Options { outputs: vec![path.to_string_lossy().into_owned()], ..options };
    let layer = Lines::open(&options).expect("opened").with_filter(filter(&options.level));
    tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), log);
    let text = std::fs::read_to_string(path).expect("read");
    text.lines().map(ToOwned::to_owned).collect()
}

#[test]
fn a_line_is_one_json_object_with_the_standard_keys_first() {
    let lines = lines(Options::default(), || {
        tracing::info!(member_id = 7_u64, ok = true, error = %"a \"b\"\n", msg = "x", "ready");
    });
    let [line] = lines.as_slice() else { panic!("one line: {lines:?}") };
    assert!(line.starts_with("{\"level\":\"info\",\"ts\":\""), "{line}");
    let value: Value = serde_json::from_str(line).expect("JSON");
    assert_eq!(value["msg"], "ready");
    assert_eq!(value["member-id"], 7);
    assert_eq!(value["ok"], true);
    assert_eq!(value["error"], "a \"b\"\n");
    assert_eq!(value["field-msg"], "x");
    let caller = value["caller"].as_str().expect("a caller");
    assert!(caller.starts_with("logging/tests.rs:"), "{caller}");
}

#[test]
fn the_level_decides_what_is_written() {
    let log = || {
        tracing::debug!("d");
        tracing::info!("i");
        tracing::warn!("w");
        tracing::error!(fatal = true, "f");
        tracing::info!(target: "openraft::core", "library");
    };
    for (level, expected) in
        [("debug", &["debug", "info", "warn", "fatal", "info"][..]), ("warn", &["warn", "fatal"])]
    {
        let options = Options { level: level.to_owned(), ..Options::default() };
        let levels: Vec<String> = lines(options, log)
            .iter()
            .map(|line| serde_json::from_str::<Value>(line).expect("JSON")["level"].clone())
            .map(|level| level.as_str().expect("text").to_owned())
            .collect();
        assert_eq!(levels, expected, "{level}");
    }
}

#[test]
fn the_console_form_has_columns() {
    let options = Options { format: Format::Console, ..Options::default() };
    let lines = lines(options, || tracing::warn!(a = 1, "text"));
    let columns: Vec<&str> = lines[0].split('\t').collect();
    assert_eq!(columns[1], "warn");
    assert_eq!(columns[3..], ["text", "{\"a\":1}"]);
}

#[test]
fn an_output_that_cannot_be_opened_is_named() {
    let options = Options { outputs: vec!["/nonexistent/x".to_owned()], ..Options::default() };
    let error = start(&options).expect_err("refused").to_string();
    assert!(error.starts_with("open sink \"/nonexistent/x\": "), "{error}");
}
