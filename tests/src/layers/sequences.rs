//! The cases of tokens and sequences.

use serde_json::json;

use super::{Case, case};

const LOSS: &str = "softmax-cross-entropy";

/// Sizes beside the tiles of 4, 32 and 64; tokens that repeat and that are never seen; steps from 1 on.
pub(super) fn cases() -> Vec<Case> {
    let ce = LOSS;
    vec![
        case(
            "embedding, smallest",
            1,
            1,
            json!({"input": [1], "layers": [{"type": "embedding", "vocabulary": 1, "units": 1}, {"type": "dense", "units": 2}], "loss": ce}),
        ),
        case(
            "embedding, tokens that repeat, beside a tile",
            7,
            11,
            json!({"input": [13], "layers": [{"type": "embedding", "vocabulary": 11, "units": 65}, {"type": "dense", "units": 3}], "loss": ce}),
        ),
        case(
            "embedding, more positions than masks of a workgroup",
            131,
            2003,
            json!({"input": [17], "layers": [{"type": "embedding", "vocabulary": 2003, "units": 2}, {"type": "dense", "units": 3}], "loss": ce}),
        ),
        case(
            "lstm, smallest",
            1,
            0,
            json!({"input": [1, 1], "layers": [{"type": "lstm", "units": 1}, {"type": "dense", "units": 2}], "loss": ce}),
        ),
        case(
            "lstm, primes",
            7,
            0,
            json!({"input": [5, 3], "layers": [{"type": "lstm", "units": 11}, {"type": "dense", "units": 3}], "loss": ce}),
        ),
        case(
            "lstm on lstm, beside a tile",
            5,
            0,
            json!({"input": [4, 17], "layers": [{"type": "lstm", "units": 33}, {"type": "lstm", "units": 2}], "loss": ce}),
        ),
        case(
            "cifg-lstm, smallest",
            1,
            0,
            json!({"input": [1, 1], "layers": [{"type": "cifg-lstm", "units": 1, "projection": 1}, {"type": "dense", "units": 2}], "loss": ce}),
        ),
        case(
            "cifg-lstm without a projection",
            6,
            0,
            json!({"input": [7, 3], "layers": [{"type": "cifg-lstm", "units": 13}, {"type": "dense", "units": 3}], "loss": ce}),
        ),
        case(
            "cifg-lstm with narrow and wide projections",
            5,
            0,
            json!({"input": [6, 5], "layers": [{"type": "cifg-lstm", "units": 35, "projection": 9}, {"type": "cifg-lstm", "units": 3, "projection": 37}, {"type": "dense", "units": 3}], "loss": ce}),
        ),
        case(
            "tied-dense, smallest",
            1,
            2,
            json!({"input": [1], "layers": [{"type": "embedding", "vocabulary": 2, "units": 1}, {"type": "tied-dense"}], "loss": ce}),
        ),
        tied(),
        case(
            "language models in multiples of four",
            7,
            76,
            json!({"input": [6], "layers": [{"type": "embedding", "vocabulary": 76, "units": 12}, {"type": "lstm", "units": 20}, {"type": "cifg-lstm", "units": 36, "projection": 12}, {"type": "tied-dense"}], "loss": ce}),
        ),
        case(
            "language model as on Gboard",
            9,
            33,
            json!({"input": [5], "layers": [{"type": "embedding", "vocabulary": 33, "units": 31}, {"type": "cifg-lstm", "units": 40, "projection": 31}, {"type": "tied-dense"}], "loss": ce}),
        ),
    ]
}

/// A language model whose last layer uses the table of the first.
pub(super) fn tied() -> Case {
    case(
        "language model with a tied softmax",
        5,
        37,
        json!({"input": [7], "layers": [{"type": "embedding", "vocabulary": 37, "units": 6}, {"type": "lstm", "units": 9}, {"type": "dense", "units": 6}, {"type": "tied-dense"}], "loss": LOSS}),
    )
}
