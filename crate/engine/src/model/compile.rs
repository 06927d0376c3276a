//! From a spec to a list of operations over one flat parameter vector: shapes are inferred and checked here.

use std::ops::Range;

use crate::{
    Layout, MAX_PARAMETERS, SpecError,
    layout::Init,
    ops::{
        LossOp, Op,
        activation::{Activation, Function},
        add::Add,
        concat::Concat,
        conv2d::Conv2d,
        dense::Dense,
        dropout::Dropout,
        elementwise_loss::{ElementwiseLoss, Measure},
        embedding::Embedding,
        lstm::Lstm,
        normalize::Normalize,
        pool2d::{Pool2d, Pooling},
        relu::Relu,
        softmax_cross_entropy::SoftmaxCrossEntropy,
        tied_dense::TiedDense,
        upsample2d::Upsample2d,
    },
    spec::{LayerSpec, LossSpec, ModelSpec},
};

/// One operation and the values around it. Value 0 is the batch of examples; value `i + 1` is the output of node `i`.
#[derive(Debug)]
pub(crate) struct Node {
    pub op: Box<dyn Op>,
    /// The value that it reads.
    pub input: usize,
    /// The second value that it reads, where branches meet.
    pub other: Option<usize>,
    /// Its parameters' place in the flat vector; empty where it has none of its own.
    pub parameters: Range<usize>,
    /// The node before it that has a tensor which this one uses too.
    pub shares: Option<usize>,
}

/// What the numbers of an example are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum InputKind {
    Numbers,
    /// Whole numbers below `vocabulary`.
    Tokens {
        vocabulary: usize,
    },
}

/// What a layer's constructor needs: where it stands, and the layout that it adds its tensors to.
pub(crate) struct Placement<'a> {
    /// Index of the layer in the spec; the loss has the index after the last.
    pub layer: usize,
    /// Its type as written in the spec.
    pub kind: &'static str,
    layout: &'a mut Layout,
}

impl Placement<'_> {
    /// Adds the tensor `layers.<index>.<name>`; its offset in the flat vector.
    pub fn parameter(&mut self, name: &str, shape: Vec<usize>, init: Init) -> Result<usize, SpecError> {
        let offset = self.layout.len();
        let name = format!("layers.{}.{name}", self.layer);
        self.layout
            .push(name, shape, init)
            .filter(|()| self.layout.len() <= MAX_PARAMETERS)
            .ok_or_else(|| self.too_large())?;
        Ok(offset)
    }

    /// The model has more parameters than an update can carry.
    pub const fn too_large(&self) -> SpecError {
        SpecError::TooLarge {
            limit: MAX_PARAMETERS,
        }
    }

    /// The layer does not take `found`.
    pub fn shape_error(&self, expected: &'static str, found: &[usize]) -> SpecError {
        SpecError::Shape {
            layer: self.layer,
            kind: self.kind,
            expected,
            found: found.to_vec(),
        }
    }

    /// A name of a value cannot be used.
    pub fn mark_error(&self, name: &str, problem: &'static str) -> SpecError {
        SpecError::Mark {
            layer: self.layer,
            name: name.to_owned(),
            problem,
        }
    }

    /// The value with that name.
    fn marked<'m>(&self, marks: &'m [Mark<'_>], name: &str) -> Result<&'m Mark<'m>, SpecError> {
        let found = marks.iter().find(|mark| mark.name == name);
        found.ok_or_else(|| self.mark_error(name, "is given by no mark before it"))
    }

    /// The layer is where it cannot be, or without what it needs.
    pub fn rule(&self, rule: &'static str) -> SpecError {
        SpecError::Rule {
            layer: self.layer,
            kind: self.kind,
            rule,
        }
    }

    /// Refuses what is not a finite number above 0.
    pub fn positive(&self, field: &'static str, found: f32) -> Result<(), SpecError> {
        if found > 0.0 && found.is_finite() {
            return Ok(());
        }
        Err(SpecError::Number {
            layer: self.layer,
            kind: self.kind,
            field,
            found,
            expected: "above 0 and finite",
        })
    }

    /// Refuses a size of 0.
    pub fn at_least_one(&self, field: &'static str, value: usize) -> Result<(), SpecError> {
        if value > 0 {
            return Ok(());
        }
        Err(SpecError::Zero {
            layer: self.layer,
            kind: self.kind,
            field,
        })
    }
}

/// A value with a name. Its shape is that of the place where it was named: another may be seen further on.
struct Mark<'a> {
    name: &'a str,
    value: usize,
    shape: Vec<usize>,
}

/// A compiled spec.
#[derive(Debug)]
pub(super) struct Program {
    pub layout: Layout,
    pub nodes: Vec<Node>,
    /// Shape of one example of each value.
    pub shapes: Vec<Vec<usize>>,
    pub loss: Box<dyn LossOp>,
    pub classes: usize,
    pub input: InputKind,
}

/// Numbers in one example of a value.
pub(super) fn len_of(shape: &[usize]) -> Result<usize, SpecError> {
    let len = shape.iter().try_fold(1usize, |len, &dim| len.checked_mul(dim));
    len.filter(|&len| len <= MAX_PARAMETERS)
        .ok_or(SpecError::TooLarge {
            limit: MAX_PARAMETERS,
        })
}

/// An operation, its second input and the shape of its output.
type Built = (Box<dyn Op>, Option<usize>, Vec<usize>);

fn activation(function: Function, shape: Vec<usize>) -> Result<Built, SpecError> {
    let len = len_of(&shape)?;
    Ok((Box::new(Activation { function, len }), None, shape))
}

/// A loss against numbers, which has no classes.
fn elementwise(measure: Measure, outputs: &[usize]) -> Result<(Box<dyn LossOp>, usize), SpecError> {
    let len = len_of(outputs)?;
    Ok((Box::new(ElementwiseLoss { measure, len }), 0))
}

/// Lays out the tensors of a model that another program computes.
#[cfg(not(target_arch = "wasm32"))]
fn external(
    at: &mut Placement<'_>,
    spec: &ModelSpec,
    tensors: &[crate::ExternalTensor],
) -> Result<(), SpecError> {
    if spec.layers.len() != 1 {
        return Err(at.rule("must be the only layer"));
    }
    for (index, tensor) in tensors.iter().enumerate() {
        let &crate::ExternalTensor { mean, spread, .. } = tensor;
        let named_before = |other: &crate::ExternalTensor| other.name == tensor.name;
        if tensor.name.is_empty() || tensors[..index].iter().any(named_before) {
            return Err(at.mark_error(&tensor.name, "must be there, and once only"));
        }
        if tensor.shape.contains(&0) {
            return Err(at.shape_error("tensors whose dimensions are at least 1", &tensor.shape));
        }
        if !(mean.is_finite() && (0.0..=f32::MAX).contains(&spread)) {
            return Err(at.rule("must start with finite numbers"));
        }
        at.parameter(&tensor.name, tensor.shape.clone(), Init::Uniform { mean, spread })?;
    }
    Ok(())
}

pub(super) fn compile(spec: &ModelSpec) -> Result<Program, SpecError> {
    if spec.input.is_empty() || spec.input.contains(&0) {
        return Err(SpecError::Input(spec.input.clone()));
    }
    len_of(&spec.input)?;
    let mut layout = Layout::default();
    let mut nodes: Vec<Node> = Vec::with_capacity(spec.layers.len());
    let mut shapes = vec![spec.input.clone()];
    let mut current = 0;
    let mut marks: Vec<Mark<'_>> = Vec::new();
    let mut input = InputKind::Numbers;
    let tied = spec
        .layers
        .iter()
        .any(|layer| matches!(layer, LayerSpec::TiedDense {}));
    let mut table = None;
    for (layer, layer_spec) in spec.layers.iter().enumerate() {
        let shape = shapes[current].clone();
        let parameters_before = layout.len();
        let mut at = Placement {
            layer,
            kind: layer_spec.kind(),
            layout: &mut layout,
        };
        let (op, other, output): (Box<dyn Op>, _, _) = match layer_spec {
            &LayerSpec::Dense { units } => {
                let (op, output) = Dense::new(&mut at, &shape, units)?;
                (Box::new(op), None, output)
            }
            LayerSpec::Relu {} => {
                // A value that is read elsewhere too must stay as it is.
                let marked = marks.iter().any(|mark| mark.value == current);
                let fused =
                    current > 0 && !marked && nodes.last_mut().is_some_and(|node| node.op.fuse_relu());
                if fused {
                    continue;
                }
                (Box::new(Relu::new(len_of(&shape)?)), None, shape)
            }
            LayerSpec::Gelu {} => activation(Function::Gelu, shape)?,
            LayerSpec::Tanh {} => activation(Function::Tanh, shape)?,
            LayerSpec::Sigmoid {} => activation(Function::Sigmoid, shape)?,
            &LayerSpec::Dropout { rate } => {
                let dropout = Dropout::new(&at, len_of(&shape)?, rate)?;
                (Box::new(dropout), None, shape)
            }
            LayerSpec::Mark { name } => {
                if marks.iter().any(|mark| mark.name == name) {
                    return Err(at.mark_error(name, "is given twice"));
                }
                marks.push(Mark {
                    name,
                    value: current,
                    shape,
                });
                continue;
            }
            LayerSpec::Add { with } => {
                let other = at.marked(&marks, with)?;
                if other.shape != shape {
                    return Err(at.shape_error("the marked value's shape", &shape));
                }
                let len = len_of(&shape)?;
                (Box::new(Add { len }), Some(other.value), shape)
            }
            LayerSpec::Concat { with } => {
                let other = at.marked(&marks, with)?;
                let (op, output) = Concat::new(&at, &shape, &other.shape)?;
                (Box::new(op), Some(other.value), output)
            }
            &LayerSpec::Conv2d {
                filters,
                kernel,
                stride,
                padding,
            } => {
                let (op, output) = Conv2d::new(&mut at, &shape, filters, [kernel, stride], padding)?;
                (Box::new(op), None, output)
            }
            &LayerSpec::MaxPool2d { size, stride } => {
                let stride = stride.unwrap_or(size);
                let (op, output) = Pool2d::new(&at, &shape, Pooling::Max, size, stride)?;
                (Box::new(op), None, output)
            }
            &LayerSpec::AveragePool2d { size, stride } => {
                let stride = stride.unwrap_or(size);
                let (op, output) = Pool2d::new(&at, &shape, Pooling::Average, size, stride)?;
                (Box::new(op), None, output)
            }
            LayerSpec::GlobalMaxPool2d {} => {
                let (op, output) = Pool2d::global(&at, &shape, Pooling::Max)?;
                (Box::new(op), None, output)
            }
            LayerSpec::GlobalAveragePool2d {} => {
                let (op, output) = Pool2d::global(&at, &shape, Pooling::Average)?;
                (Box::new(op), None, output)
            }
            &LayerSpec::LayerNorm { epsilon } => {
                let op = Normalize::layer(&mut at, &shape, epsilon)?;
                (Box::new(op), None, shape)
            }
            &LayerSpec::GroupNorm { groups, epsilon } => {
                let op = Normalize::group(&mut at, &shape, groups, epsilon)?;
                (Box::new(op), None, shape)
            }
            LayerSpec::BatchNorm { .. } => {
                return Err(SpecError::Refused {
                    layer,
                    kind: layer_spec.kind(),
                    reason: "mixes the examples of a batch, so that no example has a gradient of its own to be clipped, and its \
                             statistics, averaged over clients whose data differ, are those of none: use group-norm",
                });
            }
            &LayerSpec::Upsample2d { factor } => {
                let (op, output) = Upsample2d::new(&at, &shape, factor)?;
                (Box::new(op), None, output)
            }
            LayerSpec::Flatten {} => {
                // The same value, seen in another shape.
                shapes[current] = vec![len_of(&shape)?];
                continue;
            }
            &LayerSpec::Embedding { vocabulary, units } => {
                let (op, output) = Embedding::new(&mut at, &shape, [vocabulary, units], tied)?;
                input = InputKind::Tokens { vocabulary };
                table = Some(op.clone());
                (Box::new(op), None, output)
            }
            &LayerSpec::Lstm { units } => {
                let (op, output) = Lstm::new(&mut at, &shape, units)?;
                (Box::new(op), None, output)
            }
            &LayerSpec::CifgLstm { units, projection } => {
                let (op, output) = Lstm::coupled(&mut at, &shape, units, projection)?;
                (Box::new(op), None, output)
            }
            #[cfg(not(target_arch = "wasm32"))]
            LayerSpec::External { tensors, output } => {
                external(&mut at, spec, tensors)?;
                // No operation: the value that the loss sees is another program's.
                len_of(output)?;
                shapes.push(output.clone());
                current += 1;
                continue;
            }
            LayerSpec::TiedDense {} => {
                let (op, output) = TiedDense::new(&mut at, &shape, table.take())?;
                (Box::new(op), None, output)
            }
        };
        // An embedding is the first layer.
        let shares = matches!(layer_spec, LayerSpec::TiedDense {}).then_some(0);
        len_of(&output)?;
        nodes.push(Node {
            op,
            input: current,
            other,
            parameters: parameters_before..layout.len(),
            shares,
        });
        shapes.push(output);
        current = nodes.len();
    }
    let at = Placement {
        layer: spec.layers.len(),
        kind: spec.loss.kind(),
        layout: &mut layout,
    };
    let outputs = &shapes[current];
    let (loss, classes): (Box<dyn LossOp>, usize) = match spec.loss {
        LossSpec::SoftmaxCrossEntropy => {
            let loss = SoftmaxCrossEntropy::new(&at, outputs)?;
            let classes = loss.classes;
            (Box::new(loss), classes)
        }
        LossSpec::SigmoidCrossEntropy => elementwise(Measure::SigmoidCrossEntropy, outputs)?,
        LossSpec::MeanSquaredError => elementwise(Measure::SquaredError, outputs)?,
    };
    Ok(Program {
        layout,
        nodes,
        shapes,
        loss,
        classes,
        input,
    })
}
