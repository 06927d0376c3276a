use unsaid_protocol::ContentHash;

use super::*;

mod messages;
mod rounds;

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

#[test]
fn terms_of_example_level_privacy_that_cannot_be_followed_name_their_field() {
    for (over, field, message) in [
        (
            "privacy.clip_l2=0",
            "privacy.clip_l2",
            "0 is not a number from 1e-6",
        ),
        ("privacy.clip_l2=1e7", "privacy.clip_l2", "10000000.0 is not"),
        (
            "privacy.sampling_rate=1.5",
            "privacy.sampling_rate",
            "1.5 is not a number",
        ),
        ("privacy.sampling_rate=nan", "privacy.sampling_rate", "NaN is not"),
        (
            "privacy.sampling_rate=1e-9",
            "privacy.sampling_rate",
            "is not a number",
        ),
        (
            "privacy.noise_multiplier=300",
            "privacy.noise_multiplier",
            "leaves no room in 32 bits",
        ),
        (
            "training.clip_examples_l2=1",
            "training",
            "privacy.clip_l2 is the norm",
        ),
        (
            "training.accumulate=2",
            "training",
            "accumulate is 2, but must be 1",
        ),
        ("training.epochs=4294967295", "training", "fewer than 2^32 steps"),
        (
            "strategy.aggregation={ type = \"weighted-mean\", max_weight = 5 }",
            "strategy",
            "cannot go with privacy mode \"example\"",
        ),
    ] {
        let mut overrides = EXAMPLE.to_vec();
        overrides.push(over);
        let error = parse(GOOD, &overrides).unwrap_err();
        assert!(error.field.starts_with(field), "{over}: {error:?}");
        assert!(error.message.contains(message), "{over}: {error}");
    }
    for left_out in ["privacy.clip_l2=2", "privacy.sampling_rate=0.01"] {
        let overrides: Vec<&str> = EXAMPLE.into_iter().filter(|over| *over != left_out).collect();
        let error = parse(GOOD, &overrides).unwrap_err();
        assert!(
            error.field == "privacy" && error.message.contains("needs a"),
            "{error}"
        );
    }
    let dropout = GOOD.replace("{ type = \"relu\" }", "{ type = \"dropout\", rate = 0.5 }");
    assert!(parse(&dropout, &[]).is_ok());
    let error = parse(&dropout, &EXAMPLE).unwrap_err();
    assert!(
        error.field == "model" && error.message.contains("dropout"),
        "{error}"
    );
    // What another mode needs may stay in the file.
    let mut overrides = EXAMPLE.to_vec();
    overrides.push("privacy.mode=none");
    assert_eq!(parse(GOOD, &overrides).unwrap().manifest.privacy, Privacy::None);
}

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
fn a_strategy_is_part_of_what_clients_agree_to() {
    assert_eq!(parse(GOOD, &[]).unwrap().manifest.strategy, None);
    let plain = with_strategy("aggregation = { type = \"mean\" }\nserver = { type = \"fed-avg\" }");
    let plain = parse(&plain, &[]).unwrap().manifest;
    assert_eq!(
        plain,
        parse(GOOD, &[]).unwrap().manifest,
        "what is the default is not written"
    );
    let adam = with_strategy("server = { type = \"fed-adam\", learning_rate = 0.01 }");
    let task = parse(&adam, &[]).unwrap();
    let server = &task.manifest.strategy.as_ref().unwrap()["server"];
    assert_eq!(
        (server["beta2"].to_string(), server["tau"].to_string()),
        ("0.99".into(), "0.001".into())
    );
    let read: Strategy = serde_json::from_value(task.manifest.strategy.clone().unwrap()).unwrap();
    assert_eq!(read, task.strategy);
    let weighted = with_strategy("aggregation = { type = \"weighted-mean\", max_weight = 600 }");
    let weighted = parse(&weighted, &[]).unwrap().manifest;
    assert_eq!(weighted.update.max_weight, Some(600));
}

#[test]
fn an_impossible_strategy_is_refused_with_line_field_and_reason() {
    let cases = [
        (
            "aggregation = { type = \"krumm\" }",
            "aggregation.type",
            "unknown variant `krumm`",
        ),
        (
            "aggregation = { type = \"krum\" }",
            "aggregation",
            "missing field `byzantine`",
        ),
        (
            "aggregation = { type = \"mean\", trim = 1 }",
            "aggregation.trim",
            "unknown field `trim`",
        ),
        (
            "aggregation = { type = \"norm-bounding\", bound_l2 = -1 }",
            "aggregation.bound_l2",
            "-1 is not a number above 0",
        ),
        (
            "aggregation = { type = \"fed-buff\", max_staleness = 33 }",
            "aggregation.max_staleness",
            "33 is not a whole number from 0 to 32",
        ),
        (
            "aggregation = { type = \"fed-buff\", max_staleness = 3, exponent = -0.5 }",
            "aggregation.exponent",
            "-0.5 is not a number from 0 to 10",
        ),
        (
            "aggregation = { type = \"weighted-mean\", max_weight = 2_000_000 }",
            "aggregation.max_weight",
            "2000000 is not a whole number from 1 to 1048576",
        ),
        (
            "server = { type = \"fed-adam\", learning_rate = 0.1, beta2 = 1.0 }",
            "server.beta2",
            "1 is not a number of at least 0 and below 1",
        ),
        (
            "server = { type = \"fed-yogi\", learning_rate = nan }",
            "server.learning_rate",
            "NaN is not",
        ),
    ];
    for (lines, field, message) in cases {
        let error = parse(&with_strategy(lines), &[]).unwrap_err();
        let line = GOOD.lines().count() + 3;
        let field = format!("strategy.{field}");
        assert_eq!(
            (error.line, error.field.as_str()),
            (Some(line), field.as_str()),
            "{error}"
        );
        assert!(error.message.contains(message), "{error}");
    }
    // Pairs: what does not go with noise, and what needs more clients.
    let local = ["privacy.mode=local"];
    for (lines, reason) in [
        (
            "{ type = \"krum\", byzantine = 0 }",
            "krum cannot go with privacy mode \"local\"",
        ),
        (
            "{ type = \"weighted-mean\", max_weight = 9 }",
            "would leave its device without noise",
        ),
        (
            "{ type = \"centred-clipping\", radius_l2 = 1.0 }",
            "every update would be cut",
        ),
    ] {
        let text =
            with_strategy(&format!("aggregation = {lines}")).replace("min_clients = 2", "min_clients = 3");
        assert!(parse(&text, &[]).is_ok(), "{lines}");
        let error = parse(&text, &local).unwrap_err();
        assert!(error.field.starts_with("strategy.aggregation"), "{error}");
        assert_eq!(error.line, Some(GOOD.lines().count() + 3), "{error}");
        assert!(error.message.contains(reason), "{error}");
    }
    let few = with_strategy("aggregation = { type = \"krum\", byzantine = 1 }");
    let error = parse(&few, &[]).unwrap_err();
    assert_eq!(
        (error.line, error.field.as_str()),
        (Some(28), "rounds.min_clients"),
        "{error}"
    );
    assert!(error.message.contains("needs at least 5 updates"), "{error}");
    let many = with_strategy("aggregation = { type = \"coordinate-median\" }");
    let wide = "model.layers=[{ type = \"dense\", units = 2048 }]";
    let error = parse(&many, &["rounds.target_clients=65536", wide]).unwrap_err();
    assert_eq!(error.field, "rounds.target_clients", "{error}");
    assert!(error.message.contains("keeps every update"), "{error}");
}

#[test]
fn a_task_with_control_variates_trains_alike_on_all_devices_or_says_where_it_does_not() {
    let scaffold = |population: u32| {
        with_strategy(&format!(
            "aggregation = {{ type = \"scaffold\", population = {population} }}"
        ))
    };
    let fixed = "training.steps_per_epoch=5";
    let task = parse(&scaffold(10), &[fixed]).unwrap();
    assert!(task.manifest.control_variates);
    let control = task.control.unwrap();
    assert_eq!(
        (control.population.get(), control.reach),
        (10, 5.0 * f64::from(0.1_f32))
    );
    assert_eq!(task.manifest.training["steps_per_epoch"], 5);
    assert!(!parse(GOOD, &[]).unwrap().manifest.control_variates);
    // DP-SGD takes as many steps for everyone: those of ⌈1/0.3⌉ = 4 lots.
    let example = [
        "privacy.mode=example",
        "privacy.clip_l2=1.0",
        "privacy.sampling_rate=0.3",
    ];
    let task = parse(&scaffold(10), &example).unwrap();
    assert_eq!(task.control.unwrap().reach, 4.0 * f64::from(0.1_f32));
    for (overrides, field, reason) in [
        (&[][..], "training", "by their number of examples"),
        (
            &[fixed, "training.optimizer.momentum=0.5"],
            "training.optimizer.momentum",
            "needs plain SGD",
        ),
        (
            &[fixed, "training.optimizer={type=\"adam\", learning_rate=0.1}"],
            "training.optimizer",
            "needs plain SGD",
        ),
        (
            &[fixed, "training.schedule={type=\"cosine\"}"],
            "training.schedule",
            "a constant learning rate",
        ),
        (
            &[fixed, "training.proximal=0.1"],
            "training.proximal",
            "the proximal pull",
        ),
        (
            &[fixed, "privacy.mode=local"],
            "strategy.aggregation",
            "never forgets it",
        ),
        (
            &[fixed, "strategy.aggregation.population=1"],
            "rounds.target_clients",
            "above 1, the population",
        ),
        (
            &["training.steps_per_epoch=16777216"],
            "training.steps_per_epoch",
            "at most 2^20 examples",
        ),
        (
            &[fixed, example[0], example[1], example[2]],
            "training.steps_per_epoch",
            "must be left out with privacy mode",
        ),
    ] {
        let error = parse(&scaffold(10), overrides).unwrap_err();
        assert!(error.field.starts_with(field), "{overrides:?}: {error}");
        assert!(error.message.contains(reason), "{overrides:?}: {error}");
    }
    // In the file itself a fault has its line.
    let text = scaffold(10).replace("epochs = 1", "epochs = 1\nsteps_per_epoch = 5\nproximal = 0.5");
    let error = parse(&text, &[]).unwrap_err();
    let line = text
        .lines()
        .position(|line| line.starts_with("proximal"))
        .map(|at| at + 1);
    assert_eq!(
        (error.line, error.field.as_str()),
        (line, "training.proximal"),
        "{error}"
    );
}

#[test]
fn the_sums_of_asynchronous_rounds_are_bounded() {
    // 8 bytes for each of 4,098 · 1,024 coordinates of 32 sums: 2³⁰ and some.
    let wide = "model.layers=[{ type = \"dense\", units = 1024 }]";
    let wide = [wide, "model.input=[4097]"];
    let rule = |staleness| {
        with_strategy(&format!(
            "aggregation = {{ type = \"fed-buff\", max_staleness = {staleness} }}"
        ))
    };
    assert!(parse(&rule(30), &wide).is_ok());
    let error = parse(&rule(31), &wide).unwrap_err();
    assert_eq!(error.field, "strategy.aggregation.max_staleness", "{error}");
    assert!(
        error.message.contains("32 sums of 4196352 coordinates"),
        "{error}"
    );
}

#[test]
fn what_a_rule_costs_is_bounded() {
    let (d, steps) = (2 * 300 + 2, 1_000);
    for (lines, input, most, reason) in [
        // 8 bytes for each pair, and 4 for each of 8 coordinates: 8n² + 4nd ≤ 2³⁰.
        (
            "{ type = \"krum\", byzantine = 0 }",
            3,
            11_583,
            "keeps every update",
        ),
        // 2 · n · d · steps ≤ 2³⁶.
        (
            "{ type = \"geometric-median\", iterations = 1_000 }",
            300,
            (1 << 36) / (2 * d * steps),
            "multiplications and additions",
        ),
        (
            "{ type = \"centred-clipping\", radius_l2 = 1.0, iterations = 1_000 }",
            300,
            (1 << 36) / (2 * d * steps),
            "multiplications and additions",
        ),
    ] {
        let text =
            with_strategy(&format!("aggregation = {lines}")).replace("min_clients = 2", "min_clients = 3");
        let text = text.replace("input = [3]", &format!("input = [{input}]"));
        let of = |clients: u64| parse(&text, &[&format!("rounds.target_clients={clients}")]);
        assert!(of(most).is_ok(), "{lines} {most} {:?}", of(most).err());
        let error = of(most + 1).unwrap_err();
        assert_eq!(error.field, "rounds.target_clients", "{error}");
        assert!(error.message.contains(reason), "{error}");
    }
    // n²d/2 ≤ 2³⁶ where d = 2 · 75,000 + 2.
    let text = with_strategy("aggregation = { type = \"multi-krum\", byzantine = 0, chosen = 2 }")
        .replace("min_clients = 2", "min_clients = 3")
        .replace("input = [3]", "input = [75_000]");
    let of = |clients: u64| parse(&text, &[&format!("rounds.target_clients={clients}")]);
    assert!(of(957).is_ok(), "{:?}", of(957).err());
    let error = of(958).unwrap_err();
    assert_eq!(error.field, "rounds.target_clients", "{error}");
    assert!(error.message.contains("multiplications and additions"), "{error}");
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
    let error = parse(&GOOD.replace("units = 2", "units = 0"), &[]).unwrap_err();
    assert_eq!(error.field, "model", "{error}");
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

/// The task with noise that the relay adds, and these lines in its section.
fn central(lines: &str) -> String {
    let section = format!("mode = \"central\"\n{lines}");
    GOOD.replace("mode = \"none\"", &section)
}

#[test]
fn a_central_task_tells_its_unit_its_adjacency_its_mechanism_and_whom_to_trust() {
    let text = central(
        "adjacency = \"add-remove\"\ndelta = 1e-6\nadaptive_clip = { initial_l2 = 0.1, count_noise = 2 }",
    );
    schema_takes(&text).unwrap();
    let task = parse(&text, &[]).unwrap();
    let told = serde_json::to_value(task.manifest.privacy).unwrap();
    let expected = serde_json::json!({
        "mode": "central", "unit": "update", "trust": "relay", "mechanism": "discrete-gaussian",
        "adjacency": "add-remove", "noise_multiplier": 1.5, "delta": 1e-6,
        "adaptive_clip": { "initial_l2": 0.1, "quantile": 0.5, "rate": 0.2, "count_noise": 2.0 },
    });
    assert_eq!(told, expected);
    assert!(task.central.is_some());
    let json = task.manifest.to_json();
    assert_eq!(Manifest::from_json(&json).unwrap(), task.manifest);
}

#[test]
fn a_tree_is_told_with_its_rounds_and_their_separation() {
    let text = central(
        "adjacency = \"add-remove\"\ndelta = 1e-6\nmechanism = \"tree-aggregation\"\ntree = { restart_every = 64, min_separation = 8 }",
    );
    schema_takes(&text).unwrap();
    let task = parse(&text, &[]).unwrap();
    let told = serde_json::to_value(task.manifest.privacy).unwrap();
    let expected = serde_json::json!({
        "mode": "central", "unit": "participant", "trust": "relay", "mechanism": "tree-aggregation",
        "adjacency": "add-remove", "noise_multiplier": 1.5, "delta": 1e-6,
        "tree": { "restart_every": 64, "min_separation": 8 },
    });
    assert_eq!(told, expected);
    assert!(task.central.unwrap().has_tree());
    let json = task.manifest.to_json();
    assert_eq!(Manifest::from_json(&json).unwrap(), task.manifest);
    // A unit that is not the mechanism's is none that a client knows.
    let text = String::from_utf8(json).unwrap();
    for (good, bad) in [
        ("\"participant\"", "\"update\""),
        ("tree-aggregation", "discrete-gaussian"),
        (",\"tree\":{\"restart_every\":64,\"min_separation\":8}", ""),
    ] {
        assert!(text.contains(good), "{good}");
        assert!(
            Manifest::from_json(text.replace(good, bad).as_bytes()).is_err(),
            "{bad}"
        );
    }
}

#[test]
fn each_mistake_in_a_central_section_is_reported_with_its_line_and_field() {
    let good = "adjacency = \"replace-one\"\ndelta = 1e-5";
    parse(&central(good), &[]).unwrap();
    for (lines, field, message) in [
        ("delta = 1e-5", "privacy", "needs an adjacency"),
        ("adjacency = \"add-remove\"", "privacy", "needs a delta"),
        (
            "adjacency = \"both\"\ndelta = 1e-5",
            "privacy.adjacency",
            "unknown variant `both`",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1",
            "privacy.delta",
            "1 is not a number above 0 and below 1",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = nan",
            "privacy.delta",
            "NaN is not",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nadaptive_clip = { initial_l2 = 2 }",
            "privacy.adaptive_clip",
            "initial_l2 is 2, but must be from update.grid_step to update.clip_l2",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nadaptive_clip = { initial_l2 = 0.5, rate = 0 }",
            "privacy.adaptive_clip",
            "the rate is 0",
        ),
        (
            // The usual σ of a target of three is 0.15.
            "adjacency = \"add-remove\"\ndelta = 1e-5\nadaptive_clip = { initial_l2 = 0.5 }",
            "privacy.adaptive_clip",
            "leaves nothing for the sum",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nmechanism = \"tree-aggregation\"",
            "privacy",
            "needs a [privacy.tree]",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\ntree = { restart_every = 64, min_separation = 8 }",
            "privacy",
            "needs mechanism \"tree-aggregation\"",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nmechanism = \"tree\"",
            "privacy.mechanism",
            "unknown variant `tree`",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nmechanism = \"tree-aggregation\"\ntree.restart_every = 0\ntree.min_separation = 1",
            "privacy.tree.restart_every",
            "0 is not a whole number from 1 to 1048576",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nmechanism = \"tree-aggregation\"\ntree.restart_every = 9\ntree.min_separation = 65537",
            "privacy.tree.min_separation",
            "65537 is not a whole number from 1 to 65536",
        ),
        (
            "adjacency = \"add-remove\"\ndelta = 1e-5\nmechanism = \"tree-aggregation\"\ntree = { restart_every = 9, min_separation = 2 }\nadaptive_clip = { initial_l2 = 0.5, count_noise = 2 }",
            "privacy",
            "adaptive_clip cannot go with",
        ),
    ] {
        let text = central(lines);
        let error = parse(&text, &[]).unwrap_err();
        assert_eq!(error.field, field, "{lines}: {error}");
        assert!(error.message.contains(message), "{lines}: {error}");
        let line = error.line.unwrap();
        let named = field.rsplit('.').next().unwrap();
        assert!(text.lines().nth(line - 1).unwrap().contains(named), "{error}");
    }
    let lonely = parse(&central(good), &["rounds.min_clients=1"]).unwrap_err();
    assert!(lonely.message.contains("too few for privacy mode"), "{lonely}");
    // They may stay while the noise is off.
    let off = central(good).replace("\"central\"", "\"none\"");
    assert_eq!(parse(&off, &[]).unwrap().manifest.privacy, Privacy::None);
    schema_takes(&off).unwrap();
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

#[test]
fn the_schema_takes_what_the_relay_takes() {
    let rules = [
        "{ type = \"mean\" }",
        "{ type = \"weighted-mean\", max_weight = 600 }",
        "{ type = \"norm-bounding\", bound_l2 = 1 }",
        "{ type = \"fed-buff\", max_staleness = 8, exponent = 0.25 }",
        "{ type = \"scaffold\", population = 3 }",
        "{ type = \"coordinate-median\" }",
        "{ type = \"trimmed-mean\", trim = 0 }",
        "{ type = \"geometric-median\", smoothing = 0.1 }",
        "{ type = \"centred-clipping\", radius_l2 = 1.5, iterations = 3 }",
        "{ type = \"krum\", byzantine = 0 }",
        "{ type = \"multi-krum\", byzantine = 0, chosen = 2 }",
    ];
    let servers = [
        "{ type = \"fed-avg\" }",
        "{ type = \"fed-avg-m\", momentum = 0.9 }",
        "{ type = \"fed-adagrad\", learning_rate = 1 }",
        "{ type = \"fed-adam\", learning_rate = 0.1, beta1 = 0.5, beta2 = 0.9, tau = 0.1 }",
        "{ type = \"fed-yogi\", learning_rate = 0.1 }",
    ];
    for (rule, server) in rules.iter().zip(servers.iter().cycle()) {
        let text = with_strategy(&format!("aggregation = {rule}\nserver = {server}"));
        let text = text.replace("_clients = 2", "_clients = 3");
        let text = text.replace("epochs = 1", "epochs = 1\nsteps_per_epoch = 4");
        parse(&text, &[]).unwrap();
        schema_takes(&text).unwrap();
    }
    let tasks = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("tasks");
    let mut seen = 0;
    for entry in std::fs::read_dir(tasks).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_some_and(|kind| kind == "toml") {
            seen += 1;
            let text = std::fs::read_to_string(&path).unwrap();
            Task::parse(&path.display().to_string(), &text, &[]).unwrap();
            schema_takes(&text).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        }
    }
    assert!(seen >= 2, "{seen} task files");
}

#[test]
fn the_schema_refuses_what_needs_no_other_field_to_be_wrong() {
    schema_takes(GOOD).unwrap();
    for (good, bad) in [
        ("title = ", "titel = "),
        ("task = \"tiny\"", "task = \"Tiny!\""),
        ("epochs = 1", "epochs = 0"),
        ("epochs = 1", "epochs = 1.5"),
        ("batch_size = 10", "batch_size = \"10\""),
        ("\"relu\"", "\"rely\""),
        ("clip_l2 = 1", "clip_l2 = -1"),
        ("noise_multiplier = 1.5", "noise_multiplier = 0.0"),
        ("mode = \"none\"", "mode = \"central\""),
        ("min_clients = 2", "min_clients = 0"),
        ("deadline_ms = 60_000", "dedline_ms = 60_000"),
        ("shard = \"test.shard\"", "shard = \"../test.shard\""),
        ("shard = \"test.shard\"", "shard = \"/test.shard\""),
    ] {
        assert!(GOOD.contains(good), "{good}");
        let text = GOOD.replace(good, bad);
        assert!(schema_takes(&text).is_err(), "{bad}");
        assert!(parse(&text, &[]).is_err(), "{bad}");
    }
    let without = GOOD
        .replace("noise_multiplier = 1.5\n", "")
        .replace("\"none\"", "\"local\"");
    assert!(
        schema_takes(&without).is_err(),
        "local noise needs its multiplier"
    );
    let example = GOOD.replace(
        "mode = \"none\"",
        "mode = \"example\"\nclip_l2 = 1.0\nsampling_rate = 0.1",
    );
    schema_takes(&example).unwrap();
    assert!(parse(&example, &[]).is_ok());
    for (good, bad) in [
        ("clip_l2 = 1.0\n", ""),
        ("sampling_rate = 0.1", "sampling_rate = 1.1"),
        ("sampling_rate = 0.1", ""),
        ("noise_multiplier = 1.5", ""),
    ] {
        let text = example.replace(good, bad);
        assert!(
            schema_takes(&text).is_err() && parse(&text, &[]).is_err(),
            "{bad}"
        );
    }
    for lines in [
        "aggregation = { type = \"krumm\" }",
        "aggregation = { type = \"krum\" }",
        "aggregation = { type = \"mean\", trim = 1 }",
        "aggregation = { type = \"scaffold\", population = 0 }",
        "aggregation = { type = \"scaffold\" }",
        "server = { type = \"fed-adam\", learning_rate = 0.1, beta2 = 1.0 }",
    ] {
        let text = with_strategy(lines);
        assert!(
            schema_takes(&text).is_err() && parse(&text, &[]).is_err(),
            "{lines}"
        );
    }
}

#[test]
fn the_section_on_identities_is_read_bound_by_the_manifest_and_says_where_it_is_wrong() {
    let with = |lines: &str| format!("{GOOD}\n[identity]\n{lines}\n");
    let plain = parse(GOOD, &[]).unwrap();
    for none in ["", "required = \"none\"\nmax_epsilon = 3"] {
        let task = parse(&with(none), &[]).unwrap();
        assert_eq!(task.identity, None);
        assert_eq!(
            task.manifest.to_json(),
            plain.manifest.to_json(),
            "nothing changes"
        );
    }
    let task = parse(&with("required = \"open\""), &[]).unwrap();
    let rules = task.identity.unwrap();
    assert_eq!(
        (rules.per_round, rules.per_day, rules.max_epsilon),
        (1, None, None)
    );
    assert_eq!(task.manifest.identity, Some(unsaid_protocol::Enrolment::Open));
    assert_ne!(task.manifest.to_json(), plain.manifest.to_json());
    let all = "required = \"invitation\"\nupdates_per_round = 2\nupdates_per_day = 24\nmax_epsilon = 50\ndelta = 1e-6";
    schema_takes(&with(all)).unwrap();
    let rules = parse(&with(all), &["privacy.mode=local"])
        .unwrap()
        .identity
        .unwrap();
    assert_eq!((rules.per_round, rules.per_day), (2, Some(24)));
    assert_eq!((rules.max_epsilon, rules.delta), (Some(50.0), 1e-6));
    let local: &[&str] = &["privacy.mode=local"];
    let central: &[&str] = &[
        "privacy.mode=central",
        "privacy.adjacency=add-remove",
        "privacy.delta=1e-7",
    ];
    let told = parse(&with("required = \"open\"\nupdates_per_round = 1"), central).unwrap();
    let rules = told.identity.unwrap();
    assert_eq!((rules.per_round, rules.delta), (1, 1e-7));
    for (lines, overrides, field, message) in [
        (
            "required = \"closed\"",
            local,
            "identity.required",
            "unknown variant `closed`",
        ),
        (
            "updates_per_round = 0",
            local,
            "identity.updates_per_round",
            "0 is not a whole number",
        ),
        (
            "required = \"open\"\nupdates_per_round = 2",
            central,
            "identity.updates_per_round",
            "too many for privacy mode \"central\"",
        ),
        (
            "updates_per_dya = 1",
            local,
            "identity.updates_per_dya",
            "unknown field",
        ),
        ("delta = 1.0", local, "identity.delta", "1.0 is not"),
        ("max_epsilon = -1", local, "identity.max_epsilon", "-1 is not"),
        (
            "required = \"open\"\nmax_epsilon = 9",
            local,
            "identity.max_epsilon",
            "needs a delta",
        ),
        (
            "required = \"open\"\nmax_epsilon = 9\ndelta = 1e-6",
            &[],
            "identity.max_epsilon",
            "without noise",
        ),
        (
            "required = \"open\"\nmax_epsilon = 0.1\ndelta = 1e-6",
            local,
            "identity.max_epsilon",
            "nobody could take part",
        ),
    ] {
        let text = with(lines);
        let error = parse(&text, overrides).unwrap_err();
        assert_eq!(error.field, field, "{lines}: {error}");
        assert!(
            error.message.contains(message) && error.line.is_some(),
            "{lines}: {error}"
        );
    }
}

#[test]
fn every_layer_that_the_schema_names_is_one_of_the_engines() {
    let schema: serde_json::Value = serde_json::from_str(SCHEMA).unwrap();
    let layers = &schema["$defs"]["model"]["properties"]["layers"]["items"]["properties"]["type"]["enum"];
    let layers = layers.as_array().unwrap();
    assert!(layers.len() > 20);
    let read = |name: &serde_json::Value| {
        let spec = serde_json::json!({ "input": [1], "layers": [{ "type": name }], "loss": "softmax-cross-entropy" });
        serde_json::from_value::<ModelSpec>(spec).map_err(|error| error.to_string())
    };
    for name in layers {
        let known = read(name)
            .err()
            .is_none_or(|error| !error.contains("unknown variant"));
        assert!(known, "{name}");
    }
    assert!(
        read(&"rely".into()).unwrap_err().contains("unknown variant"),
        "the control"
    );
}

#[test]
fn invitations_are_for_a_target_and_for_synchronous_rounds() {
    let with = |invited: &str| parse(GOOD, &[&format!("rounds.invited_clients={invited}")]);
    let target = parse(GOOD, &[]).unwrap().manifest.rounds.target_clients;
    assert_eq!(with(&target.to_string()).unwrap().invited, Some(target));
    assert_eq!(parse(GOOD, &[]).unwrap().invited, None);
    let asynchronous = "strategy.aggregation={ type = \"fed-buff\", max_staleness = 3 }";
    let invited = format!("rounds.invited_clients={}", target + 1);
    for (error, message) in [
        (with(&(target - 1).to_string()), "below target_clients"),
        (with("0"), "0 is not a whole number"),
        (parse(GOOD, &[asynchronous, &invited]), "asynchronous"),
    ] {
        let error = error.unwrap_err();
        assert_eq!(error.field, "rounds.invited_clients", "{error}");
        assert!(error.message.contains(message), "{error}");
    }
}
