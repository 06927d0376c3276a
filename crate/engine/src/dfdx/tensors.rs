//! A module's tensors, in the order in which dfdx visits them: their names, and their numbers as one flat vector.

use std::convert::Infallible;

use ::dfdx::{
    nn::tensor_collection::{
        RecursiveWalker, TensorCollection, TensorOptions, TensorVisitor, ViewTensorMut, ViewTensorName,
        ViewTensorRef,
    },
    shapes::Shape,
    tensor::{Cpu, Gradients, Tensor},
};

use crate::{EngineError, ExternalTensor};

type Of<S> = Tensor<S, f32, Cpu>;

/// Name, shape and start of each tensor.
struct Describe(Vec<ExternalTensor>);

impl TensorVisitor<f32, Cpu> for Describe {
    type Viewer = (ViewTensorRef, ViewTensorName);
    type Err = EngineError;
    type E2 = f32;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        options: TensorOptions<S, f32, Cpu>,
        (tensor, name): (&Of<S>, String),
    ) -> Result<Option<Of<S>>, EngineError> {
        if !options.do_gradient_update {
            let message = format!("the tensor {name} does not learn by gradients, and has no place in a sum");
            return Err(EngineError::External(message));
        }
        let values = tensor.as_vec();
        let n = values.len().max(1) as f64;
        let mean = values.iter().map(|&v| f64::from(v)).sum::<f64>() / n;
        let variance = values.iter().map(|&v| (f64::from(v) - mean).powi(2)).sum::<f64>() / n;
        self.0.push(ExternalTensor {
            name,
            shape: ::dfdx::shapes::HasShape::shape(tensor)
                .concrete()
                .into_iter()
                .collect(),
            mean: mean as f32,
            spread: (3.0 * variance).sqrt() as f32, // a uniform variable in ± s has the variance s² / 3
        });
        Ok(None)
    }
}

/// Name, shape and start of each tensor of `module`.
pub(super) fn describe<M: TensorCollection<f32, Cpu>>(
    module: &M,
) -> Result<Vec<ExternalTensor>, EngineError> {
    let mut visitor = Describe(Vec::new());
    M::iter_tensors(&mut RecursiveWalker {
        m: (module, String::new()),
        f: &mut visitor,
    })?;
    Ok(visitor.0)
}

/// Appends each tensor's numbers, or those of its gradient.
struct Read<'a> {
    into: Vec<f32>,
    gradients: Option<&'a Gradients<f32, Cpu>>,
}

impl TensorVisitor<f32, Cpu> for Read<'_> {
    type Viewer = ViewTensorRef;
    type Err = Infallible;
    type E2 = f32;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, f32, Cpu>,
        tensor: &Of<S>,
    ) -> Result<Option<Of<S>>, Infallible> {
        // Every tensor has a gradient: `alloc_grads` made one for each that learns, and others are refused.
        let numbers = self
            .gradients
            .map_or_else(|| tensor.as_vec(), |gradients| gradients.get(tensor).as_vec());
        self.into.extend(numbers);
        Ok(None)
    }
}

fn collect<M: TensorCollection<f32, Cpu>>(
    module: &M,
    gradients: Option<&Gradients<f32, Cpu>>,
    d: usize,
) -> Vec<f32> {
    let mut visitor = Read {
        into: Vec::with_capacity(d),
        gradients,
    };
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker {
        m: module,
        f: &mut visitor,
    });
    visitor.into
}

/// The numbers of `module`, `[d]`.
pub(super) fn read<M: TensorCollection<f32, Cpu>>(module: &M, d: usize) -> Vec<f32> {
    collect(module, None, d)
}

/// The gradients of the numbers of `module`, `[d]`.
pub(super) fn gradient<M: TensorCollection<f32, Cpu>>(
    module: &M,
    gradients: &Gradients<f32, Cpu>,
    d: usize,
) -> Vec<f32> {
    collect(module, Some(gradients), d)
}

/// Gives each tensor the next numbers.
struct Write<'a>(&'a [f32]);

impl TensorVisitor<f32, Cpu> for Write<'_> {
    type Viewer = ViewTensorMut;
    type Err = Infallible;
    type E2 = f32;
    type D2 = Cpu;

    fn visit<S: Shape>(
        &mut self,
        _: TensorOptions<S, f32, Cpu>,
        tensor: &mut Of<S>,
    ) -> Result<Option<Of<S>>, Infallible> {
        let len = ::dfdx::shapes::HasShape::shape(tensor).num_elements();
        let (own, rest) = self.0.split_at(len.min(self.0.len()));
        tensor.copy_from(own);
        self.0 = rest;
        Ok(None)
    }
}

/// Gives `module` the numbers of a flat vector of its own length.
pub(super) fn write<M: TensorCollection<f32, Cpu>>(module: &mut M, parameters: &[f32]) {
    let Ok(_) = M::iter_tensors(&mut RecursiveWalker {
        m: module,
        f: &mut Write(parameters),
    });
}
