//! Parameters as safetensors files, with the layout's tensor names.
//!
//! The format: the length of the header as a little-endian `u64`, the header as JSON (`name → {dtype, shape, data_offsets}`),
//! then the tensors' bytes. It is read and written here, and not by the `safetensors` crate, because that doubles what a
//! browser downloads for it; the tests compare with that crate, byte for byte.
//!
//! Beside the parameters a file may have SCAFFOLD's shared control variate (Karimireddy et al. 2020), in tensors of the same names
//! behind `control.`: whoever has a model then has the control variate that belongs to it, under the same hash.

use std::{cmp::Ordering, collections::BinaryHeap, fmt::Write, ops::Range};

use unsaid_document::{Shape, Value};

use crate::{Model, ParameterTensor, WeightsError, json};

/// The header's length comes in this many bytes.
const LENGTH_BYTES: usize = 8;
/// Headers are padded with spaces to a multiple of this.
const ALIGNMENT: usize = 8;

impl Model {
    /// The parameters as a safetensors file of little-endian `f32`. Equal parameters give equal bytes, so that a model can
    /// be named by its hash.
    ///
    /// # Errors
    /// [`WeightsError::Count`] where `parameters` are not this model's.
    pub fn to_safetensors(&self, parameters: &[f32]) -> Result<Vec<u8>, WeightsError> {
        self.check_count(parameters)?;
        Ok(write(self.layout().tensors(), parameters))
    }

    /// As [`Model::to_safetensors`], with a control variate, `[d]`, beside the parameters.
    ///
    /// # Errors
    /// [`WeightsError::Count`] where either is not this model's.
    pub fn to_safetensors_with_control(
        &self,
        parameters: &[f32],
        control: &[f32],
    ) -> Result<Vec<u8>, WeightsError> {
        self.check_count(parameters)?;
        self.check_count(control)?;
        Ok(write(&self.with_control(), &[parameters, control].concat()))
    }

    /// The tensors of the parameters, and behind them those of a control variate.
    fn with_control(&self) -> Vec<ParameterTensor> {
        let mut tensors = self.layout().tensors().to_vec();
        for at in 0..tensors.len() {
            let mut tensor = tensors[at].clone();
            tensor.name.insert_str(0, CONTROL);
            tensor.offset += self.parameter_count();
            tensors.push(tensor);
        }
        tensors
    }

    /// The flat parameter vector of a safetensors file, without the control variate that it may have. The file is untrusted: every
    /// tensor must be there with its shape and type, none may be there besides, their bytes must fill the file without gaps, and every
    /// number must be finite.
    ///
    /// # Errors
    /// [`WeightsError`] with the tensor that is wrong.
    pub fn from_safetensors(&self, file: &[u8]) -> Result<Vec<f32>, WeightsError> {
        self.from_safetensors_with_control(file)
            .map(|(parameters, _)| parameters)
    }

    /// As [`Model::from_safetensors`], and the control variate, `[d]`; empty where the file has none.
    ///
    /// # Errors
    /// As there.
    pub fn from_safetensors_with_control(&self, file: &[u8]) -> Result<(Vec<f32>, Vec<f32>), WeightsError> {
        let (header, data) = split(file)?;
        let (expected, d) = (self.layout().tensors(), self.parameter_count());
        let entries = header
            .as_object()
            .ok_or_else(|| format_error("the header is no object"))?;
        let found = entries.keys().filter(|name| *name != METADATA).count();
        let has_control = found == 2 * expected.len();
        if found != expected.len() && !has_control {
            let counts = format!("{found} tensors, but the model has {}", expected.len());
            return Err(WeightsError::Tensors(counts));
        }
        // Nothing is allocated before the file has been found to hold all the numbers.
        let mut numbers = d;
        if has_control {
            numbers += d;
        }
        let bytes = 4 * numbers;
        if data.len() != bytes {
            let found = format!("{} bytes, but the model has {bytes}", data.len());
            return Err(WeightsError::Tensors(found));
        }
        let (mut parameters, mut control) = (vec![0.0; d], vec![0.0; numbers - d]);
        let mut places: Vec<Range<usize>> = Vec::new();
        for (prefix, numbers) in [("", &mut parameters), (CONTROL, &mut control)] {
            if numbers.is_empty() {
                break;
            }
            for tensor in expected {
                let name = format!("{prefix}{}", tensor.name);
                let entry = entries.get(&name);
                let entry = entry.ok_or_else(|| WeightsError::Tensors(format!("{name} is missing")))?;
                let place = place(&name, tensor, entry)?;
                // As many bytes as the tensors need, no two of them overlapping: then there are no gaps.
                let overlaps =
                    |earlier: &Range<usize>| earlier.start < place.end && place.start < earlier.end;
                if places.iter().any(overlaps) {
                    return Err(format_error("two tensors overlap"));
                }
                places.push(place.clone());
                let bytes = data
                    .get(place)
                    .ok_or_else(|| format_error("a tensor lies outside the file"))?;
                let values = bytes
                    .as_chunks::<4>()
                    .0
                    .iter()
                    .map(|bytes| f32::from_le_bytes(*bytes));
                for (index, (slot, value)) in numbers[tensor.range()].iter_mut().zip(values).enumerate() {
                    if !value.is_finite() {
                        return Err(WeightsError::NonFinite { tensor: name, index });
                    }
                    *slot = value;
                }
            }
        }
        Ok((parameters, control))
    }
}

/// A file of `tensors`, which lie in `values`.
fn write(tensors: &[ParameterTensor], values: &[f32]) -> Vec<u8> {
    // By name. A heap sorts in a tenth of the code of the library's sort, which a browser would download for this alone.
    let heap: BinaryHeap<ByName<'_>> = tensors.iter().map(ByName).collect();
    let tensors = heap.into_sorted_vec();
    let mut header = String::from("{");
    let mut offset = 0;
    for ByName(ParameterTensor { name, shape, .. }) in &tensors {
        let end = offset + 4 * shape.iter().product::<usize>();
        let comma = if offset == 0 { "" } else { "," };
        let shape = shape
            .iter()
            .map(ToString::to_string)
            .collect::<Vec<_>>()
            .join(",");
        // Names are made of letters, digits and dots, so they need no escapes. Writing to a string cannot fail.
        let _ = write!(
            header,
            r#"{comma}"{name}":{{"dtype":"F32","shape":[{shape}],"data_offsets":[{offset},{end}]}}"#
        );
        offset = end;
    }
    header.push('}');
    let padded = header.len().next_multiple_of(ALIGNMENT);
    let mut file = Vec::with_capacity(LENGTH_BYTES + padded + offset);
    file.extend_from_slice(&(padded as u64).to_le_bytes());
    file.extend_from_slice(header.as_bytes());
    file.resize(LENGTH_BYTES + padded, b' ');
    for ByName(tensor) in tensors {
        file.extend(
            values[tensor.range()]
                .iter()
                .flat_map(|value| value.to_le_bytes()),
        );
    }
    file
}

/// Compares by name, of which no two are the same.
struct ByName<'a>(&'a ParameterTensor);

impl Ord for ByName<'_> {
    fn cmp(&self, other: &Self) -> Ordering {
        self.0.name.cmp(&other.0.name)
    }
}

impl PartialOrd for ByName<'_> {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for ByName<'_> {
    fn eq(&self, other: &Self) -> bool {
        self.0.name == other.0.name
    }
}

impl Eq for ByName<'_> {}

/// What the names of a control variate's tensors begin with.
const CONTROL: &str = "control.";

/// The one entry of a header that is no tensor.
const METADATA: &str = "__metadata__";

fn format_error(reason: &str) -> WeightsError {
    WeightsError::Format(reason.to_owned())
}

/// The header and the bytes behind it.
fn split(file: &[u8]) -> Result<(Value, &[u8]), WeightsError> {
    let truncated = || format_error("it ends before its header does");
    let (length, rest) = file.split_first_chunk::<LENGTH_BYTES>().ok_or_else(truncated)?;
    let length = usize::try_from(u64::from_le_bytes(*length)).map_err(|_| truncated())?;
    let (header, data) = rest.split_at_checked(length).ok_or_else(truncated)?;
    let header = std::str::from_utf8(header).map_err(|_| format_error("the header is no text"))?;
    let header = json::parse(header).map_err(format_error)?;
    Ok((header, data))
}

/// Where the bytes of a tensor like `tensor` lie, by its entry in a header, which has it by `name`.
fn place(name: &str, tensor: &ParameterTensor, entry: &Value) -> Result<Range<usize>, WeightsError> {
    let numbers = |field: &str| -> Option<Vec<usize>> {
        let list = entry.get(field)?.as_array()?;
        list.iter()
            .map(|number| usize::try_from(number.as_u64()?).ok())
            .collect()
    };
    let is_f32 = entry.get("dtype").and_then(Value::as_str) == Some("F32");
    if !is_f32 || numbers("shape").as_deref() != Some(&tensor.shape) {
        return Err(WeightsError::Tensors(format!(
            "{name} must be F32 {}",
            Shape(&tensor.shape)
        )));
    }
    match numbers("data_offsets").as_deref() {
        Some(&[start, end]) if end.checked_sub(start) == Some(4 * tensor.len()) => Ok(start..end),
        _ => Err(WeightsError::Tensors(format!(
            "{name} does not have the bytes that its shape needs"
        ))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ModelSpec;

    fn model(units: usize) -> Model {
        let json = format!(
            r#"{{"input": [3], "layers": [{{"type": "dense", "units": {units}}}], "loss": "softmax-cross-entropy"}}"#
        );
        Model::new(&serde_json::from_str::<ModelSpec>(&json).unwrap()).unwrap()
    }

    #[test]
    fn weights_survive_a_round_trip_and_equal_weights_have_equal_bytes() {
        let model = model(2);
        let parameters = model.initial_parameters(3);
        let file = model.to_safetensors(&parameters).unwrap();
        assert_eq!(model.from_safetensors(&file).unwrap(), parameters);
        assert_eq!(model.to_safetensors(&parameters).unwrap(), file);
    }

    #[test]
    fn a_control_variate_lies_beside_the_parameters_and_whoever_wants_those_alone_passes_over_it() {
        let model = model(2);
        let (parameters, control) = (model.initial_parameters(3), model.initial_parameters(4));
        let file = model.to_safetensors_with_control(&parameters, &control).unwrap();
        let read = model.from_safetensors_with_control(&file).unwrap();
        assert_eq!(read, (parameters.clone(), control));
        assert_eq!(model.from_safetensors(&file).unwrap(), parameters);
        let plain = model.to_safetensors(&parameters).unwrap();
        assert_eq!(
            model.from_safetensors_with_control(&plain).unwrap(),
            (parameters.clone(), Vec::new())
        );
        assert!(
            model
                .to_safetensors_with_control(&parameters, &parameters[1..])
                .is_err()
        );
        // Its numbers and names are as untrusted.
        let not_a_number = vec![f32::NAN; parameters.len()];
        let bad = model
            .to_safetensors_with_control(&parameters, &not_a_number)
            .unwrap();
        assert!(matches!(
            model.from_safetensors(&bad),
            Err(WeightsError::NonFinite { tensor, index: 0 }) if tensor == "control.layers.0.kernel"
        ));
        let misnamed = String::from_utf8_lossy(&file).replace("control.", "contral.");
        assert!(model.from_safetensors(misnamed.as_bytes()).is_err());
        for length in 0..file.len() {
            assert!(
                model.from_safetensors_with_control(&file[..length]).is_err(),
                "{length}"
            );
        }
    }

    #[test]
    fn a_file_with_a_control_variate_is_that_of_the_safetensors_crate() {
        use safetensors::{Dtype, tensor::TensorView};
        let model = model(2);
        let (parameters, control) = (model.initial_parameters(3), model.initial_parameters(4));
        let bytes = |values: &[f32]| values.iter().flat_map(|v| v.to_le_bytes()).collect::<Vec<u8>>();
        let parts = [
            ("layers.0.kernel", vec![3, 2], bytes(&parameters[..6])),
            ("layers.0.bias", vec![2], bytes(&parameters[6..])),
            ("control.layers.0.kernel", vec![3, 2], bytes(&control[..6])),
            ("control.layers.0.bias", vec![2], bytes(&control[6..])),
        ];
        let views = parts
            .iter()
            .map(|(name, shape, bytes)| (*name, TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap()));
        let theirs = safetensors::serialize(views, None).unwrap();
        assert_eq!(
            model.to_safetensors_with_control(&parameters, &control).unwrap(),
            theirs
        );
    }

    /// The `safetensors` crate is the independent reference: it writes the same bytes, and reads ours.
    #[test]
    fn files_are_those_of_the_safetensors_crate() {
        use safetensors::{Dtype, SafeTensors, tensor::TensorView};
        let json = r#"{"input": [3], "layers": [{"type": "dense", "units": 5}, {"type": "relu"}, {"type": "dense", "units": 2}],
            "loss": "softmax-cross-entropy"}"#;
        let model = Model::new(&serde_json::from_str(json).unwrap()).unwrap();
        let parameters = model.initial_parameters(3);
        let bytes: Vec<u8> = parameters.iter().flat_map(|value| value.to_le_bytes()).collect();
        let tensors = model.layout().tensors().iter().map(|tensor| {
            let data = &bytes[4 * tensor.offset..4 * tensor.range().end];
            (
                tensor.name.clone(),
                TensorView::new(Dtype::F32, tensor.shape.clone(), data).unwrap(),
            )
        });
        let file = model.to_safetensors(&parameters).unwrap();
        assert_eq!(safetensors::serialize(tensors, None).unwrap(), file);
        let read = SafeTensors::deserialize(&file).unwrap();
        assert_eq!(read.tensor("layers.2.kernel").unwrap().shape(), [5, 2]);
    }

    #[test]
    fn each_wrong_header_is_refused() {
        let model = model(2);
        let file = |header: &str| {
            let mut file = (header.len() as u64).to_le_bytes().to_vec();
            file.extend_from_slice(header.as_bytes());
            file.resize(file.len() + 32, 0);
            model.from_safetensors(&file)
        };
        let kernel = r#""layers.0.kernel":{"dtype":"F32","shape":[3,2],"data_offsets":[8,32]}"#;
        let bias = r#""layers.0.bias":{"dtype":"F32","shape":[2],"data_offsets":[0,8]}"#;
        let both = |kernel: &str, bias: &str| file(&format!("{{{kernel},{bias}}}"));
        assert_eq!(both(kernel, bias), Ok(vec![0.0; 8]));
        assert_eq!(
            file(&format!(
                r#"{{"__metadata__":{{"format":"pt"}},{kernel},{bias}}}"#
            )),
            Ok(vec![0.0; 8])
        );
        for (from, to) in [
            ("F32", "F16"),
            ("[3,2]", "[2,3]"),
            ("[3,2]", "[6]"),
            ("[3,2]", "[3,-2]"),
            ("[8,32]", "[8,31]"),
            ("[8,32]", "[32,8]"),
            ("[8,32]", "[4,28]"),
            ("[8,32]", "[16,40]"),
            ("[8,32]", "[18446744073709551608,16]"),
            ("[8,32]", "[8]"),
            ("kernel", "kernels"),
        ] {
            assert!(both(&kernel.replace(from, to), bias).is_err(), "{from} → {to}");
        }
        for header in ["", "[]", "null", "{", "{}", "\u{0}"] {
            assert!(file(header).is_err(), "{header}");
        }
        assert!(file(&format!("{{{kernel}}}")).is_err());
        assert!(model.from_safetensors(&u64::MAX.to_le_bytes()).is_err());
    }

    #[test]
    fn foreign_truncated_and_non_finite_files_are_refused() {
        let two = model(2);
        let file = two.to_safetensors(&two.initial_parameters(3)).unwrap();
        assert!(matches!(
            model(4).from_safetensors(&file),
            Err(WeightsError::Tensors(_))
        ));
        for length in 0..file.len() {
            assert!(two.from_safetensors(&file[..length]).is_err(), "{length}");
        }
        let mut nan = two.initial_parameters(3);
        nan[4] = f32::NAN;
        let file = two.to_safetensors(&nan).unwrap();
        assert_eq!(
            two.from_safetensors(&file),
            Err(WeightsError::NonFinite {
                tensor: "layers.0.kernel".into(),
                index: 4
            })
        );
        assert!(matches!(
            two.to_safetensors(&[0.0]),
            Err(WeightsError::Count {
                found: 1,
                expected: 8
            })
        ));
    }
}
