use unsaid_protocol::ContentHash;

use super::*;

mod identity;
mod messages;
mod privacy;
mod rounds;
mod schema;
mod strategy;

/// The task of all the relay's tests, and held-out examples.
const GOOD: &str = concat!(
    include_str!("../../tests/tiny.toml"),
    "\n[evaluation]\nshard = \"test.shard\"\n"
);

const EXAMPLE: [&str; 3] = [
    "privacy.mode=example",
    "privacy.clip_l2=2",
    "privacy.sampling_rate=0.01",
];

fn parse(text: &str, overrides: &[&str]) -> Result<Task, TaskFileError> {
    let overrides: Vec<String> = overrides.iter().map(|&text| text.to_owned()).collect();
    Task::parse("t.toml", text, &overrides)
}

#[test]
fn a_task_file_makes_a_manifest() {
    let task = parse(GOOD, &[]).unwrap();
    let manifest = &task.manifest;
    assert_eq!(
        (manifest.parameters, task.seed, task.round_limit),
        (3 * 2 + 2, 7, None)
    );
    assert_eq!(
        manifest.data,
        DataSchema::Classification {
            features: 3,
            classes: 2
        }
    );
    assert_eq!(manifest.privacy, Privacy::None);
    let noise_multiplier = 1.5;
    let local = parse(GOOD, &["privacy.mode=local"]).unwrap().manifest;
    assert_eq!(local.privacy, Privacy::Local { noise_multiplier });
    let example = parse(GOOD, &EXAMPLE).unwrap().manifest;
    let (clip_l2, sampling_rate) = (2.0, 0.01);
    let expected = Privacy::Example {
        clip_l2,
        noise_multiplier,
        sampling_rate,
    };
    assert_eq!(example.privacy, expected);
    assert!(
        example.training.get("clip_examples_l2").is_none(),
        "it is said once"
    );
    assert_eq!(manifest.training["optimizer"]["learning_rate"].to_string(), "0.1");
    assert_eq!(
        serde_json::from_value::<ModelSpec>(manifest.model.clone()).unwrap(),
        *task.model.spec()
    );
    assert_eq!(task.evaluation.unwrap(), Path::new("test.shard"));
    let again = parse(GOOD, &[]).unwrap().manifest.to_json();
    assert_eq!(ContentHash::of(&again), ContentHash::of(&manifest.to_json()));
}

#[test]
fn each_mistake_is_reported_with_its_line_and_field() {
    for (good, bad, field, message) in [
        ("title = ", "titel = ", "titel", "unknown field `titel`"),
        ("task = \"tiny\"", "task = \"Tiny!\"", "task", "a task id has"),
        ("epochs = 1", "epochs = 0", "training.epochs", "nonzero"),
        ("epochs = 1", "epoch = 2", "training.epoch", "unknown field"),
        ("epochs = 1", "epochs = -1", "training.epochs", "-1"),
        ("epochs = 1", "epochs = 1.5", "training.epochs", "1.5"),
        (
            "epochs = 1",
            "epochs = 4_294_967_296",
            "training.epochs",
            "4294967296",
        ),
        (
            "batch_size = 10",
            "batch_size = 0",
            "training.batch_size",
            "nonzero",
        ),
        (
            "batch_size = 10",
            "batch_size = \"10\"",
            "training.batch_size",
            "string",
        ),
        (
            "learning_rate = 0.1",
            "learning_rte = 0.1",
            "training.optimizer.learning_rte",
            "unknown field",
        ),
        (
            "clip_l2 = 1",
            "clip_l2 = nan",
            "update.clip_l2",
            "NaN is not a number above 0",
        ),
        ("clip_l2 = 1", "clip_l2 = inf", "update.clip_l2", "inf is not"),
        ("clip_l2 = 1", "clip_l2 = -1", "update.clip_l2", "-1 is not"),
        ("clip_l2 = 1", "clip_l2 = \"1\"", "update.clip_l2", ""),
        (
            "grid_step = 0.0009765625",
            "grid_step = 0",
            "update.grid_step",
            "0 is not",
        ),
        (
            "grid_step = 0.0009765625",
            "grid_step = 5.0",
            "update.grid_step",
            "5",
        ),
        (
            "noise_multiplier = 1.5",
            "noise_multiplier = 0.0",
            "privacy.noise_multiplier",
            "0.0 is not",
        ),
        (
            "mode = \"none\"",
            "mode = \"secret\"",
            "privacy.mode",
            "unknown variant `secret`",
        ),
        (
            "min_clients = 2",
            "min_clients = 0",
            "rounds.min_clients",
            "0 is not a whole number",
        ),
        (
            "min_clients = 2",
            "min_clients = 1.5",
            "rounds.min_clients",
            "1.5 is not a whole number",
        ),
        (
            "target_clients = 3",
            "target_clients = 1",
            "rounds.target_clients",
            "1 is below min_clients, 2",
        ),
        (
            "deadline_ms = 60_000",
            "deadline_ms = 0",
            "rounds.deadline_ms",
            "0 is not",
        ),
        (
            "deadline_ms = 60_000",
            "deadline_ms = -5",
            "rounds.deadline_ms",
            "-5 is not",
        ),
        (
            "deadline_ms = 60_000",
            "dedline_ms = 60_000",
            "rounds.dedline_ms",
            "unknown field",
        ),
        (
            "shard = \"test.shard\"",
            "shard = \"../test.shard\"",
            "evaluation.shard",
            "below the data folder",
        ),
        (
            "shard = \"test.shard\"",
            "shard = \"/test.shard\"",
            "evaluation.shard",
            "below the data folder",
        ),
    ] {
        assert_eq!(GOOD.matches(good).count(), 1, "{good}");
        let error = parse(&GOOD.replace(good, bad), &[]).unwrap_err();
        let line = GOOD[..GOOD.find(good).unwrap()].matches('\n').count() + 1;
        assert_eq!(
            (error.line, error.field.as_str()),
            (Some(line), field),
            "{bad}: {error}"
        );
        assert!(error.message.contains(message), "{bad}: {error}");
        assert!(error.place.starts_with(&format!("t.toml:{line}:")), "{error}");
    }
}

/// The tasks's strategy, in the place of its line 31 and after.
fn with_strategy(lines: &str) -> String {
    format!("{GOOD}\n[strategy]\n{lines}\n")
}

#[test]
fn numbers_of_the_optimiser_that_are_out_of_range_are_reported_with_their_line_and_field() {
    let inline = "optimizer = { type = \"sgd\", learning_rate = 0.1 }";
    for (name, bad, message) in [
        ("learning_rate", "0", "learning_rate is 0,"),
        ("learning_rate", "-0.1", "learning_rate is -0.1"),
        ("learning_rate", "nan", "`learning_rate` must be a finite number"),
        ("learning_rate", "inf", "`learning_rate` must be a finite number"),
        // Out of range as a 32-bit float, which it is read as.
        ("learning_rate", "1e39", "learning_rate is inf"),
        ("learning_rate", "1e-60", "learning_rate is 0,"),
        ("momentum", "1.0", "momentum is 1,"),
        ("momentum", "-0.5", "momentum is -0.5"),
        ("momentum", "nan", "`momentum` must be a finite number"),
    ] {
        let rate = if name == "learning_rate" { bad } else { "0.1" };
        let momentum = if name == "momentum" { bad } else { "0.0" };
        let field = format!("training.optimizer.{name}");
        let one_line =
            format!("optimizer = {{ type = \"sgd\", learning_rate = {rate}, momentum = {momentum} }}");
        let table =
            format!("[training.optimizer]\ntype = \"sgd\"\nlearning_rate = {rate}\nmomentum = {momentum}");
        for (written, line) in [(one_line, 17), (table, if name == "momentum" { 20 } else { 19 })] {
            let error = parse(&GOOD.replace(inline, &written), &[]).unwrap_err();
            assert_eq!(
                (error.line, error.field.as_str()),
                (Some(line), field.as_str()),
                "{error}"
            );
            assert!(error.message.contains(message), "{error}");
        }
        let over = format!("{field}={bad}");
        let error = parse(GOOD, &[&over]).unwrap_err();
        assert_eq!(error.place, format!("override {over}"));
        assert_eq!(error.field, field, "{error}");
    }
}

#[test]
fn mistakes_in_the_model_are_found() {
    let error = parse(&GOOD.replace("units = 2", "unit = 2"), &[]).unwrap_err();
    assert_eq!(
        (error.line, error.field.as_str()),
        (Some(10), "model.layers.1.unit"),
        "{error}"
    );
    let error = parse(&GOOD.replace("\"relu\"", "\"rely\""), &[]).unwrap_err();
    assert_eq!(
        (error.line, error.field.as_str()),
        (Some(9), "model.layers.0.type"),
        "{error}"
    );
    let no_layers = "    { type = \"relu\" },\n    { type = \"dense\", units = 2 },\n";
    assert!(GOOD.contains(no_layers));
    for (good, bad, line, field, message) in [
        (
            "units = 2",
            "units = 0",
            10,
            "model.layers.1",
            "units must be at least 1",
        ),
        (
            "\"relu\" }",
            "\"conv2d\", filters = 2, kernel = [3, 3] }",
            9,
            "model.layers.0",
            "the shape that reaches it",
        ),
        ("input = [3]", "input = [0]", 7, "model.input", "each at least 1"),
        (no_layers, "", 8, "model.layers", "it needs a layer that learns"),
    ] {
        let error = parse(&GOOD.replace(good, bad), &[]).unwrap_err();
        assert_eq!((error.line, error.field.as_str()), (Some(line), field), "{error}");
        assert!(error.message.contains(message), "{error}");
    }
    let named = with_strategy("aggregation = \"mean\"");
    let error = parse(&named, &[]).unwrap_err();
    assert!(
        error.message.contains("expected a table: { type = \"mean\" }"),
        "{error}"
    );
}

#[test]
fn a_missing_field_names_its_section() {
    let error = parse(&GOOD.replace("deadline_ms = 60_000\n", ""), &[]).unwrap_err();
    assert_eq!(
        (error.field.as_str(), error.message.as_str()),
        ("rounds", "missing field `deadline_ms`")
    );
    let without = GOOD.replace("noise_multiplier = 1.5\n", "");
    let error = parse(&without, &["privacy.mode=local"]).unwrap_err();
    assert_eq!(error.field, "privacy", "{error}");
}

#[test]
fn broken_syntax_is_reported_with_its_line_and_column() {
    let error = parse(&GOOD.replace("epochs = 1", "epochs = = 2"), &[]).unwrap_err();
    assert_eq!(error.line, Some(15), "{error}");
    assert!(error.place.starts_with("t.toml:15:10"), "{error}");
}

#[test]
fn overrides_are_laid_over_the_file() {
    let overrides = [
        "privacy.mode=none",
        "rounds.target_clients = 8",
        "rounds.limit=5",
        "title=\"A = b\"",
        "training.epochs=1",
    ];
    let task = parse(GOOD, &overrides).unwrap();
    assert_eq!(task.manifest.privacy, Privacy::None);
    assert_eq!(
        (
            task.manifest.rounds.target_clients,
            task.manifest.rounds.min_clients
        ),
        (8, 2)
    );
    assert_eq!(
        (task.round_limit, task.manifest.title.as_str()),
        (Some(5), "A = b")
    );
    assert_eq!(task.manifest.training["epochs"], 1);
    let last = parse(GOOD, &["rounds.target_clients=8", "rounds.target_clients=9"]).unwrap();
    assert_eq!(last.manifest.rounds.target_clients, 9);
}

#[test]
fn a_bad_override_is_named() {
    for (over, field, message) in [
        (
            "rounds.target_clients=0",
            "rounds.target_clients",
            "0 is not a whole number",
        ),
        (
            "rounds.target_clients=1",
            "rounds.target_clients",
            "1 is below min_clients, 2",
        ),
        ("rounds.tarqet=4", "rounds.tarqet", "unknown field `tarqet`"),
        ("privacy.mode=off", "privacy.mode", "unknown variant `off`"),
        ("update.clip_l2=-1e3", "update.clip_l2", "-1000.0 is not"),
        ("rounds", "", "not of the form KEY=VALUE"),
        ("a b=1", "", ""),
        ("title=\"open", "", ""),
    ] {
        let error = parse(GOOD, &["title=Other", over]).unwrap_err();
        assert_eq!((error.line, error.field.as_str()), (None, field), "{error}");
        assert_eq!(error.place, format!("override {over}"));
        assert!(error.message.contains(message), "{error}");
    }
}

/// What the schema says of a task file, read as TOML.
fn schema_takes(text: &str) -> Result<(), String> {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let mut compiler = boon::Compiler::new();
    compiler.add_resource("task.json", schema).unwrap();
    let mut schemas = boon::Schemas::new();
    let index = compiler.compile("task.json", &mut schemas).unwrap();
    let document: toml::Value = toml::from_str(text).unwrap();
    let document = serde_json::to_value(document).unwrap();
    schemas
        .validate(&document, index)
        .map_err(|error| error.to_string())
}
