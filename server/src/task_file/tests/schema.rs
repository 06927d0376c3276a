//! The JSON schema beside the relay's own reading.

use super::*;

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
