//! From a spec to a list of operations over one flat parameter vector: shapes are inferred and checked here.

use std::ops::Range;

use crate::{
    Layout, MAX_PARAMETERS, SpecError,
    layout::Init,
    ops::{LossOp, Op, dense::Dense, relu::Relu, softmax_cross_entropy::SoftmaxCrossEntropy},
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
            .ok_or(SpecError::TooLarge {
                limit: MAX_PARAMETERS,
            })?;
        Ok(offset)
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

pub(super) fn compile(spec: &ModelSpec) -> Result<Program, SpecError> {
    if spec.input.is_empty() || spec.input.contains(&0) {
        return Err(SpecError::Input(spec.input.clone()));
    }
    len_of(&spec.input)?;
    let mut layout = Layout::default();
    let mut nodes: Vec<Node> = Vec::with_capacity(spec.layers.len());
    let mut shapes = vec![spec.input.clone()];
    let mut current = 0;
    let input = InputKind::Numbers;
    for (layer, layer_spec) in spec.layers.iter().enumerate() {
        let shape = shapes[current].clone();
        let parameters_before = layout.len();
        let mut at = Placement {
            layer,
            kind: layer_spec.kind(),
            layout: &mut layout,
        };
        let (op, other, output): (Box<dyn Op>, _, _) = match *layer_spec {
            LayerSpec::Dense { units } => {
                let (op, output) = Dense::new(&mut at, &shape, units)?;
                (Box::new(op), None, output)
            }
            LayerSpec::Relu {} => {
                let fused = current > 0 && nodes.last_mut().is_some_and(|node| node.op.fuse_relu());
                if fused {
                    continue;
                }
                (Box::new(Relu::new(len_of(&shape)?)), None, shape)
            }
        };
        len_of(&output)?;
        nodes.push(Node {
            op,
            input: current,
            other,
            parameters: parameters_before..layout.len(),
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
