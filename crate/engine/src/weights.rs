//! Parameters as safetensors files, with the layout's tensor names.

use safetensors::{Dtype, SafeTensors, tensor::TensorView};

use crate::{Model, WeightsError};

impl Model {
    /// The parameters as a safetensors file of little-endian `f32`. Equal parameters give equal bytes, so that a model can
    /// be named by its hash.
    ///
    /// # Errors
    /// [`WeightsError::Count`] where `parameters` are not this model's.
    pub fn to_safetensors(&self, parameters: &[f32]) -> Result<Vec<u8>, WeightsError> {
        self.check_count(parameters)?;
        let bytes: Vec<u8> = parameters.iter().flat_map(|value| value.to_le_bytes()).collect();
        let format = |error: safetensors::SafeTensorError| WeightsError::Format(error.to_string());
        let tensors = self.layout().tensors().iter().map(|tensor| {
            let range = tensor.range();
            let data = &bytes[4 * range.start..4 * range.end];
            Ok((
                tensor.name.as_str(),
                TensorView::new(Dtype::F32, tensor.shape.clone(), data).map_err(format)?,
            ))
        });
        let tensors = tensors.collect::<Result<Vec<_>, WeightsError>>()?;
        safetensors::serialize(tensors, None).map_err(format)
    }

    /// The flat parameter vector of a safetensors file. The file is untrusted: every tensor must be there with its shape and
    /// type, none may be there besides, and every number must be finite.
    ///
    /// # Errors
    /// [`WeightsError`] with the tensor that is wrong.
    pub fn from_safetensors(&self, file: &[u8]) -> Result<Vec<f32>, WeightsError> {
        let file = SafeTensors::deserialize(file).map_err(|error| WeightsError::Format(error.to_string()))?;
        let expected = self.layout().tensors();
        if file.len() != expected.len() {
            let counts = format!("{} tensors, but the model has {}", file.len(), expected.len());
            return Err(WeightsError::Tensors(counts));
        }
        let mut parameters = vec![0.0; self.parameter_count()];
        for tensor in expected {
            let name = &tensor.name;
            let view = file
                .tensor(name)
                .map_err(|_| WeightsError::Tensors(format!("{name} is missing")))?;
            if view.dtype() != Dtype::F32 || view.shape() != tensor.shape {
                return Err(WeightsError::Tensors(format!(
                    "{name} is {:?} {:?}, but must be F32 {:?}",
                    view.dtype(),
                    view.shape(),
                    tensor.shape
                )));
            }
            let values = view
                .data()
                .as_chunks::<4>()
                .0
                .iter()
                .map(|bytes| f32::from_le_bytes(*bytes));
            for (index, (slot, value)) in parameters[tensor.range()].iter_mut().zip(values).enumerate() {
                if !value.is_finite() {
                    return Err(WeightsError::NonFinite {
                        tensor: name.clone(),
                        index,
                    });
                }
                *slot = value;
            }
        }
        Ok(parameters)
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
