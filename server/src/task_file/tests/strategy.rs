//! The section `[strategy]`.

use super::*;

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
