//! Layers of images.

use super::{Case, case};

/// Odd and even kernels, strides, both paddings; windows that overlap, meet, and leave pixels out.
pub(super) fn cases() -> Vec<Case> {
    use serde_json::json;
    let ce = "softmax-cross-entropy";
    vec![
        case(
            "conv2d, smallest",
            1,
            0,
            json!({"input": [1, 1, 1], "layers": [{"type": "conv2d", "filters": 2, "kernel": [1, 1]}, {"type": "flatten"}], "loss": ce}),
        ),
        case(
            "conv2d, one channel in and out, behind another",
            2,
            0,
            json!({"input": [6, 5, 1], "layers": [
                {"type": "conv2d", "filters": 1, "kernel": [3, 2], "padding": "same"}, {"type": "relu"},
                {"type": "conv2d", "filters": 1, "kernel": [2, 3]}, {"type": "flatten"}, {"type": "dense", "units": 2}
            ], "loss": ce}),
        ),
        case(
            "conv2d, primes, same, behind another",
            3,
            0,
            json!({"input": [7, 11, 3], "layers": [
                {"type": "conv2d", "filters": 5, "kernel": [3, 5], "padding": "same"}, {"type": "relu"},
                {"type": "conv2d", "filters": 13, "kernel": [5, 3], "padding": "same"}, {"type": "relu"},
                {"type": "flatten"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "conv2d, even kernels, strides, same",
            5,
            0,
            json!({"input": [9, 10, 2], "layers": [
                {"type": "conv2d", "filters": 9, "kernel": [4, 2], "stride": [2, 3], "padding": "same"},
                {"type": "conv2d", "filters": 7, "kernel": [2, 4], "stride": [3, 1], "padding": "same"}, {"type": "relu"},
                {"type": "flatten"}, {"type": "dense", "units": 4}
            ], "loss": ce}),
        ),
        case(
            "conv2d, valid, strides that leave lines out",
            4,
            0,
            json!({"input": [12, 9, 1], "layers": [
                {"type": "conv2d", "filters": 4, "kernel": [3, 3], "stride": [2, 2]}, {"type": "relu"},
                {"type": "conv2d", "filters": 17, "kernel": [2, 2], "stride": [2, 1]},
                {"type": "flatten"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "conv2d, kernel larger than the image, stride larger than the kernel",
            2,
            0,
            json!({"input": [3, 8, 2], "layers": [
                {"type": "conv2d", "filters": 3, "kernel": [7, 1], "stride": [1, 3], "padding": "same"},
                {"type": "conv2d", "filters": 8, "kernel": [1, 2], "stride": [9, 2], "padding": "valid"},
                {"type": "flatten"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "conv2d, more filters than pixels: norms by inner products",
            3,
            0,
            json!({"input": [4, 4, 5], "layers": [
                {"type": "conv2d", "filters": 33, "kernel": [3, 3]}, {"type": "relu"},
                {"type": "conv2d", "filters": 31, "kernel": [2, 2]}, {"type": "flatten"}
            ], "loss": ce}),
        ),
        case(
            "conv2d, more windows than the scratch memory holds",
            4,
            0,
            json!({"input": [14, 14, 19], "layers": [
                {"type": "conv2d", "filters": 2, "kernel": [5, 5], "padding": "same"}, {"type": "relu"},
                {"type": "conv2d", "filters": 2, "kernel": [3, 3], "stride": [2, 2], "padding": "same"},
                {"type": "flatten"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "the digits' network, small",
            6,
            0,
            json!({"input": [14, 14, 1], "layers": [
                {"type": "conv2d", "filters": 8, "kernel": [5, 5], "padding": "same"}, {"type": "relu"},
                {"type": "max-pool2d", "size": [2, 2]},
                {"type": "conv2d", "filters": 16, "kernel": [5, 5], "padding": "same"}, {"type": "relu"},
                {"type": "max-pool2d", "size": [2, 2]},
                {"type": "flatten"}, {"type": "dense", "units": 10}
            ], "loss": ce}),
        ),
        case(
            "max-pool2d, overlapping windows that leave lines out",
            3,
            0,
            json!({"input": [8, 7, 2], "layers": [
                {"type": "conv2d", "filters": 5, "kernel": [1, 1]},
                {"type": "max-pool2d", "size": [3, 2], "stride": [2, 1]},
                {"type": "flatten"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "max-pool2d, strides beyond the window",
            2,
            0,
            json!({"input": [7, 8, 1], "layers": [
                {"type": "conv2d", "filters": 2, "kernel": [1, 1]},
                {"type": "max-pool2d", "size": [1, 2], "stride": [3, 3]},
                {"type": "flatten"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "average-pool2d, overlapping and not",
            3,
            0,
            json!({"input": [9, 8, 3], "layers": [
                {"type": "conv2d", "filters": 4, "kernel": [2, 2]}, {"type": "relu"},
                {"type": "average-pool2d", "size": [2, 3], "stride": [1, 2]},
                {"type": "average-pool2d", "size": [3, 2]},
                {"type": "flatten"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "global-average-pool2d",
            4,
            0,
            json!({"input": [5, 6, 3], "layers": [
                {"type": "conv2d", "filters": 7, "kernel": [3, 3], "padding": "same"}, {"type": "relu"},
                {"type": "global-average-pool2d"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "global-max-pool2d",
            4,
            0,
            json!({"input": [5, 6, 3], "layers": [
                {"type": "conv2d", "filters": 7, "kernel": [3, 3]},
                {"type": "global-max-pool2d"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "layer-norm, of the data, of two features, behind a rectifier",
            3,
            0,
            json!({"input": [7], "layers": [
                {"type": "layer-norm"}, {"type": "dense", "units": 2}, {"type": "layer-norm", "epsilon": 0.1},
                {"type": "dense", "units": 65}, {"type": "relu"}, {"type": "layer-norm"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "layer-norm over a sequence, a group longer than a workgroup",
            4,
            0,
            json!({"input": [5, 3], "layers": [
                {"type": "dense", "units": 131}, {"type": "layer-norm"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "group-norm, one channel a group, behind a convolution",
            3,
            0,
            json!({"input": [6, 5, 2], "layers": [
                {"type": "conv2d", "filters": 3, "kernel": [3, 3]}, {"type": "group-norm", "groups": 3}, {"type": "relu"},
                {"type": "flatten"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "group-norm, primes, then one group",
            5,
            0,
            json!({"input": [11, 7, 1], "layers": [
                {"type": "conv2d", "filters": 14, "kernel": [3, 3], "padding": "same"},
                {"type": "group-norm", "groups": 2}, {"type": "relu"},
                {"type": "conv2d", "filters": 5, "kernel": [2, 2], "stride": [2, 2]},
                {"type": "group-norm", "groups": 1, "epsilon": 0.01},
                {"type": "global-average-pool2d"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "group-norm of the data",
            2,
            0,
            json!({"input": [4, 4, 4], "layers": [
                {"type": "group-norm", "groups": 2}, {"type": "flatten"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
        case(
            "upsample2d, by 1, 2 and 3",
            3,
            0,
            json!({"input": [3, 2, 2], "layers": [
                {"type": "conv2d", "filters": 3, "kernel": [1, 1]}, {"type": "upsample2d", "factor": 3},
                {"type": "conv2d", "filters": 2, "kernel": [3, 3], "padding": "same"}, {"type": "upsample2d", "factor": 1},
                {"type": "relu"}, {"type": "upsample2d", "factor": 2}, {"type": "flatten"}, {"type": "dense", "units": 3}
            ], "loss": ce}),
        ),
    ]
}
