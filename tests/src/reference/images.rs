//! Layers of images, `[height, width, channels]`.

use unsaid_engine::{LayerSpec, Padding};

use super::{Parameters, Value};

/// Applies one layer of images.
pub(super) fn apply(layer: &LayerSpec, x: Value, parameters: &mut Parameters<'_>) -> Value {
    match *layer {
        LayerSpec::Conv2d {
            filters,
            kernel,
            stride,
            padding,
        } => conv2d(&x, filters, kernel, (stride, padding), parameters),
        LayerSpec::MaxPool2d { size, stride } => pool(&x, size, stride.unwrap_or(size), largest),
        LayerSpec::AveragePool2d { size, stride } => pool(&x, size, stride.unwrap_or(size), mean),
        LayerSpec::GlobalMaxPool2d {} => channelwise(&x, largest),
        LayerSpec::GlobalAveragePool2d {} => channelwise(&x, mean),
        LayerSpec::LayerNorm { epsilon } => {
            let group = *x.shape.last().unwrap();
            normalize(x, |index| index / group, epsilon, parameters)
        }
        LayerSpec::GroupNorm { groups, epsilon } => {
            let channels = x.shape[2];
            normalize(
                x,
                |index| index % channels * groups / channels,
                epsilon,
                parameters,
            )
        }
        LayerSpec::Upsample2d { factor } => upsample(&x, factor),
        LayerSpec::Flatten {} => Value {
            shape: vec![x.data.len()],
            data: x.data,
        },
        ref other => panic!("the reference does not know {other:?}"),
    }
}

/// The number of an image at a place, zero outside it.
fn pixel(x: &Value, i: isize, j: isize, channel: usize) -> f64 {
    let (height, width, channels) = (x.shape[0] as isize, x.shape[1] as isize, x.shape[2]);
    if (0..height).contains(&i) && (0..width).contains(&j) {
        x.data[(i * width + j) as usize * channels + channel]
    } else {
        0.0
    }
}

fn conv2d(
    x: &Value,
    filters: usize,
    [kh, kw]: [usize; 2],
    (stride, padding): ([usize; 2], Padding),
    parameters: &mut Parameters<'_>,
) -> Value {
    let channels = x.shape[2];
    let kernel = parameters.take(kh * kw * channels * filters);
    let bias = parameters.take(filters);
    // Outputs, and zeros before the first pixel, along one direction.
    let along = |input: usize, size: usize, stride: usize| match padding {
        Padding::Valid => ((0..input).filter(|o| o * stride + size <= input).count(), 0),
        Padding::Same => {
            let outputs = input.div_ceil(stride);
            let zeros = ((outputs - 1) * stride + size).max(input) - input;
            (outputs, zeros / 2)
        }
    };
    let (height, above) = along(x.shape[0], kh, stride[0]);
    let (width, left) = along(x.shape[1], kw, stride[1]);
    let mut data = Vec::new();
    for i in 0..height {
        for j in 0..width {
            for o in 0..filters {
                let mut sum = bias[o];
                for u in 0..kh {
                    for v in 0..kw {
                        let at = (
                            (i * stride[0] + u) as isize - above as isize,
                            (j * stride[1] + v) as isize - left as isize,
                        );
                        for c in 0..channels {
                            sum +=
                                pixel(x, at.0, at.1, c) * kernel[((u * kw + v) * channels + c) * filters + o];
                        }
                    }
                }
                data.push(sum);
            }
        }
    }
    Value {
        shape: vec![height, width, filters],
        data,
    }
}

fn largest(values: &[f64]) -> f64 {
    values.iter().copied().fold(f64::NEG_INFINITY, f64::max)
}

fn mean(values: &[f64]) -> f64 {
    values.iter().sum::<f64>() / values.len() as f64
}

/// One number for each channel of each whole window.
fn pool(x: &Value, size: [usize; 2], stride: [usize; 2], of: fn(&[f64]) -> f64) -> Value {
    let mut shape = vec![0, 0, x.shape[2]];
    let mut data = Vec::new();
    for i in (0..x.shape[0])
        .step_by(stride[0])
        .filter(|i| i + size[0] <= x.shape[0])
    {
        shape[0] += 1;
        shape[1] = 0;
        for j in (0..x.shape[1])
            .step_by(stride[1])
            .filter(|j| j + size[1] <= x.shape[1])
        {
            shape[1] += 1;
            for c in 0..x.shape[2] {
                let taps = (i..i + size[0]).flat_map(|i| (j..j + size[1]).map(move |j| (i, j)));
                let values: Vec<f64> = taps.map(|(i, j)| pixel(x, i as isize, j as isize, c)).collect();
                data.push(of(&values));
            }
        }
    }
    Value { shape, data }
}

/// One number for each channel.
fn channelwise(x: &Value, of: fn(&[f64]) -> f64) -> Value {
    let channels = x.shape[2];
    let of_channel = |c: usize| {
        of(&x
            .data
            .iter()
            .copied()
            .skip(c)
            .step_by(channels)
            .collect::<Vec<_>>())
    };
    Value {
        shape: vec![channels],
        data: (0..channels).map(of_channel).collect(),
    }
}

/// Brings what has the same number by `group_of` to mean 0 and variance 1, then scales and shifts by channel.
fn normalize(
    mut x: Value,
    group_of: impl Fn(usize) -> usize,
    epsilon: f32,
    parameters: &mut Parameters<'_>,
) -> Value {
    let channels = *x.shape.last().unwrap();
    let scale = parameters.take(channels);
    let offset = parameters.take(channels);
    let groups = 1 + (0..x.data.len()).map(&group_of).max().unwrap();
    for group in 0..groups {
        let members: Vec<usize> = (0..x.data.len())
            .filter(|&index| group_of(index) == group)
            .collect();
        let values: Vec<f64> = members.iter().map(|&index| x.data[index]).collect();
        let centre = mean(&values);
        let variance = mean(&values.iter().map(|v| (v - centre).powi(2)).collect::<Vec<_>>());
        for index in members {
            let normal = (x.data[index] - centre) / (variance + f64::from(epsilon)).sqrt();
            x.data[index] = scale[index % channels] * normal + offset[index % channels];
        }
    }
    x
}

fn upsample(x: &Value, factor: usize) -> Value {
    let shape = vec![x.shape[0] * factor, x.shape[1] * factor, x.shape[2]];
    let mut data = Vec::new();
    for i in 0..shape[0] {
        for j in 0..shape[1] {
            for c in 0..shape[2] {
                data.push(pixel(x, (i / factor) as isize, (j / factor) as isize, c));
            }
        }
    }
    Value { shape, data }
}
